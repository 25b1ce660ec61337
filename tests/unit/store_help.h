/* store_help.h - writing, reading and checking objects, for the store's tests. */
#ifndef TESTS_UNIT_STORE_HELP_H
#define TESTS_UNIT_STORE_HELP_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#include "lib/base/buf.h"
#include "lib/base/crc.h"
#include "lib/base/util.h"
#include "sheep/store/disk.h"
#include "sheep/store/store.h"

#define NR_CRC(len) ((len) / BLK + 2)

/* The bytes that write number @n puts at @off: every byte depends on both. */
static inline uint8_t pat(uint64_t n, uint64_t off)
{
	uint64_t x = (n * 0x9e3779b97f4a7c15ull) ^ (off / 8 * 0xff51afd7ed558ccdull);
	return (uint8_t)(x >> (off % 8 * 8)) | 1;
}

static inline void pat_fill(uint8_t *p, uint64_t n, uint64_t off, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		p[i] = pat(n, off + i);
}

/* A write as the store wants it: payload, checksums cut at block boundaries. */
struct twrite {
	struct store_write w;
	uint32_t *crc;
};

static inline void tw_init(struct twrite *t, struct buf_pool *pool, uint64_t n, uint64_t off,
			   uint64_t len, size_t misalign)
{
	uint8_t *p;
	memset(t, 0, sizeof(*t));
	t->w.data = buf_new(pool, len + misalign);
	t->w.data_off = misalign;
	p = (uint8_t *)t->w.data->data + misalign;
	pat_fill(p, n, off, len);
	t->w.off = off;
	t->w.len = len;
	t->w.ver = (struct obj_ver){1, n};
	t->crc = calloc(NR_CRC(len), sizeof(*t->crc));
	t->w.crc = t->crc;
	for (uint64_t at = 0, i = 0; at < len; i++) {
		uint64_t k = BLK - (off + at) % BLK;
		if (k > len - at)
			k = len - at;
		t->crc[i] = crc32c(p + at, k);
		at += k;
	}
}

static inline void tw_done(struct twrite *t)
{
	buf_put(t->w.data);
	free(t->crc);
	t->w.data = NULL;
	t->crc = NULL;
}

#endif
