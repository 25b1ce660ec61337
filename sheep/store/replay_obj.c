/* replay_obj.c - applies to one object file what the journal says about it.
 *
 * Journalled blocks are copied from the journal.  Blocks of an intent must be in the file already:
 * those of one that was not known to have finished are read, and if one does not have the new
 * contents the object is torn.  What it was to replace may be in the journal only: then that is the
 * block's old contents, not what lies in the file, which is older than what was answered.  The same
 * with zeros when a record made the object anew: the file may have what was removed before.  An
 * object that such an intent was to create is dropped: that write, and all later ones of it, were
 * never durable.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/plant.h"
#include "sheep/mark.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/base/crc.h"

enum { RUN_BLKS = 256 };

struct work {
	struct live *lv;
	struct buf *buf; /* RUN_BLKS blocks */
	struct buf *one; /* one block; made when it is needed */
	uint32_t torn_from, torn_to;
	bool drop;
};

static bool is_zero(const uint8_t *p)
{
	return !p[0] && !memcmp(p, p + 1, BLK - 1);
}

/* What the torn intent @e was to replace, as far as the journal knows: NULL when the file has it.
 * @crc: of the block in the file. */
static const struct ent *ent_before(const struct ent *e, uint32_t crc)
{
	while ((e = e->below)) {
		/* An intent that finished is in the file, under the torn one; one that did not, and
		 * left nothing whole, was not answered before the power went. */
		if (crc == e->crc || !(e->flags & ENT_INPLACE) || (e->flags & ENT_DONE))
			return e;
	}
	return NULL;
}

/* The old contents, whole: from the journal, or zeros (@e is NULL). */
static co_fn int restore_block(struct work *w, uint32_t blk, const struct ent *e)
{
	struct live *lv = w->lv;
	struct store *st = lv->st;
	int r = 0;

	if (!w->one && !(w->one = buf_new(st->pool, BLK)))
		return -ENOMEM;
	if (e)
		r = st_rw(st, ENV_IO_READ, st->jr.file, w->one->data, BLK, e->jpos,
			  ENV_IO_DIRECT); /* ~ */
	else
		memset(w->one->data, 0, BLK);
	uint32_t crc = r == 0 ? crc32c(w->one->data, BLK) : 0;
	if (r == 0 && e && crc != e->crc)
		r = -EIO;
	if (r == 0)
		r = st_rw(st, ENV_IO_WRITE, lv->file->f, w->one->data, BLK, (uint64_t)blk * BLK,
			  0); /* ~ */
	if (r == 0)
		chunk_set(lv, blk, crc);
	return r;
}

static co_fn int torn_block(struct work *w, uint32_t blk, const struct ent *e, const uint8_t *p,
			    uint32_t crc)
{
	struct live *lv = w->lv;
	const struct ent *before = ent_before(e, crc);
	uint32_t old = 0;
	enum blk_state s = chunk_state(lv, blk, &old);

	if (w->torn_from == w->torn_to && MARKED(st_torn))
		w->torn_from = blk;
	w->torn_to = blk + 1;
	if (e->flags & ENT_FRESH && MARKED(st_torn_fresh))
		w->drop = true;
	if (before && crc == before->crc) {
		chunk_set(lv, blk, crc);
		return 0;
	}
	if (before && !(before->flags & ENT_INPLACE) && MARKED(st_torn_restore))
		return restore_block(w, blk, before); /* ~ */
	if (!before && lv->cur.base == BASE_ZERO)
		return restore_block(w, blk, NULL); /* ~ */
	if (!before && ((s == BLK_DATA && crc == old) || (s == BLK_ZERO && is_zero(p))))
		return 0;
	chunk_set(lv, blk, e->crc); /* fits nothing: never returned as data */
	return 0;
}

/* The blocks [blk, blk + n) are of intents. */
static co_fn int check_run(struct work *w, uint32_t blk, uint32_t n)
{
	struct live *lv = w->lv;
	int r = st_rw(lv->st, ENV_IO_READ, lv->file->f, w->buf->data, (size_t)n * BLK,
		      (uint64_t)blk * BLK, 0); /* ~ */

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		const struct ent *e = layer_get(&lv->cur, blk + i);
		const uint8_t *p = (uint8_t *)w->buf->data + (size_t)i * BLK;
		uint32_t crc = crc32c(p, BLK);
		if (crc == e->crc || (e->flags & ENT_DONE))
			chunk_set(lv, blk + i, e->crc);
		else
			r = torn_block(w, blk + i, e, p, crc); /* ~ */
	}
	return r;
}

static co_fn int copy_run(struct work *w, uint32_t blk, uint32_t n)
{
	struct live *lv = w->lv;
	struct store *st = lv->st;
	size_t len = (size_t)n * BLK;
	int r = st_rw(st, ENV_IO_READ, st->jr.file, w->buf->data, len,
		      layer_get(&lv->cur, blk)->jpos, ENV_IO_DIRECT); /* ~ */

	for (uint32_t i = 0; r == 0 && i < n; i++)
		if (crc32c((uint8_t *)w->buf->data + (size_t)i * BLK, BLK) !=
		    layer_get(&lv->cur, blk + i)->crc)
			r = -EIO;
	if (r == 0)
		r = st_rw(st, ENV_IO_WRITE, lv->file->f, w->buf->data, len, (uint64_t)blk * BLK,
			  0); /* ~ */
	for (uint32_t i = 0; r == 0 && i < n; i++)
		chunk_set(lv, blk + i, layer_get(&lv->cur, blk + i)->crc);
	return r;
}

