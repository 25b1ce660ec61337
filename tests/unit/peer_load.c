/* peer_load.c - test_peer, second part: streams, bounds, garbage, the end, speed. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "tests/unit/peer_rig.h"
#include "tests/unit/peer_tests.h"

#define NR(a) (sizeof(a) / sizeof((a)[0]))

/* ---- streams, sizes, bounds ---- */

void test_pull(void **state)
{
	struct rig r;
	const uint64_t size = 64u << 20;

	rig_open(&r, 2, 100);
	struct node *a = r.node[0], *b = r.node[1];
	struct tcall *p = tpull(a, size, 256u << 10, true), *q = tpull(a, size, 4096 * 3, false);
	submit(p, 1);
	rig_turns(&r, 300);
	assert_int_equal(p->done, 0);
	assert_true(p->got >= PEER_STREAM_MAX && p->got <= PEER_STREAM_MAX + PEER_FRAME_MAX);
	/* what is on the way is bounded as well: the queue, and what sockets hold */
	assert_true(b->streamed < PEER_STREAM_MAX + PEER_STREAM_QUEUE + (24u << 20));
	assert_true(in_of(b, 0, PEER_CH_CONTROL)->stream_queued <
		    PEER_STREAM_QUEUE + PEER_FRAME_MAX);
	assert_true(buf_pool_used(b->sh.pool) < 2 * PEER_STREAM_QUEUE + (1u << 20));
	p->keep = false;
	give_back(p);
	await(p);
	assert_int_equal(p->c.error, 0);
	assert_int_equal(p->got, size);
	assert_int_equal(p->c.rsp.len, size);
	assert_true(p->c.rsp.flags & PEER_F_LAST);
	tfree(p);
	/* two at once, one cut in the middle */
	q->c.req.len = q->c.req.off * 100000ull;
	p = tpull(a, 1u << 20, 64u << 10, true);
	submit(q, 1);
	submit(p, 1);
	await(p);
	assert_int_equal(p->got, 1u << 20);
	assert_true(q->got > 0);
	assert_int_equal(q->done, 0);
	conn_close(chan_of(a, 1, PEER_CH_CONTROL)->conn);
	await(q);
	assert_int_equal(q->c.error, -ENOTCONN);
	assert_true(q->got < q->c.req.len);
	tfree(q);
	assert_int_equal(p->done, 1);
	tfree(p); /* gives back behind done() */
	rig_turns(&r, 20);
	assert_int_equal(b->nr_running, 0); /* its handler has left */
	assert_int_equal(b->sh.peers->nr_reqs, 0);
	rig_close(&r);
}

void test_big(void **state)
{
	struct rig r;
	struct tcall *w[4], *rd;

	rig_open(&r, 2, 100);
	struct node *a = r.node[0], *b = r.node[1];
	for (unsigned i = 0; i < NR(w); i++) {
		w[i] = twrite(a, 0, i + 1, (40u << 20) + 123 * i);
		submit(w[i], 1);
	}
	rd = tread(a, 20u << 20);
	submit(rd, 1);
	size_t most = 0;
	while (!rd->done) {
		env_linux_turn(r.env, 10);
		struct peer_conn *in = in_of(b, 0, PEER_CH_DATA);
		if (in && in->bytes > most)
			most = in->bytes;
	}
	for (unsigned i = 0; i < NR(w); i++) {
		await(w[i]);
		assert_int_equal(w[i]->c.error, 0);
		tfree(w[i]);
	}
	assert_int_equal(rd->c.reply_len, 20u << 20);
	assert_true(filled((uint8_t *)rd->c.reply_buf->data + 100, 20u << 20, 20u << 20));
	tfree(rd);
	assert_true(most && most <= PEER_CONN_BYTES_MAX);
	assert_int_equal(b->applied[0], 4);
	/* one that alone is above the bound is taken alone */
	w[0] = twrite(a, 0, 5, (70u << 20));
	submit(w[0], 1);
	await(w[0]);
	assert_int_equal(w[0]->c.error, 0);
	tfree(w[0]);
	rig_close(&r);
}

