/* gateway.c - a request's way through the gateway: admission, to the owner or as the owner, and the
 * data objects (DESIGN 5.1 to 5.3; protocol.md 2.1, 4.2, 9.5). */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/gateway_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* ---- requests inside ---- */

static void op_begin(struct gateway *gw, struct gw_op *op, uint32_t vid)
{
	op->gw = gw;
	op->vid = vid;
	cds_list_add_tail(&op->node, &gw->ops);
	gw->nr_ops++;
}

void op_begin_internal(struct gateway *gw, struct gw_op *op, uint32_t vid)
{
	memset(op, 0, sizeof(*op));
	op->internal = op->changes = true;
	op_begin(gw, op, vid);
}

void op_end(struct gw_op *op)
{
	struct gateway *gw = op->gw;

	session_leave(op);
	cds_list_del(&op->node);
	if (op->closed)
		gw->nr_closed--;
	gw->nr_ops--;
	co_cond_broadcast(&gw->idle);
}

bool op_fenced(const struct gw_op *op)
{
	const struct vdi *t;

	if (!op->call || PLANTED(no_fence))
		return false;
	t = cluster_vdi(op->gw->sh->cluster, op->vid);
	return t && op->opens < t->opens;
}

bool op_over(const struct gw_op *op)
{
	if (op->gw->stopping)
		return true;
	if (op->sent)
		return false; /* G2 */
	if ((op->closed || (op->call && op->call->voided)) && MARKED(gw_op_closed))
		return true;
	if (op_fenced(op) && MARKED(gw_op_fenced))
		return true;
	return op->ses && op->client.session < op->ses->newest;
}

/* Its answer has nowhere to go (WHY B6). */
static void op_close(struct gw_op *op)
{
	if (op->closed)
		return;
	op->closed = true;
	op->gw->nr_closed++;
	/* A client without sessions waits for it, through this gateway (session_wait_closed): only
	 * an answer, or the end of the owner, says that it is over. */
	if (op->fwd && op->client.client_id && MARKED(gw_fwd_unwanted))
		op->fwd->unwanted = true;
	if (op->ses)
		co_cond_broadcast(&op->ses->ended);
}

void gw_wait(struct gateway *gw, uint64_t ns, const char *why)
{
	co_cond_wait_until(&gw->changed, env_now(gw->sh->env) + ns, why);
}

/* ---- the lease (G7) ---- */

static void lease_timer(struct env_timer *t)
{
	struct gateway *gw = caa_container_of(t, struct gateway, lease);

	if (cluster_lease(gw->sh->cluster))
		co_cond_broadcast(&gw->leased);
	else
		env_timer_set(gw->sh->env, t, env_now(gw->sh->env) + GW_LEASE_LOOK_NS);
}

void gw_lease_watch(struct gateway *gw)
{
	if (!gw->lease.heap_idx)
		env_timer_set(gw->sh->env, &gw->lease, env_now(gw->sh->env) + GW_LEASE_LOOK_NS);
}

/* The answer @res is there.  It is held back while we have no lease: another node may have taken
 * over, and what was read here be old (WHY B7).  When the lease is back nobody has, and the answer
 * is right as of when it was made, which is after the request came. */
static int op_answer(struct gw_op *op, int res)
{
	struct gateway *gw = op->gw;

	while (res >= 0 && !op->final && !PLANTED(no_lease) && !cluster_lease(gw->sh->cluster)) {
		MARK(gw_lease_held);
		op->sent = false; /* it is done */
		if (op_over(op) && MARKED(gw_lease_void))
			return -ECANCELED;
		gw_lease_watch(gw);
		co_cond_wait(&gw->leased, "lease"); /* ~ */
	}
	op->final = res >= 0;
	return res;
}

bool gw_epoch_is(const struct gateway *gw, uint32_t e)
{
	if (gw->stopping || !gw->view || gw->view->epoch != e)
		return false;
	const struct view *v = cluster_view(gw->sh->cluster);
	return v && v->epoch == e;
}

/* ---- data objects, as the owner ---- */

