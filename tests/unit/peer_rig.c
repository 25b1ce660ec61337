/* peer_rig.c - see peer_rig.h */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/base/crc.h"
#include "tests/unit/peer_rig.h"

#define PORT_FIRST 31100u
#define PORT_LAST  31199u
#define CTIME	   0x1122334455667788ull
#define HELLO_LEN  (sizeof(struct sd_req) + sizeof(struct peer_hello))

/* ---- the log: errors are counted ---- */

static unsigned nr_log_errors;

unsigned rig_errors(void)
{
	return nr_log_errors;
}

enum log_level log_get_level(const struct log *l)
{
	return LOG_L_ERR;
}

void log_write(struct log *l, enum log_level level, const char *func, int line, const char *fmt,
	       ...)
{
	if (level == LOG_L_ERR)
		nr_log_errors++;
}

/* ---- the cluster ---- */

struct view *cluster_view(const struct cluster *c)
{
	return c->have_view ? (struct view *)&c->view : NULL;
}

int view_find(const struct view *v, const struct incarnation *inc)
{
	for (unsigned i = 0; i < v->nr; i++)
		if (peer_inc_eq(&v->members[i].inc, inc))
			return i;
	return -1;
}

uint32_t cluster_epoch(const struct cluster *c)
{
	return c->view.epoch;
}

const struct cluster_params *cluster_params(const struct cluster *c)
{
	return &c->params;
}

void cluster_accuse(struct cluster *c, const struct incarnation *who)
{
	struct node *n = caa_container_of(c, struct node, cl);

	for (unsigned i = 0; i < RIG_NODES; i++)
		c->accused[i] += peer_inc_eq(&n->rig->inc[i], who);
}

void cluster_acquit(struct cluster *c, const struct incarnation *who)
{
}

unsigned cluster_suspects(const struct cluster *c, struct incarnation *who, unsigned max)
{
	assert_true(max > 0);
	who[0] = c->suspect;
	return c->nr_suspects;
}

void node_view(struct node *n, unsigned mask, bool tell)
{
	struct cluster *cl = &n->cl;

	cl->view.epoch++;
	cl->view.members = cl->member;
	cl->view.nr = 0;
	cl->view.self = -1;
	cl->have_view = true;
	for (unsigned i = 0; i < RIG_NODES; i++) {
		if (!(mask & 1u << i))
			continue;
		struct member *m = &cl->member[cl->view.nr++];
		if (i == n->nr && cl->probes)
			cl->view.self = (int)cl->view.nr - 1;
		memset(m, 0, sizeof(*m));
		m->inc = n->rig->inc[i];
		m->addr = n->rig->addr[i];
		if (i % 2) { /* every other one has a second address that is to be used */
			m->io_addr = m->addr;
			m->addr.port = 1;
		}
	}
	if (tell)
		peer_view_changed(&n->sh, &cl->view);
}

/* ---- data ---- */

uint64_t rig_random(struct rig *r)
{
	r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
	return r->random >> 33;
}

void fill(void *data, size_t len, uint64_t seed)
{
	uint8_t *b = data;

	for (size_t i = 0; i < len; i++)
		b[i] = (uint8_t)(seed * 31 + i + (i >> 8) * 7);
}

bool filled(const void *data, size_t len, uint64_t seed)
{
	const uint8_t *b = data;

	for (size_t i = 0; i < len; i++)
		if (b[i] != (uint8_t)(seed * 31 + i + (i >> 8) * 7))
			return false;
	return true;
}

/* ---- the replica ---- */

static struct node *node_of(struct sheep *sh)
{
	return caa_container_of(sh, struct node, sh);
}

void replica_kick(struct sheep *sh)
{
	co_cond_broadcast(&node_of(sh)->cond);
}

