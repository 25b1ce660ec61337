/* owner_read.c - the owner reads an object from one replica in sync, the local one first, and from
 * another when that one has a bad block (DESIGN 5.3). */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "sheep/gateway_int.h"
#include "sheep/mark.h"

/* BAD: checksum or I/O error, a repair has begun there: read elsewhere. */
enum piece { PIECE_DONE, PIECE_BAD, PIECE_MISSING, PIECE_MOVED };

static enum piece read_failed(uint32_t result)
{
	switch (result) {
	case SD_RES_EIO:
	case SD_RES_INVALID_PARMS: MARK(own_read_bad); return PIECE_BAD;
	case SD_RES_NO_OBJ: MARK(own_read_missing); return PIECE_MISSING;
	default: MARK(own_read_moved); return PIECE_MOVED; /* epoch, memory: passes */
	}
}

/* From one replica.  Negative: leave. */
static int read_from(struct gw_op *op, struct gw_obj *o, unsigned m, uint64_t off, uint64_t len,
		     struct buf *buf, size_t buf_off)
{
	struct gateway *gw = op->gw;
	struct gw_fan f;
	struct gw_call *k;
	int r;

	fan_init(&f, gw, o->v);
	k = fan_call(&f, PEER_READ, m);
	if (!k) {
		fan_done(&f);
		return PIECE_MOVED;
	}
	k->c.req.vid = o->v->vid;
	k->c.req.oid = o->oid;
	k->c.req.copies = o->v->copies;
	k->c.req.off = off;
	k->c.req.len = len;
	k->c.req.obj_size = o->size;
	k->reply = buf_get(buf);
	k->c.reply_buf = buf;
	k->c.reply_off = buf_off;
	k->c.reply_cap = len;
	fan_submit(&f, k, &gw->view->members[m].inc);
	r = fan_wait(&f, false); /* ~ */
	if (!r) {
		/* The epoch rule: the replica's, the request's and the owner's are one, now that
		 * the data is there. */
		if (call_ok(k) && gw_epoch_is(gw, k->epoch) && MARKED(own_read))
			r = k->c.reply_len == len ? PIECE_DONE : PIECE_BAD;
		else
			r = k->c.error ? PIECE_MOVED : read_failed(k->c.rsp.result);
	}
	fan_done(&f);
	return r;
}

/* A replica in sync lacks an object that exists: ask all, and bring them to one state, as at a
 * takeover (DESIGN 5.3).  With the whole object locked no write is in flight. */
static void heal_co(void *arg)
{
	struct gw_obj *o = arg;
	struct gateway *gw = o->v->gw;
	struct co_range lock;
	struct gw_op op;

	op_begin_internal(gw, &op, o->v->vid);
	co_range_lock(&o->ranges, &lock, 0, o->size, true); /* ~ */
	if (o->state == OBJ_KNOWN) {
		o->state = OBJ_UNKNOWN;
		o->ask_all = true;
		if (obj_ready(&op, o) == 0 && MARKED(own_healed)) /* ~ */
			log_warn(gw->sh->log, "object %016llx was missing on a replica",
				 (unsigned long long)o->oid);
		o->ask_all = false;
	}
	co_range_unlock(&lock);
	o->healing = false;
	op_end(&op);
	gv_op_end(o->v);
	obj_put(o);
}

static void obj_heal(struct gw_obj *o)
{
	struct gateway *gw = o->v->gw;

	if (o->healing || gw->draining)
		return;
	o->healing = true;
	o->refs++;
	gv_op_begin(o->v); /* it is not released before */
	if (!co_start(gw->sh->sched, heal_co, o, "heal")) {
		o->healing = false;
		gv_op_end(o->v);
		o->refs--; /* the caller has one */
	}
}

/* Replicas in the order to be tried: the local one when it is in sync, then the ring's order, the
 * local one last when it would have to wait. */
static unsigned read_order(struct gw_obj *o, unsigned *m)
{
	struct gateway *gw = o->v->gw;
	unsigned n = 0, nr = obj_ring(o);
	bool self = false;

	for (unsigned i = 0; i < nr; i++)
		self |= (int)o->ring[i] == gw->view->self;
	bool first = self && sync_is(gw->sh, gw->view->epoch, o->oid, o->v->copies);
	if (first && MARKED(own_read_local))
		m[n++] = gw->view->self;
	for (unsigned i = 0; i < nr; i++)
		if ((int)o->ring[i] != gw->view->self)
			m[n++] = o->ring[i];
	if (self && !first && MARKED(own_read_local_last))
		m[n++] = gw->view->self;
	return n;
}

static int read_piece(struct gw_op *op, struct gw_obj *o, uint64_t off, uint64_t len,
		      struct buf *buf, size_t buf_off)
{
	struct gateway *gw = op->gw;
	unsigned m[SD_COPIES_MAX], n, i;
	int r = PIECE_MOVED;

	for (;;) {
		if (op_over(op))
			return -ECANCELED;
		if (o->v->gone)
			return -EAGAIN;
		if (gv_usable(o->v)) {
			uint32_t e = gw->view->epoch;
			n = read_order(o, m);
			if (!n)
				return SD_RES_HALT;
			bool moved = false, missing = false;
			for (i = 0; i < n && gw_epoch_is(gw, e); i++) {
				r = read_from(op, o, m[i], off, len, buf, buf_off); /* ~ */
				if (r == PIECE_DONE && missing && !o->v->gone)
					obj_heal(o);
				if (r == PIECE_DONE)
					return SD_RES_SUCCESS;
				if (r < 0)
					return r;
				moved |= r == PIECE_MOVED;
				missing |= r == PIECE_MISSING;
			}
			if (i == n && !moved && gw_epoch_is(gw, e)) {
				MARK(own_read_none);
				log_err(gw->sh->log,
					"object %016llx: no replica can read %llu+%llu",
					(unsigned long long)o->oid, (unsigned long long)off,
					(unsigned long long)len);
				return SD_RES_EIO; /* I6: an error, never wrong data */
			}
		}
		gw_wait(gw, GW_LOOK_NS, "read"); /* ~ */
	}
}

int owner_read(struct gw_op *op, struct gw_obj *o, uint64_t off, uint64_t len, struct buf *buf,
	       size_t buf_off)
{
	while (len) {
		uint64_t n = len < GW_READ_MAX ? len : GW_READ_MAX;
		int r = read_piece(op, o, off, n, buf, buf_off); /* ~ */
		if (r)
			return r;
		off += n;
		buf_off += n;
		len -= n;
	}
	return SD_RES_SUCCESS;
}
