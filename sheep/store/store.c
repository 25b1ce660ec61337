/* store.c - open, close, format, waiting for durability; small I/O helpers.  See store.h and
 * store_int.h.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"

/* ---- I/O helpers ---- */

co_fn int st_open_at(struct store *st, struct env_file *dir, const char *name, int flags,
		     struct env_file **ret)
{
	struct env_io io = {
		.op = ENV_IO_OPEN,
		.file = dir,
		.name = name,
		.flags = (unsigned)flags | O_CLOEXEC,
		.mode = 0644,
	};
	int64_t r = co_io(st->s, &io); /* ~ */

	*ret = r < 0 ? NULL : io.result_file;
	return r < 0 ? (int)r : 0;
}

co_fn void st_close_file(struct store *st, struct env_file *f)
{
	struct env_io io = {.op = ENV_IO_CLOSE, .file = f};

	if (f)
		co_io(st->s, &io); /* ~ */
}

co_fn int st_sync_file(struct store *st, struct env_file *f, enum env_io_op op)
{
	struct env_io io = {.op = op, .file = f};
	int64_t r = co_io(st->s, &io); /* ~ */

	return r < 0 ? (int)r : 0;
}

co_fn int st_rw(struct store *st, enum env_io_op op, struct env_file *f, void *data, size_t len,
		uint64_t off, unsigned flags)
{
	struct iovec v = {.iov_base = data, .iov_len = len};
	struct env_io io = {
		.op = op, .flags = flags, .file = f, .iov = &v, .iovcnt = 1, .off = off};
	int64_t r = co_io(st->s, &io); /* ~ */

	if (r < 0)
		return (int)r;
	return (uint64_t)r == len ? 0 : -EIO;
}

co_fn int st_name_op(struct store *st, enum env_io_op op, struct env_file *d, const char *name,
		     struct env_file *d2, const char *name2)
{
	struct env_io io = {
		.op = op, .file = d, .file2 = d2, .name = name, .name2 = name2, .mode = 0755};
	int64_t r = co_io(st->s, &io); /* ~ */

	return r < 0 ? (int)r : 0;
}

co_fn int st_truncate(struct store *st, struct env_file *f, uint64_t len)
{
	struct env_io io = {.op = ENV_IO_TRUNCATE, .file = f, .off = len};
	int64_t r = co_io(st->s, &io); /* ~ */

	return r < 0 ? (int)r : 0;
}

co_fn int st_list(struct store *st, struct env_file *d, char ***ret)
{
	struct env_io io = {.op = ENV_IO_LIST, .file = d};
	int64_t r = co_io(st->s, &io); /* ~ */

	*ret = r < 0 ? NULL : io.names;
	return r < 0 ? (int)r : 0;
}

void st_free_names(char **names)
{
	for (unsigned i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}

void st_says(char **err, const char *fmt, ...)
{
	va_list ap;

	if (!err || *err)
		return;
	va_start(ap, fmt);
	if (vasprintf(err, fmt, ap) < 0)
		*err = NULL;
	va_end(ap);
}

/* Nothing is certain any more: everybody who waits is told. */
void st_fail(struct store *st, int err)
{
	struct rec *r;

	if (st->failed)
		return;
	MARK(st_failed);
	st->failed = err;
	journal_wake_all(st);
	cds_list_for_each_entry (r, &st->intents, gnode)
		co_cond_broadcast(&r->lv->icond);
	co_cond_broadcast(&st->icond);
	co_cond_broadcast(&st->wcond);
	co_cond_broadcast(&st->rcond);
	co_cond_broadcast(&st->rdone);
	co_cond_broadcast(&st->room);
}

/* ---- open ---- */

static struct store *st_new(struct co_sched *s, struct env *env, const struct store_conf *conf)
{
	struct store *st = calloc(1, sizeof(*st));

	if (!st)
		return NULL;
	st->s = s;
	st->env = env;
	st->conf = *conf;
	st->pool = buf_pool_new(STORE_POOL_KEEP);
	if (!st->pool) {
		free(st);
		return NULL;
	}
	map_init(&st->map);
	struct cds_list_head *lists[] = {
		&st->lru,     &st->dirty,	&st->frozen,	      &st->synced,
		&st->touched, &st->syncing,	&st->unsynced,	      &st->stacked,
		&st->intents, &st->iwait,	&st->ready,	      &st->jr.queue,
		&st->jr.lazy, &st->jr.inflight, &st->jr.wait_written, &st->jr.wait_durable};
	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++)
		CDS_INIT_LIST_HEAD(lists[i]);
	struct co_cond *conds[] = {&st->room,  &st->icond, &st->wcond,
				   &st->rcond, &st->rdone, &st->scond};
	for (unsigned i = 0; i < ARRAY_SIZE(conds); i++)
		co_cond_init(conds[i]);
	co_mutex_init(&st->dir_mutex);
	co_group_init(&st->group);
	st->rtimer.fn = round_timer;
	return st;
}

