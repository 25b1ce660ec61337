/* file.c - one object file: handles, header, checksum sectors (chunks).
 *
 * Chunks are loaded when they are needed and say what the file holds; a sector whose own checksum
 * is wrong makes its blocks "bad" until they are written anew.
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

enum { OPEN_TRIES = 8 };

void oid_name(uint64_t oid, char name[OBJ_NAME_LEN])
{
	snprintf(name, OBJ_NAME_LEN, "%016" PRIx64, oid);
}

static bool bit_get(const uint64_t *map, uint32_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static void bit_put(uint64_t *map, uint32_t i, bool on)
{
	map[i / 64] = (map[i / 64] & ~(1ull << (i % 64))) | (uint64_t)on << (i % 64);
}

/* ---- handles ---- */

static void ofile_closed(struct env_io *io)
{
	struct ofile *f = io->arg;
	struct store *st = f->st;

	free(f);
	if (--st->nr_closing == 0)
		co_cond_broadcast(&st->scond);
}

void ofile_close(struct ofile *f)
{
	if (!f)
		return;
	f->io = (struct env_io){.op = ENV_IO_CLOSE, .file = f->f, .done = ofile_closed, .arg = f};
	f->st->nr_closing++;
	env_io_submit(f->st->env, &f->io);
}

/* Out of file handles: give up half of those at rest, and try again. */
static co_fn int ofile_open(struct store *st, struct env_file *dir, const char *name, int flags,
			    struct ofile **ret)
{
	struct ofile *f = calloc(1, sizeof(*f));
	int r = -ENOMEM;

	for (unsigned i = 0; f && i < OPEN_TRIES; i++) {
		r = st_open_at(st, dir, name, flags, &f->f); /* ~ */
		if (r != -EMFILE && r != -ENFILE)
			break;
		MARK(st_no_handles);
		live_trim(st, st->nr_lru / 2);
		while (st->nr_closing)
			co_cond_wait(&st->scond, "closing files"); /* ~ */
	}
	if (r < 0) {
		free(f);
		return r;
	}
	f->st = st;
	*ret = f;
	return 0;
}

/* With -D; a file system that cannot do without its page cache is fine too. */
static co_fn void open_direct(struct live *lv, const char *name)
{
	struct ofile *f;

	if (!lv->st->conf.directio || lv->dfile)
		return;
	if (ofile_open(lv->st, lv->st->obj, name, O_RDWR | O_DIRECT, &f) < 0) /* ~ */
		return;
	if (lv->dfile)
		ofile_close(f);
	else
		lv->dfile = f;
}

co_fn int file_open(struct live *lv)
{
	char name[OBJ_NAME_LEN];
	struct ofile *f;

	if (lv->file)
		return 0;
	oid_name(lv->o->oid, name);
	int r = ofile_open(lv->st, lv->st->obj, name, O_RDWR, &f); /* ~ */
	if (r < 0)
		return r == -ENOENT && MARKED(st_file_gone) ? -EIO : r;
	if (lv->file) {
		ofile_close(f); /* somebody else was faster */
		return 0;
	}
	lv->file = f;
	open_direct(lv, name); /* ~ */
	return 0;
}

static void chunks_free(struct live *lv)
{
	for (uint32_t c = 0; c < lv->nr_chunk; c++)
		if (lv->chunk[c]) {
			free(lv->chunk[c]);
			lv->st->chunk_bytes -= sizeof(struct chunk);
			lv->chunk[c] = NULL;
		}
}

void file_forget(struct live *lv)
{
	chunks_free(lv);
	ofile_close(lv->file);
	ofile_close(lv->dfile);
	lv->file = lv->dfile = NULL;
}

int chunks_alloc(struct live *lv, uint64_t size)
{
	uint32_t n = size_chunks(size);
	struct chunk **v = calloc(n, sizeof(struct chunk *));

	if (!v)
		return -ENOMEM;
	chunks_free(lv);
	free(lv->chunk);
	lv->chunk = v;
	lv->nr_chunk = n;
	lv->fsize = size;
	return 0;
}

