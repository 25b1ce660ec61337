/* check_int.h - shared by check.c (what is recorded, rules of flushes) and check_sector.c (one
 * register) only. */
#ifndef TESTS_SIM_CHECK_INT_H
#define TESTS_SIM_CHECK_INT_H

#include "tests/sim/check.h"

struct write {
	uint64_t value, start, end;
	uint64_t durable; /* set by history_check: when, or CHECK_NEVER */
	unsigned first, nr, client;
	bool forgotten, failed, cached, resent;
};

struct read {
	uint64_t value, start, end;
	unsigned sector;
};

struct cut {
	uint64_t time;
	unsigned first, nr;
};

struct flush {
	uint64_t start, end;
	bool ok;
};

struct opened {
	uint64_t start, end;
};

struct history {
	unsigned nr_sectors;
	struct write *writes;
	struct read *reads;
	struct cut *cuts;      /* by time */
	struct flush *flushes; /* by end */
	struct opened *opens;
	size_t nr_writes, cap_writes, nr_reads, cap_reads, nr_cuts, cap_cuts;
	size_t nr_flushes, cap_flushes, nr_opens, cap_opens;
	bool strict;
	char *why;
	size_t why_len;
};

/* All that touched one sector. */
struct sector {
	struct history *h;
	unsigned nr;			   /* which */
	const struct write *const *writes; /* not forgotten */
	size_t nr_writes;
	const struct read *const *reads; /* by start */
	size_t nr_reads;
};

bool sector_check(const struct sector *s);
/* Was the loss of @w at a cut at @time told by a flush, or is it excused? */
bool loss_told(const struct history *h, const struct write *w, uint64_t time);
void *check_alloc(size_t nr, size_t size);

#endif
