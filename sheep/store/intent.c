/* intent.c - large writes: in place, once their record is durable.
 *
 * INTENT (in the queue) > READY (record durable) > WRITTEN (in the kernel) > [SYNCED] > complete.
 * Intents of one object are written in the order of their tickets: workers take them in order, and
 * the object's io mutex is first come first served.
 *
 * A statement: when an intent lies over another one that is not synced yet, a block of it that is
 * torn may have sectors of both, and replay has to know whether the older one was answered or
 * flushed: if not, the block is what was before both, and that may be in the journal only.  So
 * before anybody is told that the older one is durable, the journal says, durably, that it is in
 * its file.  (Intents that come later say so in their own records.)
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

#include <assert.h>
#include <errno.h>

/* The journal has become durable: some may go. */
void intents_ready(struct store *st)
{
	while (!cds_list_empty(&st->iwait)) {
		struct rec *r = cds_list_first_entry(&st->iwait, struct rec, rnode);
		if (r->ticket > st->jr.durable && !PLANTED(intent_unlogged))
			return;
		MARK(st_intent_ready);
		cds_list_del(&r->rnode);
		cds_list_add_tail(&r->rnode, &st->ready);
		co_cond_signal(&st->wcond);
	}
}

/* Ticket of a creation or removal that came after @r and voids it; 0: none. */
static uint64_t overtaken(const struct live *lv, const struct rec *r)
{
	if (lv->cur.base_ticket > r->ticket)
		return lv->cur.base_ticket;
	return lv->frz.base_ticket > r->ticket ? lv->frz.base_ticket : 0;
}

/* The creations that came before the intent, or with it, happen now. */
static co_fn int have_file(struct live *lv)
{
	struct store *st = lv->st;
	int r = 0;

	if (lv->cur.base == BASE_ZERO) {
		if (lv->frozen) {
			layer_clear(st, &lv->frz);
			lv->frz.base = BASE_VOID;
		}
		uint64_t ticket = lv->cur.base_ticket;
		r = file_make(lv, lv->cur.size, false); /* ~ */
		if (r == 0 && lv->cur.base_ticket == ticket)
			lv->cur.base = BASE_THROUGH;
		else if (r == 0 && lv->frozen && lv->frz.base_ticket == ticket)
			lv->frz.base = BASE_THROUGH;
	} else if (lv->frz.base == BASE_ZERO) {
		r = file_make(lv, lv->frz.size, false); /* ~ */
		if (r == 0)
			lv->frz.base = BASE_THROUGH;
	}
	return r;
}

/* Older data that waits to be written below the intent never will be: its blocks are the intent's
 * now. */
static void drop_older(struct store *st, struct layer *l, uint64_t ticket, uint32_t from,
		       uint32_t n)
{
	for (uint32_t b = from; l->nr && b < from + n; b++) {
		struct ent *e = layer_get(l, b);
		if (e && e->ticket < ticket)
			layer_del(st, l, b);
	}
}

static void drop_own(struct store *st, struct layer *l, uint64_t ticket, uint32_t from, uint32_t n)
{
	for (uint32_t b = from; l->nr && b < from + n; b++) {
		struct ent *e = layer_get(l, b);
		if (e && e->ticket == ticket)
			layer_del(st, l, b);
	}
}

static co_fn int in_place(struct live *lv, struct rec *r)
{
	struct store *st = lv->st;
	uint32_t from = r->blk + r->head, n = r->nr - r->head - r->tail;
	const uint8_t *data = r->seg[0].data + (size_t)r->head * BLK;

	assert(n && r->head + n <= r->seg[0].nr);
	int err = have_file(lv); /* ~ */
	if (err == 0)
		err = file_open(lv); /* ~ */
	if (err == 0)
		err = chunks_load(lv, from / CHUNK_BLKS, (from + n - 1) / CHUNK_BLKS); /* ~ */
	if (err < 0)
		return err;
	drop_older(st, &lv->frz, r->ticket, from, n);
	err = st_rw(st, ENV_IO_WRITE, lv->dfile ? lv->dfile->f : lv->file->f,
		    (void *)(uintptr_t)data, (size_t)n * BLK, (uint64_t)from * BLK,
		    lv->dfile ? ENV_IO_DIRECT : 0); /* ~ */
	if (err < 0)
		return err;
	for (uint32_t i = 0; i < n; i++)
		chunk_set(lv, from + i, r->crc[r->head + i]);
	drop_own(st, &lv->cur, r->ticket, from, n);
	drop_own(st, &lv->frz, r->ticket, from, n);
	return 0;
}

static void unsynced_add(struct live *lv, const struct rec *r)
{
	uint32_t end = r->blk + r->nr;

	if (!lv->in_unsynced) {
		lv->in_unsynced = true;
		lv->unsynced_first = r->ticket;
		cds_list_add_tail(&lv->unsynced_node, &lv->st->unsynced);
	}
	lv->unsynced_last = r->ticket;
	lv->over_from = lv->over_to && lv->over_from < r->blk ? lv->over_from : r->blk;
	lv->over_to = lv->over_to > end ? lv->over_to : end;
}

