/* test_sync.c - what is in sync, and how it comes back (DESIGN 5.5), by the traces of the model:
 * each test is the shortest run that goes wrong when the clause of its name is dropped. */
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

/* ---- the traces ---- */

/* A new cluster has nothing: all that is mine is in sync at once. */
static void test_fresh(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	assert_true(rig_in_sync(r, A, o) && rig_in_sync(r, B, o));
	assert_false(rig_in_sync(r, C, o));
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	assert_int_equal(rig_read(r, B, o), 0x11);
	assert_int_equal(r->sent[PEER_SYNC_QUERY], 0);
}

/* A higher version of who is not in sync was never acknowledged: replaced. */
static void test_trust_higher(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_apply(r, B, rig_epoch(r, M(B) | M(C))); /* A falls silent */
	rig_crash(r, C);
	rig_apply(r, B, rig_epoch(r, M(B)));
	call_ok_(call_write(r, A, A, 1, o, V(1, 1), none, 0x11)); /* A alone has it */
	rig_crash(r, A);
	rig_start(r, A);
	rig_step(r, M(A) | M(B));
	assert_int_equal(rig_read(r, B, o), -1);
	assert_int_equal(rig_read(r, A, o), -1);
	assert_true(rig_in_sync(r, A, o));
	assert_int_equal(mem_nr_stale(r->node[A].sh.store), 1);
}

/* An equal version of somebody who is not in sync himself says nothing. */
static void test_trust_equal(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, B);
	rig_step(r, M(A) | M(C));
	assert_int_equal(rig_read(r, C, o), 0x11); /* pulled from A */
	rig_crash(r, C);
	rig_step(r, M(A));
	rig_start(r, B);
	uint32_t e4 = rig_epoch(r, M(A) | M(B));
	rig_apply(r, B, e4);
	rig_start(r, C);
	uint32_t e5 = rig_epoch(r, ABC);
	rig_apply(r, B, e5);
	rig_apply(r, C, e5);
	assert_int_equal(rig_read(r, B, o), -2); /* A, still in e3, has not answered */
	call_ok_(call_write(r, A, A, 3, o, V(1, 2), V(1, 1), 0x12));
	rig_apply(r, A, e4);
	rig_apply(r, A, e5);
	assert_int_equal(rig_read(r, B, o), 0x12);
}

/* The same with who is in the ring and not in sync. */
static void test_trust_equal_ring(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_copies = 3;
	rig_boot(r, ABC);
	rig_write(r, A, ABC, o, V(1, 1), none, 0x11);
	rig_crash(r, B);
	rig_step(r, M(A) | M(C));
	rig_crash(r, C);
	rig_step(r, M(A));
	rig_start(r, B);
	uint32_t e4 = rig_epoch(r, M(A) | M(B));
	rig_apply(r, B, e4);
	rig_start(r, C);
	uint32_t e5 = rig_epoch(r, ABC);
	rig_apply(r, B, e5);
	rig_apply(r, C, e5);
	assert_int_equal(rig_read(r, B, o), -2); /* A, still in e3, has not answered */
	call_ok_(call_write(r, A, A, 3, o, V(1, 2), V(1, 1), 0x12));
	rig_apply(r, A, e4);
	rig_apply(r, A, e5);
	assert_int_equal(rig_read(r, B, o), 0x12);
}

/* An object in todo answers no write as done, whatever its file has, and is not read. */
static void test_done_unsynced(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	call_ok_(call_write(r, A, B, 1, o, V(1, 1), none, 0x11)); /* on B only */
	rig_crash(r, B);
	rig_step(r, M(A) | M(C));
	rig_start(r, B);
	rig_hold(r, true, true, B, A, PEER_SYNC_QUERY);
	uint32_t e = rig_step(r, ABC);
	struct call *k = call_write(r, A, B, e, o, V(1, 1), none, 0x11);
	assert_int_equal(rig_read(r, B, o), -2);
	assert_false(k->done);
	rig_hold(r, false, true, B, A, PEER_SYNC_QUERY);
	call_ok_(k); /* after A's state, which is older, was taken */
	assert_int_equal(mem_nr_stale(r->node[B].sh.store), 1);
	call_ok_(call_write(r, A, A, e, o, V(1, 1), none, 0x11));
	assert_int_equal(rig_read(r, B, o), 0x11);
	assert_int_equal(rig_read(r, A, o), 0x11);
}

