/* inode.c - the inode object: its header is composed from the state machine, its index is kept in
 * the object and cached here by the owner (protocol.md 5, DESIGN 6, 8).
 *
 *  N1 Header bytes [0,4664) of the stored object mean nothing; neither does the gref area, which
 *     reads as zeros.
 *  N2 A dropped reference to an own object removes the object after the index write is complete and
 *     durable on all replicas, before the request is answered, under the range lock over the whole
 *     object (DESIGN 8, WHY B12, B15; T13, T23).
 *  N3 A chunk is pinned from its load to the end of the index write that needs it: so a load never
 *     runs beside a write of the same entries.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/gateway_int.h"
#include "sheep/plant.h"

#define IDX_END		((uint64_t)SD_INODE_OLD_SIZE)
#define IDX_CHUNK_BYTES (IDX_CHUNK * sizeof(uint32_t))

/* ---- header ---- */

void inode_header(const struct vdi *v, struct sd_inode_header *h)
{
	memset(h, 0, sizeof(*h));
	if (!v->deleted) { /* T37: tombstones have no name and no size */
		memcpy(h->name, v->name, sizeof(h->name));
		h->vdi_size = v->size;
	}
	memcpy(h->tag, v->tag, sizeof(h->tag));
	h->create_time = v->create_time;
	h->snap_ctime = v->snap_ctime;
	h->vm_clock_nsec = v->vm_clock_nsec;
	h->vm_state_size = v->vm_state_size;
	h->copy_policy = v->copy_policy;
	h->store_policy = v->store_policy;
	h->nr_copies = v->copies;
	h->block_size_shift = v->shift;
	h->snap_id = v->snap_id;
	h->vdi_id = v->vid;
	h->parent_vdi_id = v->parent_vid;
	h->btree_counter = v->btree_counter;
}

/* The part of [off, off+len) that lies in [from, to). */
static uint64_t part(uint64_t off, uint64_t len, uint64_t from, uint64_t to, uint64_t *start)
{
	uint64_t a = off > from ? off : from, b = off + len < to ? off + len : to;

	*start = a;
	return a < b ? b - a : 0;
}

static void header_copy(const struct vdi *t, uint64_t off, uint64_t len, uint8_t *dst)
{
	struct sd_inode_header h;
	uint64_t start, n = part(off, len, 0, sizeof(h), &start);

	if (!n)
		return;
	inode_header(t, &h);
	memcpy(dst, (const uint8_t *)&h + start, n);
}

static int reply_new(struct gateway *gw, struct gw_request *r)
{
	if (!r->req.data_length)
		return SD_RES_SUCCESS;
	r->reply = buf_new(gw->sh->pool, r->req.data_length);
	if (!r->reply)
		return SD_RES_NO_MEM;
	r->reply_len = r->req.data_length;
	return SD_RES_SUCCESS;
}

int inode_read_table(struct gateway *gw, const struct vdi *v, struct gw_request *r)
{
	int res = reply_new(gw, r);

	if (res || !r->reply)
		return res;
	memset(r->reply->data, 0, r->reply_len);
	header_copy(v, r->req.obj.offset, r->reply_len, r->reply->data);
	return SD_RES_SUCCESS;
}

/* T5: any range, each client has its own idea of the size; what is beyond reads as zeros. */
int inode_read(struct gw_op *op, struct gw_vdi *v, struct gw_request *r)
{
	struct gateway *gw = op->gw;
	uint64_t off = r->req.obj.offset, len = r->req.data_length, start;
	uint64_t n = part(off, len, IDX_OFF, IDX_END, &start);
	struct gw_obj *o;
	struct co_range lock;
	int res = reply_new(gw, r);

	if (res || !r->reply)
		return res;
	uint8_t *p = r->reply->data;
	if (off + len > IDX_END) {
		uint64_t tail, t = part(off, len, IDX_END, off + len, &tail);
		memset(p + (tail - off), 0, t);
	}
	if (n) {
		o = obj_get(v, SD_INODE_OID(v->vid));
		if (!o)
			return SD_RES_NO_MEM;
		co_range_lock(&o->ranges, &lock, start, n, false); /* ~ */
		res = obj_ready(op, o);				   /* ~ */
		if (!res)
			res = o->exists ? owner_read(op, o, start, n, r->reply, start - off) /* ~ */
					: SD_RES_NO_OBJ;
		co_range_unlock(&lock);
		obj_put(o);
		if (res)
			return res;
	}
	const struct vdi *t = cluster_vdi(gw->sh->cluster, v->vid);
	if (!t)
		return -EAGAIN;
	header_copy(t, off, len, p);
	return SD_RES_SUCCESS;
}

