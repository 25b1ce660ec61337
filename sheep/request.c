/* request.c - from a complete header to the queued reply: checks, bounds, dispatch. */
#include "config.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "sheep/server_int.h"

#define SPARE_MAX 256u

static struct request *request_new(struct client *cl, const struct sd_req *req)
{
	struct server *srv = cl->srv;
	struct request *rq;

	if (srv->nr_spare) {
		rq = cds_list_first_entry(&srv->spare, struct request, node);
		cds_list_del(&rq->node);
		srv->nr_spare--;
	} else {
		rq = malloc(sizeof(*rq));
		if (!rq)
			return NULL;
	}
	memset(rq, 0, sizeof(*rq));
	rq->sh = srv->sh;
	rq->cl = cl;
	rq->req = *req;
	cl->refs++;
	cl->inflight++;
	srv->nr_requests++;
	return rq;
}

static void request_charge(struct request *rq, size_t charge)
{
	rq->cl->bytes += charge - rq->charge;
	rq->cl->srv->bytes += charge - rq->charge;
	rq->charge = charge;
}

void request_free(struct request *rq)
{
	struct client *cl = rq->cl;
	struct server *srv = cl->srv;

	buf_put(rq->data);
	buf_put(rq->reply);
	request_charge(rq, 0);
	cl->inflight--;
	srv->nr_requests--;
	if (srv->nr_spare < SPARE_MAX) {
		cds_list_add(&rq->node, &srv->spare);
		srv->nr_spare++;
	} else {
		free(rq);
	}
	if (!cds_list_empty(&srv->paused) || !cds_list_empty(&srv->ready))
		server_kick(srv);
	co_cond_broadcast(&srv->idle);
	client_put(cl);
}

/* ---- admission ---- */

static uint32_t epoch_now(const struct server *srv)
{
	return srv->is_ready ? cluster_epoch(srv->sh->cluster) : 0;
}

/* V4: version, opcode, status.  SD_RES_SUCCESS: go on. */
static uint32_t request_check(struct server *srv, const struct sd_req *req, const struct op *op)
{
	uint32_t res;

	if (!op_version_ok(req->opcode, req->proto_ver))
		return SD_RES_VER_MISMATCH;
	if (!op)
		return SD_RES_INVALID_PARMS;
	res = op_status(srv->sh);
	if (res == SD_RES_SUCCESS && srv->draining)
		res = SD_RES_KILLED;
	if (res == SD_RES_SHUTDOWN || res == SD_RES_KILLED)
		return op->class == OP_GATEWAY ? SD_RES_SUCCESS : res;
	if (res == SD_RES_WAIT_FOR_JOIN && op->class == OP_GATEWAY)
		return SD_RES_SUCCESS; /* V5: it is parked */
	return op->always ? SD_RES_SUCCESS : res;
}

/* The largest payload that a write of @oid can rightly have; more is refused before it is
 * received. */
static uint64_t object_payload_max(const struct sheep *sh, uint64_t oid)
{
	const struct vdi *v;

	if (SD_OID_IS_INODE(oid))
		return SD_INODE_SIZE;
	if (SD_OID_IS_ATTR(oid))
		return SD_ATTR_SIZE;
	v = cluster_vdi(sh->cluster, SD_OID_VID(oid));
	if (v && v->shift >= SD_OBJ_SHIFT_MIN && v->shift <= SD_OBJ_SHIFT_MAX)
		return 1ull << v->shift;
	if (cluster_status(sh->cluster) == CLUSTER_WAIT_JOIN)
		return SD_CONN_BYTES_MAX; /* not known yet */
	return 1ull << SD_OBJ_SHIFT_DEFAULT;
}

static uint32_t request_check_size(struct server *srv, const struct sd_req *req,
				   const struct op *op)
{
	bool write = req->flags & SD_FLAG_WRITE;

	if (op->class == OP_GATEWAY && req->data_length > SD_DATA_LEN_MAX)
		return SD_RES_INVALID_PARMS;
	if (op->class == OP_GATEWAY && req->data_length > SD_DAEMON_BYTES_MAX)
		return SD_RES_NO_MEM;
	if (write && req->data_length > op->payload_max)
		return SD_RES_INVALID_PARMS;
	if (write && op->class == OP_GATEWAY &&
	    req->data_length > object_payload_max(srv->sh, req->obj.oid))
		return SD_RES_INVALID_PARMS;
	return SD_RES_SUCCESS;
}

