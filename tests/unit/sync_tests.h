/* sync_tests.h - the parts of test_sync: test_sync.c has the model's traces, sync_life.c the rest.
 */
#ifndef TESTS_UNIT_SYNC_TESTS_H
#define TESTS_UNIT_SYNC_TESTS_H

#include "tests/unit/sync_rig.h"
#include "tests/unit/sync_store.h"

static const struct obj_ver none = {0, 0};

/* Only what requests wait for is brought in sync. */
static inline struct rig *on_demand(void **state)
{
	struct rig *r = *state;

	r->params.disable_recovery = true;
	return r;
}

static inline void is_absent(struct rig *r, unsigned n, uint64_t o)
{
	assert_int_equal(rig_ver(r, n, o).gen, 0);
}

/* sync_life.c */
void test_lost_header(void **state);
void test_lost_header_clean(void **state);
void test_same_epoch_again(void **state);
void test_unused_copies(void **state);
void test_given_up(void **state);
void test_torn_one(void **state);
void test_torn_one_bulk(void **state);
void test_torn_all(void **state);
void test_torn_all_owner(void **state);
void test_torn_all_named(void **state);
void test_vid_list(void **state);
void test_file_torn(void **state);
void test_file_damaged(void **state);
void test_file_many(void **state);
void test_stop(void **state);
void test_map_random(void **state);
void test_map_view(void **state);

/* sync_cached.c */
void test_power_lost(void **state);
void test_cached_elsewhere(void **state);
void test_direct_only(void **state);
void test_cached_forced(void **state);
void test_cache_lost(void **state);
void test_cache_lost_bulk(void **state);
void test_flush_covered(void **state);

#endif