/* The directory @name of @at, made if it is not there. */
static co_fn int have_dir(struct store *st, struct env_file *at, const char *name,
			  struct env_file **ret)
{
	int r = st_open_at(st, at, name, O_RDONLY | O_DIRECTORY, ret); /* ~ */

	if (r != -ENOENT)
		return r;
	r = st_name_op(st, ENV_IO_MKDIR, at, name, NULL, NULL); /* ~ */
	if (r < 0 && r != -EEXIST)
		return r;
	return st_open_at(st, at, name, O_RDONLY | O_DIRECTORY, ret); /* ~ */
}

static co_fn int open_dirs(struct store *st, bool fresh, char **err)
{
	int r = fresh ? have_dir(st, st->dir, "obj", &st->obj)				  /* ~ */
		      : st_open_at(st, st->dir, "obj", O_RDONLY | O_DIRECTORY, &st->obj); /* ~ */

	if (r == -ENOENT)
		st_says(err,
			"%s/obj is missing: is its disk mounted? If the objects are really gone, "
			"give an empty directory; the data will come from the other nodes",
			st->conf.dir);
	if (r == 0)
		r = have_dir(st, st->obj, ".stale", &st->stale); /* ~ */
	if (r == 0 && !st->conf.nosync)
		r = st_sync_file(st, st->obj, ENV_IO_FSYNC); /* ~ */
	if (r == 0 && !st->conf.nosync)
		r = st_sync_file(st, st->dir, ENV_IO_FSYNC); /* ~ */
	if (r == 0 && !st->conf.nosync && !PLANTED(start_unsynced) && MARKED(st_start_sync))
		r = st_sync_file(st, st->dir, ENV_IO_SYNCFS); /* ~ before any version is answered */
	if (r < 0 && MARKED(st_open_dirs))
		st_says(err, "Cannot open %s/obj: %s", st->conf.dir, strerror(-r));
	return r;
}

static void ident_new(struct store *st)
{
	env_random(st->env, st->ident.uuid, sizeof(st->ident.uuid));
	st->ident.uuid[6] = (st->ident.uuid[6] & 0x0f) | 0x40; /* RFC 4122, random */
	st->ident.uuid[8] = (st->ident.uuid[8] & 0x3f) | 0x80;
}

/* This start counts: only now, when nothing can go wrong any more.  The clean mark of before stays
 * in memory for whoever asks. */
static co_fn int ident_start(struct store *st)
{
	struct store_ident *id = &st->ident, said;

	memcpy(id->prev_boot_id, id->boot_id, sizeof(id->prev_boot_id));
	env_boot_id(st->env, id->boot_id);
	id->start++;
	if (!id->space && !st->conf.gateway)
		id->space = st->fs_free;
	said = *id;
	id->clean_epoch = 0;
	memset(id->clean_name, 0, sizeof(id->clean_name));
	st->journal_prev = 0;
	int r = config_write(st); /* ~ */
	if (r < 0)
		MARK(st_ident_io);
	*id = said;
	return r;
}

