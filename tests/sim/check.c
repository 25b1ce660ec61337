/* check.c - what a history holds, and the rules of flushes.  See check.h. */
#include "config.h"

#include "tests/sim/check_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *check_alloc(size_t nr, size_t size)
{
	void *p = calloc(nr + 1, size);

	assert(p);
	return p;
}

struct history *history_new(unsigned nr_sectors)
{
	struct history *h = check_alloc(1, sizeof(*h));

	h->nr_sectors = nr_sectors;
	return h;
}

void history_free(struct history *h)
{
	free(h->writes);
	free(h->reads);
	free(h->cuts);
	free(h->flushes);
	free(h->opens);
	free(h);
}

static void *grow(void *p, size_t *cap, size_t nr, size_t size)
{
	if (nr < *cap)
		return p;
	*cap = *cap ? 2 * *cap : 64;
	p = realloc(p, *cap * size);
	assert(p);
	return p;
}

/* ---- recording ---- */

size_t history_write(struct history *h, unsigned first, unsigned nr, uint64_t value, uint64_t start)
{
	assert(first <= h->nr_sectors && nr <= h->nr_sectors - first);
	h->writes = grow(h->writes, &h->cap_writes, h->nr_writes, sizeof(*h->writes));
	h->writes[h->nr_writes] = (struct write){
		.value = value, .start = start, .end = CHECK_NEVER, .first = first, .nr = nr};
	return h->nr_writes++;
}

void history_writer(struct history *h, size_t op, unsigned client, bool cached)
{
	h->writes[op].client = client;
	h->writes[op].cached = cached;
}

void history_written(struct history *h, size_t op, uint64_t end)
{
	h->writes[op].end = end;
}

void history_failed(struct history *h, size_t op, uint64_t end)
{
	h->writes[op].end = end;
	h->writes[op].failed = true;
}

void history_forget(struct history *h, size_t op)
{
	h->writes[op].forgotten = true;
}

void history_resent(struct history *h, size_t op)
{
	h->writes[op].resent = true;
}

void history_died(struct history *h, unsigned client)
{
	for (size_t i = 0; i < h->nr_writes; i++)
		if (h->writes[i].client == client && h->writes[i].end == CHECK_NEVER)
			h->writes[i].resent = true;
}

void history_read(struct history *h, unsigned sector, uint64_t value, uint64_t start, uint64_t end)
{
	assert(sector < h->nr_sectors);
	h->reads = grow(h->reads, &h->cap_reads, h->nr_reads, sizeof(*h->reads));
	h->reads[h->nr_reads++] = (struct read){value, start, end, sector};
}

void history_flush(struct history *h, uint64_t start, uint64_t end, bool ok)
{
	h->flushes = grow(h->flushes, &h->cap_flushes, h->nr_flushes, sizeof(*h->flushes));
	h->flushes[h->nr_flushes++] = (struct flush){start, end, ok};
}

void history_open(struct history *h, uint64_t start, uint64_t end)
{
	h->opens = grow(h->opens, &h->cap_opens, h->nr_opens, sizeof(*h->opens));
	h->opens[h->nr_opens++] = (struct opened){start, end};
}

void history_cut(struct history *h, unsigned first, unsigned nr, uint64_t time)
{
	assert(first <= h->nr_sectors && nr <= h->nr_sectors - first);
	h->cuts = grow(h->cuts, &h->cap_cuts, h->nr_cuts, sizeof(*h->cuts));
	h->cuts[h->nr_cuts++] = (struct cut){time, first, nr};
}

void history_strict(struct history *h)
{
	h->strict = true;
}

uint64_t history_nr_ops(const struct history *h)
{
	return h->nr_writes + h->nr_reads + h->nr_flushes;
}

/* ---- flushes ---- */

static int cmp_cut(const void *a, const void *b)
{
	const struct cut *x = a, *y = b;

	return x->time < y->time ? -1 : x->time > y->time;
}

static int cmp_flush_end(const void *a, const void *b)
{
	const struct flush *x = a, *y = b;

	return x->end < y->end ? -1 : x->end > y->end;
}

