/* test_env.c - the Linux env: timers, deferred calls, every I/O operation, watches, nesting. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/util.h"
#include "lib/env/linux.h"
#include "tests/unit/env_common.h"

enum { BLOCK = 4096 };

/* ---- clocks and randomness ---- */

static void clocks(void **state)
{
	uint8_t a[16], b[16], zero[16] = {0};
	uint64_t t = env_now(env);
	assert_true(env_now(env) >= t);
	/* suspends count: it is another one than CLOCK_MONOTONIC after a suspend, or under unshare
	 * -T --boottime */
	struct timespec ts;
	assert_int_equal(clock_gettime(CLOCK_BOOTTIME, &ts), 0);
	uint64_t boot = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	assert_true(boot >= t && boot <= env_now(env));
	assert_true(env_wall(env) > 1700000000ull * 1000 * MSEC);
	assert_true(env_random64(env) != env_random64(env));
	env_boot_id(env, a);
	env_boot_id(env, b);
	assert_memory_equal(a, b, 16);
	assert_memory_not_equal(a, zero, 16);

	char text[40] = "", mine[40];
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	snprintf(mine, sizeof(mine), "%02x%02x%02x%02x-%02x%02x", a[0], a[1], a[2], a[3], a[4],
		 a[5]);
	assert_memory_equal(text, mine, strlen(mine));
}

/* ---- timers ---- */

struct tm_item {
	struct env_timer t;
	uint64_t at;
	unsigned nr;
};

static unsigned fired;
static struct tm_item *last_fired;
static bool order_ok;

static void on_item(struct env_timer *t)
{
	struct tm_item *it = (struct tm_item *)t;
	assert_int_equal(t->heap_idx, 0);
	assert_true(env_now(env) >= it->at);
	if (last_fired &&
	    (last_fired->at > it->at || (last_fired->at == it->at && last_fired->nr > it->nr)))
		order_ok = false;
	last_fired = it;
	fired++;
}

/* 10,000 with many equal times, a third removed, a third set twice: what is left fires in the
 * order of (time, order of setting). */
static void timers_many(void **state)
{
	enum { N = 10000 };
	struct tm_item *it = calloc(N, sizeof(*it));
	uint64_t base = env_now(env) + 100 * MSEC;
	unsigned nr = 0, left = 0;
	uint32_t x = 12345;
	for (unsigned i = 0; i < N; i++) {
		x = x * 1664525 + 1013904223;
		it[i].t.fn = on_item;
		it[i].at = base + (x >> 16) % 500 * 100000;
		it[i].nr = nr++;
		env_timer_set(env, &it[i].t, it[i].at);
	}
	for (unsigned i = 0; i < N; i++) {
		if (i % 3 == 0) {
			env_timer_del(env, &it[i].t);
			env_timer_del(env, &it[i].t); /* harmless */
			continue;
		}
		left++;
		if (i % 3 == 1)
			continue;
		x = x * 1664525 + 1013904223;
		it[i].at = base + (x >> 16) % 500 * 100000;
		it[i].nr = nr++;
		env_timer_set(env, &it[i].t, it[i].at);
	}
	fired = 0;
	last_fired = NULL;
	order_ok = true;
	uint64_t end = env_now(env) + 5000 * MSEC;
	while (fired < left && env_now(env) < end)
		env_linux_turn(env, -1);
	assert_int_equal(fired, left);
	assert_true(order_ok);
	free(it);
}

static unsigned again;

static void on_again(struct env_timer *t)
{
	again++;
	env_timer_set(env, t, 0); /* long ago: next turn, not for ever in this one */
}

static void timer_past(void **state)
{
	struct env_timer t = {.fn = on_again};
	again = 0;
	env_timer_set(env, &t, 0);
	assert_int_equal(again, 0);
	env_linux_turn(env, -1);
	assert_int_equal(again, 1);
	env_linux_turn(env, -1);
	assert_int_equal(again, 2);
	env_timer_del(env, &t);
	env_linux_turn(env, 0);
	assert_int_equal(again, 2);
}

static void on_stop(struct env_timer *t)
{
	env_linux_stop(env);
}