/* Nobody is in sync: all must have answered before one decides. */
static void test_first_come(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_apply(r, A, rig_epoch(r, M(A) | M(B))); /* C falls silent */
	rig_crash(r, B);
	rig_apply(r, A, rig_epoch(r, M(A)));
	rig_start(r, B);
	uint32_t e = rig_epoch(r, M(A) | M(B));
	rig_apply(r, B, e);
	assert_int_equal(rig_read(r, B, o), -2);
	call_ok_(call_write(r, A, A, 3, o, V(1, 1), none, 0x11));
	rig_apply(r, A, e);
	assert_int_equal(rig_read(r, B, o), 0x11);
}

/* All in sync are away: a ring member of a later epoch may know more, wait for it. */
static void test_no_wait_absent(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, C, M(A) | M(B), o, V(1, 1), none, 0x11);
	uint32_t e2 = rig_epoch(r, M(B) | M(C)); /* A falls silent, B dies */
	rig_crash(r, B);
	uint32_t e3 = rig_epoch(r, M(C));
	rig_apply(r, C, e2);
	rig_apply(r, C, e3);
	assert_int_equal(rig_read(r, C, o), -2);
	rig_crash(r, A);
	rig_start(r, A);
	rig_step(r, M(A) | M(C));
	/* A was in sync last in e1, but B was in the ring of e2. */
	assert_int_equal(rig_read(r, C, o), -2);
	assert_int_equal(rig_read(r, A, o), -2);
	rig_start(r, B);
	rig_step(r, ABC);
	assert_int_equal(rig_read(r, A, o), 0x11);
	assert_int_equal(rig_read(r, B, o), 0x11);
}

/* The operator has forced that epoch: nobody of an earlier one is waited for. */
static void test_forced(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, C, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, B);
	rig_crash(r, A);
	uint32_t e = rig_step(r, M(C));
	assert_int_equal(rig_read(r, C, o), -2);
	e = rig_epoch(r, M(C));
	r->epoch[e].forced = true;
	rig_apply(r, C, e);
	assert_int_equal(rig_read(r, C, o), -1); /* given up */
	rig_write(r, C, M(C), o, V(9, 1), none, 0x99);
	/* and who comes back later takes that state */
	rig_start(r, A);
	rig_step(r, M(A) | M(C));
	assert_int_equal(rig_read(r, A, o), 0x99);
}

/* A pull belongs to its epoch: thrown away in a newer one. */
static void test_pull_notag(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, A);
	uint32_t e2 = rig_step(r, M(B) | M(C));
	rig_hold(r, true, true, C, B, PEER_PULL);
	struct call *k = call_read(r, C, C, e2, o);
	rig_ms(r, 50);
	assert_true(r->sent[PEER_PULL] == 1 && !k->done);
	rig_start(r, A);
	uint32_t e3 = rig_step(r, ABC);
	call_is_(k, SD_RES_OLD_NODE_VER);
	rig_write(r, C, M(A) | M(B), o, V(1, 2), V(1, 1), 0x12);
	uint32_t e4 = rig_epoch(r, M(B) | M(C)); /* A falls silent */
	rig_apply(r, C, e4);
	rig_hold(r, false, true, C, B, PEER_PULL); /* the answer of e2 comes */
	rig_ms(r, 50);
	assert_int_equal(rig_read(r, C, o), -2);
	assert_false(rig_in_sync(r, C, o));
	rig_apply(r, B, e4);
	assert_int_equal(rig_read(r, C, o), 0x12);
	(void)e3;
}

/* The same, and the answer comes in time, but the disk is slow. */
static void test_pull_notag_slow_disk(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, A);
	uint32_t e2 = rig_step(r, M(B) | M(C));
	mem_commit_gate(r->node[C].sh.store, true);
	struct call *k = call_read(r, C, C, e2, o);
	rig_ms(r, 50);
	rig_start(r, A);
	rig_step(r, ABC); /* C is not in the ring */
	call_is_(k, SD_RES_OLD_NODE_VER);
	rig_write(r, C, M(A) | M(B), o, V(1, 2), V(1, 1), 0x12);
	uint32_t e4 = rig_epoch(r, M(B) | M(C));
	rig_apply(r, C, e4);
	mem_commit_gate(r->node[C].sh.store, false);
	rig_ms(r, 50);
	assert_false(rig_in_sync(r, C, o));
	rig_apply(r, B, e4);
	assert_int_equal(rig_read(r, C, o), 0x12);
}

