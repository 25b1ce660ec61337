/* test_client.c - libsheepdog against a small cluster in memory (fake_server.c). */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sheepdog/proto.h"
#include "sheepdog/sheepdog.h"
#include "tests/unit/fake_server.h"

#define PORT	  31300u
#define OBJ	  (1u << FAKE_SHIFT)
#define VOL_SIZE  (40u * OBJ + 512u)
#define ERR(name) (-(SD_ERR_BASE + SD_RES_##name))

struct ctx {
	struct fake *f;
	struct fake_knobs *k;
	struct fake_stats *st;
	struct sd_cluster *c;
	struct sd_vdi *v;
	uint8_t *model, *buf;
	uint32_t seed;
};

static unsigned rnd(struct ctx *t, unsigned n)
{
	t->seed = t->seed * 1664525u + 1013904223u;
	return (t->seed >> 8) % n;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void nap(unsigned ms)
{
	usleep(ms * 1000);
}

static struct ctx *start(unsigned first, unsigned last)
{
	struct ctx *t = calloc(1, sizeof(*t));
	char list[256];

	t->f = fake_start(PORT, NULL);
	t->k = fake_knobs(t->f);
	t->st = fake_stats(t->f);
	t->seed = 7;
	t->model = calloc(1, VOL_SIZE);
	t->buf = calloc(1, VOL_SIZE);
	assert_int_equal(sd_cluster_open(fake_list(t->f, first, last, list, sizeof(list)), &t->c),
			 0);
	return t;
}

static void open_vol(struct ctx *t, unsigned flags)
{
	uint32_t vid = 0;

	assert_int_equal(sd_vdi_create(t->c, "v", VOL_SIZE - 100, NULL, &vid), 0);
	assert_int_not_equal(vid, 0);
	assert_int_equal(sd_vdi_open(t->c, "v", flags, &t->v), 0);
}

static void stop(struct ctx *t)
{
	if (t->v)
		assert_int_equal(sd_vdi_close(t->v), 0);
	sd_cluster_close(t->c);
	fake_stop(t->f);
	free(t->model);
	free(t->buf);
	free(t);
}

static void fill(struct ctx *t, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 7)
		p[i] = (uint8_t)rnd(t, 256);
}

static void check_all(struct ctx *t)
{
	memset(t->buf, 0xee, VOL_SIZE);
	assert_int_equal(sd_read(t->v, t->buf, VOL_SIZE, 0), 0);
	for (size_t i = 0; i < VOL_SIZE; i += 4096) {
		size_t n = VOL_SIZE - i < 4096 ? VOL_SIZE - i : 4096;
		if (memcmp(t->buf + i, t->model + i, n))
			fail_msg("object %zu differs at %zu: %02x, not %02x", i / OBJ, i % OBJ,
				 t->buf[i], t->model[i]);
	}
}

/* ---- a pool of operations in flight, whose effect is known: they do not overlap ---- */

struct slot {
	struct pool *pool;
	bool busy;
	struct iovec iov[12];
	uint64_t off, len;
};
struct pool {
	struct ctx *t;
	struct slot slot[1024];
	unsigned nr, flying, done;
	int err;
};

static void on_done(void *arg, int err)
{
	struct slot *s = arg;

	assert_true(s->busy);
	s->busy = false;
	s->pool->flying--;
	s->pool->done++;
	if (err && !s->pool->err)
		s->pool->err = err;
}

static bool overlaps(const struct pool *p, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < p->nr; i++)
		if (p->slot[i].busy && off < p->slot[i].off + p->slot[i].len &&
		    p->slot[i].off < off + len)
			return true;
	return false;
}

static struct slot *slot_free(struct pool *p)
{
	for (unsigned i = 0; i < p->nr; i++)
		if (!p->slot[i].busy)
			return &p->slot[i];
	return NULL;
}

/* Memory of the volume as several iovecs. */
static int cut(struct ctx *t, struct slot *s, uint8_t *base)
{
	uint64_t at = 0;
	int n = 0;

	while (at < s->len) {
		uint64_t k = 1 + rnd(t, (unsigned)(s->len / 3 + 1));
		if (n == 11 || k > s->len - at)
			k = s->len - at;
		s->iov[n++] = (struct iovec){base + s->off + at, k};
		at += k;
	}
	return n;
}

