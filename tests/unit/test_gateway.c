/* test_gateway.c - the gateway and the owner of the data path, against gw_rig.h. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/gw_tests.h"

uint8_t got[OBJLEN + 8192];
static uint8_t blk[8192];

const void *pat(int c)
{
	memset(blk, c, sizeof(blk));
	return blk;
}

bool all(const uint8_t *p, size_t n, int c)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != c)
			return false;
	return true;
}

/* @gateway: a node without data, or -1. */
struct rig *start_with(unsigned nodes, unsigned copies, int gateway, uint32_t *vid)
{
	struct rig *r = rig_new(nodes, copies);

	if (gateway >= 0)
		r->n[gateway].conf.gateway = true;
	rig_view(r);
	assert_int_equal(rq_create(r, 0, "a", 64ull << 20, vid), SD_RES_SUCCESS);
	return r;
}

struct rig *start(unsigned nodes, unsigned copies, uint32_t *vid)
{
	return start_with(nodes, copies, -1, vid);
}

uint32_t idx_set(struct rig *r, int node, uint32_t vid, uint32_t i, uint32_t e, uint16_t fl)
{
	return rq(r, node, WRITE, SD_INODE_OID(vid), IDX(i), &e, 4, fl);
}

uint32_t idx_get(struct rig *r, int node, uint32_t vid, uint32_t i)
{
	uint32_t e = 77;

	assert_int_equal(rq_read(r, node, SD_INODE_OID(vid), IDX(i), &e, 4), SD_RES_SUCCESS);
	return e;
}

/* ---- objects ---- */

static void objects(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 3);

	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(1), 4096, 0), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 0, WRITE, o, 0, NULL, 0, 0), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 0, REMOVE, o, 0, NULL, 0, 0), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 0, CREATE, o, 8192, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, WRITE, o, 8191, pat(2), 2, CACHE), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, WRITE, o, 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 0, o, 0, got, 3 * 4096), SD_RES_SUCCESS);
	assert_true(all(got, 8191, 0) && all(got + 8191, 2, 2) && all(got + 8193, 4095, 1));
	/* beyond the end: reads are zeros of the full length, writes are refused */
	assert_int_equal(rq(r, 0, WRITE, o, OBJLEN - 4096, pat(3), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 0, o, OBJLEN - 4096, got, 8192), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 3) && all(got + 4096, 4096, 0));
	assert_int_equal(rq_read(r, 0, o, 2 * OBJLEN, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 0));
	assert_int_equal(rq_read(r, 0, o, 0, got, 0), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, WRITE, o, OBJLEN - 2048, pat(3), 4096, 0), SD_RES_INVALID_PARMS);
	/* T7: CREATE replaces; an empty one makes zeros */
	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(9), 512, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 0, o, 0, got, OBJLEN), SD_RES_SUCCESS);
	assert_true(all(got, 512, 9) && all(got + 512, OBJLEN - 512, 0));
	assert_int_equal(rq(r, 0, CREATE, o, 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 0, o, 0, got, OBJLEN), SD_RES_SUCCESS);
	assert_true(all(got, OBJLEN, 0));
	rig_compare(r);
	assert_int_equal(rq(r, 0, REMOVE, o, 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 0, o, 0, got, 1), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(4), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 0, o, 0, got, 1), SD_RES_SUCCESS);
	rig_compare(r);
	rig_free(r);
}

static void admission(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);

	assert_int_equal(rq_read(r, 0, SD_DATA_OID(0x777, 0), 0, got, 1), SD_RES_NO_OBJ);
	assert_int_equal(r->nr_barriers, 1); /* the table was brought up to date first */
	assert_int_equal(rq_read(r, 0, SD_DATA_OID(0, 0), 0, got, 1), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, SD_NR_OBJS_MAX), 0, pat(1), 1, 0),
			 SD_RES_INVALID_PARMS);
	assert_int_equal(rq(r, 0, CREATE, SD_INODE_OID(vid), 0, pat(1), 1, 0),
			 SD_RES_INVALID_PARMS);
	assert_int_equal(rq(r, 0, REMOVE, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_INVALID_PARMS);
	assert_int_equal(rq(r, 0, WRITE, 3ull << 62 | (uint64_t)vid << 32, 0, pat(1), 1, 0),
			 SD_RES_INVALID_PARMS);
	assert_int_equal(rq_read(r, 0, SD_OID_ATTR_BIT | 5ull << 32, 0, got, 1), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 0, WRITE, SD_OID_ATTR_BIT | 5ull << 32, 0, pat(1), 1, 0),
			 SD_RES_NO_SUPPORT);
	/* another daemon forwards what our server never would */
	assert_int_equal(rq(r, 0, 0x77, SD_DATA_OID(vid, 0), 0, NULL, 4096, 0), SD_RES_NO_SUPPORT);
	/* snapshots: data objects are read-only, vmstate and reads are not */
	rig_vdi(r, vid)->snap_ctime = 1;
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 0), 0, pat(1), 1, 0), SD_RES_READONLY);
	assert_int_equal(idx_set(r, 0, vid, 0, 0, 0), SD_RES_READONLY);
	assert_int_equal(rq(r, 0, DISCARD, SD_DATA_OID(vid, 0), 0, NULL, 0, 0), SD_RES_READONLY);
	assert_int_equal(rq(r, 0, CREATE, SD_VMSTATE_OID(vid, 0), 0, pat(1), 1, 0), SD_RES_SUCCESS);
	rig_vdi(r, vid)->snap_ctime = 0;
	/* being made: not there yet */
	rig_vdi(r, vid)->creating = true;
	assert_int_equal(rq_read(r, 0, SD_INODE_OID(vid), 0, got, 10), SD_RES_NO_OBJ);
	rig_free(r);
}

