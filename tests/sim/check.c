/* check.c - see check.h. */
#include "config.h"

#include "tests/sim/check.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct write {
	uint64_t value, start, end;
	unsigned first, nr;
	bool forgotten;
};

struct read {
	uint64_t value, start, end;
	unsigned sector;
};

struct history {
	unsigned nr_sectors;
	struct write *writes;
	struct read *reads;
	size_t nr_writes, cap_writes, nr_reads, cap_reads;
};

struct history *history_new(unsigned nr_sectors)
{
	struct history *h = calloc(1, sizeof(*h));

	assert(h);
	h->nr_sectors = nr_sectors;
	return h;
}

void history_free(struct history *h)
{
	free(h->writes);
	free(h->reads);
	free(h);
}

static void *grow(void *p, size_t *cap, size_t nr, size_t size)
{
	if (nr < *cap)
		return p;
	*cap = *cap ? 2 * *cap : 1024;
	p = realloc(p, *cap * size);
	assert(p);
	return p;
}

size_t history_write(struct history *h, unsigned first, unsigned nr, uint64_t value, uint64_t start)
{
	assert(first + nr <= h->nr_sectors);
	h->writes = grow(h->writes, &h->cap_writes, h->nr_writes, sizeof(*h->writes));
	h->writes[h->nr_writes] = (struct write){
		.value = value, .start = start, .end = CHECK_NEVER, .first = first, .nr = nr};
	return h->nr_writes++;
}

void history_written(struct history *h, size_t op, uint64_t end)
{
	h->writes[op].end = end;
}

void history_forget(struct history *h, size_t op)
{
	h->writes[op].forgotten = true;
}

void history_read(struct history *h, unsigned sector, uint64_t value, uint64_t start, uint64_t end)
{
	assert(sector < h->nr_sectors);
	h->reads = grow(h->reads, &h->cap_reads, h->nr_reads, sizeof(*h->reads));
	h->reads[h->nr_reads++] = (struct read){value, start, end, sector};
}

uint64_t history_nr_ops(const struct history *h)
{
	return h->nr_writes + h->nr_reads;
}

/* ---- one sector ---- */

struct zone { /* all operations of one value */
	uint64_t value, min_end, max_start, write_start, write_end;
	bool written;
};

static int cmp_value(const void *a, const void *b)
{
	const struct zone *x = a, *y = b;

	return x->value < y->value ? -1 : x->value > y->value;
}

static int cmp_low(const void *a, const void *b)
{
	const struct zone *x = a, *y = b;

	return x->min_end < y->min_end ? -1 : x->min_end > y->min_end;
}

static struct zone *zone_of(struct zone *z, size_t nr, uint64_t value)
{
	struct zone key = {.value = value};

	return bsearch(&key, z, nr, sizeof(*z), cmp_value);
}

/* Zeros: some write of zeros must have been visible: begun before the read ended, and no other
 * write lies wholly between it and the read. */
static bool zeros_may(struct history *h, const struct read *r)
{
	uint64_t newest = 0; /* the latest begin of a write that ended before the read began */

	for (size_t i = 0; i < h->nr_writes; i++) {
		const struct write *w = &h->writes[i];
		if (!w->forgotten && w->value && r->sector - w->first < w->nr &&
		    w->end < r->start && w->start > newest)
			newest = w->start;
	}
	if (!newest)
		return true; /* as it was created */
	for (size_t i = 0; i < h->nr_writes; i++) {
		const struct write *w = &h->writes[i];
		if (!w->forgotten && !w->value && r->sector - w->first < w->nr &&
		    w->start <= r->end && w->end >= newest)
			return true;
	}
	return false;
}

static bool fail(char *why, size_t len, unsigned sector, const char *what, const struct zone *a,
		 const struct zone *b)
{
	int n = snprintf(why, len,
			 "sector %u: %s: value %" PRIx64 " (first end %" PRIu64
			 ", last begin %" PRIu64 ", written %" PRIu64 " to %" PRIu64 ")",
			 sector, what, a->value, a->min_end, a->max_start, a->write_start,
			 a->write_end);
	if (b && n > 0 && (size_t)n < len)
		snprintf(why + n, len - (size_t)n,
			 " and value %" PRIx64 " (first end %" PRIu64 ", last begin %" PRIu64
			 ", written %" PRIu64 " to %" PRIu64 ")",
			 b->value, b->min_end, b->max_start, b->write_start, b->write_end);
	return false;
}