/* That it is in sync is durable before it serves: one copy, the holder restarts. */
static void test_mark_volatile(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_copies = 1;
	rig_boot(r, M(B));
	rig_start(r, A);
	rig_step(r, M(A) | M(B));
	assert_int_equal(rig_read(r, A, o), -1); /* taken from B */
	rig_write(r, B, M(A), o, V(1, 1), none, 0x11);
	rig_crash(r, A);
	uint32_t e3 = rig_epoch(r, M(B));
	rig_start(r, A);
	uint32_t e4 = rig_epoch(r, M(A) | M(B));
	rig_apply(r, A, e4);
	rig_apply(r, B, e3);
	rig_apply(r, B, e4);
	assert_int_equal(rig_read(r, A, o), 0x11);
}

/* What was not recovered in e2 is not in sync in e3, though it was "mine" before. */
static void test_plan_replaced(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, C, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_hold_all(r, true, false, B, PEER_SYNC_QUERY);
	uint32_t e2 = rig_epoch(r, M(B) | M(C));
	rig_apply(r, C, e2);
	rig_crash(r, B);
	rig_apply(r, C, rig_epoch(r, M(C)));
	assert_false(rig_in_sync(r, C, o));
	assert_int_equal(rig_read(r, C, o), -2);
}

/* The source must have applied the puller's epoch, else it still takes writes of the older one. */
static void test_pull_any_epoch(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	uint32_t e2 = rig_epoch(r, M(A) | M(C)); /* B falls silent */
	rig_apply(r, C, e2);
	assert_int_equal(rig_read(r, C, o), -2); /* A is in e1 */
	call_ok_(call_write(r, A, A, 1, o, V(1, 1), none, 0x11));
	call_ok_(call_write(r, A, B, 1, o, V(1, 1), none, 0x11));
	rig_apply(r, A, e2);
	call_is_(call_write(r, A, A, 1, o, V(1, 2), V(1, 1), 0x12), SD_RES_OLD_NODE_VER);
	assert_int_equal(rig_read(r, C, o), 0x11);
}

/* At a takeover a replica that is not in sync does not count: it answers when it is. */
static void test_recon_all(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, A);
	rig_hold_all(r, true, true, B, PEER_PULL);
	uint32_t e = rig_step(r, M(B) | M(C));
	struct call *k = call_op(r, C, C, e, o, PEER_VERSION);
	call_submit(k, C, C);
	rig_ms(r, 50);
	assert_false(k->done);
	rig_hold_all(r, false, true, B, PEER_PULL);
	call_wait(k);
	assert_int_equal(k->c.rsp.result, SD_RES_SUCCESS);
	assert_true(k->c.rsp.ver_gen == 1 && k->c.rsp.ver_seq == 1);
	call_free(k);
}

/* A copy outside the ring is dropped only after the ring is in sync. */
static void test_drop_early(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, M(C) | M(D));
	rig_write(r, C, M(C) | M(D), o, V(1, 1), none, 0x11);
	rig_start(r, A);
	rig_start(r, B);
	for (unsigned n = C; n <= D; n++) {
		rig_hold_all(r, true, false, n, PEER_SYNC_QUERY);
		rig_hold_all(r, true, false, n, PEER_SYNC_LIST);
		rig_hold_all(r, true, false, n, PEER_PULL);
	}
	uint32_t e2 = rig_epoch(r, M(A) | M(C) | M(D)), e3 = rig_epoch(r, ABC | M(D));
	for (unsigned n = A; n <= D; n++) {
		if (n != B)
			rig_apply(r, n, e2);
		rig_apply(r, n, e3);
	}
	rig_ms(r, 700);
	assert_int_equal(rig_ver(r, C, o).seq, 1);
	assert_int_equal(rig_ver(r, D, o).seq, 1);
	assert_false(sync_at_rest(&r->node[C].sh));
	for (unsigned n = C; n <= D; n++) {
		rig_hold_all(r, false, false, n, PEER_SYNC_QUERY);
		rig_hold_all(r, false, false, n, PEER_SYNC_LIST);
		rig_hold_all(r, false, false, n, PEER_PULL);
	}
	rig_rest(r, ABC | M(D));
	assert_int_equal(rig_read(r, A, o), 0x11);
	assert_int_equal(rig_read(r, B, o), 0x11);
	assert_int_equal(rig_ver(r, C, o).seq, 0);
	assert_int_equal(rig_ver(r, D, o).seq, 0);
	/* "Dropped" is "do not know" from now on. */
	assert_int_equal(sync_synced(r->node[C].sh.sync, o, sd_hash_oid(o), 2), 0);
}