static bool is_durable(const struct sd_req *req)
{
	return !(req->flags & SD_FLAG_CACHE) || (req->flags & SD_FLAG_DIRECT);
}

static int data_read(struct gw_op *op, struct gw_vdi *v, struct gw_obj *o, struct gw_request *r)
{
	uint64_t off = r->req.obj.offset, len = r->req.data_length, n = 0;
	struct co_range lock;
	struct buf *buf = NULL;

	if (off < o->size)
		n = len < o->size - off ? len : o->size - off;
	if (len) {
		buf = buf_new(op->gw->sh->pool, len);
		if (!buf && MARKED(gw_read_nomem))
			return SD_RES_NO_MEM;
	}
	/* writes in flight first */
	co_range_lock(&o->ranges, &lock, off, PLANTED(read_inflight) ? 0 : n, false); /* ~ */
	int res = obj_ready(op, o);						      /* ~ */
	if (!res && !o->exists && MARKED(gw_read_absent))
		res = SD_RES_NO_OBJ;
	if (!res && n)
		res = owner_read(op, o, off, n, buf, 0); /* ~ */
	co_range_unlock(&lock);
	if (res) {
		buf_put(buf);
		return res;
	}
	if (n < len)
		memset((uint8_t *)buf->data + n, 0, len - n); /* 4.2: beyond the end are zeros */
	r->reply = buf;
	r->reply_len = len;
	return SD_RES_SUCCESS;
}

/* The whole new object: its base with the payload laid over it. */
static int cow_payload(struct gw_op *op, struct gw_obj *o, const struct gw_request *r,
		       struct buf **ret)
{
	struct buf *buf;
	int res;

	if (r->req.obj.cow_oid == o->oid)
		return SD_RES_INVALID_PARMS;
	if (o->size > SD_DAEMON_BYTES_MAX)
		return SD_RES_NO_MEM;
	res = gw_read_object(op, r->req.obj.cow_oid, o->size, &buf); /* ~ */
	if (res)
		return res;
	if (r->req.data_length)
		memcpy((uint8_t *)buf->data + r->req.obj.offset,
		       (uint8_t *)r->payload->data + r->payload_off, r->req.data_length);
	*ret = buf;
	return SD_RES_SUCCESS;
}

/* Write @io under the range lock.  T8: a missing object is not made by a WRITE.  T7: CREATE
 * replaces. */
static int data_write_locked(struct gw_op *op, struct gw_obj *o, const struct gw_io *io)
{
	int res = obj_ready(op, o); /* ~ */

	if (!res && !o->exists && !io->create && MARKED(gw_write_absent))
		res = SD_RES_NO_OBJ;
	if (!res)
		res = owner_room(op, o, io);	   /* ~ */
	return res ? res : owner_write(op, o, io); /* ~ */
}

static int data_write(struct gw_op *op, struct gw_vdi *v, struct gw_obj *o, struct gw_request *r)
{
	uint64_t off = r->req.obj.offset, len = r->req.data_length;
	bool create = r->req.opcode == SD_OP_CREATE_AND_WRITE_OBJ;
	struct buf *base = NULL;
	struct co_range lock;
	struct gw_io io = {
		.op = PEER_WRITE,
		.create = create,
		/* T13: what an index entry will name must not be less durable than the entry */
		.durable = create || is_durable(&r->req),
		.off = off,
		.len = len,
		.data = r->payload,
		.data_off = r->payload_off,
	};
	int res;

	if (off + len > o->size)
		return SD_RES_INVALID_PARMS; /* 4.2 [REC] */
	if (create && (r->req.flags & SD_FLAG_COW) && len < o->size) {
		res = cow_payload(op, o, r, &base); /* ~ before any lock (G6) */
		if (res)
			return res;
		io.data = base;
		io.off = io.data_off = 0;
		io.len = o->size;
	}
	co_range_lock(&o->ranges, &lock, create ? 0 : off, create ? o->size : len, true); /* ~ */
	if (!create && !len) {
		res = obj_ready(op, o); /* ~ nothing to write, but is it there? */
		if (!res)
			res = o->exists ? SD_RES_SUCCESS : SD_RES_NO_OBJ;
	} else {
		res = data_write_locked(op, o, &io); /* ~ */
	}
	co_range_unlock(&lock);
	buf_put(base);
	return res;
}