static void zero_whole(struct ctx *t, const struct slot *s, bool all)
{
	for (uint64_t o = s->off; o < s->off + s->len;) {
		uint64_t end = (o / OBJ + 1) * OBJ,
			 to = end < s->off + s->len ? end : s->off + s->len;
		if (all || (o % OBJ == 0 && (to == end || to == VOL_SIZE)))
			memset(t->model + o, 0, to - o);
		o = to;
	}
}

static void start_random(struct ctx *t, struct pool *p)
{
	struct slot *s = slot_free(p);
	unsigned kind = rnd(t, 16);
	int r;

	s->pool = p;
	s->len = 1 + rnd(t, kind == 1 ? 3 * OBJ : kind < 4 ? 200000 : 8192);
	s->off = rnd(t, VOL_SIZE - (unsigned)s->len);
	if (kind == 1 && rnd(t, 2)) {
		s->off = s->off / OBJ * OBJ;
		s->len = (s->len + OBJ - 1) / OBJ * OBJ;
		if (s->off + s->len > VOL_SIZE)
			s->len = VOL_SIZE - s->off;
	}
	if (overlaps(p, s->off, s->len))
		return;
	s->busy = true;
	p->flying++;
	if (kind == 1) {
		bool discard = rnd(t, 2);
		zero_whole(t, s, !discard);
		r = discard ? sd_discard_async(t->v, s->len, s->off, on_done, s)
			    : sd_write_zeroes_async(t->v, s->len, s->off, on_done, s);
	} else if (kind == 2) {
		r = sd_flush_async(t->v, on_done, s);
	} else {
		fill(t, t->model + s->off, s->len);
		r = sd_writev_async(t->v, s->iov, cut(t, s, t->model), s->off, on_done, s);
	}
	assert_int_equal(r, 0);
}

/* @n random operations, at most @depth at a time. */
static void run_random(struct ctx *t, unsigned n, unsigned depth)
{
	struct pool *p = calloc(1, sizeof(*p));

	p->t = t;
	p->nr = depth;
	while (p->done < n) {
		for (unsigned i = 0; i < 4 && p->flying < depth && p->done + p->flying < n; i++)
			start_random(t, p);
		sd_wait(t->c, p->flying ? 20 : 0);
	}
	assert_int_equal(p->err, 0);
	assert_int_equal(p->flying, 0);
	free(p);
}

/* ---- tests ---- */

static void test_basic(void **state)
{
	struct ctx *t = start(0, 0);
	struct sd_vdi_info info;
	uint8_t b[8192];
	uint64_t n;

	open_vol(t, 0);
	sd_vdi_get_info(t->v, &info);
	assert_int_equal(info.size, VOL_SIZE); /* rounded up */
	assert_int_equal(info.object_shift, FAKE_SHIFT);
	assert_false(info.snapshot);
	assert_int_equal(sd_vdi_allocated(t->v), 0);
	unsigned reads = t->st->ops[SD_OP_READ_OBJ];
	check_all(t); /* holes */
	assert_int_equal(t->st->ops[SD_OP_READ_OBJ], reads);

	memset(t->model + OBJ - 5000, 0xab, 10000); /* across two objects */
	assert_int_equal(sd_write(t->v, t->model + OBJ - 5000, 10000, OBJ - 5000), 0);
	assert_int_equal(sd_vdi_allocated(t->v), 2 * OBJ);
	assert_true(t->st->flags_seen & SD_FLAG_DIRECT);
	assert_false(t->st->flags_seen & SD_FLAG_CACHE);
	assert_int_equal(t->st->ops[SD_OP_CREATE_AND_WRITE_OBJ], 2);
	assert_int_equal(t->st->ops[SD_OP_WRITE_OBJ], 1); /* one index write for both */
	check_all(t);
	assert_true(sd_vdi_is_data(t->v, 100, VOL_SIZE - 100, &n));
	assert_int_equal(n, 2 * OBJ - 100);
	assert_false(sd_vdi_is_data(t->v, 2 * OBJ, VOL_SIZE, &n));
	assert_int_equal(n, VOL_SIZE - 2 * OBJ);

	memset(t->model, 0, OBJ);
	assert_int_equal(sd_discard(t->v, OBJ + 100, 0), 0); /* only the first is whole */
	assert_int_equal(sd_vdi_allocated(t->v), OBJ);
	memset(t->model + OBJ, 0, 100);
	assert_int_equal(sd_write_zeroes(t->v, 100, OBJ), 0);
	check_all(t);
	assert_int_equal(sd_flush(t->v), 0);
	assert_int_equal(t->st->ops[SD_OP_FLUSH_VDI], 0); /* nothing was cached */

	assert_int_equal(sd_read(t->v, b, 512, VOL_SIZE - 511), -EINVAL);
	assert_int_equal(sd_write(t->v, b, 1, VOL_SIZE), -EINVAL);
	assert_int_equal(sd_read(t->v, b, 0, VOL_SIZE), 0);
	assert_int_equal(sd_vdi_create(t->c, "v", 512, NULL, NULL), ERR(VDI_EXIST));
	assert_int_equal(sd_vdi_open(t->c, "w", 0, &t->v), ERR(NO_VDI));
	assert_string_equal(sd_strerror(ERR(NO_VDI)), "No VDI found");
	assert_string_equal(sd_strerror(-ETIMEDOUT), "Connection timed out");
	fake_halt(t->f);
	assert_int_equal(fake_objects(t->f, info.vid), 1);
	sd_cluster_set_timeout(t->c, 100);
	sd_vdi_close(t->v); /* nobody is there to release it */
	t->v = NULL;
	stop(t);
}

