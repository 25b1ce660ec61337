/* peer_req.c - the handler's side: requests of other daemons, see peer_int.h. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/peer_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* ---- memory ---- */

static struct peer_req *req_new(struct peer_conn *conn, size_t cost)
{
	struct peers *p = conn->p;
	struct peer_req *rq = p->spare_reqs;

	if (rq) {
		p->spare_reqs = rq->next;
		p->nr_spare_reqs--;
	} else {
		rq = malloc(sizeof(*rq));
		if (!rq)
			return NULL;
	}
	memset(rq, 0, sizeof(*rq));
	rq->conn = conn;
	rq->cost = cost;
	rq->c.chan = conn;
	rq->c.sheep = p->sh;
	rq->counted = true;
	cds_list_add_tail(&rq->node, &conn->reqs);
	conn->refs++;
	conn->nr_reqs++;
	conn->bytes += cost;
	p->nr_reqs++;
	p->class[conn->ch].nr++;
	p->class[conn->ch].bytes += cost;
	return rq;
}

/* Its handler is over, or was never started. */
static void req_uncount(struct peer_req *rq)
{
	struct peers *p = rq->conn->p;

	if (!rq->counted)
		return;
	rq->counted = false;
	p->class[rq->conn->ch].nr--;
	if (!cds_list_empty(&p->class[rq->conn->ch].waiting) || !cds_list_empty(&p->starved))
		peers_kick(p);
}

static void req_free(struct peer_req *rq)
{
	struct peer_conn *conn = rq->conn;
	struct peers *p = conn->p;

	req_uncount(rq);
	call_release(&rq->c);
	buf_put(rq->c.reply_buf);
	cds_list_del(&rq->node);
	conn->nr_reqs--;
	conn->bytes -= rq->cost;
	p->nr_reqs--;
	p->class[conn->ch].bytes -= rq->cost;
	if (p->nr_spare_reqs < PEER_SPARE_MAX) {
		rq->next = p->spare_reqs;
		p->spare_reqs = rq;
		p->nr_spare_reqs++;
	} else {
		free(rq);
	}
	if (conn->wait == WAIT_SELF)
		conn_unwait(conn);
	if (!cds_list_empty(&p->class[conn->ch].waiting))
		peers_kick(p);
	if (p->stopping)
		co_cond_broadcast(&p->idle);
	conn_put(conn);
}

static void frame_free(struct peers *p, struct peer_frame *f)
{
	buf_put(f->m.buf);
	if (p->nr_spare_frames < PEER_SPARE_MAX) {
		f->next = p->spare_frames;
		p->spare_frames = f;
		p->nr_spare_frames++;
	} else {
		free(f);
	}
}

void req_pool_free(struct peers *p)
{
	struct peer_req *rq;
	struct peer_frame *f;

	while ((rq = p->spare_reqs)) {
		p->spare_reqs = rq->next;
		free(rq);
	}
	while ((f = p->spare_frames)) {
		p->spare_frames = f->next;
		free(f);
	}
}

/* ---- a header ---- */

/* What a client wants to read through a forwarded request. */
static uint64_t forward_read_len(const struct peer_hdr *h)
{
	struct sd_req req;

	memcpy(&req, h->client, sizeof(req));
	return req.opcode == SD_OP_READ_OBJ ? req.data_length : 0;
}

/* Bytes of memory that it may take to serve it; above PEER_DATA_MAX: nonsense. */
static uint64_t req_cost(const struct peer_hdr *h)
{
	uint64_t cost = h->data_len;

	if (h->op == PEER_READ)
		cost += h->len;
	else if (h->op == PEER_FORWARD)
		cost += forward_read_len(h);
	return cost >= h->data_len ? cost : UINT64_MAX;
}

static bool req_valid(const struct peer_conn *conn, const struct peer_hdr *h)
{
	if (h->magic != PEER_MAGIC || !h->op || h->op >= PEER_OP_NR ||
	    peer_channel_of(h->op) != conn->ch)
		return false;
	if (h->data_len && h->op != PEER_WRITE && h->op != PEER_FORWARD)
		return false;
	if (h->crc_nr && (h->op != PEER_WRITE || h->crc_nr > h->data_len / SD_BLOCK_SIZE + 2))
		return false;
	return req_cost(h) <= PEER_DATA_MAX;
}

