/* owner_io.c - the owner's calls to the replicas: writes, flushes (DESIGN 5.2, 5.4); reads:
 * owner_read.c. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc.h"
#include "sheep/gateway_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* ---- calls ---- */

static struct gw_call *call_new(struct gateway *gw)
{
	struct gw_call *k = gw->spare_calls;

	if (k) {
		gw->spare_calls = k->next;
		gw->nr_spare_calls--;
	} else {
		k = malloc(sizeof(*k));
		if (!k)
			return NULL;
	}
	memset(k, 0, sizeof(*k));
	k->gw = gw;
	gw->nr_calls++;
	return k;
}

static void call_free(struct gw_call *k)
{
	struct gateway *gw = k->gw;

	buf_put(k->reply);
	gw->nr_calls--;
	if (gw->nr_spare_calls < GW_SPARE_MAX) {
		k->next = gw->spare_calls;
		gw->spare_calls = k;
		gw->nr_spare_calls++;
	} else {
		free(k);
	}
}

/* What we know of the called member's space; NULL: it is a member of an older view. */
static struct gw_room *room_of(struct gateway *gw, const struct gw_call *k)
{
	if ((!gw->room || !gw->view || gw->view->epoch != k->epoch || k->member >= gw->view->nr) &&
	    MARKED(own_room_old))
		return NULL;
	return &gw->room[k->member];
}

/* Success, given in the epoch that was asked in (G3). */
bool call_ok(const struct gw_call *k)
{
	return k->finished && !k->c.error && k->c.rsp.result == SD_RES_SUCCESS &&
	       k->c.rsp.epoch == k->epoch;
}

/* ---- fans: calls that one coroutine waits for ---- */

void fan_init(struct gw_fan *f, struct gateway *gw, struct gw_vdi *v)
{
	memset(f, 0, sizeof(*f));
	f->gw = gw;
	f->v = v;
	f->epoch = gw->view ? gw->view->epoch : 0;
	CDS_INIT_LIST_HEAD(&f->calls);
	cds_list_add_tail(&f->node, &gw->fans);
}

static void fan_call_done(struct peer_call *c)
{
	struct gw_call *k = caa_container_of(c, struct gw_call, c);
	struct gw_fan *f = k->fan;

	k->finished = true;
	if (!f) {
		call_free(k);
		return;
	}
	assert(f->left);
	f->left--;
	if (call_ok(k))
		f->nr_ok++;
	if (f->waiter)
		co_wake(f->waiter);
}

struct gw_call *fan_call(struct gw_fan *f, enum peer_op op, unsigned member)
{
	struct gw_call *k = call_new(f->gw);

	if (!k)
		return NULL;
	k->member = member;
	k->epoch = f->epoch;
	k->c.req.op = op;
	k->c.req.epoch = f->epoch;
	k->c.done = fan_call_done;
	return k;
}

void fan_submit(struct gw_fan *f, struct gw_call *k, const struct incarnation *to)
{
	k->fan = f;
	cds_list_add_tail(&k->node, &f->calls);
	f->left++;
	f->nr++;
	peer_submit(f->gw->sh, to, &k->c);
}

int fan_wait(struct gw_fan *f, bool first)
{
	while (f->left && !(first && f->nr_ok)) {
		if (f->gw->stopping)
			return -ECANCELED;
		if (f->v && f->v->gone && MARKED(own_fan_gone))
			return -EAGAIN;
		f->waiter = co_self();
		co_park("replicas"); /* ~ */
		f->waiter = NULL;
	}
	return 0;
}

/* G5: what is still out is left to itself. */
void fan_done(struct gw_fan *f)
{
	struct gw_call *k, *next;

	cds_list_del(&f->node);
	cds_list_for_each_entry_safe (k, next, &f->calls, node) {
		cds_list_del(&k->node);
		k->fan = NULL;
		if (k->finished)
			call_free(k);
	}
}

/* ---- writes ---- */

static struct gw_write *write_new(struct gateway *gw)
{
	struct gw_write *w = gw->spare_writes;

	if (w) {
		gw->spare_writes = w->next;
		gw->nr_spare_writes--;
	} else {
		w = malloc(sizeof(*w));
		if (!w)
			return NULL;
	}
	memset(w, 0, sizeof(*w));
	gw->nr_writes++;
	return w;
}