static void timer_exact(void **state)
{
	struct env_timer t = {.fn = on_stop};
	uint64_t best = UINT64_MAX;
	for (int i = 0; i < 20; i++) {
		uint64_t at = env_now(env) + 2 * MSEC + 300000;
		env_timer_set(env, &t, at);
		env_linux_run(env);
		uint64_t late = env_now(env) - at;
		assert_true(late < 1ull << 62); /* never early */
		best = late < best ? late : best;
	}
	/* not rounded to milliseconds, where the kernel (or valgrind) lets us say it finer */
	struct epoll_event ev;
	bool fine = epoll_pwait2(-1, &ev, 1, NULL, NULL) == 0 || errno == EBADF;
	assert_true(best < (fine ? MSEC / 2 : 5 * MSEC));
}

/* ---- deferred calls ---- */

struct df_item {
	struct env_defer d;
	char name;
	struct env_defer *start, *stop;
};

static char df_log[64];

static void on_df(struct env_defer *d)
{
	struct df_item *it = (struct df_item *)d;
	size_t n = strlen(df_log);
	df_log[n] = it->name;
	df_log[n + 1] = '\0';
	if (it->start)
		env_defer(env, it->start);
	if (it->stop)
		env_defer_del(env, it->stop);
}

static void defers(void **state)
{
	struct df_item a = {.d.fn = on_df, .name = 'a'}, b = {.d.fn = on_df, .name = 'b'},
		       c = {.d.fn = on_df, .name = 'c'}, d = {.d.fn = on_df, .name = 'd'};
	df_log[0] = '\0';
	a.start = &d.d; /* after what is queued */
	b.stop = &c.d;	/* the next one: never runs */
	env_defer(env, &a.d);
	env_defer(env, &b.d);
	env_defer(env, &b.d); /* once */
	env_defer(env, &c.d);
	assert_string_equal(df_log, "");
	env_linux_turn(env, -1); /* does not sleep */
	assert_string_equal(df_log, "abd");
	assert_false(a.d.queued || b.d.queued || c.d.queued || d.d.queued);
	env_defer_del(env, &a.d); /* harmless */

	/* one that queues itself does not keep the turn */
	df_log[0] = '\0';
	a.start = &a.d;
	env_defer(env, &a.d);
	env_linux_turn(env, -1);
	size_t n = strlen(df_log);
	assert_in_range(n, 1, 20);
	env_linux_turn(env, -1);
	assert_true(strlen(df_log) > n);
	env_defer_del(env, &a.d);
}

/* ---- disk ---- */

static bool io_in_call;

static void on_io(struct env_io *io)
{
	assert_false(io_in_call);
	*(bool *)io->arg = true;
}

static int64_t run_io(struct env_io *io)
{
	bool done = false;
	io->done = on_io;
	io->arg = &done;
	io_in_call = true;
	env_io_submit(env, io);
	io_in_call = false;
	assert_false(done);
	assert_true(turn_until(&done, 10000));
	return io->result;
}

static struct env_file *open_file(struct env_file *dir, const char *name, int flags)
{
	struct env_io io = {.op = ENV_IO_OPEN,
			    .file = dir,
			    .name = name,
			    .flags = (unsigned)flags,
			    .mode = 0600};
	int64_t r = run_io(&io);
	if (r < 0) {
		errno = (int)-r;
		return NULL;
	}
	assert_non_null(io.result_file);
	assert_true(env_linux_file_fd(io.result_file) >= 0);
	return io.result_file;
}

static void close_file(struct env_file *f)
{
	struct env_io io = {.op = ENV_IO_CLOSE, .file = f};
	assert_int_equal(run_io(&io), 0);
}

static int64_t rw(enum env_io_op op, unsigned flags, struct env_file *f, void *buf, size_t len,
		  uint64_t off)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct env_io io = {
		.op = op, .flags = flags, .file = f, .iov = &iov, .iovcnt = 1, .off = off};
	return run_io(&io);
}

static int64_t simple(enum env_io_op op, struct env_file *f, const char *name, uint64_t off,
		      uint64_t len)
{
	struct env_io io = {
		.op = op, .file = f, .name = name, .off = off, .len = len, .mode = 0700};
	return run_io(&io);
}

/* A directory on a disk, and one in memory: the two go different ways. */
static const char *const bases[] = {"/var/tmp", "/dev/shm"};
static char dir_name[64];

static struct env_file *test_dir(const char *base)
{
	snprintf(dir_name, sizeof(dir_name), "%s/test_env.XXXXXX", base);
	assert_non_null(mkdtemp(dir_name));
	struct env_file *d = open_file(NULL, dir_name, O_RDONLY | O_DIRECTORY);
	assert_non_null(d);
	return d;
}

