/* test_log.c - several logs in one process, the formats, rotation, levels, the crash dump. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/util.h"

enum { NR_LOGS = 40, PATH_LEN = 128, TEXT_LEN = 1 << 20 };

static char dir[64];

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/test_log.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	while (d && (de = readdir(d)))
		if (de->d_name[0] != '.')
			unlinkat(dirfd(d), de->d_name, 0);
	closedir(d);
	return rmdir(dir);
}

static const char *path_of(const char *name)
{
	static char path[PATH_LEN];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

/* The whole file, NUL-terminated; its size in *@len. */
static char *slurp(const char *path, size_t *len)
{
	char *text = calloc(1, TEXT_LEN + 1);
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(text, 1, TEXT_LEN, f) : 0;
	assert_non_null(f);
	fclose(f);
	if (len)
		*len = n;
	return text;
}

static struct log *open_log(const char *name, enum log_format format, enum log_level level)
{
	struct log *l = NULL;
	struct log_conf conf = {.program = "sheep",
				.dst = LOG_D_FILE,
				.format = format,
				.level = level,
				.path = path_of(name),
				.port = 7101};
	assert_int_equal(log_open(&conf, &l), 0);
	return l;
}

static void assert_text(const char *name, const char *want)
{
	char *text = slurp(path_of(name), NULL);
	assert_string_equal(text, want);
	free(text);
}

static void assert_matches(const char *name, const char *pattern)
{
	regex_t re;
	char *text = slurp(path_of(name), NULL);
	assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	if (regexec(&re, text, 0, NULL, 0))
		fail_msg("'%s' is not '%s'", text, pattern);
	regfree(&re);
	free(text);
}

static void levels(void **state)
{
	static const char *const names[] = {"emerg",   "alert",	 "crit", "err",
					    "warning", "notice", "info", "debug"};
	for (int i = 0; i < 8; i++) {
		assert_string_equal(log_level_name((enum log_level)i), names[i]);
		assert_int_equal(log_level_parse(names[i]), i);
	}
	assert_int_equal(log_level_parse("error"), -EINVAL);
	assert_int_equal(log_level_parse(""), -EINVAL);
}

/* One call site for all of them, and each line in its own file. */
static void several(void **state)
{
	struct log *l[NR_LOGS];
	char name[16], want[256];
	for (int i = 0; i < NR_LOGS; i++) {
		snprintf(name, sizeof(name), "log%d", i);
		l[i] = open_log(name, LOG_F_DEFAULT, LOG_L_INFO);
	}
	for (int n = 0; n < 3; n++)
		for (int i = 0; i < NR_LOGS; i++)
			log_info(l[i], "line %d of %d", n, i);
	/* a number that is given again */
	log_close(l[3]);
	l[3] = open_log("again", LOG_F_DEFAULT, LOG_L_INFO);
	log_info(l[3], "second");
	for (int i = 0; i < NR_LOGS; i++) {
		snprintf(name, sizeof(name), "log%d", i);
		snprintf(want, sizeof(want), "line 0 of %d\nline 1 of %d\nline 2 of %d\n", i, i, i);
		assert_text(name, want);
		log_close(l[i]);
	}
	assert_text("again", "second\n");
	/* after the last one was closed */
	struct log *again = open_log("again", LOG_F_DEFAULT, LOG_L_INFO);
	log_info(again, "third");
	log_close(again);
	assert_text("again", "second\nthird\n");
	log_info((struct log *)NULL, "nowhere");
	log_close(NULL);
}

static void too_many(void **state)
{
	enum { MORE = 65 };
	struct log *l[MORE];
	struct log_conf conf = {.program = "sheep", .dst = LOG_D_FILE, .path = "/dev/null"};
	int n = 0, r = 0;
	while (n < MORE && (r = log_open(&conf, &l[n])) == 0)
		n++;
	assert_int_equal(n, 64);
	assert_int_equal(r, -EMFILE);
	while (n)
		log_close(l[--n]);
}

static void *other_thread(void *arg)
{
	pthread_setname_np(pthread_self(), "io");
	log_warn((struct log *)arg, "from a thread");
	return NULL;
}

