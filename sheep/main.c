/* main.c - the process around one daemon: daemonizing, honest start-up, signals, pid file.
 *
 * The process that the user started waits on a pipe until the daemon says how its start went, and
 * returns with that (cli.md 1.5; but the original returns earlier and hides failures).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/util.h"
#include "lib/env/linux.h"
#include "sheep/options.h"

#define NOFILE_WANTED  65536u
#define AIO_DEPTH      1024u
#define NR_WORKERS     4u
#define STOP_WITHIN_NS 60000000000ull /* a stop that takes longer is given up */
/* Buffers beyond this are given back to the kernel when they are freed: a burst of large requests
 * leaves no memory behind. */
#define MMAP_THRESHOLD (256 << 10)
#define ALT_STACK      (64u << 10)
#define START_MSG_MAX  4096u
/* A daemon that lost the cluster comes back after that long; twice that the next time, and so on.
 */
#define AGAIN_MIN_NS  100000000ull
#define AGAIN_MAX_NS  5000000000ull
#define AGAIN_WELL_NS 60000000000ull /* it ran for so long: from the beginning */

struct process {
	struct sheep_options opt;
	struct sheep sh;
	struct env *env;
	struct env_watch *watch;
	struct env_timer watchdog;
	int signal_fd;
	int start_fd; /* pipe to the process that waits for our start; -1: none */
	int pid_fd;
	char *start_msg;
	struct env_timer again;
	uint64_t again_ns, started_at;
	bool told_to_stop, came_back; /* SIGTERM; not the first start */
	uint8_t alt_stack[ALT_STACK]; /* of the crash handler, for as long as the process lives */
	bool start_failed;
};

/* The handler of a crash has no other way to find the log. */
static struct log *crash_log;

/* ---- signals ---- */

static void on_crash(int signo)
{
	log_crash_dump(crash_log, signo);
	raise(signo); /* SA_RESETHAND: the default action, with its core and status */
}

static int install_crash_handler(struct process *p)
{
	static const int signals[] = {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGQUIT};
	/* Coroutine stacks are small, and one of them may be what overflowed. */
	stack_t st = {.ss_sp = p->alt_stack, .ss_size = sizeof(p->alt_stack)};
	struct sigaction sa = {.sa_handler = on_crash,
			       .sa_flags = SA_ONSTACK | SA_RESETHAND | SA_NODEFER};

	if (sigaltstack(&st, NULL) < 0)
		return -1;
	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], &sa, NULL) < 0)
			return -1;
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static void on_watchdog(struct env_timer *t)
{
	struct process *p = caa_container_of(t, struct process, watchdog);

	log_err(p->sh.log, "the stop takes too long: giving up");
	_exit(1);
}

static void on_signal(int fd, void *arg)
{
	struct process *p = arg;
	struct signalfd_siginfo si;

	while (read(fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP) {
			int r = log_rotate(p->sh.log);
			if (r < 0)
				log_err(p->sh.log, "cannot rotate the log: %s", strerror(-r));
			continue;
		}
		p->watchdog.fn = on_watchdog;
		env_timer_set(p->env, &p->watchdog, env_now(p->env) + STOP_WITHIN_NS);
		p->told_to_stop = true;
		if (p->again.heap_idx) { /* between two lives */
			env_timer_del(p->env, &p->again);
			p->sh.exit_status = 0;
			env_linux_stop(p->env);
		} else {
			sheep_exit(&p->sh, 0, "SIGTERM");
		}
	}
}

static int watch_signals(struct process *p)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -1;
	p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p->signal_fd < 0)
		return -1;
	p->watch = env_linux_watch(p->env, p->signal_fd, on_signal, p);
	return p->watch ? 0 : -1;
}

/* ---- the start, as the user sees it ---- */

/* Say how the start went: to the waiting process, or to our own terminal. */
static void start_done(struct process *p, bool failed, const char *msg)
{
	char status = failed ? 'E' : 'W';

	if (p->start_fd < 0) {
		if (msg)
			fprintf(failed ? stderr : stdout, "%s\n", msg);
		fflush(stdout);
		return;
	}
	struct iovec iov[2] = {{&status, 1}, {(void *)(msg ? msg : ""), msg ? strlen(msg) : 0}};
	if (writev(p->start_fd, iov, 2) < 0)
		log_warn(p->sh.log, "nobody waits for the result of the start: %m");
	close(p->start_fd);
	p->start_fd = -1;
}

