/* image.c - the contents of a simulated file: pages that images share, see disk.h. */
#include "config.h"

#include "tests/sim/disk.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

/* ---- the pool of pages ----
 * In chunks of the size of a huge page: a seed has thousands of pages, and few page faults.  The
 * first page of a chunk counts the users of the others. */

#define CHUNK	    (2u << 20)
#define CHUNK_PAGES (CHUNK / PAGE)

struct chunk {
	uint32_t refs[CHUNK_PAGES];
};
_Static_assert(sizeof(struct chunk) <= PAGE, "it is the first page");

static const uint8_t zeros[PAGE] __attribute__((aligned(PAGE)));
static uint8_t *spare;	       /* linked by their first bytes */
static uint8_t *fresh, *limit; /* of the newest chunk */

static uint32_t *refs_of(const uint8_t *page)
{
	struct chunk *c = (struct chunk *)((uintptr_t)page & ~(uintptr_t)(CHUNK - 1));

	return &c->refs[(uintptr_t)page % CHUNK / PAGE];
}

static void chunk_new(void)
{
	uint8_t *p = mmap(NULL, 2 * CHUNK, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(p != MAP_FAILED);
	size_t head = -(uintptr_t)p & (CHUNK - 1);
	if (head)
		munmap(p, head);
	munmap(p + head + CHUNK, CHUNK - head);
	madvise(p + head, CHUNK, MADV_HUGEPAGE); /* or not: it is the same, but slower */
	fresh = p + head + PAGE;
	limit = p + head + CHUNK;
}

/* What is in it is undefined. */
static uint8_t *page_new(void)
{
	uint8_t *page = spare;

	if (page) {
		memcpy(&spare, page, sizeof(spare));
	} else {
		if (fresh == limit)
			chunk_new();
		page = fresh;
		fresh += PAGE;
	}
	*refs_of(page) = 1;
	return page;
}

static void page_put(uint8_t *page)
{
	if (!page || page == zeros || --*refs_of(page))
		return;
	memcpy(page, &spare, sizeof(spare));
	spare = page;
}

static uint8_t *page_get(uint8_t *page)
{
	if (page && page != zeros)
		++*refs_of(page);
	return page;
}

static bool all_zero(const uint8_t *p)
{
	return !memcmp(p, zeros, PAGE);
}

/* ---- images ---- */

void image_init(struct image *im)
{
	map_init(&im->pages);
	im->size = 0;
}

void image_done(struct image *im)
{
	size_t pos = 0;
	void *page;

	while ((page = map_next(&im->pages, &pos, NULL)))
		page_put(page);
	map_done(&im->pages);
	map_init(&im->pages);
}

const uint8_t *image_page(const struct image *im, uint64_t key)
{
	return map_get(&im->pages, key);
}

/* @page (a reference of the caller's) takes the place of what was there. */
static void set(struct image *im, uint64_t key, const uint8_t *page)
{
	page_put(map_get(&im->pages, key));
	assert(map_set(&im->pages, key, (void *)(uintptr_t)page) == 0);
}

uint8_t *image_own(struct image *im, uint64_t key)
{
	uint8_t *page = map_get(&im->pages, key), *own;

	if (page && page != zeros && *refs_of(page) == 1)
		return page;
	own = page_new();
	memcpy(own, page ? page : zeros, PAGE);
	set(im, key, own);
	return own;
}

static void write_page(struct image *im, uint64_t key, const uint8_t *data)
{
	uint8_t *page;

	if (!data || all_zero(data)) {
		set(im, key, zeros);
		return;
	}
	page = map_get(&im->pages, key);
	if (!page || page == zeros || *refs_of(page) != 1) {
		page = page_new();
		set(im, key, page);
	}
	memcpy(page, data, PAGE);
}

void image_write(struct image *im, uint64_t off, const uint8_t *data, uint64_t len)
{
	if (off + len > im->size)
		im->size = off + len;
	while (len) {
		uint64_t in = off % PAGE, n = PAGE - in < len ? PAGE - in : len;
		uint64_t key = off / PAGE + 1;
		if (n == PAGE)
			write_page(im, key, data);
		else if (data)
			memcpy(image_own(im, key) + in, data, n);
		else
			memset(image_own(im, key) + in, 0, n);
		off += n;
		len -= n;
		if (data)
			data += n;
	}
}

void image_punch(struct image *im, uint64_t off, uint64_t len)
{
	while (len) {
		uint64_t in = off % PAGE, n = PAGE - in < len ? PAGE - in : len;
		uint64_t key = off / PAGE + 1;
		uint8_t *page = map_get(&im->pages, key);
		if (page && n == PAGE)
			set(im, key, zeros);
		else if (page && page != zeros)
			memset(image_own(im, key) + in, 0, n);
		off += n;
		len -= n;
	}
}

void image_read(const struct image *im, uint64_t off, uint8_t *buf, uint64_t len)
{
	while (len) {
		uint64_t in = off % PAGE, n = PAGE - in < len ? PAGE - in : len;
		const uint8_t *page = image_page(im, off / PAGE + 1);
		if (page)
			memcpy(buf, page + in, n);
		else
			memset(buf, 0, n);
		off += n;
		len -= n;
		buf += n;
	}
}

void image_resize(struct image *im, uint64_t size)
{
	if (size < im->size) {
		uint64_t first = (size + PAGE - 1) / PAGE, last = (im->size + PAGE - 1) / PAGE;
		image_punch(im, size, first * PAGE - size);
		for (uint64_t nr = first; nr < last; nr++)
			page_put(map_del(&im->pages, nr + 1));
	}
	im->size = size;
}

void image_copy(struct image *to, const struct image *from)
{
	size_t pos = 0;
	uint64_t key;
	void *page;

	image_done(to);
	while ((page = map_next(&from->pages, &pos, &key)))
		assert(map_set(&to->pages, key, page_get(page)) == 0);
	to->size = from->size;
}

void image_copy_range(struct image *to, const struct image *from, uint64_t off, uint64_t len)
{
	for (uint64_t key = off / PAGE + 1; len && key <= (off + len - 1) / PAGE + 1; key++) {
		uint8_t *page = map_get(&from->pages, key);
		if (page == map_get(&to->pages, key))
			continue;
		if (page)
			set(to, key, page_get(page));
		else
			page_put(map_del(&to->pages, key));
	}
	to->size = from->size;
}