/* Nobody waits for it and no call of it is out. */
static void write_free(struct gw_write *w)
{
	struct gateway *gw = w->o->v->gw;

	assert(!w->linked && !w->waiter && !w->calls_out);
	buf_put(w->data);
	if (w->crc != w->crc_small)
		free(w->crc);
	obj_put(w->o);
	gw->nr_writes--;
	if (gw->nr_spare_writes < GW_SPARE_MAX) {
		w->next = gw->spare_writes;
		gw->spare_writes = w;
		gw->nr_spare_writes++;
	} else {
		free(w);
	}
}

static void write_unlink(struct gw_write *w)
{
	struct gw_obj *o = w->o;

	if (!w->linked)
		return;
	w->linked = false;
	cds_list_del(&w->node);
	if (cds_list_empty(&o->writes)) {
		cds_list_del(&o->busy_node);
		o->resend = o->hold = false;
	}
}

/* Checksums of the pieces of the payload cut at 4 KiB boundaries of the object: once, for all
 * replicas. */
static bool write_crc(struct gw_write *w)
{
	const uint8_t *p;
	uint64_t off = w->off, left = w->len;

	w->crc = w->crc_small;
	if (!left)
		return true;
	w->crc_nr = (off + left - 1) / SD_BLOCK_SIZE - off / SD_BLOCK_SIZE + 1;
	if (w->crc_nr > GW_CRC_INLINE) {
		w->crc = malloc(w->crc_nr * sizeof(*w->crc));
		if (!w->crc) {
			w->crc = w->crc_small;
			return false;
		}
	}
	p = (const uint8_t *)w->data->data + w->data_off;
	for (unsigned i = 0; i < w->crc_nr; i++) {
		uint64_t n = SD_BLOCK_SIZE - off % SD_BLOCK_SIZE;
		if (n > left)
			n = left;
		w->crc[i] = crc32c(p, n);
		p += n;
		off += n;
		left -= n;
	}
	return true;
}

static void retry_later(struct gateway *gw)
{
	if (gw->retry_armed || gw->stopping)
		return;
	gw->retry_armed = true;
	env_timer_set(gw->sh->env, &gw->retry, env_now(gw->sh->env) + GW_RETRY_NS);
}

/* A round has failed: another one when a view or the timer says so. */
static void obj_failed(struct gw_obj *o)
{
	MARK(own_round_failed);
	o->resend = o->hold = true;
	retry_later(o->v->gw);
}

static void write_call_done(struct peer_call *c);

/* The simulator's test of itself (plant.h). */
static bool plant_answered(const struct gw_write *w, uint32_t m)
{
#ifdef SIM_PLANTS
	return PLANTED(resend_unanswered) &&
	       (w->plant_answered >> w->o->v->gw->view->members[m].addr.ip[15] & 1);
#endif
	return false;
}

static void plant_answer(struct gw_write *w, const struct gw_call *k)
{
#ifdef SIM_PLANTS
	const struct view *view = w->o->v->gw->view;
	if (PLANTED(resend_unanswered) && w->epoch == view->epoch)
		w->plant_answered |= 1u << view->members[k->member].addr.ip[15];
	if (PLANTED(ack_early) && w->linked && w->calls_out > 1 && w->waiter) {
		w->complete = true;
		co_wake(w->waiter);
	}
#endif
}

/* The ring, we ourselves last: the others work while we write our own copy. */
static void ring_order(const struct gw_obj *o, uint32_t *order)
{
	uint32_t self = (uint32_t)o->v->gw->view->self;
	uintptr_t first = PLANTED(pointer_order) ? (uintptr_t)o >> 6 : 0;
	unsigned n = 0;

	for (unsigned i = 0; i < o->nr_ring; i++)
		if (o->ring[(first + i) % o->nr_ring] != self)
			order[n++] = o->ring[(first + i) % o->nr_ring];
	if (n < o->nr_ring)
		order[n] = self;
}

