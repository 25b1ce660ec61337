/* peer.c - requests between daemons: life, calls to ourselves, the view; see peer.h, peer_int.h. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "sheep/peer_int.h"
#include "sheep/mark.h"

/* ---- what goes where ---- */

enum peer_channel peer_channel_of(unsigned op)
{
	switch (op) {
	case PEER_SYNC_QUERY:
	case PEER_SYNC_LIST:
	case PEER_VID_LIST:
	case PEER_PULL:
	case PEER_FLUSH:
	case PEER_DROP_CHECK:
	case PEER_TORN:
	case PEER_TORN_AS:
	case PEER_PING: return PEER_CH_CONTROL;
	case PEER_FORWARD: return PEER_CH_FORWARD;
	case PEER_PROBE: return PEER_CH_PROBE;
	}
	return PEER_CH_DATA;
}

unsigned peer_class_max(unsigned ch)
{
	static const unsigned max[PEER_CH_NR] = {
		[PEER_CH_DATA] = PEER_DATA_HANDLERS,
		[PEER_CH_CONTROL] = PEER_CONTROL_HANDLERS,
		[PEER_CH_FORWARD] = PEER_FORWARD_HANDLERS,
		[PEER_CH_PROBE] = PEER_PROBE_HANDLERS,
	};
	return max[ch];
}

/* ---- calls ---- */

void call_release(struct peer_call *c)
{
	buf_put(TAKE(c->data, NULL));
	free(TAKE(c->crc_mem, NULL));
	c->crc = NULL;
}

void call_end(struct peers *p, struct peer_call *c, int error)
{
	call_release(c);
	c->error = error;
	cds_list_add_tail(&c->node, &p->ended);
	peers_kick(p);
}

static void run_ended(struct peers *p)
{
	struct cds_list_head list;

	CDS_INIT_LIST_HEAD(&list);
	cds_list_splice(&p->ended, &list);
	CDS_INIT_LIST_HEAD(&p->ended);
	while (!cds_list_empty(&list)) {
		struct peer_call *c = cds_list_first_entry(&list, struct peer_call, node);
		cds_list_del(&c->node);
		if (!c->stream_held)
			c->chan = NULL;
		c->done(c);
	}
	co_cond_broadcast(&p->idle);
}

/* Copy what only the caller's stack may hold, keep what is pooled. */
static bool call_keep(struct peer_call *c)
{
	if (c->crc_nr) {
		uint32_t *to = c->crc_small;
		if (c->crc_nr > ARRAY_SIZE(c->crc_small))
			to = c->crc_mem = malloc(4 * (size_t)c->crc_nr);
		if (!to)
			return false;
		memcpy(to, c->crc, 4 * (size_t)c->crc_nr);
		c->crc = to;
	} else {
		c->crc = NULL;
	}
	return true;
}

/* ---- the handler's side, remote and local ---- */

void peer_count(struct peers *p, const struct peer_call *c, bool begin)
{
	struct sheep_stat *st = &p->sh->stat;

	if (begin) {
		st->peer_active++;
		st->peer_total++;
		st->peer_rx += c->data_len;
	} else {
		st->peer_active--;
		st->peer_tx += c->error ? 0 : c->reply_len;
	}
}

void peer_handle(struct peers *p, const struct incarnation *from, struct peer_call *c)
{
	if (c->req.op == PEER_FORWARD)
		gateway_forwarded(p->sh, from, c); /* ~ */
	else if (c->req.op == PEER_TORN)
		gateway_torn(p->sh, c);
	else
		replica_handle(p->sh, from, c); /* ~ */
}

static void local_pump(struct peers *p, unsigned ch);

