/* sync_life.c - a part of test_sync: restarts, given-up branches, torn objects, the file `sync`,
 * and the map of what was in sync when. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/sync_tests.h"

/* What the store says of an object whose file has lost its header: torn, of no known copies. */
static void lose_header(struct rig *r, unsigned n, uint64_t o)
{
	mem_put(r->node[n].sh.store, o, V(0, 1), OBJ_SIZE, 0, 0xee);
	mem_tear(r->node[n].sh.store, o);
}

/* It is what the others have, or goes when they do not have it (I7). */
void test_lost_header(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0), gone = rig_oid(r, 1);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, B);
	rig_step(r, M(A) | M(C));
	rig_start(r, B);
	lose_header(r, B, o);
	lose_header(r, B, gone);
	rig_step(r, ABC);
	rig_rest(r, ABC);
	assert_int_equal(rig_read(r, B, o), 0x11);
	assert_int_equal(rig_read(r, B, gone), -1);
	assert_int_equal(rig_ver(r, B, gone).seq, 0);
}

/* The same after a clean restart; beside the ring it is dropped. */
void test_lost_header_clean(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0), gone = rig_oid(r, 1);

	rig_boot(r, ABC);
	rig_rest(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	for (unsigned n = A; n <= C; n++)
		rig_crash(r, n);
	for (unsigned n = A; n <= C; n++) {
		rig_start(r, n);
		r->epoch[1].start[n] = r->node[n].sh.self.inc.start;
	}
	lose_header(r, B, o);
	lose_header(r, B, gone);
	lose_header(r, C, gone);
	for (unsigned n = A; n <= C; n++)
		assert_int_equal(rig_apply_clean(r, n, 1, true), 0);
	rig_rest(r, ABC);
	assert_int_equal(rig_read(r, B, o), 0x11);
	assert_int_equal(rig_read(r, B, gone), -1);
	assert_int_equal(rig_ver(r, B, gone).seq, 0);
	assert_int_equal(rig_ver(r, C, gone).seq, 0);
}

/* Without the clean mark the epoch must have gone up; the same number again is refused. */
void test_same_epoch_again(void **state)
{
	struct rig *r = *state;

	rig_boot(r, ABC);
	rig_crash(r, A);
	rig_start(r, A);
	r->epoch[1].start[A] = r->node[A].sh.self.inc.start;
	assert_int_equal(rig_apply_clean(r, A, 1, false), -EUCLEAN);
	/* nor does it help that it says clean, when that was another epoch of the number */
	memset(r->epoch[1].name, 0xee, sizeof(r->epoch[1].name));
	assert_int_equal(rig_apply_clean(r, A, 1, true), -EUCLEAN);
}

/* Copies that no VDI has: nothing exists, nobody is waited for; but who has an object compares. */
void test_unused_copies(void **state)
{
	struct rig *r = *state;
	uint64_t o = SD_DATA_OID(1, 0);
	struct sync *s;

	rig_copies = 2;
	rig_boot(r, ABC);
	rig_rest(r, ABC);
	r->vdi.vid = 0; /* the VDI is gone */
	rig_crash(r, A);
	rig_crash(r, B);
	rig_step(r, M(C));
	rig_rest(r, M(C)); /* no copy of anything is waited for */
	rig_start(r, A);
	mem_put(r->node[A].sh.store, o, V(1, 1), 4096, 2, 0x11);
	mem_put(r->node[A].sh.store, o + 1, V(1, 1), 4096, 2, 0x11);
	rig_epoch(r, M(A) | M(C));
	rig_apply(r, A, r->nr_epochs);
	s = r->node[A].sh.sync;
	assert_int_equal(s->have, 1u << 2);
	assert_false(sync_in(s, o, sd_hash_oid(o), 2));
	rig_apply(r, C, r->nr_epochs);
	rig_rest(r, M(A) | M(C));
	is_absent(r, A, o);
	is_absent(r, A, o + 1);
}

