/* vdi.c - the VDIs that requests came for: ownership, generations, and what the owner knows about
 * their objects (DESIGN 5.1, 5.6). */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/gateway_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* ---- VDIs ---- */

struct gw_vdi *gv_find(struct gateway *gw, uint32_t vid)
{
	return map_get(&gw->vdis, vid);
}

struct gw_vdi *gv_get(struct gateway *gw, uint32_t vid)
{
	struct gw_vdi *v = map_get(&gw->vdis, vid);

	if (!v) {
		v = calloc(1, sizeof(*v));
		if (!v)
			return NULL;
		v->gw = gw;
		v->vid = vid;
		co_cond_init(&v->idle);
		co_cond_init(&v->flushed);
		CDS_INIT_LIST_HEAD(&v->objs);
		if (map_set(&gw->vdis, vid, v) < 0) {
			free(v);
			return NULL;
		}
		gw->nr_vdis++;
	}
	v->refs++;
	return v;
}

void gv_put(struct gw_vdi *v)
{
	assert(v->refs);
	if (--v->refs)
		return;
	assert(cds_list_empty(&v->objs) && !v->nr_ops);
	inode_forget(v);
	assert(v->gone || v->state == GV_NONE);
	if (!v->gone)
		map_del(&v->gw->vdis, v->vid);
	v->gw->nr_vdis--;
	free(v);
}

void gv_own(struct gw_vdi *v, uint64_t gen, bool dirty)
{
	struct cluster *c = v->gw->sh->cluster;
	const struct vdi *t = cluster_vdi(c, v->vid);

	assert(v->state != GV_OWNED && !v->gone && t);
	if (v->state == GV_NONE)
		v->refs++;
	v->state = GV_OWNED;
	v->gw->nr_owned++;
	v->gen = gen;
	v->seq = 0;
	v->dirty = dirty;
	v->cached = t->cached; /* what the owner before left */
	v->handover_ns = GW_HANDOVER_NS;
	/* The view in which the owner before us is gone, at least: an answer of an older epoch says
	 * nothing about what that owner's last writes will still do (DESIGN 5.6, WHY A). */
	v->min_epoch = cluster_epoch(c);
	v->copies = t->copies;
	v->shift = t->shift;
	log_info(v->gw->sh->log, "this node is owner of VDI %06x, generation %llu%s", v->vid,
		 (unsigned long long)gen, dirty ? ", dirty: objects are compared first" : "");
	v->flush_all =
		!PLANTED(flush_not_all); /* WHY B5: the first flush of a generation goes to all */
	v->index_cached = true;
	v->suspect = t->cached;
	co_cond_broadcast(&v->gw->changed);
	if (dirty && MARKED(gv_dirty))
		sweep_kick(v->gw);
}

static void obj_free(struct gw_obj *o);

void gv_drop(struct gw_vdi *v)
{
	struct gateway *gw = v->gw;
	struct gw_obj *o, *next;
	bool owned = v->state != GV_NONE;

	if (v->gone)
		return;
	v->gone = true;
	v->refs++;
	map_del(&gw->vdis, v->vid);
	owner_wake(v);
	cds_list_for_each_entry_safe (o, next, &v->objs, v_node) {
		map_del(&gw->objs, o->oid);
		co_cond_broadcast(&o->loaded);
		if (!o->refs)
			obj_free(o);
	}
	inode_forget(v);
	co_cond_broadcast(&v->flushed);
	co_cond_broadcast(&v->idle);
	co_cond_broadcast(&gw->changed);
	v->state = GV_NONE;
	if (owned)
		gv_put(v);
	gv_put(v);
}

/* Somebody fell silent and may think that he is the owner still: nothing is served before his lease
 * is over (DESIGN 4.4, WHY B7).  A CREATE needs no such wait: its vid had no owner. */
