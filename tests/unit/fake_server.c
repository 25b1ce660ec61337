/* fake_server.c - see fake_server.h.  Requests are carried out when they are answered; a HELLO of a
 * newer session voids what older sessions of that client still have waiting. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/base/util.h"
#include "lib/env/linux.h"
#include "lib/proto/peer.h"
#include "tests/unit/fake_server.h"

#define OBJ	(1u << FAKE_SHIFT)
#define NR_OBJS 4096u /* index entries that are kept */
#define NR_VOLS 16u

struct object {
	uint64_t oid;
	uint8_t *data;
	struct object *next;
};

struct vol {
	bool used;
	struct sd_inode_header h;
	uint32_t index[NR_OBJS];
};

struct pending {
	struct sd_req req;
	uint8_t *data;
	struct fconn *conn;
	struct cds_list_head node;
};

struct fconn {
	struct fake *f;
	int gw;
	struct env_sock *sock;
	uint8_t *rx, *tx;
	size_t rx_len, rx_cap, tx_len, tx_cap;
	uint64_t client, session;
	unsigned nr;
	struct cds_list_head node;
};

struct fake {
	struct env *env;
	pthread_t thread;
	_Atomic bool quit;
	bool halted;
	struct fake_knobs knobs;
	struct fake_stats stats;
	struct net_addr addr[FAKE_GATEWAYS];
	struct env_sock *lst[FAKE_GATEWAYS];
	struct cds_list_head conns, pending;
	struct vol vol[NR_VOLS];
	struct object *objs[1024];
	uint64_t newest_client, newest_session;
	uint64_t seed;
	bool locked;
};

static unsigned rnd(struct fake *f, unsigned n)
{
	f->seed = f->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(f->seed >> 33) % n;
}

/* ---- objects ---- */

static struct object **obj_slot(struct fake *f, uint64_t oid)
{
	struct object **p = &f->objs[(oid ^ oid >> 32) % ARRAY_SIZE(f->objs)];

	while (*p && (*p)->oid != oid)
		p = &(*p)->next;
	return p;
}

static void obj_remove(struct fake *f, uint64_t oid)
{
	struct object **p = obj_slot(f, oid), *o = *p;

	if (!o)
		return;
	*p = o->next;
	free(o->data);
	free(o);
}

static struct object *obj_create(struct fake *f, uint64_t oid)
{
	struct object **p = obj_slot(f, oid);

	if (!*p) {
		*p = calloc(1, sizeof(**p));
		(*p)->oid = oid;
		(*p)->data = malloc(OBJ);
	}
	memset((*p)->data, 0, OBJ);
	return *p;
}

static struct vol *vol_by_vid(struct fake *f, uint32_t vid)
{
	for (unsigned i = 0; i < NR_VOLS; i++)
		if (f->vol[i].used && f->vol[i].h.vdi_id == vid)
			return &f->vol[i];
	return NULL;
}

static struct vol *vol_by_name(struct fake *f, const char *name)
{
	for (unsigned i = 0; i < NR_VOLS; i++)
		if (f->vol[i].used && !f->vol[i].h.snap_ctime && !strcmp(f->vol[i].h.name, name))
			return &f->vol[i];
	return NULL;
}

static struct vol *vol_new(struct fake *f)
{
	for (unsigned i = 0; i < NR_VOLS; i++)
		if (!f->vol[i].used) {
			memset(&f->vol[i], 0, sizeof(f->vol[i]));
			f->vol[i].used = true;
			f->vol[i].h.vdi_id = 0x100 + i;
			f->vol[i].h.block_size_shift = FAKE_SHIFT;
			f->vol[i].h.nr_copies = 1;
			return &f->vol[i];
		}
	abort();
}

static void take_snapshot(struct fake *f)
{
	for (unsigned i = 0; i < NR_VOLS; i++) {
		struct vol *v = &f->vol[i], *n;
		if (!v->used || v->h.snap_ctime)
			continue;
		n = vol_new(f);
		uint32_t vid = n->h.vdi_id;
		n->h = v->h;
		n->h.vdi_id = vid;
		n->h.parent_vdi_id = v->h.vdi_id;
		memcpy(n->index, v->index, sizeof(n->index));
		v->h.snap_ctime = 1;
		return;
	}
}

/* ---- operations ---- */

