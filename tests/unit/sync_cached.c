/* sync_cached.c - what is known of cached writes after power was lost (DESIGN 5.4; 5.5 (2)). */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/sync_tests.h"

/* From the next view on the file of @n is that of another boot: its next start is one after a power
 * cut. */
static void will_lose_power(struct rig *r, unsigned n)
{
	r->node[n].sh.sync->boot[3] ^= 0x55;
}

static uint32_t lost(struct rig *r, unsigned n)
{
	return r->node[n].sh.sync->lost;
}

static bool lossy(struct rig *r, unsigned n, uint64_t o)
{
	struct sync *s = r->node[n].sh.sync;

	return sync_lossy(s, sync_synced(s, o, sd_hash_oid(o), 2));
}

static void restart(struct rig *r, unsigned n)
{
	rig_crash(r, n);
	rig_start(r, n);
}

/* A node knows it, durably, until it is in sync in a newer epoch. */
void test_power_lost(void **state)
{
	struct rig *r = on_demand(state);
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	restart(r, A); /* the same boot */
	assert_int_equal(lost(r, A), 0);
	assert_false(lossy(r, A, o));
	will_lose_power(r, A);
	assert_int_equal(rig_step(r, ABC), 2);
	assert_int_equal(rig_read(r, A, o),
			 0x11); /* one object in sync, by a mark behind the map */
	restart(r, A);
	assert_int_equal(lost(r, A), 2);
	assert_true(lossy(r, A, o));
	restart(r, A); /* not said in any view yet */
	assert_int_equal(lost(r, A), 2);
	rig_step(r, ABC);
	restart(r, A);
	assert_int_equal(lost(r, A), 2);
	assert_true(lossy(r, A, o));
	assert_int_equal(rig_step(r, ABC), 4);
	assert_int_equal(rig_read(r, A, o), 0x11);
	assert_false(lossy(r, A, o));
	assert_int_equal(lost(r, B), 0);
	rig_format(r, A);
	assert_int_equal(lost(r, A), 0);
}

/* A lost power and with it its cached write; B was killed only, and has it.  A and C are back: B's
 * name is in no epoch after that.  The next epoch of A and C. */
static uint32_t one_lost_power(struct rig *r, uint64_t o)
{
	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	will_lose_power(r, A);
	rig_step(r, ABC);
	call_ok_(call_write(r, C, B, 2, o, V(1, 2), V(1, 1), 0x12));
	rig_crash(r, A);
	rig_crash(r, B);
	rig_step(r, M(C));
	rig_start(r, A);
	return rig_epoch(r, M(A) | M(C));
}

/* 5.5 (2): all who are here of those in sync last have lost power: an absent one may not have. */
void test_cached_elsewhere(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);
	uint32_t e = one_lost_power(r, o);

	r->vdi.cached = true;
	rig_apply(r, A, e);
	rig_apply(r, C, e);
	assert_int_equal(rig_read(r, A, o), -2);
	rig_ms(r, 500); /* in bulk, too */
	assert_false(rig_in_sync(r, A, o) || rig_in_sync(r, C, o));
	rig_start(r, B);
	rig_step(r, ABC);
	assert_int_equal(rig_read(r, A, o), 0x12);
	rig_rest(r, ABC);
	assert_int_equal(r->nr_lost, 0);
}

/* Nothing was cached, so nothing is missing: nobody waits. */
void test_direct_only(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);
	uint32_t e = one_lost_power(r, o);

	rig_apply(r, A, e);
	rig_apply(r, C, e);
	assert_int_equal(rig_read(r, A, o), 0x11);
	rig_rest(r, M(A) | M(C));
	assert_int_equal(r->nr_lost, 0);
}

/* The operator has given up on who is absent: what was cached there is lost. */
void test_cached_forced(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);
	uint32_t e = one_lost_power(r, o);

	r->vdi.cached = true;
	r->epoch[e].forced = true;
	rig_apply(r, A, e);
	rig_apply(r, C, e);
	assert_int_equal(rig_read(r, A, o), 0x11);
	rig_rest(r, M(A) | M(C));
	assert_true(r->vdi.cache_lost);
}

