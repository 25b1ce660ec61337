/* gw_rig.c - see gw_rig.h */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/gw_rig.h"
#include "lib/base/crc.h"

/* ---- logging is not of interest ---- */

enum log_level log_get_level(const struct log *l)
{
	return LOG_L_EMERG;
}

void log_write(struct log *l, enum log_level level, const char *func, int line, const char *fmt,
	       ...)
{
}

bool store_has_room(struct store *st, uint64_t len)
{
	const struct node *n = (struct node *)st;

	return !n->full && !n->low;
}

bool sync_is(struct sheep *sh, uint32_t e, uint64_t oid, uint8_t copies)
{
	struct node *n = caa_container_of(sh, struct node, sh);

	return n->epoch == e && n->insync;
}

/* ---- the peer layer ---- */

static struct node *node_of(struct rig *r, const struct incarnation *inc)
{
	struct node *n = &r->n[inc->uuid[0]];

	return n->sh.self.inc.start == inc->start ? n : NULL;
}

static void msg_free(struct msg *m)
{
	assert(!m->timer.heap_idx);
	cds_list_del(&m->node);
	if (m->held)
		cds_list_del(&m->hnode);
	buf_put(m->h.data);
	buf_put(m->h.reply_buf);
	free(m->crc);
	free(m);
}

static void msg_at(struct msg *m, uint64_t at, void (*fn)(struct env_timer *))
{
	m->timer.fn = fn;
	rig_timer_set(&m->rig->env, &m->timer, at);
}

static void msg_replied(struct env_timer *t)
{
	struct msg *m = caa_container_of(t, struct msg, timer);
	struct peer_call *c = m->call;

	if (c && m->from->up) {
		m->call = NULL;
		c->error = m->error;
		c->rsp = m->h.rsp;
		if (m->to->late_epoch)
			c->rsp.epoch = m->to->epoch;
		c->reply_len = m->h.reply_len;
		if (!c->error && c->reply_buf && m->h.reply_buf) {
			assert(m->h.reply_len <= c->reply_cap);
			memcpy((uint8_t *)c->reply_buf->data + c->reply_off,
			       (uint8_t *)m->h.reply_buf->data + m->h.reply_off, m->h.reply_len);
		}
		c->done(c);
	}
	msg_free(m);
}

static void msg_reply(struct msg *m, int error)
{
	struct rig *r = m->rig;

	m->error = error;
	msg_at(m, r->now + 1000 * (1 + rig_rand(r, r->delay_us)), msg_replied);
}

/* ---- a replica ---- */

static struct obj_ver wver(const struct peer_hdr *h)
{
	return (struct obj_ver){h->ver_gen, h->ver_seq};
}

struct robj *rig_obj(struct rig *r, int node, uint64_t oid)
{
	return map_get(&r->n[node].objs, oid);
}

static void robj_del(struct node *n, uint64_t oid)
{
	struct robj *o = map_del(&n->objs, oid);

	if (o)
		free(o->data);
	free(o);
}

void rig_lose(struct rig *r, int node, uint64_t oid)
{
	robj_del(&r->n[node], oid);
}

static struct robj *robj_new(struct node *n, uint64_t oid, uint64_t size)
{
	struct robj *o = calloc(1, sizeof(*o));

	robj_del(n, oid);
	o->size = size;
	o->data = calloc(1, size);
	map_set(&n->objs, oid, o);
	return o;
}

static void check_crc(const struct msg *m)
{
	const struct peer_hdr *h = &m->h.req;
	const uint8_t *p = m->h.data ? (uint8_t *)m->h.data->data + m->h.data_off : NULL;
	uint64_t off = h->off, left = h->len;
	unsigned i = 0;

	assert(h->data_len == h->len && m->h.data_len == h->len);
	while (left) {
		uint64_t n = 4096 - off % 4096 < left ? 4096 - off % 4096 : left;
		assert(i < h->crc_nr && m->crc[i] == crc32c(p, n));
		i++;
		p += n;
		off += n;
		left -= n;
	}
	assert(i == h->crc_nr);
}

