/* oldclient.c - a client of the old protocol, as the block driver of QEMU up to 6.0 and tgt's
 * sheepdog backing store (protocol.md 3.1, 5.4, 10): no CLIENT_HELLO, one gateway, one TCP
 * connection that it opens again and again, to the same gateway, and over which it then sends
 * everything unanswered again; it keeps the inode's index itself: CREATE first, the index after it.
 *
 * Requests for one object wait for each other (as QEMU does it); those of several objects are
 * pipelined.  A flush is sent again as a write of nothing to the inode.
 */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "include/sheepdog/result.h"
#include "include/sheepdog/sheepdog.h"
#include "lib/co/co.h"
#include "tests/sim/check.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SLOTS	  32u
#define PORT	  7000u
#define INDEX_OFF SD_INODE_HEADER_SIZE

struct call { /* a request that waits for its answer: on its coroutine's stack */
	struct sd_req req;
	const void *out;
	void *in;
	struct sd_rsp rsp;
	struct co *co;
	bool done;
};

struct old {
	struct client *c;
	struct env_sock *sock;
	bool up, down; /* down: to be closed */
	bool ended;
	struct call *slot[SLOTS];
	uint32_t order[SLOTS]; /* slots in the order of their requests */
	unsigned nr_order;
	uint8_t *tx; /* what is to be sent */
	size_t tx_len, tx_cap;
	uint8_t rx[sizeof(struct sd_rsp)];
	size_t rx_len, data_len; /* of the header, of its payload */
	struct co_cond changed;
	uint32_t vid, *index;
	bool busy[OBJECTS_MAX];
	unsigned nr_ops;
};

/* ---- the connection ---- */

static void lost(struct old *o)
{
	o->up = false;
	o->down = true;
	co_cond_broadcast(&o->changed);
}

static void flush_tx(struct old *o)
{
	while (o->up && o->tx_len) {
		struct iovec iov = {o->tx, o->tx_len};
		ssize_t n = env_send(o->sock, &iov, 1);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			lost(o);
			return;
		}
		memmove(o->tx, o->tx + n, o->tx_len - (size_t)n);
		o->tx_len -= (size_t)n;
	}
}

static void push(struct old *o, const void *p, size_t len)
{
	if (!len)
		return;
	if (o->tx_len + len > o->tx_cap) {
		o->tx_cap = 2 * (o->tx_len + len);
		o->tx = realloc(o->tx, o->tx_cap);
		assert(o->tx);
	}
	memcpy(o->tx + o->tx_len, p, len);
	o->tx_len += len;
}

static void send_call(struct old *o, struct call *k)
{
	push(o, &k->req, sizeof(k->req));
	if (k->req.flags & SD_FLAG_WRITE)
		push(o, k->out, k->req.data_length);
}

/* A piece of the stream; where the rest of a payload belongs is known from the header. */
static void consume(struct old *o, const uint8_t *p, size_t n)
{
	while (n) {
		struct sd_rsp rsp;
		size_t k = sizeof(rsp) - o->rx_len;
		if (o->rx_len < sizeof(rsp)) {
			k = k < n ? k : n;
			memcpy(o->rx + o->rx_len, p, k);
			o->rx_len += k;
			p += k;
			n -= k;
			if (o->rx_len < sizeof(rsp))
				return;
		}
		memcpy(&rsp, o->rx, sizeof(rsp));
		struct call *call = rsp.id < SLOTS ? o->slot[rsp.id] : NULL;
		bool write = call && call->req.flags & SD_FLAG_WRITE;
		uint32_t want = write || rsp.result ? 0 : call ? call->req.data_length : 0;
		if (!call || call->done || rsp.data_length != want) {
			world_fail(o->c->w, "%s: an answer (%02x, id %u, %u bytes) to nothing",
				   o->c->name, rsp.opcode, rsp.id, rsp.data_length);
			lost(o);
			return;
		}
		k = want - o->data_len < n ? want - o->data_len : n;
		if (k)
			memcpy((uint8_t *)call->in + o->data_len, p, k);
		o->data_len += k;
		p += k;
		n -= k;
		if (o->data_len < want)
			return;
		call->rsp = rsp;
		call->done = true;
		co_wake(call->co);
		o->rx_len = o->data_len = 0;
	}
}

static void on_sock(struct env_sock *s, unsigned events, void *arg)
{
	struct old *o = arg;
	uint8_t buf[16 << 10];
	struct iovec iov = {buf, sizeof(buf)};

	if (events & ENV_SOCK_OUT && !o->up && !o->down) {
		o->up = true;
		co_cond_broadcast(&o->changed);
	}
	flush_tx(o);
	while (!o->down) {
		ssize_t n = env_recv(s, &iov, 1);
		if (n == -EAGAIN)
			return;
		if (n <= 0)
			lost(o);
		else
			consume(o, buf, (size_t)n);
		if (n > 0 && (size_t)n < sizeof(buf))
			return;
	}
}