/* P6.  False: the connection waits. */
static bool req_room(struct peer_conn *conn, size_t cost)
{
	struct peer_class *cl = &conn->p->class[conn->ch];
	bool my_turn = cl->turn == conn;

	if (conn->nr_reqs >= PEER_CONN_REQS_MAX ||
	    (conn->bytes && conn->bytes + cost > PEER_CONN_BYTES_MAX)) {
		MARK(peer_conn_full);
		conn_wait(conn, WAIT_SELF);
	} else if (cl->nr >= peer_class_max(conn->ch) ||
		   (cl->bytes && cl->bytes + cost > PEER_CLASS_BYTES_MAX) ||
		   (!my_turn && !cds_list_empty(&cl->waiting))) {
		MARK(peer_class_full);
		conn_wait(conn, WAIT_CLASS);
		return false;
	}
	if (my_turn)
		cl->turn = NULL;
	return !conn->wait;
}

/* A buffer for the payload: the guessed one if it fits. */
static struct buf *req_buf(struct peer_conn *conn, const struct peer_hdr *h)
{
	bool same = h->data_len == conn->guess.len && h->crc_nr == conn->guess.crc_nr;
	struct buf *b = NULL;

	if (same && conn->guess.buf) {
		b = conn->guess.buf;
		conn->guess.buf = NULL;
	}
	if (same) {
		conn->guess.nr++;
	} else if (h->data_len >= PEER_GUESS_MIN && h->data_len <= PEER_GUESS_MAX &&
		   h->crc_nr <= PEER_GUESS_CRC) {
		conn->guess.len = h->data_len;
		conn->guess.crc_nr = h->crc_nr;
		conn->guess.nr = 1;
	}
	return b ? b : buf_new(conn->p->sh->pool, h->data_len);
}

static bool req_payload(struct peer_conn *conn, struct peer_req *rq)
{
	const struct peer_hdr *h = &rq->c.req;
	uint32_t *crc = rq->c.crc_small;

	conn->rx[0] = conn->rx[1] = (struct iovec){NULL, 0};
	if (h->crc_nr) {
		if (h->crc_nr > sizeof(rq->c.crc_small) / sizeof(*rq->c.crc_small)) {
			crc = rq->c.crc_mem = malloc(4 * (size_t)h->crc_nr);
			if (!crc)
				return false;
		}
		rq->c.crc = crc;
		rq->c.crc_nr = h->crc_nr;
		conn->rx[0] = (struct iovec){crc, 4 * (size_t)h->crc_nr};
	}
	if (h->data_len) {
		rq->c.data = req_buf(conn, h);
		if (!rq->c.data)
			return false;
		rq->c.data_len = h->data_len;
		conn->rx[1] = (struct iovec){rq->c.data->data, h->data_len};
	}
	return true;
}

int req_header(struct peer_conn *conn)
{
	const struct peer_hdr *h = &conn->hdr.h;
	struct peer_req *rq;

	if (!req_valid(conn, h))
		return HDR_GARBAGE;
	size_t cost = req_cost(h);
	if (!req_room(conn, cost))
		return HDR_WAIT;
	rq = req_new(conn, cost);
	if (rq) {
		rq->c.req = *h;
		conn->rx_call = &rq->c;
		if (req_payload(conn, rq))
			return HDR_TAKEN;
		req_free(rq);
	}
	MARK(peer_req_nomem);
	/* The sender opens a new one, and sends all again, when there may be memory. */
	conn_garbage(conn, "out of memory");
	return HDR_WAIT;
}

/* ---- work ---- */

