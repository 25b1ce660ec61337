/* sweep.c - the takeover in the background: all that nobody asks for (DESIGN 5.6).
 *
 * In a generation that began dirty the replicas of an object are compared at its first access
 * (obj_ready).  The sweep does that for every object of the VDI that any member knows, not only for
 * those that the inode refers to: the owner before us may have been making or removing some.  Then
 * the VDI is clean.
 *
 *  W1 Objects whose hash is below `from` were equal on all of ring(e), all in sync in e, in an
 * epoch e of this generation.  Views that come later do not change that: who comes in sync takes
 * the state of one who was, and only writes of an owner make replicas in sync differ: ours. W2 A
 * page counts only if every member has listed it in one epoch, and that epoch is still ours when
 * its last object is done: what nobody lists is absent on all of ring(e) then. W3 CLEAN is sent
 * when the last page is done; only when it is applied the generation is clean. W4 Clients come
 * first: few objects at a time, each after a pause while there are requests.
 *
 * Objects that the inode does not refer to are left where they are: a client writes an object first
 * and its index entry later, as late as it likes, so an owner cannot tell an orphan from an object
 * whose entry is still to come.  They go with their VDI (reclaim.c).
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/gateway_int.h"
#include "sheep/mark.h"

#define SWEEP_VDIS     32u	    /* swept at the same time */
#define SWEEP_WORKERS  4u	    /* objects of one of them, at the same time */
#define SWEEP_YIELD_NS 2000000ull   /* twice, while there are requests: then the next object */
#define SWEEP_PAUSE_NS 500000000ull /* after something failed */

struct sweep_row {
	uint64_t hash, oid;
};

struct sweep { /* on its coroutine's stack */
	struct gateway *gw;
	struct gw_vdi *v;
	struct gw_op op;
	uint64_t from, to; /* the page, inclusive */
	uint32_t epoch;	   /* it was listed in */
	bool last;	   /* W1 holds for all hashes */
	struct sweep_row *row;
	size_t nr, next;
	int failed;
	uint64_t nr_done;
};

static bool sweep_over(const struct sweep *sw)
{
	return sw->gw->draining || sw->v->gone || !sw->v->dirty;
}

static bool sweep_may(const struct sweep *sw)
{
	return !sweep_over(sw) && sw->v->state == GV_OWNED && gv_usable(sw->v);
}

/* ---- a page ---- */

static int row_cmp(const void *a, const void *b)
{
	const struct sweep_row *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->oid < y->oid ? -1 : x->oid > y->oid;
}

static void rows_take(struct sweep *sw, const struct gw_call *k)
{
	const uint8_t *p = (const uint8_t *)k->reply->data + k->c.reply_off;

	for (size_t n = k->c.reply_len / sizeof(uint64_t); n; n--, p += sizeof(uint64_t)) {
		struct sweep_row row;
		memcpy(&row.oid, p, sizeof(row.oid));
		row.hash = sd_hash_oid(row.oid);
		if (SD_OID_VID(row.oid) == sw->v->vid && row.hash >= sw->from && row.hash <= sw->to)
			sw->row[sw->nr++] = row;
	}
}

/* The part of the hashes that all answers cover, and the objects of all of them in it. */
static int page_merge(struct sweep *sw, struct gw_fan *f)
{
	struct gw_call *k;
	size_t max = 0, n = 0;

	sw->to = UINT64_MAX;
	cds_list_for_each_entry (k, &f->calls, node) {
		if (k->c.rsp.len < sw->from && MARKED(sweep_page_none))
			return -EAGAIN;
		sw->to = k->c.rsp.len < sw->to ? k->c.rsp.len : sw->to;
		max += k->c.reply_len / sizeof(uint64_t);
	}
	free(sw->row);
	sw->nr = sw->next = 0;
	sw->row = malloc((max + 1) * sizeof(*sw->row));
	if (!sw->row)
		return -ENOMEM;
	cds_list_for_each_entry (k, &f->calls, node)
		rows_take(sw, k);
	qsort(sw->row, sw->nr, sizeof(*sw->row), row_cmp);
	for (size_t i = 0; i < sw->nr; i++)
		if (!i || sw->row[i].oid != sw->row[n - 1].oid)
			sw->row[n++] = sw->row[i];
	sw->nr = n;
	return 0;
}

static bool page_ask(struct sweep *sw, struct gw_fan *f, unsigned m)
{
	struct gateway *gw = sw->gw;
	size_t cap = PEER_VID_LIST_MAX * sizeof(uint64_t);
	struct buf *reply = buf_new(gw->sh->pool, cap);
	struct gw_call *k = reply ? fan_call(f, PEER_VID_LIST, m) : NULL;

	if (!k) {
		buf_put(reply);
		return false;
	}
	k->reply = k->c.reply_buf = reply;
	k->c.reply_cap = cap;
	k->c.req.vid = sw->v->vid;
	k->c.req.off = sw->from;
	fan_submit(f, k, &gw->view->members[m].inc);
	return true;
}