/* 5.4 [REC]: server-owned fields stay, shrinking is refused; the rest becomes a command. */
static int header_change(struct gw_op *op, struct gw_vdi *v, uint64_t off, uint64_t len,
			 const uint8_t *p)
{
	struct gateway *gw = op->gw;
	const struct vdi *t = cluster_vdi(gw->sh->cluster, v->vid);
	struct sd_inode_header h, n;
	struct cmd cmd = {.type = CMD_VDI_HEADER, .vid = v->vid, .gen = v->gen};

	if (op_over(op))
		return -ECANCELED;
	if (!t || !gv_usable(v))
		return -EAGAIN;
	inode_header(t, &h);
	n = h;
	memcpy((uint8_t *)&n + off, p, len);
	if (n.vdi_size < h.vdi_size || n.vdi_size > (uint64_t)SD_NR_OBJS_MAX << v->shift)
		return SD_RES_INVALID_PARMS;
	if (n.vdi_size == h.vdi_size && n.vm_clock_nsec == h.vm_clock_nsec &&
	    n.vm_state_size == h.vm_state_size && !memcmp(n.tag, h.tag, sizeof(n.tag)))
		return SD_RES_SUCCESS;
	memcpy(cmd.tag, n.tag, sizeof(cmd.tag));
	cmd.size = n.vdi_size;
	cmd.vm_state_size = n.vm_state_size;
	cmd.vm_clock_nsec = n.vm_clock_nsec;
	cmd.ctime = t->opens;
	op->sent = true;
	int r = cluster_do(gw->sh->cluster, &cmd); /* ~ */
	op->sent = false; /* nothing of it is out: what else there is to do can be left (G8) */
	if (r == 0 && cmd.result == SD_RES_OLD_NODE_VER)
		return -EAGAIN;
	if (r < 0 || (cmd.result != SD_RES_SUCCESS && v->gone)) {
		if (!op_over(op))
			gw_wait(gw, GW_LOOK_NS, "header"); /* ~ it passes, or we are out */
		return gw->stopping ? -ECANCELED : -EAGAIN;
	}
	return cmd.result;
}

static int header_write(struct gw_op *op, struct gw_vdi *v, struct gw_obj *o, uint64_t off,
			uint64_t len, const uint8_t *p)
{
	struct co_range lock;

	/* One at a time: each is a change of what the one before has made of the header. */
	co_range_lock(&o->ranges, &lock, 0, SD_INODE_HEADER_SIZE, true); /* ~ */
	int res = header_change(op, v, off, len, p);			 /* ~ */
	co_range_unlock(&lock);
	return res;
}

/* ---- the index in memory ---- */

static void chunk_free(struct idx_chunk *c)
{
	struct gateway *gw = c->v->gw;

	assert(!c->pins && !c->loading);
	c->v->chunks[c->nr] = NULL;
	buf_put(c->buf);
	free(c);
	gw->nr_chunks--;
}

static struct idx_chunk *chunk_get(struct gw_vdi *v, unsigned nr)
{
	struct idx_chunk *c;

	if (!v->chunks)
		v->chunks = calloc(IDX_CHUNKS, sizeof(*v->chunks));
	if (!v->chunks)
		return NULL;
	c = v->chunks[nr];
	if (!c) {
		c = calloc(1, sizeof(*c));
		if (!c)
			return NULL;
		c->v = v;
		c->nr = nr;
		co_cond_init(&c->ready);
		v->chunks[nr] = c;
		v->gw->nr_chunks++;
	} else if (!c->pins) {
		cds_list_del(&c->lru);
	}
	c->pins++;
	return c;
}