/* The answer is complete: it leaves with the others of this turn. */
static void req_reply(struct peer_req *rq)
{
	struct peer_call *c = &rq->c;

	c->rsp.magic = PEER_MAGIC;
	c->rsp.op = c->req.op;
	c->rsp.id = c->req.id;
	c->rsp.crc_nr = 0;
	if (c->req.op == PEER_PULL)
		c->rsp.flags |= PEER_F_LAST;
	if (c->error == -ESTALE)
		c->rsp.result = SD_RES_OLD_NODE_VER;
	else if (c->error)
		c->rsp.result = SD_RES_EIO;
	if (c->error || !c->reply_buf || c->req.op == PEER_PULL)
		c->reply_len = 0;
	assert(!c->reply_len || c->reply_off + c->reply_len <= c->reply_buf->cap);
	c->rsp.data_len = c->reply_len;
	c->tx = (struct peer_msg){
		.hdr = &c->rsp, .buf = c->reply_buf, .off = c->reply_off, .len = c->reply_len};
	rq->state = REQ_REPLY;
	conn_send(rq->conn, &c->tx);
}

static void req_co(void *arg)
{
	struct peer_req *rq = arg;
	struct peer_conn *conn = rq->conn;
	struct peers *p = conn->p;

	peer_count(p, &rq->c, true);
	peer_handle(p, &conn->from, &rq->c); /* ~ */
	peer_count(p, &rq->c, false);
	req_uncount(rq);
	call_release(&rq->c);
	if (rq->c.error == -EBADMSG) {
		conn->refs++;
		req_free(rq);
		conn_garbage(conn, "a payload with wrong checksums");
		conn_put(conn);
	} else if ((!conn->sock || rq->c.error == -ECANCELED) && MARKED(peer_answer_void)) {
		req_free(rq);
	} else {
		req_reply(rq);
	}
}

/* False: no coroutine is free. */
static bool req_start(struct peer_req *rq)
{
	rq->state = REQ_RUN;
	if (co_enter(rq->conn->p->sh->sched, req_co, rq, "peer request"))
		return true;
	MARK(peer_no_co);
	rq->state = REQ_READY;
	return false;
}

void req_message(struct peer_conn *conn)
{
	struct peer_req *rq = caa_container_of(conn->rx_call, struct peer_req, c);

	conn->rx_call = NULL;
	if (rq->c.req.op == PEER_PROBE) {
		req_uncount(rq);
		rq->c.rsp.result = SD_RES_SUCCESS;
		rq->c.rsp.epoch = cluster_epoch(conn->p->sh->cluster);
		req_reply(rq);
		return;
	}
	if (req_start(rq))
		return;
	conn->ready = rq;
	conn_wait(conn, WAIT_CO);
	peers_retry_later(conn->p);
}

bool req_resume(struct peer_conn *conn)
{
	struct peer_req *rq = conn->ready;

	if (!rq)
		return true;
	conn->ready = NULL;
	if (req_start(rq))
		return conn->sock;
	conn->ready = rq;
	conn_wait(conn, WAIT_CO);
	peers_retry_later(conn->p);
	return false;
}

/* ---- sent, or never to be sent ---- */

/* Streams of one connection take turns: whoever waits longest queues one frame, then the next. */
static void stream_next(struct peer_conn *conn)
{
	if (conn->stream_queued >= PEER_STREAM_QUEUE || !conn->stream_waiting || conn->stream_woken)
		return;
	conn->stream_woken = true;
	co_cond_signal(&conn->drained);
}

void req_sent(struct peer_conn *conn, struct peer_msg *m)
{
	if (m->frame) {
		conn->stream_queued -= m->len;
		stream_next(conn);
		frame_free(conn->p, caa_container_of(m, struct peer_frame, m));
	} else {
		req_free(caa_container_of(caa_container_of(m, struct peer_call, tx),
					  struct peer_req, c));
	}
}