/* To every replica of the present ring, in this epoch, whatever it answered before (WHY B2). */
static void write_send(struct gw_write *w)
{
	uint32_t order[SD_COPIES_MAX];
	struct gw_obj *o = w->o;
	struct gateway *gw = o->v->gw;
	struct view *view = gw->view;

	assert(!w->calls_out);
	w->epoch = view->epoch;
	w->nr_need = o->nr_ring;
	w->nr_ok = w->nr_refused = 0;
	w->again = w->full = false;
	ring_order(o, order);
	for (unsigned i = 0; i < o->nr_ring; i++) {
		if (plant_answered(w, order[i]) && (w->calls_out || i + 1 < o->nr_ring)) {
			w->nr_ok++;
			continue;
		}
		struct gw_call *k = call_new(gw);
		if (!k && MARKED(own_send_nomem))
			break; /* the round fails and is repeated */
		k->w = w;
		k->member = order[i];
		k->epoch = w->epoch;
		k->c.req = (struct peer_hdr){
			.op = w->op,
			.flags = w->flags,
			.epoch = w->epoch,
			.vid = o->v->vid,
			.oid = o->oid,
			.ver_gen = w->ver.gen,
			.ver_seq = w->ver.seq,
			.prev_gen = w->prev.gen,
			.prev_seq = w->prev.seq,
			.off = w->off,
			.len = w->len,
			.obj_size = o->size,
			.copies = o->v->copies,
			.crc_nr = w->crc_nr,
			.data_len = w->len,
		};
		k->c.data = w->data;
		k->c.data_off = w->data_off;
		k->c.data_len = w->len;
		k->c.crc = w->crc;
		k->c.crc_nr = w->crc_nr;
		k->c.done = write_call_done;
		w->calls_out++;
		o->calls_out++;
		peer_submit(gw->sh, &view->members[order[i]].inc, &k->c);
	}
}

/* A round: every write in flight of the object, same versions, in order (G4). */
static void obj_send(struct gw_obj *o)
{
	struct gw_write *w;

	assert(!o->calls_out);
	o->resend = o->hold = true;
	if ((o->unstick || !gv_usable(o->v) || !obj_ring(o)) && MARKED(own_views_meet))
		return; /* unstick_co(), the next view */
	o->resend = o->hold = false;
	cds_list_for_each_entry (w, &o->writes, node) {
		write_send(w);
		if (!w->calls_out) {
			obj_failed(o);
			return;
		}
	}
}

/* Cached: these replicas are to be asked by the next flush.  At the moment of completion, while the
 * ring is the one that has answered; gv_view() follows the members through later views. */
static void write_unflushed(struct gw_write *w)
{
	struct gw_obj *o = w->o;

	assert(o->ring_epoch == w->epoch);
	for (unsigned i = 0; i < o->nr_ring; i++)
		o->v->unflushed[o->ring[i] / 64] |= 1ull << (o->ring[i] % 64);
}

/* The object is torn on every replica (DESIGN 6): what lies there gets a version of ours, and what
 * is in flight new ones above it, in the same order: none of it was answered, and nothing of the
 * object is under way.  Of what was applied the same is applied again. */
struct obj_ver obj_renumber(struct gw_obj *o)
{
	struct gw_vdi *v = o->v;
	struct obj_ver ver = {v->gen, ++v->seq};
	struct gw_write *w;

	assert(!o->calls_out);
	o->ver = ver;
	cds_list_for_each_entry (w, &o->writes, node) {
		w->prev = o->ver;
		w->ver = (struct obj_ver){v->gen, ++v->seq};
		o->ver = w->ver;
	}
	return ver;
}

/* All replicas are in sync at @ver, which may be another one after all, of somebody who came back:
 * the writes in flight go on from there. */
static void obj_goes_on(struct gw_obj *o, struct obj_ver ver)
{
	struct gw_write *w;

	MARK(own_goes_on);
	assert(!o->calls_out);
	cds_list_for_each_entry (w, &o->writes, node)
		if (obj_ver_cmp(w->ver, ver) > 0) {
			w->prev = ver;
			return;
		}
	o->ver = ver;
}

/* A replica in sync lacks, again and again, what comes before a write: it has lost the object, or
 * has an older one (a disk that lied).  It would wait for ever: compare, and take the highest.  It
 * is a state of the one sequence of writes (I3), so the round that follows finds it done or goes on
 * from there. */
static bool unstick_wanted(struct gw_obj *o)
{
	return o->torn || !cds_list_empty(&o->writes);
}

