/* store_world.h - a store on real files, and a model of what its objects hold; for test_store.c. */
#ifndef TESTS_UNIT_STORE_WORLD_H
#define TESTS_UNIT_STORE_WORLD_H

#include "tests/unit/store_help.h"

#define JSIZE (4u << 20)
#define OID   0x0000123400000007ull
#define OID2  0x0000123400000008ull
#define INODE 0x8000123400000000ull

struct world {
	char base[64], dir[96];
	struct env *env;
	struct co_sched *s;
	struct buf_pool *pool;
	struct store *st;
	struct store_conf conf;
	char *err;
	bool done;
	void (*fn)(struct world *w);
};

enum { CREATE = 1, DURABLE = 2, NOWAIT = 4 };

struct img {
	uint8_t *p;
	uint64_t size;
};

void everywhere(void (*fn)(struct world *w));
int try_open(struct world *w);
void up(struct world *w);
void down(struct world *w);
void again(struct world *w);
int wr_at(struct world *w, uint64_t oid, uint64_t n, uint64_t off, uint64_t len, unsigned flags,
	  uint64_t size, size_t misalign);
void wr(struct world *w, struct img *m, uint64_t oid, uint64_t n, uint64_t off, uint64_t len,
	unsigned flags);
int rm(struct world *w, uint64_t oid, uint64_t n, bool durable);
int rd(struct world *w, uint64_t oid, uint64_t off, uint64_t len, uint8_t *to, uint64_t *bad);
void check_part(struct world *w, const struct img *m, uint64_t oid, uint64_t off, uint64_t len);
void check(struct world *w, const struct img *m, uint64_t oid, uint64_t n);
struct img img_new(uint64_t size);
void settle(struct world *w);
void flip(struct world *w, const char *path, off_t at);
bool exists(struct world *w, const char *path);

#endif
