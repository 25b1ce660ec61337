/* test_replica.c - what a replica does with the requests of an owner (DESIGN 5.2, 5.3, 5.6), by the
 * traces of the model where there is one. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/crc.h"
#include "tests/unit/sync_rig.h"
#include "tests/unit/sync_store.h"

static const struct obj_ver none = {0, 0};

/* Three nodes, three copies, epoch 1. */
static struct rig *three(void **state)
{
	struct rig *r = *state;

	r->params.disable_recovery = true;
	rig_copies = 3;
	rig_boot(r, ABC);
	return r;
}

static void is_ver(struct rig *r, unsigned n, uint64_t o, uint64_t gen, uint64_t seq)
{
	struct obj_ver v = rig_ver(r, n, o);

	assert_int_equal(v.gen, gen);
	assert_int_equal(v.seq, seq);
}

/* ---- fences ---- */

static void test_epochs(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_apply(r, A, rig_epoch(r, ABC));
	call_is_(call_write(r, B, A, 1, o, V(1, 1), none, 0x11), SD_RES_OLD_NODE_VER);
	is_ver(r, A, o, 0, 0);
	/* newer: held until the view arrives */
	struct call *k = call_write(r, A, B, 2, o, V(1, 1), none, 0x11);
	struct call *l = call_read(r, A, B, 2, o);
	struct call *m = call_op(r, A, B, 2, 0, PEER_FLUSH);
	call_submit(m, A, B);
	rig_ms(r, 20);
	assert_false(k->done || l->done || m->done);
	rig_apply(r, B, 2);
	call_ok_(k);
	call_wait(l); /* before or after the write */
	call_free(l);
	call_ok_(m);
	is_ver(r, B, o, 1, 1);
}

static void test_generations(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	r->vdi.gen = 5;
	call_is_(call_write(r, A, B, 1, o, V(4, 9), none, 0x11), SD_RES_STALE_OBJ);
	call_is_(call_remove(r, A, B, 1, o, V(4, 9), none), SD_RES_STALE_OBJ);
	call_ok_(call_write(r, A, B, 1, o, V(5, 1), none, 0x11));
}

/* Not ours in this epoch, absurd, unknown. */
static void test_nonsense(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);
	struct call *k;

	rig_boot(r, ABC); /* two copies: C has none */
	call_is_(call_write(r, A, C, 1, o, V(1, 1), none, 0x11), SD_RES_INVALID_PARMS);
	call_is_(call_write(r, A, B, 1, o, none, none, 0x11), SD_RES_INVALID_PARMS);
	k = call_op(r, A, B, 1, o, PEER_READ);
	call_submit(k, A, B);
	call_is_(k, SD_RES_INVALID_PARMS); /* no bytes */
	k = call_op(r, A, B, 1, o, PEER_FORWARD);
	call_submit(k, A, B);
	call_is_(k, SD_RES_NO_SUPPORT);
	k = call_op(r, A, B, 1, 0, PEER_SYNC_LIST);
	k->c.req.off = 9;
	k->c.req.len = 8;
	call_submit(k, A, B);
	call_is_(k, SD_RES_INVALID_PARMS);
	k = call_op(r, A, B, 1, 0, PEER_DROP_CHECK);
	k->c.req.obj_size = 77;
	call_submit(k, A, B);
	call_is_(k, SD_RES_INVALID_PARMS);
	k = call_op(r, A, B, 1, o, PEER_SETTLE);
	call_submit(k, A, B);
	call_is_(k, SD_RES_INVALID_PARMS);
	/* a CREATE of nothing */
	k = call_op(r, A, B, 1, o, PEER_WRITE);
	k->c.req.ver_gen = k->c.req.ver_seq = 1;
	k->c.req.flags = PEER_F_CREATE;
	k->c.req.obj_size = 0;
	call_submit(k, A, B);
	call_is_(k, SD_RES_INVALID_PARMS);
	/* without CREATE there is nothing to write into */
	k = call_op(r, A, B, 1, o, PEER_WRITE);
	k->c.req.ver_gen = k->c.req.ver_seq = 1;
	k->c.req.off = OBJ_SIZE;
	k->c.req.len = 1;
	call_submit(k, A, B);
	call_is_(k, SD_RES_INVALID_PARMS);
}

