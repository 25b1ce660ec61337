/* replace.c - whole objects: pulls, repair, settling torn ones, stale ones, format.
 *
 * Replacing and moving away happen outside of the journal: first a full round, so that the journal
 * has nothing of the object (the exclusive lock keeps it so), then one rename, synced.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc.h"
#include "lib/base/util.h"

struct store_replace {
	struct store_obj *o;
	struct env_file *file;
	uint64_t size;
	uint8_t copies;
	uint32_t nr_chunk;
	struct chunk **chunk;
	char name[OBJ_NAME_LEN + 8];
};

/* The journal has no record of the object any more. */
static co_fn int only_file(struct store_obj *o)
{
	struct store *st = o->st;

	assert(o->live && o->live->excl);
	if (st->failed)
		return -EIO;
	return live_journalled(o->live) ? round_full(st) : 0; /* ~ */
}

static co_fn void replace_free(struct store_replace *r)
{
	st_close_file(r->o->st, r->file); /* ~ */
	for (uint32_t c = 0; r->chunk && c < r->nr_chunk; c++)
		free(r->chunk[c]);
	free(r->chunk);
	free(r);
}

co_fn int store_replace_begin(struct store_obj *o, uint64_t size, uint8_t copies,
			      struct store_replace **ret)
{
	struct store *st = o->st;
	struct store_replace *r;

	assert(o->live && o->live->excl);
	if (st->failed)
		return -EIO;
	if (!size || size > OBJ_SIZE_MAX)
		return -EINVAL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->o = o;
	r->size = size;
	r->copies = copies;
	r->nr_chunk = size_chunks(size);
	r->chunk = calloc(r->nr_chunk, sizeof(struct chunk *));
	snprintf(r->name, sizeof(r->name), "%016" PRIx64 ".tmp", o->oid);
	int err = r->chunk ? 0 : -ENOMEM;
	if (err == 0)
		err = st_open_at(st, st->obj, r->name, O_RDWR | O_CREAT | O_TRUNC,
				 &r->file); /* ~ */
	if (err == 0)
		err = st_truncate(st, r->file, size_file(size)); /* ~ */
	if (err < 0) {
		replace_free(r); /* ~ */
		return err;
	}
	*ret = r;
	return 0;
}

static int replace_crc(struct store_replace *r, uint32_t blk, uint32_t crc)
{
	struct chunk **c = &r->chunk[blk / CHUNK_BLKS];
	uint32_t i = blk % CHUNK_BLKS;

	if (!*c && !(*c = calloc(1, sizeof(struct chunk))))
		return -ENOMEM;
	(*c)->crc[i] = crc;
	(*c)->data[i / 64] |= 1ull << (i % 64);
	return 0;
}

/* The last, short block of the object: with zeros behind it. */
static co_fn int replace_last(struct store_replace *r, uint64_t off, const uint8_t *p, size_t len)
{
	struct store *st = r->o->st;
	struct buf *b = buf_new(st->pool, BLK);

	if (!b)
		return -ENOMEM;
	memset(b->data, 0, BLK);
	memcpy(b->data, p, len);
	int err = replace_crc(r, (uint32_t)(off / BLK), crc32c(b->data, BLK));
	if (err == 0)
		err = st_rw(st, ENV_IO_WRITE, r->file, b->data, BLK, off, 0); /* ~ */
	buf_put(b);
	return err;
}

co_fn int store_replace_data(struct store_replace *r, uint64_t off, struct buf *data,
			     size_t data_off, uint64_t len)
{
	uint8_t *p = (uint8_t *)data->data + data_off;
	uint64_t whole = len / BLK * BLK;
	int err = 0;

	if (off > r->size || len > r->size - off || off % BLK ||
	    (len % BLK && off + len != r->size))
		return -EINVAL;
	if (!space_floor(r->o->st, len) && MARKED(st_replace_space))
		return -ENOSPC;
	space_took(r->o->st, len);
	for (uint64_t i = 0; err == 0 && i < whole; i += BLK)
		err = replace_crc(r, (uint32_t)((off + i) / BLK), crc32c(p + i, BLK));
	if (err == 0 && whole)
		err = st_rw(r->o->st, ENV_IO_WRITE, r->file, p, whole, off, 0); /* ~ */
	if (err == 0 && len > whole)
		err = replace_last(r, off + whole, p + whole, len - whole); /* ~ */
	return err;
}