static void robj_apply(struct node *n, struct robj *o, const struct msg *m)
{
	const struct peer_hdr *h = &m->h.req;

	if (h->op == PEER_REMOVE) {
		n->nr_volatile += !(h->flags & PEER_F_DURABLE);
		robj_del(n, h->oid);
		return;
	}
	check_crc(m);
	assert(h->off + h->len <= h->obj_size);
	if (h->flags & PEER_F_CREATE)
		o = robj_new(n, h->oid, h->obj_size);
	assert(o && o->size == h->obj_size);
	if (h->len)
		memcpy(o->data + h->off, (uint8_t *)m->h.data->data + m->h.data_off, h->len);
	o->ver = wver(h);
	o->cached = !(h->flags & PEER_F_DURABLE); /* together with all earlier ones */
}

/* WRITE, REMOVE: false: hold it. */
static bool replica_write(struct node *n, struct msg *m)
{
	struct peer_hdr *h = &m->h.req;
	struct robj *o = map_get(&n->objs, h->oid);
	struct obj_ver mine = o ? o->ver : (struct obj_ver){0, 0};
	struct obj_ver prev = {h->prev_gen, h->prev_seq};

	n->nr_write++;
	n->last_write_epoch = h->epoch;
	if (!n->insync)
		return false;
	if (h->op == PEER_REMOVE && !o)
		return true;
	if (obj_ver_cmp(wver(h), mine) <= 0)
		return true; /* has it */
	if (obj_ver_cmp(prev, mine)) {
		m->h.rsp.result = SD_RES_AGAIN;
		return n->impatient;
	}
	if (n->full) {
		m->h.rsp.result = SD_RES_NO_SPACE;
		return true;
	}
	if (n->rotten == h->oid + 1 && h->op == PEER_WRITE && !(h->flags & PEER_F_CREATE) &&
	    h->off < 4096) {
		if (h->off || h->len < 4096) {
			m->h.rsp.result = SD_RES_EIO;
			m->h.rsp.flags = PEER_F_BAD;
			return true;
		}
		n->rotten = 0; /* a whole block heals it */
	}
	robj_apply(n, o, m);
	return true;
}

static void replica_read(struct node *n, struct msg *m)
{
	struct peer_hdr *h = &m->h.req;
	struct robj *o = map_get(&n->objs, h->oid);

	n->nr_read++;
	if (n->bad || n->lose || !o) {
		m->h.rsp.result = n->bad ? SD_RES_EIO : SD_RES_NO_OBJ;
		m->h.rsp.flags = n->bad ? PEER_F_BAD : 0;
		if (n->lose)
			robj_del(n, h->oid);
		n->lose = false;
		return;
	}
	m->h.reply_buf = buf_new(n->rig->pool, h->len);
	memset(m->h.reply_buf->data, 0, h->len);
	if (h->off < o->size)
		memcpy(m->h.reply_buf->data, o->data + h->off,
		       h->len < o->size - h->off ? h->len : o->size - h->off);
	m->h.reply_len = h->len;
	m->h.rsp.ver_gen = o->ver.gen;
	m->h.rsp.ver_seq = o->ver.seq;
}

static void robj_copy(struct node *to, struct node *from, uint64_t oid)
{
	struct robj *s = map_get(&from->objs, oid), *o;

	if (!s) {
		robj_del(to, oid);
		return;
	}
	o = robj_new(to, oid, s->size);
	memcpy(o->data, s->data, s->size);
	o->ver = s->ver;
}

static void replica_settle(struct node *n, struct msg *m)
{
	struct peer_hdr *h = &m->h.req;
	struct incarnation inc;
	struct node *from;
	struct robj *s;

	n->nr_settle++;
	memcpy(&inc, h->client, sizeof(inc));
	from = node_of(n->rig, &inc);
	s = from && from->alive ? map_get(&from->objs, h->oid) : NULL;
	if (!s || from->epoch != n->epoch || obj_ver_cmp(s->ver, wver(h)))
		m->h.rsp.result = SD_RES_EIO;
	else
		robj_copy(n, from, h->oid);
}

static void replica_version(struct node *n, struct msg *m)
{
	struct robj *o = map_get(&n->objs, m->h.req.oid);

	n->nr_version++;
	if (!o)
		return;
	m->h.rsp.ver_gen = o->ver.gen;
	m->h.rsp.ver_seq = o->ver.seq;
	m->h.rsp.obj_size = o->size;
}

static void replica_flush(struct node *n)
{
	struct robj *o;
	size_t pos = 0;

	n->nr_flush++;
	while ((o = map_next(&n->objs, &pos, NULL)))
		o->cached = false;
}