static void test_checksum(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	for (unsigned pass = 0; pass < 2; pass++) {
		struct call *k = call_op(r, A, B, 1, o, PEER_WRITE);
		uint32_t crc[2] = {0};
		struct buf *b = buf_new(r->pool, SD_BLOCK_SIZE);

		memset(b->data, 0x42, SD_BLOCK_SIZE);
		k->c.req.ver_gen = k->c.req.ver_seq = 1;
		k->c.req.flags = PEER_F_CREATE;
		k->c.req.off = 4000;
		k->c.req.len = 200;
		k->c.data = b;
		k->c.data_len = 200;
		k->c.crc = crc;
		k->c.crc_nr = 2;
		crc[0] = crc32c(b->data, 96);
		crc[1] = crc32c(b->data, 104) ^ (pass ? 0 : 1);
		call_submit(k, A, B);
		k->c.data = NULL;
		buf_put(b);
		call_wait(k);
		assert_int_equal(k->c.error, pass ? 0 : -EBADMSG);
		call_free(k);
		is_ver(r, B, o, pass, pass);
	}
	assert_int_equal(mem_byte(r->node[B].sh.store, o, 3999), 0);
	assert_int_equal(mem_byte(r->node[B].sh.store, o, 4000), 0x42);
	assert_int_equal(mem_byte(r->node[B].sh.store, o, 4199), 0x42);
}

/* ---- check and queue ---- */

/* What was accepted in an epoch and then waited for the disk is looked at again. */
static void test_no_recheck(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	mem_prepare_gate(r->node[B].sh.store, true);
	struct call *k = call_write(r, C, B, 1, o, V(1, 1), none, 0x11);
	rig_ms(r, 10);
	rig_crash(r, C);
	rig_step(r, M(A) | M(B));
	mem_prepare_gate(r->node[B].sh.store, false);
	rig_ms(r, 20);
	is_ver(r, B, o, 0, 0);
	call_free(k);
}

/* A late copy that came over an older connection is never queued. */
static void test_tomb_none(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_hold(r, true, false, A, B, PEER_WRITE);
	struct call *late = call_write(r, A, B, 1, o, V(1, 1), none, 0x11);
	rig_ms(r, 5);
	rig_void(r, A, B);
	r->hold_req[A][B][PEER_WRITE] = false; /* the new connection */
	call_ok_(call_write(r, A, B, 1, o, V(1, 1), none, 0x11));
	call_ok_(call_remove(r, A, B, 1, o, V(1, 2), V(1, 1)));
	rig_hold(r, false, false, A, B, PEER_WRITE); /* now the old one is read */
	rig_ms(r, 20);
	is_ver(r, B, o, 0, 0);
	assert_false(late->done);
	call_free(late);
}

/* The same, while it waits for the disk, or for an object to be in sync. */
static void test_voided_while_waiting(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	mem_prepare_gate(r->node[B].sh.store, true);
	struct call *k = call_write(r, A, B, 1, o, V(1, 1), none, 0x11);
	struct call *l = call_write(r, A, B, 2, SD_DATA_OID(1, 1), V(1, 1), none, 0x11);
	rig_ms(r, 10);
	rig_void(r, A, B);
	mem_prepare_gate(r->node[B].sh.store, false);
	rig_apply(r, B, rig_epoch(r, ABC));
	rig_ms(r, 20);
	is_ver(r, B, o, 0, 0);
	is_ver(r, B, SD_DATA_OID(1, 1), 0, 0);
	call_free(k);
	call_free(l);
}

/* The same, while its object is brought in sync: it does not stay until that is done. */
static void test_voided_in_todo(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	rig_crash(r, B);
	rig_step(r, M(A) | M(C));
	rig_start(r, B);
	uint32_t e = rig_step(r, ABC);
	rig_hold_all(r, true, false, A, PEER_SYNC_QUERY);
	rig_hold_all(r, true, false, C, PEER_SYNC_QUERY);
	struct call *k = call_write(r, A, B, e, o, V(1, 2), V(1, 1), 0x12);
	struct call *l = call_read(r, A, B, e, o);
	rig_ms(r, 20);
	assert_int_equal(r->node[B].nr_handlers, 2);
	rig_void(r, A, B);
	rig_ms(r, 20);
	assert_int_equal(r->node[B].nr_handlers, 0);
	struct call *m = call_write(r, A, B, e, o, V(1, 2), V(1, 1), 0x12);
	rig_hold_all(r, false, false, A, PEER_SYNC_QUERY);
	rig_hold_all(r, false, false, C, PEER_SYNC_QUERY);
	call_ok_(m);
	is_ver(r, B, o, 1, 2);
	call_free(k);
	call_free(l);
}