static void test_names(void **state)
{
	struct ctx *t = start(0, 0);
	char long_name[300];
	struct sd_create_opts big = {.object_shift = 32}, small = {.object_shift = 20};

	memset(long_name, 'x', sizeof(long_name));
	long_name[299] = 0;
	assert_int_equal(sd_vdi_create(t->c, "", 512, NULL, NULL), -EINVAL);
	assert_int_equal(sd_vdi_create(t->c, long_name, 512, NULL, NULL), -EINVAL);
	assert_int_equal(sd_vdi_create(t->c, "a", 512, &big, NULL), -EINVAL);
	assert_int_equal(sd_vdi_create(t->c, "a", (1ull << 40) + 1, &small, NULL), -EFBIG);
	assert_int_equal(sd_vdi_create(t->c, "a", UINT64_MAX, NULL, NULL), -EFBIG);
	assert_int_equal(sd_vdi_create(t->c, "a", 2ull << 40, NULL, NULL), -EFBIG);
	assert_int_equal(sd_vdi_create(t->c, "a", 512, NULL, NULL), 0);
	assert_int_equal(sd_vdi_delete(t->c, "a"), 0);
	assert_int_equal(sd_vdi_delete(t->c, "a"), ERR(NO_VDI));
	/* an answer that was lost: the second try finds the first one's work */
	t->k->lose_op = SD_OP_NEW_VDI;
	assert_int_equal(sd_vdi_create(t->c, "a", 512, NULL, NULL), 0);
	t->k->lose_op = SD_OP_DEL_VDI;
	assert_int_equal(sd_vdi_delete(t->c, "a"), 0);
	stop(t);
}

static void test_locks(void **state)
{
	struct ctx *t = start(0, 0);
	struct sd_vdi *second, *reader;
	uint8_t b[512] = {1};

	open_vol(t, 0);
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &second), ERR(VDI_LOCKED));
	assert_int_equal(sd_vdi_open(t->c, "v", SD_OPEN_RDONLY, &reader), 0);
	assert_int_equal(sd_write(reader, b, 512, 0), -EROFS);
	assert_int_equal(sd_discard(reader, 512, 0), -EROFS);
	assert_int_equal(sd_vdi_resize(reader, VOL_SIZE * 2), -EROFS);
	assert_int_equal(sd_read(reader, b, 512, 0), 0);
	assert_int_equal(b[0], 0);
	assert_int_equal(sd_vdi_close(reader), 0);
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &second), ERR(VDI_LOCKED));
	assert_int_equal(sd_vdi_close(t->v), 0);
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &t->v), 0);
	stop(t);
}

static void test_random(void **state)
{
	struct ctx *t = start(0, 0);

	open_vol(t, SD_OPEN_CACHE);
	t->k->shuffle = 4;
	run_random(t, 4000, 32);
	check_all(t);
	assert_true(t->st->ops[SD_OP_FLUSH_VDI] > 10);
	assert_true(t->st->flags_seen & SD_FLAG_CACHE);
	/* allocation as the client sees it is what is stored */
	uint64_t allocated = sd_vdi_allocated(t->v);
	struct sd_vdi_info info;
	sd_vdi_get_info(t->v, &info);
	assert_int_equal(sd_vdi_close(t->v), 0);
	t->v = NULL;
	fake_halt(t->f);
	assert_int_equal(allocated, (uint64_t)fake_objects(t->f, info.vid) * OBJ);
	stop(t);
}