static void again(struct old *o)
{
	for (unsigned i = 0; i < o->nr_order; i++) {
		struct call *k = o->slot[o->order[i]];
		if (k->done)
			continue;
		if (k->req.opcode == SD_OP_FLUSH_VDI) { /* QEMU does that */
			k->req.opcode = SD_OP_WRITE_OBJ;
			k->req.flags |= SD_FLAG_WRITE;
		}
		send_call(o, k);
	}
	flush_tx(o);
}

/* Opens the connection again whenever it is lost. */
static void connection(void *arg)
{
	struct old *o = arg;
	struct client *c = o->c;
	struct net_addr a = {
		.family = AF_INET,
		.ip = {[12] = 10, [15] = (uint8_t)(1 + c->gateway % c->shape->nr_nodes)},
		.port = PORT};

	while (!c->finished) {
		o->down = o->up = false;
		o->tx_len = o->rx_len = o->data_len = 0;
		if (env_connect(&c->p->env, &a, on_sock, o, &o->sock))
			lost(o);
		while (!o->up && !o->down)
			co_cond_wait(&o->changed, "connect");
		if (o->up)
			again(o);
		while (!o->down && !c->finished)
			co_cond_wait(&o->changed, "connection");
		env_sock_close(o->sock, c->finished);
		o->sock = NULL;
		if (!c->finished)
			co_sleep(prng_in(&c->w->rnd_work, MS, 300 * MS));
	}
	o->ended = true;
	co_cond_broadcast(&o->changed);
}

/* Send @k's request and wait for its answer, through as many connections as it takes. */
static uint32_t call(struct old *o, struct call *k)
{
	unsigned id = 0, i = 0;

	while (o->slot[id])
		id++;
	assert(id < SLOTS);
	o->slot[id] = k;
	o->order[o->nr_order++] = id;
	k->req.id = id;
	k->co = co_self();
	k->done = false;
	if (o->up) {
		send_call(o, k);
		flush_tx(o);
	}
	while (!k->done)
		co_park("answer");
	o->slot[id] = NULL;
	while (o->order[i] != id)
		i++;
	o->nr_order--;
	memmove(o->order + i, o->order + i + 1, (o->nr_order - i) * sizeof(*o->order));
	return k->rsp.result;
}

/* ---- the volume ---- */

static uint32_t object(struct old *o, uint8_t opcode, uint64_t oid, uint64_t off, const void *out,
		       void *in, uint32_t len)
{
	uint16_t cache = o->c->cached ? SD_FLAG_CACHE : SD_FLAG_DIRECT;
	struct call k = {.req = {.opcode = opcode,
				 .flags = (out ? SD_FLAG_WRITE : 0) | cache,
				 .data_length = len,
				 .obj = {.oid = oid, .offset = (uint32_t)off}},
			 .out = out,
			 .in = in};

	k.req.obj.copies = (uint8_t)o->c->shape->copies;
	return call(o, &k);
}

static bool open_vdi(struct old *o)
{
	struct client *c = o->c;
	char name[512] = "";
	struct call k = {.req = {.proto_ver = 1,
				 .opcode = SD_OP_LOCK_VDI,
				 .flags = SD_FLAG_WRITE,
				 .data_length = sizeof(name)},
			 .out = name};
	uint32_t len = (uint32_t)(INDEX_OFF + 4 * c->vol->max_objects);
	uint64_t start = c->w->now;
	uint8_t *inode = malloc(len);

	assert(inode);
	memcpy(name, c->vol->name, strlen(c->vol->name));
	uint32_t res = call(o, &k);
	if (!res) {
		o->vid = k.rsp.vdi.vdi_id;
		res = object(o, SD_OP_READ_OBJ, SD_INODE_OID(o->vid), 0, NULL, inode, len);
	}
	if (!res) {
		memcpy(o->index, inode + INDEX_OFF, 4ul * c->vol->max_objects);
		task_opened(c, start);
	} else if (client_waits(-(SD_ERR_BASE + (int)res))) {
		story(c->w, "%s > cannot open %s yet: %x", c->name, c->vol->name, res);
	} else {
		world_fail(c->w, "%s: opening of %s: %x", c->name, c->vol->name, res);
	}
	free(inode);
	return !res;
}

static uint32_t index_write(struct old *o, unsigned idx, uint32_t vid)
{
	uint32_t res = object(o, SD_OP_WRITE_OBJ, SD_INODE_OID(o->vid), INDEX_OFF + 4ull * idx,
			      &vid, NULL, sizeof(vid));

	if (!res)
		o->index[idx] = vid;
	return res;
}