static int data_remove(struct gw_op *op, struct gw_vdi *v, struct gw_obj *o, struct gw_request *r)
{
	struct gw_io io = {.op = PEER_REMOVE, .durable = true};
	struct co_range lock;

	co_range_lock(&o->ranges, &lock, 0, o->size, true); /* ~ */
	int res = obj_ready(op, o);			    /* ~ */
	if (!res)
		res = o->exists ? owner_write(op, o, &io) : SD_RES_NO_OBJ; /* ~ */
	co_range_unlock(&lock);
	return res;
}

static int serve_data(struct gw_op *op, struct gw_vdi *v, struct gw_request *r)
{
	uint64_t oid = r->req.obj.oid;
	const struct vdi *t = cluster_vdi(op->gw->sh->cluster, v->vid);
	struct gw_obj *o;
	int res;

	if (op->changes && t && t->snap_ctime && SD_OID_IS_DATA(oid) && MARKED(gw_readonly))
		return SD_RES_READONLY; /* T20 */
	o = obj_get(v, oid);
	if (!o)
		return SD_RES_NO_MEM;
	switch (r->req.opcode) {
	case SD_OP_READ_OBJ: res = data_read(op, v, o, r); break;     /* ~ */
	case SD_OP_REMOVE_OBJ: res = data_remove(op, v, o, r); break; /* ~ */
	default: res = data_write(op, v, o, r);			      /* ~ */
	}
	obj_put(o);
	return res;
}

static int serve(struct gw_op *op, struct gw_vdi *v, struct gw_request *r)
{
	uint64_t oid = r->req.obj.oid;
	int res = session_enter(op); /* ~ */

	if (res)
		return res;
	if (!gv_usable(v) && MARKED(gw_serve_late))
		return -EAGAIN;
	if (r->req.opcode == SD_OP_FLUSH_VDI)
		return owner_flush(op, v); /* ~ */
	res = gw_halted(op->gw, v->copies, op->changes);
	if (res)
		return res;
	if (r->req.opcode == SD_OP_DISCARD_OBJ)
		return inode_discard(op, v, SD_OID_IDX(oid)); /* ~ */
	if (!SD_OID_IS_INODE(oid))
		return serve_data(op, v, r); /* ~ */
	if (r->req.opcode == SD_OP_READ_OBJ)
		return inode_read(op, v, r); /* ~ */
	return inode_write(op, v, r);	     /* ~ */
}

/* ---- admission ---- */

static bool op_known(uint8_t opcode)
{
	switch (opcode) {
	case SD_OP_READ_OBJ:
	case SD_OP_WRITE_OBJ:
	case SD_OP_CREATE_AND_WRITE_OBJ:
	case SD_OP_REMOVE_OBJ:
	case SD_OP_DISCARD_OBJ:
	case SD_OP_FLUSH_VDI: return true;
	default: return false;
	}
}