/* Memory that the request needs: its payload, or the reply that it asks for. */
static size_t request_cost(const struct sd_req *req, const struct op *op)
{
	size_t len = req->data_length;

	if (op->class != OP_GATEWAY && len > SD_CONN_BYTES_MAX)
		len = SD_CONN_BYTES_MAX; /* the reply is bounded by that: request_reply() */
	if ((req->flags & SD_FLAG_WRITE) && (req->flags & SD_FLAG_PIGGYBACK))
		len *= 2;
	return len;
}

/* V2: is there room for one more request of @cost bytes? */
static bool request_room(struct client *cl, size_t cost)
{
	struct server *srv = cl->srv;

	if (cl->inflight >= SD_CONN_INFLIGHT_MAX || srv->nr_requests >= SERVER_REQUESTS_MAX)
		return false;
	if (cl->bytes && cl->bytes + cost > SD_CONN_BYTES_MAX)
		return false;
	return !srv->bytes || srv->bytes + cost <= SD_DAEMON_BYTES_MAX;
}

static bool is_peer_hello(const struct sd_req *req)
{
	return req->opcode == SD_OP_PEER_HELLO && req->proto_ver == SD_INTERNAL_PROTO_VER &&
	       (req->flags & SD_FLAG_WRITE) && req->data_length == sizeof(struct peer_hello);
}

/* Answer @res; a payload of the request is read and dropped. */
static enum admit request_refuse(struct client *cl, const struct sd_req *req, const struct op *op,
				 uint32_t res)
{
	struct request *rq = request_new(cl, req);

	if (!rq)
		return ADMIT_CLOSE;
	if (req->flags & SD_FLAG_WRITE)
		cl->skip = req->data_length;
	if (op && op->admin)
		rq->op = op; /* for the log */
	rq->rsp.result = res;
	request_dispatch(rq);
	return ADMIT_OK;
}

/* The request is taken: receive its payload, or start it. */
static enum admit request_take(struct client *cl, const struct sd_req *req, const struct op *op,
			       size_t cost)
{
	struct request *rq = request_new(cl, req);

	if (!rq)
		return ADMIT_CLOSE;
	rq->op = op;
	request_charge(rq, cost);
	if ((req->flags & SD_FLAG_WRITE) && req->data_length) {
		rq->data = buf_new(cl->srv->sh->pool, req->data_length);
		if (!rq->data) {
			request_free(rq);
			return request_refuse(cl, req, op, SD_RES_NO_MEM);
		}
		cl->rx = rq;
	} else {
		request_dispatch(rq);
	}
	return ADMIT_OK;
}

enum admit request_header(struct client *cl, const struct sd_req *req)
{
	struct server *srv = cl->srv;
	const struct op *op = op_find(req->opcode);
	uint32_t res;

	if (srv->stopping)
		return ADMIT_PAUSE;
	if ((req->flags & SD_FLAG_WRITE) && req->data_length > SD_DATA_LEN_MAX) {
		log_info(srv->sh->log, "closing a connection: payload of %u bytes announced",
			 req->data_length);
		return ADMIT_CLOSE;
	}
	if (!cl->inflight && !cl->hello_done && is_peer_hello(req)) {
		if (!srv->is_ready)
			return ADMIT_PAUSE;
		cl->hello_done = true;
		return request_take(cl, req, op, 0);
	}
	if (!srv->is_ready)
		return ADMIT_PAUSE;
	if (srv->draining && !cl->served)
		return ADMIT_CLOSE; /* another gateway will do */
	if (!cl->served) {
		if (srv->nr_served >= SD_CLIENTS_MAX)
			return ADMIT_PAUSE;
		cl->served = true;
		srv->nr_served++;
	}
	if (!request_room(cl, 0))
		return ADMIT_PAUSE;
	res = request_check(srv, req, op);
	if (res != SD_RES_SUCCESS)
		return request_refuse(cl, req, op, res);
	if (op->class == OP_GATEWAY && srv->draining)
		return ADMIT_PAUSE;
	res = request_check_size(srv, req, op);
	if (res != SD_RES_SUCCESS)
		return request_refuse(cl, req, op, res);
	size_t cost = request_cost(req, op);
	return request_room(cl, cost) ? request_take(cl, req, op, cost) : ADMIT_PAUSE;
}

