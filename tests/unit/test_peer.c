/* test_peer.c - connections between daemons: order, resend, voiding, refusal, streams, bounds. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc.h"
#include "lib/base/util.h"
#include "tests/unit/peer_rig.h"
#include "tests/unit/peer_tests.h"

#define NR(a) (sizeof(a) / sizeof((a)[0]))

static const unsigned all_members = (1u << RIG_NODES) - 1;

/* ---- order, contents, counters ---- */

static void test_order(void **state)
{
	enum { N = 600 };
	struct tcall *w[N], *rd[N / 10];
	struct rig r;
	uint64_t bytes = 0;

	rig_open(&r, 2, 1000);
	struct node *a = r.node[0], *b = r.node[1];
	for (unsigned i = 0; i < N; i++) {
		/* mostly alike, so that payloads are guessed; then all sizes */
		size_t len = i % 7 == 6 || i > N / 2 ? rig_random(&r) % 20000 : 4096;
		if (i % 97 == 0)
			len = 300000;
		w[i] = twrite(a, 0, i + 1, len);
		bytes += len;
		submit(w[i], 1);
		if (i % 10 == 0) {
			rd[i / 10] = tread(a, 1 + rig_random(&r) % 9000);
			submit(rd[i / 10], 1);
		}
		if (i % 32 == 31)
			env_linux_turn(r.env, 0);
	}
	for (unsigned i = 0; i < N; i++) {
		await(w[i]);
		assert_int_equal(w[i]->c.error, 0);
		assert_int_equal(w[i]->c.rsp.result, SD_RES_SUCCESS);
		tfree(w[i]);
	}
	for (unsigned i = 0; i < N / 10; i++) {
		await(rd[i]);
		struct peer_call *c = &rd[i]->c;
		assert_int_equal(c->error, 0);
		assert_int_equal(c->reply_len, c->req.len);
		assert_true(filled((uint8_t *)c->reply_buf->data + 100, c->req.len, c->req.len));
		tfree(rd[i]);
	}
	assert_int_equal(b->applied[0], N);
	uint64_t seq = 0;
	for (unsigned i = 0; i < b->nr_notes; i++)
		if (b->note[i].op == PEER_WRITE)
			assert_int_equal(b->note[i].seq, ++seq);
	assert_int_equal(b->nr_notes, N + N / 10);
	assert_int_equal(b->sh.stat.peer_total, N + N / 10);
	assert_int_equal(b->sh.stat.peer_active, 0);
	assert_int_equal(b->sh.stat.peer_rx, bytes);
	assert_true(b->sh.stat.peer_tx > 0);
	assert_int_equal(b->sh.peers->conn_seq, 0); /* it opened none */
	assert_int_equal(a->sh.peers->conn_seq, 1);
	assert_int_equal(rig_errors(), 0);
	rig_close(&r);
}

/* Each operation on its channel; forwarded requests go to the gateway. */
static void test_channels(void **state)
{
	static const enum peer_op op[] = {PEER_REMOVE,	   PEER_VERSION,    PEER_SETTLE,
					  PEER_SYNC_QUERY, PEER_SYNC_LIST,  PEER_VID_LIST,
					  PEER_FLUSH,	   PEER_DROP_CHECK, PEER_PING,
					  PEER_TORN,	   PEER_TORN_AS};
	struct rig r;
	struct sd_req req = {.opcode = SD_OP_READ_OBJ, .data_length = 5000};

	rig_open(&r, 2, 100);
	struct node *a = r.node[0];
	for (unsigned i = 0; i < NR(op); i++) {
		struct tcall *t = tcall(a, op[i]);
		submit(t, 1);
		await(t);
		assert_int_equal(t->c.error, 0);
		assert_int_equal(t->c.rsp.op, op[i]);
		tfree(t);
		assert_int_equal(peer_channel_of(op[i]), i < 3 ? PEER_CH_DATA : PEER_CH_CONTROL);
	}
	assert_non_null(chan_of(a, 1, PEER_CH_DATA));
	assert_non_null(chan_of(a, 1, PEER_CH_CONTROL));
	assert_null(chan_of(a, 1, PEER_CH_FORWARD));
	struct tcall *t = tcall(a, PEER_FORWARD);
	memcpy(t->c.req.client, &req, sizeof(req));
	t->c.reply_buf = buf_new(a->sh.pool, 5000);
	t->c.reply_cap = 5000;
	submit(t, 1);
	await(t);
	assert_int_equal(r.node[1]->nr_forwarded, 1);
	assert_int_equal(r.node[1]->nr_torn, 1);
	assert_int_equal(t->c.reply_len, 5000);
	assert_true(filled(t->c.reply_buf->data, 5000, 9));
	tfree(t);
	/* an older epoch is an error of its own */
	r.node[1]->old = true;
	t = tcall(a, PEER_VERSION);
	submit(t, 1);
	await(t);
	assert_int_equal(t->c.error, -ESTALE);
	assert_int_equal(t->c.rsp.epoch, r.node[1]->cl.view.epoch);
	tfree(t);
	rig_close(&r);
}