static void replica_room(struct node *n, struct msg *m)
{
	struct peer_hdr *h = &m->h.req;
	bool more = h->flags & PEER_F_CREATE || h->off + h->len > HOLE;

	n->nr_room++;
	m->h.rsp.result = n->full || (n->low && more) ? SD_RES_NO_SPACE : SD_RES_SUCCESS;
}

/* False: it must wait. */
static bool replica_do(struct node *n, struct msg *m)
{
	struct peer_hdr *h = &m->h.req;

	m->h.rsp = (struct peer_hdr){.op = h->op, .epoch = n->epoch};
	if (h->op == PEER_PING) {
		bool low = h->len && (n->full || n->low);
		m->h.rsp.result = low ? SD_RES_NO_SPACE : SD_RES_SUCCESS;
		return true;
	}
	if (h->epoch < n->epoch) {
		m->error = -ESTALE;
		return true;
	}
	if (h->epoch > n->epoch)
		return false;
	switch (h->op) {
	case PEER_WRITE:
	case PEER_REMOVE: return replica_write(n, m);
	case PEER_FLUSH: replica_flush(n); return true;
	case PEER_VID_LIST: rig_list(n, m); return true;
	}
	if (!n->insync)
		return false;
	switch (h->op) {
	case PEER_ROOM: replica_room(n, m); return true;
	case PEER_READ: replica_read(n, m); return true;
	case PEER_VERSION: replica_version(n, m); return true;
	case PEER_SETTLE: replica_settle(n, m); return true;
	}
	abort();
}

static void forward_co(void *arg)
{
	struct msg *m = arg;
	struct node *n = m->to;

	n->nr_forward++;
	gateway_forwarded(&n->sh, &m->from_inc, &m->h);
	if (!m->h.error && n->alive) /* else nothing is sent */
		msg_reply(m, 0);
}

static void msg_handle(struct msg *m)
{
	struct node *n = m->to;

	if (m->h.req.op == PEER_FORWARD) {
		assert(co_start(m->rig->sched, forward_co, m, "forwarded"));
		return;
	}
	if (replica_do(n, m)) {
		msg_reply(m, m->error);
		rig_kick(n);
		return;
	}
	m->held = true;
	cds_list_add_tail(&m->hnode, &n->held);
}

void rig_kick(struct node *n)
{
	struct msg *m, *next;
	bool again;

	do {
		again = false;
		cds_list_for_each_entry_safe (m, next, &n->held, hnode) {
			if (!replica_do(n, m))
				continue;
			cds_list_del(&m->hnode);
			m->held = false;
			msg_reply(m, m->error);
			again = true;
		}
	} while (again);
}

static void msg_arrived(struct env_timer *t)
{
	struct msg *m = caa_container_of(t, struct msg, timer);
	struct rig *r = m->rig;

	if (r->blocked[m->from->i][m->to->i] || m->to->paused)
		return; /* stays in rig.msgs: rig_unblock() */
	if (!m->to->up || m->to->sh.self.inc.start != m->to_start)
		return; /* stays unanswered until its caller sees the view */
	if (m->h.req.op == PEER_WRITE && r->dup && !rig_rand(r, r->dup))
		replica_do(m->to, m); /* sent again after a broken connection */
	m->handled = true;
	msg_handle(m);
}

void rig_unblock(struct rig *r, int from, int to)
{
	struct msg *m, *next;

	if (from >= 0)
		r->blocked[from][to] = false;
	cds_list_for_each_entry_safe (m, next, &r->msgs, node)
		if ((from < 0 || m->from->i == from) && m->to->i == to && !m->timer.heap_idx &&
		    !m->handled)
			msg_at(m, r->now + 1000, msg_arrived);
}

static void msg_failed(struct env_timer *t)
{
	struct msg *m = caa_container_of(t, struct msg, timer);

	m->error = -ENOTCONN;
	msg_replied(t);
}

void rig_break(struct rig *r, int from, int to)
{
	struct msg *m, *next;

	cds_list_for_each_entry_safe (m, next, &r->msgs, node)
		if (m->from->i == from && m->to->i == to && !m->timer.heap_idx && !m->handled &&
		    m->call && m->call->unwanted)
			msg_at(m, r->now + 1000, msg_failed);
}