static void test_lost_connections(void **state)
{
	struct ctx *t = start(0, 2);

	open_vol(t, 0);
	t->k->shuffle = 3;
	t->k->drop = 60;
	run_random(t, 3000, 24);
	t->k->drop = 0;
	check_all(t);
	assert_true(t->st->resets > 20);
	assert_true(t->st->hellos > 20);
	assert_int_equal(t->st->max_session_step, 1);
	stop(t);
}

static void test_lost_lone(void **state)
{
	struct ctx *t = start(0, 0);

	open_vol(t, 0);
	t->k->drop = 100;
	run_random(t, 1000, 16);
	t->k->drop = 0;
	check_all(t);
	assert_true(t->st->resets > 5);
	stop(t);
}

static void test_many(void **state)
{
	struct ctx *t = start(0, 0);
	struct pool *p = calloc(1, sizeof(*p));

	open_vol(t, 0);
	fill(t, t->model, 1000 * 4096);
	p->nr = 1000;
	for (unsigned i = 0; i < 1000; i++) {
		struct slot *s = &p->slot[i];
		*s = (struct slot){.pool = p, .busy = true, .off = i * 4096ull, .len = 4096};
		s->iov[0] = (struct iovec){t->model + s->off, s->len};
		assert_int_equal(sd_writev_async(t->v, s->iov, 1, s->off, on_done, s), 0);
		p->flying++;
	}
	/* as another event loop would */
	struct pollfd pfd = {.fd = sd_cluster_fd(t->c), .events = POLLIN};
	while (p->flying) {
		assert_int_equal(poll(&pfd, 1, 2000), 1);
		sd_dispatch(t->c);
	}
	assert_int_equal(p->err, 0);
	check_all(t);
	/* 1000 reads of holes: no request, and the fd says so */
	for (unsigned i = 0; i < 1000; i++) {
		struct slot *s = &p->slot[i];
		s->busy = true;
		s->off = 30ull * OBJ + i * 512;
		s->iov[0] = (struct iovec){t->buf + s->off, 512};
		assert_int_equal(sd_readv_async(t->v, s->iov, 1, s->off, on_done, s), 0);
		p->flying++;
	}
	assert_int_equal(poll(&pfd, 1, 2000), 1);
	sd_dispatch(t->c);
	assert_int_equal(p->flying, 0);
	free(p);
	stop(t);
}

static void test_dead_gateways(void **state)
{
	struct ctx *t = start(0, 2);
	double t0;

	t->k->mode[0] = FAKE_DOWN;
	t->k->mode[1] = FAKE_MUTE;
	nap(20);
	t0 = now();
	open_vol(t, 0); /* refused, silent, served */
	assert_true(now() - t0 > 0.9 && now() - t0 < 2.0);
	t->k->mode[2] = FAKE_MUTE; /* the third falls silent with a write in flight */
	t->k->mode[0] = FAKE_UP;
	nap(20);
	t0 = now();
	memset(t->model, 1, 4096);
	assert_int_equal(sd_write(t->v, t->model, 4096, 0), 0);
	double took = now() - t0;
	if (took < 0.6 || took > 2.4)
		fail_msg("took %.3f s", took);
	t->k->mode[0] = FAKE_DOWN; /* dies */
	t->k->mode[1] = FAKE_UP;
	nap(20);
	t0 = now();
	memset(t->model + 4096, 2, 4096);
	assert_int_equal(sd_write(t->v, t->model + 4096, 4096, 4096), 0);
	assert_true(now() - t0 < 0.5);
	check_all(t);
	stop(t);
}

