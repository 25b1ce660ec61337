/* log.c - logging on libqb, see log.h.
 *
 * libqb's state is per process, so this module has the one allowed global, log_process.  Each open
 * log has a number there; a line is handed to libqb with that number as its tag, and libqb's one
 * custom target finds the log by it.  libqb itself keeps the blackbox.
 *
 * Invariants:
 *  1. libqb is entered with log_process.lock held only: it drops lines of a second thread, and it
 *     writes the tag into a call site that all logs share.
 *  2. A crash takes no lock: whoever holds it may be the one that crashed.
 *  3. A message is formatted once, before the lock, and is at most MSG_MAX bytes on one line.
 */
#include "config.h"

#include "lib/base/log.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <qb/qblog.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum {
	LOGS_MAX = 64,
	MSG_MAX = 1024,
	LINE_MAX_ = MSG_MAX * 6 + 512, /* each byte may become a JSON \u escape */
	BLACKBOX_SIZE = 256 << 10,
	FRAMES_MAX = 64,
	CRASH_SECONDS = 5, /* a dump that hangs must not keep the process */
	NAME_LEN = 16,
};

#define ROTATE_SIZE (500ull << 20)

struct log {
	uint32_t tag; /* index in log_process.logs, plus 1 */
	enum log_dst dst;
	enum log_format format;
	int level; /* enum log_level; read by any thread without the lock */
	int fd;	   /* LOG_D_FILE: ours; LOG_D_STDOUT: 1 */
	bool colour;
	uint16_t port;
	uint64_t size; /* LOG_D_FILE */
	char *program, *path, *blackbox;
	time_t text_of; /* which second time_text shows */
	char time_text[NAME_LEN];
};

static struct {
	pthread_mutex_t lock;
	unsigned users;
	int32_t target;
	bool blackbox;
	struct log *logs[LOGS_MAX];
} log_process = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char *const level_names[] = {"emerg",   "alert",  "crit", "err",
					  "warning", "notice", "info", "debug"};

const char *log_level_name(enum log_level level)
{
	return level <= LOG_L_DEBUG ? level_names[level] : "?";
}

int log_level_parse(const char *name)
{
	for (int i = LOG_L_EMERG; i <= LOG_L_DEBUG; i++)
		if (!strcmp(name, level_names[i]))
			return i;
	return -EINVAL;
}

/* ---- one line ---- */

struct line {
	char *buf;
	size_t len, max;
};