static co_fn int open_objects(struct store *st, bool fresh, char **err)
{
	int r = open_dirs(st, fresh, err); /* ~ */

	if (r == 0)
		r = journal_open(st, fresh, err); /* ~ */
	if (r == 0)
		r = index_scan(st, err); /* ~ */
	if (r == 0 && !fresh && !st->conf.journal_skip) {
		r = replay(st, err); /* ~ */
		if (r == 0)
			r = journal_settle(st, err); /* ~ */
	}
	return r;
}

static int start_background(struct store *st)
{
	int r = 0;

	st->jr.idle = false;
	st->opened = true;
	for (unsigned i = 0; r == 0 && i < INTENT_WORKERS; i++)
		r = co_group_start(st->s, &st->group, intent_main, st, "store intent");
	if (r == 0)
		r = co_group_start(st->s, &st->group, round_main, st, "store rounds");
	if (r == 0)
		r = co_group_start(st->s, &st->group, journal_main, st, "store journal");
	return r;
}

static co_fn int do_open(struct store *st, char **err)
{
	int r = have_dir(st, NULL, st->conf.dir, &st->dir); /* ~ */

	if (r < 0) {
		st_says(err, "Cannot open the store directory %s: %s", st->conf.dir, strerror(-r));
		return r;
	}
	r = config_lock(st, err); /* ~ */
	if (r == 0)
		r = config_read(st, err); /* ~ */
	if (r < 0)
		return r;
	bool fresh = r == 0;
	if (fresh)
		ident_new(st);
	fresh = fresh || !st->journal_id;			 /* a gateway until now */
	r = st->conf.gateway ? 0 : open_objects(st, fresh, err); /* ~ */
	if (r == 0)
		r = space_open(st); /* ~ */
	if (r == 0)
		r = ident_start(st); /* ~ */
	if (r == 0 && !st->conf.gateway)
		r = start_background(st);
	return r;
}

/* ---- close ---- */

/* What a failed store has left: nobody waits for it. */
static void drop_rest(struct store *st)
{
	struct cds_list_head *lists[] = {&st->jr.queue, &st->jr.inflight};
	struct rec *r, *n;
	size_t pos = 0;
	struct store_obj *o;

	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++)
		cds_list_for_each_entry_safe (r, n, lists[i], node) {
			cds_list_del(&r->node);
			if (r->kind != REC_INTENT)
				rec_free(st, r);
		}
	cds_list_for_each_entry_safe (r, n, &st->intents, gnode) {
		cds_list_del(&r->gnode);
		cds_list_del(&r->onode);
		r->lv->pins--;
		rec_free(st, r);
	}
	while ((o = map_next(&st->map, &pos, NULL))) {
		struct live *lv = o->live;
		if (!lv || lv->in_lru)
			continue;
		assert(!lv->pins && !lv->readers && !lv->excl);
		lv->dirty = lv->frozen = lv->touched = lv->in_unsynced = lv->in_lru = false;
		intents_unstack(lv, UINT64_MAX);
		layer_clear(st, &lv->cur);
		layer_clear(st, &lv->frz);
		lv->in_lru = true;
		st->nr_lru++;
		cds_list_add_tail(&lv->lru_node, &st->lru);
	}
}

static co_fn void stop_background(struct store *st)
{
	if (st->opened && !st->failed) {
		int r = store_flush(st); /* ~ */
		if (r == 0)
			round_full(st); /* ~ */
	}
	st->stopping = true;
	env_timer_del(st->env, &st->rtimer);
	co_cond_broadcast(&st->wcond);
	co_cond_broadcast(&st->rcond);
	journal_kick(st);
	co_group_wait(&st->group); /* ~ */
	if (st->opened && !st->failed)
		journal_super(st, st->jr.vhead, st->jr.gseq,
			      true); /* ~ else replay finds nothing */
}

static co_fn void st_free(struct store *st)
{
	if (!st->conf.gateway) {
		stop_background(st); /* ~ */
		drop_rest(st);
		live_drop_all(st); /* ~ */
		journal_close(st); /* ~ */
	}
	while (st->statfs_busy)
		co_cond_wait(&st->scond, "statfs"); /* ~ */
	index_free_all(st);
	st_close_file(st, st->stale); /* ~ */
	st_close_file(st, st->obj);   /* ~ */
	st_close_file(st, st->lock);  /* ~ */
	st_close_file(st, st->dir);   /* ~ */
	assert(st->mem == 0);
	assert(st->nr_live == 0);
	pools_free(st);
	buf_pool_free(st->pool);
	free(st);
}