static void test_local(void **state)
{
	enum { N = 700 }; /* more than there are coroutines */
	struct tcall *w[N], *rd, *pl;
	struct rig r;

	rig_open(&r, 1, 60);
	struct node *a = r.node[0];
	for (unsigned i = 0; i < N; i++) {
		w[i] = twrite(a, 0, i + 1, 1 + rig_random(&r) % 9000);
		submit(w[i], 0);
	}
	rd = tread(a, 4096);
	submit(rd, 0);
	pl = tpull(a, 32u << 20, 1u << 20, true);
	submit(pl, 0);
	await(rd);
	assert_int_equal(rd->c.reply_len, 4096);
	assert_true(filled((uint8_t *)rd->c.reply_buf->data + 100, 4096, 4096));
	tfree(rd);
	for (unsigned i = 0; i < N; i++) {
		await(w[i]);
		assert_int_equal(w[i]->c.error, 0);
		tfree(w[i]);
	}
	for (unsigned i = 0, seq = 0; i < a->nr_notes; i++)
		if (a->note[i].op == PEER_WRITE)
			assert_int_equal(a->note[i].seq, ++seq);
	rig_turns(&r, 20);
	assert_int_equal(pl->done, 0); /* nothing was given back */
	assert_true(pl->got >= PEER_STREAM_MAX && pl->got <= PEER_STREAM_MAX + PEER_FRAME_MAX);
	pl->keep = false;
	give_back(pl);
	await(pl);
	assert_int_equal(pl->c.error, 0);
	assert_int_equal(pl->got, 32u << 20);
	tfree(pl);
	assert_null(in_of(a, 0, PEER_CH_DATA)); /* no socket */
	assert_int_equal(a->sh.peers->conn_seq, 0);
	/* stopped with nothing but these */
	a->hold = true;
	for (unsigned i = 0; i < 50; i++) {
		w[i] = twrite(a, 1, i + 1, 100);
		submit(w[i], 0);
	}
	rig_turns(&r, 5);
	node_stop(a);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(w[i]->c.error, -ENOTCONN);
		tfree(w[i]);
	}
	rig_close(&r);
}

struct waiter {
	struct node *n;
	int ret[3];
	unsigned done;
};

static void wait_co(void *arg)
{
	struct waiter *w = arg;
	struct incarnation nobody = {.start = 99};

	for (unsigned i = 0; i < 3; i++) {
		struct peer_call c = {.req.op = PEER_PING};
		w->ret[i] =
			peer_call_wait(&w->n->sh, i < 2 ? &w->n->rig->inc[i] : &nobody, &c); /* ~ */
	}
	w->done = 1;
}

static void test_call_wait(void **state)
{
	struct waiter w = {0};
	struct rig r;

	rig_open(&r, 2, 100);
	w.n = r.node[0];
	assert_non_null(co_enter(w.n->sh.sched, wait_co, &w, "test"));
	rig_until(&r, &w.done, 1);
	assert_int_equal(w.ret[0], 0);
	assert_int_equal(w.ret[1], 0);
	assert_int_equal(w.ret[2], -ENOTCONN);
	rig_close(&r);
}

