/* map.c - see map.h.  Linear probing with backward-shift deletion; at most 3/4 full. */
#include "lib/base/map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static size_t map_home(const struct map *m, uint64_t key)
{
	/* Fibonacci hashing: Knuth, TAOCP 3, 6.4 */
	return (size_t)((key ^ (key >> 32)) * 0x9e3779b97f4a7c15ull >> 20) & (m->cap - 1);
}

void map_init(struct map *m)
{
	*m = (struct map){0};
}

void map_done(struct map *m)
{
	free(m->slots);
	*m = (struct map){0};
}

static struct map_slot *map_find(const struct map *m, uint64_t key)
{
	size_t i = map_home(m, key);
	while (m->slots[i].val && m->slots[i].key != key)
		i = (i + 1) & (m->cap - 1);
	return &m->slots[i];
}

void *map_get(const struct map *m, uint64_t key)
{
	return m->cap ? map_find(m, key)->val : NULL;
}

static int map_grow(struct map *m)
{
	struct map bigger = {.cap = m->cap ? m->cap * 2 : 16, .nr = m->nr};
	bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].val)
			*map_find(&bigger, m->slots[i].key) = m->slots[i];
	free(m->slots);
	*m = bigger;
	return 0;
}

int map_set(struct map *m, uint64_t key, void *val)
{
	assert(val);
	if (m->nr + 1 > m->cap / 4 * 3 && map_grow(m) < 0)
		return -ENOMEM;
	struct map_slot *s = map_find(m, key);
	if (!s->val)
		m->nr++;
	*s = (struct map_slot){key, val};
	return 0;
}

void *map_del(struct map *m, uint64_t key)
{
	if (!m->cap)
		return NULL;
	struct map_slot *s = map_find(m, key);
	void *val = s->val;
	if (!val)
		return NULL;
	size_t mask = m->cap - 1, hole = (size_t)(s - m->slots);
	for (size_t i = (hole + 1) & mask; m->slots[i].val; i = (i + 1) & mask) {
		size_t home = map_home(m, m->slots[i].key);
		if (((i - home) & mask) >= ((i - hole) & mask)) {
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->slots[hole].val = NULL;
	m->nr--;
	return val;
}

void *map_next(const struct map *m, size_t *pos, uint64_t *key)
{
	for (; *pos < m->cap; (*pos)++)
		if (m->slots[*pos].val) {
			if (key)
				*key = m->slots[*pos].key;
			return m->slots[(*pos)++].val;
		}
	return NULL;
}
