/* write.c - entering writes and removals: edges and room first (may wait), then the queue (may
 * not).
 *
 * The journal and the layers know whole blocks only.  A write that covers a block in part carries
 * an image of the whole block, made in store_prepare under the exclusive lock, so nothing can
 * change below it.  A payload that does not lie on block boundaries in memory is copied.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/base/crc.h"

/* What a write is made of. */
struct plan {
	uint64_t size;
	uint32_t blk, nr;
	bool head, tail; /* first, last block covered in part */
	bool image; /* edge[0]: all blocks, copied; else edge[1] is the last one if it is partial */
	bool intent;
};

static int plan_make(const struct store_obj *o, const struct store_write *w, struct plan *p)
{
	*p = (struct plan){.size = w->create ? w->size : o->size};
	if (!w->create && !o->exists && MARKED(st_write_absent))
		return -ENOENT;
	if (!p->size || p->size > OBJ_SIZE_MAX || w->off > p->size || w->len > p->size - w->off)
		return -EINVAL;
	if (!w->len)
		return 0;
	uint64_t end = w->off + w->len;
	p->blk = (uint32_t)(w->off / BLK);
	p->nr = (uint32_t)((end + BLK - 1) / BLK) - p->blk;
	p->head = w->off % BLK;
	p->tail = end % BLK;
	if (p->nr == 1)
		p->head = p->head || p->tail;
	p->image = p->head || ((uintptr_t)w->data->data + w->data_off) % BLK;
	p->intent = w->len >= STORE_INTENT_MIN;
	return 0;
}

static uint32_t plan_pages(const struct plan *p)
{
	uint32_t desc = (uint32_t)(sizeof(struct journal_rec) + desc_crc_len(p->nr)) / BLK;

	return 2 + desc + (p->intent ? 2 : p->nr);
}

/* ---- prepare ---- */

static bool room_for(const struct store *st, uint32_t pages)
{
	const struct journal *jr = &st->jr;
	uint64_t slack = jr->area / 8;

	return journal_used(st) + jr->resv + pages + slack <= jr->area && st->mem < MEM_MAX;
}

static co_fn int take_room(struct store *st, struct store_write *w, uint32_t pages)
{
	if (pages > st->jr.area / 4)
		return -EFBIG;
	while (!st->failed && !room_for(st, pages)) {
		MARK(st_no_journal_room);
		st->room_short = st->room_short || st->mem < MEM_MAX;
		round_poke(st);
		co_cond_wait(&st->room, "room in the journal"); /* ~ */
	}
	if (st->failed)
		return -EIO;
	st->jr.resv += pages;
	w->resv = pages;
	w->st = st;
	return 0;
}

/* Block @b of the object as it is before the write, into @to; bytes that the write covers all of
 * are not read. */
static co_fn int old_block(struct live *lv, const struct store_write *w, const struct plan *p,
			   uint32_t b, uint8_t *to)
{
	uint64_t from = (uint64_t)b * BLK, to_off = from + BLK;

	if (to_off > p->size)
		to_off = p->size;
	if (w->create || (w->off <= from && w->off + w->len >= to_off)) {
		memset(to, 0, BLK);
		return 0;
	}
	return blocks_read(lv, b, 1, to, NULL); /* ~ */
}

static co_fn int make_image(struct live *lv, struct store_write *w, const struct plan *p)
{
	w->edge[0] = buf_new(lv->st->pool, (size_t)p->nr * BLK);
	if (!w->edge[0])
		return -ENOMEM;
	uint8_t *img = w->edge[0]->data;
	int r = 0;
	if (p->head)
		r = old_block(lv, w, p, p->blk, img); /* ~ */
	if (r == 0 && p->tail && p->nr > 1)
		r = old_block(lv, w, p, p->blk + p->nr - 1,
			      img + (size_t)(p->nr - 1) * BLK); /* ~ */
	if (r == 0)
		memcpy(img + w->off % BLK, (uint8_t *)w->data->data + w->data_off, w->len);
	return r;
}

static co_fn int make_tail(struct live *lv, struct store_write *w, const struct plan *p)
{
	w->edge[1] = buf_new(lv->st->pool, BLK);
	if (!w->edge[1])
		return -ENOMEM;
	int r = old_block(lv, w, p, p->blk + p->nr - 1, w->edge[1]->data); /* ~ */
	if (r == 0) {
		size_t n = (w->off + w->len) % BLK;
		memcpy(w->edge[1]->data, (uint8_t *)w->data->data + w->data_off + w->len - n, n);
	}
	return r;
}

