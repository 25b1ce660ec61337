/* member_view.c - what the cluster module publishes: views, members, VDIs. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>

#include "sheep/member_int.h"

/* ---- views ---- */

struct view *view_make(const struct member *m, unsigned nr, const struct incarnation *self)
{
	struct view *v = calloc(1, sizeof(*v));
	struct ring_node *rn = calloc(nr ? nr : 1, sizeof(*rn));

	if (v)
		v->members = calloc(nr ? nr : 1, sizeof(*v->members));
	if (!v || !rn || !v->members)
		goto fail;
	v->refs = 1;
	v->nr = nr;
	v->self = -1;
	for (unsigned i = 0; i < nr; i++) {
		v->members[i] = m[i];
		memcpy(rn[i].ip, m[i].addr.ip, sizeof(rn[i].ip));
		rn[i].port = m[i].addr.port;
		rn[i].nr_vnodes = m[i].nr_vnodes;
		rn[i].zone = m[i].zone;
		if (inc_same(&m[i].inc, self))
			v->self = (int)i;
	}
	v->ring = ring_new(rn, nr);
	if (!v->ring)
		goto fail;
	free(rn);
	return v;
fail:
	free(rn);
	if (v)
		free(v->members);
	free(v);
	return NULL;
}

struct view *view_get(struct view *v)
{
	if (v) {
		assert(v->refs);
		v->refs++;
	}
	return v;
}

void view_put(struct view *v)
{
	if (!v)
		return;
	assert(v->refs);
	if (--v->refs)
		return;
	ring_free(v->ring);
	free(v->members);
	free(v);
}

int view_find(const struct view *v, const struct incarnation *inc)
{
	for (unsigned i = 0; v && i < v->nr; i++)
		if (inc_same(&v->members[i].inc, inc))
			return (int)i;
	return -1;
}

/* ---- questions ---- */

const struct cs *member_state(const struct cluster *c)
{
	return c->s ? c->s : c->disk;
}

/* While nothing runs the group's state may be that of an empty node that is older on the bus; this
 * node's own is on the way to it, and wins. */
static bool is_formatted(const struct cluster *c)
{
	return (c->s && c->s->params.ctime) || (c->disk && c->disk->params.ctime);
}

enum cluster_status member_status(const struct cluster *c)
{
	const struct cs *s = member_state(c);

	if (c->s && s->status == CLUSTER_SHUTDOWN)
		return CLUSTER_SHUTDOWN;
	if (!is_formatted(c))
		return CLUSTER_WAIT_FORMAT;
	return c->s && s->status == CLUSTER_RUNNING && c->view && c->view_done ? CLUSTER_RUNNING
									       : CLUSTER_WAIT_JOIN;
}

enum cluster_status cluster_status(const struct cluster *c)
{
	return c->status;
}

struct view *cluster_view(const struct cluster *c)
{
	return c->view;
}

struct co_cond *cluster_changed(struct cluster *c)
{
	return &c->changed;
}

uint32_t cluster_epoch(const struct cluster *c)
{
	const struct hist *h = cs_newest(member_state(c));

	return h ? h->epoch : 0;
}

struct view *cluster_history(struct cluster *c, uint32_t epoch)
{
	const struct hist *h = cs_hist(member_state(c), epoch);

	if (!h)
		return NULL;
	struct member *m = calloc(h->nr ? h->nr : 1, sizeof(*m));
	if (!m)
		return NULL;
	for (unsigned i = 0; i < h->nr; i++) {
		m[i] = h->members[i].node->m;
		m[i].nr_vnodes = h->members[i].nr_vnodes;
	}
	struct view *v = view_make(m, h->nr, &c->self.inc);
	free(m);
	if (!v)
		return NULL;
	v->epoch = h->epoch;
	memcpy(v->name, h->name, sizeof(v->name));
	v->time = h->time;
	v->forced = h->forced;
	return v;
}

static int present_cmp(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	int r = memcmp(x->addr.ip, y->addr.ip, sizeof(x->addr.ip));

	return r ? r : (x->addr.port > y->addr.port) - (x->addr.port < y->addr.port);
}

struct view *cluster_present(struct cluster *c)
{
	unsigned nr = c->s ? c->s->nr_lobby : 0, n = 0;
	struct member *m = calloc(nr + 1, sizeof(*m));

	if (!m)
		return NULL;
	for (unsigned i = 0; i < nr; i++)
		if (!c->s->lobby[i]->refused)
			m[n++] = c->s->lobby[i]->j.m;
	if (!c->s)
		m[n++] = c->self;
	for (unsigned i = 0; i < n; i++)
		if (!m[i].gateway)
			m[i].nr_vnodes = m[i].fixed_vnodes ? m[i].fixed_vnodes : SD_VNODES_DEFAULT;
	qsort(m, n, sizeof(*m), present_cmp);
	struct view *v = view_make(m, n, &c->self.inc);
	free(m);
	return v;
}

const struct vdi *cluster_vdi(const struct cluster *c, uint32_t vid)
{
	return cs_vdi(member_state(c), vid);
}

const struct vdi *cluster_vdi_next(const struct cluster *c, uint32_t after_vid)
{
	const struct cs *s = member_state(c);
	unsigned at = cs_vdi_at(s, after_vid + 1);

	return at < s->nr_vdis ? s->vdis[at] : NULL;
}

uint32_t cluster_lookup(const struct cluster *c, const char name[256], const char tag[256],
			uint32_t snapid, const struct vdi **ret)
{
	struct vdi *v;
	uint32_t res = cs_lookup(member_state(c), name, tag, snapid, &v);

	*ret = v;
	return res;
}

uint64_t cluster_session(const struct cluster *c, uint64_t client_id)
{
	return cs_session(member_state(c), client_id);
}

bool cluster_refused(const struct cluster *c)
{
	return c->refused;
}

const struct cluster_params *cluster_params(const struct cluster *c)
{
	return &member_state(c)->params;
}

uint64_t cluster_state_hash(const struct cluster *c)
{
	struct enc e = {0};

	cs_encode(member_state(c), &e);
	uint64_t h = e.failed ? 0 : sd_fnv1a64(e.p, e.len);
	free(e.p);
	return h;
}