static uint32_t inode_read(struct vol *v, const struct sd_req *req, uint8_t *out)
{
	static _Thread_local uint8_t image[SD_INODE_HEADER_SIZE + NR_OBJS * 4];

	memcpy(image, &v->h, sizeof(v->h));
	memcpy(image + SD_INODE_HEADER_SIZE, v->index, sizeof(v->index));
	memset(out, 0, req->data_length);
	for (uint32_t i = 0; i < req->data_length && req->obj.offset + i < sizeof(image); i++)
		out[i] = image[req->obj.offset + i];
	return SD_RES_SUCCESS;
}

static uint32_t inode_write(struct fake *f, struct vol *v, const struct sd_req *req,
			    const uint8_t *data)
{
	uint32_t first = (req->obj.offset - SD_INODE_HEADER_SIZE) / 4, e;

	if (v->h.snap_ctime)
		return SD_RES_READONLY;
	if (!req->obj.offset) {
		struct sd_inode_header h;
		assert(req->data_length == sizeof(h));
		memcpy(&h, data, sizeof(h));
		if (h.vdi_size < v->h.vdi_size)
			return SD_RES_INVALID_PARMS;
		v->h.vdi_size = h.vdi_size;
		return SD_RES_SUCCESS;
	}
	assert(req->obj.offset >= SD_INODE_HEADER_SIZE && req->data_length % 4 == 0);
	for (uint32_t i = 0; i < req->data_length / 4; i++) {
		memcpy(&e, data + 4 * i, 4);
		assert(first + i < NR_OBJS);
		if (v->index[first + i] == v->h.vdi_id && !e)
			obj_remove(f, SD_DATA_OID(v->h.vdi_id, first + i));
		/* P5: an object that is referred to exists */
		assert(!e || *obj_slot(f, SD_DATA_OID(e, first + i)));
		v->index[first + i] = e;
	}
	return SD_RES_SUCCESS;
}

static uint32_t data_op(struct fake *f, const struct sd_req *req, const uint8_t *data, uint8_t *out)
{
	uint64_t oid = req->obj.oid;
	struct vol *v = vol_by_vid(f, SD_OID_VID(oid));
	struct object *o = *obj_slot(f, oid), *base;

	if (req->obj.offset + (uint64_t)req->data_length > OBJ)
		return SD_RES_INVALID_PARMS;
	if (req->opcode == SD_OP_READ_OBJ) {
		if (!o)
			return SD_RES_NO_OBJ;
		memcpy(out, o->data + req->obj.offset, req->data_length);
		return SD_RES_SUCCESS;
	}
	f->stats.flags_seen |= req->flags;
	if (!v)
		return SD_RES_NO_VDI;
	if (v->h.snap_ctime)
		return SD_RES_READONLY;
	if (req->opcode == SD_OP_CREATE_AND_WRITE_OBJ) {
		o = obj_create(f, oid);
		base = *obj_slot(f, req->obj.cow_oid);
		if (req->flags & SD_FLAG_COW) {
			if (!base)
				return SD_RES_NO_OBJ;
			memcpy(o->data, base->data, OBJ);
		}
	}
	if (!o)
		return SD_RES_NO_OBJ;
	memcpy(o->data + req->obj.offset, data, req->data_length);
	return SD_RES_SUCCESS;
}

static uint32_t object_op(struct fake *f, const struct sd_req *req, const uint8_t *data,
			  uint8_t *out)
{
	if (!SD_OID_IS_INODE(req->obj.oid))
		return data_op(f, req, data, out);
	struct vol *v = vol_by_vid(f, SD_OID_VID(req->obj.oid));
	if (!v)
		return SD_RES_NO_OBJ;
	if (req->opcode == SD_OP_READ_OBJ)
		return inode_read(v, req, out);
	return inode_write(f, v, req, data);
}

static uint32_t vdi_op(struct fake *f, const struct sd_req *req, const uint8_t *data,
		       struct sd_rsp *rsp)
{
	const char *name = (const char *)data;
	struct vol *v = vol_by_name(f, name);

	if (req->opcode == SD_OP_NEW_VDI) {
		if (req->data_length != 256)
			return SD_RES_INVALID_PARMS;
		if (v)
			return SD_RES_VDI_EXIST;
		v = vol_new(f);
		snprintf(v->h.name, sizeof(v->h.name), "%s", name);
		v->h.vdi_size = req->vdi.vdi_size;
		v->h.create_time = 1ull << 32;
	}
	if (!v)
		return SD_RES_NO_VDI;
	if (req->opcode == SD_OP_LOCK_VDI) {
		if (f->locked)
			return SD_RES_VDI_LOCKED;
		f->locked = true;
	}
	rsp->vdi.vdi_id = v->h.vdi_id;
	rsp->vdi.copies = v->h.nr_copies;
	rsp->vdi.block_size_shift = v->h.block_size_shift;
	if (req->opcode == SD_OP_DEL_VDI)
		v->used = false;
	return SD_RES_SUCCESS;
}

