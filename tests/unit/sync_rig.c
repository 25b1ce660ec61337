/* sync_rig.c - see sync_rig.h. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "lib/base/crc.h"
#include "tests/unit/sync_rig.h"
#include "tests/unit/sync_store.h"

#define STREAM_MAX (1u << 20)

unsigned rig_copies = 2;

/* ---- running ---- */

static void turn(struct rig *r)
{
	env_linux_turn(r->env, 1);
}

void rig_until(struct rig *r, const bool *flag)
{
	uint64_t until = env_now(r->env) + 10000000000ull;

	while (!*flag) {
		turn(r);
		if (env_now(r->env) > until)
			fail_msg("nothing happens");
	}
}

void rig_ms(struct rig *r, unsigned ms)
{
	uint64_t until = env_now(r->env) + ms * 1000000ull;

	while (env_now(r->env) < until)
		turn(r);
}

struct run {
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void run_co(void *arg)
{
	struct run *run = arg;

	run->fn(run->arg);
	run->done = true;
}

void rig_run(struct rig *r, void (*fn)(void *arg), void *arg)
{
	struct run run = {fn, arg, false};

	assert_non_null(co_start(r->sched, run_co, &run, "test"));
	rig_until(r, &run.done);
}

/* ---- the cluster ---- */

struct view *view_get(struct view *v)
{
	v->refs++;
	return v;
}

void view_put(struct view *v)
{
	if (!v || --v->refs)
		return;
	ring_free(v->ring);
	free(v->members);
	free(v);
}

int view_find(const struct view *v, const struct incarnation *inc)
{
	for (unsigned i = 0; i < v->nr; i++)
		if (v->members[i].inc.start == inc->start &&
		    memcmp(v->members[i].inc.uuid, inc->uuid, sizeof(inc->uuid)) == 0)
			return (int)i;
	return -1;
}

static void node_uuid(unsigned n, uint8_t uuid[16])
{
	memset(uuid, 'a' + (int)n, 16);
}

struct view *rig_view(struct rig *r, uint32_t epoch, int self)
{
	const struct rig_epoch *e = &r->epoch[epoch];
	struct ring_node rn[RIG_NODES];
	struct view *v = calloc(1, sizeof(*v));