/* A file of zeros for an object of @size: new, or what was there is given up (but for the data when
 * @keep_data: replay has intents in it).  The header is the caller's to write. */
co_fn int file_make(struct live *lv, uint64_t size, bool keep_data)
{
	struct store *st = lv->st;
	char name[OBJ_NAME_LEN];
	struct ofile *f;

	oid_name(lv->o->oid, name);
	int r = ofile_open(st, st->obj, name, O_RDWR | O_CREAT, &f); /* ~ */
	if (r < 0)
		return r;
	lv->dir_need = ++st->dir_changes;
	if (!keep_data)
		r = st_truncate(st, f->f, 0); /* ~ */
	if (r == 0)
		r = st_truncate(st, f->f, size_file(size)); /* ~ */
	co_mutex_lock(&lv->sync);			    /* ~ */
	if (r == 0)
		r = chunks_alloc(lv, size);
	if (r == 0)
		for (uint32_t c = 0; r == 0 && c < lv->nr_chunk; c++) {
			lv->chunk[c] = calloc(1, sizeof(struct chunk));
			if (!lv->chunk[c])
				r = -ENOMEM;
			else
				st->chunk_bytes += sizeof(struct chunk);
			if (r == 0)
				lv->chunk[c]->dirty = keep_data;
		}
	if (r < 0) {
		ofile_close(f);
	} else {
		ofile_close(lv->file);
		ofile_close(lv->dfile);
		lv->file = f;
		lv->dfile = NULL;
		lv->file_exists = true;
		lv->torn_blk = lv->torn_nr = 0;
	}
	co_mutex_unlock(&lv->sync);
	if (r == 0)
		open_direct(lv, name); /* ~ */
	return r;
}

co_fn int file_unlink(struct live *lv)
{
	struct store *st = lv->st;
	char name[OBJ_NAME_LEN];

	oid_name(lv->o->oid, name);
	int r = st_name_op(st, ENV_IO_UNLINK, st->obj, name, NULL, NULL); /* ~ */
	if (r < 0 && r != -ENOENT)
		return r;
	co_mutex_lock(&lv->sync); /* ~ nobody syncs it now */
	file_forget(lv);
	lv->file_exists = false;
	lv->torn_blk = lv->torn_nr = 0;
	lv->dir_need = ++st->dir_changes;
	co_mutex_unlock(&lv->sync);
	return 0;
}

/* ---- header ---- */

static uint32_t sum_of(void *p, size_t len, uint32_t *field)
{
	uint32_t had = *field;

	*field = 0;
	uint32_t sum = crc32c(p, len);
	*field = had;
	return sum;
}

void header_fill(struct obj_header *h, uint64_t oid, uint64_t size, uint8_t copies,
		 struct obj_ver ver, uint32_t torn_blk, uint32_t torn_nr)
{
	*h = (struct obj_header){
		.magic = OBJ_MAGIC,
		.format = STORE_FORMAT,
		.oid = oid,
		.gen = ver.gen,
		.seq = ver.seq,
		.size = size,
		.copies = copies,
		.torn_blk = torn_blk,
		.torn_nr = torn_nr,
	};
	h->sum = sum_of(h, sizeof(*h), &h->sum);
}

static bool header_good(struct obj_header *h, uint64_t oid, uint64_t len)
{
	return h->magic == OBJ_MAGIC && h->sum == sum_of(h, sizeof(*h), &h->sum) &&
	       h->format == STORE_FORMAT && h->oid == oid && h->size && h->size <= OBJ_SIZE_MAX &&
	       size_file(h->size) == len && h->torn_blk <= size_blks(h->size) &&
	       h->torn_nr <= size_blks(h->size) - h->torn_blk;
}