/* What no state of the cluster makes right.  SD_RES_SUCCESS: go on. */
static uint32_t request_valid(const struct gw_request *r)
{
	const struct sd_req *q = &r->req;
	uint64_t oid = q->obj.oid, type = oid & SD_OID_TYPE_MASK;
	bool write = q->opcode == SD_OP_WRITE_OBJ || q->opcode == SD_OP_CREATE_AND_WRITE_OBJ;
	bool inode = type == SD_OID_INODE_BIT;

	if (!op_known(q->opcode)) /* of another daemon: the server knows them */
		return SD_RES_NO_SUPPORT;
	if (q->data_length && write != !!r->payload && q->opcode != SD_OP_FLUSH_VDI)
		return write || r->payload ? SD_RES_INVALID_PARMS : SD_RES_SUCCESS;
	if (type & (type - 1) || (oid & (7ull << 56)))
		return SD_RES_INVALID_PARMS;
	if (q->opcode == SD_OP_FLUSH_VDI)
		return SD_RES_SUCCESS;
	if (type && !inode && type != SD_OID_VMSTATE_BIT) /* attributes, B-trees, ledgers */
		return q->opcode == SD_OP_READ_OBJ ? SD_RES_NO_OBJ : SD_RES_NO_SUPPORT;
	if (inode &&
	    (SD_OID_IDX(oid) || (q->opcode != SD_OP_READ_OBJ && q->opcode != SD_OP_WRITE_OBJ)))
		return SD_RES_INVALID_PARMS; /* inodes are made and removed by NEW_VDI, DEL_VDI */
	if (SD_OID_IDX(oid) >= SD_NR_OBJS_MAX)
		return write ? SD_RES_INVALID_PARMS : SD_RES_NO_OBJ;
	if (q->opcode == SD_OP_DISCARD_OBJ && type)
		return SD_RES_INVALID_PARMS;
	return SD_RES_SUCCESS;
}

static bool header_only(const struct gw_request *r)
{
	return r->req.opcode == SD_OP_READ_OBJ && SD_OID_IS_INODE(r->req.obj.oid) &&
	       (uint64_t)r->req.obj.offset + r->req.data_length <= SD_INODE_HEADER_SIZE;
}

/* Bring the table up to date: what was answered anywhere before this request came is in it then
 * (protocol.md P9). */
static int table_ask(struct gw_op *op)
{
	struct cmd cmd = {.type = CMD_BARRIER};

	if (cluster_do(op->gw->sh->cluster, &cmd) < 0 && MARKED(gw_table_failed)) { /* ~ */
		if (!op_over(op))
			gw_wait(op->gw, GW_LOOK_NS, "table"); /* ~ */
		return -EAGAIN;
	}
	op->asked = true;
	return -EAGAIN;
}

/* ---- to the owner ---- */

static void forward_fill(struct gw_op *op, struct gw_request *r, const struct vdi *t,
			 struct gw_call *k)
{
	struct peer_hdr *h = &k->c.req;

	h->vid = op->vid;
	h->ver_seq = t->opens;
	h->oid = r->req.obj.oid;
	h->client_id = op->client.client_id;
	h->session = op->client.session;
	memcpy(h->client, &r->req, sizeof(r->req));
	if (r->payload) {
		k->c.data = r->payload;
		k->c.data_off = r->payload_off;
		k->c.data_len = h->data_len = r->req.data_length;
	}
}

/* The owner refused a request of a session that has ended: nobody waits for its answer. */
#define FORWARD_ENDED SD_RES_INVALID_EPOCH

/* The owner's answer.  -EAGAIN: it has none. */
static int forward_answer(struct gw_op *op, struct gw_request *r, struct gw_call *k)
{
	struct sd_rsp rsp;

	if (!k->c.error && k->c.rsp.result == FORWARD_ENDED && MARKED(gw_fwd_ended))
		return -ECANCELED;
	if ((k->c.error || k->c.rsp.result != SD_RES_SUCCESS) && MARKED(gw_fwd_none))
		return -EAGAIN;
	memcpy(&rsp, k->c.rsp.client, sizeof(rsp));
	if (r->req.opcode == SD_OP_READ_OBJ && rsp.result == SD_RES_SUCCESS && k->reply) {
		if (k->c.reply_len != r->req.data_length)
			return -EAGAIN;
		r->reply = buf_get(k->reply);
		r->reply_len = k->c.reply_len;
	}
	r->rsp = rsp;
	return rsp.result;
}