static void unstick_co(void *arg)
{
	struct gw_obj *o = arg;
	struct gateway *gw = o->v->gw;
	struct obj_ver ver;
	struct gw_op op;
	int r = -EAGAIN;

	op_begin_internal(gw, &op, o->v->vid);
	bool torn = false;
	while (r == -EAGAIN && !gw->stopping && !o->v->gone && unstick_wanted(o)) {
		torn |= o->torn;
		if (!o->calls_out && gv_usable(o->v) && obj_ring(o))
			r = obj_equalize(o, &ver); /* ~ */
		if (r == -EAGAIN && !gw->stopping)
			gw_wait(gw, GW_LOOK_NS, "unstick"); /* ~ */
	}
	if (!r && torn)
		obj_goes_on(o, ver);
	else if (!r && MARKED(own_unstick))
		log_err(gw->sh->log, "object %016llx differed between its replicas",
			(unsigned long long)o->oid);
	o->unstick = o->torn = false;
	o->stuck = 0;
	if (!gw->stopping && !cds_list_empty(&o->writes) && !o->calls_out)
		obj_send(o);
	op_end(&op);
	gv_op_end(o->v);
	obj_put(o);
}

void obj_unstick(struct gw_obj *o)
{
	if (o->unstick || o->v->gw->stopping)
		return;
	o->unstick = true;
	o->refs++;
	gv_op_begin(o->v); /* it is not released before */
	if (!co_start(o->v->gw->sh->sched, unstick_co, o, "unstick")) {
		o->unstick = false;
		gv_op_end(o->v);
		o->refs--; /* the caller has one */
	}
}

/* A block that @w covers in part is bad on every replica, and nobody can repair it, or they have no
 * room: the client is told, as by a disk.  All of ring(e), in sync in e, have said that what they
 * have is what comes before @w, so it is no part of the sequence of writes.  Its version is not
 * given again, nor are those of the writes behind it, which go out with new ones: whoever took them
 * in an epoch before differs by his version when he comes back (I3).  Writing the whole block heals
 * it. */
static void write_refused(struct gw_write *w)
{
	struct gw_obj *o = w->o;
	struct obj_ver ver = w->prev;
	struct cds_list_head *pos;

	for (pos = w->node.next; pos != &o->writes; pos = pos->next) {
		struct gw_write *n = cds_list_entry(pos, struct gw_write, node);
		n->prev = ver;
		ver = n->ver = (struct obj_ver){o->v->gen, ++o->v->seq};
	}
	o->ver = ver;
	if (!w->full && MARKED(own_refused))
		log_err(o->v->gw->sh->log, "object %016llx: a block at %llu+%llu is bad everywhere",
			(unsigned long long)o->oid, (unsigned long long)w->off,
			(unsigned long long)w->len);
	else
		MARK(own_refused_full);
	w->refused = true;
	write_unlink(w);
	if (w->waiter)
		co_wake(w->waiter);
	if (!cds_list_empty(&o->writes) && !o->resend)
		obj_failed(o);
}

static void write_settled(struct gw_write *w)
{
	struct gw_obj *o = w->o;

	if (!w->linked)
		return;
	if (w->nr_need && w->nr_refused == w->nr_need && gw_epoch_is(o->v->gw, w->epoch)) {
		write_refused(w);
		return;
	}
	if (w->nr_ok == w->nr_need && gw_epoch_is(o->v->gw, w->epoch) && MARKED(own_all_answered)) {
		w->complete = true;
		o->stuck = 0;
		if (!(w->flags & PEER_F_DURABLE) && MARKED(own_unflushed))
			write_unflushed(w);
		write_unlink(w);
		if (w->waiter)
			co_wake(w->waiter);
	} else if (!o->resend) {
		obj_failed(o);
		if (w->again && ++o->stuck >= GW_STUCK_MAX)
			obj_unstick(o);
	}
}

/* The replica's answer to @k is not that it has it. */
static void write_not_done(struct gw_write *w, const struct gw_call *k)
{
	const struct peer_hdr *p = &k->c.rsp;
	bool bad = p->result == SD_RES_EIO && (p->flags & PEER_F_BAD);
	bool full = p->result == SD_RES_NO_SPACE;

	if ((bad || full) && p->epoch == k->epoch)
		w->nr_refused++;
	w->full |= full;
	w->again |= p->result == SD_RES_AGAIN;
	if (full && room_of(k->gw, k))
		room_of(k->gw, k)->full = true;
}