static void chunk_unpin(struct idx_chunk *c)
{
	struct gateway *gw = c->v->gw;

	assert(c->pins);
	if (--c->pins)
		return;
	if (!c->loaded || c->v->gone) {
		chunk_free(c);
		return;
	}
	cds_list_add_tail(&c->lru, &gw->chunks);
	while (gw->nr_chunks > GW_CHUNKS_MAX && !cds_list_empty(&gw->chunks)) {
		c = cds_list_first_entry(&gw->chunks, struct idx_chunk, lru);
		cds_list_del(&c->lru);
		chunk_free(c);
	}
}

static int chunk_load(struct gw_op *op, struct gw_obj *o, struct idx_chunk *c)
{
	struct buf *buf = buf_new(op->gw->sh->pool, IDX_CHUNK_BYTES);

	if (!buf)
		return SD_RES_NO_MEM;
	c->loading = true;
	int r = owner_read(op, o, IDX_OFF + (uint64_t)c->nr * IDX_CHUNK_BYTES, IDX_CHUNK_BYTES, buf,
			   0); /* ~ */
	c->loading = false;
	if (r) {
		buf_put(buf);
	} else {
		c->buf = buf;
		c->loaded = true;
	}
	co_cond_broadcast(&c->ready);
	return r;
}

/* Pin chunk @nr; on 0 it is loaded. */
static int chunk_pin(struct gw_op *op, struct gw_obj *o, unsigned nr)
{
	struct idx_chunk *c = chunk_get(o->v, nr);
	int r = 0;

	if (!c)
		return SD_RES_NO_MEM;
	while (!r && !c->loaded) {
		if (op_over(op))
			r = -ECANCELED;
		else if (o->v->gone)
			r = -EAGAIN;
		else if (c->loading)
			co_cond_wait(&c->ready, "index"); /* ~ */
		else
			r = chunk_load(op, o, c); /* ~ */
	}
	if (r)
		chunk_unpin(c);
	return r;
}

/* No yield.  What is pinned goes when it is unpinned. */
void inode_forget(struct gw_vdi *v)
{
	bool left = false;

	if (!v->chunks)
		return;
	for (unsigned i = 0; i < IDX_CHUNKS; i++) {
		struct idx_chunk *c = v->chunks[i];
		if (!c)
			continue;
		if (c->pins) {
			left = true;
			co_cond_broadcast(&c->ready);
			continue;
		}
		cds_list_del(&c->lru);
		chunk_free(c);
	}
	if (!left)
		free(TAKE(v->chunks, NULL));
}

static uint32_t *entry(struct gw_vdi *v, uint32_t i)
{
	return (uint32_t *)v->chunks[i / IDX_CHUNK]->buf->data + i % IDX_CHUNK;
}

/* ---- index writes ---- */

struct idx_write {
	uint32_t first, nr; /* entries */
	struct buf *buf;
	size_t buf_off;
	/* found out */
	uint32_t from, to; /* changed ones lie in there; from == to: none */
	uint32_t *drops, nr_drops;
};

static uint32_t idx_new(const struct idx_write *w, uint32_t i)
{
	uint32_t e;

	memcpy(&e, (const uint8_t *)w->buf->data + w->buf_off + 4ull * (i - w->first), sizeof(e));
	return e;
}

/* An entry is zero or names a VDI that exists or existed. */
static bool idx_valid(const struct gateway *gw, const struct gw_vdi *v, const struct idx_write *w)
{
	uint32_t known = v->vid;

	for (uint32_t i = w->first; i < w->first + w->nr; i++) {
		uint32_t e = idx_new(w, i);
		if (!e || e == known)
			continue;
		const struct vdi *t = e < SD_NR_VDIS ? cluster_vdi(gw->sh->cluster, e) : NULL;
		if (!t || t->creating)
			return false;
		known = e;
	}
	return true;
}

