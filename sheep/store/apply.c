/* apply.c - rounds: what is in the layers goes to the object files, and journal space comes back.
 *
 * A round: FREEZE (the current layers of all dirty objects) > the journal is durable up to there >
 * APPLY (data, checksum sectors, header, through the page cache).  A full one goes on: SYNC (every
 * file touched since the last full round) > the superblock says where replay begins now > the
 * space is free (J2).  Plain rounds give memory back, full ones give the journal back.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>

enum { BATCH_IOS = 16, BATCH_IOVS = 192 };

/* ---- the blocks of one object ---- */

struct batch {
	struct co_group g;
	struct env_io io[BATCH_IOS];
	struct iovec iov[BATCH_IOVS];
	unsigned nr_io, nr_iov;
	int err;
};

static void batch_done(struct env_io *io)
{
	struct batch *b = io->arg;

	if (io->result != (int64_t)io->len)
		b->err = io->result < 0 ? (int)io->result : -EIO;
	co_group_done(&b->g);
}

static co_fn int batch_go(struct live *lv, struct batch *b)
{
	struct env_file *f = lv->dfile ? lv->dfile->f : lv->file->f;

	co_group_init(&b->g);
	b->err = 0;
	for (unsigned i = 0; i < b->nr_io; i++) {
		struct env_io *io = &b->io[i];
		io->op = ENV_IO_WRITE;
		io->flags = lv->dfile ? ENV_IO_DIRECT : 0;
		io->file = f;
		io->done = batch_done;
		io->arg = b;
		co_group_add(&b->g);
		env_io_submit(lv->st->env, io);
	}
	co_group_wait(&b->g); /* ~ */
	b->nr_io = b->nr_iov = 0;
	return b->err;
}

/* Add block @blk; true: the batch has no room for it. */
static bool batch_add(struct batch *b, uint32_t blk, const struct ent *e)
{
	struct env_io *io = b->nr_io ? &b->io[b->nr_io - 1] : NULL;
	bool next = io && io->off + io->len == (uint64_t)blk * BLK;

	if (b->nr_iov == BATCH_IOVS || (!next && b->nr_io == BATCH_IOS))
		return true;
	struct iovec *v = &b->iov[b->nr_iov++];
	*v = (struct iovec){.iov_base = (void *)(uintptr_t)e->data, .iov_len = BLK};
	if (next) {
		io->iovcnt++;
		io->len += BLK;
		return false;
	}
	b->io[b->nr_io++] =
		(struct env_io){.iov = v, .iovcnt = 1, .off = (uint64_t)blk * BLK, .len = BLK};
	return false;
}

/* Write all blocks of layer @l, and their checksums to the chunks in memory.  Under io. */
co_fn int run_blocks(struct live *lv, const struct layer *l)
{
	struct batch b = {.nr_io = 0};
	struct ent *e;
	int r = 0;

	for (uint32_t c = 0; r == 0 && c < l->nr_ovl; c++)
		if (l->ovl[c] && l->ovl[c]->nr)
			r = chunks_load(lv, c, c); /* ~ */
	if (r == 0)
		r = file_open(lv); /* ~ */
	for (uint32_t blk = 0; r == 0 && (e = layer_next(l, &blk)); blk++)
		if (batch_add(&b, blk, e)) {
			r = batch_go(lv, &b); /* ~ */
			batch_add(&b, blk, e);
		}
	if (r == 0)
		r = batch_go(lv, &b); /* ~ */
	for (uint32_t blk = 0; r == 0 && (e = layer_next(l, &blk)); blk++)
		chunk_set(lv, blk, e->crc);
	return r;
}

/* ---- apply ---- */

static co_fn int apply_layer(struct live *lv)
{
	struct layer *l = &lv->frz;
	int r = 0;

	if (l->base == BASE_VOID)
		return 0;
	if (l->base == BASE_ABSENT)
		return lv->file_exists ? file_unlink(lv) : 0; /* ~ */
	if (l->base == BASE_ZERO) {
		r = file_make(lv, l->size, false); /* ~ */
		if (r < 0)
			return r;
		l->base = BASE_THROUGH;
	}
	r = run_blocks(lv, l); /* ~ */
	if (r < 0)
		return r;
	lv->fver = l->ver;
	lv->fcopies = l->copies;
	return meta_write(lv); /* ~ */
}

static bool intents_before(struct live *lv, uint64_t ticket)
{
	return !cds_list_empty(&lv->intents) &&
	       cds_list_first_entry(&lv->intents, struct rec, onode)->ticket <= ticket;
}

static co_fn int apply_obj(struct live *lv)
{
	struct store *st = lv->st;

	lv->pins++;
	while (!st->failed && intents_before(lv, st->round_cut))
		co_cond_wait(&lv->icond, "large writes before a round"); /* ~ */
	co_mutex_lock(&lv->io);						 /* ~ */
	int r = st->failed ? -EIO : apply_layer(lv);			 /* ~ */
	if (r == 0) {
		layer_clear(st, &lv->frz);
		layer_init(&lv->frz);
		lv->frozen = false;
	}
	co_mutex_unlock(&lv->io);
	if (r == 0 && !lv->touched) {
		lv->touched = true;
		st->nr_touched++;
		cds_list_add_tail(&lv->touched_node, &st->touched);
	}
	if (r < 0) /* as it was: nobody looks at it any more but store_close */
		cds_list_add_tail(&lv->frozen_node, &st->frozen);
	live_put(lv);
	co_cond_broadcast(&st->room);
	return r;
}