/* 0: *h is good; -EILSEQ: it is not, *len is the length of the file. */
co_fn int header_read(struct store *st, uint64_t oid, struct obj_header *h, uint64_t *len)
{
	char name[OBJ_NAME_LEN];
	struct env_file *f;

	oid_name(oid, name);
	int r = st_open_at(st, st->obj, name, O_RDONLY, &f); /* ~ */
	if (r < 0)
		return r;
	struct env_io io = {.op = ENV_IO_STAT, .file = f};
	r = (int)co_io(st->s, &io); /* ~ */
	*len = io.stat_size;
	if (r >= 0 && (io.stat_size < 2 * BLK || io.stat_size % BLK))
		r = -EILSEQ;
	if (r >= 0)
		r = st_rw(st, ENV_IO_READ, f, h, sizeof(*h), *len - SECTOR, ENV_IO_NOWAIT); /* ~ */
	if (r >= 0 && !header_good(h, oid, *len))
		r = -EILSEQ;
	st_close_file(st, f); /* ~ */
	return r < 0 ? r : 0;
}

/* ---- checksum sectors ---- */

void sector_fill(struct crc_sector *s, uint64_t oid, uint32_t idx, const struct chunk *c)
{
	memset(s, 0, sizeof(*s));
	if (!(c->data[0] | c->data[1] | c->bad[0] | c->bad[1]))
		return;
	s->idx = idx;
	s->oid = oid;
	memcpy(s->data, c->data, sizeof(s->data));
	memcpy(s->bad, c->bad, sizeof(s->bad));
	memcpy(s->crc, c->crc, sizeof(s->crc));
	s->sum = sum_of(s, sizeof(*s), &s->sum);
}

static bool all_zero(const void *p, size_t len)
{
	const uint8_t *b = p;

	return !b[0] && !memcmp(b, b + 1, len - 1);
}

static void sector_take(const struct live *lv, struct crc_sector *s, uint32_t idx, struct chunk *c)
{
	memset(c, 0, sizeof(*c));
	if (all_zero(s, sizeof(*s)))
		return;
	if (s->sum != sum_of(s, sizeof(*s), &s->sum) || s->idx != idx || s->oid != lv->o->oid) {
		MARK(st_sums_bad);
		memset(c->bad, 0xff, sizeof(c->bad));
		memset(c->data, 0xff, sizeof(c->data));
		return;
	}
	memcpy(c->data, s->data, sizeof(c->data));
	memcpy(c->bad, s->bad, sizeof(c->bad));
	memcpy(c->crc, s->crc, sizeof(c->crc));
}

static bool chunks_there(const struct live *lv, uint32_t c0, uint32_t c1)
{
	for (uint32_t c = c0; c <= c1; c++)
		if (!lv->chunk[c])
			return false;
	return true;
}

/* Have the checksums of chunks @c0 to @c1. */
co_fn int chunks_load(struct live *lv, uint32_t c0, uint32_t c1)
{
	struct store *st = lv->st;

	assert(c0 <= c1 && c1 < lv->nr_chunk);
	if (chunks_there(lv, c0, c1))
		return 0;
	if (lv->nr_chunk <= CHUNKS_WHOLE) {
		c0 = 0;
		c1 = lv->nr_chunk - 1;
	}
	size_t len = (size_t)(c1 - c0 + 1) * SECTOR;
	CLEANUP(freep) struct crc_sector *s = malloc(len);
	if (!s)
		return -ENOMEM;
	int r = file_open(lv); /* ~ */
	if (r == 0)
		r = st_rw(st, ENV_IO_READ, lv->file->f, s, len, sector_off(lv->fsize, c0),
			  ENV_IO_NOWAIT); /* ~ */
	if (r < 0)
		return r;
	for (uint32_t c = c0; c <= c1; c++) {
		if (lv->chunk[c])
			continue;
		struct chunk *k = malloc(sizeof(*k));
		if (!k)
			return -ENOMEM;
		sector_take(lv, &s[c - c0], c, k);
		lv->chunk[c] = k;
		st->chunk_bytes += sizeof(*k);
	}
	return 0;
}

void chunk_set(struct live *lv, uint32_t blk, uint32_t crc)
{
	struct chunk *c = lv->chunk[blk / CHUNK_BLKS];
	uint32_t i = blk % CHUNK_BLKS;

	c->crc[i] = crc;
	bit_put(c->data, i, true);
	bit_put(c->bad, i, false);
	c->dirty = true;
}

