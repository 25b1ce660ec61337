/* check_sector.c - one sector as a register that cuts may set back.  See check.h. */
#include "config.h"

#include "tests/sim/check_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct zone {		       /* all operations of one value in one life */
	const struct write *w; /* its write, perhaps of an earlier life; NULL: zeros there were */
	uint64_t value;
	uint64_t min_end, max_start;
};

/* From one cut to the next. */
struct life {
	uint64_t lo, hi;
	struct zone *z; /* by value; the survivor, if it is not zero, behind them */
	size_t nr, nr_zeros;
	struct zone *zeros; /* writes of zeros */
	bool survivor_known;
	uint64_t survivor;
};

struct lives {
	const struct sector *s;
	struct life *life;
	size_t nr;
};

static bool fail(const struct sector *s, const char *what, const struct zone *a,
		 const struct zone *b)
{
	char *why = s->h->why;
	size_t len = s->h->why_len;
	const struct zone *zone[] = {a, b};
	int n = snprintf(why, len, "sector %u: %s", s->nr, what);

	for (unsigned i = 0; i < 2; i++) {
		if (!zone[i] || n < 0 || (size_t)n >= len)
			continue;
		const struct zone *z = zone[i];
		n += snprintf(why + n, len - (size_t)n,
			      "%s value %" PRIx64 " (first end %" PRIu64 ", last begin %" PRIu64,
			      i ? " and" : ":", z->value, z->min_end, z->max_start);
		if ((size_t)n < len && z->w)
			n += snprintf(why + n, len - (size_t)n,
				      "; written %" PRIu64 " to %" PRIu64 " by client %u%s%s",
				      z->w->start, z->w->end, z->w->client,
				      z->w->cached ? ", cached" : "",
				      z->w->resent ? ", resent" : "");
		if ((size_t)n < len)
			n += snprintf(why + n, len - (size_t)n, ")");
	}
	return false;
}

/* ---- zones ---- */

static int cmp_value(const void *a, const void *b)
{
	const struct zone *x = a, *y = b;

	return x->value < y->value ? -1 : x->value > y->value;
}

static int cmp_end(const void *a, const void *b)
{
	const struct zone *x = a, *y = b;

	return x->min_end < y->min_end ? -1 : x->min_end > y->min_end;
}

static int cmp_start(const void *a, const void *b)
{
	const struct zone *x = a, *y = b;

	return x->max_start < y->max_start ? -1 : x->max_start > y->max_start;
}

/* The writes of one life.  One that was in flight at a cut may have been done on either side. */
static void collect(const struct sector *s, struct life *l)
{
	for (size_t i = 0; i < s->nr_writes; i++) {
		const struct write *w = s->writes[i];
		if (w->start >= l->hi || w->end <= l->lo)
			continue;
		struct zone z = {.w = w, .value = w->value};
		z.max_start = w->start > l->lo ? w->start : l->lo;
		z.min_end = w->end > l->hi || w->failed ? CHECK_NEVER : w->end;
		if (w->value)
			l->z[l->nr++] = z;
		else
			l->zeros[l->nr_zeros++] = z;
	}
	qsort(l->z, l->nr, sizeof(*l->z), cmp_value);
}

static struct zone *zone_of(struct life *l, uint64_t value)
{
	struct zone key = {.value = value}, *z;

	z = bsearch(&key, l->z, l->nr, sizeof(*z), cmp_value);
	if (!z && l->survivor_known && l->survivor && l->survivor == value)
		z = &l->z[l->nr];
	return z;
}

static size_t nr_zones(const struct life *l)
{
	return l->nr + (l->survivor_known && l->survivor != 0);
}

static const struct write *write_of(const struct sector *s, uint64_t value)
{
	for (size_t i = 0; i < s->nr_writes; i++)
		if (s->writes[i]->value == value)
			return s->writes[i];
	return NULL;
}

static void set_survivor(struct life *l, uint64_t value, const struct write *w)
{
	l->survivor_known = true;
	l->survivor = value;
	l->z[l->nr] = (struct zone){.w = w, .value = value, .min_end = l->lo, .max_start = l->lo};
}