static void line_add(struct line *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void line_add(struct line *o, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(o->buf + o->len, o->max - o->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		o->len += (size_t)n < o->max - o->len ? (size_t)n : o->max - o->len - 1;
}

static void line_bytes(struct line *o, const char *s, size_t n)
{
	n = n < o->max - o->len - 1 ? n : o->max - o->len - 1;
	memcpy(o->buf + o->len, s, n);
	o->len += n;
	o->buf[o->len] = '\0';
}

static void line_json(struct line *o, const char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (c == '"' || c == '\\')
			line_add(o, "\\%c", c);
		else if (c < 0x20)
			line_add(o, "\\u%04x", c);
		else
			line_bytes(o, s, 1);
	}
}

/* "main" and 0 for the process's first thread, else the thread's name and number. */
static int thread_name(char name[NAME_LEN])
{
	int tid = gettid();
	memcpy(name, "main", sizeof("main"));
	if (tid == getpid())
		return 0;
	memset(name, 0, NAME_LEN);
	prctl(PR_GET_NAME, name);
	return tid;
}

/* "Nov 22 08:46:27", made once a second. */
static const char *time_text(struct log *l, time_t t)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tm tm;
	if (l->text_of != t && localtime_r(&t, &tm)) {
		snprintf(l->time_text, sizeof(l->time_text), "%.3s %02u %02u:%02u:%02u",
			 months + tm.tm_mon % 12 * 3, (unsigned)tm.tm_mday % 100,
			 (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100,
			 (unsigned)tm.tm_sec % 100);
		l->text_of = t;
	}
	return l->time_text;
}

static void put_level(const struct log *l, struct line *o, uint8_t level)
{
	static const char *const columns[] = {"EMERG", "ALERT",	 "CRIT", "ERROR",
					      "WARN",  "NOTICE", "INFO", "DEBUG"};
	const char *text = level <= LOG_L_DEBUG ? columns[level] : "?";
	if (!l->colour || level > LOG_L_WARNING)
		line_add(o, "%6s", text);
	else
		line_add(o, "\033[%dm%6s\033[0m", level == LOG_L_WARNING ? 33 : 31, text);
}

static void put_server(struct log *l, struct line *o, const struct qb_log_callsite *cs,
		       const struct timespec *ts, const char *msg)
{
	char name[NAME_LEN];
	int tid = thread_name(name);
	if (l->dst != LOG_D_SYSLOG)
		line_add(o, "%s ", time_text(l, ts->tv_sec));
	put_level(l, o, cs->priority);
	if (tid)
		line_add(o, " [%s %d] %s(%u) ", name, tid, cs->function, cs->lineno);
	else
		line_add(o, " [%s] %s(%u) ", name, cs->function, cs->lineno);
	line_bytes(o, msg, strlen(msg));
}

static void put_json(struct log *l, struct line *o, const struct qb_log_callsite *cs,
		     const struct timespec *ts, const char *msg)
{
	char name[NAME_LEN];
	int tid = thread_name(name);
	line_add(o, "{ \"user_info\": {\"program_name\": \"");
	line_json(o, l->program);
	line_add(o, "\", \"port\": %u},\"body\": {\"second\": %lld, \"usecond\": %ld, ", l->port,
		 (long long)ts->tv_sec, ts->tv_nsec / 1000);
	line_add(o, "\"worker_name\": \"");
	line_json(o, name);
	line_add(o, "\", \"worker_idx\": %d, \"func\": \"%s\", \"line\": %u, \"msg\": \"", tid,
		 cs->function, cs->lineno);
	line_json(o, msg);
	line_add(o, "\"} }");
}

/* ---- where lines go ---- */

static int open_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	return fd < 0 ? -errno : fd;
}

/* Called with the lock held. */
static int rotate(struct log *l)
{
	char to[4096], stamp[32];
	struct tm tm;
	time_t now = time(NULL);
	if (!localtime_r(&now, &tm) || !strftime(stamp, sizeof(stamp), "%Y-%m-%d-%H-%M", &tm))
		return -EINVAL;
	int n = snprintf(to, sizeof(to), "%s.%s", l->path, stamp);
	if (n < 0 || (size_t)n >= sizeof(to))
		return -ENAMETOOLONG;
	/* somebody may have moved it away already: then a new one is all we have to make */
	int moved = rename(l->path, to);
	if (moved < 0 && errno != ENOENT)
		return -errno;
	int fd = open_file(l->path);
	if (fd < 0) {
		if (moved == 0)
			(void)rename(to, l->path);
		return fd;
	}
	close(l->fd);
	l->fd = fd;
	l->size = 0;
	return 0;
}

static void write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* a full disk or a closed terminal: the line is lost */
		buf += n;
		len -= (size_t)n;
	}
}

static void emit(struct log *l, struct line *o, uint8_t level)
{
	if (l->dst == LOG_D_SYSLOG) {
		syslog(level, "%s", o->buf);
		return;
	}
	line_bytes(o, "\n", 1);
	write_all(l->fd, o->buf, o->len);
	if (l->dst != LOG_D_FILE)
		return;
	l->size += o->len;
	/* one that cannot be rotated now is tried again after as much again */
	if (l->size >= ROTATE_SIZE && rotate(l) < 0)
		l->size = 0;
}