/* What a pull of an older epoch still puts beside the ring (a slow disk) is dropped, too. */
static void test_drop_late(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_crash(r, A);
	uint32_t e2 = rig_step(r, M(B) | M(C));
	mem_commit_gate(r->node[C].sh.store, true);
	struct call *k = call_read(r, C, C, e2, o);
	rig_ms(r, 50);
	rig_start(r, A);
	r->params.disable_recovery = false;
	rig_step(r, ABC);
	call_is_(k, SD_RES_OLD_NODE_VER);
	rig_rest(r, M(A) | M(B));
	rig_ms(r, 300);
	is_absent(r, C, o);
	mem_commit_gate(r->node[C].sh.store, false);
	rig_rest(r, ABC);
	is_absent(r, C, o);
}

/* ---- the rest of 5.5 ---- */

/* After a restart all is todo until compared; of equal versions no data moves. */
static void test_bulk(void **state)
{
	struct rig *r = *state;
	enum { NR = 1500 };
	unsigned pulls;

	rig_copies = 3;
	rig_boot(r, ABC);
	for (unsigned n = A; n <= C; n++)
		for (unsigned i = 0; i < NR; i++)
			mem_put(r->node[n].sh.store, SD_DATA_OID(1, i), V(1, 1), 4096, 3, 0x11);
	rig_rest(r, ABC);
	rig_crash(r, C);
	rig_step(r, M(A) | M(B));
	/* meanwhile: one changes, one is removed, one is new; C had one that nobody knows */
	for (unsigned n = A; n <= B; n++) {
		call_ok_(call_write(r, A, n, 2, SD_DATA_OID(1, 7), V(2, 1), V(1, 1), 0x22));
		call_ok_(call_remove(r, A, n, 2, SD_DATA_OID(1, 8), V(2, 1), V(1, 1)));
		call_ok_(call_write(r, A, n, 2, SD_DATA_OID(1, NR), V(2, 1), none, 0x33));
	}
	rig_start(r, C);
	mem_put(r->node[C].sh.store, SD_DATA_OID(1, NR + 1), V(1, 9), 4096, 3, 0x44);
	pulls = r->sent[PEER_PULL];
	rig_step(r, ABC);
	rig_rest(r, ABC);
	assert_int_equal(r->sent[PEER_PULL] - pulls, 4);
	assert_int_equal(rig_read(r, C, SD_DATA_OID(1, 7)), 0x22);
	assert_int_equal(rig_read(r, C, SD_DATA_OID(1, 8)), -1);
	assert_int_equal(rig_read(r, C, SD_DATA_OID(1, NR)), 0x33);
	assert_int_equal(rig_read(r, C, SD_DATA_OID(1, NR + 1)), -1);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(obj_ver_cmp(rig_ver(r, C, SD_DATA_OID(1, i)),
					     rig_ver(r, A, SD_DATA_OID(1, i))),
				 0);
	/* .stale/ is emptied when all is at rest */
	assert_int_equal(mem_nr_stale(r->node[C].sh.store), 0);
	assert_int_equal(r->node[C].sh.sync->marks.nr, 0);
}

/* All of them restart: nobody is in sync; the highest of those in sync last is the object. */
static void test_all_restart(void **state)
{
	struct rig *r = *state;
	uint64_t o[3];

	rig_copies = 3;
	rig_boot(r, ABC);
	rig_rest(r, ABC);
	for (unsigned i = 0; i < 3; i++) {
		o[i] = SD_DATA_OID(1, i);
		rig_write(r, A, ABC, o[i], V(1, 1), none, 0x11);
	}
	call_ok_(call_write(r, A, B, 1, o[0], V(1, 2), V(1, 1), 0x12)); /* in flight */
	call_ok_(call_write(r, A, C, 1, o[1], V(1, 2), V(1, 1), 0x13));
	call_ok_(call_remove(r, A, C, 1, o[2], V(1, 2), V(1, 1)));
	for (unsigned n = A; n <= C; n++)
		rig_crash(r, n);
	for (unsigned n = A; n <= C; n++)
		rig_start(r, n);
	rig_step(r, ABC);
	rig_rest(r, ABC);
	for (unsigned n = A; n <= C; n++) {
		assert_int_equal(rig_read(r, n, o[0]), 0x12);
		assert_int_equal(rig_read(r, n, o[1]), 0x13);
		assert_int_equal(rig_read(r, n, o[2]), 0x11);
	}
}