/* ---- pieces ---- */

static size_t add_write(uint8_t *b, uint64_t seq, size_t len)
{
	struct peer_hdr h = {.magic = PEER_MAGIC, .op = PEER_WRITE, .id = seq, .prev_seq = seq};
	uint8_t *data = b + sizeof(h) + (len ? 4 : 0);

	h.data_len = len;
	h.crc_nr = len ? 1 : 0;
	memcpy(b, &h, sizeof(h));
	fill(data, len, seq);
	if (len) {
		uint32_t crc = crc32c(data, len);
		memcpy(b + sizeof(h), &crc, sizeof(crc));
	}
	return data + len - b;
}

/* The same stream of bytes, however it is cut, and whatever payloads were guessed: most messages
 * are alike, any two of them may have another one between them; now and then all must wait. */
static void test_pieces(void **state)
{
	enum { N = 4000 };
	struct raw w;
	struct rig r;
	size_t len = 0, off = 0;
	uint8_t *b = malloc((size_t)N * 4400);

	rig_open(&r, 1, 1000);
	struct node *a = r.node[0];
	for (unsigned i = 1; i <= N; i++) {
		size_t k = i % 5 ? 2048 : rig_random(&r) % 3 ? 0 : 1 + rig_random(&r) % 4096;
		len += add_write(b + len, i, i > N / 2 && k == 2048 ? 4096 : k);
	}
	hello_ok(&r, &w, 3, 1);
	while (off < len) {
		size_t k = 1 + rig_random(&r) % (rig_random(&r) % 4 ? 9000 : 90000);
		k = k < len - off ? k : len - off;
		w.len = 0; /* the answers are not looked at */
		raw_send(&r, &w, b + off, k);
		off += k;
		env_linux_turn(r.env, 0);
		if (rig_random(&r) % 16 == 0)
			a->hold = true;
		else if (rig_random(&r) % 4 == 0)
			node_release(a);
	}
	node_release(a);
	for (unsigned i = 0; i < 2000 && a->applied[0] < N; i++) {
		w.len = 0;
		env_linux_turn(r.env, 1);
	}
	assert_int_equal(a->applied[0], N);
	assert_int_equal(a->nr_notes, N);
	assert_int_equal(a->nr_errors, 0);
	assert_int_equal(rig_errors(), 0);
	raw_close(&w);
	free(b);
	rig_close(&r);
}

/* ---- resend ---- */

/* The replica asserts for us: a write is applied only behind its predecessor, and nothing that was
 * void is. */
static void test_cut(void **state)
{
	enum { N = 1500 };
	struct tcall *w[N];
	struct rig r;
	unsigned cuts = 0;

	rig_open(&r, 2, 1000);
	struct node *a = r.node[0], *b = r.node[1];
	for (unsigned i = 0; i < N; i++) {
		w[i] = twrite(a, i % 3, i / 3 + 1, rig_random(&r) % 12000);
		submit(w[i], 1);
		b->hold_view = rig_random(&r) % 2;
		if (i % 16 == 0)
			env_linux_turn(r.env, 0);
		if (i % 200 != 199)
			continue;
		/* answered in part, received in part */
		while (!in_of(b, 0, PEER_CH_DATA))
			env_linux_turn(r.env, 1);
		for (unsigned k = rig_random(&r) % 4; k; k--)
			env_linux_turn(r.env, 0);
		if (i % 400 == 199 && chan_of(a, 1, PEER_CH_DATA)->conn)
			conn_close(chan_of(a, 1, PEER_CH_DATA)->conn);
		else if (in_of(b, 0, PEER_CH_DATA))
			conn_close(in_of(b, 0, PEER_CH_DATA));
		cuts++;
	}
	for (unsigned i = 0; i < N; i++) {
		await(w[i]);
		assert_int_equal(w[i]->c.error, 0);
		tfree(w[i]);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(b->applied[i], N / 3);
	assert_int_equal(cuts, N / 200);
	assert_true(a->sh.peers->conn_seq > 5);
	assert_true(b->nr_notes > N); /* some were sent again */
	rig_close(&r);
}

/* Held by the handlers: everything unanswered comes again, in order, and only once to an end. */
static void test_resend_all(void **state)
{
	enum { N = 200 };
	struct tcall *w[N];
	struct rig r;

	rig_open(&r, 2, 1000);
	struct node *a = r.node[0], *b = r.node[1];
	b->hold = true;
	for (unsigned i = 0; i < N; i++) {
		w[i] = twrite(a, 0, i + 1, 4096);
		submit(w[i], 1);
	}
	rig_until(&r, &b->nr_notes, N);
	b->hold_view = true; /* the void ones stay, to see that they do nothing */
	conn_close(in_of(b, 0, PEER_CH_DATA));
	rig_until(&r, &b->nr_notes, 2 * N);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(b->note[N + i].seq, i + 1);
		/* what the older connection brought was void before */
		if (i == 0)
			assert_true(b->note[N].voided_before);
	}
	assert_int_equal(b->applied[0], 0);
	node_release(b);
	for (unsigned i = 0; i < N; i++) {
		await(w[i]);
		assert_int_equal(w[i]->c.error, 0);
		tfree(w[i]);
	}
	assert_int_equal(b->applied[0], N);
	assert_int_equal(b->nr_canceled, N);
	rig_close(&r);
}