void peer_submit(struct sheep *sh, const struct incarnation *to, struct peer_call *c)
{
	struct node *n = caa_container_of(sh, struct node, sh);
	struct rig *r = n->rig;
	struct msg *m = calloc(1, sizeof(*m));

	m->rig = r;
	m->from = n;
	m->from_inc = n->sh.self.inc;
	m->to = &r->n[to->uuid[0]];
	m->to_start = to->start;
	m->call = c;
	m->h.req = c->req;
	m->h.data = c->data ? buf_get(c->data) : NULL;
	m->h.data_off = c->data_off;
	m->h.data_len = c->data_len;
	if (c->crc_nr) {
		m->crc = malloc(4 * c->crc_nr);
		memcpy(m->crc, c->crc, 4 * c->crc_nr);
	}
	cds_list_add_tail(&m->node, &r->msgs);
	if (c->req.op == PEER_WRITE || c->req.op == PEER_REMOVE) /* persist before use */
		assert(c->req.ver_gen <= n->persisted_gen);
	if (view_find(n->c.view, to) < 0) {
		msg_at(m, r->now + 1000, msg_failed);
		return;
	}
	uint64_t *at = &r->link_at[n->i][m->to->i],
		 t = r->now + 1000 * (1 + rig_rand(r, r->delay_us));
	*at = t > *at ? t : *at;
	msg_at(m, *at, msg_arrived);
}

/* Calls of @n to who is not in its view end; all of them when @all. */
static void calls_end(struct node *n, bool all)
{
	struct msg *m, *next;
	struct rig *r = n->rig;

	cds_list_for_each_entry_safe (m, next, &r->msgs, node) {
		if (m->from != n || !m->call || !inc_same(&m->from_inc, &n->sh.self.inc))
			continue;
		struct incarnation to = {.uuid = {m->to->i}, .start = m->to_start};
		if (!all && view_find(n->c.view, &to) >= 0)
			continue;
		struct peer_call *c = TAKE(m->call, NULL);
		c->error = -ENOTCONN;
		c->done(c);
	}
}

/* ---- nodes and views ---- */

static struct view *view_make(struct rig *r, int self)
{
	struct view *v = calloc(1, sizeof(*v));
	struct ring_node rn[NODES] = {0};

	v->refs = 1;
	v->epoch = r->epoch;
	v->self = -1;
	v->members = calloc(NODES, sizeof(*v->members));
	for (unsigned i = 0; i < r->nr; i++) {
		struct node *n = &r->n[i];
		if (!n->alive)
			continue;
		struct member *m = &v->members[v->nr];
		m->inc = n->sh.self.inc;
		m->gateway = n->conf.gateway;
		m->zone = i;
		m->nr_vnodes = m->gateway ? 0 : 128;
		rn[v->nr].ip[15] = i + 1;
		rn[v->nr].port = 7000;
		rn[v->nr].nr_vnodes = m->nr_vnodes;
		rn[v->nr].zone = i;
		if ((int)i == self)
			v->self = v->nr;
		v->nr++;
	}
	v->ring = ring_new(rn, v->nr);
	return v;
}

static void apply_co(void *arg)
{
	struct node *n = arg;
	struct rig *r = n->rig;
	struct view *old = n->c.view;

	if (!n->up || (old && old->epoch == r->epoch))
		return;
	n->c.view = view_make(r, n->i);
	calls_end(n, false);
	n->epoch = r->epoch; /* the replica's side first: sync_view() */
	rig_kick(n);
	co_sleep(1000);
	if (n->up)
		gateway_view(&n->sh, old, n->c.view);
	view_put(old);
}

void rig_apply(struct node *n)
{
	rig_co(n->rig, apply_co, n);
}

void rig_view(struct rig *r)
{
	view_put(r->view);
	r->epoch++;
	r->view = view_make(r, -1);
	for (unsigned i = 0; i < r->nr; i++)
		if (r->n[i].alive && !r->n[i].torn_view)
			rig_apply(&r->n[i]);
}

static void stop_co(void *arg)
{
	struct node *n = arg;

	gateway_stop(&n->sh);
	n->up = false;
	calls_end(n, true);
	gateway_done(&n->sh);
}

static void held_drop(struct node *n)
{
	struct msg *m, *next;

	cds_list_for_each_entry_safe (m, next, &n->held, hnode) {
		cds_list_del(&m->hnode);
		m->held = false;
	}
}