static void remove_dir(struct env_file *d)
{
	struct env_io io = {.op = ENV_IO_LIST, .file = d};
	assert_true(run_io(&io) >= 0);
	for (char **n = io.names; *n; n++) {
		if (unlinkat(env_linux_file_fd(d), *n, 0) < 0)
			assert_int_equal(unlinkat(env_linux_file_fd(d), *n, AT_REMOVEDIR), 0);
		free(*n);
	}
	free(io.names);
	close_file(d);
	assert_int_equal(rmdir(dir_name), 0);
}

static void check_names(struct env_file *d)
{
	static const char *const want[] = {"A", "a", "b", "sub", "\xc3\xa4"};
	close_file(open_file(d, "b", O_RDWR | O_CREAT | O_EXCL));
	close_file(open_file(d, "a", O_RDWR | O_CREAT | O_EXCL));
	close_file(open_file(d, "x", O_RDWR | O_CREAT | O_EXCL));
	close_file(open_file(d, "\xc3\xa4", O_RDWR | O_CREAT | O_EXCL));
	assert_null(open_file(d, "a", O_RDWR | O_CREAT | O_EXCL));
	assert_int_equal(errno, EEXIST);
	assert_null(open_file(d, "none", O_RDWR));
	assert_int_equal(errno, ENOENT);
	assert_int_equal(simple(ENV_IO_MKDIR, d, "sub", 0, 0), 0);
	assert_int_equal(simple(ENV_IO_MKDIR, d, "sub", 0, 0), -EEXIST);
	struct env_io mv = {.op = ENV_IO_RENAME, .file = d, .name = "x", .name2 = "A"};
	assert_int_equal(run_io(&mv), 0);
	struct env_io ls = {.op = ENV_IO_LIST, .file = d};
	assert_int_equal(run_io(&ls), 5);
	for (int i = 0; i < 5; i++) {
		assert_string_equal(ls.names[i], want[i]);
		free(ls.names[i]);
	}
	assert_null(ls.names[5]);
	free(ls.names);

	struct env_file *sub = open_file(d, "sub", O_RDONLY | O_DIRECTORY);
	assert_non_null(sub);
	struct env_io mv2 = {
		.op = ENV_IO_RENAME, .file = d, .name = "A", .file2 = sub, .name2 = "B"};
	assert_int_equal(run_io(&mv2), 0);
	assert_int_equal(simple(ENV_IO_FSYNC, sub, NULL, 0, 0), 0);
	struct env_io st = {.op = ENV_IO_STAT, .file = sub, .name = "B"};
	assert_int_equal(run_io(&st), 0);
	assert_false(st.stat_isdir);
	assert_int_equal(simple(ENV_IO_UNLINK, sub, "B", 0, 0), 0);
	assert_int_equal(simple(ENV_IO_UNLINK, sub, "B", 0, 0), -ENOENT);
	struct env_io st2 = {.op = ENV_IO_STAT, .file = sub};
	assert_int_equal(run_io(&st2), 0);
	assert_true(st2.stat_isdir);
	assert_int_equal(simple(ENV_IO_SYNCFS, sub, NULL, 0, 0), 0);
	close_file(sub);
}

static void check_sizes(struct env_file *d)
{
	struct env_file *f = open_file(d, "size", O_RDWR | O_CREAT);
	struct env_io st = {.op = ENV_IO_STAT, .file = f};
	assert_int_equal(simple(ENV_IO_ALLOC, f, NULL, 0, 16 * BLOCK), 0);
	assert_int_equal(run_io(&st), 0);
	assert_int_equal(st.stat_size, 16 * BLOCK);
	assert_true(st.stat_blocks >= 16 * BLOCK / 512);
	assert_true(st.stat_mtime_ns > env_wall(env) - 3600ull * 1000 * MSEC);
	uint64_t before = st.stat_blocks;
	assert_int_equal(simple(ENV_IO_PUNCH, f, NULL, 0, 8 * BLOCK), 0);
	assert_int_equal(run_io(&st), 0);
	assert_int_equal(st.stat_size, 16 * BLOCK);
	assert_true(st.stat_blocks < before);
	assert_int_equal(simple(ENV_IO_TRUNCATE, f, NULL, 100, 0), 0);
	assert_int_equal(run_io(&st), 0);
	assert_int_equal(st.stat_size, 100);
	struct env_io fs = {.op = ENV_IO_STATFS, .file = f};
	assert_int_equal(run_io(&fs), 0);
	assert_true(fs.fs_free > 0 && fs.fs_free <= fs.fs_total);
	close_file(f);
}