static void write_call_done(struct peer_call *c)
{
	struct gw_call *k = caa_container_of(c, struct gw_call, c);
	struct gw_write *w = k->w;
	struct gw_obj *o = w->o;
	struct gateway *gw = k->gw;

	k->finished = true;
	if (call_ok(k)) {
		w->nr_ok++;
		plant_answer(w, k);
	} else if (!c->error) {
		write_not_done(w, k);
	}
	call_free(k);
	assert(w->calls_out && o->calls_out);
	w->calls_out--;
	o->calls_out--;
	o->refs++; /* the last write may take the object with it */
	if (!w->calls_out) {
		write_settled(w);
		if (!w->linked && !w->waiter)
			write_free(w);
	}
	if (o->resend && !o->hold && !o->calls_out && !gw->stopping)
		obj_send(o);
	obj_put(o);
}

/* May it be sent?  The last checks before the version is taken: no yield from here to the list
 * (G1). */
static int write_check(struct gw_op *op, struct gw_obj *o, const struct gw_io *io)
{
	struct gateway *gw = op->gw;
	const struct vdi *t;

	if (op_over(op) && MARKED(own_write_over))
		return -ECANCELED;
	if (!gv_usable(o->v) && MARKED(own_write_view))
		return -EAGAIN;
	if (!op->internal) {
		t = cluster_vdi(gw->sh->cluster, o->v->vid);
		if ((!t || t->deleted) && MARKED(own_write_deleted))
			return SD_RES_NO_OBJ;
		if (t->snap_ctime && io->op == PEER_WRITE && SD_OID_IS_DATA(o->oid) &&
		    MARKED(own_write_readonly))
			return SD_RES_READONLY; /* T20 */
	}
	/* What an earlier part of the request began is finished (a discard's removal). */
	return gw_halted(gw, o->v->copies, !op->internal && !op->sent);
}

/* Take a version and send. */
static void write_begin(struct gw_op *op, struct gw_obj *o, struct gw_write *w)
{
	struct gateway *gw = op->gw;

	op->sent = true;
	w->prev = o->ver;
	w->ver = (struct obj_ver){o->v->gen, ++o->v->seq};
	o->ver = w->ver;
	w->linked = true;
	if (cds_list_empty(&o->writes))
		cds_list_add_tail(&o->busy_node, &gw->busy);
	cds_list_add_tail(&w->node, &o->writes);
	if ((o->resend || o->unstick) && MARKED(own_write_behind)) {
		if (!o->hold && !o->calls_out)
			obj_send(o);
		return; /* it goes out with the next round, behind the others */
	}
	obj_ring(o);
	write_send(w);
	if (!w->calls_out)
		obj_failed(o);
}

int owner_write(struct gw_op *op, struct gw_obj *o, const struct gw_io *io)
{
	struct gateway *gw = op->gw;
	struct gw_vdi *v = o->v;
	struct gw_write *w;
	int r = 0;

	if (!io->durable && !v->cached && !op->internal)
		r = gv_say_cached(op, v); /* ~ */
	if (!r)
		r = write_check(op, o, io);
	if (r)
		return r;
	w = write_new(gw);
	if (!w && MARKED(own_write_nomem))
		return SD_RES_NO_MEM;
	o->refs++;
	w->o = o;
	w->op = io->op;
	w->flags = (io->create ? PEER_F_CREATE : 0) | (io->durable ? PEER_F_DURABLE : 0);
	w->off = io->off;
	w->len = io->len;
	w->data = io->len ? buf_get(io->data) : NULL;
	w->data_off = io->data_off;
	if (!write_crc(w)) {
		write_free(w);
		return SD_RES_NO_MEM;
	}
	w->waiter = co_self();
	write_begin(op, o, w);
	while (!w->complete && !w->refused && !gw->stopping && !v->gone)
		co_park("write"); /* ~ G2 */
	w->waiter = NULL;
	if (w->complete) {
		if (io->op == PEER_REMOVE) {
			MARK(own_removed);
			o->exists = false;
			o->ver = (struct obj_ver){0, 0};
		} else if (io->create) {
			o->exists = true;
		}
		r = SD_RES_SUCCESS;
	} else if (w->refused) {
		r = w->full ? SD_RES_NO_SPACE : SD_RES_EIO;
	} else {
		MARK(own_write_lost);
		write_unlink(w);
		r = gw->stopping ? -ECANCELED : -EAGAIN;
	}
	if (!w->calls_out && !(PLANTED(ack_early) && w->linked))
		write_free(w);
	return r;
}