void rig_kill(struct rig *r, int i)
{
	struct node *n = &r->n[i];

	n->alive = false;
	rig_co(r, stop_co, n);
	held_drop(n);
	view_put(TAKE(n->c.view, NULL));
}

void rig_restart(struct rig *r, int i)
{
	struct node *n = &r->n[i];

	assert(!n->alive);
	n->sh.self.inc.start++;
	n->insync = false;
	n->epoch = 0;
	n->persisted_gen = 0;
	assert(gateway_init(&n->sh) == 0);
	n->alive = n->up = true;
}

/* One that is in sync has the object; the others take it (DESIGN 5.5 (1)). */
static void recover_node(struct rig *r, struct node *n)
{
	struct node *s = NULL;
	struct robj *o;
	uint64_t oid, *del;
	size_t pos = 0, nr = 0;

	for (unsigned i = 0; i < r->nr && !s; i++)
		if (r->n[i].up && r->n[i].insync && r->n[i].epoch == r->epoch)
			s = &r->n[i];
	assert(s);
	del = calloc(n->objs.nr + 1, sizeof(*del));
	while ((o = map_next(&n->objs, &pos, &oid)))
		del[nr++] = oid;
	while (nr)
		robj_del(n, del[--nr]);
	free(del);
	for (pos = 0; (o = map_next(&s->objs, &pos, &oid));)
		robj_copy(n, s, oid);
	n->insync = true;
	rig_kick(n);
}

void rig_recover(struct rig *r)
{
	for (unsigned i = 0; i < r->nr; i++)
		if (r->n[i].up && r->n[i].epoch == r->epoch && !r->n[i].insync)
			recover_node(r, &r->n[i]);
}

struct rig *rig_new(unsigned nodes, unsigned copies)
{
	struct rig *r = calloc(1, sizeof(*r));

	r->env.ops = &rig_ops;
	r->rng = 88172645463325252ull;
	r->now = MS;
	r->nr = nodes;
	r->next_vid = 1;
	r->delay_us = 20;
	r->list_max = PEER_VID_LIST_MAX;
	r->params.copies = copies;
	r->params.shift = SHIFT;
	CDS_INIT_LIST_HEAD(&r->timers);
	CDS_INIT_LIST_HEAD(&r->defers);
	CDS_INIT_LIST_HEAD(&r->msgs);
	map_init(&r->table);
	map_init(&r->sessions);
	r->sched = co_sched_new(&r->env, 4096);
	r->pool = buf_pool_new(8 << 20);
	for (unsigned i = 0; i < nodes; i++) {
		struct node *n = &r->n[i];
		n->rig = r;
		n->i = i;
		n->sh.conf = &n->conf;
		n->sh.env = &r->env;
		n->sh.sched = r->sched;
		n->sh.pool = r->pool;
		n->sh.store = (struct store *)n;
		n->sh.cluster = &n->c;
		n->c.rig = r;
		n->c.n = n;
		n->sh.self.inc.uuid[0] = i;
		n->sh.self.inc.start = 1;
		map_init(&n->objs);
		CDS_INIT_LIST_HEAD(&n->held);
		n->alive = n->up = n->insync = true;
		assert(gateway_init(&n->sh) == 0);
	}
	return r;
}

static void node_free(struct node *n)
{
	struct robj *o;
	size_t pos = 0;

	while ((o = map_next(&n->objs, &pos, NULL))) {
		free(o->data);
		free(o);
	}
	map_done(&n->objs);
}

void rig_free(struct rig *r)
{
	struct msg *m, *next;
	struct vdi *v;
	size_t pos = 0;

	for (unsigned i = 0; i < r->nr; i++)
		if (r->n[i].up)
			rig_kill(r, i);
	rig_sleep(r, 10000 * MS);
	cds_list_for_each_entry_safe (m, next, &r->msgs, node) {
		rig_timer_del(&r->env, &m->timer);
		msg_free(m);
	}
	assert(co_sched_nr(r->sched) == 0);
	assert(cds_list_empty(&r->timers));
	co_sched_free(r->sched);
	assert(cds_list_empty(&r->defers));
	for (unsigned i = 0; i < r->nr; i++)
		node_free(&r->n[i]);
	while ((v = map_next(&r->table, &pos, NULL)))
		free(v);
	map_done(&r->table);
	map_done(&r->sessions);
	view_put(r->view);
	assert(buf_pool_used(r->pool) == 0);
	buf_pool_free(r->pool);
	free(r);
}