/* All members, not the ring alone: it is the ring of each object in turn (W2). */
static int page_list(struct sweep *sw)
{
	struct gateway *gw = sw->gw;
	unsigned nr = gw->view->nr;
	bool asked = true;
	struct gw_fan f;

	fan_init(&f, gw, sw->v);
	sw->epoch = f.epoch;
	for (unsigned m = 0; m < nr && asked; m++)
		asked = page_ask(sw, &f, m);
	int r = fan_wait(&f, false); /* ~ */
	if (!r && (!asked || f.nr_ok != nr || !gw_epoch_is(gw, sw->epoch)) &&
	    MARKED(sweep_list_failed))
		r = -EAGAIN;
	if (!r)
		r = page_merge(sw, &f);
	fan_done(&f);
	return r;
}

/* ---- its objects ---- */

/* W4 */
static void clients_first(struct sweep *sw)
{
	for (unsigned i = 0; i < 2 && sw->gw->nr_ops > sw->gw->nr_sweeps && sweep_may(sw); i++) {
		MARK(sweep_clients_first);
		co_sleep(SWEEP_YIELD_NS); /* ~ */
	}
}

static int sweep_object(struct sweep *sw, uint64_t oid)
{
	struct gw_obj *o = obj_get(sw->v, oid);

	if (!o)
		return SD_RES_NO_MEM;
	bool ours = o->refs == 1 && o->state == OBJ_UNKNOWN;
	int r = obj_ready(&sw->op, o); /* ~ */
	if (ours && o->refs == 1)
		o->drop = true; /* nobody has asked for it: what is used stays in memory */
	obj_put(o);
	return r;
}

static void worker(void *arg)
{
	struct sweep *sw = arg;

	while (sw->next < sw->nr && !sw->failed) {
		uint64_t oid = sw->row[sw->next++].oid;
		clients_first(sw);					 /* ~ */
		int r = sweep_may(sw) ? sweep_object(sw, oid) : -EAGAIN; /* ~ */
		if (r && MARKED(sweep_object_failed))
			sw->failed = r;
		else if (MARKED(sweep_object))
			sw->nr_done++;
	}
}

static int page_run(struct sweep *sw)
{
	struct co_group g;

	sw->failed = 0;
	co_group_init(&g);
	for (size_t i = 1; i < sw->nr && i < SWEEP_WORKERS; i++)
		if (co_group_start(sw->gw->sh->sched, &g, worker, sw, "sweep") < 0)
			break;
	worker(sw);	   /* ~ we are one of them */
	co_group_wait(&g); /* ~ */
	return sw->failed;
}

static int sweep_page(struct sweep *sw)
{
	int r = page_list(sw); /* ~ */

	if (!r)
		r = page_run(sw); /* ~ */
	if (!r && !gw_epoch_is(sw->gw, sw->epoch) && MARKED(sweep_view))
		r = -EAGAIN;
	if (r)
		return r;
	sw->last = sw->to == UINT64_MAX;
	sw->from = sw->last ? 0 : sw->to + 1;
	return 0;
}

/* ---- the whole ---- */

static int sweep_clean(struct sweep *sw)
{
	struct gw_vdi *v = sw->v;
	struct cmd cmd = {.type = CMD_CLEAN, .vid = v->vid, .gen = v->gen};
	int r = cluster_do(sw->gw->sh->cluster, &cmd); /* ~ */

	if ((r < 0 || cmd.result != SD_RES_SUCCESS) && MARKED(sweep_clean_failed))
		return -EAGAIN;
	if ((v->gone || v->gen != cmd.gen) && MARKED(sweep_clean_over))
		return -EAGAIN;
	MARK(sweep_clean);
	v->dirty = false; /* gateway_vdi_changed() was first, unless a RELEASE was under way */
	log_info(sw->gw->sh->log, "VDI %06x is clean: %llu objects compared", v->vid,
		 (unsigned long long)sw->nr_done);
	return 0;
}

static void sweep_co(void *arg)
{
	struct gw_vdi *v = arg;
	struct gateway *gw = v->gw;
	struct sweep sw = {.gw = gw, .v = v};

	op_begin_internal(gw, &sw.op, v->vid);
	while (!sweep_over(&sw)) {
		int r = -EAGAIN;
		if (sweep_may(&sw))
			r = sw.last ? sweep_clean(&sw) : sweep_page(&sw); /* ~ */
		if (r && !sweep_over(&sw))
			gw_wait(gw, SWEEP_PAUSE_NS, "sweep"); /* ~ */
	}
	free(sw.row);
	v->sweeping = false;
	gw->nr_sweeps--;
	op_end(&sw.op);
	gv_put(v);
	sweep_kick(gw);
}

void sweep_kick(struct gateway *gw)
{
	struct gw_vdi *v;
	size_t pos = 0;

	while (!gw->draining && gw->nr_sweeps < SWEEP_VDIS &&
	       (v = map_next(&gw->vdis, &pos, NULL))) {
		const struct vdi *t = cluster_vdi(gw->sh->cluster, v->vid);
		if (v->state != GV_OWNED || !v->dirty || v->sweeping || !t || t->deleted)
			continue;
		if (!co_start(gw->sh->sched, sweep_co, v, "sweep"))
			break; /* too many coroutines: the next view or claim tries again */
		v->sweeping = true;
		v->refs++;
		gw->nr_sweeps++;
	}
}