enum blk_state chunk_state(const struct live *lv, uint32_t blk, uint32_t *crc)
{
	const struct chunk *c = lv->chunk[blk / CHUNK_BLKS];
	uint32_t i = blk % CHUNK_BLKS;

	if (!c)
		return BLK_UNKNOWN;
	if (bit_get(c->bad, i))
		return BLK_BAD;
	*crc = c->crc[i];
	return bit_get(c->data, i) ? BLK_DATA : BLK_ZERO;
}

static bool chunk_dirty(const struct live *lv, uint32_t c)
{
	return lv->chunk[c] && lv->chunk[c]->dirty;
}

/* Write the run of dirty chunks that begins at @c0; with the header when the run reaches it.
 * *next is the chunk after it. */
static co_fn int meta_run(struct live *lv, uint32_t c0, uint8_t *to, uint32_t *next)
{
	struct store *st = lv->st;
	uint32_t c = c0;

	for (; c < lv->nr_chunk && c - c0 < CHUNKS_WHOLE && chunk_dirty(lv, c); c++) {
		sector_fill((void *)(to + (size_t)(c - c0) * SECTOR), lv->o->oid, c, lv->chunk[c]);
		lv->chunk[c]->dirty = false;
	}
	uint32_t n = c - c0;
	*next = c;
	if (c == lv->nr_chunk) {
		header_fill((void *)(to + (size_t)n * SECTOR), lv->o->oid, lv->fsize, lv->fcopies,
			    lv->fver, lv->torn_blk, lv->torn_nr);
		n++;
		*next = c + 1;
	}
	return st_rw(st, ENV_IO_WRITE, lv->file->f, to, (size_t)n * SECTOR,
		     sector_off(lv->fsize, c0), 0); /* ~ */
}

co_fn int meta_write(struct live *lv)
{
	CLEANUP(freep) uint8_t *to = malloc((size_t)(CHUNKS_WHOLE + 1) * SECTOR);
	int r = to ? file_open(lv) : -ENOMEM; /* ~ */

	for (uint32_t c = 0; r >= 0 && c <= lv->nr_chunk;)
		if (c == lv->nr_chunk || chunk_dirty(lv, c))
			r = meta_run(lv, c, to, &c); /* ~ */
		else
			c++;
	return r < 0 ? r : 0;
}

/* ---- durability ---- */

co_fn int dir_sync(struct store *st, uint64_t need)
{
	int r = 0;

	if (st->conf.nosync || st->dir_synced >= need)
		return 0;
	co_mutex_lock(&st->dir_mutex); /* ~ */
	if (st->dir_synced < need) {
		uint64_t now = st->dir_changes;
		r = st_sync_file(st, st->obj, ENV_IO_FSYNC); /* ~ */
		if (r == 0)
			st->dir_synced = now;
		else
			MARK(st_dir_io);
	}
	co_mutex_unlock(&st->dir_mutex);
	return r;
}

/* What has been written to the object's file so far is durable. */
co_fn int file_sync(struct live *lv)
{
	struct store *st = lv->st;
	int r = 0;

	co_mutex_lock(&lv->sync); /* ~ */
	uint64_t last = lv->unsynced_last;
	if (lv->file_exists && lv->file && !st->conf.nosync)
		r = st_sync_file(st, lv->file->f, ENV_IO_SYNC); /* ~ */
	if (r == 0)
		r = dir_sync(st, lv->dir_need); /* ~ */
	if (r < 0)
		MARK(st_file_io);
	if (r == 0 && last > lv->synced_upto)
		lv->synced_upto = last;
	if (r == 0 && lv->in_unsynced && lv->unsynced_last == last) {
		cds_list_del(&lv->unsynced_node);
		lv->in_unsynced = false;
		lv->unsynced_first = lv->unsynced_last = 0;
		lv->over_from = lv->over_to = 0;
	} else if (r == 0 && lv->in_unsynced) {
		lv->unsynced_first = last + 1;
	}
	co_mutex_unlock(&lv->sync);
	return r;
}
