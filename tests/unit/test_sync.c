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

#include "tests/unit/sync_rig.h"
#include "tests/unit/sync_store.h"

static const struct obj_ver none = {0, 0};

/* Only what requests wait for is brought in sync. */
static struct rig *on_demand(void **state)
{
	struct rig *r = *state;

	r->params.disable_recovery = true;
	return r;
}

static void is_absent(struct rig *r, unsigned n, uint64_t o)
{
	assert_int_equal(rig_ver(r, n, o).gen, 0);
}

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

/* What the store says of an object whose file has lost its header: torn, of no known copies. */
static void lose_header(struct rig *r, unsigned n, uint64_t o)
{
	mem_put(r->node[n].sh.store, o, V(0, 1), OBJ_SIZE, 0, 0xee);
	mem_tear(r->node[n].sh.store, o);
}

/* It is what the others have, or goes when they do not have it (I7). */
static void test_lost_header(void **state)
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
static void test_lost_header_clean(void **state)
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
static void test_same_epoch_again(void **state)
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
static void test_unused_copies(void **state)
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
static void test_given_up(void **state)
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

static void test_torn_one(void **state)
{
	torn_one(*state, false);
}

static void test_torn_one_bulk(void **state)
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
static void test_torn_all(void **state)
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
static void test_torn_all_owner(void **state)
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

/* ---- the file ---- */

static void sync_path(struct rig *r, unsigned n, char *path, size_t len)
{
	snprintf(path, len, "%s/sync", r->node[n].dir);
}

/* A batch of marks that a crash tore at its end: what is before it counts. */
static void test_file_torn(void **state)
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
static void test_file_damaged(void **state)
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
static void test_file_many(void **state)
{
	struct rig *r = on_demand(state);
	enum { NR = 300 };
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
static void test_stop(void **state)
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
static void test_map_random(void **state)
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
static void test_map_view(void **state)
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
		T(file_torn),
		T(file_damaged),
		T(file_many),
		T(stop),
		cmocka_unit_test(test_map_random),
		T(map_view),
	};
	return cmocka_run_group_tests_name("sync", tests, NULL, NULL);
}