static int forward(struct gw_op *op, struct gw_request *r, const struct vdi *t)
{
	struct gateway *gw = op->gw;
	struct incarnation to = t->owner;
	struct buf *reply = NULL;
	struct gw_fan f;
	struct gw_call *k;
	int res;

	if (op_over(op) && MARKED(gw_fwd_late)) /* G8: it has waited since op_run() looked */
		return -ECANCELED;
	if (r->req.opcode == SD_OP_READ_OBJ && r->req.data_length) {
		reply = buf_new(gw->sh->pool, r->req.data_length);
		if (!reply)
			return SD_RES_NO_MEM;
	}
	fan_init(&f, gw, NULL);
	k = fan_call(&f, PEER_FORWARD, 0);
	if (!k) {
		fan_done(&f);
		buf_put(reply);
		return SD_RES_NO_MEM;
	}
	forward_fill(op, r, t, k);
	if (reply) {
		k->reply = k->c.reply_buf = reply;
		k->c.reply_cap = r->req.data_length;
	}
	MARK(gw_forward);
	op->sent = true;
	op->fwd = &k->c;
	fan_submit(&f, k, &to);
	res = fan_wait(&f, false); /* ~ */
	op->fwd = NULL;
	if (!res)
		res = forward_answer(op, r, k);
	/* No answer: the owner is gone, or is not the owner.  It is sent to the next one, unless
	 * its connection has ended meanwhile (op_over): the client may have gone on elsewhere. */
	if (res == -EAGAIN)
		op->sent = false;
	else
		op->final = true;
	fan_done(&f);
	if (res == -EAGAIN && !op_over(op))
		gw_wait(gw, GW_LOOK_NS, "owner"); /* ~ */
	return res;
}

/* ---- routing ---- */

static int serve_owned(struct gw_op *op, struct gw_vdi *v, struct gw_request *r)
{
	gv_op_begin(v);
	gv_used(op, v);
	int res = op_answer(op, serve(op, v, r)); /* ~ */
	gv_op_end(v);
	return res;
}

/* One step towards the answer with @v: -EAGAIN: look again. */
static int route_vdi(struct gw_op *op, struct gw_vdi *v, const struct vdi *t, struct gw_request *r)
{
	struct gateway *gw = op->gw;

	if (v->state == GV_OWNED && gv_usable(v))
		return serve_owned(op, v, r); /* ~ */
	if (v->state == GV_NONE) {
		if (t->owned && !inc_eq(&t->owner, &gw->sh->self.inc) &&
		    view_find(gw->view, &t->owner) >= 0) {
			if (op->call && MARKED(gw_fwd_other))
				return SD_RES_AGAIN;
			return forward(op, r, t); /* ~ */
		}
		if (op->call && MARKED(gw_fwd_nobody))
			return SD_RES_AGAIN;
		if (!gw->releasing)
			return gv_claim(op, v); /* ~ */
	}
	MARK(gw_wait_owner);
	gw_wait(gw, GW_PARK_NS, "owner"); /* ~ a claim, a release, a view */
	return -EAGAIN;
}

static int route(struct gw_op *op, struct gw_request *r)
{
	struct gateway *gw = op->gw;
	const struct vdi *t;

	if ((!gw->view || gw->view->self < 0) && MARKED(gw_no_view)) {
		gw_wait(gw, GW_PARK_NS, "view"); /* ~ T27 */
		return -EAGAIN;
	}
	t = op->vid ? cluster_vdi(gw->sh->cluster, op->vid) : NULL;
	if (!t || t->creating) {
		if (op->call)
			return SD_RES_AGAIN; /* the sender knows more than we do */
		if (op->vid && !op->asked && MARKED(gw_ask_table))
			return table_ask(op); /* ~ */
		return SD_RES_NO_OBJ;
	}
	if (op->call && op->opens > t->opens && !op->asked && MARKED(gw_fwd_opened))
		return table_ask(op); /* ~ what of the clients before that is left must be known */
	if (t->deleted && MARKED(gw_deleted)) {
		if (r->req.opcode == SD_OP_READ_OBJ && SD_OID_IS_INODE(r->req.obj.oid))
			return inode_read_table(gw, t, r); /* T32, T37 */
		return SD_RES_NO_OBJ;
	}
	struct gw_vdi *v = gv_get(gw, op->vid);
	if (!v)
		return SD_RES_NO_MEM;
	int res;
	if (header_only(r) && (op->asked || v->state == GV_OWNED))
		res = inode_read_table(gw, t, r);
	else if (header_only(r) && !op->call && MARKED(gw_header))
		res = table_ask(op); /* ~ needs no claim (DESIGN 5.1) */
	else
		res = route_vdi(op, v, t, r); /* ~ */
	gv_put(v);
	return res;
}

