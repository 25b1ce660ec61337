/* sync_map.c - what was in sync when, by place on the ring and number of copies.  Pure.
 *
 * Copies differ between VDIs, so an arc is held at a rank: with rank r (0: first replica) the
 * objects of more than r copies are mine.  So "in sync" is kept for each arc and number of copies.
 *  M1 The arcs cover all hashes, in order; neighbours differ.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/sync_int.h"
#include "sheep/plant.h"

static int smap_reserve(struct sync_map *m, unsigned nr)
{
	unsigned cap = m->cap ? m->cap : 16;

	if (nr <= m->cap)
		return 0;
	while (cap < nr)
		cap *= 2;
	uint64_t *end = realloc(m->end, cap * sizeof(*end));
	if (!end)
		return -ENOMEM;
	m->end = end;
	struct sync_seg *seg = realloc(m->seg, cap * sizeof(*seg));
	if (!seg)
		return -ENOMEM;
	m->seg = seg;
	m->cap = cap;
	return 0;
}

static bool seg_eq(const struct sync_seg *a, const struct sync_seg *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

int smap_push(struct sync_map *m, uint64_t end, const struct sync_seg *seg)
{
	if (m->nr && seg_eq(&m->seg[m->nr - 1], seg)) {
		m->end[m->nr - 1] = end;
		return 0;
	}
	if (smap_reserve(m, m->nr + 1) < 0)
		return -ENOMEM;
	m->end[m->nr] = end;
	m->seg[m->nr++] = *seg;
	return 0;
}

int smap_init(struct sync_map *m)
{
	struct sync_seg none = {.rank = RANK_NONE};

	*m = (struct sync_map){0};
	return smap_push(m, UINT64_MAX, &none);
}

void smap_done(struct sync_map *m)
{
	free(m->end);
	free(m->seg);
	*m = (struct sync_map){0};
}

unsigned smap_find(const struct sync_map *m, uint64_t hash)
{
	unsigned lo = 0, hi = m->nr - 1;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		if (m->end[mid] < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Make @hash the end of an arc; room is reserved. */
static void smap_split(struct sync_map *m, uint64_t hash)
{
	unsigned i = smap_find(m, hash);

	if (m->end[i] == hash)
		return;
	assert(m->nr < m->cap);
	memmove(m->end + i + 1, m->end + i, (m->nr - i) * sizeof(*m->end));
	memmove(m->seg + i + 1, m->seg + i, (m->nr - i) * sizeof(*m->seg));
	m->end[i] = hash;
	m->nr++;
}

static void smap_merge(struct sync_map *m, unsigned first, unsigned last)
{
	unsigned to = first;

	for (unsigned i = first + 1; i < m->nr; i++) {
		if (i <= last && seg_eq(&m->seg[to], &m->seg[i])) {
			m->end[to] = m->end[i];
			continue;
		}
		to++;
		if (to == i && i > last)
			return;
		m->end[to] = m->end[i];
		m->seg[to] = m->seg[i];
	}
	m->nr = to + 1;
}

int smap_set(struct sync_map *m, const struct sync_box *b, uint32_t epoch)
{
	unsigned first, last;

	assert(b->from <= b->to && b->clo >= 1 && b->clo <= b->chi && b->chi <= SD_COPIES_MAX);
	if (smap_reserve(m, m->nr + 2) < 0)
		return -ENOMEM;
	if (b->from)
		smap_split(m, b->from - 1);
	smap_split(m, b->to);
	first = smap_find(m, b->from);
	last = smap_find(m, b->to);
	for (unsigned i = first; i <= last; i++)
		for (unsigned c = b->clo; c <= b->chi; c++)
			m->seg[i].s[c - 1] = epoch;
	smap_merge(m, first ? first - 1 : 0, last + 1 < m->nr ? last + 1 : last);
	return 0;
}

static uint32_t rank_at(const struct ring *ring, uint64_t hash, int self)
{
	uint32_t nodes[SD_COPIES_MAX];
	unsigned nr = ring ? ring_lookup(ring, hash, SD_COPIES_MAX, nodes) : 0;

	for (unsigned i = 0; i < nr; i++)
		if ((int)nodes[i] == self)
			return i;
	return RANK_NONE;
}

/* What was mine in @from_epoch and is in @epoch, and was in sync, stays in sync; everything else
 * keeps its older synced, so it is todo if it is mine (DESIGN 5.5; WHY B1e plan-replaced: "gained
 * in this view" is not the question).  @from_epoch 0: nothing continues.  @unused: bit c: no object
 * of c copies exists. */