/* T22: entries with the same value are no change; own objects that lose their reference. */
static int idx_diff(struct gw_vdi *v, struct idx_write *w)
{
	uint32_t n = 0;

	w->from = w->to = w->first;
	for (uint32_t i = w->first; i < w->first + w->nr; i++) {
		uint32_t old = *entry(v, i);
		if (old == idx_new(w, i))
			continue;
		if (w->from == w->to)
			w->from = i;
		w->to = i + 1;
		n += old == v->vid;
	}
	if (!n)
		return SD_RES_SUCCESS;
	w->drops = malloc(n * sizeof(*w->drops));
	if (!w->drops)
		return SD_RES_NO_MEM;
	for (uint32_t i = w->from; i < w->to; i++)
		if (*entry(v, i) == v->vid && idx_new(w, i) != v->vid)
			w->drops[w->nr_drops++] = i;
	return SD_RES_SUCCESS;
}

static void idx_unpin(struct gw_vdi *v, unsigned from, unsigned to)
{
	for (unsigned c = from; c < to; c++)
		chunk_unpin(v->chunks[c]);
}

/* N2: the objects whose references are gone. */
static int idx_drop(struct gw_op *op, struct gw_vdi *v, struct idx_write *w, uint64_t seq)
{
	struct gw_removal rm = {
		.op = op,
		.v = v,
		.base = SD_DATA_OID(v->vid, 0),
		.idx = w->drops,
		.end = w->nr_drops,
		.seq = seq,
	};

	return objs_remove(&rm); /* ~ */
}

/* The chunks are pinned, the range is locked. */
static int idx_apply(struct gw_op *op, struct gw_vdi *v, struct gw_obj *o, struct idx_write *w)
{
	uint64_t seq = v->seq;
	int r = idx_diff(v, w);

	if (r)
		return r;
	if (w->from == w->to) {
		/* A flush under way has taken index_cached, but is not over. */
		if (!v->index_cached && !v->flushing)
			return SD_RES_SUCCESS;
		w->to = w->first + w->nr; /* what the owner before us left must be durable now */
	}
	struct gw_io io = {
		.op = PEER_WRITE,
		.off = IDX_OFF + 4ull * w->from,
		.len = 4ull * (w->to - w->from),
		.data = w->buf,
		.data_off = w->buf_off + 4ull * (w->from - w->first),
		/* Whatever the flags.  N2: a cut of the power must not bring a reference back
		 * without its object.  And a client keeps its index, and outlives the store: of an
		 * entry that a cut took it would never know, and what it writes to that object from
		 * then on, flushed or not, would not be there for who opens the volume next. */
		.durable = !PLANTED(index_cached),
	};
	if (PLANTED(remove_first) && w->nr_drops)
		r = idx_drop(op, v, w, seq); /* ~ */
	if (!r)
		r = owner_write(op, o, &io); /* ~ */
	if (r)
		return r;
	for (uint32_t i = w->from; i < w->to; i++)
		*entry(v, i) = idx_new(w, i);
	if (!w->nr_drops)
		return SD_RES_SUCCESS;
	return idx_drop(op, v, w, seq); /* ~ */
}

static int index_write(struct gw_op *op, struct gw_vdi *v, struct gw_obj *o, struct idx_write *w)
{
	unsigned from = w->first / IDX_CHUNK, to = (w->first + w->nr - 1) / IDX_CHUNK + 1, c;
	struct co_range lock;
	int r;

	if (!idx_valid(op->gw, v, w))
		return SD_RES_INVALID_PARMS;
	/* T11: several at once, each entry in one order on all replicas */
	co_range_lock(&o->ranges, &lock, IDX_OFF + 4ull * w->first, 4ull * w->nr, true); /* ~ */
	r = obj_ready(op, o);								 /* ~ */
	if (!r && !o->exists)
		r = SD_RES_NO_OBJ;
	for (c = from; !r && c < to; c++) {
		r = chunk_pin(op, o, c); /* ~ */
		if (r)
			break;
	}
	if (!r)
		r = v->gone ? -EAGAIN : idx_apply(op, v, o, w); /* ~ */
	idx_unpin(v, from, c);
	free(w->drops);
	co_range_unlock(&lock);
	return r;
}

/* 5.4 [REC]: an old VM must not change a snapshot; an admin's deletion zeroes its index. */
static bool snapshot_may(const struct gw_request *r)
{
	const uint8_t *p = (const uint8_t *)r->payload->data + r->payload_off;

	if (r->req.proto_ver != 2 || r->req.obj.offset < IDX_OFF)
		return false;
	for (uint32_t i = 0; i < r->req.data_length; i++)
		if (p[i])
			return false;
	return true;
}