static void test_nobody(void **state)
{
	struct ctx *t = start(0, 1);
	struct sd_cluster *c;
	double t0;

	t->k->mode[0] = t->k->mode[1] = FAKE_DOWN;
	nap(20);
	t0 = now();
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &t->v), -ECONNREFUSED);
	assert_true(now() - t0 < 0.5);
	assert_string_equal(sd_last_error(t->c), "connect to 127.0.0.1:31301: Connection refused");
	t->k->mode[0] = FAKE_MUTE; /* somebody, but not a daemon that serves */
	nap(20);
	sd_cluster_set_connect_timeout(t->c, 300);
	t0 = now();
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &t->v), -ETIMEDOUT);
	assert_true(now() - t0 > 0.25 && now() - t0 < 1.0);
	assert_true(*sd_last_error(t->c));
	sd_cluster_set_connect_timeout(t->c, 5000);
	t->k->mode[0] = FAKE_UP;
	nap(20);
	open_vol(t, 0);
	/* once it was there it is waited for */
	t->k->mode[0] = FAKE_DOWN;
	sd_cluster_set_timeout(t->c, 400);
	t0 = now();
	assert_int_equal(sd_write(t->v, t->model, 4096, 0), -ETIMEDOUT);
	assert_true(now() - t0 > 0.35 && now() - t0 < 1.0);
	t->k->mode[1] = FAKE_UP;
	sd_cluster_set_timeout(t->c, 5000);
	assert_int_equal(sd_write(t->v, t->model, 4096, 0), 0);

	assert_int_equal(sd_cluster_open("127.0.0.1:0", &c), -EINVAL);
	assert_int_equal(sd_cluster_open("127.0.0.1:7000x", &c), -EINVAL);
	assert_int_equal(sd_cluster_open("", &c), -EINVAL);
	assert_int_equal(sd_cluster_open("unix:", &c), -EINVAL);
	assert_int_equal(sd_cluster_open("[::1", &c), -EINVAL);
	assert_int_equal(sd_cluster_open("no such host", &c), -EHOSTUNREACH);
	assert_int_equal(sd_cluster_open("[::1]:31399,unix:/nonexistent/sock,localhost", &c), 0);
	sd_cluster_close(c);
	sd_cluster_close(NULL);
	stop(t);
}

/* Who takes a connection and breaks it is somebody, who may be killed just then. */
static void test_breaking(void **state)
{
	struct ctx *t = start(0, 1);
	double t0 = now();

	t->k->mode[0] = FAKE_CLOSING;
	t->k->mode[1] = FAKE_DOWN;
	nap(20);
	sd_cluster_set_connect_timeout(t->c, 300);
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &t->v), -ETIMEDOUT);
	assert_true(now() - t0 > 0.25 && now() - t0 < 1.0);
	assert_true(*sd_last_error(t->c));
	t->k->mode[0] = FAKE_UP;
	open_vol(t, 0);
	stop(t);
}

static void test_timeout(void **state)
{
	struct ctx *t = start(0, 0);
	uint8_t b[4096], c[4096];
	double t0;

	open_vol(t, 0);
	memset(t->model, 3, 8192);
	assert_int_equal(sd_write(t->v, t->model, 8192, 0), 0);
	sd_cluster_set_timeout(t->c, 200);
	t->k->deaf = true;
	nap(10);
	t0 = now();
	memset(b, 9, sizeof(b));
	assert_int_equal(sd_write(t->v, b, 4096, 0), -ETIMEDOUT);
	assert_true(now() - t0 > 0.15 && now() - t0 < 1.0);
	memset(c, 7, sizeof(c));
	assert_int_equal(sd_read(t->v, c, 4096, 0), -ETIMEDOUT);
	assert_int_equal(sd_write(t->v, b, 4096, 5 * OBJ), -ETIMEDOUT); /* a create */
	assert_int_equal(sd_discard(t->v, OBJ, 0), -ETIMEDOUT);
	nap(20); /* the server notices the reset */
	t->k->deaf = false;
	sd_cluster_set_timeout(t->c, 5000);
	assert_int_equal(sd_read(t->v, b, 4096, 5 * OBJ), 0);
	assert_memory_equal(b, t->model + 5 * OBJ, 4096);
	check_all(t); /* what was given up did not happen later */
	memset(t->model + 5 * OBJ, 4, 4096);
	assert_int_equal(sd_write(t->v, t->model + 5 * OBJ, 4096, 5 * OBJ), 0);
	check_all(t);
	for (unsigned i = 0; i < sizeof(c); i++)
		assert_int_equal(c[i], 7);
	assert_true(strstr(sd_last_error(t->c), "127.0.0.1:31300") != NULL);
	stop(t);
}