static void local_co(void *arg)
{
	struct peer_call *c = arg;
	struct peers *p = c->sheep->peers;
	unsigned ch = peer_channel_of(c->req.op);
	bool own = c->reply_buf;

	peer_count(p, c, true);
	peer_handle(p, &p->sh->self.inc, c); /* ~ */
	peer_count(p, c, false);
	cds_list_del(&c->node);
	p->local[ch].nr--;
	p->nr_local--;
	local_pump(p, ch);
	if (!own && c->reply_buf) { /* not asked for */
		buf_put(TAKE(c->reply_buf, NULL));
		c->reply_len = 0;
	}
	if (!c->error && c->rsp.result == SD_RES_OLD_NODE_VER)
		c->error = -ESTALE;
	if (p->stopping && c->error)
		c->error = -ENOTCONN;
	if (c->req.op == PEER_PULL)
		c->rsp.flags |= PEER_F_LAST;
	call_release(c);
	if (!c->stream_held)
		c->chan = NULL;
	/* Before done(): the call may be freed in it, and the daemon must not be. */
	c->done(c);
	if (p->stopping)
		co_cond_broadcast(&p->idle);
}

/* P4: co_start() keeps the order. */
static void local_pump(struct peers *p, unsigned ch)
{
	struct peer_local *l = &p->local[ch];

	while (!cds_list_empty(&l->queue) && l->nr < peer_class_max(ch)) {
		struct peer_call *c = cds_list_first_entry(&l->queue, struct peer_call, node);
		if (!co_start(p->sh->sched, local_co, c, "own request")) {
			MARK(peer_own_no_co);
			peers_retry_later(p);
			return;
		}
		cds_list_del(&c->node);
		cds_list_add_tail(&c->node, &l->running);
		l->nr++;
		p->nr_local++;
	}
}

static void local_submit(struct peers *p, struct peer_call *c)
{
	unsigned ch = peer_channel_of(c->req.op);

	c->chan = &p->local_kind;
	cds_list_add_tail(&c->node, &p->local[ch].queue);
	local_pump(p, ch);
}

/* ---- peer.h ---- */

void peer_submit(struct sheep *sh, const struct incarnation *to, struct peer_call *c)
{
	struct peers *p = sh->peers;
	struct peer *peer;

	assert(p && c->done && c->req.op && c->req.op < PEER_OP_NR);
	assert(c->req.op == PEER_PULL ? c->frame != NULL : !c->frame);
	assert(!c->data_len || c->data_off + c->data_len <= c->data->cap);
	c->sheep = sh;
	c->chan = NULL;
	c->error = 0;
	c->reply_len = c->stream_held = 0;
	c->voided = c->streamed = c->tx.queued = false;
	c->req.crc_nr = c->crc_nr;
	c->req.data_len = c->data_len;
	c->crc_mem = NULL;
	if (c->data)
		buf_get(c->data);
	if ((!call_keep(c) || p->stopping) && MARKED(peer_stopping)) {
		call_end(p, c, -ENOTCONN);
	} else if (peer_inc_eq(to, &sh->self.inc)) {
		local_submit(p, c);
	} else {
		peer = peer_get(p, to);
		if (peer)
			chan_submit(peer, c);
		else if (MARKED(peer_not_in_view))
			call_end(p, c, -ENOTCONN);
	}
}

struct call_wait {
	struct co *co;
	bool done;
};

static void call_wait_done(struct peer_call *c)
{
	struct call_wait *w = c->arg;

	w->done = true;
	co_wake(w->co);
}

int peer_call_wait(struct sheep *sh, const struct incarnation *to, struct peer_call *c)
{
	struct call_wait w = {.co = co_self()};

	c->done = call_wait_done;
	c->arg = &w;
	peer_submit(sh, to, c);
	while (!w.done)
		co_park("another node"); /* ~ */
	return c->error;
}

void peer_frame_done(struct peer_call *c, size_t len)
{
	enum peer_kind *kind = c->chan;

	assert(kind && c->stream_held >= len);
	if (*kind == PEER_KIND_CHAN) {
		chan_frame_done(c->chan, c, len);
	} else {
		c->stream_held -= len;
		co_cond_broadcast(&c->sheep->peers->given_back);
	}
}

/* ---- peers ---- */

static uint64_t inc_hash(const struct incarnation *inc)
{
	uint64_t a, b;

	memcpy(&a, inc->uuid, sizeof(a));
	memcpy(&b, inc->uuid + sizeof(a), sizeof(b));
	return a ^ b * 0x9e3779b97f4a7c15ull ^ inc->start * 0xc2b2ae3d27d4eb4full;
}

