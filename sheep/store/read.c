/* read.c - reading an object: layers first, then the file; every block is verified.
 *
 * Under the object's lock no new record of it can be queued, so a block that is in no layer stays
 * in no layer, and the file holds it unchanged (J5).  A block that is in a layer may move to the
 * file while a read waits: it is looked up again after every wait.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/base/crc.h"

static bool locked(const struct live *lv)
{
	return lv->excl || lv->readers;
}

static co_fn int need_chunks(struct live *lv, uint32_t blk, uint32_t nr)
{
	return chunks_load(lv, blk / CHUNK_BLKS, (blk + nr - 1) / CHUNK_BLKS); /* ~ */
}

static bool in_file(const struct live *lv, uint32_t blk)
{
	struct ent *e;
	uint32_t crc;

	return layers_find(lv, blk, &e) == FOUND_FILE && chunk_state(lv, blk, &crc) == BLK_DATA;
}

/* Blocks from @blk on that one file read can bring. */
static uint32_t file_run(const struct live *lv, uint32_t blk, uint32_t nr)
{
	uint32_t n = 1;

	while (n < nr && n < READ_BLKS_MAX && in_file(lv, blk + n))
		n++;
	return n;
}

static co_fn int file_read(struct live *lv, uint32_t blk, uint32_t n, uint8_t *dst, uint32_t *bad)
{
	*bad = blk;
	int r = file_open(lv); /* ~ */
	if (r < 0)
		return r;
	bool direct = lv->dfile && (uintptr_t)dst % BLK == 0;
	r = st_rw(lv->st, ENV_IO_READ, direct ? lv->dfile->f : lv->file->f, dst, (size_t)n * BLK,
		  (uint64_t)blk * BLK, direct ? ENV_IO_DIRECT : ENV_IO_NOWAIT); /* ~ */
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t crc = 0;
		if (chunk_state(lv, blk + i, &crc) == BLK_DATA &&
		    crc == crc32c(dst + (size_t)i * BLK, BLK))
			continue;
		MARK(st_read_bad);
		*bad = blk + i;
		return -EILSEQ;
	}
	return 0;
}

/* A block that is in the file or nowhere; *n is how many were read. */
static co_fn int below_read(struct live *lv, uint32_t blk, uint32_t nr, uint8_t *dst, uint32_t *n,
			    uint32_t *bad)
{
	uint32_t crc;

	*n = 1;
	*bad = blk;
	switch (chunk_state(lv, blk, &crc)) {
	case BLK_UNKNOWN: *n = 0; return need_chunks(lv, blk, nr); /* ~ and look again */
	case BLK_ZERO: memset(dst, 0, BLK); return 0;
	case BLK_BAD: MARK(st_read_sector); return -EILSEQ;
	case BLK_DATA: break;
	}
	*n = file_run(lv, blk, nr);
	return file_read(lv, blk, *n, dst, bad); /* ~ */
}

co_fn int blocks_read(struct live *lv, uint32_t blk, uint32_t nr, uint8_t *dst, uint64_t *bad_off)
{
	for (uint32_t i = 0, n, bad; i < nr; i += n) {
		uint8_t *to = dst + (size_t)i * BLK;
		struct ent *e;
		int r = 0;
		n = 1;
		bad = blk + i;
		switch (layers_find(lv, blk + i, &e)) {
		case FOUND_ENT:
			memcpy(to, e->data, BLK);
			if (crc32c(to, BLK) != e->crc)
				r = -EILSEQ;
			break;
		case FOUND_ZERO: memset(to, 0, BLK); break;
		case FOUND_FILE:
			r = below_read(lv, blk + i, nr - i, to, &n, &bad); /* ~ */
			break;
		}
		if (r < 0) {
			if (bad_off)
				*bad_off = (uint64_t)bad * BLK;
			return r;
		}
	}
	return 0;
}

/* Part of one block. */
static co_fn int part_read(struct live *lv, uint64_t off, uint32_t len, uint8_t *dst,
			   uint64_t *bad_off)
{
	struct buf *b = buf_new(lv->st->pool, BLK);

	if (!b)
		return -ENOMEM;
	int r = blocks_read(lv, (uint32_t)(off / BLK), 1, b->data, bad_off); /* ~ */
	if (r == 0)
		memcpy(dst, (uint8_t *)b->data + off % BLK, len);
	buf_put(b);
	return r;
}

co_fn int store_read(struct store_obj *o, uint64_t off, uint64_t len, struct buf *buf,
		     size_t buf_off, uint64_t *bad_off)
{
	struct live *lv = o->live;
	uint8_t *dst = (uint8_t *)buf->data + buf_off;

	assert(lv && locked(lv));
	assert(buf_off <= buf->cap && len <= buf->cap - buf_off);
	if (!o->exists)
		return -ENOENT;
	uint64_t have = off < o->size ? o->size - off : 0;
	if (len > have) {
		memset(dst + have, 0, len - have);
		len = have;
	}
	while (len) {
		uint64_t n = BLK - off % BLK < len ? BLK - off % BLK : len;
		int r;
		if (n < BLK) {
			r = part_read(lv, off, (uint32_t)n, dst, bad_off); /* ~ */
		} else {
			n = len / BLK * BLK;
			r = blocks_read(lv, (uint32_t)(off / BLK), (uint32_t)(n / BLK), dst,
					bad_off); /* ~ */
		}
		if (r < 0)
			return r;
		off += n;
		dst += n;
		len -= n;
	}
	return 0;
}

/* May the block hold something else than zeros? */
static co_fn bool may_be_data(struct live *lv, uint32_t blk)
{
	struct ent *e;
	uint32_t crc;

	switch (layers_find(lv, blk, &e)) {
	case FOUND_ENT: return true;
	case FOUND_ZERO: return false;
	case FOUND_FILE: break;
	}
	if (chunk_state(lv, blk, &crc) == BLK_UNKNOWN && need_chunks(lv, blk, 1) < 0) /* ~ */
		return true; /* reading it will say what is wrong */
	/* it may have moved to the file meanwhile; then its checksum is there */
	return chunk_state(lv, blk, &crc) != BLK_ZERO;
}

co_fn bool store_allocates(struct store_obj *o, uint64_t off, uint64_t len)
{
	struct live *lv = o->live;

	assert(lv && locked(lv));
	if (!o->exists || !len || off >= o->size || len > o->size - off)
		return false; /* no such write can be done */
	for (uint32_t b = (uint32_t)(off / BLK); b <= (uint32_t)((off + len - 1) / BLK); b++)
		if (!may_be_data(lv, b)) /* ~ */
			return true;
	return false;
}

co_fn bool store_next_data(struct store_obj *o, uint64_t off, uint64_t *start, uint64_t *len)
{
	struct live *lv = o->live;

	assert(lv && locked(lv));
	if (!o->exists)
		return false;
	uint32_t nr = size_blks(o->size), b;
	if (off >= o->size)
		return false;
	b = (uint32_t)(off / BLK);
	while (b < nr && !may_be_data(lv, b)) /* ~ */
		b++;
	if (b == nr)
		return false;
	uint32_t e = b + 1;
	while (e < nr && may_be_data(lv, e)) /* ~ */
		e++;
	*start = (uint64_t)b * BLK > off ? (uint64_t)b * BLK : off;
	uint64_t end = (uint64_t)e * BLK < o->size ? (uint64_t)e * BLK : o->size;
	*len = end - *start;
	return true;
}
