/* model.c - explores the models: those of the rules as they are hold, and each without one clause
 * does not; see doc/testing.md.
 *
 *   model [--small] [--trace] [NAME]
 * --small: only what takes a second or so.  --trace: the way to each violation.  NAME: only these.
 * Ends with "N passed, N failed". */
#include "config.h"

#include "tests/model/models.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LIMIT 8000000u /* states, so memory: about 40 bytes each, and two depths of states */

struct run {
	const char *name;
	bool small;
	enum verdict want;
	const struct model *model;
	struct object_conf object;
	struct small_conf rule;
};

/* nodes, copies, writes, in flight; the removal; crashes, silent, joins, claims, releases, late */
#define BASE	 3, 2, 2, 1, 0, 1, 1, 1, 2, 0, 0
#define CRASHES	 3, 2, 2, 1, 0, 1, 0, 1, 2, 0, 0
#define RETURNS	 3, 2, 2, 1, 0, 2, 0, 2, 1, 0, 0
#define SILENT	 3, 2, 2, 1, 0, 1, 1, 0, 3, 0, 0
#define PIPELINE 3, 2, 2, 2, 0, 1, 0, 1, 2, 0, 0
#define REMOVAL	 3, 2, 3, 1, 2, 1, 0, 1, 2, 1, 0
#define THREE	 3, 3, 2, 1, 0, 1, 0, 1, 2, 0, 0
#define LATE	 3, 2, 3, 1, 2, 0, 0, 0, 1, 0, 1
#define RELEASES 3, 2, 2, 1, 0, 0, 0, 0, 2, 1, 0
#define ALONE	 2, 1, 2, 1, 0, 2, 0, 3, 2, 0, 0
#define MOVES	 4, 2, 1, 1, 0, 0, 0, 2, 1, 0, 0

#define HOLD(name_, small_, ...)                                                                   \
	{                                                                                          \
		.name = name_, .small = small_, .want = HOLDS, .model = &object_model, .object = { \
			__VA_ARGS__,                                                               \
			.mutant = MUT_none                                                         \
		}                                                                                  \
	}
#define WITHOUT(mutant_, small_, ...)                                                              \
	{                                                                                          \
		.name = #mutant_, .small = small_, .want = VIOLATED, .model = &object_model,       \
		.object = {                                                                        \
			__VA_ARGS__,                                                               \
			.mutant = MUT_##mutant_                                                    \
		}                                                                                  \
	}
#define RULE(name_, small_, model_, without_, size_)                                               \
	{                                                                                          \
		.name = name_, .small = small_, .want = without_ ? VIOLATED : HOLDS,               \
		.model = &model_, .rule = {                                                        \
			without_,                                                                  \
			size_                                                                      \
		}                                                                                  \
	}