co_fn int store_open(struct co_sched *s, struct env *env, const struct store_conf *conf,
		     struct store **ret, char **err)
{
	struct store *st = st_new(s, env, conf);

	if (err)
		*err = NULL;
	if (!st)
		return -ENOMEM;
	int r = do_open(st, err); /* ~ */
	if (r < 0 && MARKED(st_open_failed)) {
		st_says(err, "Cannot open the store %s: %s", conf->dir, strerror(-r));
		if (!st->failed)
			st->failed = r;
		st_free(st); /* ~ */
		return r;
	}
	*ret = st;
	return 0;
}

co_fn void store_close(struct store *st)
{
	assert(st->nr_held == 0);
	st_free(st); /* ~ */
}

const struct store_ident *store_ident(const struct store *st)
{
	return &st->ident;
}

struct env_file *store_dir(const struct store *st)
{
	return st->dir;
}

bool store_failed(const struct store *st)
{
	return st->failed != 0;
}

co_fn int store_mark_clean(struct store *st, uint32_t epoch, const uint8_t name[8])
{
	struct store_ident had = st->ident;

	if (st->failed)
		return -EIO;
	int r = st->conf.gateway ? 0 : round_full(st); /* ~ */
	if (r < 0)
		return r;
	st->ident.clean_epoch = epoch;
	memcpy(st->ident.clean_name, name, sizeof(st->ident.clean_name));
	r = config_write(st); /* ~ */
	if (r < 0 && MARKED(st_clean_io))
		st->ident = had;
	return r;
}

/* ---- durability ---- */

/* Earlier large writes of the object come first (S4). */
static co_fn int wait_object(struct store *st, const struct store_write *w)
{
	struct store_obj *o = index_find(st, w->oid);
	struct live *lv = o ? o->live : NULL;
	int r = 0;

	if (!lv || (cds_list_empty(&lv->intents) && !lv->in_unsynced && !lv->stacked &&
		    lv->stated_at <= st->jr.durable))
		return 0;
	lv->pins++;
	while (!st->failed && !cds_list_empty(&lv->intents) &&
	       cds_list_first_entry(&lv->intents, struct rec, onode)->ticket <= w->ticket) {
		MARK(st_wait_large);
		co_cond_wait(&lv->icond, "large write"); /* ~ */
	}
	if (st->failed && MARKED(st_wait_failed))
		r = -EIO;
	else if (w->durable && lv->in_unsynced && lv->unsynced_first <= w->ticket)
		r = file_sync(lv); /* ~ */
	if (r == 0 && w->durable)
		r = intents_state(lv); /* ~ */
	live_put(lv);
	return r;
}

co_fn int store_wait(struct store *st, struct store_write *w)
{
	int r = journal_wait(st, w->ticket, w->durable); /* ~ */

	if (r == 0 && (st->nr_intents || !cds_list_empty(&st->unsynced) ||
		       !cds_list_empty(&st->stacked) || st->stated_at > st->jr.durable))
		r = wait_object(st, w); /* ~ */
	while (r == 0 && w->no_room && !st->failed && journal_used(st) > st->jr.area / 4 * 3) {
		MARK(st_wait_room);
		round_poke(st); /* removals take no room beforehand: they pay here */
		co_cond_wait(&st->room, "room in the journal"); /* ~ */
	}
	w->error = r;
	return r;
}

co_fn int store_flush(struct store *st)
{
	if (st->conf.gateway)
		return 0;
	if (st->failed)
		return -EIO;
	uint64_t upto = st->jr.queued;
	int r = journal_sync(st, upto); /* ~ */
	if (r == 0)
		r = intents_settle(st, upto); /* ~ */
	if (r < 0 && MARKED(st_flush_failed))
		st_fail(st, r);
	return r;
}
