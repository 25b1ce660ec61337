/* buf.h - pooled, reference counted, 4 KiB aligned data buffers.  One thread: no atomics.
 *
 * A payload is received once into a buf; the disk write and the sends to peers all hold references
 * to it.
 */
#ifndef LIB_BASE_BUF_H
#define LIB_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf_pool;
struct buf {
	void *data; /* 4 KiB aligned, @cap bytes */
	size_t cap; /* a multiple of 4096 */
	unsigned refs;
	struct buf_pool *pool;
	struct buf *next; /* the pool's free list */
};

/* A pool keeps freed buffers of the common sizes for reuse, up to @keep_bytes. */
struct buf_pool *buf_pool_new(size_t keep_bytes);
/* Asserts that every buf came back. */
void buf_pool_free(struct buf_pool *p);
size_t buf_pool_used(const struct buf_pool *p); /* bytes in buffers that are out */
/* A buffer of at least @len bytes (contents undefined), one reference; NULL: out of memory. */
struct buf *buf_new(struct buf_pool *p, size_t len);
struct buf *buf_get(struct buf *b);
void buf_put(struct buf *b); /* NULL is fine */

#endif