/* Many requests at once: one CLAIM; from elsewhere they are forwarded. */
static void claims(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr t[32];

	memset(t, 0, sizeof(t));
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 0), 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(r->nr_claims, 0); /* who creates owns */
	rig_kill(r, 0);
	rig_view(r);
	for (int i = 0; i < 32; i++)
		tr_start(r, &t[i], 1, WRITE, SD_DATA_OID(vid, 0), i * 4096, pat(i), 4096, 0);
	for (int i = 0; i < 32; i++) {
		assert_int_equal(tr_wait(r, &t[i]), SD_RES_SUCCESS);
		tr_end(&t[i]);
	}
	assert_int_equal(r->nr_claims, 1);
	assert_int_equal(r->n[1].nr_forward, 0);
	for (int i = 0; i < 32; i++) {
		assert_int_equal(rq_read(r, 2, SD_DATA_OID(vid, 0), i * 4096, got, 4096), 0);
		assert_true(all(got, 4096, i));
	}
	assert_int_equal(r->n[1].nr_forward, 32);
	assert_int_equal(rq(r, 2, WRITE, SD_DATA_OID(vid, 0), 100, pat(7), 100, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 2, SD_DATA_OID(vid, 5), 0, got, 4096), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 2, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(r->nr_claims, 1);
	rig_free(r);
}

/* ---- views ---- */

/* WHY B2: a new view voids all answers; the write goes to the whole new ring, and is complete when
 * all have answered there. */
static void view_voids(void **state)
{
	uint32_t vid;
	struct rig *r = start(4, 3, &vid);
	struct tr t[3];
	uint64_t o = SD_DATA_OID(vid, 0);
	int idle;

	memset(t, 0, sizeof(t));
	/* an object that node 2 holds, and node 0 */
	for (uint32_t i = 0;; i++) {
		o = SD_DATA_OID(vid, i);
		assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
		if (rig_obj(r, 2, o) && rig_obj(r, 0, o))
			break;
	}
	for (idle = 1; rig_obj(r, idle, o); idle++)
		;
	r->blocked[0][2] = true;
	for (int i = 0; i < 3; i++)
		tr_start(r, &t[i], 0, WRITE, o, i * 4096, pat(10 + i), 4096, 0);
	rig_sleep(r, 500 * MS);
	assert_false(t[0].done || t[1].done || t[2].done);
	unsigned before = r->n[0].nr_write;
	assert_int_equal(rig_obj(r, 0, o)->ver.seq - rig_obj(r, 2, o)->ver.seq, 3);
	rig_kill(r, 2);
	r->n[idle].insync = false; /* enters the ring: it has to pull first */
	rig_view(r);
	rig_sleep(r, 100 * MS);
	assert_false(t[0].done || t[1].done || t[2].done);
	assert_int_equal(r->n[0].nr_write, before + 3); /* again, in the new epoch */
	assert_int_equal(r->n[0].last_write_epoch, r->epoch);
	rig_recover(r);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(tr_wait(r, &t[i]), SD_RES_SUCCESS);
		tr_end(&t[i]);
		assert_int_equal(rig_obj(r, idle, o)->data[i * 4096], 10 + i);
	}
	assert_int_equal(obj_ver_cmp(rig_obj(r, 0, o)->ver, rig_obj(r, idle, o)->ver), 0);
	rig_free(r);
}

/* A replica is in a newer epoch: wait for the views to meet.  And G3: answers of an epoch that the
 * cluster has left here do not count. */