static uint32_t hello(struct fconn *c, const struct sd_req *req, const uint8_t *data)
{
	struct fake *f = c->f;
	struct client_hello h;

	if (f->knobs.old)
		return SD_RES_INVALID_PARMS;
	assert(req->proto_ver == SD_INTERNAL_PROTO_VER && req->data_length == sizeof(h) && !c->nr);
	memcpy(&h, data, sizeof(h));
	assert(h.client_id && h.version == 1);
	if (h.client_id == f->newest_client) {
		assert(h.session > f->newest_session);
		if (h.session - f->newest_session > f->stats.max_session_step)
			f->stats.max_session_step = (unsigned)(h.session - f->newest_session);
	}
	f->newest_client = h.client_id;
	f->newest_session = h.session;
	c->client = h.client_id;
	c->session = h.session;
	f->stats.hellos++;
	return SD_RES_SUCCESS;
}

static bool must_fail(struct fake *f, const struct fconn *c, uint8_t op, uint32_t *res)
{
	struct fake_knobs *k = &f->knobs;

	if (!k->fail_times || k->fail_op != op)
		return false;
	if (k->fail_gateway >= 0 && k->fail_gateway != c->gw)
		return false;
	k->fail_times--;
	*res = k->fail_result;
	return true;
}

static uint32_t carry_out(struct fconn *c, const struct sd_req *req, const uint8_t *data,
			  struct sd_rsp *rsp, uint8_t *out)
{
	struct fake *f = c->f;
	uint32_t res;

	f->stats.ops[req->opcode]++;
	if (must_fail(f, c, req->opcode, &res))
		return res;
	switch (req->opcode) {
	case SD_OP_CLIENT_HELLO: return hello(c, req, data);
	case SD_OP_CREATE_AND_WRITE_OBJ:
	case SD_OP_WRITE_OBJ:
	case SD_OP_READ_OBJ: return object_op(f, req, data, out);
	case SD_OP_NEW_VDI:
	case SD_OP_LOCK_VDI:
	case SD_OP_GET_VDI_INFO:
	case SD_OP_DEL_VDI: return vdi_op(f, req, data, rsp);
	case SD_OP_RELEASE_VDI: f->locked = false; return SD_RES_SUCCESS;
	case SD_OP_FLUSH_VDI: return f->knobs.old ? SD_RES_INVALID_PARMS : SD_RES_SUCCESS;
	case SD_OP_GET_CLUSTER_DEFAULT:
		rsp->cluster_default.block_size_shift = FAKE_SHIFT;
		return SD_RES_SUCCESS;
	case SD_OP_STAT: memset(out, 0x5a, req->data_length); return SD_RES_SUCCESS;
	case SD_OP_KILL_NODE: return SD_RES_SUCCESS;
	default: return SD_RES_INVALID_PARMS;
	}
}

/* ---- connections ---- */

static void pending_free(struct pending *p)
{
	cds_list_del(&p->node);
	free(p->data);
	free(p);
}

static void conn_close(struct fconn *c)
{
	struct pending *p, *next;

	cds_list_for_each_entry_safe (p, next, &c->f->pending, node)
		if (p->conn == c)
			pending_free(p);
	env_sock_close(c->sock, true);
	cds_list_del(&c->node);
	free(c->rx);
	free(c->tx);
	free(c);
}

static void conn_send(struct fconn *c)
{
	while (c->tx_len) {
		struct iovec iov = {c->tx, c->tx_len};
		ssize_t n = env_send(c->sock, &iov, 1);
		if (n <= 0)
			return; /* EAGAIN, or the receiving side will find out */
		c->tx_len -= (size_t)n;
		memmove(c->tx, c->tx + n, c->tx_len);
	}
}

static uint8_t *tx_room(struct fconn *c, size_t n)
{
	if (c->tx_len + n > c->tx_cap) {
		c->tx_cap = (c->tx_len + n) * 2;
		c->tx = realloc(c->tx, c->tx_cap);
	}
	return c->tx + c->tx_len;
}