/* A value that nothing in this life wrote: it was there when it began. */
static bool survived(const struct sector *s, struct life *l, const struct read *r)
{
	struct zone seen = {.value = r->value, .min_end = r->end, .max_start = r->start};
	const struct write *w = write_of(s, r->value);

	if (!w)
		return fail(s, "a value that nobody wrote", &seen, NULL);
	seen.w = w;
	if (r->end < w->start || w->start >= l->hi)
		return fail(s, "read before it was written", &seen, NULL);
	if (l->survivor_known)
		return fail(s, "two values survive a cut", &seen, &l->z[l->nr]);
	set_survivor(l, r->value, w);
	return true;
}

static bool of_life(const struct life *l, const struct read *r)
{
	return r->start >= l->lo && r->end <= l->hi;
}

/* Reads of something else than zeros. */
static bool add_reads(const struct sector *s, struct life *l)
{
	for (size_t i = 0; i < s->nr_reads; i++) {
		const struct read *r = s->reads[i];
		if (!r->value || !of_life(l, r))
			continue;
		struct zone *z = zone_of(l, r->value);
		if (!z) {
			if (!survived(s, l, r))
				return false;
			z = &l->z[l->nr];
		}
		if (r->end < z->w->start) {
			struct zone seen = {.value = r->value,
					    .min_end = r->end,
					    .max_start = r->start};
			return fail(s, "read before it was written", &seen, z);
		}
		uint64_t end = z->w->failed && z->w->end < r->end ? z->w->end : r->end;
		if (end < z->min_end)
			z->min_end = end;
		if (r->start > z->max_start)
			z->max_start = r->start;
	}
	return true;
}

/* ---- one life ---- */

/* DESIGN I1, the exception: in flight together and resent after a fault. */
static bool may_alternate(const struct zone *a, const struct zone *b)
{
	return a->w && b->w && (a->w->resent || b->w->resent) && a->w->start < b->w->end &&
	       b->w->start < a->w->end;
}

/* The last of @z[0..k) that begins after @end and may not have been done again, in part, by one of
 * the first @nr_zeros writes of zeros. */
static const struct zone *zeros_gone(const struct life *l, size_t nr_zeros, uint64_t end,
				     const struct zone *z, size_t k)
{
	const struct zone *last = NULL;

	for (size_t i = 0; i < k; i++) {
		bool may = z[i].max_start <= end || (last && z[i].max_start <= last->max_start);
		for (size_t j = 0; !may && j < nr_zeros; j++)
			may = may_alternate(&z[i], &l->zeros[j]);
		if (!may)
			last = &z[i];
	}
	return last;
}

/* A read of zeros fits if some write of zeros that began before its end need not be overwritten
 * before its begin.  @z by min_end. */
static bool zero_reads_fit(const struct sector *s, struct life *l, const struct zone *z, size_t nr)
{
	uint64_t *newest = check_alloc(nr, sizeof(*newest));	/* last begin of the first i of z */
	uint64_t *end = check_alloc(l->nr_zeros, sizeof(*end)); /* last end of the first i zeros */
	bool ok = true;

	for (size_t i = 0; i < nr; i++)
		newest[i + 1] = z[i].max_start > newest[i] ? z[i].max_start : newest[i];
	qsort(l->zeros, l->nr_zeros, sizeof(*l->zeros), cmp_start);
	for (size_t i = 0; i < l->nr_zeros; i++)
		end[i + 1] = l->zeros[i].min_end > end[i] ? l->zeros[i].min_end : end[i];
	for (size_t i = 0, k = 0; ok && i < s->nr_reads; i++) {
		const struct read *r = s->reads[i];
		if (r->value || !of_life(l, r))
			continue;
		while (k < nr && z[k].min_end < r->start)
			k++;			 /* reads come by their start */
		size_t zi = 0, hi = l->nr_zeros; /* those that began by its end */
		while (zi < hi) {
			size_t mid = (zi + hi) / 2;
			if (l->zeros[mid].max_start > r->end)
				hi = mid;
			else
				zi = mid + 1;
		}
		if (zi && end[zi] >= newest[k])
			continue;
		struct zone seen = {.min_end = r->end, .max_start = r->start};
		const struct zone *last = zeros_gone(l, zi, zi ? end[zi] : 0, z, k);
		if (zi && !last)
			continue;
		if (newest[k] > l->lo)
			ok = fail(s, "a read of zeros after a write", &seen, last);
		else if (l->survivor_known && l->survivor)
			ok = fail(s, "two values survive a cut", &seen, &l->z[l->nr]);
		else if (!l->survivor_known)
			set_survivor(l, 0, NULL);
		if (ok && r->start > l->z[l->nr].max_start)
			l->z[l->nr].max_start = r->start;
	}
	free(newest);
	free(end);
	return ok;
}