static void views_meet(void **state)
{
	uint32_t vid;
	struct rig *r = start_with(4, 3, 3, &vid);
	struct tr t = {0}, u = {0};
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->n[0].torn_view = true;
	rig_kill(r, 3);
	rig_view(r); /* 1 and 2 have it, the owner has not */
	tr_start(r, &t, 0, WRITE, o, 0, pat(2), 4096, 0);
	tr_start(r, &u, 1, READ, o, 0, NULL, 4096, 0); /* forwarded, waits behind the write */
	rig_sleep(r, 300 * MS);
	assert_false(t.done || u.done);
	rig_apply(&r->n[0]);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &u), SD_RES_SUCCESS);
	assert_true(all(u.g.reply->data, 4096, 2));
	tr_end(&t);
	tr_end(&u);
	/* the other way round: the replicas lag and hold what is newer */
	r->n[0].torn_view = false;
	r->n[1].torn_view = true;
	rig_restart(r, 3);
	rig_view(r);
	rig_recover(r);
	tr_start(r, &t, 0, WRITE, o, 0, pat(3), 4096, 0);
	rig_sleep(r, 300 * MS);
	assert_false(t.done);
	rig_apply(&r->n[1]);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	rig_compare(r);
	rig_free(r);
}

/* Applied in the old epoch, answered in a newer one: that answer belongs to neither (G3). */
static void answer_between(void **state)
{
	uint32_t vid;
	struct rig *r = start_with(4, 3, 3, &vid);
	struct tr t = {0};
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->n[0].torn_view = true;
	r->n[1].late_epoch = true;
	r->n[2].paused = true;
	tr_start(r, &t, 0, WRITE, o, 0, pat(2), 4096, 0);
	rig_sleep(r, MS);
	r->delay_us = 20000;
	r->n[2].paused = false;
	rig_unblock(r, -1, 2);
	rig_sleep(r, MS / 2);
	assert_false(t.done);
	r->n[1].torn_view = true;
	r->n[2].torn_view = true;
	r->n[2].late_epoch = true;
	rig_kill(r, 3);
	rig_view(r);
	r->n[2].epoch = r->epoch; /* its reply is on its way out */
	rig_sleep(r, 40 * MS);
	assert_false(t.done);
	r->n[2].epoch--;
	r->delay_us = 20;
	for (int i = 0; i < 3; i++)
		rig_apply(&r->n[i]);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	rig_compare(r);
	rig_free(r);
}

/* Several writes of an object in flight, each with its previous one, with repeated messages. */
static void pipelining(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr t[64];
	uint64_t o = SD_DATA_OID(vid, 0);

	memset(t, 0, sizeof(t));
	r->dup = 3;
	r->delay_us = 2000;
	assert_int_equal(rq(r, 0, CREATE, o, 0, NULL, 0, 0), SD_RES_SUCCESS);
	uint64_t seq = rig_obj(r, 0, o)->ver.seq, t0 = r->now;
	for (int i = 0; i < 64; i++)
		tr_start(r, &t[i], 0, WRITE, o, i * 512, pat(i + 1), 512, 0);
	for (int i = 0; i < 64; i++) {
		assert_int_equal(tr_wait(r, &t[i]), SD_RES_SUCCESS);
		tr_end(&t[i]);
	}
	assert_true(r->now - t0 < 30 * MS); /* not one after the other */
	assert_int_equal(rig_obj(r, 0, o)->ver.seq, seq + 64);
	for (int i = 0; i < 64; i++)
		assert_true(all(rig_obj(r, 2, o)->data + i * 512, 512, i + 1));
	rig_compare(r);
	rig_free(r);
}