static void test_garbage(void **state)
{
	struct ctx *t = start(0, 1);

	t->k->mode[0] = FAKE_GARBAGE;
	nap(10);
	open_vol(t, 0); /* the other one does */
	memset(t->model, 1, 65536);
	assert_int_equal(sd_write(t->v, t->model, 65536, 0), 0);
	t->k->bad_length = 1;
	check_all(t);
	t->k->bad_length = 1000;
	assert_int_equal(sd_read(t->v, t->buf, 4096, 0), -EPROTO);
	t->k->bad_length = 0;
	t->k->mode[1] = FAKE_GARBAGE;
	sd_cluster_set_timeout(t->c, 300);
	assert_int_equal(sd_read(t->v, t->buf, 4096, 0), -ETIMEDOUT); /* as if nobody were there */
	sd_cluster_set_timeout(t->c, 0);
	t->k->mode[0] = FAKE_UP;
	check_all(t);
	t->k->mode[0] = t->k->mode[1] = FAKE_DOWN; /* ends what is connected */
	nap(20);
	t->k->mode[0] = t->k->mode[1] = FAKE_CLOSING;
	nap(20);
	sd_cluster_set_timeout(t->c, 700);
	unsigned conns = t->st->conns;
	assert_int_equal(sd_write(t->v, t->model, 4096, 0), -ETIMEDOUT);
	assert_true(t->st->conns - conns < 40); /* with pauses */
	t->k->mode[0] = FAKE_UP;
	sd_cluster_set_timeout(t->c, 0);
	check_all(t);
	stop(t);
}

/* A server that speaks something else, and nobody besides. */
static void test_not_a_server(void **state)
{
	struct ctx *t = start(0, 0);
	struct sd_vdi *v;

	t->k->mode[0] = FAKE_GARBAGE;
	nap(10);
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &v), -EPROTO);
	assert_string_equal(sd_last_error(t->c),
			    "understand what 127.0.0.1:31300 answers: Protocol error");
	stop(t);
}

static void test_snapshot(void **state)
{
	struct ctx *t = start(0, 0);
	struct sd_vdi_info before, after;
	unsigned cow;

	open_vol(t, 0);
	run_random(t, 300, 16);
	sd_vdi_get_info(t->v, &before);
	t->k->shuffle = 4;
	for (unsigned i = 0; i < 5; i++) {
		t->k->snapshot = true; /* while writes are in flight */
		run_random(t, 300, 32);
	}
	t->k->shuffle = 0;
	check_all(t);
	sd_vdi_get_info(t->v, &after);
	assert_int_equal(after.vid, before.vid + 5);
	cow = t->st->ops[SD_OP_GET_VDI_INFO];
	assert_true(cow >= 5);
	t->k->snapshot = true; /* noticed by a resize */
	nap(20);
	assert_int_equal(sd_vdi_resize(t->v, VOL_SIZE + OBJ), 0);
	sd_vdi_get_info(t->v, &after);
	assert_int_equal(after.size, VOL_SIZE + OBJ);
	assert_int_equal(after.vid, before.vid + 6);
	assert_int_equal(sd_vdi_resize(t->v, VOL_SIZE), -EINVAL);
	assert_int_equal(sd_write(t->v, t->model, OBJ, VOL_SIZE), 0);
	check_all(t);
	stop(t);
}

/* Another client has discarded what we know as allocated. */
static void test_two_clients(void **state)
{
	struct ctx *t = start(0, 0);
	struct sd_vdi *other;

	open_vol(t, SD_OPEN_RDONLY);
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &other), 0);
	memset(t->model, 5, 2 * OBJ);
	assert_int_equal(sd_write(other, t->model, 2 * OBJ, 0), 0);
	assert_int_equal(sd_vdi_close(t->v), 0);
	assert_int_equal(sd_vdi_open(t->c, "v", SD_OPEN_RDONLY, &t->v), 0);
	check_all(t);
	assert_int_equal(sd_discard(other, OBJ, 0), 0);
	memset(t->model, 0, OBJ);
	check_all(t); /* NO_OBJ, looked again */
	assert_int_equal(sd_vdi_allocated(t->v), OBJ);
	assert_int_equal(sd_vdi_close(other), 0);
	stop(t);
}

static void test_old_server(void **state)
{
	struct ctx *t = start(0, 0);

	t->k->old = true;
	open_vol(t, SD_OPEN_CACHE);
	t->model[0] = 1;
	assert_int_equal(sd_write(t->v, t->model, 1, 0), 0);
	assert_int_equal(sd_flush(t->v), 0);
	run_random(t, 500, 16);
	check_all(t);
	assert_int_equal(t->st->hellos, 0);
	assert_int_equal(t->st->ops[SD_OP_FLUSH_VDI], 1); /* told once that it need not */
	stop(t);
}