static co_fn int replace_meta(struct store_replace *r, struct obj_ver ver)
{
	struct store *st = r->o->st;
	uint8_t one[SECTOR] __attribute__((aligned(8)));
	int err = 0;

	for (uint32_t c = 0; err == 0 && c < r->nr_chunk; c++) {
		if (!r->chunk[c])
			continue;
		sector_fill((void *)one, r->o->oid, c, r->chunk[c]);
		err = st_rw(st, ENV_IO_WRITE, r->file, one, SECTOR, sector_off(r->size, c),
			    0); /* ~ */
	}
	header_fill((void *)one, r->o->oid, r->size, r->copies, ver, 0, 0);
	if (err == 0)
		err = st_rw(st, ENV_IO_WRITE, r->file, one, SECTOR,
			    sector_off(r->size, r->nr_chunk), 0); /* ~ */
	if (err == 0 && !st->conf.nosync)
		err = st_sync_file(st, r->file, ENV_IO_FSYNC); /* ~ */
	return err;
}

/* The file @o has now is another one. */
static void became(struct store_obj *o, uint64_t size, uint8_t copies, struct obj_ver ver)
{
	struct live *lv = o->live;

	index_set(o, true);
	o->ver = lv->fver = ver;
	o->size = size;
	o->copies = lv->fcopies = copies;
	o->torn_blk = o->torn_nr = lv->torn_blk = lv->torn_nr = 0;
	index_saw(o->st, ver);
}

static co_fn int replace_swap(struct store_replace *r)
{
	struct store *st = r->o->st;
	struct live *lv = r->o->live;
	char name[OBJ_NAME_LEN];

	oid_name(r->o->oid, name);
	co_mutex_lock(&lv->io);	  /* ~ */
	co_mutex_lock(&lv->sync); /* ~ */
	assert(!lv->cur.nr && !lv->frz.nr && cds_list_empty(&lv->intents));
	int err = chunks_alloc(lv, r->size);
	if (err == 0)
		err = st_name_op(st, ENV_IO_RENAME, st->obj, r->name, NULL, name); /* ~ */
	if (err == 0) {
		file_forget(lv); /* the chunks are loaded from the new file when needed */
		lv->file_exists = true;
		layer_clear(st, &lv->cur);
		layer_init(&lv->cur);
		lv->dir_need = ++st->dir_changes;
	}
	co_mutex_unlock(&lv->sync);
	co_mutex_unlock(&lv->io);
	return err;
}

co_fn int store_replace_commit(struct store_replace *r, struct obj_ver ver)
{
	struct store_obj *o = r->o;
	struct store *st = o->st;
	int err = replace_meta(r, ver); /* ~ */

	if (err == 0)
		err = only_file(o); /* ~ */
	if (err < 0 && MARKED(st_replace_io)) {
		store_replace_abort(r); /* ~ */
		return err;
	}
	err = replace_swap(r); /* ~ */
	if (err == 0)
		err = dir_sync(st, o->live->dir_need); /* ~ */
	if (err == 0 && MARKED(st_replaced))
		became(o, r->size, r->copies, ver);
	else
		st_fail(st, err); /* is it the old one or the new one? */
	replace_free(r);	  /* ~ */
	return err;
}

co_fn void store_replace_abort(struct store_replace *r)
{
	MARK(st_replace_abort);
	st_name_op(r->o->st, ENV_IO_UNLINK, r->o->st->obj, r->name, NULL, NULL); /* ~ */
	replace_free(r);							 /* ~ */
}

/* ---- repair, settle ---- */

co_fn int store_repair(struct store_obj *o, struct obj_ver ver, uint64_t off, struct buf *data,
		       size_t data_off, uint64_t len)
{
	const uint64_t step = STORE_INTENT_MIN - BLK; /* journalled, so never torn */
	struct store_write w = {.ver = ver};

	if (!o->exists)
		return -ENOENT;
	if (obj_ver_cmp(o->ver, ver) && MARKED(st_repair_other))
		return -ESTALE;
	if (off % BLK || off > o->size || len > o->size - off ||
	    (len % BLK && off + len != o->size))
		return -EINVAL;
	for (uint64_t at = 0; at < len; at += w.len) {
		w = (struct store_write){
			.ver = ver,
			.off = off + at,
			.len = len - at < step ? len - at : step,
			.data = data,
			.data_off = data_off + at,
			.durable = true,
		};
		int r = store_prepare(o, &w); /* ~ */
		if (r == 0)
			r = store_queue(o, &w);
		if (r < 0)
			return r;
	}
	return len ? store_wait(o->st, &w) : 0; /* ~ the last is durable after all others */
}