static void note(struct node *n, const struct incarnation *from, struct peer_call *c)
{
	struct note *t = &n->note[n->nr_notes % RIG_NOTES];

	*t = (struct note){c->req.op, c->req.oid, c->req.prev_seq, *from, true};
	for (unsigned i = 0; i < n->nr_running; i++)
		t->voided_before &= n->running[i]->voided;
	n->nr_notes++;
	assert_true(n->nr_running < 2048);
	n->running[n->nr_running++] = c;
	if (n->nr_running > n->max_running)
		n->max_running = n->nr_running;
}

static void left(struct node *n, struct peer_call *c)
{
	for (unsigned i = 0; i < n->nr_running; i++)
		if (n->running[i] == c) {
			n->running[i] = n->running[--n->nr_running];
			return;
		}
	fail();
}

static bool write_good(const struct peer_call *c)
{
	const uint8_t *b = c->data ? (uint8_t *)c->data->data + c->data_off : NULL;
	unsigned nr = 0;

	for (size_t off = 0; off < c->data_len; off += SD_BLOCK_SIZE) {
		size_t k = c->data_len - off < SD_BLOCK_SIZE ? c->data_len - off : SD_BLOCK_SIZE;
		if (nr >= c->crc_nr || crc32c(b + off, k) != c->crc[nr++])
			return false;
	}
	return nr == c->crc_nr && ((uintptr_t)b & 4095) == (c->data_off & 4095) &&
	       filled(b, c->data_len, c->req.prev_seq);
}

static void replica_write(struct node *n, struct peer_call *c)
{
	uint64_t *applied = &n->applied[c->req.oid], seq = c->req.prev_seq;

	if (!write_good(c))
		n->nr_errors++;
	if (n->hold_view)
		co_sleep(1000000); /* ~ the disk */
	while (!c->voided && !n->sh.closing && *applied + 1 < seq)
		co_cond_wait(&n->cond, "previous"); /* ~ */
	if (c->voided || n->sh.closing) {
		c->error = -ECANCELED;
		return;
	}
	if (seq == *applied + 1) {
		*applied = seq;
		co_cond_broadcast(&n->cond);
	}
}

static void replica_read(struct node *n, struct peer_call *c)
{
	if (!c->reply_buf) {
		c->reply_buf = buf_new(n->sh.pool, c->req.len);
		c->reply_cap = c->req.len;
	}
	fill((uint8_t *)c->reply_buf->data + c->reply_off, c->req.len, c->req.len);
	c->reply_len = c->req.len;
}

/* off: bytes of a frame; len: bytes of all */
static void replica_pull(struct node *n, struct peer_call *c)
{
	for (uint64_t off = 0; off < c->req.len; off += c->req.off) {
		struct buf *b = buf_new(n->sh.pool, c->req.off + 4096);
		struct peer_hdr h = c->rsp;
		h.off = off;
		fill((uint8_t *)b->data + 4096, c->req.off, off);
		int r = peer_stream(c, &h, b, 4096, c->req.off); /* ~ */
		buf_put(b);
		if (r < 0) {
			c->error = -ECANCELED;
			return;
		}
		n->streamed += c->req.off;
	}
	c->rsp.len = c->req.len;
}

void replica_handle(struct sheep *sh, const struct incarnation *from, struct peer_call *c)
{
	struct node *n = node_of(sh);

	note(n, from, c);
	c->rsp.epoch = n->cl.view.epoch;
	c->rsp.result = n->old ? SD_RES_OLD_NODE_VER : SD_RES_SUCCESS;
	while (n->hold && !(c->voided && !n->hold_view) && !sh->closing)
		co_cond_wait(&n->cond, "held"); /* ~ */
	if (sh->closing || c->voided) {
		c->error = -ECANCELED;
	} else if (n->bad_sum) {
		n->bad_sum = false;
		c->error = -EBADMSG;
	} else if (c->req.op == PEER_WRITE) {
		replica_write(n, c); /* ~ */
	} else if (c->req.op == PEER_READ) {
		replica_read(n, c);
	} else if (c->req.op == PEER_PULL) {
		replica_pull(n, c); /* ~ */
	}
	n->nr_canceled += c->error == -ECANCELED;
	left(n, c);
}

