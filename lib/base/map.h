/* map.h - hash table from u64 keys (oids, ids) to pointers: open addressing, one thread, no
 * shrinking. Iteration order depends on the keys and the history only, never on addresses
 * (determinism). */
#ifndef LIB_BASE_MAP_H
#define LIB_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot {
	uint64_t key;
	void *val; /* NULL: empty */
};
struct map {
	struct map_slot *slots;
	size_t cap, nr; /* cap: power of two or 0 */
};

void map_init(struct map *m);
void map_done(struct map *m);			  /* frees the table, not the values */
void *map_get(const struct map *m, uint64_t key); /* NULL: none */
/* Set (replace) key to @val, which is not NULL.  0 or -ENOMEM. */
int map_set(struct map *m, uint64_t key, void *val);
void *map_del(struct map *m, uint64_t key); /* the value that was there, or NULL */
/* Next value at or after *@pos (start with 0), NULL at the end.  The current entry may not be
 * deleted while iterating (collect first). */
void *map_next(const struct map *m, size_t *pos, uint64_t *key);

#endif