/* `previous` is what it has, or the write waits; not for ever. */
static void test_no_prev(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	call_ok_(call_write(r, A, B, 1, o, V(1, 1), none, 0x11));
	struct call *k = call_write(r, A, B, 1, o, V(1, 3), V(1, 2), 0x13);
	struct call *l = call_remove(r, A, B, 1, o, V(1, 4), V(1, 3));
	rig_ms(r, 20);
	assert_false(k->done);
	is_ver(r, B, o, 1, 1);
	/* what comes before it does not come: all are to be sent again, in order */
	call_is_(k, SD_RES_AGAIN);
	call_is_(l, SD_RES_AGAIN);
	k = call_write(r, A, B, 1, o, V(1, 2), V(1, 1), 0x12);
	call_ok_(call_write(r, A, B, 1, o, V(1, 3), V(1, 2), 0x13));
	call_ok_(k);
	is_ver(r, B, o, 1, 3);
}

/* A removal of an absent object is done; but not before the writes that come before it. */
static void test_removal(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0), p = SD_DATA_OID(1, 1);

	call_ok_(call_write(r, A, B, 1, o, V(1, 1), none, 0x11));
	call_ok_(call_remove(r, A, B, 1, o, V(1, 2), V(1, 1)));
	call_ok_(call_remove(r, A, B, 1, o, V(1, 2), V(1, 1))); /* sent again */
	is_ver(r, B, o, 0, 0);
	/* a write that waits for one that was lost, and a removal behind it */
	struct call *k = call_write(r, A, B, 1, p, V(1, 2), V(1, 1), 0x12);
	struct call *l = call_remove(r, A, B, 1, p, V(1, 3), V(1, 2));
	rig_ms(r, 50);
	assert_false(l->done);
	call_is_(k, SD_RES_AGAIN);
	call_is_(l, SD_RES_AGAIN);
}

/* In the order of versions, also when all had to wait. */
static void test_order(void **state)
{
	struct rig *r = three(state);
	enum { NR = 40 };
	struct call *k[NR + 2];
	uint64_t o = SD_DATA_OID(1, 0);

	rig_epoch(r, ABC);
	for (unsigned i = 0; i < NR; i++)
		k[i] = call_write(r, A, B, 2, o, V(1, i + 1), i ? V(1, i) : none, (uint8_t)i);
	k[NR] = call_remove(r, A, B, 2, o, V(1, NR + 1), V(1, NR));
	k[NR + 1] = call_write(r, A, B, 2, o, V(1, NR + 2), none, 0x77);
	rig_ms(r, 10);
	rig_apply(r, B, 2);
	for (unsigned i = 0; i < NR + 2; i++)
		call_ok_(k[i]);
	is_ver(r, B, o, 1, NR + 2);
	assert_int_equal(mem_byte(r->node[B].sh.store, o, 0), 0x77);
}

/* "Done", and a version, are answered when what was queued has landed. */
static void test_landing(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	mem_gate(r->node[B].sh.store, true);
	struct call *k = call_write(r, A, B, 1, o, V(1, 1), none, 0x11);
	rig_ms(r, 10);
	struct call *l = call_write(r, A, B, 1, o, V(1, 1), none, 0x11);
	struct call *m = call_op(r, A, B, 1, o, PEER_VERSION);
	call_submit(m, A, B);
	rig_ms(r, 20);
	assert_false(k->done || l->done || m->done);
	mem_gate(r->node[B].sh.store, false);
	call_ok_(k);
	call_ok_(l);
	call_wait(m);
	assert_int_equal(m->c.rsp.ver_seq, 1);
	assert_int_equal(m->c.rsp.obj_size, OBJ_SIZE);
	call_free(m);
}

/* A store that cannot take a write: no answer, and the daemon leaves.  It has the new version in
 * memory: nothing is answered any more, least of all the same write as done. */