void gateway_torn(struct sheep *sh, struct peer_call *c)
{
	node_of(sh)->nr_torn++;
	c->error = 0;
	c->reply_len = 0;
	c->rsp = (struct peer_hdr){.op = c->req.op, .id = c->req.id, .epoch = c->req.epoch};
}

void gateway_forwarded(struct sheep *sh, const struct incarnation *from, struct peer_call *c)
{
	struct node *n = node_of(sh);
	struct sd_req req;

	n->nr_forwarded++;
	c->rsp.result = SD_RES_SUCCESS;
	memcpy(&req, c->req.client, sizeof(req));
	if (req.flags & SD_FLAG_WRITE)
		return;
	c->reply_buf = buf_new(sh->pool, req.data_length);
	fill(c->reply_buf->data, req.data_length, 9);
	c->reply_len = req.data_length;
}

void node_release(struct node *n)
{
	n->hold = false;
	co_cond_broadcast(&n->cond);
}

/* ---- the server: exactly the hello, then peer_accept() ---- */

struct hello_conn {
	struct cds_list_head node;
	struct node *n;
	struct env_sock *sock;
	uint8_t buf[HELLO_LEN];
	size_t len;
};

static void hello_free(struct hello_conn *h)
{
	cds_list_del(&h->node);
	free(h);
}

static void hello_event(struct env_sock *sock, unsigned events, void *arg)
{
	struct hello_conn *h = arg;
	struct net_addr from = {.family = AF_INET};
	struct peer_hello hello;
	struct sd_req req;

	while (h->len < HELLO_LEN) {
		struct iovec v = {h->buf + h->len, HELLO_LEN - h->len};
		ssize_t n = env_recv(sock, &v, 1);
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			env_sock_close(sock, false);
			hello_free(h);
			return;
		}
		h->len += n;
	}
	memcpy(&req, h->buf, sizeof(req));
	memcpy(&hello, h->buf + sizeof(req), sizeof(hello));
	uint32_t res = peer_accept(&h->n->sh, sock, &from, &req, &hello);
	if (res != SD_RES_SUCCESS) {
		struct sd_rsp rsp = {.opcode = req.opcode, .id = req.id};
		struct iovec v = {&rsp, sizeof(rsp)};
		rsp.result = res;
		env_send(sock, &v, 1);
		env_sock_close(sock, false);
	}
	hello_free(h);
}

static void accept_event(struct env_sock *lst, unsigned events, void *arg)
{
	struct node *n = arg;

	for (;;) {
		struct hello_conn *h = calloc(1, sizeof(*h));
		h->n = n;
		if (env_accept(lst, hello_event, h, &h->sock, NULL) < 0) {
			free(h);
			return;
		}
		cds_list_add_tail(&h->node, &n->rig->hellos);
	}
}

/* The first port that is free; the second time the same one. */
void node_listen(struct node *n)
{
	struct net_addr *a = &n->rig->addr[n->nr];
	int r = -EADDRINUSE;

	if (a->port) {
		r = env_listen(n->rig->env, a, accept_event, n, &n->listener);
	} else {
		*a = (struct net_addr){.family = AF_INET, .ip = {[12] = 127, [15] = 1}};
		for (a->port = PORT_FIRST; r == -EADDRINUSE && a->port <= PORT_LAST; a->port++)
			r = env_listen(n->rig->env, a, accept_event, n, &n->listener);
		a->port--;
	}
	assert_int_equal(r, 0);
}

/* ---- nodes ---- */

struct node *node_open(struct rig *r, unsigned nr, unsigned nr_co)
{
	static int log_dummy;
	struct node *n = calloc(1, sizeof(*n));

	assert_non_null(n);
	n->rig = r;
	n->nr = nr;
	n->sh.env = r->env;
	n->sh.log = (struct log *)&log_dummy;
	n->sh.sched = co_sched_new(r->env, nr_co);
	n->sh.pool = buf_pool_new(16u << 20);
	n->sh.cluster = &n->cl;
	n->sh.self.inc = r->inc[nr];
	n->cl.params.ctime = CTIME;
	co_cond_init(&n->cond);
	assert_int_equal(peer_init(&n->sh), 0);
	r->node[nr] = n;
	node_listen(n);
	return n;
}