/* DESIGN 5.6: what the dead owner had in flight is decided once, before anything is served. */
static void takeover(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr t[3];
	uint64_t o = SD_DATA_OID(vid, 0), p = SD_DATA_OID(vid, 1), q = SD_DATA_OID(vid, 2);

	memset(t, 0, sizeof(t));
	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, CREATE, q, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->blocked[0][1] = true; /* 2 gets them, 1 does not */
	tr_start(r, &t[0], 0, WRITE, o, 0, pat(2), 4096, 0);
	tr_start(r, &t[1], 0, CREATE, p, 0, pat(3), 4096, 0);
	tr_start(r, &t[2], 0, REMOVE, q, 0, NULL, 0, 0);
	rig_sleep(r, 100 * MS);
	rig_kill(r, 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(tr_wait(r, &t[i]), NOTHING);
		tr_end(&t[i]);
	}
	assert_null(rig_obj(r, 1, p));
	assert_non_null(rig_obj(r, 1, q));
	rig_view(r);
	unsigned v1 = r->n[1].nr_version, v2 = r->n[2].nr_version;
	assert_int_equal(rq_read(r, 1, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2)); /* the highest wins, and all have it */
	assert_int_equal(r->n[1].nr_version, v1 + 1);
	assert_int_equal(r->n[2].nr_version, v2 + 1);
	assert_int_equal(r->n[1].nr_settle, 1);
	assert_int_equal(rq_read(r, 1, p, 0, got, 4096), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 1, q, 0, got, 4096), SD_RES_SUCCESS);
	assert_non_null(rig_obj(r, 2, q)); /* nobody was told that it is removed */
	rig_compare(r);
	/* once for each object */
	assert_int_equal(rq_read(r, 1, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_int_equal(r->n[1].nr_version, v1 + 3);
	/* the old owner's messages come late: an older epoch */
	rig_unblock(r, 0, 1);
	rig_sleep(r, 100 * MS);
	assert_int_equal(rq_read(r, 2, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2));
	rig_compare(r);
	rig_free(r);
}

/* ... each replica answers once it is in sync; and it is redone when the view changes meanwhile. */
static void takeover_waits(void **state)
{
	uint32_t vid;
	struct rig *r = start_with(4, 3, 3, &vid);
	struct tr t = {0};
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	rig_kill(r, 0);
	r->n[2].insync = false;
	rig_view(r);
	tr_start(r, &t, 3, READ, o, 0, NULL, 4096, 0);
	rig_sleep(r, 200 * MS);
	assert_false(t.done);
	rig_restart(r, 0);
	rig_view(r); /* a third replica, not in sync either */
	rig_sleep(r, 200 * MS);
	assert_false(t.done);
	rig_recover(r);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	assert_true(all(t.g.reply->data, 4096, 1));
	tr_end(&t);
	rig_free(r);
}

/* An answer of some replicas is none: the others may have what is higher (WHY B1 d, E `x-take`). */
static void takeover_some(void **state)
{
	uint32_t vid;
	struct rig *r = start_with(4, 3, 3, &vid);
	struct tr t = {0}, u = {0};
	uint64_t o = SD_DATA_OID(vid, 0), p = SD_DATA_OID(vid, 1);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->blocked[0][1] = true;
	tr_start(r, &t, 0, WRITE, o, 0, pat(2), 4096, 0); /* node 2 has it */
	tr_start(r, &u, 0, CREATE, p, 0, pat(3), 4096, 0);
	rig_sleep(r, 10 * MS);
	rig_kill(r, 0);
	tr_wait(r, &t);
	tr_wait(r, &u);
	tr_end(&t);
	tr_end(&u);
	rig_view(r);
	r->n[1].torn_view = r->n[3].torn_view = true;
	rig_restart(r, 0);
	rig_view(r); /* node 2 is ahead and refuses; node 1 answers with what it has */
	tr_start(r, &t, 3, READ, o, 0, NULL, 4096, 0);
	tr_start(r, &u, 3, READ, p, 0, NULL, 4096, 0);
	rig_sleep(r, 300 * MS);
	assert_false(t.done || u.done);
	rig_apply(&r->n[1]);
	rig_apply(&r->n[3]);
	r->n[0].epoch = r->epoch;
	r->n[0].insync = true; /* empty, as a replica whose disk was new: the highest counts */
	rig_kick(&r->n[0]);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &u), SD_RES_SUCCESS);
	assert_true(all(t.g.reply->data, 4096, 2) && all(u.g.reply->data, 4096, 3));
	for (int n = 0; n < 3; n++)
		assert_int_equal(rig_obj(r, n, o)->data[0], 2);
	tr_end(&t);
	tr_end(&u);
	rig_free(r);
}

/* ---- sessions ---- */

/* WHY B6: X through a paused gateway, X again and Y through another one, the gateway wakes up. */
static void sessions(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr x = {0}, x2 = {0}, y = {0};
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(0), 4096, 0), SD_RES_SUCCESS);
	x.g.client = (struct gw_client){.client_id = 7, .session = 1, .conn_id = 1};
	x2.g.client = y.g.client = (struct gw_client){.client_id = 7, .session = 2, .conn_id = 1};
	r->blocked[1][0] = true;
	tr_start(r, &x, 1, WRITE, o, 0, pat(1), 4096, 0);
	rig_sleep(r, 10 * MS);
	tr_start(r, &x2, 2, WRITE, o, 0, pat(1), 4096, 0);
	assert_int_equal(tr_wait(r, &x2), SD_RES_SUCCESS);
	tr_start(r, &y, 2, WRITE, o, 0, pat(2), 4096, 0);
	assert_int_equal(tr_wait(r, &y), SD_RES_SUCCESS);
	rig_unblock(r, 1, 0);
	assert_int_equal(tr_wait(r, &x), NOTHING);
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2));
	tr_end(&x);
	tr_end(&x2);
	tr_end(&y);
	/* session 2 waits for what session 1 has sent */
	x.g.client = (struct gw_client){.client_id = 8, .session = 1, .conn_id = 2};
	y.g.client = (struct gw_client){.client_id = 8, .session = 2, .conn_id = 2};
	r->n[2].insync = false;
	tr_start(r, &x, 0, WRITE, o, 0, pat(3), 4096, 0);
	rig_sleep(r, 10 * MS);
	tr_start(r, &y, 0, WRITE, o, 8192, pat(4), 4096, 0);
	rig_sleep(r, 100 * MS);
	assert_int_equal(rig_obj(r, 0, o)->data[0], 3);
	assert_int_equal(rig_obj(r, 0, o)->data[8192], 0); /* not even begun */
	r->n[2].insync = true;
	rig_kick(&r->n[2]);
	assert_int_equal(tr_wait(r, &x), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &y), SD_RES_SUCCESS);
	tr_end(&x);
	tr_end(&y);
	rig_free(r);
}