/* What comes from a given-up branch counts as of the last common epoch, and goes to .stale/. */
void test_given_up(void **state)
{
	struct rig *r = *state;
	uint64_t o = SD_DATA_OID(1, 0), p = SD_DATA_OID(1, 1);

	rig_copies = 2;
	rig_boot(r, M(A) | M(B));
	rig_rest(r, M(A) | M(B));
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, B);
	/* A goes on alone, up to epoch 3 of its branch */
	rig_step(r, M(A));
	uint32_t e3 = rig_step(r, M(A));
	call_ok_(call_write(r, A, A, e3, o, V(2, 1), V(1, 1), 0x22));
	call_ok_(call_write(r, A, A, e3, p, V(2, 2), none, 0x23));
	rig_crash(r, A);
	/* the operator starts B alone: another epoch 2 */
	rig_start(r, B);
	r->nr_epochs = 1;
	r->branch = 100;
	uint32_t e = rig_epoch(r, M(B));
	r->epoch[e].forced = true;
	rig_apply(r, B, e);
	rig_rest(r, M(B));
	call_ok_(call_write(r, B, B, e, o, V(1ull << 32, 1), V(1, 1), 0x33));
	rig_start(r, A);
	r->node[A].given_up = true;
	r->node[A].common_epoch = 1;
	rig_step(r, M(A) | M(B));
	rig_rest(r, M(A) | M(B));
	assert_int_equal(rig_read(r, A, o), 0x33);
	assert_int_equal(rig_read(r, A, p), -1);
	assert_int_equal(rig_read(r, B, p), -1);
	assert_int_equal(mem_nr_stale(r->node[A].sh.store), 2); /* kept for the operator */
	/* said again after a restart, it is done already */
	rig_crash(r, A);
	rig_step(r, M(B));
	rig_start(r, A);
	rig_step(r, M(A) | M(B));
	assert_false(r->node[A].sh.sync->branch);
	rig_rest(r, M(A) | M(B));
	assert_int_equal(mem_nr_stale(r->node[A].sh.store), 2);
}

/* ---- torn (DESIGN 6) ---- */

/* A torn one ranks below the same version whole, and is replaced as a whole version. */
static void torn_one(struct rig *r, bool bulk)
{
	uint64_t o = SD_DATA_OID(1, 0);

	rig_copies = 3;
	rig_boot(r, ABC);
	rig_rest(r, ABC);
	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	for (unsigned n = A; n <= C; n++)
		rig_crash(r, n);
	for (unsigned n = A; n <= C; n++)
		rig_start(r, n);
	mem_tear(r->node[A].sh.store, o);
	mem_tear(r->node[C].sh.store, o);
	r->params.disable_recovery = !bulk;
	rig_step(r, ABC);
	if (bulk)
		rig_rest(r, ABC);
	for (unsigned n = A; n <= C; n++) {
		assert_int_equal(rig_read(r, n, o), 0x11);
		assert_false(mem_bad(r->node[n].sh.store, o));
		assert_int_equal(obj_ver_cmp(rig_ver(r, n, o), V(1, 1)), 0);
	}
}

void test_torn_one(void **state)
{
	torn_one(*state, false);
}

void test_torn_one_bulk(void **state)
{
	torn_one(*state, true);
}

static void torn_everywhere(struct rig *r, uint64_t o)
{
	rig_copies = 3;
	rig_boot(r, ABC);
	rig_rest(r, ABC);
	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	for (unsigned n = A; n <= C; n++)
		rig_crash(r, n);
	for (unsigned n = A; n <= C; n++) {
		rig_start(r, n);
		mem_tear(r->node[n].sh.store, o);
	}
}

