/* reclaim.c - volumes come and go: NEW_VDI's and DEL_VDI's work, and the removal of what a deleted
 * VDI leaves behind (DESIGN 5.1, 8).
 *
 * Who removes: the owner of the deleted VDI if it lives, since a write of it may still be in flight
 * there; else the lowest member of the view, which claims the vid first.  The claim's generation
 * is above all of the VDI's, so nothing of it comes back (I7).
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/gateway_int.h"
#include "sheep/mark.h"

#define RECLAIM_PAUSE_NS    500000000ull /* after something failed */
#define RECLAIM_BATCH	    1024u	 /* objects between two looks at the world */
#define RECLAIM_VMSTATE_GAP 64u		 /* so many absent ones in a row: there are no more */

/* ---- removal of many objects ---- */

/* One object.  Under the lock over the whole of it; a newer one is left alone (T23). */
static int obj_remove(struct gw_removal *rm, uint64_t oid)
{
	/* Whatever the client's flags: it is removed once, and what takes that back with all copies
	 * of the object (a power cut) nobody would notice, not even when its VDI is deleted (I7).
	 */
	struct gw_io io = {.op = PEER_REMOVE, .durable = true};
	struct gw_vdi *v = rm->v;
	struct co_range lock;
	struct gw_obj *o;
	int r;

	if (v->gone && MARKED(rcl_gone))
		return -EAGAIN;
	o = obj_get(v, oid);
	if (!o)
		return SD_RES_NO_MEM;
	co_range_lock(&o->ranges, &lock, 0, o->size, true); /* ~ */
	r = obj_ready(rm->op, o);			    /* ~ */
	if (!r && o->exists && !(o->ver.gen == v->gen && o->ver.seq > rm->seq)) {
		r = owner_write(rm->op, o, &io); /* ~ */
		if (!r)
			rm->nr_removed += MARKED(rcl_removed);
	}
	co_range_unlock(&lock);
	if (rm->background)
		o->drop = true; /* nobody asks for it again */
	obj_put(o);
	return r;
}

static void remover(void *arg)
{
	struct gw_removal *rm = arg;

	while (rm->next < rm->end && !rm->error) {
		uint32_t i = rm->next++;
		if (rm->background && rm->op->gw->draining && MARKED(rcl_stops)) {
			rm->error = -ECANCELED;
			break;
		}
		int r = obj_remove(rm, rm->base | (rm->idx ? rm->idx[i] : i)); /* ~ */
		if (r && MARKED(rcl_failed))
			rm->error = r;
	}
}

int objs_remove(struct gw_removal *rm)
{
	struct co_group g;
	uint32_t n = rm->end - rm->next;

	co_group_init(&g);
	for (uint32_t i = 1; i < n && i < GW_REMOVERS; i++)
		if (co_group_start(rm->op->gw->sh->sched, &g, remover, rm, "remove") < 0)
			break;
	remover(rm);	   /* ~ we are one of them */
	co_group_wait(&g); /* ~ */
	return rm->error;
}

/* ---- what a deleted VDI leaves behind ---- */

static int remove_range(struct gw_op *op, struct gw_vdi *v, uint64_t base, uint32_t from,
			uint32_t to, unsigned *nr)
{
	while (from < to) {
		uint32_t n = to - from < RECLAIM_BATCH ? to - from : RECLAIM_BATCH;
		struct gw_removal rm = {
			.op = op,
			.v = v,
			.base = base,
			.next = from,
			.end = from + n,
			.seq = UINT64_MAX,
			.background = true,
		};
		int r = objs_remove(&rm); /* ~ */
		if (r)
			return r;
		*nr += rm.nr_removed;
		from += n;
		co_yield (); /* ~ clients first */
	}
	return 0;
}

/* All data objects: of the VDI's size, whether its index names them or not (a client may have died
 * between CREATE and index write), and what the index names beyond. */
static int remove_data(struct gw_op *op, struct gw_vdi *v, uint64_t size, unsigned *nr)
{
	uint64_t full = DIV_ROUND_UP(size, 1ull << v->shift);
	uint32_t from = full < SD_NR_OBJS_MAX ? full : SD_NR_OBJS_MAX, next;
	uint32_t *idx = malloc(IDX_CHUNK * sizeof(*idx));
	int r, n;

	if (!idx)
		return SD_RES_NO_MEM;
	r = remove_range(op, v, SD_DATA_OID(v->vid, 0), 0, from, nr); /* ~ */
	while (!r && from < SD_NR_OBJS_MAX) {
		n = inode_own(op, v, from, idx, &next); /* ~ */
		if (n < 0) {
			r = n;
			break;
		}
		struct gw_removal rm = {.op = op,
					.v = v,
					.base = SD_DATA_OID(v->vid, 0),
					.idx = idx,
					.end = n,
					.seq = UINT64_MAX,
					.background = true};
		r = n ? objs_remove(&rm) : 0; /* ~ */
		*nr += rm.nr_removed;
		from = next;
	}
	free(idx);
	return r;
}