/* libqb's custom target.  Lines without one of our tags are libqb's own. */
static void on_line(int32_t target, struct qb_log_callsite *cs, struct timespec *ts,
		    const char *msg)
{
	char buf[LINE_MAX_];
	struct line o = {.buf = buf, .max = sizeof(buf) - 1}; /* room for the newline */
	struct log *l = cs->tags - 1 < LOGS_MAX ? log_process.logs[cs->tags - 1] : NULL;
	if (!l)
		return;
	buf[0] = '\0';
	switch (l->format) {
	case LOG_F_SERVER: put_server(l, &o, cs, ts, msg); break;
	case LOG_F_DEFAULT: line_bytes(&o, msg, strlen(msg)); break;
	case LOG_F_JSON: put_json(l, &o, cs, ts, msg); break;
	}
	o.max = sizeof(buf);
	emit(l, &o, cs->priority);
}

/* One line whatever is in it: names that came over the wire must not make log lines of their own.
 */
static void clean(char *msg, size_t len)
{
	while (len && msg[len - 1] == '\n')
		msg[--len] = '\0';
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)msg[i] < 0x20 && msg[i] != '\t')
			msg[i] = ' ';
}

void log_write(struct log *l, enum log_level level, const char *func, int line, const char *fmt,
	       ...)
{
	char msg[MSG_MAX + 1];
	int saved = errno;
	va_list ap;
	if (!l)
		return;
	va_start(ap, fmt);
	int n = vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (n < 0)
		msg[n = 0] = '\0';
	clean(msg, (size_t)n < sizeof(msg) ? (size_t)n : sizeof(msg) - 1);
	pthread_mutex_lock(&log_process.lock);
	/* libqb tells call sites apart by file, line and format: the function is as good as a file
	 */
	qb_log_from_external_source(func, func, "%s", (uint8_t)level, (uint32_t)line, l->tag, msg);
	pthread_mutex_unlock(&log_process.lock);
	errno = saved;
}

/* ---- life ---- */

/* libqb backs its blackbox by two files in /dev/shm which a kill -9 would leave there.  They are
 * mapped, their names are of no use. */
static void forget_blackbox_files(void)
{
	char line[4096 + 128];
	FILE *f = fopen("/proc/self/maps", "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *path = strchr(line, '/');
		if (!path || !strstr(path, "/qb-") || !strstr(path, "-blackbox-"))
			continue;
		path[strcspn(path, "\n")] = '\0';
		unlink(path);
	}
	if (f)
		fclose(f);
}

static int start_blackbox(void)
{
	int r = qb_log_filter_ctl(QB_LOG_BLACKBOX, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, "*",
				  LOG_DEBUG);
	if (r == 0)
		r = qb_log_ctl(QB_LOG_BLACKBOX, QB_LOG_CONF_SIZE, BLACKBOX_SIZE);
	if (r == 0)
		r = qb_log_ctl(QB_LOG_BLACKBOX, QB_LOG_CONF_MAX_LINE_LEN, MSG_MAX + 1);
	if (r == 0)
		r = qb_log_ctl(QB_LOG_BLACKBOX, QB_LOG_CONF_ENABLED, QB_TRUE);
	if (r < 0)
		return r;
	forget_blackbox_files();
	log_process.blackbox = true;
	return 0;
}