static void test_store_fails(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);
	struct call *k[4];

	mem_fail(r->node[B].sh.store, -EIO);
	k[0] = call_write(r, A, B, 1, o, V(1, 1), none, 0x11);
	k[1] = call_write(r, A, B, 1, o, V(1, 1), none, 0x11);
	rig_ms(r, 20);
	assert_true(r->node[B].exited);
	k[2] = call_write(r, A, B, 1, o, V(1, 1), none, 0x11);
	k[3] = call_read(r, A, B, 1, o);
	rig_ms(r, 20);
	for (int i = 0; i < 4; i++) {
		assert_false(k[i]->done);
		call_free(k[i]);
	}
}

/* A full disk: nothing was done, it may be sent again; in the end we leave. */
static void test_disk_full(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	mem_full(r->node[B].sh.store, true);
	call_is_(call_write(r, A, B, 1, o, V(1, 1), none, 0x11), SD_RES_NO_SPACE);
	mem_full(r->node[B].sh.store, false);
	call_ok_(call_write(r, A, B, 1, o, V(1, 1), none, 0x11));
	mem_full(r->node[B].sh.store, true);
	for (unsigned i = 0; i < 25 && !r->node[B].exited; i++) {
		call_is_(call_write(r, A, B, 1, o, V(1, 2), V(1, 1), 0x12), SD_RES_NO_SPACE);
		assert_false(i < 10 && r->node[B].exited);
		rig_ms(r, 100);
	}
	assert_true(r->node[B].exited);
}

static void room_is(struct rig *r, uint32_t epoch, uint64_t o, uint64_t off, uint16_t flags,
		    uint32_t result)
{
	struct call *k = call_op(r, A, B, epoch, o, PEER_ROOM);

	k->c.req.off = off;
	k->c.req.len = 4096;
	k->c.req.obj_size = 16384;
	k->c.req.flags = flags;
	call_submit(k, A, B);
	call_is_(k, result);
}

/* Below the reserve: what is there may be written to. */
static void test_low(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11); /* a block of it */
	room_is(r, 1, o, 0, 0, SD_RES_SUCCESS);
	room_is(r, 1, o, 8192, 0, SD_RES_SUCCESS);
	room_is(r, 1, o, 8192, PEER_F_CREATE, SD_RES_SUCCESS);
	mem_low(r->node[B].sh.store, true);
	room_is(r, 1, o, 0, 0, SD_RES_SUCCESS);
	room_is(r, 1, o, 8192, 0, SD_RES_NO_SPACE);
	room_is(r, 1, o, 0, PEER_F_CREATE, SD_RES_NO_SPACE);
	room_is(r, 1, SD_DATA_OID(1, 1), 0, 0, SD_RES_SUCCESS); /* the write will tell */
	room_is(r, 1, o, 16384, 0, SD_RES_INVALID_PARMS);
	call_ok_(call_write(r, A, B, 1, o, V(1, 2), V(1, 1), 0x12));
	mem_low(r->node[B].sh.store, false);
	rig_step(r, ABC);
	room_is(r, 1, o, 8192, 0,
		SD_RES_SUCCESS); /* an older epoch: there is room, whatever comes */
	mem_low(r->node[B].sh.store, true);
	room_is(r, 1, o, 0, 0, SD_RES_OLD_NODE_VER);
}

/* Writes of an epoch that is not here yet wait, but not more of them than there is room for, nor so
 * many of one sender that its connection is full; what can be done at once goes on. */
static void test_held_max(void **state)
{
	static struct call *k[REPLICA_HELD_MAX];
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 9999);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	rig_epoch(r, ABC);
	for (unsigned i = 0; i < REPLICA_HELD_MAX; i++) {
		unsigned from = i < REPLICA_HELD_PEER_MAX ? A : C;
		k[i] = call_write(r, from, B, 2, SD_DATA_OID(1, i % 48), V(1, 10 + i),
				  i < 48 ? none : V(1, i - 38), 0x12);
		if (i + 1 != REPLICA_HELD_PEER_MAX)
			continue;
		call_is_(call_write(r, A, B, 2, SD_DATA_OID(1, 60), V(1, 2), none, 0x12),
			 SD_RES_NO_MEM);
		call_ok_(call_write(r, A, B, 1, o, V(1, 2), V(1, 1), 0x12));
	}
	struct call *v = call_op(r, C, B, 2, o, PEER_VERSION);
	call_submit(v, C, B);
	call_is_(v, SD_RES_NO_MEM);
	call_is_(call_write(r, B, B, 2, SD_DATA_OID(1, 60), V(1, 2), none, 0x12), SD_RES_NO_MEM);
	call_ok_(call_write(r, A, B, 1, o, V(1, 3), V(1, 2), 0x12));
	for (unsigned n = A; n <= C; n++)
		rig_apply(r, n, 2);
	for (unsigned i = 0; i < REPLICA_HELD_MAX; i++)
		call_ok_(k[i]);
	call_ok_(call_write(r, A, B, 2, SD_DATA_OID(1, 60), V(1, 2), none, 0x12));
}