/* P1: what of it is not queued in the journal yet must not be. */
void req_conn_closed(struct peer_conn *conn)
{
	struct peer_msg *m, *next;
	struct peer_req *rq, *nrq;
	bool running = false;

	if (conn->peer->in[conn->ch] == conn)
		conn->peer->in[conn->ch] = NULL;
	conn->peer = NULL;
	conn->rx_call = NULL;
	conn->ready = NULL;
	cds_list_for_each_entry_safe (m, next, &conn->tx, node) {
		cds_list_del(&m->node);
		m->queued = false;
		req_sent(conn, m);
	}
	cds_list_for_each_entry_safe (rq, nrq, &conn->reqs, node) {
		MARK(peer_req_void);
		rq->c.voided = true;
		if (rq->state == REQ_RUN)
			running = true;
		else
			req_free(rq);
	}
	co_cond_broadcast(&conn->drained);
	if (running)
		replica_kick(conn->p->sh);
}

/* ---- streams ---- */

static struct peer_frame *frame_new(struct peers *p)
{
	struct peer_frame *f = p->spare_frames;

	if (!f)
		return malloc(sizeof(*f));
	p->spare_frames = f->next;
	p->nr_spare_frames--;
	return f;
}

/* To ourselves: the frame begins at the start of a buffer, as over the wire. */
static int stream_local(struct peers *p, struct peer_call *c, const struct peer_hdr *h,
			struct buf *data, size_t off, size_t len)
{
	struct buf *b;

	while (c->stream_held >= PEER_STREAM_MAX && !c->voided)
		co_cond_wait(&p->given_back, "stream"); /* ~ */
	if ((c->voided || !c->frame) && MARKED(peer_stream_own_void))
		return -ECANCELED;
	if (off) {
		b = buf_new(p->sh->pool, len);
		if (!b)
			return -ENOMEM;
		memcpy(b->data, (uint8_t *)data->data + off, len);
	} else {
		b = buf_get(data);
	}
	struct peer_hdr hdr = *h;
	hdr.data_len = len;
	c->streamed = true;
	c->stream_held += len;
	c->frame(c, &hdr, b);
	return 0;
}

/* Until there is room for a frame, behind those that wait already. */
static void stream_turn(struct peer_conn *conn)
{
	bool first = true;

	while (conn->sock &&
	       (conn->stream_queued >= PEER_STREAM_QUEUE || (first && conn->stream_waiting))) {
		MARK(peer_stream_turn);
		first = false;
		conn->stream_waiting++;
		co_cond_wait(&conn->drained, "stream"); /* ~ */
		conn->stream_waiting--;
		conn->stream_woken = false;
	}
}

int peer_stream(struct peer_call *c, const struct peer_hdr *h, struct buf *data, size_t off,
		size_t len)
{
	struct peers *p = c->sheep->peers;
	struct peer_conn *conn = c->chan;
	struct peer_frame *f;

	assert(c->req.op == PEER_PULL && len && len <= PEER_FRAME_MAX && off + len <= data->cap);
	p->sh->stat.peer_tx += len;
	if (conn->kind == PEER_KIND_LOCAL)
		return stream_local(p, c, h, data, off, len); /* ~ */
	stream_turn(conn);				      /* ~ */
	if (!conn->sock && MARKED(peer_stream_void))
		return -ECANCELED;
	f = frame_new(p);
	if (!f) {
		stream_next(conn);
		return -ENOMEM;
	}
	f->hdr = *h;
	f->hdr.magic = PEER_MAGIC;
	f->hdr.op = PEER_PULL;
	f->hdr.id = c->req.id;
	f->hdr.flags &= ~PEER_F_LAST;
	f->hdr.crc_nr = 0;
	f->hdr.data_len = len;
	f->m = (struct peer_msg){
		.hdr = &f->hdr, .buf = buf_get(data), .off = off, .len = len, .frame = true};
	conn->stream_queued += len;
	conn_send(conn, &f->m);
	stream_next(conn);
	return 0;
}

/* ---- accepting ---- */

