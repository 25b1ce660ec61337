/* peer_chan.c - the caller's side: calls to one incarnation on one channel, see peer_int.h. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "sheep/peer_int.h"
#include "sheep/mark.h"

_Static_assert((PEER_CALLS_MAX & (PEER_CALLS_MAX - 1)) == 0, "ids are cut into two parts");
_Static_assert(PEER_CALLS_MAX <= UINT16_MAX, "slots are named by 16 bits");

static void chan_end(struct peer_chan *chan, struct peer_call *c);
static void chan_admit_waiting(struct peer_chan *chan);

/* ---- opening (P2) ---- */

static void chan_later(struct peer_chan *chan, uint64_t ns)
{
	struct env *env = chan->p->sh->env;

	env_timer_set(env, &chan->timer, env_now(env) + ns);
}

/* The present connection is gone: try again when there is something to ask. */
static void chan_back_off(struct peer_chan *chan)
{
	if (cds_list_empty(&chan->calls)) {
		env_timer_del(chan->p->sh->env, &chan->timer);
		return;
	}
	chan_later(chan, chan->backoff);
	chan->backoff *= 2;
	if (chan->backoff > PEER_BACKOFF_MAX)
		chan->backoff = PEER_BACKOFF_MAX;
}

static void chan_open(struct peer_chan *chan)
{
	struct peers *p = chan->p;
	struct peer_conn *conn = conn_new(p, chan->ch, true);
	int r = -ENOMEM;

	assert(chan->peer && !chan->conn);
	if (conn)
		r = env_connect(p->sh->env, &chan->peer->addr, conn_event, conn, &conn->sock);
	if (r < 0 && MARKED(peer_connect_failed)) {
		if (conn)
			conn_put(conn);
		chan_back_off(chan);
		return;
	}
	conn->chan = chan;
	chan->conn = conn;
	chan_later(chan, PEER_OPEN_NS);
}

static void chan_timer(struct env_timer *t)
{
	struct peer_chan *chan = caa_container_of(t, struct peer_chan, timer);

	if (chan->conn && MARKED(peer_greet_late))
		conn_close(chan->conn); /* not greeted in time */
	else if (!cds_list_empty(&chan->calls))
		chan_open(chan);
}

void chan_connected(struct peer_conn *conn)
{
	struct peers *p = conn->p;
	struct sheep *sh = p->sh;
	const struct cluster_params *params = cluster_params(sh->cluster);
	const struct incarnation *to = &conn->chan->peer->inc;
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER,
			     .opcode = SD_OP_PEER_HELLO,
			     .flags = SD_FLAG_WRITE,
			     .epoch = cluster_epoch(sh->cluster),
			     .data_length = sizeof(struct peer_hello)};
	struct peer_hello hello = {.version = PEER_PROTO_VERSION,
				   .conn_nr = ++p->conn_seq,
				   .channel = conn->ch,
				   .cluster_ctime = params ? params->ctime : 0,
				   .from_start = sh->self.inc.start,
				   .to_start = to->start};

	req.id = hello.conn_nr;
	memcpy(hello.from_uuid, sh->self.inc.uuid, sizeof(hello.from_uuid));
	memcpy(hello.to_uuid, to->uuid, sizeof(hello.to_uuid));
	memcpy(conn->pre, &req, sizeof(req));
	memcpy(conn->pre + sizeof(req), &hello, sizeof(hello));
	conn->pre_len = sizeof(req) + sizeof(hello);
	conn->state = CONN_HELLO;
}

static void chan_send(struct peer_chan *chan, struct peer_call *c)
{
	c->tx.hdr = &c->req;
	c->tx.crc = c->crc;
	c->tx.crc_nr = c->req.crc_nr;
	c->tx.buf = c->data;
	c->tx.off = c->data_off;
	c->tx.len = c->req.data_len;
	conn_send(chan->conn, &c->tx);
}

void chan_greeted(struct peer_conn *conn, const struct sd_rsp *rsp)
{
	struct peer_chan *chan = conn->chan;
	struct sheep *sh = chan->p->sh;
	struct peer_call *c, *next;

	if (rsp->opcode != SD_OP_PEER_HELLO) {
		conn_garbage(conn, "no greeting");
		return;
	}
	if (rsp->result == SD_RES_AGAIN && MARKED(peer_refused_view))
		probe_heard(chan->peer); /* it has another view */
	if (rsp->result != SD_RES_SUCCESS) {
		const char *text = sd_result_text(rsp->result);
		if (rsp->result != SD_RES_AGAIN && MARKED(peer_refused) && !chan->complained) {
			chan->complained = true;
			log_warn(sh->log, "another node refuses our connection: %s",
				 text ? text : "unknown result");
		}
		if (rsp->result == SD_RES_AGAIN && chan->backoff > PEER_BACKOFF_AGAIN)
			chan->backoff = PEER_BACKOFF_AGAIN;
		conn_close(conn);
		return;
	}
	env_timer_del(sh->env, &chan->timer);
	chan->complained = false;
	conn->state = CONN_OPEN;
	conn->opened_ns = env_now(sh->env);
	cds_list_for_each_entry_safe (c, next, &chan->calls, node) {
		if (!c->unwanted)
			chan_send(chan, c);
		else if (MARKED(peer_unwanted))
			chan_end(chan, c);
	}
	chan_admit_waiting(chan);
}