/* The process that the user started: its exit status. */
static int wait_for_start(int fd, pid_t child, const struct sheep_options *o)
{
	char buf[START_MSG_MAX];
	size_t len = 0;
	ssize_t n;

	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	while (len < sizeof(buf) - 1 && (n = read(fd, buf + len, sizeof(buf) - 1 - len)) != 0) {
		if (n > 0)
			len += n;
		else if (errno != EINTR)
			break;
	}
	buf[len] = '\0';
	if (!len) {
		fprintf(stderr, "sheep died while it started; see %s\n",
			o->log_path ? o->log_path : "its log");
		return 1;
	}
	if (buf[1])
		fprintf(buf[0] == 'W' ? stdout : stderr, "%s\n", buf + 1);
	return buf[0] == 'W' ? 0 : 1;
}

/* Returns in the daemon only; the other processes exit. */
static int daemonize(struct process *p)
{
	int fds[2], null;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		return -errno;
	if (pid) {
		close(fds[1]);
		exit(wait_for_start(fds[0], pid, &p->opt));
	}
	close(fds[0]);
	p->start_fd = fds[1];
	if (setsid() < 0 || (pid = fork()) < 0)
		return -errno;
	if (pid)
		_exit(0);
	null = open("/dev/null", O_RDWR);
	if (null < 0)
		return -errno;
	for (int fd = 0; fd < 3; fd++)
		if (dup2(null, fd) < 0)
			return -errno;
	if (null > 2)
		close(null);
	return 0;
}

/* ---- files ---- */

static int write_pidfile(struct process *p)
{
	struct flock lk = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char text[32];
	int len = snprintf(text, sizeof(text), "%d\n", getpid());

	if (!p->opt.pidfile)
		return 0;
	p->pid_fd = open(p->opt.pidfile, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (p->pid_fd < 0)
		return -errno;
	if (fcntl(p->pid_fd, F_SETLK, &lk) < 0 || ftruncate(p->pid_fd, 0) < 0 ||
	    pwrite(p->pid_fd, text, len, 0) != len) {
		int r = errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
		close(p->pid_fd);
		p->pid_fd = -1;
		return r;
	}
	return 0;
}

static void raise_nofile(struct log *log)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur >= NOFILE_WANTED)
		return;
	rl.rlim_cur = NOFILE_WANTED;
	if (rl.rlim_max < rl.rlim_cur) {
		struct rlimit up = {NOFILE_WANTED, NOFILE_WANTED};
		if (setrlimit(RLIMIT_NOFILE, &up) == 0)
			return;
		rl.rlim_cur = rl.rlim_max;
	}
	if (setrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur < NOFILE_WANTED)
		log_info(log, "only %lu files may be open", (unsigned long)rl.rlim_cur);
}

/* ---- life ---- */

static void start_again(struct process *p)
{
	uint64_t now = env_now(p->env);

	if (now - p->started_at > AGAIN_WELL_NS || !p->again_ns)
		p->again_ns = AGAIN_MIN_NS;
	log_notice(p->sh.log, "coming back as a new incarnation in %llu ms",
		   (unsigned long long)(p->again_ns / 1000000));
	env_timer_set(p->env, &p->again, now + p->again_ns);
	p->again_ns = p->again_ns * 2 < AGAIN_MAX_NS ? p->again_ns * 2 : AGAIN_MAX_NS;
}

static void on_stopped(struct sheep *sh)
{
	struct process *p = sh->arg;

	if (sh->again && !p->told_to_stop)
		start_again(p);
	else
		env_linux_stop(p->env);
}

static void start_failed(struct process *p)
{
	log_err(p->sh.log, "%s", p->start_msg ? p->start_msg : "cannot start");
	/* Once up, a daemon does not give up because the cluster is away for a while. */
	if ((p->sh.again || (p->came_back && p->sh.off_bus)) && !p->told_to_stop) {
		free(p->start_msg);
		p->start_msg = NULL;
		start_again(p);
		return;
	}
	p->start_failed = true;
	p->sh.exit_status = 1;
	env_linux_stop(p->env);
}

