/* layer.c - what the journal holds of an object and its file does not have yet; pools.
 *
 * No I/O, no yield.  A layer is a table of blocks on a base; an object has two, the current one on
 * top of the frozen one, and both lie on the object file.
 */
#include "config.h"

#include "sheep/store/store_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- pools ---- */

struct pooled {
	struct pooled *next;
};

static void *pool_take(struct pool *p, size_t size)
{
	struct pooled *x = p->free;
	if (!x)
		return malloc(size);
	p->free = x->next;
	p->nr--;
	return x;
}

static void pool_give(struct pool *p, void *v)
{
	struct pooled *x = v;
	if (p->nr >= POOL_KEEP_NR) {
		free(v);
		return;
	}
	x->next = p->free;
	p->free = x;
	p->nr++;
}

static void pool_free(struct pool *p)
{
	while (p->free) {
		struct pooled *x = p->free;
		p->free = x->next;
		free(x);
	}
	p->nr = 0;
}

int ents_reserve(struct store *st, uint32_t nr)
{
	while (st->ents.nr < nr) {
		struct pooled *x = malloc(sizeof(struct ent));
		if (!x)
			return -ENOMEM;
		x->next = st->ents.free;
		st->ents.free = x;
		st->ents.nr++;
	}
	return 0;
}

struct ent *ent_new(struct store *st)
{
	struct ent *e = pool_take(&st->ents, sizeof(*e));
	if (e)
		*e = (struct ent){0};
	return e;
}

void ent_free(struct store *st, struct ent *e)
{
	while (e) {
		struct ent *below = e->below;
		if (e->buf) {
			assert(st->mem >= BLK);
			st->mem -= BLK;
			buf_put(e->buf);
		}
		pool_give(&st->ents, e);
		e = below;
	}
}

struct rec *rec_new(struct store *st, uint32_t nr_crc)
{
	struct rec *r = pool_take(&st->recs, sizeof(*r));
	if (!r)
		return NULL;
	memset(r, 0, offsetof(struct rec, crc_in));
	r->crc = r->crc_in;
	if (nr_crc > sizeof(r->crc_in) / sizeof(r->crc_in[0])) {
		r->crc = malloc((size_t)nr_crc * sizeof(*r->crc));
		if (!r->crc) {
			pool_give(&st->recs, r);
			return NULL;
		}
	}
	return r;
}

void rec_free(struct store *st, struct rec *r)
{
	for (unsigned i = 0; i < 2; i++)
		buf_put(r->seg[i].buf);
	if (r->crc != r->crc_in)
		free(r->crc);
	pool_give(&st->recs, r);
}

void pools_free(struct store *st)
{
	pool_free(&st->ents);
	pool_free(&st->recs);
}

/* ---- one layer ---- */

void layer_init(struct layer *l)
{
	*l = (struct layer){0};
}

void layer_clear(struct store *st, struct layer *l)
{
	for (uint32_t c = 0; c < l->nr_ovl; c++) {
		struct ovl *v = l->ovl[c];
		for (uint32_t i = 0; v && v->nr && i < CHUNK_BLKS; i++)
			if (v->e[i]) {
				ent_free(st, v->e[i]);
				v->nr--;
				l->nr--;
			}
		free(v);
	}
	assert(l->nr == 0);
	free(l->ovl);
	l->ovl = NULL;
	l->nr_ovl = 0;
}

int layer_shape(struct layer *l, uint64_t size)
{
	uint32_t n = size_chunks(size);
	if (l->ovl && l->nr_ovl == n) {
		l->size = size;
		return 0;
	}
	assert(l->nr == 0);
	struct ovl **v = calloc(n, sizeof(struct ovl *));
	if (!v)
		return -ENOMEM;
	for (uint32_t c = 0; c < l->nr_ovl; c++)
		free(l->ovl[c]);
	free(l->ovl);
	l->ovl = v;
	l->nr_ovl = n;
	l->size = size;
	return 0;
}

int layer_room(struct layer *l, uint32_t blk, uint32_t nr)
{
	assert(nr && (blk + nr - 1) / CHUNK_BLKS < l->nr_ovl);
	for (uint32_t c = blk / CHUNK_BLKS; c <= (blk + nr - 1) / CHUNK_BLKS; c++)
		if (!l->ovl[c] && !(l->ovl[c] = calloc(1, sizeof(struct ovl))))
			return -ENOMEM;
	return 0;
}

void layer_put(struct store *st, struct layer *l, uint32_t blk, struct ent *e)
{
	struct ovl *v = l->ovl[blk / CHUNK_BLKS];
	struct ent **slot = &v->e[blk % CHUNK_BLKS];
	if (*slot) {
		assert((*slot)->ticket <= e->ticket);
		ent_free(st, *slot);
	} else {
		v->nr++;
		l->nr++;
	}
	*slot = e;
}

void layer_stack(struct store *st, struct layer *l, uint32_t blk, struct ent *e)
{
	struct ent **slot = &l->ovl[blk / CHUNK_BLKS]->e[blk % CHUNK_BLKS];

	e->below = *slot;
	if (*slot) {
		assert((*slot)->ticket <= e->ticket);
		*slot = e;
	} else {
		layer_put(st, l, blk, e);
	}
}

struct ent *layer_get(const struct layer *l, uint32_t blk)
{
	uint32_t c = blk / CHUNK_BLKS;
	if (!l->nr || c >= l->nr_ovl || !l->ovl[c])
		return NULL;
	return l->ovl[c]->e[blk % CHUNK_BLKS];
}

void layer_del(struct store *st, struct layer *l, uint32_t blk)
{
	struct ovl *v = l->ovl[blk / CHUNK_BLKS];
	assert(v->e[blk % CHUNK_BLKS]);
	ent_free(st, v->e[blk % CHUNK_BLKS]);
	v->e[blk % CHUNK_BLKS] = NULL;
	v->nr--;
	l->nr--;
}

struct ent *layer_next(const struct layer *l, uint32_t *blk)
{
	for (uint32_t c = *blk / CHUNK_BLKS, i = *blk % CHUNK_BLKS; c < l->nr_ovl; c++, i = 0) {
		struct ovl *v = l->ovl[c];
		for (; v && v->nr && i < CHUNK_BLKS; i++)
			if (v->e[i]) {
				*blk = c * CHUNK_BLKS + i;
				return v->e[i];
			}
	}
	return NULL;
}

enum found layers_find(const struct live *lv, uint32_t blk, struct ent **ret)
{
	assert(lv->cur.base != BASE_ABSENT && lv->cur.base != BASE_VOID);
	if ((*ret = layer_get(&lv->cur, blk)))
		return FOUND_ENT;
	if (lv->cur.base == BASE_ZERO)
		return FOUND_ZERO;
	if (lv->frz.base == BASE_VOID)
		return FOUND_FILE;
	if ((*ret = layer_get(&lv->frz, blk)))
		return FOUND_ENT;
	return lv->frz.base == BASE_THROUGH ? FOUND_FILE : FOUND_ZERO;
}