static void fail_with(struct ctx *t, uint8_t op, uint32_t result, unsigned times)
{
	t->k->fail_op = op;
	t->k->fail_result = result;
	t->k->fail_times = times;
}

static void test_results(void **state)
{
	struct ctx *t = start(0, 1);
	struct sd_vdi *v;

	fail_with(t, SD_OP_NEW_VDI, SD_RES_AGAIN, 3);
	open_vol(t, 0);
	assert_int_equal(t->k->fail_times, 0);
	fail_with(t, SD_OP_LOCK_VDI, SD_RES_WAIT_FOR_FORMAT, 2);
	assert_int_equal(sd_vdi_open(t->c, "v", 0, &v), ERR(WAIT_FOR_FORMAT));
	/* a new node: the other one serves */
	fail_with(t, SD_OP_GET_VDI_INFO, SD_RES_WAIT_FOR_FORMAT, 1);
	assert_int_equal(sd_vdi_open(t->c, "v", SD_OPEN_RDONLY, &v), 0);
	assert_int_equal(sd_vdi_close(v), 0);
	fail_with(t, SD_OP_CREATE_AND_WRITE_OBJ, SD_RES_NO_SPACE, 1);
	assert_int_equal(sd_write(t->v, t->model, 4096, 0), ERR(NO_SPACE));
	assert_string_equal(sd_strerror(ERR(NO_SPACE)), "Server has no space for new objects");
	memset(t->model, 1, 4096);
	assert_int_equal(sd_write(t->v, t->model, 4096, 0), 0);
	fail_with(t, SD_OP_READ_OBJ, SD_RES_EIO, 1);
	assert_int_equal(sd_read(t->v, t->buf, 4096, 0), ERR(EIO));
	fail_with(t, SD_OP_WRITE_OBJ, SD_RES_EIO, 1); /* the index write of a create */
	assert_int_equal(sd_write(t->v, t->model, 4096, 4 * OBJ), ERR(EIO));
	memset(t->model + 4 * OBJ, 6, 4096);
	assert_int_equal(sd_write(t->v, t->model + 4 * OBJ, 4096, 4 * OBJ), 0);
	/* the daemon stops: its neighbour serves */
	t->k->fail_gateway = 0;
	fail_with(t, SD_OP_WRITE_OBJ, SD_RES_KILLED, 1000000);
	memset(t->model + 100, 7, 100);
	assert_int_equal(sd_write(t->v, t->model + 100, 100, 100), 0);
	t->k->fail_times = 0;
	check_all(t);
	stop(t);
}

static void test_raw(void **state)
{
	struct ctx *t = start(0, 1);
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER,
			     .opcode = SD_OP_STAT,
			     .data_length = 120};
	struct sd_req kill_req = {.proto_ver = SD_INTERNAL_PROTO_VER, .opcode = SD_OP_KILL_NODE};
	struct sd_rsp rsp;
	uint8_t b[120];
	size_t len = sizeof(b);

	assert_int_equal(sd_request(t->c, &req, NULL, b, &len, &rsp), 0);
	assert_int_equal(len, 120);
	assert_int_equal(b[119], 0x5a);
	len = 10;
	assert_int_equal(sd_request(t->c, &req, NULL, b, &len, &rsp), -EINVAL);
	t->k->lose_op = SD_OP_STAT; /* asked again */
	len = sizeof(b);
	assert_int_equal(sd_request(t->c, &req, NULL, b, &len, &rsp), 0);
	t->k->lose_op = SD_OP_KILL_NODE; /* must not hit another node */
	assert_int_equal(sd_request(t->c, &kill_req, NULL, NULL, NULL, &rsp), -ECONNRESET);
	assert_int_equal(t->st->ops[SD_OP_KILL_NODE], 1);
	req.opcode = 0x77;
	req.data_length = 0;
	assert_int_equal(sd_request(t->c, &req, NULL, NULL, NULL, &rsp), 0);
	assert_int_equal(rsp.result, SD_RES_INVALID_PARMS);
	assert_int_equal(sd_request_to(t->c, "127.0.0.1:31302", &kill_req, NULL, NULL, NULL, &rsp),
			 0);
	assert_int_equal(rsp.result, 0);
	t->k->lose_op = SD_OP_KILL_NODE;
	assert_int_equal(sd_request_to(t->c, "127.0.0.1:31302", &kill_req, NULL, NULL, NULL, &rsp),
			 -ECONNRESET);
	assert_int_equal(sd_request_to(t->c, "127.0.0.1:31398", &kill_req, NULL, NULL, NULL, &rsp),
			 -ECONNREFUSED);
	assert_string_equal(sd_last_error(t->c), "connect to 127.0.0.1:31398: Connection refused");
	t->k->mode[2] = FAKE_MUTE;
	nap(10);
	sd_cluster_set_timeout(t->c, 200);
	assert_int_equal(sd_request_to(t->c, "127.0.0.1:31302", &kill_req, NULL, NULL, NULL, &rsp),
			 -ETIMEDOUT);
	stop(t);
}