static void submit_many(struct node *n, struct tcall **w, unsigned nr, unsigned to, uint64_t oid)
{
	for (unsigned i = 0; i < nr; i++) {
		w[i] = twrite(n, oid, i + 1, 512);
		submit(w[i], to);
	}
}

static void await_many(struct tcall **w, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		await(w[i]);
		assert_int_equal(w[i]->c.error, 0);
		tfree(w[i]);
	}
}

/* More calls than slots, connections and coroutines take: all wait, nothing is lost, order stays.
 */
void test_bounds(void **state)
{
	enum { N = 1500 };
	static struct tcall *w[3][N];
	struct rig r;

	rig_open(&r, 4, 4000);
	struct node *d = r.node[3];
	d->hold = true;
	for (unsigned i = 0; i < 3; i++)
		submit_many(r.node[i], w[i], N, 3, i);
	rig_turns(&r, 200);
	assert_int_equal(d->max_running, PEER_DATA_HANDLERS); /* of all */
	for (unsigned i = 0; i < 3; i++) {
		assert_true(in_of(d, i, PEER_CH_DATA)->nr_reqs <= PEER_CONN_REQS_MAX);
		assert_int_equal(chan_of(r.node[i], 3, PEER_CH_DATA)->nr_free, 0);
	}
	/* a full data channel does not hold up the others */
	struct tcall *t = tcall(r.node[0], PEER_FORWARD);
	struct sd_req req = {.flags = SD_FLAG_WRITE};
	memcpy(t->c.req.client, &req, sizeof(req));
	submit(t, 3);
	await(t);
	tfree(t);
	/* nor does a waiting connection that breaks */
	conn_close(in_of(d, 2, PEER_CH_DATA));
	node_release(d);
	for (unsigned i = 0; i < 3; i++) {
		await_many(w[i], N);
		assert_int_equal(d->applied[i], N);
	}
	uint64_t seq = 0;
	for (unsigned i = 0; i < d->nr_notes; i++)
		if (d->note[i].oid == 0 && d->note[i].op == PEER_WRITE)
			assert_int_equal(d->note[i].seq, ++seq);
	assert_int_equal(d->sh.peers->class[PEER_CH_DATA].nr, 0);
	rig_close(&r);
}

void test_few_coroutines(void **state)
{
	enum { N = 400 };
	struct tcall *w[2][N];
	struct rig r;

	rig_open(&r, 3, 20);
	struct node *c = r.node[2];
	c->hold = true;
	submit_many(r.node[0], w[0], N, 2, 0);
	submit_many(r.node[1], w[1], N, 2, 1);
	rig_turns(&r, 50);
	assert_int_equal(c->max_running, 20);
	node_release(c);
	await_many(w[0], N);
	await_many(w[1], N);
	assert_int_equal(c->applied[0], N);
	assert_int_equal(c->applied[1], N);
	rig_close(&r);
}

/* First come, first served: a request that needs much room is not overtaken for ever. */
void test_turns(void **state)
{
	struct peer_hdr h = {.magic = PEER_MAGIC, .op = PEER_READ, .id = 1};
	struct raw w[3];
	struct rig r;

	rig_open(&r, 1, 100);
	struct node *a = r.node[0];
	a->hold = true;
	for (unsigned i = 0; i < 3; i++) {
		hello_ok(&r, &w[i], i + 1, 1);
		h.len = i == 0 ? PEER_CLASS_BYTES_MAX - (6u << 20) : i == 1 ? 100u << 20 : 4096;
		raw_send(&r, &w[i], &h, sizeof(h));
		rig_turns(&r, 20);
		assert_int_equal(a->nr_notes, 1);
	}
	assert_int_equal(in_of(a, 2, PEER_CH_DATA)->wait, WAIT_CLASS);
	assert_int_equal(in_of(a, 3, PEER_CH_DATA)->wait, WAIT_CLASS);
	raw_close(&w[0]);
	rig_until(&r, &a->nr_notes, 3);
	assert_true(peer_inc_eq(&a->note[1].from, &r.inc[2]));
	assert_true(peer_inc_eq(&a->note[2].from, &r.inc[3]));
	raw_close(&w[1]);
	raw_close(&w[2]);
	rig_close(&r);
}