/* A session's end drops what waits and was not sent. */
static void session_ends(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr a = {0}, b = {0}, c = {0};
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(0), 4096, 0), SD_RES_SUCCESS);
	a.g.client = (struct gw_client){.client_id = 5, .session = 1};
	b.g.client = (struct gw_client){.client_id = 6, .session = 1};
	c.g.client = (struct gw_client){.client_id = 6, .session = 2};
	r->n[2].insync = false;
	tr_start(r, &a, 0, WRITE, o, 0, pat(1), 4096, 0);
	rig_sleep(r, 10 * MS);
	tr_start(r, &b, 0, WRITE, o, 0, pat(2), 4096, 0); /* waits for a's range */
	rig_sleep(r, 10 * MS);
	tr_start(r, &c, 0, WRITE, o, 0, pat(3), 4096, 0);
	rig_sleep(r, 10 * MS);
	r->n[2].insync = true;
	rig_kick(&r->n[2]);
	assert_int_equal(tr_wait(r, &a), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &b), NOTHING);
	assert_int_equal(tr_wait(r, &c), SD_RES_SUCCESS);
	assert_int_equal(rig_obj(r, 0, o)->data[0], 3);
	assert_int_equal(rig_obj(r, 0, o)->ver.seq, rig_obj(r, 2, o)->ver.seq);
	tr_end(&a);
	tr_end(&b);
	tr_end(&c);
	rig_free(r);
}

/* Clients without sessions: what a closed connection had queued is dropped, what it had sent is
 * waited for. */
static void closed_connections(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr x = {0}, q = {0}, y = {0};
	uint64_t o = SD_DATA_OID(vid, 0);
	struct gw_client cl = {.conn_id = 11}, next = {.conn_id = 12};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(0), 4096, 0), SD_RES_SUCCESS);
	for (int node = 0; node < 2; node++) { /* at the owner, and forwarded */
		x.g.client = q.g.client = cl;
		y.g.client = next;
		r->n[2].insync = false;
		tr_start(r, &x, node, WRITE, o, 0, pat(1), 4096, 0);
		rig_sleep(r, 10 * MS);
		if (!node)
			tr_start(r, &q, node, WRITE, o, 0, pat(2), 4096, 0); /* queued */
		rig_sleep(r, 10 * MS);
		gateway_conn_closed(&r->n[node].sh, &cl);
		tr_start(r, &y, node, WRITE, o, 8192, pat(3 + node), 4096, 0);
		rig_sleep(r, 100 * MS);
		assert_int_equal(rig_obj(r, 0, o)->data[8192], node ? 3 : 0);
		r->n[2].insync = true;
		rig_kick(&r->n[2]);
		if (!node) {
			assert_int_equal(tr_wait(r, &q), NOTHING);
			tr_end(&q);
		}
		tr_wait(r, &x);
		assert_int_equal(tr_wait(r, &y), SD_RES_SUCCESS);
		assert_int_equal(rig_obj(r, 0, o)->data[0], 1);
		assert_int_equal(rig_obj(r, 0, o)->data[8192], 3 + node);
		tr_end(&x);
		tr_end(&y);
	}
	rig_free(r);
}

/* Forwarded, the owner dies: sent to the next one; not if its connection was closed meanwhile. */
static void reroute(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr x = {0}, y = {0};
	uint64_t o = SD_DATA_OID(vid, 0);
	struct gw_client cl = {.conn_id = 3, .client_id = 9, .session = 1};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(0), 4096, 0), SD_RES_SUCCESS);
	r->blocked[1][0] = true;
	tr_start(r, &x, 1, WRITE, o, 0, pat(1), 4096, 0);
	y.g.client = cl;
	tr_start(r, &y, 1, WRITE, o, 8192, pat(2), 4096, 0);
	rig_sleep(r, 100 * MS);
	gateway_conn_closed(&r->n[1].sh, &cl);
	assert_false(x.done || y.done);
	rig_kill(r, 0);
	rig_view(r);
	assert_int_equal(tr_wait(r, &x), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &y), NOTHING);
	assert_int_equal(rig_obj(r, 2, o)->data[0], 1);
	assert_int_equal(rig_obj(r, 2, o)->data[8192], 0);
	tr_end(&x);
	tr_end(&y);
	rig_free(r);
}