/* ---- callbacks that call back ---- */

struct chain {
	struct ctx *t;
	unsigned left, blocking;
	uint8_t block[4096];
};

static void on_chain(void *arg, int err)
{
	struct chain *ch = arg;
	struct iovec iov = {ch->block, sizeof(ch->block)};

	assert_int_equal(err, 0);
	if (ch->left % 8 == 1) { /* a blocking call, inside */
		uint8_t b[512];
		assert_int_equal(sd_read(ch->t->v, b, 512, 0), 0);
		ch->blocking++;
	}
	if (!--ch->left)
		return;
	assert_int_equal(sd_writev_async(ch->t->v, &iov, 1, ch->left * 8192ull, on_chain, ch), 0);
}

static void test_callbacks(void **state)
{
	struct ctx *t = start(0, 0);
	struct chain ch = {.t = t, .left = 100};
	struct iovec iov = {ch.block, sizeof(ch.block)};

	open_vol(t, 0);
	assert_int_equal(sd_writev_async(t->v, &iov, 1, 0, on_chain, &ch), 0);
	assert_int_equal(ch.left, 100); /* not from the call itself */
	while (ch.left)
		assert_true(sd_wait(t->c, 2000) >= 0);
	assert_int_equal(ch.blocking, 13);
	stop(t);
}

static void on_cancel(void *arg, int err)
{
	struct ctx *t = arg;

	assert_int_equal(err, -ECANCELED);
	t->seed++;
	if (t->v) {
		struct sd_vdi *v = t->v;
		t->v = NULL;
		sd_vdi_close(v);
	}
}

static void test_close_in_flight(void **state)
{
	struct ctx *t = start(0, 0);
	struct iovec iov = {t->model, 8 * OBJ};

	open_vol(t, 0);
	t->k->deaf = true;
	nap(10);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(sd_writev_async(t->v, &iov, 1, i * 8ull * OBJ, on_cancel, t), 0);
	sd_wait(t->c, 50);
	sd_wait(t->c, 50);
	t->seed = 0;
	sd_cluster_close(t->c);
	t->c = NULL;
	assert_int_equal(t->seed, 4);
	stop(t);
}

static void test_unix(void **state)
{
	char path[64], gw[80];
	struct sd_cluster *c;
	struct sd_vdi *v;
	uint8_t b[512] = {1}, d[512];

	snprintf(path, sizeof(path), "/tmp/test_client.%d.sock", (int)getpid());
	snprintf(gw, sizeof(gw), "unix:%s", path);
	struct fake *f = fake_start(PORT, path);
	assert_int_equal(sd_cluster_open(gw, &c), 0);
	assert_int_equal(sd_vdi_create(c, "u", 1 << 20, NULL, NULL), 0);
	assert_int_equal(sd_vdi_open(c, "u", 0, &v), 0);
	assert_int_equal(sd_write(v, b, 512, 512), 0);
	assert_int_equal(sd_read(v, d, 512, 512), 0);
	assert_memory_equal(b, d, 512);
	assert_int_equal(sd_vdi_close(v), 0);
	sd_cluster_close(c);
	fake_stop(f);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_basic),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_lost_connections),
		cmocka_unit_test(test_lost_lone),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_dead_gateways),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_breaking),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_not_a_server),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_two_clients),
		cmocka_unit_test(test_old_server),
		cmocka_unit_test(test_results),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_callbacks),
		cmocka_unit_test(test_close_in_flight),
		cmocka_unit_test(test_unix),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
