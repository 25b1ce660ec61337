/* index.c - all objects of the store in memory: by oid (map), and by (hash, oid) (treap).
 *
 * The treap's priorities are a mix of the hash, so its shape depends on its contents only.
 * No I/O, no yield.
 */
#include "config.h"

#include "sheep/store/store_int.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/proto/ring.h"

static uint64_t prio(const struct store_obj *o)
{
	uint64_t x = o->hash ^ (o->hash >> 29) ^ o->oid;
	x *= 0xbf58476d1ce4e5b9ull; /* splitmix64's finaliser */
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static int cmp(uint64_t h, uint64_t oid, const struct store_obj *o)
{
	if (h != o->hash)
		return h < o->hash ? -1 : 1;
	return oid < o->oid ? -1 : oid > o->oid;
}

/* Split @t into what is below @x and what is above. */
static void treap_split(struct store_obj *t, const struct store_obj *x, struct store_obj **lo,
			struct store_obj **hi)
{
	while (t) {
		if (cmp(x->hash, x->oid, t) > 0) {
			*lo = t;
			lo = &t->right;
			t = t->right;
		} else {
			*hi = t;
			hi = &t->left;
			t = t->left;
		}
	}
	*lo = *hi = NULL;
}

static struct store_obj **treap_slot(struct store *st, const struct store_obj *x)
{
	struct store_obj **p = &st->root;
	while (*p && *p != x)
		p = cmp(x->hash, x->oid, *p) < 0 ? &(*p)->left : &(*p)->right;
	return p;
}

static void treap_add(struct store *st, struct store_obj *x)
{
	struct store_obj **p = &st->root;
	uint64_t px = prio(x);
	while (*p && prio(*p) >= px)
		p = cmp(x->hash, x->oid, *p) < 0 ? &(*p)->left : &(*p)->right;
	struct store_obj *t = *p;
	*p = x;
	treap_split(t, x, &x->left, &x->right);
}

static void treap_del(struct store *st, struct store_obj *x)
{
	struct store_obj **p = treap_slot(st, x), *lo = x->left, *hi = x->right;
	assert(*p == x);
	while (lo && hi) { /* merge the two halves where x was */
		if (prio(lo) >= prio(hi)) {
			*p = lo;
			p = &lo->right;
			lo = lo->right;
		} else {
			*p = hi;
			p = &hi->left;
			hi = hi->left;
		}
	}
	*p = lo ? lo : hi;
	x->left = x->right = NULL;
}

struct store_obj *index_find(struct store *st, uint64_t oid)
{
	return map_get(&st->map, oid);
}

struct store_obj *index_add(struct store *st, uint64_t oid)
{
	struct store_obj *o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->st = st;
	o->oid = oid;
	o->hash = sd_hash_oid(oid);
	if (map_set(&st->map, oid, o) < 0) {
		free(o);
		return NULL;
	}
	return o;
}

void index_set(struct store_obj *o, bool exists)
{
	struct store *st = o->st;
	if (o->exists == exists)
		return;
	o->exists = exists;
	if (exists) {
		st->nr_objects++;
		treap_add(st, o);
		return;
	}
	st->nr_objects--;
	treap_del(st, o);
	o->ver = (struct obj_ver){0, 0};
	o->torn_blk = o->torn_nr = 0;
	o->size = 0;
	o->copies = 0;
}

void index_forget(struct store_obj *o)
{
	assert(!o->exists && !o->live);
	map_del(&o->st->map, o->oid);
	free(o);
}

void index_free_all(struct store *st)
{
	size_t pos = 0;
	struct store_obj *o;
	while ((o = map_next(&st->map, &pos, NULL))) {
		assert(!o->live);
		free(o);
	}
	map_done(&st->map);
	map_init(&st->map);
	st->root = NULL;
	st->nr_objects = 0;
}

void index_saw(struct store *st, struct obj_ver ver)
{
	if (ver.gen > st->max_gen)
		st->max_gen = ver.gen;
}

/* ---- the public side ---- */

static void fill(const struct store_obj *o, struct obj_info *ret)
{
	*ret = (struct obj_info){
		.oid = o->oid,
		.hash = o->hash,
		.ver = o->ver,
		.size = o->size,
		.copies = o->copies,
		.torn = o->torn_nr != 0,
	};
}

bool store_lookup(struct store *st, uint64_t oid, struct obj_info *ret)
{
	const struct store_obj *o = index_find(st, oid);
	if (o && o->exists) {
		fill(o, ret);
		return true;
	}
	*ret = (struct obj_info){.oid = oid, .hash = o ? o->hash : sd_hash_oid(oid)};
	return false;
}

/* The first object at (@incl) or after (h, oid). */
static const struct store_obj *treap_from(const struct store *st, uint64_t h, uint64_t oid,
					  bool incl)
{
	const struct store_obj *t = st->root, *best = NULL;
	while (t) {
		int c = cmp(h, oid, t);
		if (c < 0 || (c == 0 && incl)) {
			best = t;
			t = t->left;
		} else {
			t = t->right;
		}
	}
	return best;
}

unsigned store_list(struct store *st, uint64_t from, uint64_t to, bool cont, uint64_t h, uint64_t o,
		    struct obj_info *ret, unsigned n)
{
	unsigned got = 0;
	bool below = !cont || h < from; /* the cursor lies before the arc: begin at the arc */
	const struct store_obj *x =
		below ? treap_from(st, from, 0, true) : treap_from(st, h, o, false);
	for (; x && x->hash <= to && got < n; x = treap_from(st, x->hash, x->oid, false))
		fill(x, &ret[got++]);
	return got;
}

uint64_t store_nr_objects(const struct store *st)
{
	return st->nr_objects;
}

uint64_t store_max_gen(const struct store *st)
{
	return st->max_gen;
}