static int cmp_flush_start(const void *a, const void *b)
{
	const struct flush *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* When is each write durable?  With the first end of those flushes that began after its answer. */
static void set_durable(struct history *h)
{
	struct flush *f = check_alloc(h->nr_flushes, sizeof(*f));
	size_t nr = 0;

	for (size_t i = 0; i < h->nr_flushes; i++)
		if (h->flushes[i].ok)
			f[nr++] = h->flushes[i];
	qsort(f, nr, sizeof(*f), cmp_flush_start);
	for (size_t i = nr; i-- > 1;)
		if (f[i].end < f[i - 1].end)
			f[i - 1].end = f[i].end;
	for (size_t i = 0; i < h->nr_writes; i++) {
		struct write *w = &h->writes[i];
		w->durable = w->failed ? CHECK_NEVER : w->end;
		if (!w->cached || w->durable == CHECK_NEVER)
			continue;
		size_t lo = 0, hi = nr; /* the first that began at or after its end */
		while (lo < hi) {
			size_t mid = (lo + hi) / 2;
			if (f[mid].start >= w->end)
				hi = mid;
			else
				lo = mid + 1;
		}
		w->durable = lo < nr ? f[lo].end : CHECK_NEVER;
	}
	free(f);
}

static bool opened_between(const struct history *h, uint64_t from, uint64_t to)
{
	for (size_t i = 0; i < h->nr_opens; i++)
		if (h->opens[i].end > from && h->opens[i].start < to)
			return true;
	return false;
}

/* Did a flush, or an opening, tell of the loss of what was cached at @cut before @to? */
static bool told_between(const struct history *h, uint64_t cut, uint64_t to)
{
	for (size_t i = 0; i < h->nr_flushes; i++)
		if (!h->flushes[i].ok && h->flushes[i].end > cut && h->flushes[i].start < to)
			return true;
	return opened_between(h, cut, to);
}

/* A write that was in flight at a cut may have been done before it and answered after it: when its
 * loss was told, a flush after that does not vouch for it. */
static void forget_durable(struct history *h)
{
	for (size_t i = 0; i < h->nr_writes; i++) {
		struct write *w = &h->writes[i];
		for (size_t k = 0; w->cached && k < h->nr_cuts; k++) {
			uint64_t cut = h->cuts[k].time;
			if (cut > w->start && cut < w->end && w->durable != CHECK_NEVER &&
			    told_between(h, cut, w->durable))
				w->durable = CHECK_NEVER;
		}
	}
}

bool loss_told(const struct history *h, const struct write *w, uint64_t time)
{
	if (!h->strict)
		return true;
	for (size_t i = 0; i < h->nr_flushes; i++) {
		const struct flush *f = &h->flushes[i];
		if (f->end <= time || (f->ok && f->start < w->end))
			continue; /* says nothing about this write */
		return !f->ok || opened_between(h, time, f->end);
	}
	return true; /* nobody asked */
}

/* Was there something that a cut in (@from, @to) could take?  The daemons do not know how much of
 * what was cached a flush has covered: a volume counts as cached until it is closed clean, so EIO
 * may come although all was flushed.  It may not for one that was never written with the flag. */
static bool may_be_lost(const struct history *h, uint64_t from, uint64_t to)
{
	for (size_t i = 0; i < h->nr_cuts; i++) {
		const struct cut *c = &h->cuts[i];
		if (c->time <= from || c->time >= to)
			continue;
		for (size_t k = 0; k < h->nr_writes; k++) {
			const struct write *w = &h->writes[k];
			if (!w->forgotten && w->cached && w->start < c->time)
				return true;
		}
	}
	return false;
}

/* EIO only after a loss, and once for each. */
static bool flushes_fit(struct history *h)
{
	uint64_t from = 0;

	for (size_t i = 0; i < h->nr_flushes; i++) {
		const struct flush *f = &h->flushes[i];
		if (f->ok)
			continue;
		if (!may_be_lost(h, from, f->end)) {
			snprintf(h->why, h->why_len,
				 "a flush (%" PRIu64 " to %" PRIu64
				 ") answered EIO, and nothing can be lost",
				 f->start, f->end);
			return false;
		}
		from = f->start > from ? f->start : from;
	}
	return true;
}

/* ---- all sectors ---- */

static int cmp_read(const void *a, const void *b)
{
	const struct read *x = *(const struct read *const *)a, *y = *(const struct read *const *)b;

	return x->sector != y->sector ? (x->sector < y->sector ? -1 : 1)
	       : x->start != y->start ? (x->start < y->start ? -1 : 1)
				      : (x->end < y->end ? -1 : x->end > y->end);
}

/* The writes of each sector: those of s are list[at[s]] to list[at[s + 1]]. */
static const struct write **by_sector(struct history *h, size_t *at)
{
	const struct write **list;

	for (size_t i = 0; i < h->nr_writes; i++)
		for (unsigned k = 0; !h->writes[i].forgotten && k < h->writes[i].nr; k++)
			at[h->writes[i].first + k + 1]++;
	for (unsigned s = 0; s < h->nr_sectors; s++)
		at[s + 1] += at[s];
	list = check_alloc(at[h->nr_sectors], sizeof(*list));
	size_t *next = check_alloc(h->nr_sectors, sizeof(*next));
	memcpy(next, at, h->nr_sectors * sizeof(*next));
	for (size_t i = 0; i < h->nr_writes; i++)
		for (unsigned k = 0; !h->writes[i].forgotten && k < h->writes[i].nr; k++)
			list[next[h->writes[i].first + k]++] = &h->writes[i];
	free(next);
	return list;
}

bool history_check(struct history *h, char *why, size_t len)
{
	size_t *at = check_alloc(h->nr_sectors + 1, sizeof(*at)), from = 0;
	const struct read **reads = check_alloc(h->nr_reads, sizeof(*reads));
	const struct write **writes = by_sector(h, at);

	h->why = why;
	h->why_len = len;
	for (size_t i = 0; i < h->nr_reads; i++)
		reads[i] = &h->reads[i];
	qsort(reads, h->nr_reads, sizeof(*reads), cmp_read);
	if (h->nr_cuts)
		qsort(h->cuts, h->nr_cuts, sizeof(*h->cuts), cmp_cut);
	if (h->nr_flushes)
		qsort(h->flushes, h->nr_flushes, sizeof(*h->flushes), cmp_flush_end);
	set_durable(h);
	forget_durable(h);
	bool ok = flushes_fit(h);
	for (unsigned s = 0; ok && s < h->nr_sectors; s++) {
		size_t end = from;
		while (end < h->nr_reads && reads[end]->sector == s)
			end++;
		struct sector sec = {.h = h,
				     .nr = s,
				     .writes = writes + at[s],
				     .nr_writes = at[s + 1] - at[s],
				     .reads = reads + from,
				     .nr_reads = end - from};
		ok = end == from || sector_check(&sec);
		from = end;
	}
	free(at);
	free(reads);
	free(writes);
	return ok;
}
