/* replay.c - at start: reads the journal into the objects' layers.  replay_obj.c applies them.
 *
 * Groups are read in order from where the superblock says, until one is missing or incomplete:
 * it and what is behind it were never said to be durable.  (If a later group shows that they were,
 * the journal is damaged, and the start is refused.)
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc.h"

enum { WINDOW_PAGES = 256 };

struct jscan {
	struct store *st;
	struct buf *win;
	uint64_t pos, nr; /* pages of the area in the window */
	uint64_t gseq;	  /* the next group's */
};

/* Pages [pos, pos + n) of the area; NULL and *r on an error. */
static co_fn const uint8_t *pages(struct jscan *s, uint64_t pos, uint64_t n, int *r)
{
	struct store *st = s->st;
	uint64_t want = n > WINDOW_PAGES ? n : WINDOW_PAGES;

	assert(n && pos + n <= st->jr.area);
	*r = 0;
	if (s->win && pos >= s->pos && pos + n <= s->pos + s->nr)
		return (uint8_t *)s->win->data + (pos - s->pos) * BLK;
	if (want > st->jr.area - pos)
		want = st->jr.area - pos;
	s->nr = 0;
	if (!s->win || s->win->cap < want * BLK) {
		buf_put(s->win);
		s->win = buf_new(st->pool, want * BLK);
		if (!s->win) {
			*r = -ENOMEM;
			return NULL;
		}
	}
	*r = st_rw(st, ENV_IO_READ, st->jr.file, s->win->data, want * BLK,
		   (JOURNAL_SUPERS + pos) * BLK, ENV_IO_DIRECT); /* ~ */
	if (*r < 0)
		return NULL;
	s->pos = pos;
	s->nr = want;
	return s->win->data;
}

static bool header_ok(const struct jscan *s, const struct journal_group *h, uint64_t pos)
{
	return h->magic == GROUP_MAGIC && h->inc == s->st->jr.inc && h->hdr_len >= sizeof(*h) &&
	       h->pages && h->pages <= s->st->jr.area - pos && h->nr_rec &&
	       h->hdr_len <= (uint64_t)h->pages * BLK;
}

static bool sum_ok(const uint8_t *p)
{
	struct journal_group h;

	memcpy(&h, p, sizeof(h));
	uint32_t sum = h.sum, len = h.hdr_len;
	h.sum = 0;
	uint32_t crc = crc32c(&h, sizeof(h));
	return crc32c_more(crc, p + sizeof(h), len - sizeof(h)) == sum;
}

static uint32_t crcs_of(const struct journal_rec *d)
{
	return d->kind == REC_WRITE || d->kind == REC_INTENT ? d->nr : 0;
}

static uint32_t payload_of(const struct journal_rec *d)
{
	if (d->kind == REC_WRITE)
		return d->nr;
	return d->kind == REC_INTENT ? !!(d->flags & F_HEAD) + !!(d->flags & F_TAIL) : 0;
}

static bool rec_ok(const struct journal_rec *d)
{
	if (d->kind < REC_WRITE || d->kind > REC_DONE || d->nr_payload != payload_of(d))
		return false;
	if (!crcs_of(d))
		return true;
	return d->size && d->size <= OBJ_SIZE_MAX && d->blk < size_blks(d->size) &&
	       d->nr <= size_blks(d->size) - d->blk &&
	       (d->kind != REC_INTENT || d->nr > payload_of(d));
}

/* Checksum that journalled block @i of the record must have. */
static uint32_t payload_crc(const struct journal_rec *d, const uint32_t *crc, uint32_t i)
{
	if (d->kind == REC_INTENT && !(i == 0 && (d->flags & F_HEAD)))
		i = d->nr - 1;
	return crc[i];
}

/* Call @fn for each record of a group; its journalled blocks begin at byte @at of the group. */
static bool group_walk(struct jscan *s, const uint8_t *p,
		       bool (*fn)(struct jscan *s, const struct journal_rec *d, const uint32_t *crc,
				  const uint8_t *p, uint64_t at))
{
	const struct journal_group *h = (const void *)p;
	uint64_t off = sizeof(*h), at = ((uint64_t)h->hdr_len + BLK - 1) / BLK * BLK;

	for (uint32_t i = 0; i < h->nr_rec; i++) {
		const struct journal_rec *d = (const void *)(p + off);
		if (off + sizeof(*d) > h->hdr_len || !rec_ok(d)) /* bounds first */
			return false;
		off += sizeof(*d) + desc_crc_len(crcs_of(d));
		if (off > h->hdr_len ||
		    at + (uint64_t)d->nr_payload * BLK > (uint64_t)h->pages * BLK)
			return false;
		if (!fn(s, d, (const void *)(d + 1), p, at))
			return false;
		at += (uint64_t)d->nr_payload * BLK;
	}
	return true;
}