/* A peer that does not read its answers is not read from. */
void test_slow_reader(void **state)
{
	struct peer_hdr h = {.magic = PEER_MAGIC, .op = PEER_READ, .len = 64u << 10};
	struct raw w;
	struct rig r;
	unsigned before = 0;

	rig_open(&r, 1, 1000);
	struct node *a = r.node[0];
	hello_ok(&r, &w, 3, 1);
	w.len = sizeof(w.buf); /* full: its handler does nothing */
	for (h.id = 1; h.id <= 3000 && a->nr_notes - before < 3000; h.id++) {
		struct iovec v = {&h, sizeof(h)};
		if (env_send(w.sock, &v, 1) != (ssize_t)sizeof(h))
			break;
		if (h.id % 50 == 0)
			rig_turns(&r, 1);
	}
	rig_turns(&r, 50);
	struct peer_conn *in = in_of(a, 3, PEER_CH_DATA);
	assert_non_null(in);
	assert_int_equal(in->nr_reqs, PEER_CONN_REQS_MAX);
	assert_int_equal(in->wait, WAIT_SELF);
	assert_true(a->nr_notes < 3000);
	assert_int_equal(a->nr_running, 0);
	raw_close(&w);
	rig_turns(&r, 20);
	assert_int_equal(a->sh.peers->nr_reqs, 0);
	rig_close(&r);
}

/* ---- garbage ---- */

static void send_garbage(struct rig *r, unsigned what, struct raw *w)
{
	struct peer_hdr h = {
		.magic = PEER_MAGIC, .op = PEER_WRITE, .id = 1, .data_len = 4096, .crc_nr = 1};
	struct sd_req big = {.data_length = 0xf0000000u};
	uint8_t noise[3000];

	switch (what) {
	case 0: h.magic++; break;
	case 1: h.op = PEER_OP_NR; break;
	case 2: h.op = 0; break;
	case 3:
		h.op = PEER_PING;
		h.data_len = h.crc_nr = 0;
		break; /* not on this channel */
	case 4: h.data_len = 0xfffffff0u; break;
	case 5: h.crc_nr = 0x10000000u; break;
	case 6:
		h.op = PEER_READ;
		h.data_len = h.crc_nr = 0;
		h.len = UINT64_MAX;
		break;
	case 7: h.op = PEER_REMOVE; break; /* has no payload */
	case 8:
		h.op = PEER_FORWARD;
		memcpy(h.client, &big, sizeof(big));
		break;
	case 9:
		for (unsigned i = 0; i < sizeof(noise); i++)
			noise[i] = rig_random(r);
		raw_send(r, w, noise, sizeof(noise));
		return;
	}
	raw_send(r, w, &h, sizeof(h));
}