/* Full now and then is not full for long. */
static void test_full_again(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	mem_full(r->node[B].sh.store, true);
	for (unsigned i = 0; i < 6; i++) {
		call_is_(call_write(r, A, B, 1, o, V(1, 1), none, 0x11), SD_RES_NO_SPACE);
		rig_ms(r, 700);
	}
	assert_false(r->node[B].exited);
}

/* An object is made without a byte of it, as NEW_VDI does. */
static void test_create_empty(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);
	struct call *k = call_op(r, A, B, 1, o, PEER_WRITE);

	k->c.req.ver_gen = k->c.req.ver_seq = 1;
	k->c.req.flags = PEER_F_CREATE | PEER_F_DURABLE;
	call_submit(k, A, B);
	call_ok_(k);
	is_ver(r, B, o, 1, 1);
}

static void test_ping_flush(void **state)
{
	struct rig *r = three(state);
	struct call *k = call_op(r, A, B, 1, 0, PEER_PING);

	call_submit(k, A, B);
	call_ok_(k);
	k = call_op(r, A, B, 1, 0, PEER_PING);
	k->c.req.len = 1ull << 40;
	call_submit(k, A, B);
	call_is_(k, SD_RES_NO_SPACE);
	k = call_op(r, A, B, 1, 0, PEER_FLUSH);
	call_submit(k, A, B);
	call_ok_(k);
}

/* ---- reads and repairs ---- */

static void test_read(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	assert_int_equal(rig_read(r, A, o), -1);
	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	struct call *k = call_read(r, A, B, 1, o);
	call_wait(k);
	assert_int_equal(k->c.reply_len, SD_BLOCK_SIZE);
	assert_int_equal(k->got[4095], 0x11);
	assert_true(k->c.rsp.ver_gen == 1 && k->c.rsp.ver_seq == 1);
	call_free(k);
}

static void wait_good(struct rig *r, unsigned n, uint64_t o)
{
	for (unsigned i = 0; i < 500 && mem_bad(r->node[n].sh.store, o); i++)
		rig_ms(r, 4);
	assert_false(mem_bad(r->node[n].sh.store, o));
}

/* A bad block: an error here, and it is repaired from another replica of the same version. */
static void test_repair(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	mem_rot(r->node[A].sh.store, o, 0);
	mem_rot(r->node[A].sh.store, o, 100);
	struct call *k = call_read(r, B, A, 1, o);
	call_wait(k);
	assert_int_equal(k->c.rsp.result, SD_RES_EIO);
	assert_true(k->c.rsp.flags & PEER_F_BAD);
	call_free(k);
	wait_good(r, A, o);
	assert_int_equal(r->sent[PEER_PULL], 0);
	assert_int_equal(rig_read(r, A, o), 0x11);
}

/* A repair read at another version is not stored: else v2, acknowledged, is gone under its own
 * number.  And a whole pull takes only what is not older. */
static void test_repair_version(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	call_ok_(call_write(r, A, A, 1, o, V(1, 2), V(1, 1), 0x12)); /* B, C: in flight */
	mem_rot(r->node[A].sh.store, o, 0);
	call_is_(call_read(r, A, A, 1, o), SD_RES_EIO);
	rig_ms(r, 100);
	assert_true(mem_bad(r->node[A].sh.store, o));
	is_ver(r, A, o, 1, 2);
	call_ok_(call_write(r, A, B, 1, o, V(1, 2), V(1, 1), 0x12));
	call_ok_(call_write(r, A, B, 1, o, V(1, 3), V(1, 2), 0x13)); /* ahead of us: whole */
	call_is_(call_read(r, A, A, 1, o), SD_RES_EIO);
	wait_good(r, A, o);
	is_ver(r, A, o, 1, 3);
	assert_int_equal(rig_read(r, A, o), 0x13);
	assert_true(r->sent[PEER_PULL] > 0);
	/* what it has by that is done when it comes */
	call_ok_(call_write(r, A, A, 1, o, V(1, 3), V(1, 2), 0x13));
}