/* Must each of two come before the other?  @z by min_end: the forward ones (first end before last
 * begin) against each other and against the backward ones. */
static bool zones_fit(const struct sector *s, const struct zone *z, size_t nr)
{
	struct zone *back = check_alloc(nr, sizeof(*back));
	size_t nr_back = 0;
	bool ok = true;

	for (size_t i = 0; i < nr; i++)
		if (z[i].min_end >= z[i].max_start)
			back[nr_back++] = z[i];
	qsort(back, nr_back, sizeof(*back), cmp_start);
	for (size_t i = 0; ok && i < nr; i++) {
		const struct zone *a = &z[i];
		if (a->min_end >= a->max_start)
			continue;
		for (size_t k = i + 1; ok && k < nr && z[k].min_end < a->max_start; k++)
			if (z[k].min_end < z[k].max_start && !may_alternate(a, &z[k]))
				ok = fail(s, "two values alternate", a, &z[k]);
		size_t lo = 0, hi = nr_back; /* the first that begins within @a */
		while (lo < hi) {
			size_t mid = (lo + hi) / 2;
			if (back[mid].max_start > a->min_end)
				hi = mid;
			else
				lo = mid + 1;
		}
		for (; ok && lo < nr_back && back[lo].max_start < a->max_start; lo++)
			if (back[lo].min_end < a->max_start && !may_alternate(a, &back[lo]))
				ok = fail(s, "a write within the life of another value", a,
					  &back[lo]);
	}
	free(back);
	return ok;
}

static bool life_check(const struct sector *s, struct life *l)
{
	collect(s, l);
	if (!l->lo) /* as it was created */
		l->zeros[l->nr_zeros++] = (struct zone){.min_end = 0};
	if (!add_reads(s, l))
		return false;
	size_t nr = nr_zones(l);
	struct zone *z = check_alloc(nr + l->nr_zeros, sizeof(*z));

	for (size_t i = 0; i < nr; i++)
		z[i] = l->z[i];
	qsort(z, nr, sizeof(*z), cmp_end);
	bool ok = zero_reads_fit(s, l, z, nr);
	for (size_t i = 0; i < l->nr_zeros; i++)
		z[nr + i] = l->zeros[i];
	qsort(z, nr + l->nr_zeros, sizeof(*z), cmp_end);
	ok = ok && zones_fit(s, z, nr + l->nr_zeros);
	free(z);
	return ok;
}

/* ---- cuts ---- */

/* The life @l ends with a value whose operations ended first at @min_end: nothing durable may come
 * after it, and what was answered is lost only if a flush told. */
static bool nothing_lost(const struct sector *s, const struct life *l, const struct zone *v,
			 uint64_t min_end)
{
	for (size_t i = 0; i < nr_zones(l) + l->nr_zeros; i++) {
		const struct zone *x = i < nr_zones(l) ? &l->z[i] : &l->zeros[i - nr_zones(l)];
		if (min_end >= x->max_start || x->value == v->value)
			continue;
		/* the survivor of the cut before is durable, too */
		bool stays = i == l->nr && i < nr_zones(l);
		if (stays || (x->w && x->w->durable <= l->hi))
			return fail(s, "a durable write is lost in a cut", v, x);
		if (x->w && x->w->end <= l->hi && !x->w->failed && !loss_told(s->h, x->w, l->hi))
			return fail(s, "a loss that the next flush does not tell of", v, x);
	}
	return true;
}

