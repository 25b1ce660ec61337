/* tell.h - what is said about a run beside its story: how to read it, why it failed, how to see it
 * again. */
#ifndef TESTS_SIM_TELL_H
#define TESTS_SIM_TELL_H

#include "tests/sim/world.h"

/* Above the story, when there is one: who is who, and what the words mean. */
void tell_legend(const struct world *w, const char *scenario);
/* The faults of a run that failed, and the command that tells its story. */
void tell_failure(const struct world *w, const char *scenario);
/* Should this process crash or hang from now on, that is said of this run; NULL: of none.  The
 * process ends with status 2 then. */
void tell_crash(const struct world *w, const char *scenario);

#endif