/* ---- calls ---- */

static struct peer_chan *chan_new(struct peer *peer, struct peers *p, unsigned ch)
{
	struct peer_chan *chan = calloc(1, sizeof(*chan));

	if (!chan)
		return NULL;
	chan->kind = PEER_KIND_CHAN;
	chan->p = p;
	chan->peer = peer;
	chan->ch = ch;
	chan->backoff = PEER_BACKOFF_MIN;
	chan->timer.fn = chan_timer;
	CDS_INIT_LIST_HEAD(&chan->calls);
	CDS_INIT_LIST_HEAD(&chan->waiting);
	for (unsigned i = 0; i < PEER_CALLS_MAX; i++)
		chan->free[i] = PEER_CALLS_MAX - 1 - i;
	chan->nr_free = PEER_CALLS_MAX;
	p->nr_chans++;
	peer->chan[ch] = chan;
	return chan;
}

/* Gone from the view, and nobody has a frame of it any more. */
static void chan_free(struct peer_chan *chan)
{
	if (chan->peer || chan->held)
		return;
	assert(!chan->conn && cds_list_empty(&chan->calls) && cds_list_empty(&chan->waiting));
	chan->p->nr_chans--;
	free(chan);
}

/* It has its turn: P3. */
static void chan_admit(struct peer_chan *chan, struct peer_call *c)
{
	unsigned i = chan->free[--chan->nr_free];

	chan->slot[i] = c;
	chan->id_seq += PEER_CALLS_MAX;
	c->id = c->req.id = chan->id_seq | i;
	cds_list_add_tail(&c->node, &chan->calls);
	if (chan->conn && chan->conn->state == CONN_OPEN)
		chan_send(chan, c);
	else if (!chan->conn && !chan->timer.heap_idx)
		chan_open(chan);
}

void chan_submit(struct peer *peer, struct peer_call *c)
{
	struct peers *p = c->sheep->peers;
	unsigned ch = peer_channel_of(c->req.op);
	struct peer_chan *chan = peer->chan[ch];

	if (!chan)
		chan = chan_new(peer, p, ch);
	if (!chan) {
		call_end(p, c, -ENOTCONN);
		return;
	}
	c->chan = chan;
	c->req.magic = PEER_MAGIC;
	if (chan->nr_free)
		chan_admit(chan, c);
	else if (MARKED(peer_window))
		cds_list_add_tail(&c->node, &chan->waiting);
}

/* It has its answer or none is to come: it leaves its slot. */
static void chan_leave(struct peer_chan *chan, struct peer_call *c)
{
	unsigned i = c->id & (PEER_CALLS_MAX - 1);

	assert(chan->slot[i] == c && !c->tx.queued);
	chan->slot[i] = NULL;
	chan->free[chan->nr_free++] = i;
	cds_list_del(&c->node);
}

static void chan_admit_waiting(struct peer_chan *chan)
{
	while (chan->nr_free && !cds_list_empty(&chan->waiting)) {
		struct peer_call *c = cds_list_first_entry(&chan->waiting, struct peer_call, node);
		cds_list_del(&c->node);
		if (!c->unwanted)
			chan_admit(chan, c);
		else if (MARKED(peer_unwanted_waiting))
			call_end(chan->p, c, -ENOTCONN);
	}
}

/* ---- answers ---- */

static bool reply_has_data(const struct peer_call *c)
{
	return c->req.op == PEER_READ || c->req.op == PEER_SYNC_LIST ||
	       c->req.op == PEER_VID_LIST || c->req.op == PEER_FORWARD;
}

static bool is_frame(const struct peer_hdr *h)
{
	return h->op == PEER_PULL && !(h->flags & PEER_F_LAST);
}