co_fn int store_prepare(struct store_obj *o, struct store_write *w)
{
	struct store *st = o->st;
	struct live *lv = o->live;
	struct plan p;

	assert(lv && lv->excl);
	w->edge[0] = w->edge[1] = NULL;
	w->resv = 0;
	w->error = 0;
	w->no_room = false;
	if (st->failed && MARKED(st_prepare_failed))
		return -EIO;
	int r = plan_make(o, w, &p);
	if (r == 0 && !space_floor(st, w->len) &&
	    (w->create || store_allocates(o, w->off, w->len)) && MARKED(st_no_space)) /* ~ */
		r = -ENOSPC;
	if (r == 0)
		r = take_room(st, w, plan_pages(&p)); /* ~ */
	if (r == 0 && p.nr && p.image && MARKED(st_image))
		r = make_image(lv, w, &p); /* ~ */
	else if (r == 0 && p.nr && p.tail)
		r = make_tail(lv, w, &p); /* ~ */
	if (r < 0 && MARKED(st_prepare_undone))
		store_abandon(w);
	return r;
}

void store_abandon(struct store_write *w)
{
	for (unsigned i = 0; i < 2; i++) {
		buf_put(w->edge[i]);
		w->edge[i] = NULL;
	}
	if (!w->resv)
		return;
	w->st->jr.resv -= w->resv;
	w->resv = 0;
	co_cond_broadcast(&w->st->room);
}

/* ---- queue ---- */

/* Where the blocks' bytes are.  The edges' references move to the record. */
static void rec_segs(struct rec *r, struct store_write *w, const struct plan *p)
{
	if (!p->nr)
		return;
	if (p->image) {
		r->seg[0] = (struct seg){w->edge[0], w->edge[0]->data, p->nr};
		w->edge[0] = NULL;
		return;
	}
	uint32_t whole = p->nr - p->tail;
	r->seg[0] = (struct seg){buf_get(w->data), (uint8_t *)w->data->data + w->data_off, whole};
	if (p->tail) {
		r->seg[1] = (struct seg){w->edge[1], w->edge[1]->data, 1};
		w->edge[1] = NULL;
	}
}

static const uint8_t *rec_block(const struct rec *r, uint32_t i, struct buf **buf)
{
	const struct seg *s = i < r->seg[0].nr ? &r->seg[0] : &r->seg[1];

	if (s == &r->seg[1])
		i -= r->seg[0].nr;
	*buf = s->buf;
	return s->data + (size_t)i * BLK;
}

/* The caller's checksums are of the payload's pieces: right for whole blocks, the others are
 * images. */
static void rec_crcs(struct rec *r, const struct store_write *w, const struct plan *p)
{
	struct buf *b;

	if (w->crc)
		memcpy(r->crc, w->crc, (size_t)p->nr * sizeof(*r->crc));
	for (uint32_t i = 0; i < p->nr; i++)
		if (!w->crc || (i == 0 && p->head) || (i == p->nr - 1 && p->tail))
			r->crc[i] = crc32c(rec_block(r, i, &b), BLK);
}

/* Everything that can fail, before anything is changed.  A creation gets a new layer in *fresh. */
static int queue_alloc(struct live *lv, const struct store_write *w, const struct plan *p,
		       struct layer *fresh, struct rec **ret)
{
	struct store *st = lv->st;
	struct layer *l = w->create ? fresh : &lv->cur;
	int r = layer_shape(l, p->size);

	if (r == 0 && p->nr)
		r = layer_room(l, p->blk, p->nr);
	if (r == 0)
		r = ents_reserve(st, p->nr);
	*ret = r == 0 ? rec_new(st, p->nr) : NULL;
	if (*ret)
		return 0;
	layer_clear(st, fresh);
	return -ENOMEM;
}

static void add_ents(struct live *lv, const struct rec *r, const struct plan *p)
{
	struct store *st = lv->st;

	for (uint32_t i = 0; i < p->nr; i++) {
		struct ent *e = ent_new(st);
		struct buf *b;
		assert(e); /* reserved */
		e->data = rec_block(r, i, &b);
		e->buf = buf_get(b);
		e->ticket = r->ticket;
		e->crc = r->crc[i];
		st->mem += BLK;
		layer_put(st, &lv->cur, p->blk + i, e);
	}
}