/* No owner lives: one replica's bytes count as they are, with a version of its own. */
void test_torn_all(void **state)
{
	struct rig *r = *state;
	uint64_t o = SD_DATA_OID(1, 0);

	torn_everywhere(r, o);
	rig_step(r, ABC);
	rig_rest(r, ABC);
	for (unsigned n = A; n <= C; n++) {
		assert_int_equal(rig_read(r, n, o), 0x11);
		assert_int_equal(obj_ver_cmp(rig_ver(r, n, o), rig_ver(r, A, o)), 0);
		assert_true(obj_ver_cmp(rig_ver(r, n, o), V(1, 1000)) > 0);
		assert_true(obj_ver_cmp(rig_ver(r, n, o), V(2, 1)) < 0);
	}
}

/* An owner lives: it may have the write in flight that tore it, so nothing happens before it asks
 * for the version, in a generation in which it did not touch the object. */
void test_torn_all_owner(void **state)
{
	struct rig *r = *state;
	uint64_t o = SD_DATA_OID(1, 0);
	struct call *k[3];

	torn_everywhere(r, o);
	r->vdi.owned = true;
	r->vdi.gen = 2;
	r->vdi.owner = r->node[B].sh.self.inc;
	uint32_t e = rig_step(r, ABC);
	rig_ms(r, 500);
	for (unsigned n = A; n <= C; n++) {
		assert_int_equal(rig_read(r, n, o), -2);
		assert_int_equal(rig_ver(r, n, o).gen, 1);
	}
	for (unsigned n = A; n <= C; n++) {
		k[n] = call_op(r, B, n, e, o, PEER_VERSION);
		k[n]->c.req.prev_gen = 2;
		call_submit(k[n], B, n);
	}
	for (unsigned n = A; n <= C; n++) {
		call_wait(k[n]);
		assert_int_equal(k[n]->c.rsp.result, SD_RES_SUCCESS);
		assert_true(k[n]->c.rsp.ver_gen == 2 && k[n]->c.rsp.ver_seq == 0);
		assert_int_equal(k[n]->c.rsp.flags & PEER_F_TORN, 0);
		call_free(k[n]);
		assert_int_equal(rig_read(r, n, o), 0x11);
	}
	rig_write(r, B, ABC, o, V(2, 1), V(2, 0), 0x21);
	rig_rest(r, ABC);
}

static void versions(struct rig *r, uint32_t e, uint64_t o, struct obj_ver as, uint32_t result,
		     struct obj_ver expected)
{
	struct call *k[3];

	for (unsigned n = A; n <= C; n++) {
		k[n] = call_op(r, B, n, e, o, PEER_VERSION);
		k[n]->c.req.prev_gen = 1;
		k[n]->c.req.ver_gen = as.gen;
		k[n]->c.req.ver_seq = as.seq;
		call_submit(k[n], B, n);
	}
	for (unsigned n = A; n <= C; n++) {
		call_wait(k[n]);
		assert_int_equal(k[n]->c.rsp.result, result);
		assert_int_equal(k[n]->c.rsp.ver_gen, expected.gen);
		assert_int_equal(k[n]->c.rsp.ver_seq, expected.seq);
		call_free(k[n]);
	}
}

/* The owner lives and has written it in its generation: its writes and questions are answered
 * AGAIN until it names a version for what lies there. */
void test_torn_all_named(void **state)
{
	struct rig *r = *state;
	uint64_t o = SD_DATA_OID(1, 0);

	torn_everywhere(r, o);
	r->vdi.owned = true;
	r->vdi.gen = 1;
	r->vdi.owner = r->node[B].sh.self.inc;
	uint32_t e = rig_step(r, ABC);
	struct call *k = call_write(r, B, C, e, o, V(1, 2), V(1, 1), 0x22);
	call_wait(k);
	assert_int_equal(k->c.rsp.result, SD_RES_AGAIN);
	call_free(k);
	versions(r, e, o, none, SD_RES_AGAIN, none);
	versions(r, e, o, V(1, 1), SD_RES_AGAIN, none); /* not above what lies there */
	versions(r, e, o, V(1, 3), SD_RES_SUCCESS, V(1, 3));
	for (unsigned n = A; n <= C; n++)
		assert_int_equal(rig_read(r, n, o), 0x11);
	rig_write(r, B, ABC, o, V(1, 4), V(1, 3), 0x22);
	rig_rest(r, ABC);
	assert_int_equal(rig_read(r, C, o), 0x22);
}