static void claim_wait(struct gw_vdi *v)
{
	struct gateway *gw = v->gw;
	uint64_t at;

	while (!v->gone && !gw->stopping &&
	       (at = cluster_serve_after(gw->sh->cluster)) > env_now(gw->sh->env) &&
	       MARKED(gv_claim_wait))
		co_cond_wait_until(&gw->changed, at, "a silent member's lease"); /* ~ */
}

bool gv_holds(const struct gw_vdi *v, uint64_t gen)
{
	const struct vdi *t = cluster_vdi(v->gw->sh->cluster, v->vid);

	return t && t->owned && t->gen == gen && inc_eq(&t->owner, &v->gw->sh->self.inc);
}

/* One CLAIM in flight for each VDI.  When cluster_do() returns the answer is durable here: only
 * then is the generation used in a version (WHY B15).  All of the VDI wait until it serves. */
int gv_claim(struct gw_op *op, struct gw_vdi *v)
{
	struct gateway *gw = v->gw;
	struct cmd cmd = {.type = CMD_CLAIM, .vid = v->vid};
	int r;

	assert(v->state == GV_NONE && !v->gone);
	v->state = GV_CLAIMING;
	v->refs++;
	r = cluster_do(gw->sh->cluster, &cmd); /* ~ */
	if (r == 0 && cmd.result == SD_RES_SUCCESS)
		claim_wait(v); /* ~ */
	if (!v->gone) {
		v->state = GV_NONE;
		if (r == 0 && cmd.result == SD_RES_SUCCESS && gv_holds(v, cmd.ret_gen) &&
		    MARKED(gv_claimed))
			gv_own(v, cmd.ret_gen, cmd.ret_dirty);
		co_cond_broadcast(&gw->changed);
		gv_put(v);
	}
	/* VDI_LOCKED: the table, applied up to here, says who has it.  Else it passes, or we stop.
	 */
	if ((r < 0 || (cmd.result != SD_RES_SUCCESS && cmd.result != SD_RES_VDI_LOCKED)) &&
	    !op_over(op) && MARKED(gv_claim_failed))
		gw_wait(gw, GW_LOOK_NS, "claim"); /* ~ */
	return -EAGAIN;
}

/* The members that have cached writes to flush have other places in the new view.  Who is gone has
 * nothing to flush: a node syncs its store at its start, and what it lacks then it pulls, durably
 * (DESIGN 5.4, 5.5); but it may have been the last one who had them: the next flush looks. */
static void unflushed_move(struct gw_vdi *v, struct view *old)
{
	uint64_t moved[GW_WORDS] = {0};

	for (unsigned m = 0; m < old->nr; m++) {
		if (!(v->unflushed[m / 64] >> (m % 64) & 1))
			continue;
		int i = view_find(v->gw->view, &old->members[m].inc);
		v->suspect |= i < 0;
		if (i >= 0 && MARKED(gv_unflushed_moves))
			moved[i / 64] |= 1ull << (i % 64);
	}
	memcpy(v->unflushed, moved, sizeof(moved));
}

void gv_view(struct gateway *gw, struct view *old)
{
	struct gw_vdi *v;
	size_t pos = 0;

	while (old && (v = map_next(&gw->vdis, &pos, NULL)))
		unflushed_move(v, old);
}

void gv_op_begin(struct gw_vdi *v)
{
	v->nr_ops++;
	v->refs++;
}

void gv_op_end(struct gw_vdi *v)
{
	assert(v->nr_ops);
	if (--v->nr_ops == 0)
		co_cond_broadcast(&v->idle);
	gv_put(v);
}

/* Stop admitting when RELEASE is sent, not when it is delivered (WHY A): from GV_RELEASING on
 * nothing new is served. */
