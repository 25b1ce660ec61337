/* store_world.c - see store_world.h */
#include "config.h"

#include "tests/unit/store_world.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/env/linux.h"

/* ---- running a test in a coroutine ---- */

static void body(void *arg)
{
	struct world *w = arg;
	w->fn(w);
	w->done = true;
}

static void run(struct world *w, void (*fn)(struct world *w))
{
	struct env_linux_conf c = {.nr_workers = 2, .aio_depth = 64};
	assert_int_equal(env_linux_new(&c, &w->env), 0);
	w->s = co_sched_new(w->env, 256);
	w->pool = buf_pool_new(1 << 20);
	w->fn = fn;
	w->done = false;
	assert_non_null(co_start(w->s, body, w, "test"));
	while (!w->done)
		env_linux_turn(w->env, -1);
	while (co_sched_nr(w->s))
		env_linux_turn(w->env, 0);
	buf_pool_free(w->pool);
	co_sched_free(w->s);
	env_linux_free(w->env);
}

static void on(const char *place, void (*fn)(struct world *w))
{
	struct world w = {0};
	char cmd[128];
	snprintf(w.base, sizeof(w.base), "%s/store-test-XXXXXX", place);
	if (!mkdtemp(w.base)) {
		print_message("skipped: no %s\n", place);
		return;
	}
	snprintf(w.dir, sizeof(w.dir), "%s/s", w.base);
	w.conf = (struct store_conf){.dir = w.dir, .journal_size = JSIZE};
	run(&w, fn);
	free(w.err);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", w.base);
	assert_int_equal(system(cmd), 0);
}

void everywhere(void (*fn)(struct world *w))
{
	if (!RUNNING_ON_VALGRIND)
		on("/tmp", fn);
	on("/dev/shm", fn);
}

/* ---- helpers, in the coroutine ---- */

int try_open(struct world *w)
{
	free(w->err);
	w->err = NULL;
	return store_open(w->s, w->env, &w->conf, &w->st, &w->err);
}

void up(struct world *w)
{
	int r = try_open(w);
	if (r < 0)
		print_message("open: %d %s\n", r, w->err ? w->err : "");
	assert_int_equal(r, 0);
}

void down(struct world *w)
{
	store_close(w->st);
	w->st = NULL;
}

void again(struct world *w)
{
	down(w);
	up(w);
}

int wr_at(struct world *w, uint64_t oid, uint64_t n, uint64_t off, uint64_t len, unsigned flags,
	  uint64_t size, size_t misalign)
{
	struct twrite t;
	tw_init(&t, w->pool, n, off, len, misalign);
	t.w.create = flags & CREATE;
	t.w.durable = flags & DURABLE;
	t.w.size = size;
	t.w.copies = 3;
	struct store_obj *o = store_get(w->st, oid, true);
	int r = store_prepare(o, &t.w);
	if (r == 0)
		r = store_queue(o, &t.w);
	store_put(o);
	if (r == 0 && !(flags & NOWAIT))
		r = store_wait(w->st, &t.w);
	tw_done(&t);
	return r;
}

void wr(struct world *w, struct img *m, uint64_t oid, uint64_t n, uint64_t off, uint64_t len,
	unsigned flags)
{
	assert_int_equal(wr_at(w, oid, n, off, len, flags, m->size, 0), 0);
	if (flags & CREATE)
		memset(m->p, 0, m->size);
	pat_fill(m->p + off, n, off, len);
}

int rm(struct world *w, uint64_t oid, uint64_t n, bool durable)
{
	struct store_write x = {.ver = {1, n}, .durable = durable};
	struct store_obj *o = store_get(w->st, oid, true);
	int r = store_queue_remove(o, &x);
	store_put(o);
	return r ? r : store_wait(w->st, &x);
}

int rd(struct world *w, uint64_t oid, uint64_t off, uint64_t len, uint8_t *to, uint64_t *bad)
{
	struct buf *b = buf_new(w->pool, len);
	struct store_obj *o = store_get(w->st, oid, false);
	int r = store_read(o, off, len, b, 0, bad);
	store_put(o);
	memcpy(to, b->data, len);
	buf_put(b);
	return r;
}

void check_part(struct world *w, const struct img *m, uint64_t oid, uint64_t off, uint64_t len)
{
	uint8_t *p = malloc(len);
	uint64_t bad = 0;
	int r = rd(w, oid, off, len, p, &bad);
	if (r < 0)
		print_message("read %llx+%llx: %d\n", (unsigned long long)off,
			      (unsigned long long)len, r);
	assert_int_equal(r, 0);
	for (uint64_t i = 0; i < len; i++)
		if (p[i] != m->p[off + i])
			fail_msg("byte %llu of %llx differs", (unsigned long long)(off + i),
				 (unsigned long long)oid);
	free(p);
}

void check(struct world *w, const struct img *m, uint64_t oid, uint64_t n)
{
	struct obj_info i;
	assert_true(store_lookup(w->st, oid, &i));
	assert_int_equal(i.ver.gen, 1);
	assert_int_equal(i.ver.seq, n);
	assert_int_equal(i.size, m->size);
	assert_int_equal(i.copies, 3);
	assert_false(i.torn);
	check_part(w, m, oid, 0, m->size);
}

struct img img_new(uint64_t size)
{
	struct img m = {calloc(1, size), size};
	return m;
}

/* Push everything into the object files. */
void settle(struct world *w)
{
	static const uint8_t name[8];
	assert_int_equal(store_mark_clean(w->st, 0, name), 0);
}

void flip(struct world *w, const char *path, off_t at)
{
	char p[160];
	uint8_t c;
	snprintf(p, sizeof(p), "%s/%s", w->dir, path);
	int fd = open(p, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 0x40;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

bool exists(struct world *w, const char *path)
{
	char p[160];
	struct stat sb;
	snprintf(p, sizeof(p), "%s/%s", w->dir, path);
	return stat(p, &sb) == 0;
}