static int remove_vmstate(struct gw_op *op, struct gw_vdi *v, uint64_t size, unsigned *nr)
{
	uint64_t full = DIV_ROUND_UP(size, 1ull << v->shift);
	uint32_t from = full < SD_NR_OBJS_MAX ? full : SD_NR_OBJS_MAX;
	unsigned before;
	int r = remove_range(op, v, SD_VMSTATE_OID(v->vid, 0), 0, from, nr); /* ~ */

	do { /* one that was never finished has no size yet */
		before = *nr;
		uint32_t to = from + RECLAIM_VMSTATE_GAP;
		if (to > SD_NR_OBJS_MAX)
			to = SD_NR_OBJS_MAX;
		if (!r)
			r = remove_range(op, v, SD_VMSTATE_OID(v->vid, 0), from, to, nr); /* ~ */
		from = to;
	} while (!r && *nr != before && from < SD_NR_OBJS_MAX);
	return r;
}

static int reclaim_owned(struct gw_op *op, struct gw_vdi *v)
{
	struct gateway *gw = op->gw;
	struct cmd cmd = {.type = CMD_VDI_RECLAIMED, .vid = v->vid, .gen = v->gen};
	const struct vdi *t = cluster_vdi(gw->sh->cluster, v->vid);
	uint64_t size = t ? t->size : 0, vm = t ? t->vm_state_size : 0;
	unsigned nr = 0;
	int r;

	r = remove_data(op, v, size, &nr); /* ~ */
	if (!r)
		r = remove_vmstate(op, v, vm, &nr); /* ~ */
	if (!r) {				    /* last: until then it says what is left */
		struct gw_removal rm = {.op = op,
					.v = v,
					.base = SD_INODE_OID(v->vid),
					.end = 1,
					.seq = UINT64_MAX,
					.background = true};
		r = objs_remove(&rm); /* ~ */
		nr += rm.nr_removed;
	}
	if (!r)
		r = owner_flush(op, v); /* ~ so are those before the deletion */
	if (!r && !v->gone) {
		v->state = GV_RELEASING;		   /* the command takes it from us */
		if (cluster_do(gw->sh->cluster, &cmd) < 0) /* ~ */
			r = -EAGAIN;
		if (r && !v->gone && MARKED(rcl_unsaid))
			v->state = GV_OWNED;
	}
	if (!r && MARKED(rcl_done))
		log_info(gw->sh->log, "VDI %06x is reclaimed: %u objects removed", v->vid, nr);
	return r;
}

/* Wait until no request of a client is in the VDI: those that come now see that it is deleted. */
static int reclaim_quiet(struct gw_op *op, struct gw_vdi *v)
{
	while (v->nr_ops > 1) {
		if (op->gw->draining || v->gone)
			return -ECANCELED;
		MARK(rcl_waits);
		co_cond_wait_until(&v->idle, env_now(op->gw->sh->env) + GW_LOOK_NS,
				   "reclaim"); /* ~ */
	}
	return 0;
}

/* Clients' requests hold v->nr_ops, and one is ours: see gv_op_end(). */
static int reclaim_vdi(struct gw_op *op, struct gw_vdi *v)
{
	int r = -EAGAIN;

	if (v->state == GV_NONE && MARKED(rcl_claims))
		gv_claim(op, v); /* ~ */
	if (v->state == GV_OWNED && gv_usable(v) && !op->gw->draining) {
		gv_op_begin(v);
		r = reclaim_quiet(op, v); /* ~ */
		if (!r)
			r = reclaim_owned(op, v); /* ~ */
		gv_op_end(v);
		if (!r)
			gv_drop(v);
	}
	return r;
}

/* The next deleted VDI after @vid that is ours to clean up. */
static uint32_t reclaim_next(struct gateway *gw, uint32_t vid)
{
	struct sheep *sh = gw->sh;
	const struct vdi *t = NULL;

	if (!gw->view || gw->view->self < 0)
		return 0;
	while ((t = cluster_vdi_next(sh->cluster, t ? t->vid : vid))) {
		if (!t->reclaiming || !t->deleted)
			continue;
		bool alive = t->owned && view_find(gw->view, &t->owner) >= 0;
		if (alive ? inc_eq(&t->owner, &sh->self.inc) : gw->view->self == 0)
			return t->vid;
	}
	return 0;
}