static void start_co(void *arg)
{
	struct process *p = arg;

	p->started_at = env_now(p->env);
	int r = sheep_start(&p->sh, &p->start_msg); /* ~ */
	if (r < 0) {
		start_failed(p);
		return;
	}
	if (p->pid_fd < 0 && (r = write_pidfile(p)) < 0) {
		free(p->start_msg);
		p->start_msg = str_printf("Cannot write the pid file %s: %s", p->opt.pidfile,
					  strerror(-r));
		p->start_failed = true;
		sheep_exit(&p->sh, 1, "no pid file");
		return; /* the reason is told once the daemon has stopped */
	}
	if (chdir(p->opt.dir) < 0) /* cores land there */
		log_warn(p->sh.log, "cannot change to %s: %m", p->opt.dir);
	if (!p->came_back)
		start_done(p, false, p->start_msg);
	p->came_back = true;
	free(p->start_msg);
	p->start_msg = NULL;
}

static void init_sheep(struct process *p)
{
	p->sh = (struct sheep){.conf = &p->opt.conf,
			       .env = p->sh.env,
			       .sched = p->sh.sched,
			       .log = p->sh.log,
			       .stopped = on_stopped,
			       .arg = p};
}

static void on_again(struct env_timer *t)
{
	struct process *p = caa_container_of(t, struct process, again);

	init_sheep(p);
	if (!co_start(p->sh.sched, start_co, p, "start"))
		env_timer_set(p->env, t, env_now(p->env) + AGAIN_MAX_NS);
}

static int open_log(struct process *p)
{
	/* The log may lie in the store's directory, which the store would make later. */
	if (mkdir(p->opt.dir, 0770) < 0 && errno != EEXIST) {
		p->start_msg = str_printf("Cannot make the directory %s: %m", p->opt.dir);
		return -1;
	}
	int r = log_open(&p->opt.log, &p->sh.log);
	if (r < 0) {
		p->start_msg = str_printf("Cannot open the log %s: %s",
					  p->opt.log_path ? p->opt.log_path : "", strerror(-r));
		return -1;
	}
	crash_log = p->sh.log;
	return 0;
}

static int open_env(struct process *p)
{
	struct env_linux_conf conf = {.nr_workers = NR_WORKERS, .aio_depth = AIO_DEPTH};
	int r = env_linux_new(&conf, &p->env);

	if (r == 0 && (watch_signals(p) < 0 || install_crash_handler(p) < 0))
		r = -errno;
	if (r == 0) {
		p->sh.sched = co_sched_new(p->env, SD_REQUESTS_MAX);
		r = p->sh.sched ? 0 : -ENOMEM;
	}
	if (r < 0)
		p->start_msg = str_printf("Cannot start: %s", strerror(-r));
	return r;
}

static void run(struct process *p)
{
	init_sheep(p);
	p->again.fn = on_again;
	p->start_failed = true;
	if (open_log(p) < 0 || open_env(p) < 0)
		return;
	p->start_failed = false;
	raise_nofile(p->sh.log);
	p->sh.env = p->env;
	if (!co_start(p->sh.sched, start_co, p, "start"))
		abort(); /* the very first one */
	env_linux_run(p->env);
	/* The last coroutine has said that it is done; let it end. */
	while (co_sched_nr(p->sh.sched))
		env_linux_turn(p->env, 0);
	env_timer_del(p->env, &p->watchdog);
	env_linux_unwatch(p->watch);
	close(p->signal_fd);
	co_sched_free(p->sh.sched);
	env_linux_free(p->env);
}

int main(int argc, char **argv)
{
	struct process *p = calloc(1, sizeof(*p));
	int status;

	if (!p)
		return 1;
	p->start_fd = p->pid_fd = -1;
	mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD);
	status = options_parse(argc, argv, stdout, stderr, &p->opt);
	if (status < 0) {
		int r = p->opt.conf.foreground ? 0 : daemonize(p);
		if (r == 0)
			run(p);
		else
			p->start_msg = str_printf("Cannot become a daemon: %s", strerror(-r));
		if (r < 0 || p->start_failed)
			start_done(p, true, p->start_msg ? p->start_msg : "Cannot start");
		if (p->pid_fd >= 0)
			unlink(p->opt.pidfile);
		status = r < 0 || p->start_failed ? 1 : p->sh.exit_status;
		crash_log = NULL;
		log_close(p->sh.log);
		free(p->start_msg);
	}
	options_done(&p->opt);
	sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
	free(p);
	return status;
}
