/* order.c - all nodes apply the same commands to the same state (DESIGN 4.2, C6): after each event
 * that a live state has taken, at its place in the log, the hash of it is compared with that of
 * whoever was there first.  (lease_applied() is the first thing that is called then: it is
 * wrapped.)
 *
 * The hash is of all but the VDIs, sessions and epochs beyond the first CLUSTER_SAMPLE; of the
 * whole state at each ORDER_WHOLE-th place. */
#include "config.h"

/* both sides have events of their own */
#define event cluster_event
#include "sheep/member_int.h"
#undef event
#include "sheep/sheep.h"
#include "tests/sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ORDER_WHOLE 16u

struct place {
	uint64_t pos, hash;
	uint32_t forces;
	bool used;
	char name[24]; /* of the process that came first */
};

struct order {
	struct place *places;
	size_t nr, cap; /* cap: a power of two */
	uint64_t max;	/* position */
};

void __real_lease_applied(struct cluster *c, const struct cs_out *out);
void __wrap_lease_applied(struct cluster *c, const struct cs_out *out);

static struct place *place_at(const struct order *o, uint32_t forces, uint64_t pos)
{
	size_t i = (pos ^ pos >> 32 ^ (uint64_t)forces << 20) * 0x9e3779b97f4a7c15ull >> 20;

	for (i &= o->cap - 1; o->places[i].used; i = (i + 1) & (o->cap - 1))
		if (o->places[i].pos == pos && o->places[i].forces == forces)
			break;
	return &o->places[i];
}

static void order_grow(struct order *o)
{
	struct order old = *o;

	o->cap = old.cap ? 2 * old.cap : 1024;
	o->places = calloc(o->cap, sizeof(*o->places));
	assert(o->places);
	for (size_t i = 0; i < old.cap; i++)
		if (old.places[i].used)
			*place_at(o, old.places[i].forces, old.places[i].pos) = old.places[i];
	free(old.places);
}

/* The first that is live again: what was applied and not durable anywhere when all went is gone,
 * and its place in the log is taken again. */
static void forget_from(struct order *o, uint64_t pos)
{
	struct order old = *o;

	if (o->max < pos)
		return;
	o->places = calloc(o->cap, sizeof(*o->places));
	assert(o->places);
	o->nr = 0;
	o->max = 0;
	for (size_t i = 0; i < old.cap; i++) {
		const struct place *pl = &old.places[i];
		if (!pl->used || pl->pos >= pos)
			continue;
		*place_at(o, pl->forces, pl->pos) = *pl;
		o->nr++;
		o->max = pl->pos > o->max ? pl->pos : o->max;
	}
	free(old.places);
}

static bool other_live(const struct world *w, const struct proc *self)
{
	for (const struct proc *p = w->procs; p; p = p->next)
		if (p != self && !p->dead && p->sheep && p->sheep->cluster &&
		    p->sheep->cluster->s && p->sheep->cluster->s->live)
			return true;
	return false;
}

static uint64_t state_hash(const struct cs *s)
{
	struct enc e = {0};
	uint64_t h = s->pos, v;
	size_t i;

	if (s->pos % ORDER_WHOLE)
		cs_encode_sample(s, s->pos, &e);
	else
		cs_encode(s, &e);
	assert(!e.failed);
	for (i = 0; i + 8 <= e.len; i += 8) {
		memcpy(&v, e.p + i, 8);
		h = (h ^ v) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	for (; i < e.len; i++)
		h = (h ^ e.p[i]) * 0x100000001b3ull;
	free(e.p);
	return h;
}

static void compare(struct world *w, struct proc *p, const struct cs *s)
{
	if (!w->order) {
		w->order = calloc(1, sizeof(*w->order));
		assert(w->order);
	}
	if (!p->ordered && !other_live(w, p))
		forget_from(w->order, s->pos);
	if (2 * w->order->nr >= w->order->cap)
		order_grow(w->order);
	struct place *pl = place_at(w->order, s->forces, s->pos);
	uint64_t h = state_hash(s);
	p->ordered = true;
	w->order->max = s->pos > w->order->max ? s->pos : w->order->max;
	if (!pl->used) {
		*pl = (struct place){s->pos, h, s->forces, true, ""};
		snprintf(pl->name, sizeof(pl->name), "%s", p->name);
		w->order->nr++;
	} else if (pl->hash != h) {
		world_fail(w,
			   "contents: the states of %s and %s differ at position %" PRIu64 " (C6)",
			   pl->name, p->name, s->pos);
	}
}

void __wrap_lease_applied(struct cluster *c, const struct cs_out *out)
{
	struct proc *p = (struct proc *)c->env;
	struct world *w = p->w;

	if (c->s->live && !w->failed) {
		w->running = NULL; /* the world's memory */
		compare(w, p, c->s);
		w->running = p;
	}
	__real_lease_applied(c, out);
}

void order_free(struct order *o)
{
	if (o)
		free(o->places);
	free(o);
}