static co_fn void apply_worker(void *arg)
{
	struct store *st = arg;

	while (!st->failed && !cds_list_empty(&st->frozen)) {
		struct live *lv = cds_list_first_entry(&st->frozen, struct live, frozen_node);
		cds_list_del(&lv->frozen_node);
		int r = apply_obj(lv); /* ~ */
		if (r < 0 && MARKED(st_apply_io))
			st_fail(st, r);
	}
}

static co_fn void sync_worker(void *arg)
{
	struct store *st = arg;

	while (!st->failed && !cds_list_empty(&st->syncing)) {
		struct live *lv = cds_list_first_entry(&st->syncing, struct live, touched_node);
		cds_list_del(&lv->touched_node);
		cds_list_add_tail(&lv->touched_node, &st->synced);
		int r = PLANTED(reuse_early) ? 0 : file_sync(lv); /* ~ touched keeps it */
		if (r < 0 && MARKED(st_sync_io))
			st_fail(st, r);
	}
}

/* Replay will not see their records any more; only now may anybody rely on that (live_journalled).
 */
static void untouch(struct store *st)
{
	while (!cds_list_empty(&st->synced)) {
		struct live *lv = cds_list_first_entry(&st->synced, struct live, touched_node);
		cds_list_del(&lv->touched_node);
		lv->pins++;
		lv->touched = false;
		intents_unstack(lv, st->round_cut);
		st->nr_touched--;
		live_put(lv);
	}
}

static co_fn void spread(struct store *st, void (*fn)(void *arg), const char *name)
{
	struct co_group g;
	unsigned n = 0;

	co_group_init(&g);
	while (n < APPLY_WORKERS && co_group_start(st->s, &g, fn, st, name) == 0)
		n++;
	if (!n)
		fn(st);	   /* ~ */
	co_group_wait(&g); /* ~ */
}

/* ---- rounds ---- */

static bool want_full(const struct store *st)
{
	return journal_used(st) > st->jr.area / 2 || st->intent_bytes > INTENT_BYTES_MAX ||
	       st->room_short || st->aged || st->full_want > st->full_done ||
	       st->nr_touched + st->nr_dirty > TOUCHED_MAX;
}

static bool round_is_due(struct store *st)
{
	return want_full(st) || (st->mem >= MEM_ROUND && !cds_list_empty(&st->dirty));
}

void round_poke(struct store *st)
{
	if (st->opened && round_is_due(st))
		co_cond_signal(&st->rcond);
}

void round_timer(struct env_timer *t)
{
	struct store *st = caa_container_of(t, struct store, rtimer);

	st->rtimer_armed = false;
	st->aged = true;
	round_poke(st);
}

static void freeze(struct store *st)
{
	struct journal *jr = &st->jr;
	struct live *lv, *n;

	assert(cds_list_empty(&st->frozen));
	cds_list_for_each_entry_safe (lv, n, &st->dirty, dirty_node) {
		assert(!lv->frozen && !lv->frz.nr);
		cds_list_del(&lv->dirty_node);
		lv->dirty = false;
		lv->frozen = true;
		cds_list_add_tail(&lv->frozen_node, &st->frozen);
		lv->frz = lv->cur;
		layer_init(&lv->cur);
		lv->cur.ver = lv->frz.ver;
		lv->cur.copies = lv->frz.copies;
	}
	st->nr_dirty = 0;
	st->round_cut = jr->cut = jr->queued;
	if (jr->written == jr->cut) {
		jr->cut_vhead = jr->vhead;
		jr->cut_gseq = jr->gseq;
	}
}

static co_fn int give_back(struct store *st, uint64_t ibytes)
{
	struct journal *jr = &st->jr;

	cds_list_splice(&st->touched, &st->syncing);
	CDS_INIT_LIST_HEAD(&st->touched);
	spread(st, sync_worker, "store sync"); /* ~ */
	if (st->failed)
		return -EIO;
	int r = dir_sync(st, st->dir_changes); /* ~ */
	uint64_t vtail = jr->cut_vhead;
	if (r == 0 && vtail != jr->vtail)
		r = journal_super(st, vtail, jr->cut_gseq, false); /* ~ */
	if (r < 0)
		return r;
	MARK(st_give_back);
	jr->vtail = vtail;
	untouch(st);
	st->intent_bytes -= ibytes;
	co_cond_broadcast(&st->room);
	return 0;
}

static co_fn int one_round(struct store *st)
{
	bool full = want_full(st);
	uint64_t asked = st->full_want, ibytes = st->intent_bytes;

	freeze(st);
	st->room_short = st->aged = false;
	int r = journal_sync(st, st->round_cut); /* ~ (J1) */
	if (r < 0)
		return r;
	assert(st->jr.cut == st->round_cut);
	spread(st, apply_worker, "store apply"); /* ~ */
	if (st->failed)
		return -EIO;
	if (full) {
		r = give_back(st, ibytes); /* ~ */
		if (r < 0)
			return r;
		st->full_done = asked;
		co_cond_broadcast(&st->rdone);
	}
	return 0;
}

void round_main(void *arg)
{
	struct store *st = arg;

	while (!st->failed) {
		if (round_is_due(st)) {
			int r = one_round(st); /* ~ */
			if (r < 0)
				st_fail(st, r);
		} else if (st->stopping) {
			return;
		} else {
			co_cond_wait(&st->rcond, "rounds"); /* ~ */
		}
	}
}

co_fn int round_full(struct store *st)
{
	uint64_t no = ++st->full_want;

	co_cond_signal(&st->rcond);
	while (!st->failed && st->full_done < no)
		co_cond_wait(&st->rdone, "a full round"); /* ~ */
	return st->failed ? -EIO : 0;
}