static void fill(uint8_t *p, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 7 + i / 256 * 3 + seed);
}

static void check_rw(struct env_file *d)
{
	enum { BIG = 1 << 20 };
	uint8_t *w = aligned_alloc(BLOCK, BIG), *r = aligned_alloc(BLOCK, BIG);
	struct env_file *f = open_file(d, "rw", O_RDWR | O_CREAT);
	fill(w, BIG, 1);
	assert_int_equal(rw(ENV_IO_WRITE, 0, f, w, BIG, 0), BIG);
	assert_int_equal(rw(ENV_IO_WRITE, ENV_IO_DSYNC, f, w, 1000, BIG), 1000);
	assert_int_equal(simple(ENV_IO_SYNC, f, NULL, 0, 0), 0);
	for (unsigned flags = 0; flags <= ENV_IO_NOWAIT; flags += ENV_IO_NOWAIT) {
		memset(r, 0, BIG);
		assert_int_equal(rw(ENV_IO_READ, flags, f, r, BIG, 0), BIG);
		assert_memory_equal(w, r, BIG);
		memset(r, 0, BIG);
		assert_int_equal(rw(ENV_IO_READ, flags, f, r, 5000, 12345), 5000);
		assert_memory_equal(w + 12345, r, 5000);
		/* short at the end of the file only */
		assert_int_equal(rw(ENV_IO_READ, flags, f, r, BIG, BIG - 500), 1500);
		assert_memory_equal(w + BIG - 500, r, 500);
		assert_memory_equal(w, r + 500, 1000);
		assert_int_equal(rw(ENV_IO_READ, flags, f, r, BIG, 2 * BIG), 0);
	}
	/* nothing of it in the page cache: NOWAIT must not give up */
	assert_int_equal(posix_fadvise(env_linux_file_fd(f), 0, 0, POSIX_FADV_DONTNEED), 0);
	memset(r, 0, BIG);
	assert_int_equal(rw(ENV_IO_READ, ENV_IO_NOWAIT, f, r, 64 << 10, 4096), 64 << 10);
	assert_memory_equal(w + 4096, r, 64 << 10);
	/* the first half only is there: what is read at once is not the whole */
	assert_int_equal(posix_fadvise(env_linux_file_fd(f), 0, 0, POSIX_FADV_DONTNEED), 0);
	assert_int_equal(posix_fadvise(env_linux_file_fd(f), 0, 0, POSIX_FADV_RANDOM), 0);
	assert_int_equal(rw(ENV_IO_READ, 0, f, r, 32 << 10, 0), 32 << 10);
	memset(r, 0, BIG);
	assert_int_equal(rw(ENV_IO_READ, ENV_IO_NOWAIT, f, r, 64 << 10, 0), 64 << 10);
	assert_memory_equal(w, r, 64 << 10);
	close_file(f);
	f = open_file(d, "rw", O_RDONLY);
	assert_int_equal(rw(ENV_IO_WRITE, 0, f, w, 100, 0), -EBADF);
	close_file(f);
	free(w);
	free(r);
}

/* Several buffers, more than the kernel takes in one call. */
static void check_vector(struct env_file *d)
{
	enum { N = 3000 };
	struct iovec *iov = calloc(N, sizeof(*iov));
	uint8_t *w = malloc(N * 10), *r = calloc(1, N * 10);
	struct env_file *f = open_file(d, "vec", O_RDWR | O_CREAT);
	fill(w, N * 10, 5);
	for (int i = 0; i < N; i++)
		iov[i] = (struct iovec){.iov_base = w + i * 10, .iov_len = i % 7 ? 10 : 0};
	int64_t total = 0;
	for (int i = 0; i < N; i++)
		total += (int64_t)iov[i].iov_len;
	struct env_io io = {.op = ENV_IO_WRITE, .file = f, .iov = iov, .iovcnt = N, .off = 77};
	assert_int_equal(run_io(&io), total);
	for (int i = 0; i < N; i++)
		iov[i].iov_base = r + i * 10;
	io.op = ENV_IO_READ;
	assert_int_equal(run_io(&io), total);
	for (int i = 0; i < N; i++)
		assert_memory_equal(w + i * 10, r + i * 10, iov[i].iov_len);
	close_file(f);
	free(iov);
	free(w);
	free(r);
}