/* Until it is answered: SD_RES_*, or -ECANCELED. */
static int op_run(struct gw_op *op, struct gw_request *r)
{
	int res = request_valid(r);

	if (res != SD_RES_SUCCESS)
		return res;
	for (;;) {
		if (op_over(op))
			return -ECANCELED;
		res = session_wait_closed(op); /* ~ */
		if (!res && op->client.session > 1 && !op->said && !op->call)
			res = session_say(op); /* ~ */
		if (!res)
			res = route(op, r); /* ~ */
		if (res != -EAGAIN)
			return op_answer(op, res); /* ~ */
		if (op->gw->stopping && MARKED(gw_stopped))
			return -ECANCELED;
		/* Part of it may be out at an owner that we are no more: the next one's takeover
		 * decides about that, then the request is done anew. */
		op->sent = false;
	}
}

static void request_answer(struct gw_request *r, int res)
{
	r->error = res < 0 ? res : 0;
	if (res < 0)
		res = SD_RES_SYSTEM_ERROR;
	r->rsp.result = res;
	if (res != SD_RES_SUCCESS) {
		buf_put(TAKE(r->reply, NULL));
		r->reply_len = 0;
	}
}

static bool op_changes(uint8_t opcode)
{
	return opcode != SD_OP_READ_OBJ && opcode != SD_OP_FLUSH_VDI;
}

void gateway_handle(struct sheep *sh, struct gw_request *r)
{
	struct gw_op op = {
		.client = r->client,
		.changes = op_changes(r->req.opcode),
	};

	op_begin(sh->gateway, &op, SD_OID_VID(r->req.obj.oid));
	int res = op_run(&op, r); /* ~ */
	op_end(&op);
	request_answer(r, res);
}

/* A part of a request: as its client, but it is the outer one that sessions and the end of
 * connections are about. */
int gw_read_object(struct gw_op *op, uint64_t oid, uint32_t len, struct buf **ret)
{
	struct gw_op sub = {.internal = true};
	struct gw_request r = {
		.req = {.opcode = SD_OP_READ_OBJ, .data_length = len, .obj = {.oid = oid}}};

	op_begin(op->gw, &sub, SD_OID_VID(oid));
	int res = op_run(&sub, &r); /* ~ */
	op_end(&sub);
	if (!res)
		*ret = r.reply;
	else
		buf_put(r.reply);
	return res;
}

/* ---- as the owner, for another gateway ---- */

static void forwarded_answer(struct peer_call *c, struct gw_request *r, uint32_t epoch, bool fenced)
{
	c->rsp.op = PEER_FORWARD;
	c->rsp.epoch = epoch;
	c->rsp.result = SD_RES_SUCCESS;
	if (r->error && fenced && MARKED(gw_fwd_fenced))
		c->rsp.result = SD_RES_AGAIN; /* the sender knows whether its client is there */
	else if (r->error && MARKED(gw_fwd_over))
		c->rsp.result = FORWARD_ENDED; /* answered: else the sender would wait for ever */
	else if (r->rsp.result == SD_RES_AGAIN)
		c->rsp.result = SD_RES_AGAIN;
	memcpy(c->rsp.client, &r->rsp, sizeof(r->rsp));
	if (!r->reply)
		return;
	if (c->reply_buf) {
		if (c->reply_cap >= r->reply_len)
			memcpy((uint8_t *)c->reply_buf->data + c->reply_off, r->reply->data,
			       r->reply_len);
		else
			c->rsp.result = SD_RES_AGAIN;
		buf_put(TAKE(r->reply, NULL));
	} else {
		c->reply_buf = TAKE(r->reply, NULL);
		c->reply_off = 0;
	}
	c->reply_len = r->reply_len;
}

