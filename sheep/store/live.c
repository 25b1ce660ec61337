/* live.c - the state of objects in use: locks, pins, and which of them stay in memory.
 *
 * An object has a struct live while it is locked, pinned, has records in the journal, or was used
 * lately.  Lock: shared or exclusive, first come first served.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"

#include <assert.h>
#include <stdlib.h>

struct lock_wait {
	struct cds_list_head node;
	struct co *co;
	bool excl, granted;
};

bool live_journalled(const struct live *lv)
{
	return lv->dirty || lv->frozen || lv->touched;
}

static bool live_at_rest(struct live *lv)
{
	return !lv->pins && !lv->readers && !lv->excl && cds_list_empty(&lv->waiters) &&
	       !live_journalled(lv) && cds_list_empty(&lv->intents) && !lv->in_unsynced;
}

static struct live *live_new(struct store_obj *o)
{
	struct live *lv = calloc(1, sizeof(*lv));
	if (!lv)
		return NULL;
	lv->o = o;
	lv->st = o->st;
	CDS_INIT_LIST_HEAD(&lv->waiters);
	CDS_INIT_LIST_HEAD(&lv->intents);
	co_cond_init(&lv->icond);
	co_mutex_init(&lv->io);
	co_mutex_init(&lv->sync);
	layer_init(&lv->cur);
	layer_init(&lv->frz);
	if (o->exists) {
		lv->file_exists = true;
		lv->fver = o->ver;
		lv->fcopies = o->copies;
		lv->torn_blk = o->torn_blk;
		lv->torn_nr = o->torn_nr;
		if (chunks_alloc(lv, o->size) < 0) {
			free(lv);
			return NULL;
		}
	}
	o->live = lv;
	o->st->nr_live++;
	return lv;
}

static void live_free(struct live *lv)
{
	struct store *st = lv->st;
	struct store_obj *o = lv->o;

	assert(live_at_rest(lv) && !lv->stacked);
	if (lv->in_lru) {
		cds_list_del(&lv->lru_node);
		st->nr_lru--;
	}
	layer_clear(st, &lv->cur);
	layer_clear(st, &lv->frz);
	file_forget(lv);
	free(lv->chunk);
	o->live = NULL;
	st->nr_live--;
	free(lv);
	if (!o->exists)
		index_forget(o);
}

void live_trim(struct store *st, unsigned keep)
{
	while (!cds_list_empty(&st->lru) &&
	       (st->nr_lru > keep || st->chunk_bytes > CHUNK_BYTES_MAX))
		live_free(cds_list_first_entry(&st->lru, struct live, lru_node));
}

struct live *live_get(struct store_obj *o)
{
	struct live *lv = o->live ? o->live : live_new(o);
	if (!lv)
		return NULL;
	if (lv->in_lru) {
		cds_list_del(&lv->lru_node);
		lv->in_lru = false;
		lv->st->nr_lru--;
	}
	lv->pins++;
	return lv;
}

/* It may be at rest now: keep it for a while if its object exists. */
static void live_rest(struct live *lv)
{
	struct store *st = lv->st;

	if (!live_at_rest(lv))
		return;
	if (!lv->o->exists) {
		live_free(lv);
		return;
	}
	assert(!lv->in_lru);
	lv->in_lru = true;
	cds_list_add_tail(&lv->lru_node, &st->lru);
	st->nr_lru++;
	live_trim(st, LIVE_MAX);
}

void live_put(struct live *lv)
{
	assert(lv->pins > 0);
	lv->pins--;
	live_rest(lv);
}

/* The object has a record in the journal's queue: the next round takes it. */
void live_mark_dirty(struct live *lv)
{
	struct store *st = lv->st;

	if (lv->dirty)
		return;
	lv->dirty = true;
	cds_list_add_tail(&lv->dirty_node, &st->dirty);
	st->nr_dirty++;
	if (!st->rtimer_armed && st->opened && !st->stopping) {
		st->rtimer_armed = true;
		env_timer_set(st->env, &st->rtimer, env_now(st->env) + AGE_NS);
	}
}

co_fn void live_drop_all(struct store *st)
{
	while (!cds_list_empty(&st->lru))
		live_free(cds_list_first_entry(&st->lru, struct live, lru_node));
	while (st->nr_closing)
		co_cond_wait(&st->scond, "closing files"); /* ~ */
}

/* ---- the lock ---- */

static bool lock_free(const struct live *lv, bool excl)
{
	return !lv->excl && (!excl || !lv->readers);
}

static void lock_take(struct live *lv, bool excl)
{
	if (excl)
		lv->excl = true;
	else
		lv->readers++;
}

static void lock_next(struct live *lv)
{
	while (!cds_list_empty(&lv->waiters)) {
		struct lock_wait *w = cds_list_first_entry(&lv->waiters, struct lock_wait, node);
		if (!lock_free(lv, w->excl))
			return;
		cds_list_del(&w->node);
		lock_take(lv, w->excl);
		w->granted = true;
		co_wake(w->co);
	}
}

static struct live *get_live(struct store *st, uint64_t oid)
{
	struct store_obj *o = index_find(st, oid);
	if (!o && !(o = index_add(st, oid)))
		return NULL;
	struct live *lv = live_get(o);
	if (!lv && !o->exists)
		index_forget(o);
	return lv;
}

co_fn struct store_obj *store_get(struct store *st, uint64_t oid, bool excl)
{
	struct live *lv;

	assert(!st->conf.gateway);
	while (!(lv = get_live(st, oid)) && MARKED(st_live_nomem))
		co_sleep(10000000); /* ~ memory is short: others will give some back */
	st->nr_held++;
	if (cds_list_empty(&lv->waiters) && lock_free(lv, excl)) {
		lock_take(lv, excl);
		return lv->o;
	}
	MARK(st_lock_waits);
	struct lock_wait w = {.co = co_self(), .excl = excl};
	cds_list_add_tail(&w.node, &lv->waiters);
	while (!w.granted)
		co_park("object lock"); /* ~ */
	return lv->o;
}

void store_put(struct store_obj *o)
{
	struct live *lv = o->live;
	struct store *st = o->st;

	assert(lv && (lv->excl || lv->readers) && st->nr_held > 0);
	st->nr_held--;
	if (lv->excl)
		lv->excl = false;
	else
		lv->readers--;
	lock_next(lv);
	live_put(lv);
}