/* A write that was in flight when @to began was done before or after that: once it is durable it is
 * there, unless what survived may come after it.  @min_end: of the survivor, in the life it comes
 * from. */
static bool in_flight_kept(const struct sector *s, const struct life *to, uint64_t min_end)
{
	const struct zone *v = &to->z[to->nr];

	for (size_t i = 0; i < to->nr; i++) {
		const struct write *w = to->z[i].w;
		if (w->start < to->lo && w->value != v->value && min_end < w->start &&
		    w->durable < v->max_start)
			return fail(s, "a durable write is lost in a cut", v, &to->z[i]);
	}
	return true;
}

/* When did the last zeros of @l come at the latest?  False: there were none. */
static bool zeros_end(const struct life *l, uint64_t *end)
{
	*end = l->lo;
	for (size_t i = 0; i < l->nr_zeros; i++)
		if (l->zeros[i].min_end > *end)
			*end = l->zeros[i].min_end;
	return l->nr_zeros || (l->survivor_known && !l->survivor);
}

/* Life @i began with a value: where does it come from? */
static bool survivor_fits(struct lives *ls, size_t i)
{
	const struct sector *s = ls->s;
	struct life *to = &ls->life[i];
	struct zone v = to->z[to->nr];

	while (i-- > 0) {
		struct life *l = &ls->life[i];
		struct zone *z = v.value ? zone_of(l, v.value) : NULL;
		uint64_t end;
		if (z)
			end = z->min_end;
		if (z || (!v.value && zeros_end(l, &end)))
			return nothing_lost(s, l, &v, end) && in_flight_kept(s, to, end);
		if (l->survivor_known || !i) /* not this one */
			return fail(s, "what a cut took comes back", &v,
				    l->survivor_known && l->survivor ? &l->z[l->nr] : NULL);
		set_survivor(l, v.value, v.w);
		if (!nothing_lost(s, l, &v, l->lo))
			return false;
	}
	return true;
}

/* Reads in flight at a cut. */
static bool spanning_reads_fit(const struct sector *s, const struct lives *ls)
{
	for (size_t i = 0; i < s->nr_reads; i++) {
		const struct read *r = s->reads[i];
		bool within = !r->value;
		for (size_t k = 0; !within && k < ls->nr; k++)
			within = of_life(&ls->life[k], r);
		if (within)
			continue;
		struct zone seen = {.value = r->value, .min_end = r->end, .max_start = r->start};
		seen.w = write_of(s, r->value);
		if (!seen.w)
			return fail(s, "a value that nobody wrote", &seen, NULL);
		if (r->end < seen.w->start)
			return fail(s, "read before it was written", &seen, NULL);
	}
	return true;
}

bool sector_check(const struct sector *s)
{
	struct lives ls = {.s = s, .nr = 1};
	bool ok = true;
	uint64_t lo = 0;

	for (size_t i = 0; i < s->h->nr_cuts; i++)
		ls.nr += s->nr - s->h->cuts[i].first < s->h->cuts[i].nr;
	ls.life = check_alloc(ls.nr, sizeof(*ls.life));
	for (size_t i = 0, k = 0; i <= s->h->nr_cuts; i++) {
		bool last = i == s->h->nr_cuts;
		const struct cut *c = last ? NULL : &s->h->cuts[i];
		if (!last && s->nr - c->first >= c->nr)
			continue;
		struct life *l = &ls.life[k++];
		*l = (struct life){.lo = lo, .hi = last ? CHECK_NEVER : c->time};
		l->z = check_alloc(s->nr_writes + 1, sizeof(*l->z));
		l->zeros = check_alloc(s->nr_writes + 1, sizeof(*l->zeros));
		lo = l->hi;
	}
	for (size_t i = 0; ok && i < ls.nr; i++) {
		ok = life_check(s, &ls.life[i]);
		if (ok && i && ls.life[i].survivor_known)
			ok = survivor_fits(&ls, i);
	}
	ok = ok && spanning_reads_fit(s, &ls);
	for (size_t i = 0; i < ls.nr; i++) {
		free(ls.life[i].z);
		free(ls.life[i].zeros);
	}
	free(ls.life);
	return ok;
}