void test_garbage(void **state)
{
	struct raw w;
	struct rig r;

	rig_open(&r, 2, 100);
	struct node *a = r.node[0];
	for (unsigned i = 0; i < 10; i++) {
		hello_ok(&r, &w, 3, i + 1);
		raw_write(&r, &w, 0, i + 1, 500);
		rig_until(&r, &a->nr_notes, i + 1);
		send_garbage(&r, i, &w);
		raw_until_eof(&r, &w);
		raw_close(&w);
		assert_int_equal(rig_errors(), i + 1); /* once each */
	}
	assert_int_equal(a->applied[0], 10);
	/* half a message, then the end */
	hello_ok(&r, &w, 3, 20);
	struct peer_hdr h = {.magic = PEER_MAGIC, .op = PEER_WRITE, .data_len = 8000, .crc_nr = 2};
	raw_send(&r, &w, &h, sizeof(h));
	raw_send(&r, &w, &h, 100);
	rig_turns(&r, 5);
	raw_close(&w);
	rig_turns(&r, 5);
	assert_int_equal(a->sh.peers->nr_reqs, 0);
	assert_int_equal(buf_pool_used(a->sh.pool), 0);
	/* wrong checksums: that connection ends, the write comes again */
	a->bad_sum = true;
	struct tcall *t = twrite(r.node[1], 1, 1, 4096);
	submit(t, 0);
	await(t);
	assert_int_equal(t->c.error, 0);
	assert_int_equal(rig_errors(), 11);
	assert_true(r.node[1]->sh.peers->conn_seq > 1);
	tfree(t);
	rig_close(&r);
}

/* A peer that answers nonsense: its connections end one after the other, with back-off. */
struct liar {
	struct rig *r;
	struct env_sock *lst, *sock[200];
	unsigned nr, what;
	uint64_t id_of_first;
};

static void liar_event(struct env_sock *sock, unsigned events, void *arg)
{
	struct liar *l = arg;
	uint8_t buf[8192];
	struct iovec v = {buf, sizeof(buf)};
	struct sd_rsp rsp = {.opcode = SD_OP_PEER_HELLO};
	struct peer_hdr h;
	ssize_t n = env_recv(sock, &v, 1);

	if (n <= 0)
		return;
	struct iovec o = {&rsp, sizeof(rsp)};
	if (n >= (ssize_t)sizeof(h)) { /* the request: it has an id */
		memcpy(&h, buf, sizeof(h));
		o = (struct iovec){&h, sizeof(h)};
		h.crc_nr = h.data_len = 0;
		switch (l->what % 6) {
		case 0: h.magic = 0; break;
		case 1: h.id += PEER_CALLS_MAX; break; /* of an earlier life of the slot */
		case 2: h.id++; break;
		case 3: h.data_len = 5001; break; /* more than there is room for */
		case 4: h.op = PEER_VERSION; break;
		case 5: h.crc_nr = 1; break;
		}
		l->what++;
	}
	env_send(sock, &o, 1);
}

static void liar_accept(struct env_sock *lst, unsigned events, void *arg)
{
	struct liar *l = arg;

	while (l->nr < NR(l->sock) && env_accept(lst, liar_event, l, &l->sock[l->nr], NULL) == 0)
		l->nr++;
}

void test_liar(void **state)
{
	struct rig r;
	struct liar l = {.r = &r};

	rig_open(&r, 2, 100);
	struct node *a = r.node[0];
	env_sock_close(r.node[1]->listener, false);
	r.node[1]->listener = NULL;
	assert_int_equal(env_listen(r.env, &r.addr[1], liar_accept, &l, &l.lst), 0);
	struct tcall *t = tread(a, 5000);
	submit(t, 1);
	rig_until(&r, &l.what, 6);
	rig_turns(&r, 10);
	assert_int_equal(rig_errors(), 6);
	assert_int_equal(t->done, 0);
	unsigned nr = l.nr;
	rig_turns(&r, 300); /* by now it tries twice a second at most */
	assert_true(l.nr <= nr + 2);
	node_view(a, 1, true);
	await(t);
	assert_int_equal(t->c.error, -ENOTCONN);
	tfree(t);
	for (unsigned i = 0; i < l.nr; i++)
		env_sock_close(l.sock[i], false);
	env_sock_close(l.lst, false);
	rig_close(&r);
}

/* ---- the end ---- */