	if (!epoch || epoch > r->nr_epochs) {
		free(v);
		return NULL;
	}
	v->refs = 1;
	v->epoch = epoch;
	v->forced = e->forced;
	v->self = -1;
	memcpy(v->name, e->name, sizeof(v->name));
	v->members = calloc(RIG_NODES, sizeof(*v->members));
	for (unsigned i = 0; i < RIG_NODES; i++) {
		if (!(e->mask & M(i)))
			continue;
		struct member *m = &v->members[v->nr];
		node_uuid(i, m->inc.uuid);
		m->inc.start = e->start[i];
		m->nr_vnodes = 64;
		m->zone = i;
		m->addr = (struct net_addr){.family = AF_INET, .port = (uint16_t)(7000 + i)};
		m->given_up = r->node[i].given_up;
		m->common_epoch = r->node[i].common_epoch;
		rn[v->nr] = (struct ring_node){.port = m->addr.port, .nr_vnodes = 64, .zone = i};
		if ((int)i == self)
			v->self = (int)v->nr;
		v->nr++;
	}
	v->ring = ring_new(rn, v->nr);
	return v;
}

struct view *cluster_history(struct cluster *c, uint32_t epoch)
{
	return rig_view(c->n->rig, epoch, -1);
}

const struct vdi *cluster_vdi(const struct cluster *c, uint32_t vid)
{
	return vid && c->n->rig->vdi.vid == vid ? &c->n->rig->vdi : NULL;
}

const struct vdi *cluster_vdi_next(const struct cluster *c, uint32_t after)
{
	return after ? NULL : cluster_vdi(c, 1);
}

/* What the recovery says on the bus: applied at once. */
int cluster_do(struct cluster *c, struct cmd *cmd)
{
	struct rig *r = c->n->rig;

	assert(cmd->type == CMD_CACHE_LOST && cmd->on && cmd->vid == r->vdi.vid);
	co_yield ();
	if (r->lost_fails) {
		r->lost_fails--;
		return -ENOTCONN;
	}
	r->nr_lost++;
	r->vdi.cache_lost = true;
	cmd->result = SD_RES_SUCCESS;
	return 0;
}

const struct cluster_params *cluster_params(const struct cluster *c)
{
	return &c->n->rig->params;
}

void sheep_exit(struct sheep *sh, int status, const char *why)
{
	struct node *n = caa_container_of(sh, struct node, sh);

	n->exited = true;
}

/* ---- the network ---- */

enum wire_state { REQ_HELD, RUNNING, RSP_HELD, LOST };

struct wire {
	struct cds_list_head node;
	struct rig *r;
	unsigned from, to;
	struct incarnation from_inc, to_inc;
	struct peer_call *orig; /* NULL: nobody waits */
	struct peer_call call;
	enum wire_state state;
	uint32_t *crc;
	struct env_defer defer;
	int error;
};

static struct node *node_of(struct rig *r, const struct incarnation *inc)
{
	for (unsigned i = 0; i < RIG_NODES; i++) {
		struct node *n = &r->node[i];
		if (n->up && n->sh.self.inc.start == inc->start &&
		    memcmp(n->sh.self.inc.uuid, inc->uuid, sizeof(inc->uuid)) == 0)
			return n;
	}
	return NULL;
}

static void wire_free(struct wire *w)
{
	cds_list_del(&w->node);
	env_defer_del(w->r->env, &w->defer);
	buf_put(w->call.data);
	buf_put(w->call.reply_buf);
	free(w->crc);
	free(w);
}

/* done() comes from here only: never from inside of a submit. */
static void wire_end(struct env_defer *d)
{
	struct wire *w = caa_container_of(d, struct wire, defer);
	struct peer_call *o = w->orig, *c = &w->call;

	if (o) {
		o->error = w->error;
		o->rsp = c->rsp;
		if (!o->error && c->rsp.result == SD_RES_OLD_NODE_VER)
			o->error = -ESTALE;
		if (!o->error && w->from != w->to && c->reply_len) {
			assert(c->reply_len <= o->reply_cap);
			memcpy((uint8_t *)o->reply_buf->data + o->reply_off,
			       (uint8_t *)c->reply_buf->data + c->reply_off, c->reply_len);
		}
		o->reply_len = c->reply_len;
		o->chan = NULL;
		o->done(o);
	}
	wire_free(w);
}

static void wire_finish(struct wire *w, int error)
{
	w->error = error;
	w->state = LOST;
	w->defer.fn = wire_end;
	env_defer(w->r->env, &w->defer);
}

static void wire_run(void *arg)
{
	struct wire *w = arg;
	struct rig *r = w->r;
	struct node *n = &r->node[w->to];

	replica_handle(&n->sh, &w->from_inc, &w->call);
	n->nr_handlers--;
	co_cond_broadcast(&r->moved);
	if (w->call.error == -ECANCELED) {
		w->state = LOST; /* until the sender sees the member leave */
		if (!w->orig)
			wire_finish(w, -ENOTCONN);
		return;
	}
	w->state = RSP_HELD;
	if (!r->hold_rsp[w->from][w->to][w->call.req.op])
		wire_finish(w, w->call.error);
}

static void wire_deliver(struct wire *w)
{
	struct rig *r = w->r;
	struct node *n = node_of(r, &w->to_inc);

	if (!n || r->hold_req[w->from][w->to][w->call.req.op])
		return;
	w->state = RUNNING;
	n->nr_handlers++;
	assert(co_enter(r->sched, wire_run, w, "handler"));
}

static void wire_first(struct env_defer *d)
{
	struct wire *w = caa_container_of(d, struct wire, defer);

	wire_deliver(w);
}

void peer_submit(struct sheep *sh, const struct incarnation *to, struct peer_call *c)
{
	struct node *n = caa_container_of(sh, struct node, sh);
	struct rig *r = n->rig;
	struct wire *w = calloc(1, sizeof(*w));

	w->r = r;
	w->from = n->idx;
	w->from_inc = sh->self.inc;
	w->to_inc = *to;
	w->to = (unsigned)(to->uuid[0] - 'a');
	w->orig = c;
	w->call.req = c->req;
	w->call.data = c->data ? buf_get(c->data) : NULL;
	w->call.data_off = c->data_off;
	w->call.data_len = c->data_len;
	w->call.crc_nr = c->crc_nr;
	if (c->crc_nr) {
		w->crc = malloc(c->crc_nr * sizeof(*w->crc));
		memcpy(w->crc, c->crc, c->crc_nr * sizeof(*w->crc));
		w->call.crc = w->crc;
	}
	if (w->from == w->to) {
		w->call.reply_buf = c->reply_buf ? buf_get(c->reply_buf) : NULL;
		w->call.reply_off = c->reply_off;
		w->call.reply_cap = c->reply_cap;
	}
	c->chan = w;
	c->sheep = sh;
	r->sent[c->req.op]++;
	cds_list_add_tail(&w->node, &r->wires);
	w->defer.fn = wire_first;
	env_defer(r->env, &w->defer);
}

int peer_stream(struct peer_call *c, const struct peer_hdr *h, struct buf *data, size_t off,
		size_t len)
{
	struct wire *w = caa_container_of(c, struct wire, call);
	struct rig *r = w->r;

	while (w->orig &&
	       (r->hold_rsp[w->from][w->to][PEER_PULL] || w->orig->stream_held > STREAM_MAX))
		co_cond_wait(&r->moved, "stream");
	if (!w->orig || c->voided)
		return -ECANCELED;
	struct buf *b = buf_new(r->pool, len);
	memcpy(b->data, (uint8_t *)data->data + off, len);
	w->orig->stream_held += len;
	w->orig->frame(w->orig, h, b);
	return 0;
}

void peer_frame_done(struct peer_call *c, size_t len)
{
	struct node *n = caa_container_of(c->sheep, struct node, sh);

	assert(c->stream_held >= len);
	c->stream_held -= len;
	co_cond_broadcast(&n->rig->moved);
}

/* What is held and need not be any more goes on, in order. */
static void wires_move(struct rig *r)
{
	struct wire *w, *next;

	cds_list_for_each_entry_safe (w, next, &r->wires, node) {
		if (w->state == REQ_HELD)
			wire_deliver(w);
		else if (w->state == RSP_HELD && !r->hold_rsp[w->from][w->to][w->call.req.op])
			wire_finish(w, w->call.error);
	}
	co_cond_broadcast(&r->moved);
}

void rig_hold(struct rig *r, bool on, bool rsp, unsigned from, unsigned to, enum peer_op op)
{
	(rsp ? r->hold_rsp : r->hold_req)[from][to][op] = on;
	if (!on)
		wires_move(r);
}

void rig_hold_all(struct rig *r, bool on, bool rsp, unsigned to, enum peer_op op)
{
	for (unsigned i = 0; i < RIG_NODES; i++)
		rig_hold(r, on, rsp, i, to, op);
}

void rig_void(struct rig *r, unsigned from, unsigned to)
{
	struct wire *w;

	cds_list_for_each_entry (w, &r->wires, node)
		if (w->from == from && w->to == to && w->state <= RUNNING)
			w->call.voided = true;
	replica_kick(&r->node[to].sh);
}

/* The sender knows that the member is gone. */
static void wires_left(struct rig *r, unsigned from, const struct view *v)
{
	struct wire *w, *next;

	cds_list_for_each_entry_safe (w, next, &r->wires, node) {
		if (w->from != from || !w->orig || (v && view_find(v, &w->to_inc) >= 0))
			continue;
		struct peer_call *o = w->orig;
		w->orig = NULL;
		w->call.voided = true;
		if (w->state != RUNNING)
			wire_finish(w, -ENOTCONN);
		o->error = -ENOTCONN;
		o->done(o);
	}
	for (unsigned i = 0; i < RIG_NODES; i++)
		if (r->node[i].up)
			replica_kick(&r->node[i].sh);
	co_cond_broadcast(&r->moved);
}

/* ---- nodes ---- */

static void start_co(void *arg)
{
	struct node *n = arg;
	struct sheep *sh = &n->sh;

	assert(store_open(sh->sched, sh->env, &n->conf.store, &sh->store, NULL) == 0);
	assert(replica_init(sh) == 0);
	assert(sync_init(sh) == 0);
}

void rig_start(struct rig *r, unsigned i)
{
	struct node *n = &r->node[i];

	assert(!n->up);
	memset(&n->sh, 0, sizeof(n->sh));
	n->rig = r;
	n->idx = i;
	n->exited = false;
	snprintf(n->dir, sizeof(n->dir), "%s/%c", r->dir, 'a' + (int)i);
	mkdir(n->dir, 0700);
	n->conf.store.dir = n->dir;
	n->conf.store.nosync = true;
	n->conf.store.journal_size = STORE_JOURNAL_SIZE_MIN;
	n->cluster.n = n;
	n->sh.conf = &n->conf;
	n->sh.env = r->env;
	n->sh.sched = r->sched;
	n->sh.pool = buf_pool_new(1 << 20);
	n->sh.cluster = &n->cluster;
	rig_run(r, start_co, n);
	node_uuid(i, n->sh.self.inc.uuid);
	n->sh.self.inc.start = store_ident(n->sh.store)->start;
	n->up = true;
}

static void crash_co(void *arg)
{
	struct node *n = arg;
	struct rig *r = n->rig;

	sync_stop(&n->sh);
	wires_left(r, n->idx, NULL);
	while (n->nr_handlers)
		co_cond_wait(&r->moved, "handlers");
}

static void close_co(void *arg)
{
	struct node *n = arg;

	sync_done(&n->sh);
	replica_done(&n->sh);
	store_close(n->sh.store);
}

void rig_crash(struct rig *r, unsigned i)
{
	struct node *n = &r->node[i];
	struct wire *w;

	n->up = false;
	cds_list_for_each_entry (w, &r->wires, node)
		if (w->to == i && w->state == RUNNING)
			w->call.voided = true;
	replica_kick(&n->sh);
	rig_run(r, crash_co, n);
	rig_ms(r, 2); /* deferred ends */
	rig_run(r, close_co, n);
	view_put(n->view);
	n->view = NULL;
	buf_pool_free(n->sh.pool);
}

static void format_co(void *arg)
{
	struct node *n = arg;

	assert(store_format(n->sh.store) == 0);
	assert(sync_format(&n->sh) == 0);
}

void rig_format(struct rig *r, unsigned n)
{
	rig_run(r, format_co, &r->node[n]);
}

uint32_t rig_epoch(struct rig *r, unsigned mask)
{
	struct rig_epoch *e = &r->epoch[++r->nr_epochs];

	assert(r->nr_epochs <= RIG_EPOCHS);
	*e = (struct rig_epoch){.mask = mask};
	memset(e->name, (int)r->nr_epochs + r->branch, sizeof(e->name));
	for (unsigned i = 0; i < RIG_NODES; i++)
		e->start[i] = r->node[i].sh.self.inc.start;
	return r->nr_epochs;
}

struct apply {
	struct node *n;
	struct view *v;
	bool clean;
	int result;
};

static void apply_co(void *arg)
{
	struct apply *a = arg;

	wires_left(a->n->rig, a->n->idx, a->v);
	a->result = sync_view(&a->n->sh, a->n->view, a->v, a->clean);
}

int rig_apply_clean(struct rig *r, unsigned i, uint32_t epoch, bool clean)
{
	struct node *n = &r->node[i];
	struct apply a = {n, rig_view(r, epoch, (int)i), clean, 0};

	rig_run(r, apply_co, &a);
	view_put(n->view);
	n->view = a.v;
	return a.result;
}

void rig_apply(struct rig *r, unsigned n, uint32_t epoch)
{
	assert_int_equal(rig_apply_clean(r, n, epoch, false), 0);
}

uint32_t rig_step(struct rig *r, unsigned mask)
{
	uint32_t e = rig_epoch(r, mask);

	for (unsigned i = 0; i < RIG_NODES; i++)
		if (mask & M(i))
			rig_apply(r, i, e);
	return e;
}

void rig_boot(struct rig *r, unsigned mask)
{
	for (unsigned i = 0; i < RIG_NODES; i++)
		if (mask & M(i)) {
			rig_start(r, i);
			rig_format(r, i);
		}
	rig_step(r, mask); /* no VDI yet: all is in sync at once */
	r->vdi.vid = 1;
	r->vdi.copies = (uint8_t)rig_copies;
}

void rig_rest(struct rig *r, unsigned mask)
{
	uint64_t until = env_now(r->env) + 10000000000ull;

	for (unsigned i = 0; i < RIG_NODES; i++)
		while ((mask & M(i)) && !sync_at_rest(&r->node[i].sh)) {
			turn(r);
			if (env_now(r->env) > until)
				fail_msg("node %c does not come to rest", 'A' + (int)i);
		}
}

int rig_setup(void **state)
{
	struct env_linux_conf conf = {.nr_workers = 2, .aio_depth = 128};
	struct rig *r = calloc(1, sizeof(*r));

	assert_int_equal(env_linux_new(&conf, &r->env), 0);
	r->sched = co_sched_new(r->env, 4096);
	r->pool = buf_pool_new(1 << 20);
	CDS_INIT_LIST_HEAD(&r->wires);
	co_cond_init(&r->moved);
	snprintf(r->dir, sizeof(r->dir), "/tmp/test_sync.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	for (unsigned i = 0; i < RIG_NODES; i++)
		r->node[i].idx = i;
	rig_copies = 2;
	*state = r;
	return 0;
}

int rig_teardown(void **state)
{
	struct rig *r = *state;
	struct wire *w, *next;
	char cmd[64];

	memset(r->hold_req, 0, sizeof(r->hold_req));
	memset(r->hold_rsp, 0, sizeof(r->hold_rsp));
	wires_move(r);
	for (unsigned i = 0; i < RIG_NODES; i++)
		if (r->node[i].up)
			rig_crash(r, i);
	rig_ms(r, 5);
	cds_list_for_each_entry_safe (w, next, &r->wires, node)
		wire_free(w);
	assert_int_equal(co_sched_nr(r->sched), 0);
	co_sched_free(r->sched);
	buf_pool_free(r->pool);
	env_linux_free(r->env);
	mem_forget_all();
	snprintf(cmd, sizeof(cmd), "rm -rf %s", r->dir);
	assert_int_equal(system(cmd), 0);
	free(r);
	return 0;
}

uint64_t rig_oid(struct rig *r, unsigned k)
{
	struct ring_node rn[RIG_NODES];
	uint32_t at[RIG_NODES];

	for (unsigned i = 0; i < RIG_NODES; i++)
		rn[i] = (struct ring_node){.port = (uint16_t)(7000 + i),
					   .nr_vnodes = 64,
					   .zone = i};
	struct ring *ring = ring_new(rn, RIG_NODES);
	uint64_t oid = SD_DATA_OID(1, 0);
	for (;; oid++) {
		ring_lookup(ring, sd_hash_oid(oid), RIG_NODES, at);
		if (at[0] == A && at[1] == B && at[2] == C && !k--)
			break;
	}
	ring_free(ring);
	return oid;
}

/* ---- calls ---- */

static void call_done(struct peer_call *c)
{
	struct call *k = caa_container_of(c, struct call, c);

	k->done = true;
	if (!k->r) /* nobody waits */
		call_free(k);
}

struct call *call_op(struct rig *r, unsigned from, unsigned to, uint32_t epoch, uint64_t oid,
		     enum peer_op op)
{
	struct call *k = calloc(1, sizeof(*k));

	k->r = r;
	k->c.req.op = op;
	k->c.req.epoch = epoch;
	k->c.req.oid = oid;
	k->c.req.vid = SD_OID_VID(oid);
	k->c.req.copies = (uint8_t)rig_copies;
	k->c.req.obj_size = OBJ_SIZE;
	k->c.done = call_done;
	return k;
}

void call_submit(struct call *k, unsigned from, unsigned to)
{
	struct incarnation inc = k->r->node[to].sh.self.inc;

	peer_submit(&k->r->node[from].sh, &inc, &k->c);
}

struct call *call_write(struct rig *r, unsigned from, unsigned to, uint32_t epoch, uint64_t oid,
			struct obj_ver ver, struct obj_ver prev, uint8_t fill)
{
	struct call *k = call_op(r, from, to, epoch, oid, PEER_WRITE);
	struct buf *b = buf_new(r->pool, SD_BLOCK_SIZE);
	uint32_t crc;

	memset(b->data, fill, SD_BLOCK_SIZE);
	crc = crc32c(b->data, SD_BLOCK_SIZE);
	k->c.req.ver_gen = ver.gen;
	k->c.req.ver_seq = ver.seq;
	k->c.req.prev_gen = prev.gen;
	k->c.req.prev_seq = prev.seq;
	k->c.req.len = SD_BLOCK_SIZE;
	k->c.req.flags = PEER_F_DURABLE | (prev.gen ? 0 : PEER_F_CREATE);
	k->c.data = b;
	k->c.data_len = SD_BLOCK_SIZE;
	k->c.crc = &crc;
	k->c.crc_nr = 1;
	call_submit(k, from, to);
	k->c.crc = NULL;
	buf_put(b);
	k->c.data = NULL;
	return k;
}

struct call *call_remove(struct rig *r, unsigned from, unsigned to, uint32_t epoch, uint64_t oid,
			 struct obj_ver ver, struct obj_ver prev)
{
	struct call *k = call_op(r, from, to, epoch, oid, PEER_REMOVE);

	k->c.req.ver_gen = ver.gen;
	k->c.req.ver_seq = ver.seq;
	k->c.req.prev_gen = prev.gen;
	k->c.req.prev_seq = prev.seq;
	k->c.req.flags = PEER_F_DURABLE;
	call_submit(k, from, to);
	return k;
}

struct call *call_read(struct rig *r, unsigned from, unsigned to, uint32_t epoch, uint64_t oid)
{
	struct call *k = call_op(r, from, to, epoch, oid, PEER_READ);

	k->c.req.len = SD_BLOCK_SIZE;
	k->c.reply_buf = buf_new(r->pool, SD_BLOCK_SIZE);
	k->c.reply_cap = SD_BLOCK_SIZE;
	k->got = k->c.reply_buf->data;
	call_submit(k, from, to);
	return k;
}

void call_wait(struct call *k)
{
	rig_until(k->r, &k->done);
}

void call_free(struct call *k)
{
	if (!k->done) {
		k->r = NULL;
		return;
	}
	buf_put(k->c.reply_buf);
	free(k);
}

void call_is_(struct call *k, uint32_t result)
{
	call_wait(k);
	if (k->c.error && k->c.error != -ESTALE)
		fail_msg("error %d", k->c.error);
	assert_int_equal(k->c.rsp.result, result);
	call_free(k);
}

void call_ok_(struct call *k)
{
	call_is_(k, SD_RES_SUCCESS);
}

void rig_write(struct rig *r, unsigned owner, unsigned mask, uint64_t oid, struct obj_ver ver,
	       struct obj_ver prev, uint8_t fill)
{
	struct call *k[RIG_NODES] = {0};
	uint32_t e = r->node[owner].view->epoch;

	for (unsigned i = 0; i < RIG_NODES; i++)
		if (mask & M(i))
			k[i] = call_write(r, owner, i, e, oid, ver, prev, fill);
	for (unsigned i = 0; i < RIG_NODES; i++)
		if (k[i])
			call_ok_(k[i]);
}

int rig_read(struct rig *r, unsigned n, uint64_t oid)
{
	struct call *k = call_read(r, n, n, r->node[n].view->epoch, oid);
	uint64_t until = env_now(r->env) + 100000000ull;
	int ret = -2;

	while (!k->done && env_now(r->env) < until)
		turn(r);
	if (k->done)
		ret = k->c.error			  ? -3
		      : k->c.rsp.result == SD_RES_NO_OBJ  ? -1
		      : k->c.rsp.result == SD_RES_SUCCESS ? k->got[0]
							  : -(int)k->c.rsp.result - 100;
	call_free(k);
	return ret;
}

struct obj_ver rig_ver(struct rig *r, unsigned n, uint64_t oid)
{
	struct obj_info info;

	store_lookup(r->node[n].sh.store, oid, &info);
	return info.ver;
}

bool rig_in_sync(struct rig *r, unsigned n, uint64_t oid)
{
	struct sheep *sh = &r->node[n].sh;

	return sync_is(sh, sync_epoch(sh), oid, (uint8_t)rig_copies);
}

void rig_wait_sync(struct rig *r, unsigned n, uint64_t oid)
{
	uint64_t until = env_now(r->env) + 10000000000ull;

	while (!rig_in_sync(r, n, oid)) {
		turn(r);
		if (env_now(r->env) > until)
			fail_msg("not in sync at %c", 'A' + (int)n);
	}
}