bool gv_release(struct gw_op *op, struct gw_vdi *v, uint64_t until)
{
	struct gateway *gw = v->gw;
	struct cmd cmd = {.type = CMD_RELEASE, .vid = v->vid, .gen = v->gen};
	bool sent = false;

	assert(v->state == GV_OWNED);
	v->state = GV_RELEASING;
	v->refs++;
	while (v->nr_ops && !v->gone && !gw->stopping)
		if (co_cond_wait_until(&v->idle, until, "release") < 0 &&
		    MARKED(gv_release_busy)) /* ~ */
			break;
	if (!v->nr_ops && !v->gone && !gw->stopping) {
		/* Clean: takeover finished, everything flushed (WHY B15, DESIGN 5.1). */
		MARK(gv_release);
		bool flushed = owner_flush(op, v) == SD_RES_SUCCESS; /* ~ */
		cmd.clean = flushed && !v->dirty && !v->nr_ops;
		if (!v->gone && !gw->stopping) {
			int r = cluster_do(gw->sh->cluster, &cmd); /* ~ */
			if (r == 0)
				gv_drop(v);
			sent = r == 0 || r == -ENOTCONN; /* else it never left this node */
		}
	}
	gv_put(v);
	return sent;
}

/* ---- cached writes (DESIGN 5.4) ---- */

int gv_say_cached(struct gw_op *op, struct gw_vdi *v)
{
	struct gateway *gw = v->gw;
	struct cmd cmd = {.type = CMD_CACHED, .vid = v->vid, .gen = v->gen};

	while (!v->cached) {
		if (op_over(op))
			return -ECANCELED;
		if (v->gone)
			return -EAGAIN;
		if (v->caching && MARKED(gv_caching)) {
			gw_wait(gw, GW_LOOK_NS, "cached"); /* ~ */
			continue;
		}
		v->caching = true;
		int r = cluster_do(gw->sh->cluster, &cmd); /* ~ */
		v->cached = r == 0 && cmd.result == SD_RES_SUCCESS;
		bool deleted = r == 0 && cmd.result == SD_RES_NO_VDI;
		if (!v->cached && !deleted && !v->gone && !gw->stopping)
			gw_wait(gw, GW_LOOK_NS, "cached"); /* ~ */
		v->caching = false;
		co_cond_broadcast(&gw->changed);
		if (deleted && MARKED(gv_cached_deleted))
			return 0; /* write_check() says so */
	}
	return v->gone ? -EAGAIN : 0;
}

/* ---- handover (DESIGN 5.1) ---- */

/* Clients notice nothing but a pause: what comes meanwhile waits, and is then sent to the node that
 * has claimed the VDI.  What is cached is flushed before, while requests are served. */
static void handover_co(void *arg)
{
	struct gw_vdi *v = arg;
	struct gateway *gw = v->gw;
	struct gw_op op;
	bool done = false;

	op_begin_internal(gw, &op, v->vid);
	if (owner_flush(&op, v) == SD_RES_SUCCESS && v->state == GV_OWNED && !gw->draining) {
		MARK(gv_handover);
		log_info(gw->sh->log, "handing over VDI %06x: another node's clients use it",
			 v->vid);
		done = gv_release(&op, v, env_now(gw->sh->env) + GW_HANDOVER_DRAIN_NS); /* ~ */
		if (!done && !v->gone && !gw->stopping && !gw->releasing)
			v->state = GV_OWNED; /* something in work does not end */
	}
	if (!done) {
		v->peer_since = 0;
		MARK(gv_handover_not);
		v->handover_ns = 2 * v->handover_ns < GW_HANDOVER_MAX_NS ? 2 * v->handover_ns
									 : GW_HANDOVER_MAX_NS;
	}
	v->handing = false;
	co_cond_broadcast(&gw->changed);
	op_end(&op);
	gv_put(v);
}

static void handover_start(struct gw_vdi *v)
{
	if (v->handing || v->gw->draining || v->dirty) /* the sweep makes it clean first */
		return;
	v->handing = true;
	v->refs++;
	if (!co_start(v->gw->sh->sched, handover_co, v, "handover")) {
		v->handing = false;
		v->refs--; /* the caller has one */
	}
}