/* New checksums for the torn blocks that have none that fits. */
static co_fn int settle_blocks(struct live *lv)
{
	struct buf *b = buf_new(lv->st->pool, BLK);
	int r = b ? 0 : -ENOMEM;

	for (uint32_t i = 0; r == 0 && i < lv->torn_nr; i++) {
		uint32_t blk = lv->torn_blk + i, crc = 0;
		r = chunks_load(lv, blk / CHUNK_BLKS, blk / CHUNK_BLKS); /* ~ */
		if (r == 0)
			r = st_rw(lv->st, ENV_IO_READ, lv->file->f, b->data, BLK,
				  (uint64_t)blk * BLK, ENV_IO_NOWAIT); /* ~ */
		if (r < 0)
			break;
		enum blk_state s = chunk_state(lv, blk, &crc);
		uint32_t now = crc32c(b->data, BLK);
		if ((s == BLK_BAD || (s == BLK_DATA && crc != now)) && MARKED(st_settle_block))
			chunk_set(lv, blk, now);
	}
	buf_put(b);
	return r;
}

co_fn int store_settle(struct store_obj *o, struct obj_ver ver)
{
	struct store *st = o->st;
	struct live *lv = o->live;
	int r = only_file(o); /* ~ */

	if (r < 0)
		return r;
	if (!o->exists)
		return -ENOENT;
	co_mutex_lock(&lv->io); /* ~ */
	r = file_open(lv);	/* ~ */
	if (r == 0)
		r = settle_blocks(lv); /* ~ */
	if (r == 0)
		r = meta_write(lv); /* ~ still torn */
	if (r == 0)
		r = file_sync(lv); /* ~ */
	if (r == 0) {
		lv->torn_blk = lv->torn_nr = 0;
		lv->fver = ver;
		r = meta_write(lv); /* ~ */
	}
	if (r == 0)
		r = file_sync(lv); /* ~ */
	co_mutex_unlock(&lv->io);
	if (r < 0)
		st_fail(st, r);
	else
		became(o, o->size, o->copies, ver);
	return r;
}

/* ---- stale ---- */

co_fn int store_stale(struct store_obj *o, uint32_t epoch)
{
	struct store *st = o->st;
	struct live *lv = o->live;
	char name[OBJ_NAME_LEN], to[OBJ_NAME_LEN + 16];
	int r = only_file(o); /* ~ */

	if (r < 0)
		return r;
	if (!o->exists)
		return -ENOENT;
	oid_name(o->oid, name);
	snprintf(to, sizeof(to), "%s.%u", name, epoch);
	co_mutex_lock(&lv->io);						 /* ~ */
	r = st_name_op(st, ENV_IO_RENAME, st->obj, name, st->stale, to); /* ~ */
	co_mutex_lock(&lv->sync);					 /* ~ */
	if (r == 0) {
		file_forget(lv);
		lv->file_exists = false;
		lv->torn_blk = lv->torn_nr = 0;
		lv->dir_need = ++st->dir_changes;
		index_set(o, false);
	}
	co_mutex_unlock(&lv->sync);
	co_mutex_unlock(&lv->io);
	if (r < 0)
		return r;
	if (!st->conf.nosync)
		r = st_sync_file(st, st->stale, ENV_IO_FSYNC); /* ~ */
	if (r == 0)
		r = dir_sync(st, lv->dir_need); /* ~ */
	if (r < 0)
		st_fail(st, r);
	return r;
}

static co_fn int remove_all(struct store *st, struct env_file *d)
{
	char **names = NULL;
	int r = st_list(st, d, &names); /* ~ */

	for (unsigned i = 0; r == 0 && names[i]; i++) {
		if (!strcmp(names[i], ".stale"))
			continue;
		r = st_name_op(st, ENV_IO_UNLINK, d, names[i], NULL, NULL); /* ~ */
		if (r == -ENOENT)
			r = 0;
	}
	st_free_names(names);
	if (r == 0 && !st->conf.nosync)
		r = st_sync_file(st, d, ENV_IO_FSYNC); /* ~ */
	return r;
}

co_fn int store_purge_stale(struct store *st)
{
	return st->conf.gateway ? 0 : remove_all(st, st->stale); /* ~ */
}

/* ---- format ---- */

co_fn int store_format(struct store *st)
{
	if (st->conf.gateway)
		return 0;
	if (st->failed)
		return -EIO;
	if (st->nr_held)
		return -EBUSY;
	int r = round_full(st); /* ~ the journal has nothing any more */
	if (r == 0 && st->nr_held)
		r = -EBUSY;
	if (r < 0)
		return r;
	live_drop_all(st); /* ~ */
	if (st->nr_held || st->nr_live)
		return -EBUSY;
	index_free_all(st);
	st->max_gen = 0;
	r = remove_all(st, st->obj); /* ~ */
	if (r == 0)
		r = remove_all(st, st->stale); /* ~ */
	if (r < 0)
		st_fail(st, r);
	return r;
}