/* ---- space: asked for before a version is taken (DESIGN 5.2, WHY B14) ---- */

static void room_answer(struct gateway *gw, const struct gw_call *k)
{
	struct gw_room *room = room_of(gw, k);

	if (room && !k->c.error)
		room->full = k->c.rsp.result == SD_RES_NO_SPACE;
}

static void room_done(struct peer_call *c)
{
	struct gw_call *k = caa_container_of(c, struct gw_call, c);
	struct gateway *gw = k->gw;

	room_answer(gw, k);
	if (room_of(gw, k))
		room_of(gw, k)->asking = false;
	call_free(k);
}

static void room_fill(struct gw_call *k)
{
	k->c.req.op = PEER_PING;
	k->c.req.epoch = k->epoch;
	k->c.req.len = GW_ROOM_ASK;
}

/* Ask in the background, for the writes to come. */
static void room_ask(struct gateway *gw, unsigned m)
{
	struct gw_room *room = &gw->room[m];
	struct gw_call *k;

	if (room->asking || !(k = call_new(gw)))
		return;
	k->member = m;
	k->epoch = gw->view->epoch;
	room_fill(k);
	k->c.done = room_done;
	room->asking = true;
	room->asked_at = env_now(gw->sh->env);
	MARK(own_room_ask);
	peer_submit(gw->sh, &gw->view->members[m].inc, &k->c);
}

/* Those in @m are low on space: may this write be done there all the same?  Room may be back, or it
 * needs none. */
static int room_for(struct gw_op *op, struct gw_obj *o, const struct gw_io *io, const unsigned *m,
		    unsigned nr)
{
	struct gateway *gw = op->gw;
	struct gw_call *k;
	struct gw_fan f;
	int r = SD_RES_SUCCESS;

	MARK(own_low);
	fan_init(&f, gw, o->v);
	for (unsigned i = 0; r == SD_RES_SUCCESS && i < nr; i++) {
		k = fan_call(&f, PEER_ROOM, m[i]);
		if (!k) {
			r = SD_RES_NO_MEM;
			break;
		}
		k->c.req.flags = io->create ? PEER_F_CREATE : 0;
		k->c.req.vid = o->v->vid;
		k->c.req.oid = o->oid;
		k->c.req.copies = o->v->copies;
		k->c.req.off = io->off;
		k->c.req.len = io->len;
		k->c.req.obj_size = o->size;
		fan_submit(&f, k, &gw->view->members[m[i]].inc);
	}
	if (r == SD_RES_SUCCESS)
		r = fan_wait(&f, false); /* ~ */
	if (r == SD_RES_SUCCESS && (!gw->view || gw->view->epoch != f.epoch))
		r = -EAGAIN;
	cds_list_for_each_entry (k, &f.calls, node)
		if (r == SD_RES_SUCCESS && !k->c.error && k->c.rsp.result == SD_RES_NO_SPACE &&
		    MARKED(own_no_space))
			r = SD_RES_NO_SPACE;
	fan_done(&f);
	return r;
}

int owner_room(struct gw_op *op, struct gw_obj *o, const struct gw_io *io)
{
	struct gateway *gw = op->gw;
	uint64_t now = env_now(gw->sh->env);
	unsigned low[SD_COPIES_MAX], nr = 0;

	if (!gv_usable(o->v) || !gw->room)
		return SD_RES_SUCCESS; /* found out when it is sent */
	for (unsigned i = 0; i < obj_ring(o); i++) {
		unsigned m = o->ring[i];
		struct gw_room *room = &gw->room[m];
		if ((int)m == gw->view->self)
			room->full = !store_has_room(gw->sh->store, GW_ROOM_ASK);
		else if (!room->asked_at || now - room->asked_at > GW_ROOM_NS)
			room_ask(gw, m); /* for the writes to come */
		if (room->full)
			low[nr++] = m;
	}
	return nr ? room_for(op, o, io, low, nr) : SD_RES_SUCCESS; /* ~ */
}

