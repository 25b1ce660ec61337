/* marks.c - adds up over all processes what was hit, and judges it by tests/sim/marks.list.
 *
 * What the list may expect of a mark:
 *   hit           by any campaign
 *   rare N        only by one of N random seeds or more (fewer: it is not missed)
 *   seldom: why   by chance: hit or not, but by a unit test
 *   cannot: why   never here; being hit is an error too, of the list
 * A kind of fault that is not in the list is `hit`.
 */
#include "config.h"

#include "sheep/mark.h"
#include "tests/sim/marks.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef SIM_MARKS

uint64_t mark_hits[MARK_NR];

static const struct mark_info {
	const char *name, *section, *expect, *clause;
} marks[] = {
#define X(name, section, expect, clause) {#name, section, expect, clause},
	MARKS(X)
#undef X
};

static const struct fault_info {
	const char *name, *expect;
} excused[] = {
#define X(name, expect) {name, expect},
	MARKS_FAULTS(X)
#undef X
		{NULL, NULL}};

static struct marks_sum { /* shared with the children */
	uint64_t hits[MARK_NR], seeds[MARK_NR], in_scenarios[MARK_NR];
} * sum;

bool marks_start(void)
{
	sum = mmap(NULL, sizeof(*sum), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert(sum != MAP_FAILED);
	return true;
}

void marks_seed(bool scenario)
{
	for (unsigned i = 0; sum && i < MARK_NR; i++) {
		if (!mark_hits[i])
			continue;
		if (scenario) {
			__atomic_add_fetch(&sum->in_scenarios[i], mark_hits[i], __ATOMIC_RELAXED);
		} else {
			__atomic_add_fetch(&sum->hits[i], mark_hits[i], __ATOMIC_RELAXED);
			__atomic_add_fetch(&sum->seeds[i], 1, __ATOMIC_RELAXED);
		}
	}
	memset(mark_hits, 0, sizeof(mark_hits));
}

/* NULL: as expected.  Else what is wrong. */
static const char *judge(const char *expect, bool hit, uint64_t seeds)
{
	bool cannot = !strncmp(expect, "cannot:", 7);

	if (hit)
		return cannot ? "HIT ALTHOUGH IT CANNOT BE" : NULL;
	if (cannot || !strncmp(expect, "seldom:", 7) ||
	    (!strncmp(expect, "rare ", 5) && seeds < strtoull(expect + 5, NULL, 10)))
		return NULL;
	return "NOT HIT";
}

static unsigned report_faults(uint64_t seeds, const uint64_t faults[FAULT_NR])
{
	unsigned bad = 0;

	for (unsigned i = 0; i < FAULT_NR; i++) {
		const char *expect = "hit";
		for (const struct fault_info *f = excused; f->name; f++)
			if (!strcmp(f->name, fault_names[i]))
				expect = f->expect;
		const char *wrong = judge(expect, faults[i] != 0, seeds);
		printf("fault  %-26s %9" PRIu64 "  %s\n", fault_names[i], faults[i],
		       wrong	   ? wrong
		       : faults[i] ? ""
				   : expect);
		bad += wrong != NULL;
	}
	return bad;
}

bool marks_report(uint64_t seeds, const uint64_t faults[FAULT_NR])
{
	unsigned bad = 0, hit = 0, excuses = 0;

	assert(sum);
	printf("%-7s%-26s %9s %6s %9s\n", "DESIGN", "mark", "hits", "seeds", "scenarios");
	for (unsigned i = 0; i < MARK_NR; i++) {
		const struct mark_info *m = &marks[i];
		bool any = sum->hits[i] || sum->in_scenarios[i];
		const char *wrong = judge(m->expect, any, seeds);
		printf("%-7s%-26s %9" PRIu64 " %6" PRIu64 " %9" PRIu64 "  %s%s%s\n", m->section,
		       m->name, sum->hits[i], sum->seeds[i], sum->in_scenarios[i],
		       wrong ? wrong
		       : any ? ""
			     : m->expect,
		       wrong || !any ? ": " : "", m->clause);
		bad += wrong != NULL;
		hit += any;
		excuses += !any && !wrong;
	}
	bad += report_faults(seeds, faults);
	printf("marks: %u hit, %u excused, %u marks or faults not as the list says\n", hit, excuses,
	       bad);
	return !bad;
}

#else

bool marks_start(void)
{
	fprintf(stderr, "no marks in this program: make sim-marks\n");
	return false;
}

void marks_seed(bool scenario)
{
}

bool marks_report(uint64_t seeds, const uint64_t faults[FAULT_NR])
{
	return false;
}

#endif