static const struct run runs[] = {
	HOLD("object: crashes", true, CRASHES),
	HOLD("object: crashes, a silent node", false, BASE),
	HOLD("object: nodes that return", false, RETURNS),
	HOLD("object: two writes in flight", true, PIPELINE),
	HOLD("object: a removal, a release", false, REMOVAL),
	HOLD("object: three copies", true, THREE),
	HOLD("object: one copy, its holders come and go", true, ALONE, .initial = 2),
	HOLD("object: the ring moves, surplus is dropped", true, MOVES, .initial = 12,
	     .surplus = true),
	/* A forced change of owner comes with a view: the generation is a belt (WHY B17). */
	{.name = "object: no_gen left out, a belt",
	 .small = true,
	 .want = HOLDS,
	 .model = &object_model,
	 .object = {CRASHES, .mutant = MUT_no_gen}},
	WITHOUT(ack_early, true, BASE),
	WITHOUT(no_epoch, false, BASE),
	WITHOUT(no_recon, false, BASE),
	WITHOUT(read_inflight, true, BASE),
	WITHOUT(read_unsynced, true, BASE),
	WITHOUT(done_unsynced, false, BASE),
	WITHOUT(no_previous, true, PIPELINE),
	WITHOUT(no_recheck, false, BASE),
	WITHOUT(trust_higher, false, BASE),
	WITHOUT(trust_equal, false, RETURNS),
	WITHOUT(recon_all, false, BASE),
	WITHOUT(x_take, false, BASE),
	WITHOUT(settle_untagged, false, BASE),
	WITHOUT(resend_unanswered, false, BASE),
	WITHOUT(plan_replaced, true, BASE),
	WITHOUT(pull_any_epoch, false, BASE),
	WITHOUT(pull_untagged, false, BASE),
	WITHOUT(first_come, false, BASE),
	WITHOUT(no_wait_absent, false, BASE),
	WITHOUT(mark_volatile, true, ALONE, .initial = 2),
	WITHOUT(no_lease, false, BASE),
	WITHOUT(lease_newest, true, SILENT),
	WITHOUT(late_copy, true, LATE),
	WITHOUT(absent_not_done, true, REMOVAL),
	WITHOUT(release_busy, true, RELEASES),
	WITHOUT(drop_early, true, MOVES, .initial = 12, .surplus = true),
	RULE("start", false, start_model, 0, 7),
	RULE("start: a join is one command", true, start_model, 1, 6),
	RULE("start: all members have the epoch", true, start_model, 2, 6),
	RULE("place: epoch and position", true, place_model, 0, 0),
	RULE("place: epoch only", true, place_model, 1, 0),
	RULE("session", true, session_model, 0, 0),
	RULE("session: not compared", true, session_model, 1, 0),
	RULE("session: a new owner knows none", true, session_model, 2, 0),
	RULE("flush", true, flush_model, 0, 0),
	RULE("flush: the first one not to all", true, flush_model, 1, 0),
	RULE("flush: no sync at start", true, flush_model, 2, 0),
	RULE("cache lost", true, lost_model, 0, 0),
	RULE("cache lost: no mark", true, lost_model, 1, 0),
	RULE("cache lost: CACHED is said too late", true, lost_model, 2, 0),
	RULE("cache lost: daemons that died count", true, lost_model, 3, 0),
	RULE("repair", true, repair_model, 0, 0),
	RULE("repair: the version is not compared", true, repair_model, 1, 0),
	RULE("torn", true, torn_model, 0, 0),
	RULE("torn: ranks like whole", true, torn_model, 1, 0),
	RULE("torn: not settled", true, torn_model, 2, 0),
	RULE("reclaim", true, reclaim_model, 0, 0),
	RULE("reclaim: not confirmed", true, reclaim_model, 1, 0),
};

static bool run(const struct run *r, bool trace)
{
	static const char *const say[] = {"holds", "VIOLATION", "TOO MANY STATES"};
	bool object = r->model == &object_model;
	clock_t begin = clock();
	struct outcome o = explore(r->model, object ? (const void *)&r->object : &r->rule, LIMIT,
				   trace || r->want == HOLDS);
	bool ok = o.verdict == r->want;

	printf("%-4s %-9s %-46s %s, %" PRIu64 " states, depth %u, %.1f s\n", ok ? "ok" : "FAIL",
	       r->want == HOLDS ? "" : "planted:", r->name, say[o.verdict], o.states, o.depth,
	       (double)(clock() - begin) / CLOCKS_PER_SEC);
	fflush(stdout);
	return ok;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"small", 0, NULL, 's'},
						{"trace", 0, NULL, 't'},
						{NULL, 0, NULL, 0}};
	bool small = false, trace = false;
	unsigned passed = 0, failed = 0;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
		if (o == '?')
			return 2;
		small |= o == 's';
		trace |= o == 't';
	}
	for (size_t i = 0; i < sizeof(runs) / sizeof(*runs); i++) {
		if ((small && !runs[i].small) ||
		    (optind < argc && strcmp(argv[optind], runs[i].name)))
			continue;
		if (run(&runs[i], trace))
			passed++;
		else
			failed++;
	}
	printf("%u passed, %u failed\n", passed, failed);
	return failed || !passed;
}