/* Nobody waits for the answer any more: it is not sent again when the connection breaks, whether it
 * was so before (0), or since (1); nor sent at all when it still waits for its turn (the last). */
static void test_unwanted(void **state)
{
	enum { N = PEER_CALLS_MAX + 2 };
	static struct tcall *t[N];
	struct rig r;

	rig_open(&r, 2, 1000);
	struct node *a = r.node[0], *b = r.node[1];
	b->hold = true;
	for (unsigned i = 0; i < N; i++) {
		t[i] = tread(a, 512);
		t[i]->c.req.oid = i % RIG_OBJS;
		submit(t[i], 1);
	}
	rig_until(&r, &b->nr_notes, PEER_CONN_REQS_MAX);
	t[0]->c.unwanted = t[N - 1]->c.unwanted = true;
	node_view(b, 2, true); /* it takes no new connection, and closes ours */
	await(t[0]);
	assert_int_equal(t[0]->c.error, -ENOTCONN);
	rig_turns(&r, 60);
	t[1]->c.unwanted = true;
	unsigned before = b->nr_notes;
	node_view(b, 3, true);
	rig_until(&r, &b->nr_notes, before + PEER_CONN_REQS_MAX);
	assert_int_equal(b->note[before].oid, 2); /* the first that is sent again */
	node_release(b);
	for (unsigned i = 1; i < N; i++) {
		await(t[i]);
		assert_int_equal(t[i]->c.error, i == 1 || i == N - 1 ? -ENOTCONN : 0);
	}
	assert_int_equal(b->nr_notes, before + N - 3);
	for (unsigned i = 0; i < N; i++)
		tfree(t[i]);
	rig_close(&r);
}

/* Nobody listens, then somebody does; not in the view over there, then in it. */
static void test_later(void **state)
{
	struct tcall *t, *u;
	struct rig r;

	rig_open(&r, 2, 100);
	struct node *a = r.node[0], *b = r.node[1];
	env_sock_close(b->listener, false);
	b->listener = NULL;
	t = twrite(a, 0, 1, 100);
	u = twrite(a, 0, 2, 100);
	submit(t, 1);
	rig_turns(&r, 60);
	submit(u, 1);
	assert_int_equal(t->done, 0);
	node_view(b, 2, true);
	node_listen(b);
	rig_turns(&r, 300);
	assert_int_equal(t->done, 0);
	assert_int_equal(b->nr_notes, 0);
	node_view(b, 3, true);
	await(t);
	await(u);
	assert_int_equal(t->c.error, 0);
	assert_int_equal(b->applied[0], 2);
	tfree(t);
	tfree(u);
	assert_int_equal(rig_errors(), 0);
	rig_close(&r);
}

/* ---- voiding (DESIGN 5.2, WHY B13) ---- */