/* SD_RES_SUCCESS: the hello is meant for this daemon, of this cluster, by a node of our view. */
static uint32_t hello_check(struct peers *p, const struct peer_hello *hello,
			    const struct incarnation *inc)
{
	struct sheep *sh = p->sh;
	const struct cluster_params *params;
	struct incarnation to = {.start = hello->to_start};
	const struct view *view;
	struct peer *peer;

	if (hello->version != PEER_PROTO_VERSION && MARKED(peer_hello_version))
		return SD_RES_VER_MISMATCH;
	memcpy(to.uuid, hello->to_uuid, sizeof(to.uuid));
	if ((hello->channel >= PEER_CH_NR || !peer_inc_eq(&to, &sh->self.inc) ||
	     peer_inc_eq(inc, &sh->self.inc)) &&
	    MARKED(peer_hello_other))
		return SD_RES_INVALID_PARMS;
	if ((p->stopping || sh->closing || !sh->cluster) && MARKED(peer_hello_stops))
		return SD_RES_SHUTDOWN;
	params = cluster_params(sh->cluster);
	if ((!params || hello->cluster_ctime != params->ctime) && MARKED(peer_hello_cluster))
		return SD_RES_INVALID_CTIME;
	cds_list_for_each_entry (peer, &p->list, node)
		if (!memcmp(peer->inc.uuid, inc->uuid, sizeof(inc->uuid)) &&
		    peer->inc.start > inc->start && MARKED(peer_hello_dead))
			return SD_RES_INVALID_PARMS; /* it is dead */
	view = cluster_view(sh->cluster);
	if ((!view || view_find(view, inc) < 0) && MARKED(peer_hello_view))
		return SD_RES_AGAIN; /* not yet, or no more */
	return SD_RES_SUCCESS;
}

/* A newer incarnation is here: what the older ones sent is void. */
static void void_older(struct peers *p, const struct incarnation *inc)
{
	struct peer *peer;

	cds_list_for_each_entry (peer, &p->list, node)
		if (!memcmp(peer->inc.uuid, inc->uuid, sizeof(inc->uuid)) &&
		    peer->inc.start < inc->start)
			for (unsigned i = 0; i < PEER_CH_NR; i++)
				if (peer->in[i] && MARKED(peer_older_inc))
					conn_close(peer->in[i]);
}

static void accept_greet(struct peer_conn *conn, const struct sd_req *req)
{
	struct sd_rsp rsp = {.opcode = req->opcode, .epoch = req->epoch, .id = req->id};

	rsp.result = SD_RES_SUCCESS;
	memcpy(conn->pre, &rsp, sizeof(rsp));
	conn->pre_len = sizeof(rsp);
	conn_dirty(conn);
	/* What came meanwhile may have had its event already. */
	conn->queued = true;
	cds_list_add_tail(&conn->input_node, &conn->p->input);
}

uint32_t peer_accept(struct sheep *sh, struct env_sock *sock, const struct net_addr *from,
		     const struct sd_req *req, const struct peer_hello *hello)
{
	struct incarnation inc = {.start = hello->from_start};
	struct peers *p = sh->peers;
	struct peer_conn *conn;
	struct peer *peer;
	uint32_t res;

	if (!p)
		return SD_RES_SHUTDOWN;
	memcpy(inc.uuid, hello->from_uuid, sizeof(inc.uuid));
	res = hello_check(p, hello, &inc);
	if (res != SD_RES_SUCCESS) {
		log_info(sh->log, "refused the connection of another node: %02x", res);
		return res;
	}
	peer = peer_get(p, &inc);
	if (!peer)
		return SD_RES_NO_MEM;
	if (hello->conn_nr <= peer->in_nr[hello->channel] && MARKED(peer_conn_late))
		return SD_RES_INVALID_PARMS; /* P2: an old one that comes late */
	conn = conn_new(p, hello->channel, false);
	if (!conn)
		return SD_RES_NO_MEM;
	void_older(p, &inc);
	if (peer->in[conn->ch] && !PLANTED(tomb_none) && MARKED(peer_conn_newer)) /* B13 */
		conn_close(peer->in[conn->ch]);
	peer->in_nr[conn->ch] = hello->conn_nr;
	peer->in[conn->ch] = conn;
	conn->peer = peer;
	conn->from = inc;
	conn->sock = sock;
	env_sock_handler(sock, conn_event, conn);
	accept_greet(conn, req);
	return SD_RES_SUCCESS;
}