/* ---- the objects of one VDI (DESIGN 5.6) ---- */

/* One page from A at B; what it covers, and how many of it: they are in order. */
static uint64_t vid_page(struct rig *r, uint32_t vid, uint64_t from, unsigned *nr)
{
	struct call *k = call_op(r, A, B, 1, 0, PEER_VID_LIST);

	k->c.req.vid = vid;
	k->c.req.off = from;
	k->c.reply_cap = PEER_VID_LIST_MAX * sizeof(uint64_t);
	k->c.reply_buf = buf_new(r->pool, k->c.reply_cap);
	call_submit(k, A, B);
	call_wait(k);
	assert_int_equal(k->c.rsp.result, SD_RES_SUCCESS);
	const uint64_t *oid = k->c.reply_buf->data;
	*nr = k->c.reply_len / sizeof(*oid);
	for (unsigned i = 0; i < *nr; i++) {
		assert_int_equal(SD_OID_VID(oid[i]), vid);
		assert_true(sd_hash_oid(oid[i]) >= from && sd_hash_oid(oid[i]) <= k->c.rsp.len);
		assert_true(!i || sd_hash_oid(oid[i]) > sd_hash_oid(oid[i - 1]));
	}
	uint64_t to = k->c.rsp.len;
	call_free(k);
	return to;
}

void test_vid_list(void **state)
{
	struct rig *r = on_demand(state);
	unsigned all = 0, pages = 0, nr;
	uint64_t from = 0, to;

	rig_boot(r, ABC);
	for (unsigned i = 0; i < 1500; i++) {
		mem_put(r->node[B].sh.store, SD_DATA_OID(1, i), V(1, 1), 4096, 2, 0x11);
		mem_put(r->node[B].sh.store, SD_DATA_OID(2, i), V(1, 1), 4096, 2, 0x11);
	}
	mem_put(r->node[B].sh.store, SD_INODE_OID(1), V(1, 1), 4096, 2, 0x11);
	do {
		to = vid_page(r, 1, from, &nr);
		assert_true(to >= from);
		all += nr;
		pages++;
		from = to + 1;
	} while (to != UINT64_MAX);
	assert_int_equal(all, 1501);
	assert_int_equal(pages, 3);
	/* nothing of it: all is looked at in one answer, or as much as one may */
	assert_true(vid_page(r, 3, 0, &nr) == UINT64_MAX && nr == 0);
	/* held until the epoch is applied, as all that recovery asks */
	rig_epoch(r, ABC);
	struct call *k = call_op(r, A, B, 2, 0, PEER_VID_LIST);
	k->c.req.vid = 3;
	call_submit(k, A, B);
	rig_ms(r, 20);
	assert_false(k->done);
	rig_apply(r, B, 2);
	call_ok_(k);
	k = call_op(r, A, B, 2, 0, PEER_VID_LIST);
	call_submit(k, A, B);
	call_is_(k, SD_RES_INVALID_PARMS);
}

/* ---- the file ---- */

static void sync_path(struct rig *r, unsigned n, char *path, size_t len)
{
	snprintf(path, len, "%s/sync", r->node[n].dir);
}