/* Ring changes back and forth; in the end the ring has it and nobody else. */
static void test_ring_moves(void **state)
{
	struct rig *r = *state;
	unsigned all = ABC | M(D),
		 masks[] = {ABC, M(A) | M(C) | M(D), all, M(B) | M(D) | M(A), all};
	enum { NR = 200 };
	struct ring *ring;

	rig_boot(r, all);
	rig_rest(r, all);
	struct view *v = rig_view(r, 1, A);
	ring = v->ring;
	for (unsigned i = 0; i < NR; i++) {
		uint32_t at[2];
		uint64_t oid = SD_DATA_OID(1, i);
		ring_lookup(ring, sd_hash_oid(oid), 2, at);
		mem_put(r->node[at[0]].sh.store, oid, V(1, i + 1), 4096, 2, (uint8_t)i);
		mem_put(r->node[at[1]].sh.store, oid, V(1, i + 1), 4096, 2, (uint8_t)i);
	}
	for (unsigned k = 0; k < ARRAY_SIZE(masks); k++) {
		for (unsigned n = A; n <= D; n++) {
			if (r->node[n].up && !(masks[k] & M(n)))
				rig_crash(r, n);
			else if (!r->node[n].up && (masks[k] & M(n)))
				rig_start(r, n);
		}
		rig_step(r, masks[k]);
		rig_rest(r, masks[k]);
	}
	for (unsigned i = 0; i < NR; i++) {
		uint32_t at[2];
		uint64_t oid = SD_DATA_OID(1, i);
		ring_lookup(ring, sd_hash_oid(oid), 2, at);
		for (unsigned n = A; n <= D; n++) {
			bool mine = at[0] == n || at[1] == n;
			assert_int_equal(rig_ver(r, n, oid).seq, mine ? i + 1 : 0);
			if (mine)
				assert_int_equal(mem_byte(r->node[n].sh.store, oid, 9), (uint8_t)i);
		}
	}
	view_put(v);
}

/* A whole restart after an orderly shutdown: in sync at once, nothing is asked. */
static void test_clean(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_rest(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	for (unsigned n = A; n <= C; n++)
		rig_crash(r, n);
	memset(r->sent, 0, sizeof(r->sent));
	r->params.disable_recovery = true;
	for (unsigned n = A; n <= C; n++) {
		rig_start(r, n);
		r->epoch[1].start[n] = r->node[n].sh.self.inc.start;
	}
	for (unsigned n = A; n <= C; n++)
		assert_int_equal(rig_apply_clean(r, n, 1, true), 0);
	assert_true(rig_in_sync(r, A, o) && rig_in_sync(r, B, o));
	assert_int_equal(rig_read(r, B, o), 0x11);
	assert_int_equal(r->sent[PEER_SYNC_QUERY] + r->sent[PEER_SYNC_LIST], 0);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(fresh),
		T(trust_higher),
		T(trust_equal),
		T(trust_equal_ring),
		T(done_unsynced),
		T(first_come),
		T(no_wait_absent),
		T(forced),
		T(pull_notag),
		T(pull_notag_slow_disk),
		T(mark_volatile),
		T(plan_replaced),
		T(pull_any_epoch),
		T(recon_all),
		T(drop_early),
		T(drop_late),
		T(bulk),
		T(all_restart),
		T(ring_moves),
		T(clean),
		T(lost_header),
		T(lost_header_clean),
		T(same_epoch_again),
		T(unused_copies),
		T(given_up),
		T(torn_one),
		T(torn_one_bulk),
		T(torn_all),
		T(torn_all_owner),
		T(torn_all_named),
		T(vid_list),
		T(file_torn),
		T(file_damaged),
		T(file_many),
		T(power_lost),
		T(cached_elsewhere),
		T(direct_only),
		T(cached_forced),
		T(cache_lost),
		T(cache_lost_bulk),
		T(flush_covered),
		T(stop),
		cmocka_unit_test(test_map_random),
		T(map_view),
	};
	return cmocka_run_group_tests_name("sync", tests, NULL, NULL);
}
