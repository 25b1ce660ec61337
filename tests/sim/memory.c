/* memory.c - malloc for the simulated processes (linked with -Wl,--wrap): each block knows its
 * process, so that a killed one gives its memory back, and an orderly end can be asked whether
 * anything is left. */
#include "config.h"

#include "tests/sim/world.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct block {
	struct cds_list_head node; /* of its process, or of itself when it has none */
	struct proc *p;
	size_t size;
	size_t align_off; /* from the start of the real block */
	uint64_t magic;
	uint64_t pad;
} __attribute__((aligned(16)));
#define BLOCK_MAGIC 0x626c6f636b73696dull

void *__real_malloc(size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);
int __wrap_posix_memalign(void **ret, size_t align, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
int __wrap_vasprintf(char **ret, const char *fmt, va_list ap);

static struct world *the_world; /* set by memory_world_only() */

void memory_world_only(struct world *w)
{
	the_world = w;
}

struct proc *sim_running(void)
{
	return the_world ? the_world->running : NULL;
}

static void *block_new(size_t align, size_t n)
{
	struct proc *p = the_world ? the_world->running : NULL;
	size_t extra = align > 16 ? align : 0;
	uint8_t *raw = __real_malloc(sizeof(struct block) + extra + n);

	if (!raw)
		return NULL;
	uint8_t *data = raw + sizeof(struct block);
	if (extra)
		data = (uint8_t *)(((uintptr_t)data + align - 1) & ~(uintptr_t)(align - 1));
	struct block *b = (struct block *)data - 1;
	b->p = p;
	b->size = n;
	b->align_off = (size_t)((uint8_t *)b - raw);
	b->magic = BLOCK_MAGIC;
	if (p) {
		cds_list_add_tail(&b->node, &p->memory);
		p->nr_blocks++;
	} else {
		CDS_INIT_LIST_HEAD(&b->node);
	}
	return data;
}

void *__wrap_malloc(size_t n)
{
	return block_new(16, n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	size_t len;

	if (__builtin_mul_overflow(n, size, &len))
		return NULL;
	void *p = block_new(16, len);
	return p ? memset(p, 0, len) : NULL;
}

/* Memory that libc itself allocated (getline and the like) has no header of ours. */
static struct block *block_of(void *p)
{
	struct block *b = (struct block *)p - 1;

	return b->magic == BLOCK_MAGIC ? b : NULL;
}

static void block_free(struct block *b)
{
	b->magic = 0;
	cds_list_del(&b->node);
	if (b->p)
		b->p->nr_blocks--;
	__real_free((uint8_t *)b - b->align_off);
}

void __wrap_free(void *p)
{
	if (!p)
		return;
	struct block *b = block_of(p);
	assert(b); /* what libc allocates by itself is not freed by our code: see the wrapped list
		    */
	block_free(b);
}

void *__wrap_realloc(void *p, size_t n)
{
	if (!p)
		return block_new(16, n);
	struct block *b = block_of(p);
	assert(b);
	void *q = block_new(16, n);
	if (!q)
		return NULL;
	memcpy(q, p, b->size < n ? b->size : n);
	block_free(b);
	return q;
}

int __wrap_posix_memalign(void **ret, size_t align, size_t n)
{
	*ret = block_new(align, n);
	return *ret ? 0 : 12;
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
	return block_new(align, n);
}

char *__wrap_strndup(const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *p = block_new(16, len + 1);

	if (!p)
		return NULL;
	memcpy(p, s, len);
	p[len] = '\0';
	return p;
}

char *__wrap_strdup(const char *s)
{
	return __wrap_strndup(s, strlen(s));
}

int __wrap_vasprintf(char **ret, const char *fmt, va_list ap)
{
	va_list again;

	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	*ret = n < 0 ? NULL : block_new(16, (size_t)n + 1);
	return *ret ? vsnprintf(*ret, (size_t)n + 1, fmt, ap) : -1;
}

void memory_drop(struct proc *p)
{
	while (!cds_list_empty(&p->memory))
		block_free(cds_list_first_entry(&p->memory, struct block, node));
	assert(!p->nr_blocks);
}