static bool payload_whole(struct jscan *s, const struct journal_rec *d, const uint32_t *crc,
			  const uint8_t *p, uint64_t at)
{
	for (uint32_t i = 0; i < d->nr_payload; i++)
		if (crc32c(p + at + (uint64_t)i * BLK, BLK) != payload_crc(d, crc, i))
			return false;
	return true;
}

/* 1: a whole group that is next in order lies at @pos, at *ret; 0: none. */
static co_fn int group_at(struct jscan *s, uint64_t pos, const uint8_t **ret)
{
	int r;
	const uint8_t *p = pages(s, pos, 1, &r); /* ~ */

	if (!p)
		return r;
	const struct journal_group *h = (const void *)p;
	if (!header_ok(s, h, pos) || h->gseq != s->gseq)
		return 0;
	p = pages(s, pos, h->pages, &r); /* ~ */
	if (!p)
		return r;
	if ((!sum_ok(p) || !group_walk(s, p, payload_whole)) && MARKED(st_replay_torn))
		return 0;
	*ret = p;
	return 1;
}

/* Does a group say that group s->gseq was durable once? */
static co_fn int find_lost(struct jscan *s)
{
	for (uint64_t pos = 0; pos < s->st->jr.area; pos++) {
		int r;
		const uint8_t *p = pages(s, pos, 1, &r); /* ~ */
		if (!p)
			return r;
		const struct journal_group *h = (const void *)p;
		if (!header_ok(s, h, pos) || h->gseq <= s->gseq || h->synced < s->gseq)
			continue;
		p = pages(s, pos, h->pages, &r); /* ~ */
		if (!p)
			return r;
		if (sum_ok(p) && MARKED(st_replay_lost))
			return -EILSEQ;
	}
	return 0;
}

/* ---- records to layers ---- */

static struct live *dirty_live(struct store *st, struct store_obj *o)
{
	struct live *lv = live_get(o);

	if (!lv)
		return NULL;
	live_mark_dirty(lv);
	live_put(lv); /* dirty keeps it */
	return lv;
}

static int take_remove(struct store *st, const struct journal_rec *d)
{
	struct store_obj *o = index_find(st, d->oid);

	if (!o || !o->exists)
		return 0;
	struct live *lv = dirty_live(st, o);
	if (!lv)
		return -ENOMEM;
	layer_clear(st, &lv->cur);
	layer_init(&lv->cur);
	lv->cur.base = BASE_ABSENT;
	index_set(o, false);
	o->no_header = false;
	return 0;
}

static void take_done(struct store *st, const struct journal_rec *d)
{
	struct store_obj *o = index_find(st, d->oid);
	struct layer *l = o && o->live ? &o->live->cur : NULL;
	bool upto = d->flags & F_UPTO;
	uint32_t b = upto ? 0 : d->blk;
	struct ent *e;

	for (; l && (e = layer_next(l, &b)) && (upto || b - d->blk < d->nr); b++)
		for (; e; e = e->below)
			if (e->ticket == d->ref || (upto && e->ticket < d->ref))
				e->flags |= ENT_DONE;
}

static int take_create(struct store *st, struct live *lv, const struct journal_rec *d)
{
	struct layer fresh;

	layer_init(&fresh);
	if (layer_shape(&fresh, d->size) < 0)
		return -ENOMEM;
	layer_clear(st, &lv->cur);
	lv->cur = fresh;
	lv->cur.base = BASE_ZERO;
	lv->o->torn_blk = lv->o->torn_nr = 0;
	lv->o->no_header = false;
	return 0;
}

static int take_ents(struct store *st, struct live *lv, const struct journal_rec *d,
		     const uint32_t *crc, uint64_t jpos)
{
	struct layer *l = &lv->cur;
	bool head = d->flags & F_HEAD, tail = d->flags & F_TAIL;

	if (!d->nr)
		return 0;
	if (layer_shape(l, d->size) < 0 || layer_room(l, d->blk, d->nr) < 0 ||
	    ents_reserve(st, d->nr) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->nr; i++) {
		struct ent *e = ent_new(st);
		bool inplace =
			d->kind == REC_INTENT && !(i == 0 && head) && !(i == d->nr - 1 && tail);
		e->ticket = d->ticket;
		e->crc = crc[i];
		if (inplace) {
			e->flags = ENT_INPLACE | (d->flags & F_FRESH ? ENT_FRESH : 0);
		} else {
			e->jpos = jpos;
			jpos += BLK;
		}
		if (inplace)
			layer_stack(st, l, d->blk + i, e);
		else
			layer_put(st, l, d->blk + i, e);
	}
	return 0;
}