/* Only one other gateway uses it, and none of ours: then it had better be the owner.  With several
 * others it stays where it is, whoever of them uses it more. */
void gv_used(struct gw_op *op, struct gw_vdi *v)
{
	if (op->internal)
		return;
	if (!op->call) {
		v->own_used = true;
		if (op->client.conn_id)
			v->own_conn = op->client.conn_id;
		return;
	}
	uint64_t now = env_now(v->gw->sh->env);
	if (v->own_used) {
		v->own_used = false;
		v->own_last = now;
		v->peer_since = 0;
	}
	if (!v->peer_since || !inc_eq(&v->peer, &op->from)) {
		v->peer = op->from;
		v->peer_since = now;
	} else if (now - v->peer_since >= v->handover_ns &&
		   (!v->own_conn || now - v->own_last >= GW_HANDOVER_IDLE_NS)) {
		handover_start(v);
	}
}

void gv_conn_closed(struct gateway *gw, uint64_t conn_id)
{
	struct gw_vdi *v;
	size_t pos = 0;

	while ((v = map_next(&gw->vdis, &pos, NULL)))
		if (v->own_conn == conn_id)
			v->own_conn = 0;
}

/* ---- objects ---- */

uint64_t obj_size_of(const struct gw_vdi *v, uint64_t oid)
{
	return SD_OID_IS_INODE(oid) ? SD_INODE_SIZE : 1ull << v->shift;
}

static void obj_free(struct gw_obj *o)
{
	struct gw_vdi *v = o->v;
	struct gateway *gw = v->gw;

	assert(!o->refs && cds_list_empty(&o->writes) && !o->calls_out);
	assert(co_ranges_idle(&o->ranges));
	cds_list_del(&o->idle_node);
	cds_list_del(&o->v_node);
	gw->nr_idle_objs--;
	gw->nr_objs--;
	if (!v->gone)
		map_del(&gw->objs, o->oid);
	free(o);
	gv_put(v);
}

/* Bounded memory: what was used longest ago is forgotten, and asked for again when it is needed:
 * with no write in flight all replicas in sync have the same version. */
void objs_trim(struct gateway *gw, unsigned keep)
{
	while (gw->nr_idle_objs > keep)
		obj_free(cds_list_first_entry(&gw->idle_objs, struct gw_obj, idle_node));
}

struct gw_obj *obj_get(struct gw_vdi *v, uint64_t oid)
{
	struct gateway *gw = v->gw;
	struct gw_obj *o = map_get(&gw->objs, oid);

	assert(!v->gone);
	if (o) {
		assert(o->v == v);
		if (!o->refs++) {
			cds_list_del(&o->idle_node);
			gw->nr_idle_objs--;
		}
		return o;
	}
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	if (map_set(&gw->objs, oid, o) < 0) {
		free(o);
		return NULL;
	}
	o->oid = oid;
	o->v = v;
	o->refs = 1;
	o->size = obj_size_of(v, oid);
	co_ranges_init(&o->ranges);
	co_cond_init(&o->loaded);
	CDS_INIT_LIST_HEAD(&o->writes);
	cds_list_add_tail(&o->v_node, &v->objs);
	v->refs++;
	gw->nr_objs++;
	return o;
}

void obj_put(struct gw_obj *o)
{
	struct gateway *gw = o->v->gw;

	assert(o->refs);
	if (--o->refs)
		return;
	cds_list_add_tail(&o->idle_node, &gw->idle_objs);
	gw->nr_idle_objs++;
	if (o->v->gone || o->drop)
		obj_free(o);
	else
		objs_trim(gw, GW_OBJS_IDLE_MAX);
}