static void server_format(void **state)
{
	struct log *l = open_log("s", LOG_F_SERVER, LOG_L_DEBUG);
	static const char *const columns[] = {" EMERG", " ALERT", "  CRIT", " ERROR",
					      "  WARN", "NOTICE", "  INFO", " DEBUG"};
	char pattern[256];
	for (int i = 0; i < 8; i++) {
		log_write(l, (enum log_level)i, "fn", 12, "m %d", i);
		snprintf(pattern, sizeof(pattern),
			 "(^|\n)[A-Z][a-z]{2} [0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} %s \\[main\\] "
			 "fn\\(12\\) m %d\n$",
			 columns[i], i);
		assert_matches("s", pattern);
	}
	/* the time is now, in local time */
	time_t before = time(NULL);
	log_info(l, "now");
	char *text = slurp(path_of("s"), NULL), *line = NULL;
	for (char *p = strtok(text, "\n"); p; p = strtok(NULL, "\n"))
		line = p;
	bool found = false;
	for (time_t t = before - 1; t <= before + 2; t++) {
		char stamp[32];
		strftime(stamp, sizeof(stamp), "%b %d %H:%M:%S ", localtime(&t));
		found |= !strncmp(line, stamp, strlen(stamp));
	}
	assert_true(found);
	free(text);

	pthread_t th;
	assert_int_equal(pthread_create(&th, NULL, other_thread, l), 0);
	pthread_join(th, NULL);
	assert_matches("s", "  WARN \\[io [0-9]+\\] other_thread\\([0-9]+\\) from a thread\n$");
	log_close(l);
}

static void json_format(void **state)
{
	struct log *l = open_log("j", LOG_F_JSON, LOG_L_INFO);
	log_write(l, LOG_L_INFO, "md_add_disk", 367, "say \"a\\b\"\t\x01 end\n");
	assert_matches("j",
		       "^\\{ \"user_info\": \\{\"program_name\": \"sheep\", \"port\": 7101\\},"
		       "\"body\": \\{\"second\": [0-9]{10}, \"usecond\": [0-9]{1,6}, "
		       "\"worker_name\": \"main\", \"worker_idx\": 0, \"func\": \"md_add_disk\", "
		       "\"line\": 367, \"msg\": \"say \\\\\"a\\\\\\\\b\\\\\"\\\\u0009  end\"\\} "
		       "\\}\n$");
	log_close(l);
}

static void messages(void **state)
{
	struct log *l = open_log("d", LOG_F_DEFAULT, LOG_L_INFO);
	char *big = malloc(5001);
	size_t len;
	memset(big, 'x', 5000);
	big[5000] = '\0';
	/* one line, whatever a client puts into a name; errno is there and stays */
	errno = ENOENT;
	log_info(l, "a\nb\r\x1b[31m: %m\n");
	assert_int_equal(errno, ENOENT);
	assert_text("d", "a b  [31m: No such file or directory\n");
	log_info(l, "%s", "100% %s %n");
	assert_text("d", "a b  [31m: No such file or directory\n100% %s %n\n");
	log_info(l, "%s", big);
	char *text = slurp(path_of("d"), &len);
	char *last = strstr(text, "xxx");
	assert_int_equal(strspn(last, "x"), 1024);
	assert_string_equal(last + 1024, "\n");
	free(text);
	free(big);
	log_close(l);
}

static unsigned formatted;

static unsigned count_format(void)
{
	return ++formatted;
}

static void level_off(void **state)
{
	enum { N = 1000000 };
	struct log *l = open_log("l", LOG_F_DEFAULT, LOG_L_NOTICE);
	struct timespec a, b;
	log_info(l, "%u", count_format());
	log_debug(l, "%u", count_format());
	assert_int_equal(formatted, 0); /* not even the arguments */
	log_notice(l, "%u", count_format());
	log_set_level(l, LOG_L_DEBUG);
	assert_int_equal(log_get_level(l), LOG_L_DEBUG);
	log_debug(l, "%u", count_format());
	log_set_level(l, LOG_L_ERR);
	log_warn(l, "%u", count_format());
	assert_text("l", "1\n2\n");
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < N; i++)
		log_debug(l, "%d", i);
	clock_gettime(CLOCK_MONOTONIC, &b);
	double ns = ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / N;
	assert_true(ns < 500); /* some ns; room for valgrind and a busy machine */
	log_close(l);
}

static unsigned rotated(void)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	unsigned n = 0;
	regex_t re;
	assert_int_equal(regcomp(&re, "^r\\.[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{2}-[0-9]{2}$",
				 REG_EXTENDED | REG_NOSUB),
			 0);
	while ((de = readdir(d)))
		n += !regexec(&re, de->d_name, 0, NULL, 0);
	closedir(d);
	regfree(&re);
	return n;
}