/* The first log of the process. */
static int process_start(const char *program)
{
	void *frame[1];
	(void)backtrace(frame, 1); /* loads what it needs now, not in a crash */
	qb_log_init(program, LOG_DAEMON, LOG_EMERG);
	qb_log_ctl(QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
	log_process.target = qb_log_custom_open(on_line, NULL, NULL, NULL);
	int r = log_process.target < 0 ? log_process.target : 0;
	if (r == 0)
		r = qb_log_filter_ctl(log_process.target, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE,
				      "*", LOG_DEBUG);
	if (r == 0)
		r = qb_log_ctl(log_process.target, QB_LOG_CONF_MAX_LINE_LEN, MSG_MAX + 1);
	if (r == 0)
		r = qb_log_ctl(log_process.target, QB_LOG_CONF_ENABLED, QB_TRUE);
	if (r < 0)
		qb_log_fini();
	return r;
}

static void process_end(void)
{
	qb_log_fini();
	log_process.blackbox = false;
}

/* Give @l its number.  Called with the lock held. */
static int process_join(struct log *l)
{
	unsigned i = 0;
	while (i < LOGS_MAX && log_process.logs[i])
		i++;
	if (i == LOGS_MAX)
		return -EMFILE;
	int r = log_process.users ? 0 : process_start(l->program);
	if (r < 0)
		return r;
	if (l->blackbox && !log_process.blackbox)
		r = start_blackbox();
	if (r < 0) {
		if (!log_process.users)
			process_end();
		return r;
	}
	log_process.users++;
	log_process.logs[i] = l;
	l->tag = i + 1;
	return 0;
}

static char *copy(const char *s, int *r)
{
	char *c = s ? strdup(s) : NULL;
	if (s && !c)
		*r = -ENOMEM;
	return c;
}

static int open_dst(struct log *l)
{
	struct stat st;
	switch (l->dst) {
	case LOG_D_STDOUT:
		l->fd = STDOUT_FILENO;
		l->colour = isatty(STDOUT_FILENO);
		return 0;
	case LOG_D_SYSLOG: openlog(l->program, LOG_PID, LOG_DAEMON); return 0;
	case LOG_D_FILE: break;
	}
	if (!l->path)
		return -EINVAL;
	l->fd = open_file(l->path);
	if (l->fd < 0)
		return l->fd;
	if (fstat(l->fd, &st) == 0)
		l->size = (uint64_t)st.st_size;
	return 0;
}

static void log_free(struct log *l)
{
	if (l->dst == LOG_D_SYSLOG)
		closelog(); /* it keeps a pointer to the program's name; reopens by itself */
	if (l->dst == LOG_D_FILE && l->fd >= 0)
		close(l->fd);
	free(l->program);
	free(l->path);
	free(l->blackbox);
	free(l);
}

int log_open(const struct log_conf *conf, struct log **ret)
{
	struct log *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	int r = 0;
	l->dst = conf->dst;
	l->format = conf->format;
	l->level = (int)conf->level;
	l->port = conf->port;
	l->fd = -1;
	l->text_of = -1;
	l->program = copy(conf->program ? conf->program : "sheep", &r);
	l->path = copy(conf->path, &r);
	l->blackbox = copy(conf->blackbox, &r);
	if (r == 0)
		r = open_dst(l);
	if (r == 0) {
		pthread_mutex_lock(&log_process.lock);
		r = process_join(l);
		pthread_mutex_unlock(&log_process.lock);
	}
	if (r < 0) {
		log_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void log_close(struct log *l)
{
	if (!l)
		return;
	pthread_mutex_lock(&log_process.lock);
	log_process.logs[l->tag - 1] = NULL;
	if (--log_process.users == 0)
		process_end();
	pthread_mutex_unlock(&log_process.lock);
	log_free(l);
}

void log_set_level(struct log *l, enum log_level level)
{
	__atomic_store_n(&l->level, (int)level, __ATOMIC_RELAXED);
}

enum log_level log_get_level(const struct log *l)
{
	return (enum log_level)__atomic_load_n(&l->level, __ATOMIC_RELAXED);
}

int log_rotate(struct log *l)
{
	if (!l || l->dst != LOG_D_FILE)
		return 0;
	pthread_mutex_lock(&log_process.lock);
	int r = rotate(l);
	pthread_mutex_unlock(&log_process.lock);
	return r;
}

/* The backtrace first: it needs the least of a damaged process. */
void log_crash_dump(struct log *l, int signo)
{
	void *frames[FRAMES_MAX];
	char head[128];
	sigset_t set;
	int fd = l && l->fd >= 0 ? l->fd : STDERR_FILENO;
	signal(SIGALRM, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	unsigned before = alarm(CRASH_SECONDS);
	int n = snprintf(head, sizeof(head), "%s exits unexpectedly (signal %d), backtrace:\n",
			 l ? l->program : "sheep", signo);
	write_all(fd, head, (size_t)n < sizeof(head) ? (size_t)n : sizeof(head) - 1);
	backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), fd);
	if (l && l->blackbox && log_process.blackbox) {
		unlink(l->blackbox);
		(void)qb_log_blackbox_write_to_file(l->blackbox);
	}
	alarm(before);
}