static size_t collect(struct history *h, unsigned sector, struct zone *z)
{
	size_t nr = 0;

	for (size_t i = 0; i < h->nr_writes; i++) {
		const struct write *w = &h->writes[i];
		if (w->forgotten || !w->value || sector - w->first >= w->nr)
			continue;
		z[nr++] = (struct zone){.value = w->value,
					.min_end = w->end,
					.max_start = w->start,
					.write_start = w->start,
					.write_end = w->end,
					.written = true};
	}
	qsort(z, nr, sizeof(*z), cmp_value);
	return nr;
}

static bool add_reads(struct history *h, unsigned sector, const struct read **reads,
		      size_t nr_reads, struct zone *z, size_t nr, char *why, size_t len)
{
	for (size_t i = 0; i < nr_reads; i++) {
		const struct read *r = reads[i];
		struct zone seen = {.value = r->value, .min_end = r->end, .max_start = r->start},
			    *to;
		if (!r->value) {
			if (!zeros_may(h, r))
				return fail(why, len, sector, "a read of zeros after a write",
					    &seen, NULL);
			continue;
		}
		to = zone_of(z, nr, r->value);
		if (!to)
			return fail(why, len, sector, "a value that nobody wrote", &seen, NULL);
		if (r->end < to->write_start)
			return fail(why, len, sector, "read before it was written", &seen, to);
		if (r->end < to->min_end)
			to->min_end = r->end;
		if (r->start > to->max_start)
			to->max_start = r->start;
	}
	return true;
}

/* Sorted by min_end.  Forward zones run from min_end to max_start, backward ones the other way
 * round. */
static bool zones_fit(struct zone *z, size_t nr, unsigned sector, char *why, size_t len)
{
	const struct zone *last = NULL; /* the forward zone that reaches furthest */

	qsort(z, nr, sizeof(*z), cmp_low);
	for (size_t i = 0; i < nr; i++) {
		if (z[i].min_end >= z[i].max_start || z[i].min_end == CHECK_NEVER)
			continue;
		if (last && z[i].min_end < last->max_start)
			return fail(why, len, sector, "two values alternate", last, &z[i]);
		if (!last || z[i].max_start > last->max_start)
			last = &z[i];
	}
	for (size_t i = 0; i < nr; i++) { /* backward within forward */
		if (z[i].min_end < z[i].max_start)
			continue;
		for (size_t k = 0; k < nr; k++)
			if (z[k].min_end < z[k].max_start && z[k].min_end < z[i].max_start &&
			    z[i].min_end < z[k].max_start)
				return fail(why, len, sector,
					    "a write within the life of another value", &z[k],
					    &z[i]);
	}
	return true;
}

static int cmp_read(const void *a, const void *b)
{
	const struct read *x = *(const struct read *const *)a, *y = *(const struct read *const *)b;

	return x->sector != y->sector ? (x->sector < y->sector ? -1 : 1)
	       : x->start < y->start  ? -1
				      : x->start > y->start;
}

bool history_check(struct history *h, char *why, size_t len)
{
	const struct read **reads = malloc((h->nr_reads + 1) * sizeof(*reads));
	struct zone *z = malloc((h->nr_writes + 1) * sizeof(*z));
	bool ok = true;
	size_t at = 0;

	assert(reads && z);
	for (size_t i = 0; i < h->nr_reads; i++)
		reads[i] = &h->reads[i];
	qsort(reads, h->nr_reads, sizeof(*reads), cmp_read);
	for (unsigned s = 0; ok && s < h->nr_sectors; s++) {
		size_t end = at;
		while (end < h->nr_reads && reads[end]->sector == s)
			end++;
		if (end == at)
			continue;
		size_t nr = collect(h, s, z);
		ok = add_reads(h, s, reads + at, end - at, z, nr, why, len) &&
		     zones_fit(z, nr, s, why, len);
		at = end;
	}
	free(reads);
	free(z);
	return ok;
}