static uint32_t hello_result(struct rig *r, const struct peer_hello *h)
{
	struct raw w;

	raw_open(r, &w, 0);
	uint32_t res = raw_hello(r, &w, h);
	if (res != SD_RES_SUCCESS)
		raw_until_eof(r, &w);
	raw_close(&w);
	return res;
}

static void test_newer_connection(void **state)
{
	struct raw one, two, ctl;
	struct peer_hello h;
	struct rig r;

	rig_open(&r, 1, 100);
	struct node *a = r.node[0];
	hello_ok(&r, &one, 3, 1);
	a->hold = true;
	for (unsigned i = 1; i <= 3; i++)
		raw_write(&r, &one, 0, i, 1000);
	rig_until(&r, &a->nr_notes, 3);
	a->hold_view = true;
	/* another channel is another connection */
	raw_open(&r, &ctl, 0);
	raw_hello_of(&r, 3, 0, PEER_CH_CONTROL, 2, &h);
	assert_int_equal(raw_hello(&r, &ctl, &h), SD_RES_SUCCESS);
	rig_turns(&r, 10);
	assert_false(one.eof);
	hello_ok(&r, &two, 3, 7);
	raw_until_eof(&r, &one);
	for (unsigned i = 0; i < 3; i++)
		assert_true(a->running[i]->voided);
	for (unsigned i = 1; i <= 3; i++)
		raw_write(&r, &two, 0, i, 1000);
	rig_until(&r, &a->nr_notes, 6);
	assert_true(a->note[3].voided_before);
	node_release(a);
	rig_turns(&r, 20);
	assert_int_equal(a->nr_canceled, 3);
	assert_int_equal(a->applied[0], 3);
	assert_int_equal(two.len, 3 * sizeof(struct peer_hdr)); /* the answers */
	assert_int_equal(one.len, 0);
	/* an older one that comes late, also when no newer one is there any more */
	raw_hello_of(&r, 3, 0, PEER_CH_DATA, 6, &h);
	assert_int_equal(hello_result(&r, &h), SD_RES_INVALID_PARMS);
	raw_close(&two);
	rig_turns(&r, 10);
	assert_null(in_of(a, 3, PEER_CH_DATA));
	assert_int_equal(hello_result(&r, &h), SD_RES_INVALID_PARMS);
	assert_false(ctl.eof);
	raw_close(&one);
	raw_close(&ctl);
	rig_close(&r);
}

static void test_newer_incarnation(void **state)
{
	struct raw one, two;
	struct peer_hello h, old;
	struct rig r;

	rig_open(&r, 1, 100);
	struct node *a = r.node[0];
	raw_hello_of(&r, 3, 0, PEER_CH_FORWARD, 50, &old);
	hello_ok(&r, &one, 3, 9);
	a->hold = true;
	raw_write(&r, &one, 0, 1, 1000);
	rig_until(&r, &a->nr_notes, 1);
	a->hold_view = true;
	r.inc[3].start++;
	node_view(a, all_members, false); /* published, the hook has not run yet */
	/* on another channel: the older one is void all the same */
	raw_open(&r, &two, 0);
	raw_hello_of(&r, 3, 0, PEER_CH_CONTROL, 1, &h);
	assert_int_equal(raw_hello(&r, &two, &h), SD_RES_SUCCESS);
	assert_true(a->running[0]->voided);
	raw_until_eof(&r, &one);
	assert_int_equal(hello_result(&r, &old), SD_RES_INVALID_PARMS);
	node_view(a, all_members, true);
	assert_int_equal(hello_result(&r, &old), SD_RES_INVALID_PARMS);
	node_release(a);
	rig_turns(&r, 10);
	assert_int_equal(a->nr_canceled, 1);
	assert_int_equal(a->applied[0], 0);
	assert_false(two.eof);
	raw_close(&one);
	raw_close(&two);
	rig_close(&r);
}