/* A forwarded request whose client has gone is not sent again when the connection between the
 * daemons breaks; that of a client without sessions is: it waits for the answer. */
static void unwanted(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct gw_client cl[3] = {{.conn_id = 3, .client_id = 9, .session = 1},
				  {.conn_id = 4, .client_id = 0},
				  {.conn_id = 5, .client_id = 10, .session = 1}};
	struct tr t[3] = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(0), 4096, 0), SD_RES_SUCCESS);
	r->blocked[1][0] = true;
	for (int i = 0; i < 3; i++) {
		t[i].g.client = cl[i];
		tr_start(r, &t[i], 1, WRITE, o, 8192 * i, pat(1 + i), 4096, 0);
	}
	rig_sleep(r, 100 * MS);
	gateway_conn_closed(&r->n[1].sh, &cl[0]);
	gateway_conn_closed(&r->n[1].sh, &cl[1]);
	rig_break(r, 1, 0);
	assert_int_equal(tr_wait(r, &t[0]), NOTHING);
	assert_false(t[1].done || t[2].done);
	rig_unblock(r, 1, 0);
	tr_wait(r, &t[1]);
	assert_int_equal(tr_wait(r, &t[2]), SD_RES_SUCCESS);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(rig_obj(r, 2, o)->data[8192 * i], i ? 1 + i : 0);
		tr_end(&t[i]);
	}
	rig_free(r);
}

/* An owner that is one no more answers AGAIN; the sender looks again and claims. */
static void drain_co(void *arg)
{
	gateway_drain(arg, 1000);
}

static void handed_out(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr t = {0};
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, CACHE), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(2), 4096, CACHE), SD_RES_SUCCESS);
	assert_true(rig_obj(r, 1, o)->cached);
	r->blocked[1][0] = true;
	tr_start(r, &t, 1, WRITE, o, 0, pat(5), 4096, 0); /* on its way to the old owner */
	rig_sleep(r, 10 * MS);
	rig_co(r, drain_co, &r->n[0].sh);
	assert_false(rig_vdi(r, vid)->owned);
	assert_true(rig_vdi(r, vid)->clean);
	assert_false(rig_obj(r, 1, o)->cached); /* clean: everything flushed */
	rig_unblock(r, 1, 0);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	assert_int_equal(r->nr_claims, 1);
	assert_int_equal(rig_obj(r, 0, o)->data[0], 5);
	/* clean: one replica was asked, not all */
	assert_int_equal(r->n[0].nr_version + r->n[2].nr_version, 2); /* node 0's own: inode, o */
	assert_int_equal(r->n[1].nr_version, 1);
	rig_free(r);
}

/* A generation that began dirty is not handed out clean: its takeover is not finished. */
static void handed_out_dirty(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);

	rig_kill(r, 0);
	rig_view(r);
	assert_int_equal(idx_set(r, 1, vid, 0, vid, CACHE), SD_RES_SUCCESS);
	rig_co(r, drain_co, &r->n[1].sh);
	assert_false(rig_vdi(r, vid)->owned);
	assert_false(rig_vdi(r, vid)->clean);
	assert_false(rig_obj(r, 2, SD_INODE_OID(vid))->cached);
	unsigned v1 = r->n[1].nr_version, v2 = r->n[2].nr_version;
	assert_int_equal(idx_get(r, 2, vid, 0), vid);
	assert_int_equal(r->n[1].nr_version - v1 + r->n[2].nr_version - v2, 2); /* all are asked */
	rig_free(r);
}

/* A drain with a write that does not end: nothing is released, nothing hangs. */
static void drain_busy(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr t = {0};

	r->n[2].insync = false;
	tr_start(r, &t, 0, CREATE, SD_DATA_OID(vid, 0), 0, pat(1), 4096, 0);
	rig_sleep(r, 10 * MS);
	rig_co(r, drain_co, &r->n[0].sh);
	assert_true(rig_vdi(r, vid)->owned);
	assert_false(t.done);
	rig_kill(r, 0); /* stop */
	assert_int_equal(tr_wait(r, &t), NOTHING);
	tr_end(&t);
	rig_free(r);
}

/* ---- copy on write ---- */