/* Carry a request out and answer it.  False: the connection is gone. */
static bool answer(struct fconn *c, const struct sd_req *req, const uint8_t *data)
{
	struct fake *f = c->f;
	size_t len = req->flags & SD_FLAG_WRITE ? 0 : req->data_length;
	uint8_t *p = tx_room(c, sizeof(struct sd_rsp) + len);
	struct sd_rsp rsp = {.opcode = req->opcode, .epoch = 1, .id = req->id};

	if (c->session && c->client == f->newest_client && c->session < f->newest_session) {
		f->stats.old_session_ops++;
		return true; /* the client has moved on */
	}
	rsp.result = carry_out(c, req, data, &rsp, p + sizeof(rsp));
	if (f->knobs.lose_op == req->opcode) {
		f->knobs.lose_op = 0;
		conn_close(c);
		return false;
	}
	if (rsp.result)
		len = 0;
	rsp.data_length = (uint32_t)len;
	if (len && f->knobs.bad_length) {
		f->knobs.bad_length--;
		rsp.data_length = (uint32_t)(len - 1);
	}
	if (f->knobs.mode[c->gw] == FAKE_GARBAGE)
		for (size_t i = 0; i < sizeof(rsp); i++)
			((uint8_t *)&rsp)[i] = (uint8_t)rnd(f, 256);
	memcpy(p, &rsp, sizeof(rsp));
	c->tx_len += sizeof(rsp) + len;
	c->nr++;
	if (f->knobs.drop && c->nr > 1 && !rnd(f, f->knobs.drop)) {
		f->stats.resets++;
		if (rnd(f, 2))
			conn_send(c);
		conn_close(c); /* carried out, perhaps not answered */
		return false;
	}
	return true;
}

static bool is_object_op(uint8_t op)
{
	return op <= SD_OP_DISCARD_OBJ || op == SD_OP_FLUSH_VDI;
}

/* One request from the buffer.  0: none complete; -1: connection gone. */
static ssize_t take_request(struct fconn *c, size_t at)
{
	struct fake *f = c->f;
	struct sd_req req;

	if (c->rx_len - at < sizeof(req))
		return 0;
	memcpy(&req, c->rx + at, sizeof(req));
	size_t len = req.flags & SD_FLAG_WRITE ? req.data_length : 0;
	if (c->rx_len - at < sizeof(req) + len)
		return 0;
	const uint8_t *data = c->rx + at + sizeof(req);
	bool keep = is_object_op(req.opcode) && (f->knobs.deaf || f->knobs.shuffle);
	if (f->knobs.mode[c->gw] == FAKE_MUTE) {
	} else if (keep) {
		struct pending *p = calloc(1, sizeof(*p));
		p->req = req;
		p->conn = c;
		p->data = malloc(len + 1);
		memcpy(p->data, data, len);
		cds_list_add_tail(&p->node, &f->pending);
	} else if (!answer(c, &req, data)) {
		return -1;
	}
	return (ssize_t)(sizeof(req) + len);
}

static void conn_input(struct fconn *c)
{
	for (;;) {
		if (c->rx_cap - c->rx_len < 65536) {
			c->rx_cap = c->rx_cap * 2 + 131072;
			c->rx = realloc(c->rx, c->rx_cap);
		}
		struct iovec iov = {c->rx + c->rx_len, c->rx_cap - c->rx_len};
		ssize_t n = env_recv(c->sock, &iov, 1), k = 0;
		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			conn_close(c);
			return;
		}
		c->rx_len += (size_t)n;
		size_t at = 0;
		while ((k = take_request(c, at)) > 0)
			at += (size_t)k;
		if (k < 0)
			return;
		c->rx_len -= at;
		memmove(c->rx, c->rx + at, c->rx_len);
	}
	conn_send(c);
}

static void on_conn(struct env_sock *s, unsigned events, void *arg)
{
	struct fconn *c = arg;

	if (events & ENV_SOCK_OUT)
		conn_send(c);
	if (events & (ENV_SOCK_IN | ENV_SOCK_HUP))
		conn_input(c);
}

static void on_listen(struct env_sock *s, unsigned events, void *arg)
{
	struct fake *f = arg;
	int gw = 0;

	while (f->lst[gw] != s)
		gw++;
	for (;;) {
		struct fconn *c = calloc(1, sizeof(*c));
		c->f = f;
		c->gw = gw;
		if (env_accept(s, on_conn, c, &c->sock, NULL) < 0) {
			free(c);
			return;
		}
		f->stats.conns++;
		cds_list_add_tail(&c->node, &f->conns);
		if (f->knobs.mode[gw] == FAKE_CLOSING)
			conn_close(c);
	}
}

/* ---- the thread ---- */