void test_stop(void **state)
{
	enum { N = 300 };
	struct tcall *w[3][N], *pl, *lp;
	struct rig r;

	rig_open(&r, 3, 1000);
	struct node *a = r.node[0], *b = r.node[1];
	a->hold = b->hold = true;
	for (unsigned i = 0; i < N; i++) {
		w[0][i] = twrite(a, 0, i + 1, 4096); /* to another */
		w[1][i] = twrite(a, 1, i + 1, 100);  /* to itself */
		w[2][i] = twrite(b, 2, i + 1, 4096); /* from another */
		submit(w[0][i], 1);
		submit(w[1][i], 0);
		submit(w[2][i], 0);
	}
	pl = tpull(a, 64u << 20, 1u << 20, true);
	lp = tpull(r.node[2], 64u << 20, 1u << 20, true); /* has us send */
	submit(pl, 2);
	submit(lp, 0);
	rig_turns(&r, 30);
	assert_true(a->nr_running > N);
	node_stop(a);
	assert_int_equal(co_sched_nr(a->sh.sched), 0);
	for (unsigned i = 0; i < N; i++)
		for (unsigned k = 0; k < 2; k++) {
			assert_int_equal(w[k][i]->done, 1);
			assert_int_equal(w[k][i]->c.error, -ENOTCONN);
			tfree(w[k][i]);
		}
	assert_int_equal(pl->done, 1);
	assert_int_equal(pl->c.error, -ENOTCONN);
	tfree(pl);
	node_close(a);
	/* the others go on asking until it has left the view */
	rig_turns(&r, 30);
	assert_int_equal(w[2][0]->done, 0);
	node_view(b, 6, true);
	node_view(r.node[2], 6, true);
	for (unsigned i = 0; i < N; i++) {
		await(w[2][i]);
		assert_int_equal(w[2][i]->c.error, -ENOTCONN);
		tfree(w[2][i]);
	}
	await(lp);
	tfree(lp);
	rig_close(&r);
}

/* ---- speed: no memory is taken per call, and a call costs microseconds ---- */

struct flood {
	struct node *n;
	struct peer_call c[32];
	uint32_t crc;
	struct buf *data;
	uint64_t seq;
	unsigned left, out;
};

static void flood_next(struct flood *f, struct peer_call *c);

static void flood_done(struct peer_call *c)
{
	struct flood *f = c->arg;

	assert_int_equal(c->error, 0);
	f->out--;
	if (f->left)
		flood_next(f, c);
}

static void flood_next(struct flood *f, struct peer_call *c)
{
	f->left--;
	f->out++;
	memset(c, 0, sizeof(*c));
	c->req = (struct peer_hdr){.op = PEER_PING + 0};
	c->req.op = PEER_WRITE;
	c->req.prev_seq = 3; /* the same contents for all: a retry, as far as the replica sees */
	c->data = f->data;
	c->data_len = 4096;
	c->crc = &f->crc;
	c->crc_nr = 1;
	c->done = flood_done;
	c->arg = f;
	peer_submit(&f->n->sh, &f->n->rig->inc[1], c);
}

void test_flood(void **state)
{
	const unsigned total = 20000;
	struct flood f = {.left = total};
	struct rig r;

	rig_open(&r, 2, 100);
	f.n = r.node[0];
	r.node[1]->applied[0] = 3;
	f.data = buf_new(f.n->sh.pool, 4096);
	fill(f.data->data, 4096, 3);
	struct tcall *first = twrite(f.n, 0, 3, 4096);
	f.crc = first->c.crc[0];
	submit(first, 1);
	await(first);
	tfree(first);
	uint64_t t = env_now(r.env);
	for (unsigned i = 0; i < NR(f.c); i++)
		flood_next(&f, &f.c[i]);
	rig_until(&r, &f.out, 0);
	t = env_now(r.env) - t;
	printf("%u writes of 4 KiB, 32 at a time, both sides: %.2f us each\n", total,
	       (double)t / total / 1000);
	assert_int_equal(f.left, 0);
	assert_true(r.node[1]->sh.peers->nr_spare_reqs <= NR(f.c) + 1);
	buf_put(f.data);
	rig_close(&r);
}