static void stop_co(void *arg)
{
	struct node *n = arg;

	peer_stop(&n->sh); /* ~ */
	n->sh.stopping = true;
}

void node_stop(struct node *n)
{
	uint64_t end = env_now(n->rig->env) + RIG_SECONDS * 1000000000ull;

	n->sh.closing = true;
	assert_non_null(co_start(n->sh.sched, stop_co, n, "stop"));
	while (!n->sh.stopping || co_sched_nr(n->sh.sched)) {
		assert_true(env_now(n->rig->env) < end);
		env_linux_turn(n->rig->env, 1);
	}
}

void node_close(struct node *n)
{
	env_sock_close(n->listener, false);
	if (!n->sh.stopping)
		node_stop(n);
	peer_done(&n->sh);
	assert_null(n->sh.peers);
	co_sched_free(n->sh.sched);
	assert_int_equal(buf_pool_used(n->sh.pool), 0);
	buf_pool_free(n->sh.pool);
	assert_int_equal(n->nr_errors, 0);
	n->rig->node[n->nr] = NULL;
	free(n);
}

void rig_open(struct rig *r, unsigned nr_nodes, unsigned nr_co)
{
	struct env_linux_conf conf = {0};

	memset(r, 0, sizeof(*r));
	assert_int_equal(env_linux_new(&conf, &r->env), 0);
	CDS_INIT_LIST_HEAD(&r->hellos);
	nr_log_errors = 0;
	for (unsigned i = 0; i < RIG_NODES; i++) {
		memset(r->inc[i].uuid, 'A' + i, sizeof(r->inc[i].uuid));
		r->inc[i].start = 5;
	}
	for (unsigned i = 0; i < nr_nodes; i++)
		node_open(r, i, nr_co);
	for (unsigned i = 0; i < nr_nodes; i++)
		node_view(r->node[i], (1u << RIG_NODES) - 1, true);
}

void rig_close(struct rig *r)
{
	struct hello_conn *h, *next;

	for (unsigned i = 0; i < RIG_NODES; i++)
		if (r->node[i])
			node_close(r->node[i]);
	cds_list_for_each_entry_safe (h, next, &r->hellos, node) {
		env_sock_close(h->sock, false);
		hello_free(h);
	}
	env_linux_free(r->env); /* asserts that no socket and no timer is left */
}

void rig_until(struct rig *r, const unsigned *what, unsigned value)
{
	uint64_t end = env_now(r->env) + RIG_SECONDS * 1000000000ull;

	while (*(const volatile unsigned *)what != value && env_now(r->env) < end)
		env_linux_turn(r->env, 10);
	assert_int_equal(*what, value);
}

void rig_turns(struct rig *r, unsigned ms)
{
	uint64_t end = env_now(r->env) + ms * 1000000ull;

	/* So many turns at least: time passes on a busy machine too while nothing is done here. */
	for (unsigned n = 0; n < ms || env_now(r->env) < end; n++)
		env_linux_turn(r->env, 1);
}

/* ---- calls ---- */

static void tdone(struct peer_call *c)
{
	caa_container_of(c, struct tcall, c)->done++;
}

struct tcall *tcall(struct node *n, enum peer_op op)
{
	struct tcall *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	t->node = n;
	t->c.req.op = op;
	t->c.done = tdone;
	CDS_INIT_LIST_HEAD(&t->frames);
	return t;
}

struct tcall *twrite(struct node *n, uint64_t oid, uint64_t seq, size_t len)
{
	struct tcall *t = tcall(n, PEER_WRITE);
	unsigned nr = (len + SD_BLOCK_SIZE - 1) / SD_BLOCK_SIZE;
	uint32_t *crc = calloc(nr + 1, sizeof(*crc));