/* A batch of marks that a crash tore at its end: what is before it counts. */
void test_file_torn(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0), p = rig_oid(r, 1);
	char path[128];

	rig_copies = 1;
	rig_boot(r, M(B));
	rig_start(r, A);
	rig_step(r, M(A) | M(B));
	assert_int_equal(rig_read(r, A, o), -1);
	assert_int_equal(rig_read(r, A, p), -1);
	assert_int_equal(sync_synced(r->node[A].sh.sync, o, sd_hash_oid(o), 1), 2);
	rig_crash(r, A);
	sync_path(r, A, path, sizeof(path));
	int fd = open(path, O_RDWR);
	off_t end = lseek(fd, 0, SEEK_END);
	assert_int_equal(ftruncate(fd, end - 5), 0);
	assert_int_equal(pwrite(fd, "garbage garbage garbage garbage", 31, end - 5), 31);
	close(fd);
	rig_start(r, A);
	assert_int_equal(sync_synced(r->node[A].sh.sync, o, sd_hash_oid(o), 1), 2);
	assert_int_equal(sync_synced(r->node[A].sh.sync, p, sd_hash_oid(p), 1), 0);
}

static void load_bad_co(void *arg)
{
	struct node *n = arg;

	assert_int_equal(store_open(n->sh.sched, n->sh.env, &n->conf.store, &n->sh.store, NULL), 0);
	assert_int_equal(sync_init(&n->sh), -EUCLEAN);
	sync_stop(&n->sh);
	sync_done(&n->sh);
	store_close(n->sh.store);
}

/* A damaged map is no map: "nothing was in sync" would let an older copy win. */
void test_file_damaged(void **state)
{
	struct rig *r = *state;
	char path[128], byte = 0x55;

	rig_boot(r, M(A));
	rig_crash(r, A);
	sync_path(r, A, path, sizeof(path));
	int fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, &byte, 1, 60), 1);
	close(fd);
	r->node[A].sh.pool = buf_pool_new(0);
	rig_run(r, load_bad_co, &r->node[A]);
	buf_pool_free(r->node[A].sh.pool);
}

/* Many marks: the file is made anew now and then, and says the same. */
void test_file_many(void **state)
{
	struct rig *r = on_demand(state);
	enum { NR = 150 }; /* < REPLICA_HELD_PEER_MAX */
	struct call *k[NR];

	rig_copies = 1;
	rig_boot(r, M(B));
	rig_start(r, A);
	uint32_t e = rig_step(r, M(A) | M(B));
	r->node[A].sh.sync->nr_appended = SYNC_APPEND_MAX; /* nearly full */
	for (unsigned i = 0; i < NR; i++)
		k[i] = call_read(r, A, A, e, rig_oid(r, i));
	for (unsigned i = 0; i < NR; i++)
		call_is_(k[i], SD_RES_NO_OBJ);
	assert_true(r->node[A].sh.sync->nr_appended < SYNC_APPEND_MAX);
	rig_crash(r, A);
	rig_start(r, A);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(sync_synced(r->node[A].sh.sync, rig_oid(r, i),
					     sd_hash_oid(rig_oid(r, i)), 1),
				 2);
}

/* ---- the end ---- */

static void ensure_co(void *arg)
{
	struct rig *r = arg;
	struct view *v = rig_view(r, r->nr_epochs, C);

	assert_int_equal(sync_ensure(&r->node[C].sh, v, rig_oid(r, 0), 2), -ECANCELED);
	view_put(v);
	r->job = NULL;
}

/* sync_stop() ends all waits. */
void test_stop(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, A);
	rig_crash(r, B);
	uint32_t e = rig_step(r, M(C));
	r->job = "ensure";
	assert_non_null(co_start(r->sched, ensure_co, r, "ensure"));
	struct call *k = call_write(r, C, C, e, o, V(1, 2), V(1, 1), 0x12);
	struct call *l = call_write(r, C, C, e + 1, o, V(1, 3), V(1, 2), 0x13);
	struct call *m = call_read(r, C, C, e, o);
	rig_ms(r, 20);
	rig_crash(r, C);
	assert_null(r->job);
	assert_int_equal(k->c.error, -ENOTCONN);
	assert_true(l->done && m->done);
	call_free(k);
	call_free(l);
	call_free(m);
}

/* ---- the map ---- */

#define GRID 64u

static uint32_t at(const struct sync_map *m, unsigned cell, unsigned c)
{
	return m->seg[smap_find(m, (uint64_t)cell << 58 | 5)].s[c - 1];
}