/* All have lost power: the cluster knows before anything of it is in sync. */
static void all_lost_power(struct rig *r, unsigned (*look)(struct rig *r, uint64_t o))
{
	uint64_t o = rig_oid(r, 0), p = rig_oid(r, 1);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	rig_write(r, A, M(A) | M(B), p, V(1, 2), none, 0x22);
	r->vdi.cached = true;
	for (unsigned n = A; n <= C; n++)
		will_lose_power(r, n);
	rig_step(r, ABC);
	for (unsigned n = A; n <= C; n++)
		rig_crash(r, n);
	for (unsigned n = A; n <= C; n++)
		rig_start(r, n);
	r->lost_fails = 3;
	uint32_t e = rig_step(r, ABC);
	rig_ms(r, 5);
	assert_false(rig_in_sync(r, A, o) || rig_in_sync(r, B, o));
	assert_int_equal(look(r, o), 0x11);
	assert_true(r->vdi.cache_lost);
	assert_int_equal(look(r, p), 0x22);
	assert_true(r->nr_lost <= 3); /* each node says so once in an epoch */
	struct call *k = call_op(r, C, A, e, o, PEER_FLUSH);
	call_submit(k, C, A);
	call_wait(k);
	assert_int_equal(k->c.rsp.result, SD_RES_SUCCESS);
	assert_true(k->c.rsp.flags & PEER_F_LOSSY);
	call_free(k);
}

static unsigned look_read(struct rig *r, uint64_t o)
{
	int byte = -2;

	for (unsigned i = 0; i < 20 && byte == -2; i++)
		byte = rig_read(r, A, o);
	return (unsigned)byte;
}

void test_cache_lost(void **state)
{
	all_lost_power(on_demand(state), look_read);
}

static unsigned look_rest(struct rig *r, uint64_t o)
{
	rig_rest(r, ABC);
	return (unsigned)rig_read(r, B, o);
}

void test_cache_lost_bulk(void **state)
{
	all_lost_power(*state, look_rest);
}

/* A flush that asks for it, until it is done; how often it was told to come again. */
static unsigned flush(struct rig *r, unsigned to, uint32_t epoch, unsigned max)
{
	unsigned nr = 0;

	for (bool done = false; !done && nr < max; nr += !done) {
		struct call *k = call_op(r, C, to, epoch, rig_oid(r, 0), PEER_FLUSH);
		k->c.req.flags = PEER_F_IN_SYNC;
		call_submit(k, C, to);
		call_wait(k);
		done = k->c.rsp.result == SD_RES_SUCCESS;
		assert_true(done || k->c.rsp.result == SD_RES_AGAIN);
		call_free(k);
		if (!done)
			rig_ms(r, 10);
	}
	return nr;
}

/* Nobody knows what those who are away have: a flush that asks for it waits for them, for nothing
 * else. */
void test_flush_covered(void **state)
{
	struct rig *r = *state;
	uint64_t o = rig_oid(r, 0);

	rig_boot(r, ABC);
	rig_write(r, A, M(A) | M(B), o, V(1, 1), none, 0x11);
	assert_int_equal(flush(r, C, 1, 100), 0);
	rig_crash(r, A);
	rig_hold(r, true, false, C, B, PEER_SYNC_LIST);
	uint32_t e = rig_step(r, M(B) | M(C)); /* B has all that C lacks */
	unsigned nr = flush(r, C, e, 100);
	assert_true(nr > 0 && nr < 100);
	assert_false(sync_at_rest(&r->node[C].sh));
	rig_hold(r, false, false, C, B, PEER_SYNC_LIST);
	rig_crash(r, B);
	rig_crash(r, C);
	rig_start(r, C);
	e = rig_step(r, M(C));
	assert_int_equal(flush(r, C, e, 30), 30);
	rig_start(r, A);
	rig_start(r, B);
	e = rig_step(r, ABC);
	assert_true(flush(r, C, e, 300) < 300);
	/* nor does it wait for ever when nothing is recovered in bulk */
	r->params.disable_recovery = true;
	for (unsigned n = A; n <= C; n++)
		restart(r, n);
	e = rig_step(r, ABC);
	assert_true(flush(r, C, e, 300) < 300);
	assert_int_equal(rig_read(r, A, o), 0x11);
}