static void apply_modes(struct fake *f)
{
	for (int i = 0; i < FAKE_GATEWAYS; i++) {
		bool down = f->knobs.mode[i] == FAKE_DOWN;
		struct fconn *c, *next;
		if (down && f->lst[i]) {
			env_sock_close(f->lst[i], false);
			f->lst[i] = NULL;
			cds_list_for_each_entry_safe (c, next, &f->conns, node)
				if (c->gw == i)
					conn_close(c);
		} else if (!down && !f->lst[i]) {
			int r = env_listen(f->env, &f->addr[i], on_listen, f, &f->lst[i]);
			if (r < 0)
				fprintf(stderr, "fake: listen: %s\n", strerror(-r));
			assert(r == 0);
		}
	}
	if (f->knobs.snapshot) {
		take_snapshot(f);
		f->knobs.snapshot = false;
	}
}

/* Answer some of what is waiting, in any order. */
static void answer_some(struct fake *f)
{
	unsigned n = f->knobs.shuffle ? f->knobs.shuffle : 1;
	struct pending *p, *next;
	bool again = true;

	if (f->knobs.deaf)
		return;
	while (again) {
		again = false;
		cds_list_for_each_entry_safe (p, next, &f->pending, node) {
			if (rnd(f, n))
				continue;
			struct fconn *c = p->conn;
			cds_list_del(&p->node);
			bool alive = answer(c, &p->req, p->data);
			free(p->data);
			free(p);
			if (!alive) {
				again = true; /* the list has changed */
				break;
			}
			conn_send(c);
		}
	}
}

static void *fake_main(void *arg)
{
	struct fake *f = arg;

	while (!f->quit) {
		apply_modes(f);
		env_linux_turn(f->env, cds_list_empty(&f->pending) ? 2 : 0);
		answer_some(f);
	}
	return NULL;
}

struct fake *fake_start(unsigned port, const char *unix_path)
{
	const struct env_linux_conf conf = {0};
	struct fake *f = calloc(1, sizeof(*f));
	int r = env_linux_new(&conf, &f->env);

	assert(r == 0);
	CDS_INIT_LIST_HEAD(&f->conns);
	CDS_INIT_LIST_HEAD(&f->pending);
	f->seed = 12345;
	f->knobs.fail_gateway = -1;
	for (unsigned i = 0; i < FAKE_GATEWAYS; i++) {
		f->addr[i] = (struct net_addr){.family = AF_INET, .port = (uint16_t)(port + i)};
		memcpy(f->addr[i].ip + 12, "\x7f\x00\x00\x01", 4);
	}
	if (unix_path) {
		f->addr[0] = (struct net_addr){.family = AF_UNIX};
		snprintf(f->addr[0].path, sizeof(f->addr[0].path), "%s", unix_path);
	}
	apply_modes(f);
	r = pthread_create(&f->thread, NULL, fake_main, f);
	assert(r == 0);
	return f;
}

void fake_halt(struct fake *f)
{
	if (f->halted)
		return;
	f->halted = true;
	f->quit = true;
	pthread_join(f->thread, NULL);
}

void fake_stop(struct fake *f)
{
	fake_halt(f);
	for (int i = 0; i < FAKE_GATEWAYS; i++)
		env_sock_close(f->lst[i], false);
	while (!cds_list_empty(&f->conns))
		conn_close(cds_list_first_entry(&f->conns, struct fconn, node));
	env_linux_turn(f->env, 0);
	env_linux_free(f->env);
	for (size_t i = 0; i < ARRAY_SIZE(f->objs); i++)
		while (f->objs[i])
			obj_remove(f, f->objs[i]->oid);
	free(f);
}

struct fake_knobs *fake_knobs(struct fake *f)
{
	return &f->knobs;
}

struct fake_stats *fake_stats(struct fake *f)
{
	return &f->stats;
}

unsigned fake_objects(struct fake *f, uint32_t vid)
{
	unsigned n = 0;

	assert(f->halted);
	for (size_t i = 0; i < ARRAY_SIZE(f->objs); i++)
		for (struct object *o = f->objs[i]; o; o = o->next)
			n += SD_OID_VID(o->oid) == vid;
	return n;
}

const char *fake_list(struct fake *f, unsigned first, unsigned last, char *buf, size_t len)
{
	size_t n = 0;

	for (unsigned i = first; i <= last; i++) {
		const struct net_addr *a = &f->addr[i];
		if (a->family == AF_UNIX)
			n += (size_t)snprintf(buf + n, len - n, "%sunix:%s", n ? "," : "", a->path);
		else
			n += (size_t)snprintf(buf + n, len - n, "%s127.0.0.1:%u", n ? "," : "",
					      a->port);
	}
	return buf;
}