int chan_header(struct peer_conn *conn)
{
	const struct peer_hdr *h = &conn->hdr.h;
	struct peer_chan *chan = conn->chan;
	struct peer_call *c = chan->slot[h->id & (PEER_CALLS_MAX - 1)];

	if (h->magic != PEER_MAGIC || h->crc_nr || !c || c->id != h->id || c->req.op != h->op ||
	    c->tx.queued)
		return HDR_GARBAGE;
	conn->rx[0] = conn->rx[1] = (struct iovec){NULL, 0};
	if (is_frame(h)) {
		if (!c->frame || !h->data_len || h->data_len > PEER_FRAME_MAX)
			return HDR_GARBAGE;
		if (chan->held >= PEER_STREAM_MAX && MARKED(peer_stream_held)) {
			conn_wait(conn, WAIT_HELD);
			return HDR_WAIT;
		}
		conn->rx_buf = buf_new(conn->p->sh->pool, h->data_len);
		if (!conn->rx_buf) {
			conn_garbage(conn, "out of memory");
			return HDR_WAIT;
		}
		conn->rx[1] = (struct iovec){conn->rx_buf->data, h->data_len};
	} else if (h->data_len) {
		if (!reply_has_data(c) || !c->reply_buf || h->data_len > c->reply_cap)
			return HDR_GARBAGE;
		assert(c->reply_off + c->reply_cap <= c->reply_buf->cap);
		conn->rx[1] =
			(struct iovec){(uint8_t *)c->reply_buf->data + c->reply_off, h->data_len};
	}
	conn->rx_call = c;
	return HDR_TAKEN;
}

void chan_message(struct peer_conn *conn)
{
	const struct peer_hdr *h = &conn->hdr.h;
	struct peer_call *c = TAKE(conn->rx_call, NULL);
	struct peer_chan *chan = conn->chan;

	chan->answers++;
	if (is_frame(h)) {
		c->streamed = true;
		c->stream_held += h->data_len;
		chan->held += h->data_len;
		c->frame(c, h, TAKE(conn->rx_buf, NULL));
		return;
	}
	chan_leave(chan, c);
	c->rsp = *h;
	c->reply_len = h->data_len;
	c->error = h->result == SD_RES_OLD_NODE_VER && MARKED(peer_stale) ? -ESTALE : 0;
	call_release(c);
	chan_admit_waiting(chan);
	if (!c->stream_held)
		c->chan = NULL;
	c->done(c);
}

void chan_frame_done(struct peer_chan *chan, struct peer_call *c, size_t len)
{
	assert(chan->held >= len && c->stream_held >= len);
	chan->held -= len;
	c->stream_held -= len;
	if (chan->conn && chan->conn->wait == WAIT_HELD && chan->held < PEER_STREAM_MAX)
		conn_unwait(chan->conn);
	chan_free(chan);
}

/* ---- the end of connections and of peers ---- */

static void chan_end(struct peer_chan *chan, struct peer_call *c)
{
	chan_leave(chan, c);
	call_end(chan->p, c, -ENOTCONN);
}

void chan_conn_closed(struct peer_conn *conn)
{
	struct peer_chan *chan = conn->chan;
	struct peer_msg *m, *nm;
	struct peer_call *c, *nc;

	chan->conn = NULL;
	conn->rx_call = NULL;
	cds_list_for_each_entry_safe (m, nm, &conn->tx, node) {
		cds_list_del(&m->node);
		m->queued = false;
	}
	/* A stream cannot go on in the middle, and what was handed over may be of another version.
	 * What nobody waits for must not come long after (DESIGN 5.1): its client may have gone on
	 * as another one. */
	cds_list_for_each_entry_safe (c, nc, &chan->calls, node)
		if ((c->streamed && MARKED(peer_stream_cut)) ||
		    (c->unwanted && MARKED(peer_unwanted_cut)))
			chan_end(chan, c);
	if (!chan->peer)
		return;
	if (conn->state == CONN_OPEN && !cds_list_empty(&chan->calls) && MARKED(peer_sent_again))
		log_info(conn->p->sh->log, "a connection to another node broke: what it has not "
					   "answered is sent again");
	if (conn->state == CONN_OPEN &&
	    env_now(conn->p->sh->env) - conn->opened_ns >= PEER_STABLE_NS)
		chan->backoff = PEER_BACKOFF_MIN;
	chan_back_off(chan);
	chan_admit_waiting(chan);
}

void chan_drop(struct peer_chan *chan)
{
	struct peer_call *c, *next;

	chan->peer = NULL;
	if (chan->conn)
		conn_close(chan->conn);
	env_timer_del(chan->p->sh->env, &chan->timer);
	cds_list_for_each_entry_safe (c, next, &chan->calls, node) {
		MARK(peer_gone);
		chan_end(chan, c);
	}
	cds_list_for_each_entry_safe (c, next, &chan->waiting, node) {
		cds_list_del(&c->node);
		call_end(chan->p, c, -ENOTCONN);
	}
	chan_free(chan);
}