/* One object's part of an operation. */
static uint32_t part(struct old *o, struct work *k, unsigned idx, uint64_t off, uint8_t *buf,
		     uint32_t len)
{
	uint64_t oid = SD_DATA_OID(o->vid, idx);
	uint32_t res = 0;

	while (o->busy[idx])
		co_cond_wait(&o->changed, "object");
	o->busy[idx] = true;
	if (k->kind == WORK_READ && !o->index[idx])
		memset(buf, 0, len);
	else if (k->kind == WORK_READ)
		res = object(o, SD_OP_READ_OBJ, oid, off, NULL, buf, len);
	else if (k->kind == WORK_DISCARD)
		res = o->index[idx] ? index_write(o, idx, 0) : 0;
	else if (o->index[idx])
		res = object(o, SD_OP_WRITE_OBJ, oid, off, buf, NULL, len);
	else if (!(res = object(o, SD_OP_CREATE_AND_WRITE_OBJ, oid, off, buf, NULL, len)))
		res = index_write(o, idx, o->vid);
	o->busy[idx] = false;
	co_cond_broadcast(&o->changed);
	return res;
}

struct op {
	struct old *o;
	struct work k;
};

static void op_co(void *arg)
{
	struct op *op = arg;
	struct old *o = op->o;
	struct work *k = &op->k;
	unsigned shift = o->c->shape->shift;
	uint64_t off = (uint64_t)k->first * SECTOR, end = off + (uint64_t)k->nr * SECTOR;
	uint8_t *buf = malloc(end - off + 1);
	uint32_t res = 0;

	assert(buf);
	if (k->kind == WORK_WRITE)
		task_stamp(k, buf);
	if (k->kind == WORK_FLUSH)
		res = object(o, SD_OP_FLUSH_VDI, SD_INODE_OID(o->vid), 0, NULL, NULL, 0);
	for (uint64_t at = off; at < end && !res;) {
		uint64_t next = ((at >> shift) + 1) << shift, to = next < end ? next : end;
		res = part(o, k, (unsigned)(at >> shift), at & ((1ull << shift) - 1),
			   buf + (at - off), (uint32_t)(to - at));
		at = to;
	}
	task_end(k, buf, res ? -(SD_ERR_BASE + (int)res) : 0);
	free(buf);
	o->nr_ops--;
	free(op);
}

static struct op *op_new(struct old *o)
{
	struct op *op = calloc(1, sizeof(*op));

	assert(op);
	op->o = o;
	return op;
}

static void op_start(struct old *o, struct op *op)
{
	o->nr_ops++;
	assert(co_start(o->c->sched, op_co, op, "old request"));
}

static void read_all(struct old *o)
{
	struct client *c = o->c;
	unsigned per_obj = (1u << c->shape->shift) / SECTOR;

	for (unsigned i = 0; i < c->vol->nr_objects && !c->w->failed; i++) {
		struct op *op = op_new(o);
		task_begin_read(c, &op->k, i * per_obj, (128u << 10) / SECTOR);
		op_start(o, op);
		while (o->nr_ops && !c->w->failed)
			co_sleep(MS);
	}
}

void old_run(struct client *c)
{
	struct prng *r = &c->w->rnd_work;
	struct old *o = calloc(1, sizeof(*o));

	assert(o && c->vol->max_objects <= OBJECTS_MAX);
	o->c = c;
	c->old = o;
	co_cond_init(&o->changed);
	o->index = calloc(c->vol->max_objects, sizeof(*o->index));
	assert(o->index && co_start(c->sched, connection, o, "old connection"));
	while (!open_vdi(o) && !c->w->failed)
		co_sleep(20 * MS);
	while (!c->stop && !c->w->failed) {
		task_mood(c);
		if (c->in_flight < c->depth && c->writes != WORK_IDLE) {
			struct op *op = op_new(o);
			task_begin(c, &op->k);
			op_start(o, op);
		}
		co_sleep(prng_in(r, 10 * US, c->in_flight < c->depth ? 2 * MS : 5 * MS));
	}
	while (o->nr_ops && !c->w->failed)
		co_sleep(MS);
	read_all(o);
	if (c->w->failed)
		return;
	c->vol->vid = o->vid;
	for (unsigned i = 0; i < c->vol->max_objects; i++)
		c->vol->refers[i] = o->index[i] == o->vid;
	struct call k = {.req = {.opcode = SD_OP_RELEASE_VDI}};
	k.req.vdi.base_vdi_id = o->vid;
	uint32_t res = call(o, &k);
	if (res)
		world_fail(c->w, "%s: release: %x", c->name, res);
	c->finished = true;
	co_cond_broadcast(&o->changed);
	while (!o->ended)
		co_cond_wait(&o->changed, "its end");
	free(o->tx);
	free(o->index);
	free(o);
	c->old = NULL;
}