struct peer *peer_get(struct peers *p, const struct incarnation *inc)
{
	uint64_t hash = inc_hash(inc);
	struct peer *first = map_get(&p->by_inc, hash), *peer;
	const struct view *v;
	int i;

	for (peer = first; peer; peer = peer->next)
		if (peer_inc_eq(&peer->inc, inc))
			return peer;
	v = p->sh->cluster ? cluster_view(p->sh->cluster) : NULL;
	i = v ? view_find(v, inc) : -1;
	if (i < 0)
		return NULL;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return NULL;
	peer->inc = *inc;
	peer->hash = hash;
	peer->addr = v->members[i].io_addr.family ? v->members[i].io_addr : v->members[i].addr;
	peer->next = first;
	if (map_set(&p->by_inc, hash, peer) < 0) {
		free(peer);
		return NULL;
	}
	cds_list_add_tail(&peer->node, &p->list);
	return peer;
}

static void peer_unhash(struct peers *p, struct peer *peer)
{
	struct peer *first = map_get(&p->by_inc, peer->hash), *q;

	if (first != peer) {
		for (q = first; q->next != peer;)
			q = q->next;
		q->next = peer->next;
	} else if (!peer->next || map_set(&p->by_inc, peer->hash, peer->next) < 0) {
		assert(!peer->next); /* the key is there: replacing it needs no memory */
		map_del(&p->by_inc, peer->hash);
	}
}

static void peer_drop(struct peers *p, struct peer *peer)
{
	probe_drop(peer);
	for (unsigned i = 0; i < PEER_CH_NR; i++) {
		if (peer->in[i])
			conn_close(peer->in[i]);
		if (peer->chan[i])
			chan_drop(peer->chan[i]);
	}
	peer_unhash(p, peer);
	cds_list_del(&peer->node);
	free(peer);
}

void peer_view_changed(struct sheep *sh, const struct view *v)
{
	struct peers *p = sh->peers;
	struct peer *peer, *next;

	if (!p)
		return;
	cds_list_for_each_entry_safe (peer, next, &p->list, node)
		if (view_find(v, &peer->inc) < 0 && MARKED(peer_left_view))
			peer_drop(p, peer);
}

/* ---- once in a turn ---- */

/* First come, first served, also for one that needs much room: the others wait behind it. */
static void run_class(struct peers *p, unsigned ch)
{
	struct peer_class *cl = &p->class[ch];

	for (unsigned n = 0; n < PEER_TURN_WAITERS && !cds_list_empty(&cl->waiting); n++) {
		struct peer_conn *conn =
			cds_list_first_entry(&cl->waiting, struct peer_conn, wait_node);
		if (cl->nr >= peer_class_max(ch))
			return;
		cl->turn = conn;
		conn_unwait(conn);
		conn->queued = false;
		cds_list_del(&conn->input_node);
		conn->refs++;
		conn_input(conn);
		bool stuck = cl->turn && conn->wait == WAIT_CLASS;
		cl->turn = NULL;
		if (stuck)
			cds_list_move(&conn->wait_node, &cl->waiting);
		conn_put(conn);
		if (stuck)
			return;
	}
	if (!cds_list_empty(&cl->waiting))
		peers_kick(p);
}

static void run_waiting(struct peers *p)
{
	struct cds_list_head list;

	for (unsigned ch = 0; ch < PEER_CH_NR; ch++)
		run_class(p, ch);
	CDS_INIT_LIST_HEAD(&list);
	cds_list_splice(&p->starved, &list);
	CDS_INIT_LIST_HEAD(&p->starved);
	while (!cds_list_empty(&list))
		conn_unwait(cds_list_first_entry(&list, struct peer_conn, wait_node));
}