static void rotation(void **state)
{
	struct log *l = open_log("r", LOG_F_DEFAULT, LOG_L_INFO);
	log_info(l, "one");
	assert_int_equal(log_rotate(l), 0);
	assert_text("r", "");
	assert_int_equal(rotated(), 1);
	log_info(l, "two");
	assert_text("r", "two\n");
	/* moved away by somebody else */
	assert_int_equal(unlink(path_of("r")), 0);
	assert_int_equal(log_rotate(l), 0);
	log_info(l, "three");
	assert_text("r", "three\n");
	log_close(l);
	/* at 500 MB, counted from what the file had */
	char name[PATH_LEN];
	snprintf(name, sizeof(name), "%s", path_of("r"));
	assert_int_equal(truncate(name, (500 << 20) - 6), 0);
	l = open_log("r", LOG_F_DEFAULT, LOG_L_INFO);
	log_info(l, "abcd");
	struct stat st;
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(st.st_size, (500 << 20) - 1);
	log_info(l, "x");
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_in_range(rotated(), 1, 2); /* the minute may have changed */
	log_close(l);

	/* a log that cannot be opened, and where there is nothing to rotate */
	struct log_conf conf = {.program = "sheep", .dst = LOG_D_FILE, .path = "/nowhere/x"};
	assert_int_equal(log_open(&conf, &l), -ENOENT);
	conf.path = NULL;
	assert_int_equal(log_open(&conf, &l), -EINVAL);
	conf.dst = LOG_D_STDOUT;
	assert_int_equal(log_open(&conf, &l), 0);
	assert_int_equal(log_rotate(l), 0);
	log_close(l);
}

/* In a child: stdout is a file there, so without colours. */
static void stdout_dst(void **state)
{
	char out[PATH_LEN];
	snprintf(out, sizeof(out), "%s", path_of("out"));
	pid_t pid = fork();
	if (pid == 0) {
		struct log *l;
		struct log_conf conf = {.program = "sheep",
					.dst = LOG_D_STDOUT,
					.level = LOG_L_INFO};
		int fd = open(out, O_WRONLY | O_CREAT, 0600);
		if (fd < 0 || dup2(fd, 1) < 0 || log_open(&conf, &l) < 0)
			_exit(1);
		log_err(l, "to stdout");
		log_close(l);
		_exit(0);
	}
	int status = -1;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_matches("out", "^[A-Z][a-z]{2} [0-9: ]{11}  ERROR \\[main\\] stdout_dst\\([0-9]+\\) "
			      "to stdout\n$");
}

static struct log *crash_log;

static void on_crash(int signo)
{
	log_crash_dump(crash_log, signo);
	raise(signo);
}

static unsigned shm_left(void)
{
	DIR *d = opendir("/dev/shm");
	struct dirent *de;
	char mine[64];
	unsigned n = 0;
	snprintf(mine, sizeof(mine), "-%d-blackbox", getpid());
	while (d && (de = readdir(d)))
		n += strstr(de->d_name, mine) != NULL;
	if (d)
		closedir(d);
	return n;
}

/* In a child: what a daemon does when it crashes. */
static void crash_child(const char *log, const char *blackbox)
{
	struct log_conf conf = {.program = "sheep",
				.dst = LOG_D_FILE,
				.level = LOG_L_INFO,
				.path = log,
				.blackbox = blackbox};
	struct sigaction sa = {.sa_handler = on_crash, .sa_flags = SA_RESETHAND | SA_NODEFER};
	if (log_open(&conf, &crash_log) < 0)
		_exit(1);
	for (int i = 0; i < 10000; i++)
		log_info(crash_log, "before the crash %d", i);
	if (shm_left())
		_exit(2);
	sigaction(SIGABRT, &sa, NULL);
	abort();
}

static void crash(void **state)
{
	char log[PATH_LEN], blackbox[PATH_LEN];
	snprintf(log, sizeof(log), "%s", path_of("crash"));
	snprintf(blackbox, sizeof(blackbox), "%s", path_of("blackbox"));
	pid_t pid = fork();
	if (pid == 0)
		crash_child(log, blackbox);
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	size_t len;
	char *text = slurp(log, NULL);
	char *head = strstr(text, "sheep exits unexpectedly (signal 6), backtrace:\n");
	assert_non_null(head);
	assert_non_null(strstr(head, "test_log")); /* frames of this program */
	free(text);
	char *box = slurp(blackbox, &len);
	assert_true(len > 100000); /* a ring of 256 KiB, full */
	assert_non_null(memmem(box, len, "before the crash 9999", 21));
	assert_null(memmem(box, len, "before the crash 0\0", 19));
	free(box);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(levels),   T(several),   T(too_many), T(server_format), T(json_format),
		T(messages), T(level_off), T(rotation), T(stdout_dst),	  T(crash),
	};
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