static void cow(void **state)
{
	uint32_t vid, base;
	struct rig *r = start(3, 3, &base);
	struct tr t = {0};

	assert_int_equal(rq_create(r, 1, "b", 64ull << 20, &vid), SD_RES_SUCCESS);
	uint64_t b = SD_DATA_OID(base, 0), o = SD_DATA_OID(vid, 0);
	assert_int_equal(rq(r, 0, CREATE, b, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, WRITE, b, OBJLEN - 4096, pat(2), 4096, 0), SD_RES_SUCCESS);
	for (int i = 0; i < 2; i++) { /* base owned elsewhere; and no base */
		tr_start(r, &t, 1, CREATE, SD_DATA_OID(vid, i), 512, pat(9), 512, SD_FLAG_COW);
		t.g.req.obj.cow_oid = SD_DATA_OID(base, i);
		assert_int_equal(tr_wait(r, &t), i ? SD_RES_NO_OBJ : SD_RES_SUCCESS);
		tr_end(&t);
	}
	assert_int_equal(rq_read(r, 1, o, 0, got, OBJLEN), SD_RES_SUCCESS);
	assert_true(all(got, 512, 1) && all(got + 512, 512, 9) && all(got + 1024, 3072, 1));
	assert_true(all(got + 4096, OBJLEN - 8192, 0) && all(got + OBJLEN - 4096, 4096, 2));
	assert_int_equal(rq_read(r, 1, SD_DATA_OID(vid, 1), 0, got, 1), SD_RES_NO_OBJ);
	/* the payload covers it all: no base is needed */
	uint8_t *full = malloc(OBJLEN);
	memset(full, 6, OBJLEN);
	tr_start(r, &t, 1, CREATE, SD_DATA_OID(vid, 1), 0, full, OBJLEN, SD_FLAG_COW);
	t.g.req.obj.cow_oid = SD_DATA_OID(base, 1);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	free(full);
	rig_compare(r);
	rig_free(r);
}

/* ---- the rest ---- */

static void format_co(void *arg)
{
	gateway_format(arg);
}

static void format(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr t = {0};

	r->n[2].insync = false;
	tr_start(r, &t, 0, CREATE, SD_DATA_OID(vid, 0), 0, pat(1), 4096, 0);
	rig_sleep(r, 10 * MS);
	rig_vdi(r, vid)->deleted = true; /* the table is empty after a format */
	for (int n = 0; n < 3; n++)
		rig_co(r, format_co, &r->n[n].sh);
	r->n[2].insync = true;
	rig_kick(&r->n[2]);
	assert_false(t.done);
	rig_view(r);
	assert_int_equal(tr_wait(r, &t), SD_RES_NO_OBJ);
	tr_end(&t);
	assert_int_equal(rq_create(r, 1, "new", 1 << 20, &vid), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 0), 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	rig_free(r);
}

struct creation {
	struct sheep *sh;
	struct cmd cmd;
	uint32_t res;
	bool done;
};

static void creation_co(void *arg)
{
	struct creation *c = arg;

	c->res = gateway_vdi_create(c->sh, &c->cmd); /* ~ */
	c->done = true;
}

/* A format is applied between the answer of CREATE and its creator's next step: nothing is owned
 * then, and no version is taken. */
static void format_after_create(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct creation c = {.sh = &r->n[0].sh,
			     .cmd = {.type = CMD_VDI_CREATE, .name = "b", .size = 1 << 20}};

	vid = r->next_vid;
	assert_true(co_start(r->sched, creation_co, &c, "create"));
	for (int i = 0; i < 100 && !rig_vdi(r, vid); i++)
		rig_sleep(r, 100);
	struct vdi *v = rig_vdi(r, vid);
	assert_true(v && v->creating && !c.done);
	map_del(&r->table, vid);
	free(v);
	assert_true(rig_run(r, &c.done, 1000 * MS));
	assert_int_equal(c.res, SD_RES_VDI_WRITE);
	assert_null(rig_obj(r, 0, SD_INODE_OID(vid)));
	rig_free(r);
}