static void peers_work(struct env_defer *d)
{
	struct peers *p = caa_container_of(d, struct peers, work);
	struct cds_list_head list;
	struct peer_conn *conn;

	if (!cds_list_empty(&p->ended))
		run_ended(p);
	run_waiting(p);
	CDS_INIT_LIST_HEAD(&list);
	cds_list_splice(&p->input, &list);
	CDS_INIT_LIST_HEAD(&p->input);
	while (!cds_list_empty(&list)) {
		conn = cds_list_first_entry(&list, struct peer_conn, input_node);
		cds_list_del(&conn->input_node);
		conn->queued = false;
		conn_input(conn);
	}
	while (!cds_list_empty(&p->dirty)) {
		conn = cds_list_first_entry(&p->dirty, struct peer_conn, dirty_node);
		cds_list_del(&conn->dirty_node);
		conn->dirty = false;
		conn_flush(conn);
	}
}

static void peers_retry(struct env_timer *t)
{
	struct peers *p = caa_container_of(t, struct peers, retry);

	for (unsigned ch = 0; ch < PEER_CH_NR; ch++)
		local_pump(p, ch);
	peers_kick(p);
}

void peers_retry_later(struct peers *p)
{
	if (!p->retry.heap_idx)
		env_timer_set(p->sh->env, &p->retry, env_now(p->sh->env) + PEER_RETRY_NS);
}

/* ---- life ---- */

int peer_init(struct sheep *sh)
{
	struct peers *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->scratch = malloc(PEER_SCRATCH + PEER_GUESS_NR * PEER_SLOT);
	if (!p->scratch) {
		free(p);
		return -ENOMEM;
	}
	p->sh = sh;
	p->local_kind = PEER_KIND_LOCAL;
	map_init(&p->by_inc);
	CDS_INIT_LIST_HEAD(&p->list);
	CDS_INIT_LIST_HEAD(&p->dirty);
	CDS_INIT_LIST_HEAD(&p->input);
	CDS_INIT_LIST_HEAD(&p->starved);
	CDS_INIT_LIST_HEAD(&p->ended);
	for (unsigned ch = 0; ch < PEER_CH_NR; ch++) {
		CDS_INIT_LIST_HEAD(&p->class[ch].waiting);
		CDS_INIT_LIST_HEAD(&p->local[ch].queue);
		CDS_INIT_LIST_HEAD(&p->local[ch].running);
	}
	co_cond_init(&p->idle);
	co_cond_init(&p->given_back);
	p->work.fn = peers_work;
	p->retry.fn = peers_retry;
	sh->peers = p;
	probe_start(p);
	return 0;
}

/* Handlers of our own calls end as those of a void connection do. */
static bool local_stop(struct peers *p)
{
	struct peer_call *c, *next;
	bool running = false;

	for (unsigned ch = 0; ch < PEER_CH_NR; ch++) {
		cds_list_for_each_entry_safe (c, next, &p->local[ch].queue, node) {
			cds_list_del(&c->node);
			call_end(p, c, -ENOTCONN);
		}
		cds_list_for_each_entry (c, &p->local[ch].running, node) {
			c->voided = true;
			running = MARKED(peer_own_void);
		}
	}
	co_cond_broadcast(&p->given_back);
	return running;
}

void peer_stop(struct sheep *sh)
{
	struct peers *p = sh->peers;
	struct peer *peer, *next;

	p->stopping = true;
	probe_stop(p);
	if (local_stop(p))
		replica_kick(sh);
	cds_list_for_each_entry_safe (peer, next, &p->list, node)
		peer_drop(p, peer);
	while (p->nr_reqs || p->nr_conns || p->nr_local || !cds_list_empty(&p->ended))
		co_cond_wait(&p->idle, "peers: stop"); /* ~ */
	env_timer_del(sh->env, &p->retry);
}

void peer_done(struct sheep *sh)
{
	struct peers *p = sh->peers;

	if (!p)
		return;
	assert(p->stopping && !p->nr_reqs && !p->nr_conns && !p->nr_local);
	assert(!p->nr_chans); /* every frame was given back */
	assert(cds_list_empty(&p->ended) && cds_list_empty(&p->list) && !p->by_inc.nr);
	env_defer_del(sh->env, &p->work);
	map_done(&p->by_inc);
	req_pool_free(p);
	free(p->scratch);
	free(p);
	sh->peers = NULL;
}