/* ---- torn on every replica (DESIGN 6) ---- */

void gateway_torn(struct sheep *sh, struct peer_call *c)
{
	struct gateway *gw = sh->gateway;
	uint64_t oid = c->req.oid;
	struct gw_vdi *v = gw ? gv_find(gw, SD_OID_VID(oid)) : NULL;
	struct gw_obj *o;

	c->error = 0;
	c->reply_len = 0;
	c->rsp = (struct peer_hdr){.op = c->req.op,
				   .id = c->req.id,
				   .epoch = c->req.epoch,
				   .oid = oid,
				   .result = SD_RES_SUCCESS};
	/* Only what is ours, and is not about to be handed out: others may hear of our claim before
	 * we do, or of our release after us. */
	if (!v || gw->stopping || !gv_usable(v) ||
	    !(v->state == GV_OWNED || (v->state == GV_RELEASING && v->nr_ops)) ||
	    !(o = obj_get(v, oid)))
		return; /* it is told again */
	MARK(own_torn);
	o->torn = true;
	obj_unstick(o);
	obj_put(o);
}

/* ---- degraded service (protocol.md 9.5) ---- */

uint32_t gw_halted(const struct gateway *gw, uint8_t copies, bool write)
{
	const struct view *view = gw->view;

	if (!view->ring->nr_zones && MARKED(own_halt))
		return SD_RES_HALT;
	if (write && (cluster_params(gw->sh->cluster)->flags & SD_CLUSTER_STRICT) &&
	    view->ring->nr_zones < copies && MARKED(own_strict))
		return SD_RES_HALT;
	return SD_RES_SUCCESS;
}

/* ---- views and the end ---- */

static void retry_timer(struct env_timer *t)
{
	struct gateway *gw = caa_container_of(t, struct gateway, retry);
	struct gw_obj *o;

	gw->retry_armed = false;
	if (gw->stopping)
		return;
	cds_list_for_each_entry (o, &gw->busy, busy_node) {
		if (!o->hold)
			continue;
		o->hold = false;
		MARK(own_retry);
		if (!o->calls_out)
			obj_send(o);
	}
}

void owner_init(struct gateway *gw)
{
	gw->retry.fn = retry_timer;
}

/* A new view voids all answers: everything in flight goes to the whole new ring (WHY B2). */
void owner_view(struct gateway *gw)
{
	struct gw_obj *o;

	free(gw->room);
	gw->room = calloc(gw->view->nr ? gw->view->nr : 1, sizeof(*gw->room));
	cds_list_for_each_entry (o, &gw->busy, busy_node) {
		MARK(own_view_voids);
		o->resend = true;
		o->hold = false;
		if (!o->calls_out)
			obj_send(o);
	}
}

/* Let everything that waits look around. */
static void obj_wake(struct gw_obj *o)
{
	struct gw_write *w;

	cds_list_for_each_entry (w, &o->writes, node)
		if (w->waiter)
			co_wake(w->waiter);
}

void owner_wake(struct gw_vdi *v)
{
	struct gw_obj *o;
	struct gw_fan *f;

	cds_list_for_each_entry (o, &v->objs, v_node)
		obj_wake(o);
	cds_list_for_each_entry (f, &v->gw->fans, node)
		if (f->v == v && f->waiter)
			co_wake(f->waiter);
}

void owner_stop(struct gateway *gw)
{
	struct gw_obj *o;
	struct gw_fan *f;

	env_timer_del(gw->sh->env, &gw->retry);
	gw->retry_armed = false;
	cds_list_for_each_entry (o, &gw->busy, busy_node)
		obj_wake(o);
	cds_list_for_each_entry (f, &gw->fans, node)
		if (f->waiter)
			co_wake(f->waiter);
}

void owner_done(struct gateway *gw)
{
	struct gw_call *k;
	struct gw_write *w;

	assert(!gw->nr_calls && !gw->nr_writes && cds_list_empty(&gw->fans));
	while ((k = gw->spare_calls)) {
		gw->spare_calls = k->next;
		free(k);
	}
	while ((w = gw->spare_writes)) {
		gw->spare_writes = w->next;
		free(w);
	}
	free(gw->room);
}