static void test_refused(void **state)
{
	struct peer_hello h;
	struct rig r;

	rig_open(&r, 1, 100);
	raw_hello_of(&r, 3, 0, PEER_CH_DATA, 1, &h);
	h.version++;
	assert_int_equal(hello_result(&r, &h), SD_RES_VER_MISMATCH);
	raw_hello_of(&r, 3, 0, PEER_CH_DATA, 1, &h);
	h.to_start--;
	assert_int_equal(hello_result(&r, &h), SD_RES_INVALID_PARMS);
	raw_hello_of(&r, 3, 0, PEER_CH_DATA, 1, &h);
	h.to_uuid[3]++;
	assert_int_equal(hello_result(&r, &h), SD_RES_INVALID_PARMS);
	raw_hello_of(&r, 3, 0, PEER_CH_DATA, 1, &h);
	h.cluster_ctime++;
	assert_int_equal(hello_result(&r, &h), SD_RES_INVALID_CTIME);
	raw_hello_of(&r, 3, 0, PEER_CH_NR, 1, &h);
	assert_int_equal(hello_result(&r, &h), SD_RES_INVALID_PARMS);
	raw_hello_of(&r, 0, 0, PEER_CH_DATA, 1, &h); /* ourselves */
	assert_int_equal(hello_result(&r, &h), SD_RES_INVALID_PARMS);
	raw_hello_of(&r, 3, 0, PEER_CH_DATA, 0, &h);
	assert_int_equal(hello_result(&r, &h), SD_RES_INVALID_PARMS);
	node_view(r.node[0], all_members & ~8u, true);
	raw_hello_of(&r, 3, 0, PEER_CH_DATA, 1, &h);
	assert_int_equal(hello_result(&r, &h), SD_RES_AGAIN);
	node_view(r.node[0], all_members, true);
	assert_int_equal(hello_result(&r, &h), SD_RES_SUCCESS);
	rig_close(&r);
}

/* ---- the view ---- */

static void test_view(void **state)
{
	struct tcall *w[40], *pl;
	struct rig r;

	rig_open(&r, 3, 1000);
	struct node *a = r.node[0], *b = r.node[1], *c = r.node[2];
	b->hold = c->hold = true;
	for (unsigned i = 0; i < NR(w); i++) {
		w[i] = twrite(a, 0, i / 2 + 1, 4096);
		submit(w[i], 1 + i % 2);
	}
	pl = tpull(a, 1u << 20, 64u << 10, true);
	submit(pl, 2);
	rig_until(&r, &b->nr_notes, 20);
	rig_until(&r, &c->nr_notes, 21);
	node_release(c);
	await(pl);
	assert_int_equal(pl->got, 1u << 20);
	for (unsigned i = 1; i < NR(w); i += 2)
		await(w[i]);
	/* frames of it stay with the caller when the other side leaves */
	node_view(a, 3, true);
	struct tcall *t = tcall(a, PEER_PING);
	submit(t, 2);
	await(t);
	assert_int_equal(t->c.error, -ENOTCONN);
	tfree(t);
	assert_int_equal(a->sh.peers->nr_chans, 2); /* one kept for the frames */
	give_back(pl);
	assert_int_equal(a->sh.peers->nr_chans, 1);
	tfree(pl);
	/* b leaves: its calls end, once, with -ENOTCONN */
	node_view(a, 1, true);
	for (unsigned i = 0; i < NR(w); i++)
		await(w[i]);
	for (unsigned i = 0; i < NR(w); i++) {
		assert_int_equal(w[i]->c.error, i % 2 ? 0 : -ENOTCONN);
		tfree(w[i]);
	}
	/* over there: what a had sent and is not queued is void */
	node_view(b, 2, true);
	assert_null(in_of(b, 0, PEER_CH_DATA));
	node_release(b);
	rig_turns(&r, 10);
	assert_int_equal(b->applied[0], 0);
	assert_int_equal(b->nr_canceled, 20);
	rig_close(&r);
}

/* ---- who does not answer ---- */

static void deaf(struct env_sock *sock, unsigned events, void *arg)
{
}

/* Node 3 is in the view and not there.  @nodes daemons; node 0 looks. */
static void probe_open(struct rig *r, unsigned nodes, unsigned mask)
{
	rig_open(r, nodes, 100);
	for (unsigned i = 0; i < nodes; i++) {
		r->node[i]->cl.probes = true;
		node_view(r->node[i], mask, true);
	}
}

