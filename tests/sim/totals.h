/* totals.h - what a campaign has done: the sums over its seeds, and the median seed. */
#ifndef TESTS_SIM_TOTALS_H
#define TESTS_SIM_TOTALS_H

#include "tests/sim/run.h"

struct totals { /* of all seeds; shared with the children */
	uint64_t passed, failed, twice, steps /* of scenarios */, ns;
	uint64_t did[WORK_NR], faults[FAULT_NR], clients[CLIENT_NR];
	uint64_t nr; /* seeds that are in: */
	struct seed_totals {
		uint32_t ops, faults, ms, cpu_us;
	} seed[];
};

/* Room for @nr seeds; lives until the end.  The children write to it, too. */
struct totals *totals_new(uint64_t nr);
/* One seed more; @cpu_us: what it took.  Of @sum NULL only *ret is filled in. */
void totals_add(struct totals *sum, const struct run *r, uint32_t cpu_us, struct seed_totals *ret);
/* Some lines; as a table for doc/testing.md if @table. */
void totals_print(const struct totals *sum, bool table);

#endif