/* Boxes set at random, against a plain table. */
void test_map_random(void **state)
{
	static uint32_t plain[GRID][SD_COPIES_MAX];
	struct sync_map m;

	srandom(7);
	assert_int_equal(smap_init(&m), 0);
	for (unsigned n = 0; n < 3000; n++) {
		unsigned a = random() % GRID, b = a + random() % (GRID - a);
		struct sync_box box = {(uint64_t)a << 58, ((uint64_t)b << 58) + ((1ull << 58) - 1),
				       1, 1};
		box.clo = 1 + random() % SD_COPIES_MAX;
		box.chi = box.clo + random() % (SD_COPIES_MAX - box.clo + 1);
		uint32_t e = random() % 4;
		assert_int_equal(smap_set(&m, &box, e), 0);
		for (unsigned i = a; i <= b; i++)
			for (unsigned c = box.clo; c <= box.chi; c++)
				plain[i][c - 1] = e;
		assert_true(m.nr <= GRID && m.end[m.nr - 1] == UINT64_MAX);
		for (unsigned i = 0; i < GRID; i++)
			for (unsigned c = 1; c <= SD_COPIES_MAX; c++)
				assert_int_equal(at(&m, i, c), plain[i][c - 1]);
		for (unsigned i = 1; i < m.nr; i++) { /* M1 */
			assert_true(m.end[i - 1] < m.end[i]);
			assert_memory_not_equal(&m.seg[i - 1], &m.seg[i], sizeof(m.seg[i]));
		}
	}
	smap_done(&m);
}

/* In sync for a number of copies: mine in both, and in sync before. */
void test_map_view(void **state)
{
	struct rig *r = *state;
	struct sync_map m0, m1, m2, m3;

	for (unsigned n = A; n <= D; n++)
		rig_start(r, n);
	rig_epoch(r, ABC);
	rig_epoch(r, ABC | M(D));
	rig_epoch(r, M(A) | M(D));
	struct view *v[4] = {NULL, rig_view(r, 1, A), rig_view(r, 2, A), rig_view(r, 3, A)};
	assert_int_equal(smap_init(&m0), 0);
	assert_int_equal(smap_view(&m0, v[1]->ring, v[1]->self, 0, 1, UINT32_MAX, &m1), 0);
	assert_int_equal(smap_view(&m1, v[2]->ring, v[2]->self, 1, 2, 0, &m2), 0);
	assert_int_equal(smap_view(&m2, v[3]->ring, v[3]->self, 2, 3, 0, &m3), 0);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t h = sd_hash_oid(i);
		for (unsigned c = 1; c <= 4; c++) {
			bool mine[4] = {false};
			for (unsigned k = 1; k <= 3; k++) {
				uint32_t ring[SD_COPIES_MAX];
				unsigned nr = ring_lookup(v[k]->ring, h, c, ring);
				for (unsigned j = 0; j < nr; j++)
					mine[k] |= (int)ring[j] == v[k]->self;
			}
			const struct sync_seg *s1 = &m1.seg[smap_find(&m1, h)],
					      *s2 = &m2.seg[smap_find(&m2, h)],
					      *s3 = &m3.seg[smap_find(&m3, h)];
			uint32_t e1 = mine[1] ? 1 : 0, e2 = mine[2] && e1 == 1 ? 2 : e1,
				 e3 = mine[3] && e2 == 2 ? 3 : e2;
			assert_int_equal(s1->rank < c, mine[1]);
			assert_int_equal(s3->rank < c, mine[3]);
			assert_int_equal(s1->s[c - 1], e1);
			assert_int_equal(s2->s[c - 1], e2);
			assert_int_equal(s3->s[c - 1], e3);
		}
	}
	smap_done(&m0);
	smap_done(&m1);
	smap_done(&m2);
	smap_done(&m3);
	for (unsigned k = 1; k <= 3; k++)
		view_put(v[k]);
}