struct many {
	struct env_io io;
	struct iovec iov;
	bool done;
};

static unsigned many_left;

static void on_many(struct env_io *io)
{
	assert_false(((struct many *)io)->done);
	((struct many *)io)->done = true;
	many_left--;
}

/* More direct writes and syncs at once than libaio has room for. */
static void check_direct(struct env_file *d)
{
	enum { N = 100 };
	struct many *m = calloc(N, sizeof(*m));
	uint8_t *w = aligned_alloc(BLOCK, N * BLOCK), *r = aligned_alloc(BLOCK, BLOCK);
	struct env_file *f = open_file(d, "direct", O_RDWR | O_CREAT | O_DIRECT);
	assert_non_null(f);
	assert_int_equal(simple(ENV_IO_ALLOC, f, NULL, 0, N * BLOCK), 0);
	fill(w, N * BLOCK, 9);
	many_left = N;
	for (unsigned i = 0; i < N; i++) {
		m[i].iov = (struct iovec){.iov_base = w + i * BLOCK, .iov_len = BLOCK};
		m[i].io = (struct env_io){.op = i % 10 == 9 ? ENV_IO_SYNC : ENV_IO_WRITE,
					  .flags = i % 2 ? ENV_IO_DIRECT
							 : ENV_IO_DIRECT | ENV_IO_DSYNC,
					  .file = f,
					  .iov = &m[i].iov,
					  .iovcnt = 1,
					  .off = i * BLOCK,
					  .done = on_many};
		env_io_submit(env, &m[i].io);
	}
	assert_int_equal(many_left, N);
	for (int i = 0; i < 5000 && many_left; i++)
		env_linux_turn(env, 10);
	assert_int_equal(many_left, 0);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(m[i].io.result, i % 10 == 9 ? 0 : BLOCK);
		if (i % 10 == 9)
			continue;
		assert_int_equal(rw(ENV_IO_READ, ENV_IO_DIRECT, f, r, BLOCK, i * BLOCK), BLOCK);
		assert_memory_equal(r, w + i * BLOCK, BLOCK);
	}
	/* the end of the file inside a block */
	assert_int_equal(simple(ENV_IO_TRUNCATE, f, NULL, N * BLOCK - 100, 0), 0);
	assert_int_equal(rw(ENV_IO_READ, ENV_IO_DIRECT, f, w, 2 * BLOCK, (N - 2) * BLOCK),
			 2 * BLOCK - 100);
	assert_int_equal(rw(ENV_IO_READ, ENV_IO_DIRECT, f, w, BLOCK, N * BLOCK), 0);
	close_file(f);
	/* O_DIRECT was not asked for: still served */
	f = open_file(d, "direct", O_RDWR);
	assert_int_equal(rw(ENV_IO_READ, ENV_IO_DIRECT, f, r, 100, 50), 100);
	close_file(f);
	free(m);
	free(w);
	free(r);
}

static void check_lock(struct env_file *d)
{
	struct env_file *a = open_file(d, "lock", O_RDWR | O_CREAT),
			*b = open_file(d, "lock", O_RDWR);
	assert_int_equal(simple(ENV_IO_LOCK, a, NULL, 0, 0), 0);
	assert_int_equal(simple(ENV_IO_LOCK, b, NULL, 0, 0), -EBUSY);
	close_file(a);
	assert_int_equal(simple(ENV_IO_LOCK, b, NULL, 0, 0), 0);
	/* another process; it goes without a look by valgrind at what it leaves, all of it ours */
	pid_t pid = fork();
	if (pid == 0) {
		struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		char path[128];
		snprintf(path, sizeof(path), "%s/lock", dir_name);
		int fd = open(path, O_RDWR);
		if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &fl) < 0 && errno == EAGAIN)
			raise(SIGKILL);
		_exit(1);
	}
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close_file(b);
}

static void disk(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
		struct env_file *d = test_dir(bases[i]);
		check_names(d);
		check_sizes(d);
		check_rw(d);
		check_vector(d);
		check_direct(d);
		check_lock(d);
		remove_dir(d);
	}
}