/* ---- work ---- */

static void request_log(const struct request *rq)
{
	char name[128];

	if (!rq->op || !rq->op->admin || !rq->sh->log || log_get_level(rq->sh->log) < LOG_L_INFO)
		return;
	request_peer_name(rq, name, sizeof(name));
	const char *text = sd_result_text(rq->rsp.result);
	log_info(rq->sh->log, "client=%s, op=%s, result=%02x (%s)", name, rq->op->name,
		 rq->rsp.result, text ? text : "unknown");
}

/* V3: the reply is complete; it leaves with the others of this turn. */
static void request_end(struct request *rq)
{
	struct client *cl = rq->cl;
	struct server *srv = cl->srv;

	request_log(rq);
	buf_put(TAKE(rq->data, NULL));
	if (!cl->sock || rq->no_answer) {
		request_free(rq);
		return;
	}
	if (!rq->reply)
		rq->reply_len = 0;
	request_charge(rq, rq->reply_len);
	rq->rsp.proto_ver = 0;
	rq->rsp.opcode = rq->req.opcode;
	rq->rsp.flags = 0;
	rq->rsp.epoch = epoch_now(srv);
	rq->rsp.id = rq->req.id;
	rq->rsp.data_length = rq->reply_len;
	cds_list_add_tail(&rq->node, &cl->replies);
	if (!cl->dirty) {
		cl->dirty = true;
		cds_list_add_tail(&cl->dirty_node, &srv->dirty);
	}
	server_kick(srv);
}

static void request_co(void *arg)
{
	struct request *rq = arg;

	rq->rsp.result = rq->op->fn(rq); /* ~ */
	request_end(rq);
}

static void request_start(struct request *rq)
{
	struct server *srv = rq->cl->srv;

	if (co_enter(srv->sh->sched, request_co, rq, "request"))
		return;
	cds_list_add_tail(&rq->node, &srv->ready);
	server_retry_later(srv);
}

void request_dispatch(struct request *rq)
{
	struct server *srv = rq->cl->srv;

	if (!rq->op || rq->rsp.result != SD_RES_SUCCESS) {
		request_end(rq); /* refused at its header */
		return;
	}
	if (rq->op->class == OP_GATEWAY) {
		uint32_t res = op_status(srv->sh);
		rq->cl->used_gateway = true;
		if (res == SD_RES_WAIT_FOR_JOIN || res == SD_RES_SHUTDOWN) {
			cds_list_add_tail(&rq->node, &srv->parked);
			srv->nr_parked++;
			return;
		}
	}
	request_start(rq);
}

void request_unpark(struct server *srv)
{
	cds_list_splice(&srv->parked, srv->ready.prev);
	CDS_INIT_LIST_HEAD(&srv->parked);
	srv->nr_parked = 0;
	server_kick(srv);
}

void request_run_ready(struct server *srv)
{
	unsigned n = 0;

	while (!cds_list_empty(&srv->ready) && n++ < SERVER_REQUESTS_MAX) {
		struct request *rq = cds_list_first_entry(&srv->ready, struct request, node);
		cds_list_del(&rq->node);
		if (!rq->cl->sock) {
			request_free(rq);
			continue;
		}
		struct cds_list_head *last = srv->ready.prev;
		request_dispatch(rq);
		if (srv->ready.prev != last)
			break; /* still no coroutine: the timer tries again */
	}
}

/* ---- for handlers ---- */

void *request_reply(struct request *rq, size_t len)
{
	assert(!rq->reply);
	if (len > rq->req.data_length || len > SD_CONN_BYTES_MAX)
		return NULL;
	rq->reply = buf_new(rq->sh->pool, len ? len : 1);
	if (!rq->reply)
		return NULL;
	memset(rq->reply->data, 0, len);
	rq->reply_len = len;
	return rq->reply->data;
}

void request_peer_name(const struct request *rq, char *buf, size_t len)
{
	const struct net_addr *a = &rq->cl->addr;
	char ip[INET6_ADDRSTRLEN] = "";

	if (a->family == AF_INET)
		inet_ntop(AF_INET, a->ip + 12, ip, sizeof(ip));
	else if (a->family == AF_INET6)
		inet_ntop(AF_INET6, a->ip, ip, sizeof(ip));
	else {
		snprintf(buf, len, "unix");
		return;
	}
	snprintf(buf, len, a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, a->port);
}