void gateway_forwarded(struct sheep *sh, const struct incarnation *from, struct peer_call *c)
{
	struct gateway *gw = sh->gateway;
	struct gw_request r = {0};
	struct gw_op op = {.call = c, .from = *from};
	int res = SD_RES_INVALID_PARMS;

	memcpy(&r.req, c->req.client, sizeof(r.req));
	r.client.client_id = op.client.client_id = c->req.client_id;
	r.client.session = op.client.session = c->req.session;
	op.opens = c->req.ver_seq;
	if (c->data && c->data_len) {
		r.payload = c->data;
		r.payload_off = c->data_off;
	}
	op.changes = op_changes(r.req.opcode);
	op_begin(gw, &op, SD_OID_VID(r.req.obj.oid));
	if (!r.payload || c->data_len == r.req.data_length)
		res = op_run(&op, &r); /* ~ */
	bool fenced = op_fenced(&op);
	op_end(&op);
	request_answer(&r, res);
	c->error = gw->stopping || c->voided ? r.error : 0;
	if (!c->error)
		forwarded_answer(c, &r, gw->view ? gw->view->epoch : 0, fenced);
	buf_put(r.reply);
}

/* ---- hooks ---- */

void gateway_conn_closed(struct sheep *sh, const struct gw_client *cl)
{
	struct gateway *gw = sh->gateway;
	struct gw_op *op;
	bool any = false;

	cds_list_for_each_entry (op, &gw->ops, node) {
		if (op->internal || op->call || op->client.conn_id != cl->conn_id)
			continue;
		MARK(gw_conn_closed);
		op_close(op);
		any = true;
	}
	gv_conn_closed(gw, cl->conn_id);
	if (!any)
		return;
	co_cond_broadcast(&gw->changed);
	co_cond_broadcast(&gw->leased);
}

void gateway_view(struct sheep *sh, struct view *old, struct view *new_view)
{
	struct gateway *gw = sh->gateway;
	struct view *before = gw->view;
	struct gw_op *op;

	if (gw->stopping)
		return;
	gw->view = view_get(new_view);
	gv_view(gw, before);
	/* A forwarding gateway died: as if its clients' connections had been ours and closed. */
	cds_list_for_each_entry (op, &gw->ops, node)
		if (op->call && before && view_find(before, &op->from) >= 0 &&
		    view_find(new_view, &op->from) < 0 && MARKED(gw_gateway_died))
			op_close(op);
	owner_view(gw);
	view_put(before);
	co_cond_broadcast(&gw->changed);
	co_cond_broadcast(&gw->idle);
	co_cond_broadcast(&gw->leased);
	reclaim_kick(gw);
	sweep_kick(gw);
}

void gateway_vdi_changed(struct sheep *sh, const struct vdi *t)
{
	struct gateway *gw = sh->gateway;
	struct gw_vdi *v = gv_find(gw, t->vid);
	bool ours = t->owned && inc_eq(&t->owner, &sh->self.inc);

	if (v && (v->state == GV_OWNED || v->state == GV_RELEASING) &&
	    (!ours || t->gen != v->gen)) {
		if (v->state == GV_OWNED && MARKED(gw_lost))
			log_warn(sh->log, "VDI %06x is not ours any more", t->vid);
		gv_drop(v);
	} else if (v && v->state == GV_OWNED && t->clean && MARKED(gw_clean)) {
		v->dirty = false; /* the takeover is finished (DESIGN 5.6) */
	}
	co_cond_broadcast(&gw->changed);
	if (t->reclaiming)
		reclaim_kick(gw);
}

static void drop_all(struct gateway *gw)
{
	struct gw_vdi *v;
	size_t pos = 0;

	while ((v = map_next(&gw->vdis, &pos, NULL))) {
		gv_drop(v);
		pos = 0;
	}
}

void gateway_format(struct sheep *sh)
{
	struct gateway *gw = sh->gateway;

	drop_all(gw);
	view_put(TAKE(gw->view, NULL)); /* the new cluster's comes; until then requests wait */
	co_cond_broadcast(&gw->changed);
}