unsigned obj_ring(struct gw_obj *o)
{
	struct view *view = o->v->gw->view;

	if (o->ring_epoch != view->epoch) {
		o->nr_ring = ring_lookup(view->ring, sd_hash_oid(o->oid), o->v->copies, o->ring);
		o->ring_epoch = view->epoch;
	}
	return o->nr_ring;
}

/* ---- first access in a generation ---- */

static struct gw_call *version_call(struct gw_fan *f, struct gw_obj *o, enum peer_op op, unsigned m)
{
	struct gw_call *k = fan_call(f, op, m);

	if (!k)
		return NULL;
	k->c.req.vid = o->v->vid;
	k->c.req.oid = o->oid;
	k->c.req.copies = o->v->copies;
	k->c.req.obj_size = o->size;
	k->c.req.prev_gen = o->v->gen; /* the tag of what is done in its name */
	return k;
}

static struct obj_ver call_ver(const struct gw_call *k)
{
	return (struct obj_ver){k->c.rsp.ver_gen, k->c.rsp.ver_seq};
}

/* The simulator's test of itself (plant.h): what a replica in todo says counts as not asked. */
static bool unasked(const struct gw_call *k)
{
	return PLANTED(x_take) && k->c.rsp.ver_gen == UINT64_MAX;
}

static void obj_learned(struct gw_obj *o, struct obj_ver ver)
{
	o->ver = ver;
	o->exists = ver.gen || ver.seq;
}

/* A generation that began clean: whoever is in sync in this epoch knows, since all have the same.
 * 0, -EAGAIN: not answered in this epoch, -ECANCELED. */
static int load_clean(struct gw_obj *o)
{
	struct gateway *gw = o->v->gw;
	struct view *view = gw->view;
	struct gw_fan f;
	struct gw_call *k;
	unsigned nr = obj_ring(o);
	bool self = false;
	int r = 0;

	for (unsigned i = 0; i < nr; i++)
		self |= (int)o->ring[i] == view->self;
	self = self && sync_is(gw->sh, view->epoch, o->oid, o->v->copies);
	fan_init(&f, gw, o->v);
	for (unsigned i = 0; i < nr; i++) {
		if (self && (int)o->ring[i] != view->self && MARKED(gv_load_self))
			continue;
		k = version_call(&f, o, PEER_VERSION, o->ring[i]);
		if (k)
			fan_submit(&f, k, &view->members[o->ring[i]].inc);
	}
	r = fan_wait(&f, true); /* ~ */
	if (!r) {
		r = -EAGAIN;
		cds_list_for_each_entry (k, &f.calls, node)
			if (r && call_ok(k) && gw_epoch_is(gw, f.epoch) && !unasked(k)) {
				obj_learned(o, call_ver(k));
				r = 0;
			}
	}
	fan_done(&f);
	return r;
}

/* Is a's state above b's?  A torn one ranks below the same version whole (DESIGN 6). */
static bool state_above(const struct gw_call *a, const struct gw_call *b)
{
	int d = obj_ver_cmp(call_ver(a), call_ver(b));

	return d > 0 ||
	       (d == 0 && !(a->c.rsp.flags & PEER_F_TORN) && (b->c.rsp.flags & PEER_F_TORN));
}

/* Bring all of @f's replicas to the state of @best. */
static int takeover_settle(struct gw_obj *o, struct gw_fan *f, const struct gw_call *best)
{
	struct gateway *gw = o->v->gw;
	struct view *view = gw->view;
	struct gw_fan g;
	struct gw_call *k, *s;
	bool failed = false;

	fan_init(&g, gw, o->v);
	cds_list_for_each_entry (k, &f->calls, node) {
		if (!state_above(best, k))
			continue;
		MARK(gv_settle);
		s = version_call(&g, o, PEER_SETTLE, k->member);
		if (!s) {
			failed = true;
			break;
		}
		s->c.req.ver_gen = best->c.rsp.ver_gen;
		s->c.req.ver_seq = best->c.rsp.ver_seq;
		memcpy(s->c.req.client, &view->members[best->member].inc,
		       sizeof(struct incarnation));
		fan_submit(&g, s, &view->members[k->member].inc);
	}
	int r = fan_wait(&g, false); /* ~ */
	if (!r && (failed || g.nr_ok != g.nr || !gw_epoch_is(gw, g.epoch)) &&
	    MARKED(gv_settle_failed))
		r = -EAGAIN;
	fan_done(&g);
	return r;
}

