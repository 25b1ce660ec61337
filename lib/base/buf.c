/* buf.c - see buf.h.  Size classes are powers of two from 4 KiB to 8 MiB; larger ones are not kept.
 */
#include "lib/base/buf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BUF_ALIGN	    4096u
#define BUF_CLASS_MIN_SHIFT 12
#define BUF_CLASS_MAX_SHIFT 23
#define BUF_CLASSES	    (BUF_CLASS_MAX_SHIFT - BUF_CLASS_MIN_SHIFT + 1)

struct buf_pool {
	size_t keep_bytes, kept, used;
	unsigned nr_out;
	struct buf *free[BUF_CLASSES];
};

/* Class of a length, or -1 when it is too large to be kept. */
static int buf_class(size_t len)
{
	for (int i = 0; i < BUF_CLASSES; i++)
		if (len <= (size_t)1 << (i + BUF_CLASS_MIN_SHIFT))
			return i;
	return -1;
}

struct buf_pool *buf_pool_new(size_t keep_bytes)
{
	struct buf_pool *p = calloc(1, sizeof(*p));
	if (p)
		p->keep_bytes = keep_bytes;
	return p;
}

static void buf_destroy(struct buf *b)
{
	free(b->data);
	free(b);
}

void buf_pool_free(struct buf_pool *p)
{
	if (!p)
		return;
	assert(p->nr_out == 0);
	assert(p->used == 0);
	for (int i = 0; i < BUF_CLASSES; i++)
		while (p->free[i]) {
			struct buf *b = p->free[i];
			p->free[i] = b->next;
			buf_destroy(b);
		}
	free(p);
}

size_t buf_pool_used(const struct buf_pool *p)
{
	return p->used;
}

struct buf *buf_new(struct buf_pool *p, size_t len)
{
	int c = buf_class(len ? len : 1);
	struct buf *b = c >= 0 ? p->free[c] : NULL;
	if (b) {
		p->free[c] = b->next;
		p->kept -= b->cap;
	} else {
		size_t cap = c >= 0 ? (size_t)1 << (c + BUF_CLASS_MIN_SHIFT)
				    : (len + BUF_ALIGN - 1) / BUF_ALIGN * BUF_ALIGN;
		b = calloc(1, sizeof(*b));
		if (!b)
			return NULL;
		if (posix_memalign(&b->data, BUF_ALIGN, cap)) {
			free(b);
			return NULL;
		}
		b->cap = cap;
		b->pool = p;
	}
	b->refs = 1;
	b->next = NULL;
	p->used += b->cap;
	p->nr_out++;
	return b;
}

struct buf *buf_get(struct buf *b)
{
	assert(b->refs > 0);
	b->refs++;
	return b;
}

void buf_put(struct buf *b)
{
	if (!b)
		return;
	assert(b->refs > 0);
	if (--b->refs)
		return;
	struct buf_pool *p = b->pool;
	assert(p->used >= b->cap && p->nr_out > 0);
	p->used -= b->cap;
	p->nr_out--;
	int c = buf_class(b->cap);
	if (c < 0 || p->kept + b->cap > p->keep_bytes) {
		buf_destroy(b);
		return;
	}
	b->next = p->free[c];
	p->free[c] = b;
	p->kept += b->cap;
}