/* ---- statements ---- */

void intent_stack(struct live *lv, const struct rec *r)
{
	uint32_t end = r->blk + r->nr;
	bool over = r->blk < lv->over_to && lv->over_from < end;
	const struct rec *e;

	if (lv->st->conf.nosync || (r->flags & F_CREATE)) /* a creation voids what is below */
		return;
	cds_list_for_each_entry (e, &lv->intents, onode)
		over = over || (r->blk < e->blk + e->nr && e->blk < end);
	if (!over)
		return;
	if (!lv->stacked)
		cds_list_add_tail(&lv->stacked_node, &lv->st->stacked);
	lv->stacked = r->ticket;
}

/* Intents up to ticket @upto need no statement any more. */
void intents_unstack(struct live *lv, uint64_t upto)
{
	if (!lv->stacked || lv->stacked > upto)
		return;
	lv->stacked = 0;
	cds_list_del(&lv->stacked_node);
}

static int queue_state(struct live *lv)
{
	if (lv->synced_upto > lv->stated) {
		int r = journal_add_upto(lv);
		if (r < 0)
			return r;
		lv->stated = lv->synced_upto;
		lv->stated_at = lv->st->stated_at = lv->st->jr.queued;
	}
	intents_unstack(lv, lv->stated);
	return 0;
}

/* The journal says of the object's intents that are synced that they are. */
co_fn int intents_state(struct live *lv)
{
	struct store *st = lv->st;
	int r = lv->stacked ? queue_state(lv) : 0;

	/* also one that somebody else has queued */
	return r == 0 && lv->stated_at > st->jr.durable ? journal_sync(st, lv->stated_at)
							: r; /* ~ */
}

static co_fn int state_all(struct store *st)
{
	struct live *lv, *n;

	cds_list_for_each_entry_safe (lv, n, &st->stacked, stacked_node) {
		int r = queue_state(lv);
		if (r < 0)
			return r;
	}
	return st->stated_at > st->jr.durable ? journal_sync(st, st->stated_at) : 0; /* ~ */
}

/* ---- one intent ---- */

static void finish(struct rec *r)
{
	struct live *lv = r->lv;
	struct store *st = lv->st;

	cds_list_del(&r->onode);
	cds_list_del(&r->gnode);
	st->nr_intents--;
	co_cond_broadcast(&lv->icond);
	co_cond_broadcast(&st->icond);
	co_cond_broadcast(&st->room);
	rec_free(st, r);
	live_put(lv);
}

static co_fn void carry_out(struct store *st, struct rec *r)
{
	struct live *lv = r->lv;
	int err = 0;

	co_mutex_lock(&lv->io); /* ~ */
	uint64_t later = overtaken(lv, r);
	if (!later) {
		err = in_place(lv, r); /* ~ */
		if (err == 0 && !st->conf.nosync)
			unsynced_add(lv, r);
	}
	co_mutex_unlock(&lv->io);
	if (later && MARKED(st_intent_overtaken))
		err = journal_sync(st, later); /* ~ (J6) */
	else if (err == 0 && r->durable)
		err = PLANTED(meta_early) ? 0 : file_sync(lv); /* ~ */
	if (err < 0 && MARKED(st_intent_io))
		st_fail(st, err);
	else if (r->durable && !later && MARKED(st_intent_done))
		journal_add_done(st, r);
	finish(r);
}

void intent_main(void *arg)
{
	struct store *st = arg;

	for (;;) {
		if (!cds_list_empty(&st->ready) && !st->failed) {
			struct rec *r = cds_list_first_entry(&st->ready, struct rec, rnode);
			cds_list_del(&r->rnode);
			carry_out(st, r); /* ~ */
		} else if (st->stopping || st->failed) {
			return;
		} else {
			co_cond_wait(&st->wcond, "intents"); /* ~ */
		}
	}
}

static struct live *unsynced_before(struct store *st, uint64_t ticket)
{
	struct live *lv;

	cds_list_for_each_entry (lv, &st->unsynced, unsynced_node)
		if (lv->unsynced_first <= ticket)
			return lv;
	return NULL;
}

/* All intents up to @ticket are written, and what was written in place is durable. */
co_fn int intents_settle(struct store *st, uint64_t ticket)
{
	struct live *lv;

	while (!st->failed && !cds_list_empty(&st->intents) &&
	       cds_list_first_entry(&st->intents, struct rec, gnode)->ticket <= ticket)
		co_cond_wait(&st->icond, "large writes"); /* ~ */
	while (!st->failed && (lv = unsynced_before(st, ticket))) {
		lv->pins++;
		int r = file_sync(lv); /* ~ */
		live_put(lv);
		if (r < 0)
			return r;
	}
	return st->failed ? -EIO : state_all(st); /* ~ */
}
