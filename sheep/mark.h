/* mark.h - which clauses of the design and which error branches have run (`make sim-marks`).
 *
 * MARK(name); stands where a clause is carried out or an error is handled, MARKED(name), which is
 * true, at the end of the condition that leads there.  tests/sim/marks.list says of each name,
 * once, what it is, and `script/lint` that the list and the code agree.  Nothing of it is in a
 * daemon: only -DSIM_MARKS (with the list as tests/sim/marks.inc before it) counts, in the
 * simulator's counters. */
#ifndef SHEEP_MARK_H
#define SHEEP_MARK_H

#include <stdbool.h>
#include <stdint.h>

#ifdef SIM_MARKS
enum mark {
#define X(name, section, expect, clause) MARK_##name,
	MARKS(X)
#undef X
		MARK_NR
};
extern uint64_t mark_hits[MARK_NR]; /* the simulator's */
#define MARK(name)   ((void)mark_hits[MARK_##name]++)
#define MARKED(name) (mark_hits[MARK_##name]++, true)
#else
#define MARK(name)   ((void)0)
#define MARKED(name) true
#endif

#endif