/* Ask ALL of ring(e), each answers once it is in sync there in e; the highest is the object; all
 * are brought to it (DESIGN 5.6, WHY C1, E `x-take`).  No write of ours is out meanwhile. */
int obj_equalize(struct gw_obj *o, struct obj_ver *ver)
{
	struct gateway *gw = o->v->gw;
	struct view *view = gw->view;
	struct gw_fan f;
	struct gw_call *k, *best = NULL;
	unsigned nr = obj_ring(o);
	struct obj_ver as = {0, 0};

	if (o->torn)
		as = obj_renumber(o);
	fan_init(&f, gw, o->v);
	for (unsigned i = 0; i < nr; i++) {
		k = version_call(&f, o, PEER_VERSION, o->ring[i]);
		if (!k)
			continue;
		k->c.req.ver_gen = as.gen;
		k->c.req.ver_seq = as.seq;
		fan_submit(&f, k, &view->members[o->ring[i]].inc);
	}
	int r = fan_wait(&f, false); /* ~ */
	if (!r && (f.nr_ok != nr || !gw_epoch_is(gw, f.epoch)) && MARKED(gv_compare_failed))
		r = -EAGAIN;
	if (!r) {
		cds_list_for_each_entry (k, &f.calls, node)
			if (!unasked(k) && (!best || state_above(k, best)))
				best = k;
		r = best ? takeover_settle(o, &f, best) : -EAGAIN; /* ~ */
	}
	if (!r)
		*ver = call_ver(best);
	fan_done(&f);
	return r;
}

/* A generation that began dirty: before anything is served.  What an owner before us had in flight
 * is so decided once, for good. */
static int load_dirty(struct gw_obj *o)
{
	struct obj_ver ver;
	int r = obj_equalize(o, &ver); /* ~ */

	if (!r && MARKED(gv_compared))
		obj_learned(o, ver);
	return r;
}

/* Until it is done in one epoch: redone when the view changes meanwhile. */
static int obj_load(struct gw_op *op, struct gw_obj *o)
{
	struct gateway *gw = o->v->gw;

	for (;;) {
		if (op_over(op))
			return -ECANCELED;
		if (o->v->gone)
			return -EAGAIN;
		if (gv_usable(o->v)) {
			if (!obj_ring(o) && MARKED(gv_halt))
				return SD_RES_HALT;
			int r = (o->v->dirty && !PLANTED(no_recon)) || o->ask_all
					? load_dirty(o)
					: load_clean(o); /* ~ */
			if (r != -EAGAIN)
				return r;
			if (o->v->gone)
				return -EAGAIN;
		}
		if (!gw->stopping)
			gw_wait(gw, GW_LOOK_NS, "version"); /* ~ */
	}
}

int obj_ready(struct gw_op *op, struct gw_obj *o)
{
	while (o->state != OBJ_KNOWN) {
		if (op_over(op))
			return -ECANCELED;
		if (o->v->gone)
			return -EAGAIN;
		if (o->state == OBJ_LOADING && MARKED(gv_loading)) {
			co_cond_wait(&o->loaded, "version"); /* ~ */
			continue;
		}
		o->state = OBJ_LOADING;
		int r = obj_load(op, o); /* ~ */
		o->state = r ? OBJ_UNKNOWN : OBJ_KNOWN;
		co_cond_broadcast(&o->loaded);
		if (r)
			return r;
	}
	return o->v->gone ? -EAGAIN : 0;
}