/* A write that finds no room fails as a whole: /dev/full, and a file-size limit. */
static void disk_full(void **state)
{
	struct env_file *f = open_file(NULL, "/dev/full", O_RDWR);
	char buf[100] = "";
	assert_int_equal(rw(ENV_IO_WRITE, 0, f, buf, sizeof(buf), 0), -ENOSPC);
	close_file(f);

	struct env_file *d = test_dir("/var/tmp");
	struct rlimit old, small = {.rlim_cur = 150, .rlim_max = RLIM_INFINITY};
	f = open_file(d, "f", O_RDWR | O_CREAT);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	/* the first 150 bytes are taken, the rest not: an error, never a short count */
	assert_int_equal(rw(ENV_IO_WRITE, 0, f, buf, sizeof(buf), 100), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	close_file(f);
	remove_dir(d);
}

struct job {
	struct env_io io;
	pthread_t thread;
	bool done;
};

static int job_run(struct env_io *io)
{
	((struct job *)io)->thread = pthread_self();
	usleep(2000);
	return 42;
}

static void on_job(struct env_io *io)
{
	assert_int_equal(io->result, 42);
	assert_false(pthread_equal(((struct job *)io)->thread, pthread_self()));
	many_left--;
}

static void jobs(void **state)
{
	enum { N = 60 };
	struct job j[N];
	memset(j, 0, sizeof(j));
	uint64_t start = env_now(env);
	many_left = N;
	for (int i = 0; i < N; i++) {
		j[i].io = (struct env_io){.op = ENV_IO_JOB, .job = job_run, .done = on_job};
		env_io_submit(env, &j[i].io);
	}
	env_linux_turn(env, 0);
	assert_true(env_now(env) - start < 2000 * MSEC);
	assert_true(many_left > 0); /* the loop did not wait for them */
	while (many_left)
		env_linux_turn(env, -1);
	bool both = false;
	for (int i = 1; i < N; i++)
		both |= !pthread_equal(j[i].thread, j[0].thread);
	assert_true(both); /* two workers shared them */
}

/* No libaio, workers only when first needed. */
static void lazy(void **state)
{
	struct env_linux_conf conf = {0};
	struct env *old = env;
	assert_int_equal(env_linux_new(&conf, &env), 0);
	struct env_file *d = test_dir("/var/tmp");
	struct env_file *f = open_file(d, "f", O_RDWR | O_CREAT | O_DIRECT);
	uint8_t *b = aligned_alloc(BLOCK, BLOCK);
	fill(b, BLOCK, 3);
	assert_int_equal(rw(ENV_IO_WRITE, ENV_IO_DIRECT | ENV_IO_DSYNC, f, b, BLOCK, 0), BLOCK);
	memset(b, 0, BLOCK);
	assert_int_equal(rw(ENV_IO_READ, ENV_IO_DIRECT, f, b, BLOCK, 0), BLOCK);
	assert_int_equal(b[1], 10);
	assert_int_equal(simple(ENV_IO_SYNC, f, NULL, 0, 0), 0);
	close_file(f);
	remove_dir(d);
	free(b);
	env_linux_free(env);
	env = old;
}

/* ---- foreign fds, nesting ---- */

struct watch_test {
	struct env_watch *w;
	unsigned calls;
};

static void on_watch(int fd, void *arg)
{
	struct watch_test *t = arg;
	t->calls++;
	if (t->calls == 3) { /* level-triggered: called until it is read */
		char c;
		assert_int_equal(read(fd, &c, 1), 1);
		env_linux_unwatch(t->w);
	}
}

static void watches(void **state)
{
	int p[2];
	struct watch_test t = {0};
	assert_int_equal(pipe(p), 0);
	t.w = env_linux_watch(env, p[0], on_watch, &t);
	assert_non_null(t.w);
	env_linux_turn(env, 0);
	assert_int_equal(t.calls, 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	for (int i = 0; i < 5; i++)
		env_linux_turn(env, 0);
	assert_int_equal(t.calls, 3);
	close(p[0]);
	close(p[1]);
	assert_null(env_linux_watch(env, -1, on_watch, &t));
	assert_int_equal(errno, EBADF);
	env_linux_unwatch(NULL);
}

/* ---- a turn with much to do ---- */

static unsigned ran_before_timer, ran;
static bool gone_off;

static void work_20ms(void)
{
	uint64_t end = env_now(env) + 20 * MSEC;

	while (env_now(env) < end)
		;
	ran++;
}

static void on_slow_watch(int fd, void *arg)
{
	char c;

	assert_int_equal(read(fd, &c, 1), 1);
	work_20ms();
}

static void on_slow_defer(struct env_defer *d)
{
	work_20ms();
}

static void on_due(struct env_timer *t)
{
	gone_off = true;
	ran_before_timer = ran;
}

/* What becomes due while a turn has many callbacks to call waits for a slice, not for all of them.
 */
static void timer_in_busy_turn(bool sockets)
{
	enum { N = 16 };
	int p[N][2];
	struct env_watch *w[N];
	struct env_defer d[N];
	struct env_timer t = {.fn = on_due};

	ran = ran_before_timer = 0;
	gone_off = false;
	for (int i = 0; i < N; i++) {
		d[i] = (struct env_defer){.fn = on_slow_defer};
		if (!sockets) {
			env_defer(env, &d[i]);
			continue;
		}
		assert_int_equal(pipe(p[i]), 0);
		assert_non_null(w[i] = env_linux_watch(env, p[i][0], on_slow_watch, NULL));
		assert_int_equal(write(p[i][1], "x", 1), 1);
	}
	env_timer_set(env, &t, env_now(env) + 50 * MSEC);
	env_linux_turn(env, 0);
	assert_true(gone_off);
	assert_true(ran_before_timer >= 1 && ran_before_timer <= 5);
	assert_int_equal(ran, N);
	for (int i = 0; sockets && i < N; i++) {
		env_linux_unwatch(w[i]);
		close(p[i][0]);
		close(p[i][1]);
	}
}

static void busy_turn(void **state)
{
	timer_in_busy_turn(true);
	timer_in_busy_turn(false);
}

static void on_flag(struct env_defer *d)
{
	many_left++;
}

static void on_fired(struct env_timer *t)
{
	fired++;
}

static void nested(void **state)
{
	struct env_defer d = {.fn = on_flag};
	struct env_timer t = {.fn = on_fired}, early = {.fn = on_fired};
	/* what was there before anybody asked for the fd */
	many_left = 0;
	env_defer(env, &d);
	assert_true(readable(0));
	env_linux_turn(env, 0);
	assert_int_equal(many_left, 1);
	assert_false(readable(0));
	for (int i = 0; i < 3; i++) { /* again and again: no edge is lost */
		env_defer(env, &d);
		assert_true(readable(0));
		assert_true(readable(0));
		env_linux_turn(env, 0);
		assert_false(readable(0));
	}
	assert_int_equal(many_left, 4);

	fired = 0;
	uint64_t now = env_now(env);
	env_timer_set(env, &t, now + 60 * MSEC);
	env_timer_set(env, &early, now + 20 * MSEC);
	assert_true(readable(2000));
	assert_true(env_now(env) >= now + 20 * MSEC);
	env_linux_turn(env, 0);
	assert_int_equal(fired, 1);
	env_timer_set(env, &t, now + 100 * MSEC); /* later: an early wake-up is allowed */
	while (fired < 2) {
		assert_true(readable(2000));
		env_linux_turn(env, 0);
	}
	assert_true(env_now(env) >= now + 100 * MSEC);
	assert_false(readable(20));

	/* an I/O in memory is finished at once: that must be seen too */
	bool done = false;
	struct env_io io = {.op = ENV_IO_STAT, .name = "/dev/shm", .done = on_io, .arg = &done};
	env_io_submit(env, &io);
	while (!done) {
		assert_true(readable(2000));
		env_linux_turn(env, 0);
	}
	assert_int_equal(io.result, 0);
}

static void stop_early(void **state)
{
	env_linux_stop(env);
	env_linux_run(env); /* returns: it was stopped before it began */
	struct env_timer t = {.fn = on_stop};
	env_timer_set(env, &t, env_now(env) + MSEC);
	env_linux_run(env);
	assert_int_equal(t.heap_idx, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(clocks), T(timers_many), T(timer_past), T(timer_exact), T(defers),
		T(disk),   T(disk_full),   T(jobs),	  T(lazy),	  T(watches),
		T(nested), T(stop_early),  T(busy_turn),
	};
	return cmocka_run_group_tests_name("env", tests, NULL, NULL);
}
