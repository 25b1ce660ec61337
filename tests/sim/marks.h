/* marks.h - the campaign's account of sheep/mark.h: sim --marks. */
#ifndef TESTS_SIM_MARKS_H
#define TESTS_SIM_MARKS_H

#include "tests/sim/world.h"

/* Before the first child is forked.  False: this program was built without marks. */
bool marks_start(void);
/* In a child: one seed, or one seed of a scenario, has ended.  Nothing without marks_start(). */
void marks_seed(bool scenario);
/* Prints each mark and each kind of fault with its hits.  @seeds: how many random ones have run;
 * @faults: by kind.  False: something was not hit although nothing in the list excuses it, or was
 * although the list says that it cannot be. */
bool marks_report(uint64_t seeds, const uint64_t faults[FAULT_NR]);

#endif