/* ---- life ---- */

int gateway_init(struct sheep *sh)
{
	struct gateway *gw = calloc(1, sizeof(*gw));

	if (!gw)
		return -ENOMEM;
	gw->sh = sh;
	map_init(&gw->vdis);
	map_init(&gw->objs);
	map_init(&gw->sessions);
	CDS_INIT_LIST_HEAD(&gw->ops);
	CDS_INIT_LIST_HEAD(&gw->fans);
	CDS_INIT_LIST_HEAD(&gw->busy);
	CDS_INIT_LIST_HEAD(&gw->idle_objs);
	CDS_INIT_LIST_HEAD(&gw->idle_sessions);
	CDS_INIT_LIST_HEAD(&gw->chunks);
	co_cond_init(&gw->changed);
	co_cond_init(&gw->idle);
	co_cond_init(&gw->leased);
	gw->lease.fn = lease_timer;
	owner_init(gw);
	sh->gateway = gw;
	return 0;
}

/* Hand out everything; ends early when the daemon stops. */
static void release_all(void *arg)
{
	struct gateway *gw = arg;
	struct gw_op op;
	struct gw_vdi *v;
	size_t pos = 0;

	op_begin_internal(gw, &op, 0);
	while (!gw->stopping && (v = map_next(&gw->vdis, &pos, NULL))) {
		if (v->state != GV_OWNED)
			continue;
		op.vid = v->vid;
		MARK(gw_release_all);
		gv_release(&op, v, gw->drain_until); /* ~ */
		pos = 0; /* the map has changed; who is done is GV_RELEASING or out of it */
	}
	gw->released = true;
	op_end(&op);
}

void gateway_drain(struct sheep *sh, unsigned ms)
{
	struct gateway *gw = sh->gateway;

	if (!gw || gw->stopping)
		return;
	gw->drain_until = env_now(sh->env) + ms * 1000000ull;
	gw->draining = true;
	co_cond_broadcast(&gw->changed); /* reclaim ends */
	while (gw->nr_ops > gw->nr_sweeps &&
	       co_cond_wait_until(&gw->idle, gw->drain_until, "drain") == 0) /* ~ */
		;
	gw->releasing = true;
	co_cond_broadcast(&gw->changed);
	if (!co_start(sh->sched, release_all, gw, "release"))
		return;
	while (!gw->released && !gw->stopping &&
	       co_cond_wait_until(&gw->idle, gw->drain_until, "release") == 0) /* ~ */
		;
}

void gateway_stop(struct sheep *sh)
{
	struct gateway *gw = sh->gateway;
	struct gw_vdi *v;
	struct gw_op *op;
	size_t pos = 0;

	gw->draining = gw->releasing = gw->stopping = true;
	owner_stop(gw);
	cds_list_for_each_entry (op, &gw->ops, node)
		if (op->ses)
			co_cond_broadcast(&op->ses->ended);
	while ((v = map_next(&gw->vdis, &pos, NULL))) {
		co_cond_broadcast(&v->idle);
		co_cond_broadcast(&v->flushed);
	}
	env_timer_del(gw->sh->env, &gw->lease);
	co_cond_broadcast(&gw->changed);
	co_cond_broadcast(&gw->idle);
	co_cond_broadcast(&gw->leased);
	while (gw->nr_ops)
		co_cond_wait(&gw->idle, "gateway stop"); /* ~ */
}

void gateway_done(struct sheep *sh)
{
	struct gateway *gw = sh->gateway;

	if (!gw)
		return;
	assert(!gw->nr_ops && !gw->nr_calls);
	drop_all(gw);
	objs_trim(gw, 0);
	assert(!gw->nr_objs && !gw->nr_vdis && !gw->nr_chunks);
	session_done(gw);
	owner_done(gw);
	view_put(gw->view);
	map_done(&gw->vdis);
	map_done(&gw->objs);
	map_done(&gw->sessions);
	free(gw);
	sh->gateway = NULL;
}