/* Two that repair from each other do not wait for each other. */
static void test_repair_both(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);

	r->params.disable_recovery = true;
	rig_boot(r, ABC); /* two copies: A, B */
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	mem_rot(r->node[A].sh.store, o, 0);
	mem_rot(r->node[B].sh.store, o, 4096);
	struct call *k = call_op(r, B, B, 1, o, PEER_READ);
	k->c.req.off = k->c.req.len = 4096;
	k->c.reply_buf = buf_new(r->pool, 4096);
	k->c.reply_cap = 4096;
	struct call *l = call_read(r, A, A, 1, o);
	call_submit(k, B, B);
	call_is_(k, SD_RES_EIO);
	call_is_(l, SD_RES_EIO);
	wait_good(r, A, o);
	wait_good(r, B, o);
}

/* Ten bytes in the first block, version 1.2 after 1.1; not waited for. */
static struct call *write_part(struct rig *r, unsigned to, uint64_t o)
{
	struct call *k = call_op(r, A, to, 1, o, PEER_WRITE);
	struct buf *b = buf_new(r->pool, SD_BLOCK_SIZE);
	uint32_t crc;

	memset(b->data, 0x42, 10);
	crc = crc32c(b->data, 10);
	k->c.req.ver_gen = 1;
	k->c.req.ver_seq = 2;
	k->c.req.prev_gen = k->c.req.prev_seq = 1;
	k->c.req.off = 100;
	k->c.req.len = k->c.data_len = 10;
	k->c.data = b;
	k->c.crc = &crc;
	k->c.crc_nr = 1;
	call_submit(k, A, to);
	k->c.data = NULL;
	buf_put(b);
	return k;
}

/* Nobody has the block: the owner hears that, and who waits behind is refused as well.  A write of
 * the whole block heals it. */
static void test_write_bad_everywhere(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	for (unsigned n = 0; n < 3; n++)
		mem_rot(r->node[n].sh.store, o, 0);
	for (unsigned n = 0; n < 3; n++) {
		struct call *k = write_part(r, n, o);
		struct call *l = call_write(r, A, n, 1, o, V(1, 3), V(1, 2), 0x13);
		call_wait(k);
		assert_int_equal(k->c.error, 0);
		assert_int_equal(k->c.rsp.result, SD_RES_EIO);
		assert_true(k->c.rsp.flags & PEER_F_BAD);
		assert_int_equal(k->c.rsp.epoch, 1);
		call_free(k);
		call_is_(l, SD_RES_AGAIN);
		is_ver(r, n, o, 1, 1);
	}
	for (unsigned n = 0; n < 3; n++) {
		call_ok_(call_write(r, A, n, 1, o, V(1, 4), V(1, 1), 0x14));
		assert_false(mem_bad(r->node[n].sh.store, o));
	}
	call_is_(write_part(r, B, o), SD_RES_SUCCESS); /* older than what it has: done */
}

/* A write that covers a bad block in part is applied when that is repaired. */
static void test_write_bad_block(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	mem_rot(r->node[B].sh.store, o, 0);
	call_ok_(write_part(r, B, o));
	is_ver(r, B, o, 1, 2);
	assert_false(mem_bad(r->node[B].sh.store, o));
	assert_int_equal(mem_byte(r->node[B].sh.store, o, 0), 0x11);
	assert_int_equal(mem_byte(r->node[B].sh.store, o, 105), 0x42);
}

/* Larger than what is read ahead of the network, and than what may be under way. */
static void test_pull_large(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);
	const uint64_t size = 12587576; /* an inode's */

	rig_crash(r, C);
	rig_step(r, M(A) | M(B));
	mem_put(r->node[A].sh.store, o, V(1, 1), size, 3, 0x5a);
	rig_start(r, C);
	uint32_t e = rig_step(r, ABC);
	rig_hold(r, true, false, C, B, PEER_SYNC_QUERY); /* from A, that is */
	struct call *k = call_read(r, C, C, e, o);
	call_wait(k);
	assert_int_equal(k->got[0], 0x5a);
	call_free(k);
	is_ver(r, C, o, 1, 1);
	assert_int_equal(mem_byte(r->node[C].sh.store, o, size - 1), 0x5a);
}