static void seg_view(struct sync_seg *seg, uint32_t rank, uint32_t from_epoch, uint32_t epoch,
		     uint32_t unused)
{
	for (unsigned c = 1; c <= SD_COPIES_MAX; c++) {
		bool was = from_epoch && seg->rank < c &&
			   (seg->s[c - 1] == from_epoch || PLANTED(plan_replaced));

		if (rank < c && (was || (unused >> c & 1)))
			seg->s[c - 1] = epoch;
	}
	seg->rank = rank;
}

int smap_view(const struct sync_map *old, const struct ring *ring, int self, uint32_t from_epoch,
	      uint32_t epoch, uint32_t unused, struct sync_map *ret)
{
	unsigned i = 0, p = 0, points = ring ? ring->nr_points : 0;
	uint32_t rank = points ? rank_at(ring, ring->points[0].hash, self) : RANK_NONE;
	struct sync_map m = {0};

	while (i < old->nr) {
		uint64_t pend = p < points ? ring->points[p].hash : UINT64_MAX;
		uint64_t end = old->end[i] < pend ? old->end[i] : pend;
		struct sync_seg seg = old->seg[i];

		seg_view(&seg, rank, from_epoch, epoch, unused);
		if (smap_push(&m, end, &seg) < 0) {
			smap_done(&m);
			return -ENOMEM;
		}
		if (p < points && pend == end) {
			while (p < points && ring->points[p].hash == end)
				p++;
			/* behind the last point the ring begins again */
			rank = rank_at(ring, ring->points[p < points ? p : 0].hash, self);
		}
		if (old->end[i] == end)
			i++;
	}
	*ret = m;
	return 0;
}

void smap_cap(struct sync_map *m, uint32_t epoch)
{
	for (unsigned i = 0; i < m->nr; i++)
		for (unsigned c = 0; c < SD_COPIES_MAX; c++)
			if (m->seg[i].s[c] > epoch)
				m->seg[i].s[c] = epoch;
	smap_merge(m, 0, m->nr - 1);
}

uint32_t smap_max(const struct sync_map *m)
{
	uint32_t max = 0;

	for (unsigned i = 0; i < m->nr; i++)
		for (unsigned c = 0; c < SD_COPIES_MAX; c++)
			if (m->seg[i].s[c] > max)
				max = m->seg[i].s[c];
	return max;
}

static bool seg_todo(const struct sync_seg *seg, uint32_t epoch, unsigned copies)
{
	return seg->rank < copies && seg->s[copies - 1] != epoch;
}

/* The lowest number of copies down to which @seg is todo, from @copies on. */
static unsigned seg_todo_low(const struct sync_seg *seg, uint32_t epoch, unsigned copies)
{
	while (copies > 1 && seg_todo(seg, epoch, copies - 1))
		copies--;
	return copies;
}

bool smap_todo(const struct sync_map *m, uint32_t epoch, uint8_t copies, uint64_t cursor,
	       struct sync_box *ret)
{
	unsigned i = smap_find(m, cursor);

	while (i < m->nr && !seg_todo(&m->seg[i], epoch, copies))
		i++;
	if (i == m->nr)
		return false;
	uint64_t start = smap_start(m, i);
	unsigned low = seg_todo_low(&m->seg[i], epoch, copies);
	*ret = (struct sync_box){start > cursor ? start : cursor, m->end[i], 0, copies};
	while (++i < m->nr && seg_todo(&m->seg[i], epoch, copies)) {
		unsigned l = seg_todo_low(&m->seg[i], epoch, copies);
		low = l > low ? l : low;
		ret->to = m->end[i];
	}
	ret->clo = low;
	return true;
}

static bool seg_same(const struct sync_seg *seg, uint32_t epoch, unsigned c, uint32_t synced,
		     bool in_sync)
{
	return seg->s[c - 1] == synced && (seg->rank < c && synced == epoch) == in_sync;
}

uint32_t smap_uniform(const struct sync_map *m, uint32_t epoch, struct sync_box *b, bool *in_sync)
{
	unsigned i = smap_find(m, b->from), low = b->chi;
	uint32_t synced = m->seg[i].s[b->chi - 1];
	bool in = m->seg[i].rank < b->chi && synced == epoch;

	while (low > b->clo && seg_same(&m->seg[i], epoch, low - 1, synced, in))
		low--;
	for (; m->end[i] < b->to; i++) {
		unsigned c = low;
		while (c <= b->chi && seg_same(&m->seg[i + 1], epoch, c, synced, in))
			c++;
		if (c <= b->chi) {
			b->to = m->end[i];
			break;
		}
	}
	b->clo = low;
	*in_sync = in;
	return synced;
}

uint64_t ring_arc_end(const struct ring *r, uint64_t hash)
{
	unsigned lo = 0, hi = r->nr_points;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		if (r->points[mid].hash < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo == r->nr_points ? UINT64_MAX : r->points[lo].hash;
}