static void reclaim_co(void *arg)
{
	struct gateway *gw = arg;
	struct gw_op op;
	uint32_t vid = 0;
	bool failed = false;

	op_begin_internal(gw, &op, 0);
	while (!gw->draining) {
		vid = reclaim_next(gw, vid);
		if (!vid && !failed)
			break;
		if (!vid) { /* from the start, a little later */
			failed = false;
			MARK(rcl_again);
			gw_wait(gw, RECLAIM_PAUSE_NS, "reclaim"); /* ~ */
			continue;
		}
		struct gw_vdi *v = gv_get(gw, vid);
		op.vid = vid;
		op.sent = false;
		if (!v || reclaim_vdi(&op, v)) /* ~ */
			failed = true;
		if (v)
			gv_put(v);
	}
	gw->reclaiming = false;
	op_end(&op);
	if (gw->reclaim_again)
		reclaim_kick(gw);
}

void reclaim_kick(struct gateway *gw)
{
	gw->reclaim_again = gw->reclaiming;
	if (gw->reclaiming || gw->draining || !reclaim_next(gw, 0))
		return;
	gw->reclaiming = true;
	if (!co_start(gw->sh->sched, reclaim_co, gw, "reclaim"))
		gw->reclaiming = false; /* the next view tries again */
}

/* ---- create and delete ---- */

/* The inode object on its ring.  Its header lives in the table, its index is empty: zeros. */
static int create_inode(struct gw_op *op, struct gw_vdi *v)
{
	struct gw_io io = {.op = PEER_WRITE, .create = true, .durable = true};
	struct co_range lock;
	struct gw_obj *o = obj_get(v, SD_INODE_OID(v->vid));
	int r;

	if (!o)
		return SD_RES_NO_MEM;
	do {
		if (op_over(op)) {
			r = -ECANCELED;
			break;
		}
		co_range_lock(&o->ranges, &lock, 0, o->size, true); /* ~ */
		r = obj_ready(op, o);				    /* ~ */
		if (!r)
			r = owner_write(op, o, &io); /* ~ */
		co_range_unlock(&lock);
		/* Not given up: until it is decided nobody else can have the name. */
		if (r && r != -ECANCELED && MARKED(crt_again))
			gw_wait(op->gw, GW_LOOK_NS, "create"); /* ~ */
	} while (!v->gone && r && r != -ECANCELED);
	obj_put(o);
	return r;
}

static uint32_t create_owned(struct gw_op *op, struct cmd *cmd)
{
	struct gateway *gw = op->gw;
	struct gw_vdi *v = gv_get(gw, cmd->ret_vid);
	struct cmd visible = {.type = CMD_VDI_VISIBLE, .vid = cmd->ret_vid, .gen = cmd->ret_gen};
	int r;

	if (!v)
		return SD_RES_NO_MEM;
	op->vid = cmd->ret_vid;
	/* A request that was here before the vid existed may have left a state behind; a format may
	 * have been applied since, before we ran. */
	if ((v->state != GV_NONE || gw->stopping || !gv_holds(v, cmd->ret_gen)) &&
	    MARKED(crt_taken)) {
		gv_put(v);
		return SD_RES_VDI_WRITE;
	}
	gv_own(v, cmd->ret_gen, false);
	gv_op_begin(v);
	r = create_inode(op, v); /* ~ */
	if (!r)
		r = cluster_do(gw->sh->cluster, &visible); /* ~ */
	gv_op_end(v);
	gv_put(v);
	if (r < 0 && MARKED(crt_out))
		return SD_RES_CLUSTER_ERROR; /* we stop, or are out of the cluster */
	MARK(crt_visible);
	return r ? (uint32_t)r : visible.result;
}

static uint32_t cluster_result(int r)
{
	return r == -ENOMEM ? SD_RES_NO_MEM : SD_RES_CLUSTER_ERROR;
}

uint32_t gateway_vdi_create(struct sheep *sh, struct cmd *cmd)
{
	struct gateway *gw = sh->gateway;
	const struct cluster_params *p = cluster_params(sh->cluster);
	struct gw_op op;
	uint32_t res = SD_RES_SUCCESS;

	op_begin_internal(gw, &op, 0);
	while (!gw->view && !gw->stopping)
		gw_wait(gw, GW_PARK_NS, "create"); /* ~ */
	if (gw->stopping)
		res = SD_RES_CLUSTER_ERROR;
	else if (gw_halted(gw, cmd->copies ? cmd->copies : p->copies, true))
		res = SD_RES_VDI_WRITE; /* protocol.md 9.5 */
	if (res == SD_RES_SUCCESS) {
		int r = cluster_do(sh->cluster, cmd); /* ~ */
		res = r < 0 ? cluster_result(r) : cmd->result;
	}
	if (res == SD_RES_SUCCESS)
		res = create_owned(&op, cmd); /* ~ */
	op_end(&op);
	return res;
}

uint32_t gateway_vdi_delete(struct sheep *sh, struct cmd *cmd)
{
	struct gw_op op;

	op_begin_internal(sh->gateway, &op, 0);
	int r = cluster_do(sh->cluster, cmd); /* ~ gateway_vdi_changed() starts the removal */
	op_end(&op);
	return r < 0 ? cluster_result(r) : cmd->result;
}
