/* fleet.c - who the clients of a run are, drawn from the seed, and what is checked of them at the
 * end. */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "sheep/cluster.h"
#include "tests/sim/run.h"

#include <stdlib.h>

const char *const client_kinds[CLIENT_NR] = {
	[CLIENT_OWN] = "its own volume",	 [CLIENT_SHARED] = "a shared volume",
	[CLIENT_MOVING] = "a volume that moves", [CLIENT_OLD] = "the old protocol",
	[CLIENT_CHURN] = "creates and deletes",
};

/* What the first clients are; the others have volumes of their own. */
static unsigned draw_kinds(struct run *r, struct prng *p, enum client_kind *kind)
{
	unsigned dice = (unsigned)prng_in(p, 0, 19), nr = 0;

	if (dice < 5) {
		nr = (unsigned)prng_in(p, 2, 3);
		if (r->shape.nr_clients < nr)
			r->shape.nr_clients = nr;
	} else if (dice < 12) {
		nr = 1;
	} else if (dice < 14) {
		nr = (unsigned)prng_in(p, 1, r->shape.nr_clients);
	}
	*kind = dice < 5 ? CLIENT_SHARED : dice < 9 ? CLIENT_MOVING : CLIENT_OLD;
	return nr;
}

static struct volume *volume_new(struct run *r, struct prng *p, enum client_kind kind)
{
	struct volume *v = &r->volume[r->nr_volumes];

	snprintf(v->name, sizeof(v->name), "v%u", r->nr_volumes++);
	v->nr_objects = v->max_objects = r->shape.nr_objects;
	v->shared = kind == CLIENT_SHARED;
	v->discards = r->shape.discards && !v->shared;
	if (kind != CLIENT_SHARED && kind != CLIENT_OLD && prng_chance(p, 1, 3))
		v->max_objects += 3;
	v->h = history_new((v->max_objects << r->shape.shift) / SECTOR);
	if (!v->shared) /* what is lost is said once, to one of those who have it open (5.4) */
		history_strict(v->h);
	return v;
}

static struct client *client_new(struct run *r, unsigned i, enum client_kind kind, struct prng *p)
{
	struct client *c = &r->client[i];

	snprintf(c->name, sizeof(c->name), "client%u", i);
	c->w = &r->w;
	c->kind = kind;
	c->idx = i;
	c->ip = 50 + i;
	c->shape = &r->shape;
	c->depth = r->shape.depth;
	c->cached = r->shape.cached;
	c->gateway = (unsigned)prng_in(p, 0, r->shape.nr_first - 1);
	return c;
}

void fleet_draw(struct run *r)
{
	enum client_kind special;
	struct prng p;

	prng_init(&p, r->w.seed, 9);
	unsigned nr = draw_kinds(r, &p, &special);
	for (unsigned i = 0; i < r->shape.nr_clients; i++) {
		enum client_kind kind = i < nr ? special : CLIENT_OWN;
		struct client *c = client_new(r, i, kind, &p);
		bool same = kind == CLIENT_SHARED && i;
		c->vol = same ? r->client[0].vol : volume_new(r, &p, kind);
		if (same && c->gateway == r->client[i - 1].gateway)
			c->gateway = (c->gateway + 1) % r->shape.nr_first;
	}
	if (prng_chance(&p, 1, 3)) {
		struct client *c = client_new(r, r->shape.nr_clients++, CLIENT_CHURN, &p);
		c->churn = churn_new();
	}
}

void fleet_start(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_clients; i++) {
		struct client *c = &r->client[i];
		story(&r->w, "%s: %s%s%s", c->name, client_kinds[c->kind], c->vol ? ", " : "",
		      c->vol ? c->vol->name : "");
		client_start(c);
	}
}

void fleet_done(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_clients; i++) {
		client_end(&r->client[i]);
		free(r->client[i].churn);
	}
	for (unsigned i = 0; i < r->nr_volumes; i++)
		history_free(r->volume[i].h);
}

void fleet_check(struct run *r)
{
	char why[512];

	for (unsigned i = 0; i < r->nr_volumes && !r->w.failed; i++)
		if (!history_check(r->volume[i].h, why, sizeof(why)))
			world_fail(&r->w, "history of %s: %s", r->volume[i].name, why);
}

bool fleet_rest(struct run *r)
{
	const struct cluster *c = r->node[0].sh->cluster;
	const struct view *view = cluster_view(c);
	const struct vdi *v = NULL;

	/* What nobody owns is compared when somebody does again. */
	while ((v = cluster_vdi_next(c, v ? v->vid : 0)))
		if (v->deleted ? v->reclaiming
			       : v->owned && !v->clean && view_find(view, &v->owner) >= 0)
			return false;
	return true;
}

/* One that a dead owner left dirty, and that nobody has opened since. */
static bool nobody_looked(const struct cluster *c, const struct vdi *v)
{
	return !v->clean && !(v->owned && view_find(cluster_view(c), &v->owner) >= 0);
}

enum object_is fleet_object(void *arg, uint64_t oid)
{
	struct run *r = arg;
	const struct cluster *c = r->node[0].sh->cluster;
	const struct vdi *t = cluster_vdi(c, SD_OID_VID(oid));

	if (!t || t->deleted)
		return OBJECT_DELETED;
	for (unsigned i = 0; i < r->nr_volumes; i++) {
		const struct volume *v = &r->volume[i];
		uint32_t idx = SD_OID_IDX(oid);
		if (v->vid != t->vid)
			continue;
		if (!SD_OID_IS_DATA(oid)) /* its client has read all of it at its end */
			return OBJECT_PART;
		return idx < v->max_objects && v->refers[idx] ? OBJECT_PART : OBJECT_LEFT;
	}
	return nobody_looked(c, t) ? OBJECT_LOOSE : OBJECT_PART;
}