/* What was answered or flushed before the intent @d came is in the file. */
static void take_synced(struct live *lv, const struct journal_rec *d)
{
	for (uint32_t b = d->blk; d->kind == REC_INTENT && b - d->blk < d->nr; b++)
		for (struct ent *e = layer_get(&lv->cur, b); e; e = e->below)
			if (e->ticket <= d->ref)
				e->flags |= ENT_DONE;
}

/* A record of an object that is not there, or is another one now, is of a time before something
 * that happened outside of the journal, or that an interrupted replay has done already. */
static int take_write(struct store *st, const struct journal_rec *d, const uint32_t *crc,
		      uint64_t jpos)
{
	struct store_obj *o = index_find(st, d->oid);
	bool create = d->flags & F_CREATE;

	if (!create && (!o || !o->exists || o->no_header || o->size != d->size) &&
	    MARKED(st_replay_skips))
		return 0;
	if (!o && !(o = index_add(st, d->oid)))
		return -ENOMEM;
	struct live *lv = dirty_live(st, o);
	int r = lv ? 0 : -ENOMEM;
	if (r == 0 && create)
		r = take_create(st, lv, d);
	if (r == 0) {
		take_synced(lv, d);
		r = take_ents(st, lv, d, crc, jpos);
	}
	if (r < 0)
		return r;
	index_set(o, true);
	o->ver = lv->cur.ver = (struct obj_ver){d->gen, d->seq};
	o->size = lv->cur.size = d->size;
	o->copies = lv->cur.copies = d->copies;
	return 0;
}

struct feed_ctx {
	struct jscan s; /* first */
	uint64_t group; /* byte of the group in the file */
	int err;
};

static bool feed(struct jscan *s, const struct journal_rec *d, const uint32_t *crc,
		 const uint8_t *p, uint64_t at)
{
	struct feed_ctx *f = (struct feed_ctx *)s;
	struct store *st = s->st;

	index_saw(st, (struct obj_ver){d->gen, d->seq});
	switch (d->kind) {
	case REC_REMOVE:
		MARK(st_replay_remove);
		f->err = take_remove(st, d);
		break;
	case REC_DONE:
		MARK(st_replay_done);
		take_done(st, d);
		break;
	default:
		MARK(st_replay_write);
		f->err = take_write(st, d, crc, f->group + at);
		break;
	}
	return f->err == 0;
}

static co_fn int read_groups(struct feed_ctx *f)
{
	struct store *st = f->s.st;
	uint64_t pos = st->jr.vtail % st->jr.area;

	for (;;) {
		const uint8_t *p = NULL;
		int r = group_at(&f->s, pos, &p); /* ~ */
		if (r == 0 && pos) {
			r = group_at(&f->s, 0, &p); /* ~ it did not fit before the end */
			if (r == 1)
				pos = 0;
		}
		if (r <= 0)
			return r;
		f->group = (JOURNAL_SUPERS + pos) * BLK;
		uint32_t n = ((const struct journal_group *)p)->pages;
		group_walk(&f->s, p, feed);
		if (f->err < 0)
			return f->err;
		pos = (pos + n) % st->jr.area;
		f->s.gseq++;
	}
}

co_fn int replay(struct store *st, char **err)
{
	struct feed_ctx f = {.s = {.st = st, .gseq = st->jr.gseq}};
	int r = 0;

	if (!st->jr.clean) {
		r = read_groups(&f); /* ~ */
		if (r == 0)
			r = find_lost(&f.s); /* ~ */
	}
	buf_put(f.s.win);
	if (r == -EILSEQ)
		st_says(err,
			"The journal of %s is damaged: writes that were durable are lost. Give up "
			"what is in it with -j size=SIZE,skip, or replace the store by an empty "
			"directory: the data will come from the other nodes",
			st->conf.dir);
	if (r == 0)
		r = replay_apply(st); /* ~ */
	if (r < 0)
		st_says(err, "Cannot replay the journal of %s: %s", st->conf.dir, strerror(-r));
	return r;
}
