/* marks_unit.c - in each unit program of `make sim-marks-unit`: which marks it has hit, one line
 * for each, to the end of the file $MARKS_OUT. */
#include "sheep/mark.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t mark_hits[MARK_NR];

static const char *const names[] = {
#define X(name, section, expect, clause) #name,
	MARKS(X)
#undef X
};

__attribute__((destructor)) static void say(void)
{
	const char *path = getenv("MARKS_OUT");
	FILE *f = path ? fopen(path, "a") : NULL;

	for (unsigned i = 0; f && i < MARK_NR; i++)
		if (mark_hits[i])
			fprintf(f, "%s %s %" PRIu64 "\n", program_invocation_short_name, names[i],
				mark_hits[i]);
	if (f)
		fclose(f);
}