/* ---- looking ---- */

void rig_compare(struct rig *r)
{
	struct node *a = NULL;
	struct robj *o, *p;
	uint64_t oid;

	for (unsigned i = 0; i < r->nr; i++) {
		struct node *b = &r->n[i];
		size_t pos = 0;
		if (!b->up || !b->insync || b->conf.gateway)
			continue;
		if (!a) {
			a = b;
			continue;
		}
		assert(a->objs.nr == b->objs.nr);
		while ((o = map_next(&a->objs, &pos, &oid))) {
			p = map_get(&b->objs, oid);
			assert(p && !obj_ver_cmp(o->ver, p->ver) && o->size == p->size);
			assert(!memcmp(o->data, p->data, o->size));
		}
	}
}

/* ---- requests ---- */

static void tr_co(void *arg)
{
	struct tr *t = arg;

	gateway_handle(&t->n->sh, &t->g);
	t->done = true;
}

void tr_start(struct rig *r, struct tr *t, int node, uint8_t op, uint64_t oid, uint32_t off,
	      const void *data, uint32_t len, uint16_t flags)
{
	struct gw_client cl = t->g.client;

	memset(t, 0, sizeof(*t));
	t->r = r;
	t->n = &r->n[node];
	t->g.client = cl;
	t->g.req = (struct sd_req){.opcode = op, .flags = flags, .data_length = len};
	t->g.req.obj.oid = oid;
	t->g.req.obj.offset = off;
	if (data && len) {
		t->g.req.flags |= SD_FLAG_WRITE;
		t->g.payload = buf_new(r->pool, len);
		memcpy(t->g.payload->data, data, len);
	}
	assert(co_start(r->sched, tr_co, t, "client"));
}

uint32_t tr_wait(struct rig *r, struct tr *t)
{
	bool ok = rig_run(r, &t->done, 30000 * MS);

	assert(ok);
	(void)ok;
	return t->g.error ? 0xffff : t->g.rsp.result;
}

void tr_end(struct tr *t)
{
	assert(t->done);
	buf_put(t->g.payload);
	buf_put(t->g.reply);
	t->g.payload = t->g.reply = NULL;
}

uint32_t rq(struct rig *r, int node, uint8_t op, uint64_t oid, uint32_t off, const void *data,
	    uint32_t len, uint16_t flags)
{
	struct tr t = {0};

	tr_start(r, &t, node, op, oid, off, data, len, flags);
	uint32_t res = tr_wait(r, &t);
	assert(!t.g.reply_len);
	tr_end(&t);
	return res;
}

uint32_t rq_read(struct rig *r, int node, uint64_t oid, uint32_t off, void *data, uint32_t len)
{
	struct tr t = {0};

	tr_start(r, &t, node, SD_OP_READ_OBJ, oid, off, NULL, len, 0);
	uint32_t res = tr_wait(r, &t);
	assert(t.g.reply_len == (res ? 0 : len));
	if (!res && len)
		memcpy(data, t.g.reply->data, len);
	tr_end(&t);
	return res;
}

struct vol {
	struct sheep *sh;
	struct cmd cmd;
	uint32_t res;
};

static void create_co(void *arg)
{
	struct vol *v = arg;

	v->res = gateway_vdi_create(v->sh, &v->cmd);
}

static void delete_co(void *arg)
{
	struct vol *v = arg;

	v->res = gateway_vdi_delete(v->sh, &v->cmd);
}

uint32_t rq_create(struct rig *r, int node, const char *name, uint64_t size, uint32_t *vid)
{
	struct vol v = {.sh = &r->n[node].sh, .cmd = {.type = CMD_VDI_CREATE, .size = size}};

	snprintf(v.cmd.name, sizeof(v.cmd.name), "%s", name);
	rig_co(r, create_co, &v);
	*vid = v.cmd.ret_vid;
	return v.res;
}

uint32_t rq_delete(struct rig *r, int node, const char *name)
{
	struct vol v = {.sh = &r->n[node].sh, .cmd = {.type = CMD_VDI_DELETE}};

	snprintf(v.cmd.name, sizeof(v.cmd.name), "%s", name);
	rig_co(r, delete_co, &v);
	return v.res;
}