/* ---- takeover ---- */

static struct call *settle(struct rig *r, unsigned to, unsigned src, uint64_t o, struct obj_ver ver,
			   uint64_t gen)
{
	struct call *k = call_op(r, C, to, r->nr_epochs, o, PEER_SETTLE);

	k->c.req.ver_gen = ver.gen;
	k->c.req.ver_seq = ver.seq;
	k->c.req.prev_gen = gen;
	memcpy(k->c.req.client, &r->node[src].sh.self.inc, sizeof(struct incarnation));
	call_submit(k, C, to);
	return k;
}

static void test_settle(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0), p = SD_DATA_OID(1, 1);

	r->vdi.gen = 2;
	rig_write(r, A, ABC, o, V(2, 1), none, 0x11);
	call_ok_(call_write(r, A, A, 1, o, V(2, 2), V(2, 1), 0x12)); /* in flight */
	call_ok_(call_write(r, A, A, 1, p, V(2, 3), none, 0x13));
	r->vdi.gen = 3; /* C has claimed it */
	call_ok_(settle(r, B, A, o, V(2, 2), 3));
	is_ver(r, B, o, 2, 2);
	assert_int_equal(rig_read(r, B, o), 0x12);
	call_ok_(settle(r, B, A, o, V(2, 2), 3)); /* it has it */
	call_ok_(settle(r, B, A, p, V(2, 3), 3)); /* absent here */
	assert_int_equal(rig_read(r, B, p), 0x13);
	/* not what the source has; less than we have; in the name of an old owner */
	call_is_(settle(r, C, A, o, V(2, 9), 3), SD_RES_AGAIN);
	call_is_(settle(r, A, B, o, V(2, 1), 3), SD_RES_AGAIN);
	r->vdi.gen = 4;
	call_is_(settle(r, C, A, o, V(2, 2), 3), SD_RES_AGAIN);
	is_ver(r, C, o, 2, 1);
}

/* Tagged with its epoch: what arrives after the view is not stored. */
static void test_settle_notag(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	call_ok_(call_write(r, A, A, 1, o, V(1, 2), V(1, 1), 0x12));
	rig_hold(r, true, true, B, A, PEER_PULL);
	struct call *k = settle(r, B, A, o, V(1, 2), 1);
	rig_ms(r, 20);
	rig_apply(r, B, rig_epoch(r, ABC));
	rig_hold(r, false, true, B, A, PEER_PULL);
	call_is_(k, SD_RES_OLD_NODE_VER);
	is_ver(r, B, o, 1, 1);
}

/* A version that is asked for while a state is being brought up is that state's, or waits. */
static void test_settle_version(void **state)
{
	struct rig *r = three(state);
	uint64_t o = SD_DATA_OID(1, 0);

	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	call_ok_(call_write(r, A, A, 1, o, V(1, 2), V(1, 1), 0x12));
	mem_commit_gate(r->node[B].sh.store, true);
	struct call *k = settle(r, B, A, o, V(1, 2), 1);
	rig_ms(r, 20);
	uint32_t e = rig_epoch(r, ABC);
	rig_apply(r, B, e);
	struct call *l = call_op(r, C, B, e, o, PEER_VERSION);
	call_submit(l, C, B);
	rig_ms(r, 20);
	assert_false(l->done);
	mem_commit_gate(r->node[B].sh.store, false);
	call_wait(l);
	assert_int_equal(l->c.rsp.ver_seq, 2);
	call_free(l);
	call_wait(k);
	call_free(k);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(epochs),
		T(generations),
		T(nonsense),
		T(checksum),
		T(no_recheck),
		T(tomb_none),
		T(voided_while_waiting),
		T(voided_in_todo),
		T(no_prev),
		T(removal),
		T(order),
		T(landing),
		T(store_fails),
		T(disk_full),
		T(full_again),
		T(held_max),
		T(low),
		T(create_empty),
		T(ping_flush),
		T(read),
		T(repair),
		T(repair_version),
		T(repair_both),
		T(write_bad_block),
		T(write_bad_everywhere),
		T(pull_large),
		T(settle),
		T(settle_notag),
		T(settle_version),
	};
	return cmocka_run_group_tests_name("replica", tests, NULL, NULL);
}