static void rec_fill(struct rec *r, const struct store_obj *o, const struct store_write *w,
		     const struct plan *p)
{
	r->oid = o->oid;
	r->ver = w->ver;
	r->size = p->size;
	r->blk = p->blk;
	r->nr = p->nr;
	r->kind = p->intent ? REC_INTENT : REC_WRITE;
	r->copies = w->create ? w->copies : o->copies;
	r->durable = w->durable;
	if (w->create)
		r->flags = F_CREATE | (o->exists ? 0 : F_FRESH);
	if (p->intent) {
		r->head = p->head;
		r->tail = p->tail;
		r->flags |= (p->head ? F_HEAD : 0) | (p->tail ? F_TAIL : 0);
	}
}

static void intent_add(struct live *lv, struct rec *r)
{
	struct store *st = lv->st;

	intent_stack(lv, r);
	MARK(st_intent);
	r->lv = lv;
	lv->pins++;
	cds_list_add_tail(&r->onode, &lv->intents);
	cds_list_add_tail(&r->gnode, &st->intents);
	cds_list_add_tail(&r->rnode, &st->iwait);
	st->nr_intents++;
	st->intent_bytes += (uint64_t)r->nr * BLK;
}

static void obj_becomes(struct live *lv, const struct rec *r)
{
	struct store_obj *o = lv->o;

	index_set(o, true);
	o->ver = lv->cur.ver = r->ver;
	o->size = lv->cur.size = r->size;
	o->copies = lv->cur.copies = r->copies;
	if (r->flags & F_CREATE)
		o->torn_blk = o->torn_nr = 0;
	index_saw(lv->st, r->ver);
}

static void enter(struct live *lv, struct store_write *w, struct rec *r)
{
	struct store *st = lv->st;

	r->resv = w->resv;
	w->resv = 0;
	w->st = st;
	w->oid = lv->o->oid;
	w->ticket = r->ticket;
	w->error = 0;
	live_mark_dirty(lv);
	journal_add(st, r);
	round_poke(st);
}

static bool plan_ready(const struct store_write *w, const struct plan *p)
{
	if (!p->nr)
		return true;
	return p->image ? w->edge[0] != NULL : !p->tail || w->edge[1];
}

int store_queue(struct store_obj *o, struct store_write *w)
{
	struct store *st = o->st;
	struct live *lv = o->live;
	struct layer fresh;
	struct plan p;
	struct rec *r = NULL;

	assert(lv && lv->excl);
	int err = st->failed ? -EIO : plan_make(o, w, &p);
	layer_init(&fresh);
	if (err == 0 && !plan_ready(w, &p))
		err = -EINVAL;
	if (err == 0)
		err = queue_alloc(lv, w, &p, &fresh, &r);
	if (err < 0 && MARKED(st_queue_failed)) {
		store_abandon(w);
		return err;
	}
	r->ticket = ++st->jr.queued;
	rec_fill(r, o, w, &p);
	rec_segs(r, w, &p);
	rec_crcs(r, w, &p);
	if (w->create) {
		layer_clear(st, &lv->cur);
		lv->cur = fresh;
		lv->cur.base = BASE_ZERO;
		lv->cur.base_ticket = r->ticket;
	}
	add_ents(lv, r, &p);
	obj_becomes(lv, r);
	if (p.intent)
		intent_add(lv, r);
	uint64_t meta = w->create ? size_file(p.size) - (uint64_t)size_blks(p.size) * BLK : 0;
	space_took(st, (uint64_t)p.nr * BLK + meta);
	enter(lv, w, r);
	return 0;
}

int store_queue_remove(struct store_obj *o, struct store_write *w)
{
	struct store *st = o->st;
	struct live *lv = o->live;

	assert(lv && lv->excl);
	w->edge[0] = w->edge[1] = NULL;
	w->resv = 0;
	if (st->failed)
		return -EIO;
	if (!o->exists && MARKED(st_remove_absent))
		return -ENOENT;
	struct rec *r = rec_new(st, 0);
	if (!r)
		return -ENOMEM;
	r->ticket = ++st->jr.queued;
	r->oid = o->oid;
	r->ver = w->ver;
	MARK(st_remove);
	r->kind = REC_REMOVE;
	r->durable = w->durable;
	layer_clear(st, &lv->cur);
	layer_init(&lv->cur);
	lv->cur.base = BASE_ABSENT;
	lv->cur.base_ticket = r->ticket;
	index_saw(st, w->ver);
	index_set(o, false);
	w->no_room = true;
	enter(lv, w, r);
	return 0;
}