/* Stop while requests wait for everything there is to wait for. */
static void stop(void **state)
{
	uint32_t vid, other;
	struct rig *r = start(3, 3, &vid);
	struct tr t[8];

	memset(t, 0, sizeof(t));
	assert_int_equal(rq_create(r, 1, "b", 1 << 20, &other), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 0), 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->n[1].insync = r->n[2].insync = false;
	r->blocked[0][1] = true;
	t[6].g.client = (struct gw_client){.client_id = 1, .session = 1};
	t[7].g.client = (struct gw_client){.client_id = 1, .session = 2};
	tr_start(r, &t[0], 0, WRITE, SD_DATA_OID(vid, 0), 0, pat(1), 4096, 0);
	tr_start(r, &t[1], 0, READ, SD_DATA_OID(vid, 0), 0, NULL, 4096, 0);
	tr_start(r, &t[2], 0, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0);
	tr_start(r, &t[3], 0, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0);
	tr_start(r, &t[4], 0, WRITE, SD_DATA_OID(other, 0), 0, pat(1), 4096, 0); /* forwarded */
	tr_start(r, &t[5], 0, WRITE, SD_INODE_OID(vid), IDX(9), &vid, 4, 0);
	tr_start(r, &t[6], 0, WRITE, SD_DATA_OID(vid, 0), 8192, pat(1), 4096, 0);
	rig_sleep(r, MS);
	tr_start(r, &t[7], 0, WRITE, SD_DATA_OID(vid, 0), 16384, pat(1), 4096, 0);
	rig_sleep(r, 50 * MS);
	rig_kill(r, 0);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(tr_wait(r, &t[i]), NOTHING);
		tr_end(&t[i]);
	}
	rig_free(r);
}

/* More objects than are kept: forgotten and learnt again. */
static void eviction(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr *t = calloc(64, sizeof(*t));
	uint32_t n = 33000;

	for (uint32_t i = 0; i < n; i += 64) {
		for (uint32_t j = 0; j < 64; j++)
			tr_start(r, &t[j], 0, READ, SD_DATA_OID(vid, i + j), 0, NULL, 0, 0);
		for (uint32_t j = 0; j < 64; j++) {
			assert_int_equal(tr_wait(r, &t[j]), SD_RES_NO_OBJ);
			tr_end(&t[j]);
		}
	}
	unsigned v = r->n[0].nr_version;
	assert_int_equal(rq_read(r, 0, SD_DATA_OID(vid, 0), 0, got, 1), SD_RES_NO_OBJ);
	assert_int_equal(r->n[0].nr_version, v + 1);
	assert_int_equal(rq_read(r, 0, SD_DATA_OID(vid, n - 1), 0, got, 1), SD_RES_NO_OBJ);
	assert_int_equal(r->n[0].nr_version, v + 1);
	free(t);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects),
		cmocka_unit_test(admission),
		cmocka_unit_test(claims),
		cmocka_unit_test(view_voids),
		cmocka_unit_test(views_meet),
		cmocka_unit_test(pipelining),
		cmocka_unit_test(takeover),
		cmocka_unit_test(takeover_waits),
		cmocka_unit_test(sessions),
		cmocka_unit_test(session_ends),
		cmocka_unit_test(closed_connections),
		cmocka_unit_test(unwanted),
		cmocka_unit_test(fence_on_the_way),
		cmocka_unit_test(fence_at_the_owner),
		cmocka_unit_test(fence_behind),
		cmocka_unit_test(fence_header),
		cmocka_unit_test(fence_late),
		cmocka_unit_test(reroute),
		cmocka_unit_test(handed_out),
		cmocka_unit_test(drain_busy),
		cmocka_unit_test(handed_out_dirty),
		cmocka_unit_test(takeover_some),
		cmocka_unit_test(answer_between),
		cmocka_unit_test(cow),
		cmocka_unit_test(inode_reads),
		cmocka_unit_test(headers),
		cmocka_unit_test(discards),
		cmocka_unit_test(index_parallel),
		cmocka_unit_test(discard_races),
		cmocka_unit_test(flush),
		cmocka_unit_test(flush_races),
		cmocka_unit_test(degraded),
		cmocka_unit_test(space),
		cmocka_unit_test(bad_replicas),
		cmocka_unit_test(lost_replica),
		cmocka_unit_test(deletion),
		cmocka_unit_test(deletion_dies),
		cmocka_unit_test(format),
		cmocka_unit_test(format_after_create),
		cmocka_unit_test(stop),
		cmocka_unit_test(eviction),
		cmocka_unit_test(sweep),
		cmocka_unit_test(sweep_views),
		cmocka_unit_test(sweep_stuck),
		cmocka_unit_test(sweep_busy),
		cmocka_unit_test(lease),
		cmocka_unit_test(lease_cow),
		cmocka_unit_test(claim_waits),
		cmocka_unit_test(claim_wait_ends),
		cmocka_unit_test(claim_torn),
		cmocka_unit_test(handover),
		cmocka_unit_test(handover_not),
		cmocka_unit_test(handover_stuck),
		cmocka_unit_test(handover_unsent),
		cmocka_unit_test(session_new_owner),
		cmocka_unit_test(session_owner_again),
		cmocka_unit_test(session_said_once),
		cmocka_unit_test(cached),
		cmocka_unit_test(bad_blocks),
		cmocka_unit_test(low_space),
		cmocka_unit_test(all_full),
		cmocka_unit_test(commands_fail),
		cmocka_unit_test(stress),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