/* Blocks from @blk on that can be done in one go. */
static uint32_t run_len(const struct layer *l, uint32_t blk, const struct ent *e)
{
	uint32_t n = 1;
	const struct ent *x;

	while (n < RUN_BLKS && (x = layer_get(l, blk + n)) &&
	       (x->flags & ENT_INPLACE) == (e->flags & ENT_INPLACE) &&
	       (x->flags & ENT_INPLACE || x->jpos == e->jpos + (uint64_t)n * BLK))
		n++;
	return n;
}

static co_fn int do_blocks(struct work *w, bool inplace)
{
	struct layer *l = &w->lv->cur;
	struct ent *e;
	int r = 0;

	for (uint32_t blk = 0, n; r == 0 && (e = layer_next(l, &blk)); blk += n) {
		n = run_len(l, blk, e);
		if (inplace != !!(e->flags & ENT_INPLACE))
			continue;
		r = inplace ? check_run(w, blk, n) : copy_run(w, blk, n); /* ~ */
	}
	return r;
}

/* What is in no record is zeros in an object that a record created. */
static co_fn int punch_gaps(struct live *lv)
{
	const struct layer *l = &lv->cur;
	uint32_t nr = size_blks(l->size), at = 0;
	int r = 0;

	while (r == 0 && at < nr) {
		uint32_t next = at;
		if (!layer_next(l, &next))
			next = nr;
		if (next > at) {
			struct env_io io = {.op = ENV_IO_PUNCH,
					    .file = lv->file->f,
					    .off = (uint64_t)at * BLK,
					    .len = (uint64_t)(next - at) * BLK};
			r = (int)co_io(lv->st->s, &io); /* ~ */
		}
		at = next + 1;
	}
	return r < 0 ? r : 0;
}

static bool any_inplace(const struct layer *l)
{
	struct ent *e;

	for (uint32_t blk = 0; (e = layer_next(l, &blk)); blk++)
		if (e->flags & ENT_INPLACE)
			return true;
	return false;
}

static co_fn int make_base(struct live *lv)
{
	struct layer *l = &lv->cur;
	int r = 0;

	if (l->base == BASE_ZERO) {
		bool keep = any_inplace(l);
		r = file_make(lv, l->size, keep);	    /* ~ */
		return r == 0 && keep ? punch_gaps(lv) : r; /* ~ */
	}
	for (uint32_t c = 0; r == 0 && c < l->nr_ovl; c++)
		if (l->ovl[c] && l->ovl[c]->nr)
			r = chunks_load(lv, c, c); /* ~ */
	return r == 0 ? file_open(lv) : r;	   /* ~ */
}

static void mark_torn(struct work *w)
{
	struct live *lv = w->lv;
	uint32_t from = w->torn_from, to = w->torn_to;

	if (from == to)
		return;
	if (lv->torn_nr) { /* one range that has them all */
		uint32_t end = lv->torn_blk + lv->torn_nr;
		from = lv->torn_blk < from ? lv->torn_blk : from;
		to = end > to ? end : to;
	}
	lv->o->torn_blk = lv->torn_blk = from;
	lv->o->torn_nr = lv->torn_nr = to - from;
}

static co_fn int apply_writes(struct work *w)
{
	struct live *lv = w->lv;
	int r = make_base(lv); /* ~ */

	if (r == 0)
		r = do_blocks(w, true); /* ~ */
	if (r == 0 && w->drop) {
		index_set(lv->o, false);
		return file_unlink(lv); /* ~ */
	}
	if (r == 0)
		r = do_blocks(w, false); /* ~ */
	if (r < 0)
		return r;
	mark_torn(w);
	lv->fver = lv->cur.ver;
	lv->fcopies = lv->cur.copies;
	r = meta_write(lv);					       /* ~ */
	return r == 0 && !PLANTED(start_unsynced) ? file_sync(lv) : r; /* ~ */
}

static co_fn int apply_one(struct live *lv)
{
	struct store *st = lv->st;
	struct work w = {.lv = lv};
	int r = 0;

	co_mutex_lock(&lv->io); /* ~ */
	if (lv->cur.base == BASE_ABSENT) {
		r = lv->file_exists ? file_unlink(lv) : 0; /* ~ */
	} else {
		w.buf = buf_new(st->pool, (size_t)RUN_BLKS * BLK);
		r = w.buf ? apply_writes(&w) : -ENOMEM; /* ~ */
		buf_put(w.buf);
		buf_put(w.one);
	}
	layer_clear(st, &lv->cur);
	layer_init(&lv->cur);
	co_mutex_unlock(&lv->io);
	return r;
}

static co_fn void apply_worker(void *arg)
{
	struct store *st = arg;

	while (!st->replay_err && !cds_list_empty(&st->dirty)) {
		struct live *lv = cds_list_first_entry(&st->dirty, struct live, dirty_node);
		cds_list_del(&lv->dirty_node);
		lv->pins++;
		lv->dirty = false;
		int r = apply_one(lv); /* ~ */
		if (r < 0)
			st->replay_err = r;
		live_put(lv);
	}
}

/* Everything that the layers hold is in the object files, synced. */
co_fn int replay_apply(struct store *st)
{
	struct co_group g;
	unsigned n = 0;

	co_group_init(&g);
	while (n < APPLY_WORKERS && !cds_list_empty(&st->dirty) &&
	       co_group_start(st->s, &g, apply_worker, st, "store replay") == 0)
		n++;
	apply_worker(st);  /* ~ */
	co_group_wait(&g); /* ~ */
	st->nr_dirty = 0;
	return st->replay_err ? st->replay_err : dir_sync(st, st->dir_changes); /* ~ */
}