static int inode_write_parts(struct gw_op *op, struct gw_vdi *v, struct gw_request *r,
			     struct gw_obj *o)
{
	uint64_t off = r->req.obj.offset, len = r->req.data_length, start, n;
	const uint8_t *p = (const uint8_t *)r->payload->data + r->payload_off;
	int res = SD_RES_SUCCESS;

	n = part(off, len, IDX_OFF, IDX_END, &start);
	if ((start | n) % 4 && n)
		return SD_RES_INVALID_PARMS; /* no client does */
	struct idx_write w = {
		.first = n ? (start - IDX_OFF) / 4 : 0,
		.nr = n / 4,
		.buf = r->payload,
		.buf_off = r->payload_off + (start - off),
	};
	uint64_t hdr_start, hdr = part(off, len, 0, SD_INODE_HEADER_SIZE, &hdr_start);
	if (hdr)
		res = header_write(op, v, o, off, hdr, p); /* ~ */
	if (!res && n)
		res = index_write(op, v, o, &w); /* ~ */
	return res; /* the gref area is ours: what is written to it means nothing (N1) */
}

int inode_write(struct gw_op *op, struct gw_vdi *v, struct gw_request *r)
{
	const struct vdi *t = cluster_vdi(op->gw->sh->cluster, v->vid);
	uint64_t off = r->req.obj.offset, len = r->req.data_length;

	/* T9: QEMU sends a flush again as this after a reconnect. */
	if (!len)
		return owner_flush(op, v); /* ~ */
	if (off + len > SD_INODE_SIZE)
		return SD_RES_INVALID_PARMS;
	if (!t)
		return -EAGAIN;
	if (t->snap_ctime && !snapshot_may(r))
		return SD_RES_READONLY; /* T21 */
	struct gw_obj *o = obj_get(v, SD_INODE_OID(v->vid));
	if (!o)
		return SD_RES_NO_MEM;
	int res = inode_write_parts(op, v, r, o); /* ~ */
	obj_put(o);
	return res;
}

/* DISCARD_OBJ: as if the client had written a zero into the index. */
int inode_discard(struct gw_op *op, struct gw_vdi *v, uint32_t idx)
{
	const struct vdi *t = cluster_vdi(op->gw->sh->cluster, v->vid);

	if (!t)
		return -EAGAIN;
	if (t->snap_ctime)
		return SD_RES_READONLY;
	struct buf *zero = buf_new(op->gw->sh->pool, SD_BLOCK_SIZE);
	struct gw_obj *o = zero ? obj_get(v, SD_INODE_OID(v->vid)) : NULL;
	if (!o) {
		buf_put(zero);
		return SD_RES_NO_MEM;
	}
	memset(zero->data, 0, SD_BLOCK_SIZE);
	struct idx_write w = {.first = idx, .nr = 1, .buf = zero};
	int res = index_write(op, v, o, &w); /* ~ */
	obj_put(o);
	buf_put(zero);
	return res;
}

/* For reclaim. */
int inode_own(struct gw_op *op, struct gw_vdi *v, uint32_t from, uint32_t *idx, uint32_t *next)
{
	struct gw_obj *o = v->gone ? NULL : obj_get(v, SD_INODE_OID(v->vid));
	unsigned nr = from / IDX_CHUNK;
	int n = 0;

	if (v->gone)
		return -EAGAIN;
	if (!o)
		return SD_RES_NO_MEM;
	int r = obj_ready(op, o); /* ~ */
	*next = SD_NR_OBJS_MAX;
	if (!r && o->exists)
		r = chunk_pin(op, o, nr); /* ~ */
	if (!r && o->exists) {
		for (uint32_t i = from; i < (nr + 1) * IDX_CHUNK; i++)
			if (*entry(v, i) == v->vid)
				idx[n++] = i;
		chunk_unpin(v->chunks[nr]);
		*next = (nr + 1) * IDX_CHUNK;
	}
	obj_put(o);
	return r ? -EAGAIN : n;
}