	t->c.req.oid = oid;
	t->c.req.prev_seq = seq;
	if (len) {
		t->c.data_off = seq % 3 ? 0 : 512;
		t->c.data = buf_new(n->sh.pool, len + 512);
		uint8_t *b = (uint8_t *)t->c.data->data + t->c.data_off;
		fill(b, len, seq);
		for (unsigned i = 0; i < nr; i++) {
			size_t off = (size_t)i * SD_BLOCK_SIZE;
			crc[i] = crc32c(b + off,
					len - off < SD_BLOCK_SIZE ? len - off : SD_BLOCK_SIZE);
		}
	}
	t->c.data_len = len;
	t->c.crc = crc; /* freed when submitted */
	t->c.crc_nr = nr;
	return t;
}

struct tcall *tread(struct node *n, size_t len)
{
	struct tcall *t = tcall(n, PEER_READ);

	t->c.req.len = len;
	t->c.reply_buf = buf_new(n->sh.pool, len + 4096);
	t->c.reply_off = 100;
	t->c.reply_cap = len;
	return t;
}

static void tframe(struct peer_call *c, const struct peer_hdr *h, struct buf *data)
{
	struct tcall *t = caa_container_of(c, struct tcall, c);
	struct tframe *f = malloc(sizeof(*f));

	assert_int_equal(t->done, 0);
	assert_int_equal(h->off, t->got);
	assert_true(filled(data->data, h->data_len, h->off));
	t->got += h->data_len;
	f->buf = data;
	f->len = h->data_len;
	cds_list_add_tail(&f->node, &t->frames);
	if (!t->keep)
		give_back(t);
}

void give_back(struct tcall *t)
{
	struct tframe *f, *next;
	struct cds_list_head list;

	CDS_INIT_LIST_HEAD(&list);
	cds_list_splice(&t->frames, &list);
	CDS_INIT_LIST_HEAD(&t->frames);
	cds_list_for_each_entry_safe (f, next, &list, node) {
		cds_list_del(&f->node);
		buf_put(f->buf);
		peer_frame_done(&t->c, f->len);
		free(f);
	}
}

struct tcall *tpull(struct node *n, uint64_t size, uint32_t chunk, bool keep)
{
	struct tcall *t = tcall(n, PEER_PULL);

	t->c.frame = tframe;
	t->c.req.off = chunk;
	t->c.req.len = size;
	t->keep = keep;
	return t;
}

void submit(struct tcall *t, unsigned to)
{
	uint32_t *crc = (uint32_t *)t->c.crc;

	peer_submit(&t->node->sh, &t->node->rig->inc[to], &t->c);
	assert_int_equal(t->done, 0); /* never from inside */
	if (crc) {
		memset(crc, 0xee, 4 * (size_t)t->c.crc_nr);
		free(crc);
	}
	if (t->c.req.op == PEER_WRITE && t->c.data) {
		struct buf *b = t->c.data;
		assert_true(b->refs > 1);
		buf_put(b); /* the call has its own */
	}
}

void await(struct tcall *t)
{
	rig_until(t->node->rig, &t->done, 1);
}

void tfree(struct tcall *t)
{
	assert_int_equal(t->done, 1);
	give_back(t);
	if (t->c.req.op == PEER_READ || t->c.req.op == PEER_FORWARD)
		buf_put(t->c.reply_buf);
	free(t);
}

/* ---- raw peers ---- */

static void raw_event(struct env_sock *sock, unsigned events, void *arg)
{
	struct raw *w = arg;

	w->up = true;
	while (!w->eof) {
		struct iovec v = {w->buf + w->len, sizeof(w->buf) - w->len};
		if (!v.iov_len)
			return;
		ssize_t n = env_recv(sock, &v, 1);
		if (n == -EAGAIN)
			return;
		if (n <= 0)
			w->eof = true;
		else
			w->len += n;
	}
}

void raw_open(struct rig *r, struct raw *w, unsigned to)
{
	memset(w, 0, sizeof(*w));
	assert_int_equal(env_connect(r->env, &r->addr[to], raw_event, w, &w->sock), 0);
	while (!w->up)
		env_linux_turn(r->env, 10);
}

