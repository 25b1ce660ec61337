/* explore.h - every state of a small model, breadth first, so that a trace is a shortest one.
 *
 * A model is a struct without padding that holds a whole state, and a function that makes all
 * states that may come next.  Of a state that was seen a 64-bit fingerprint is kept in a hash set
 * (of 10 million states one is missed with a chance below 1 in 300,000), the states themselves only
 * of two depths, and of each state which step of which one it came from: so much memory a run takes
 * is bounded by `limit`.  The trace of a violation is made by going the same steps once more. */
#ifndef MODEL_EXPLORE_H
#define MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct explore;

struct model {
	size_t size;
	void (*init)(const void *conf, void *state);
	/* calls step() for each */
	void (*next)(struct explore *x, const void *conf, const void *state);
};

/* @to may come next.  @bad: NULL, or the rule that is broken by it.  The text (of what happens) is
 * made only where it is shown. */
void step(struct explore *x, const void *to, const char *bad, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

enum verdict { HOLDS, VIOLATED, TOO_MANY };

struct outcome {
	enum verdict verdict;
	uint64_t states;
	unsigned depth; /* of the deepest state; of the violation */
};

/* @limit: states.  @trace: print the way to a violation. */
struct outcome explore(const struct model *m, const void *conf, uint64_t limit, bool trace);

#endif