static void probe_close(struct rig *r, struct tcall **t, unsigned nr)
{
	for (unsigned i = 0; i < RIG_NODES; i++)
		if (r->node[i]) {
			r->node[i]->cl.probes = false;
			node_view(r->node[i], 1u << i, true);
		}
	for (unsigned i = 0; i < nr; i++) {
		await(t[i]);
		tfree(t[i]);
	}
	rig_close(r);
}

static void test_probe(void **state)
{
	const unsigned ms = (SD_PEER_QUIET_NS + SD_PEER_SILENT_NS + 3 * SD_HEARTBEAT_NS) / 1000000;
	struct tcall *t[2];
	struct rig r;

	probe_open(&r, 2, 3 | 8); /* 0 and 1 live, 3 does not */
	struct node *a = r.node[0], *b = r.node[1];
	rig_turns(&r, 600);
	assert_null(chan_of(a, 1, PEER_CH_PROBE)); /* nothing is asked, so nobody is */
	b->hold = true;				   /* for good reasons */
	t[0] = twrite(a, 0, 1, 4096);
	submit(t[0], 1);
	t[1] = twrite(a, 0, 1, 4096);
	submit(t[1], 3);
	rig_turns(&r, SD_PEER_SILENT_NS / 1000000);
	assert_int_equal(a->cl.accused[3], 0); /* not yet */
	rig_turns(&r, ms);
	assert_true(a->cl.accused[3] > 1);
	assert_int_equal(a->cl.accused[1], 0);
	assert_null(in_of(a, 1, PEER_CH_PROBE)); /* the other has no reason to ask */
	/* which it has when somebody says so */
	b->cl.suspect = r.inc[0];
	b->cl.nr_suspects = 1;
	rig_turns(&r, 600);
	assert_non_null(in_of(a, 1, PEER_CH_PROBE));
	assert_int_equal(b->cl.accused[0], 0);
	/* a connection that is dead on the other side only is replaced */
	b->cl.nr_suspects = 0;
	struct peer_conn *in = in_of(b, 0, PEER_CH_PROBE);
	assert_non_null(in);
	uint32_t nr = a->sh.peers->conn_seq;
	env_sock_handler(in->sock, deaf, NULL);
	rig_turns(&r, ms);
	assert_int_equal(a->cl.accused[1], 0);
	assert_true(a->sh.peers->conn_seq > nr);
	assert_true(in_of(b, 0, PEER_CH_PROBE) != in);
	probe_close(&r, t, 2);
}

/* Who answers nobody accuses nobody; of two one can. */
static void test_probe_alone(void **state)
{
	const unsigned ms = (SD_PEER_QUIET_NS + SD_PEER_SILENT_NS + 3 * SD_HEARTBEAT_NS) / 1000000;
	struct tcall *t[2];
	struct rig r;

	probe_open(&r, 1, 1 | 4 | 8);
	struct node *a = r.node[0];
	for (unsigned i = 0; i < 2; i++) {
		t[i] = twrite(a, 0, 1, 4096);
		submit(t[i], 2 + i);
	}
	rig_turns(&r, ms);
	assert_int_equal(a->cl.accused[2] + a->cl.accused[3], 0);
	node_view(a, 1 | 8, true);
	rig_turns(&r, 2 * SD_HEARTBEAT_NS / 1000000);
	assert_int_equal(a->cl.accused[2], 0);
	assert_true(a->cl.accused[3] > 0);
	probe_close(&r, t, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_channels),
		cmocka_unit_test(test_local),
		cmocka_unit_test(test_call_wait),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_resend_all),
		cmocka_unit_test(test_unwanted),
		cmocka_unit_test(test_later),
		cmocka_unit_test(test_newer_connection),
		cmocka_unit_test(test_newer_incarnation),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_view),
		cmocka_unit_test(test_pull),
		cmocka_unit_test(test_big),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_few_coroutines),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_liar),
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_probe_alone),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_flood),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