void raw_hello_of(struct rig *r, unsigned as, unsigned to, unsigned ch, uint32_t conn_nr,
		  struct peer_hello *h)
{
	*h = (struct peer_hello){.version = PEER_PROTO_VERSION,
				 .conn_nr = conn_nr,
				 .channel = ch,
				 .cluster_ctime = CTIME,
				 .from_start = r->inc[as].start,
				 .to_start = r->inc[to].start};
	memcpy(h->from_uuid, r->inc[as].uuid, 16);
	memcpy(h->to_uuid, r->inc[to].uuid, 16);
}

void raw_send(struct rig *r, struct raw *w, const void *data, size_t len)
{
	const uint8_t *b = data;

	while (len && !w->eof) {
		struct iovec v = {(void *)b, len};
		ssize_t n = env_send(w->sock, &v, 1);
		if (n == -EAGAIN) {
			env_linux_turn(r->env, 1);
			continue;
		}
		if (n < 0)
			return; /* closed by the other side */
		b += n;
		len -= n;
	}
}

uint32_t raw_hello(struct rig *r, struct raw *w, const struct peer_hello *h)
{
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER,
			     .opcode = SD_OP_PEER_HELLO,
			     .flags = SD_FLAG_WRITE,
			     .id = 77,
			     .epoch = 3,
			     .data_length = sizeof(*h)};
	struct sd_rsp rsp;

	raw_send(r, w, &req, sizeof(req));
	raw_send(r, w, h, sizeof(*h));
	for (unsigned i = 0; i < 1000 && w->len < sizeof(rsp); i++)
		env_linux_turn(r->env, 1);
	assert_int_equal(w->len, sizeof(rsp));
	memcpy(&rsp, w->buf, sizeof(rsp));
	assert_int_equal(rsp.opcode, SD_OP_PEER_HELLO);
	assert_int_equal(rsp.id, 77);
	w->len = 0;
	return rsp.result;
}

void hello_ok(struct rig *r, struct raw *w, unsigned as, uint32_t conn_nr)
{
	struct peer_hello h;

	raw_open(r, w, 0);
	raw_hello_of(r, as, 0, PEER_CH_DATA, conn_nr, &h);
	assert_int_equal(raw_hello(r, w, &h), SD_RES_SUCCESS);
}

void raw_write(struct rig *r, struct raw *w, uint64_t oid, uint64_t seq, size_t len)
{
	struct peer_hdr h = {.magic = PEER_MAGIC,
			     .op = PEER_WRITE,
			     .id = 100 + seq,
			     .oid = oid,
			     .prev_seq = seq,
			     .crc_nr = 1,
			     .data_len = len};
	uint8_t *b = malloc(len);

	assert_true(len <= SD_BLOCK_SIZE);
	fill(b, len, seq);
	uint32_t crc = crc32c(b, len);
	raw_send(r, w, &h, sizeof(h));
	raw_send(r, w, &crc, sizeof(crc));
	raw_send(r, w, b, len);
	free(b);
}

void raw_until_eof(struct rig *r, struct raw *w)
{
	for (unsigned i = 0; i < 3000 && !w->eof; i++)
		env_linux_turn(r->env, 1);
	assert_true(w->eof);
}

void raw_close(struct raw *w)
{
	env_sock_close(w->sock, false);
	w->sock = NULL;
}

/* ---- looking inside ---- */

static struct peer *record(struct node *n, unsigned nr)
{
	struct peer *peer;

	cds_list_for_each_entry (peer, &n->sh.peers->list, node)
		if (peer_inc_eq(&peer->inc, &n->rig->inc[nr]))
			return peer;
	return NULL;
}

struct peer_chan *chan_of(struct node *n, unsigned to, unsigned ch)
{
	struct peer *peer = record(n, to);

	return peer ? peer->chan[ch] : NULL;
}

struct peer_conn *in_of(struct node *n, unsigned from, unsigned ch)
{
	struct peer *peer = record(n, from);

	return peer ? peer->in[ch] : NULL;
}
