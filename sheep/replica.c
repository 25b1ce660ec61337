/* replica.c - this node's side of the data path: the handler of every request between daemons but
 * FORWARD (DESIGN 5.2, 5.3, 5.6).
 *
 * Used by: peer.c, one coroutine for each request, in the order of arrival.
 *  R1 A write enters the journal's queue only after all of: the connection is not void, the epoch
 * is the one served here, the generation is not old, the object is in sync here, `previous` is what
 *     it has; all looked at under the object's exclusive lock with no yield before the queue.
 *  R2 Writes of one object are queued in the order in which they came: who must wait, waits in the
 *     object's room, and who comes later does not pass.
 *  R3 An answer about a version is given only when all that was queued for the object has landed.
 *  R4 Nothing waits with an object's lock held but for the disk.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc.h"
#include "sheep/mark.h"
#include "sheep/plant.h"
#include "sheep/sync_int.h"

#define PREVIOUS_NS  200000000ull  /* a write waits for the one before it */
#define FULL_NS	     2000000000ull /* a full disk is borne that long */
#define FULL_GAP_NS  500000000ull  /* refused after so long: not the same write sent again */
#define REPAIR_TRIES 2u		   /* of a bad block that a write covers in part */

/* The waiting room of one object: writes in the order in which they came.  The first one's turn. */
struct room {
	struct cds_list_head held;
};

struct held { /* on the handler's stack */
	struct cds_list_head node;
	struct room *room; /* NULL: not in it */
	bool failed;	   /* one that came before it was not applied: it must not be either */
	struct co_cond turn;
};

/* A write in the journal's queue or on its way to the disk. */
struct landing { /* on the handler's stack */
	struct cds_list_head node;
	uint64_t oid;
};

struct replica {
	struct sheep *sh;
	struct co_cond changed; /* view, in sync, the end */
	struct map rooms;	/* oid -> struct room */
	struct cds_list_head landing;
	struct co_cond landed;
	uint64_t full_since; /* writes do not fit on the disk since then; 0: they do */
	uint64_t full_last;
	unsigned nr_held; /* REPLICA_HELD_MAX */
	struct cds_list_head holds;
};

int replica_init(struct sheep *sh)
{
	struct replica *rep = calloc(1, sizeof(*rep));

	if (!rep)
		return -ENOMEM;
	rep->sh = sh;
	co_cond_init(&rep->changed);
	co_cond_init(&rep->landed);
	map_init(&rep->rooms);
	CDS_INIT_LIST_HEAD(&rep->landing);
	CDS_INIT_LIST_HEAD(&rep->holds);
	sh->replica = rep;
	return 0;
}

void replica_done(struct sheep *sh)
{
	struct replica *rep = sh->replica;

	if (!rep)
		return;
	assert(!rep->rooms.nr && cds_list_empty(&rep->landing) && !rep->nr_held);
	map_done(&rep->rooms);
	free(rep);
	sh->replica = NULL;
}

void replica_kick(struct sheep *sh)
{
	struct replica *rep = sh->replica;
	struct room *room;
	struct held *h;
	size_t pos = 0;

	if (!rep)
		return;
	co_cond_broadcast(&rep->changed);
	if (sh->sync)
		sync_kick(sh->sync);
	while ((room = map_next(&rep->rooms, &pos, NULL)))
		cds_list_for_each_entry (h, &room->held, node)
			co_cond_broadcast(&h->turn);
}

/* ---- common ---- */

static bool canceled(const struct replica *rep, struct peer_call *c)
{
	if ((!c->voided || PLANTED(tomb_none)) && !rep->sh->sync->stopping)
		return false;
	c->error = -ECANCELED;
	return true;
}

/* Until requests of the call's epoch are served.  False: it is answered. */
static bool enter_epoch(struct replica *rep, struct peer_call *c)
{
	for (;;) {
		if (canceled(rep, c) && MARKED(rep_void_epoch))
			return false;
		int r = sync_admit(rep->sh->sync, c->req.epoch);
		if (r == 0)
			return true;
		if (r == -ESTALE && MARKED(rep_req_old)) {
			c->rsp.result = SD_RES_OLD_NODE_VER;
			c->rsp.epoch = rep->sh->sync->refuse;
			return false;
		}
		MARK(rep_req_hold);
		co_cond_wait(&rep->changed, "epoch"); /* ~ held until the view arrives */
	}
}

/* Result of a wait for an object to be in sync.  True: look again. */
static bool waited(struct peer_call *c, int r)
{
	if (r == -ENOMEM && MARKED(rep_sync_nomem))
		c->rsp.result = SD_RES_NO_MEM;
	else if (r == -EUCLEAN)
		c->rsp.result = SD_RES_AGAIN; /* the owner was told; it names a version */
	else if (r == -EINVAL && MARKED(rep_not_mine))
		c->rsp.result = SD_RES_INVALID_PARMS; /* not ours in this epoch */
	else if (r == -ECANCELED && MARKED(rep_sync_void))
		c->error = -ECANCELED;
	else
		return true;
	return false;
}

struct hold { /* on the handler's stack: its request waits */
	struct cds_list_head node;
	const struct incarnation *from;
};

/* Too many wait, or too many of this sender: its other requests come over the same connection. */
static bool hold_full(const struct replica *rep, const struct incarnation *from)
{
	const struct hold *h;
	unsigned nr = 0;

	if (rep->nr_held >= REPLICA_HELD_MAX)
		return true;
	if (rep->nr_held < REPLICA_HELD_PEER_MAX)
		return false;
	cds_list_for_each_entry (h, &rep->holds, node)
		nr += h->from->start == from->start &&
		      !memcmp(h->from->uuid, from->uuid, sizeof(from->uuid));
	return nr >= REPLICA_HELD_PEER_MAX;
}

/* The request will wait, unless too many do.  False: it is answered. */
static bool hold_begin(struct replica *rep, struct peer_call *c, struct hold *h)
{
	if (hold_full(rep, c->from) && MARKED(rep_held_max)) {
		c->rsp.result = SD_RES_NO_MEM;
		return false;
	}
	h->from = c->from;
	cds_list_add(&h->node, &rep->holds);
	rep->nr_held++;
	return true;
}

static void hold_end(struct replica *rep, struct hold *h)
{
	assert(rep->nr_held);
	cds_list_del(&h->node);
	rep->nr_held--;
}

static bool enter_sync_held(struct replica *rep, struct peer_call *c, uint8_t copies,
			    const struct settle_by *by)
{
	struct sync *s = rep->sh->sync;

	while (enter_epoch(rep, c)) {							/* ~ */
		int r = sync_wait(s, c->req.epoch, c->req.oid, copies, by, &c->voided); /* ~ */
		if (!waited(c, r))
			return false;
		if (r == 0 && !canceled(rep, c) && sync_admit(s, c->req.epoch) == 0)
			return true;
	}
	return false;
}

/* Until the object is in sync here in the call's epoch.  False: it is answered. */
static bool enter_sync(struct replica *rep, struct peer_call *c, uint8_t copies,
		       const struct settle_by *by)
{
	const struct sync *s = rep->sh->sync;
	struct hold h;

	if (!canceled(rep, c) && sync_admit(s, c->req.epoch) == 0 &&
	    sync_in(s, c->req.oid, sd_hash_oid(c->req.oid), copies))
		return true;
	if (!hold_begin(rep, c, &h))
		return false;
	bool in = enter_sync_held(rep, c, copies, by); /* ~ */
	hold_end(rep, &h);
	return in;
}

static bool gen_old(const struct replica *rep, uint64_t oid, uint64_t gen)
{
	const struct vdi *v = cluster_vdi(rep->sh->cluster, SD_OID_VID(oid));

	return v && gen < v->gen;
}

/* R3: writes of the object that are queued are in the index already, but may not be durable. */
static void wait_landed(struct replica *rep, uint64_t oid)
{
	struct landing *l;
	bool found;

	do {
		found = false;
		cds_list_for_each_entry (l, &rep->landing, node)
			found |= l->oid == oid;
		if (found && MARKED(rep_lands_first))
			co_cond_wait(&rep->landed, "writes to land"); /* ~ */
	} while (found);
}

/* The store cannot keep what it promised: a write that was sent is never given up, so we answer
 * nothing and leave (DESIGN 5.2, WHY B14). */
static void store_broken(struct replica *rep, struct peer_call *c, int r)
{
	MARK(rep_store_broken);
	log_err(rep->sh->log, "object %016" PRIx64 ": cannot write: %s", c->req.oid, strerror(-r));
	c->error = -ECANCELED;
	sheep_exit(rep->sh, 1, "the store cannot take a write");
}

/* The disk is as good as full, although the owner asked for room first; nothing was done.  When all
 * of the ring say so the owner gives the write up; else it is sent again.  It passes soon, or we
 * are in the others' way (DESIGN 5.2). */
static void store_full(struct replica *rep, struct peer_call *c)
{
	uint64_t now = env_now(rep->sh->env);

	c->rsp.result = SD_RES_NO_SPACE;
	MARK(rep_full);
	if (now - rep->full_last > FULL_GAP_NS)
		rep->full_since = 0;
	rep->full_last = now;
	if (!rep->full_since) {
		rep->full_since = now;
		log_err(rep->sh->log, "the disk is full");
	} else if (now - rep->full_since > FULL_NS && MARKED(rep_full_leave)) {
		sheep_exit(rep->sh, 1, "the disk is full");
	}
}

/* ---- rooms (R2) ---- */

static bool room_enter(struct replica *rep, uint64_t oid, struct held *h)
{
	struct room *room = map_get(&rep->rooms, oid);

	if (!room) {
		room = malloc(sizeof(*room));
		if (!room)
			return false;
		CDS_INIT_LIST_HEAD(&room->held);
		if (map_set(&rep->rooms, oid, room) < 0) {
			free(room);
			return false;
		}
	}
	h->room = room;
	co_cond_init(&h->turn);
	cds_list_add_tail(&h->node, &room->held);
	return true;
}

static void room_leave(struct replica *rep, uint64_t oid, struct held *h)
{
	struct room *room = h->room;

	if (!room)
		return;
	h->room = NULL;
	cds_list_del(&h->node);
	if (cds_list_empty(&room->held) && MARKED(rep_room_empty)) {
		map_del(&rep->rooms, oid);
		free(room);
		return;
	}
	co_cond_broadcast(&cds_list_first_entry(&room->held, struct held, node)->turn);
}

/* Is somebody before us? */
static bool room_behind(const struct replica *rep, uint64_t oid, const struct held *h)
{
	const struct room *room = map_get(&rep->rooms, oid);

	return room && (h->room != room || room->held.next != &h->node);
}

/* The first one was refused and will be sent again: those behind it must not go before it. */
static void room_fail(struct held *h)
{
	struct held *o;

	if (!h->room)
		return;
	cds_list_for_each_entry (o, &h->room->held, node) {
		MARK(rep_room_fail);
		o->failed = o != h;
		co_cond_broadcast(&o->turn);
	}
}

/* A write of the object was queued: the first one in its room may be the next. */
static void room_poke(struct replica *rep, uint64_t oid)
{
	struct room *room = rep->rooms.nr ? map_get(&rep->rooms, oid) : NULL;

	if (room)
		co_cond_broadcast(&cds_list_first_entry(&room->held, struct held, node)->turn);
}

/* ---- writes and removals ---- */

enum check {
	CHECK_APPLY,
	CHECK_DONE,	/* we have it: a retry */
	CHECK_OLD,	/* epoch */
	CHECK_FENCED,	/* generation */
	CHECK_VOID,	/* the connection, or we stop */
	CHECK_BEHIND,	/* somebody is before us */
	CHECK_SYNC,	/* the view is not here yet, or the object is todo */
	CHECK_PREVIOUS, /* what comes before it is not here yet */
};

/* R1.  Under the object's exclusive lock; what it says holds until the next yield (WHY B3
 * no-recheck). */
static enum check write_check(struct replica *rep, struct peer_call *c, uint8_t copies,
			      uint64_t hash, const struct held *h)
{
	const struct peer_hdr *q = &c->req;
	struct sync *s = rep->sh->sync;
	struct obj_ver ver = {q->ver_gen, q->ver_seq}, prev = {q->prev_gen, q->prev_seq};
	struct obj_info info;

	/* B13: a newer connection has opened; what came over the older one is not queued. */
	if (((c->voided && !PLANTED(tomb_none)) || s->stopping) && MARKED(rep_void))
		return CHECK_VOID;
	int r = PLANTED(no_epoch) && s->epoch ? 0 : sync_admit(s, q->epoch);
	if (r == -ESTALE && MARKED(rep_write_old))
		return CHECK_OLD;
	if (rep->rooms.nr && room_behind(rep, q->oid, h) && MARKED(rep_behind))
		return CHECK_BEHIND;
	if (r < 0 && MARKED(rep_write_newer))
		return CHECK_SYNC;
	if (gen_old(rep, q->oid, q->ver_gen) && MARKED(rep_fenced))
		return CHECK_FENCED;
	if (PLANTED(done_unsynced) && store_lookup(rep->sh->store, q->oid, &info) &&
	    obj_ver_cmp(ver, info.ver) <= 0)
		return CHECK_DONE;
	/* An object in todo takes no write and answers none as done (WHY B1c done-unsynced). */
	if (!sync_in(s, q->oid, hash, copies) && MARKED(rep_write_todo))
		return CHECK_SYNC;
	bool exists = store_lookup(rep->sh->store, q->oid, &info);
	if (!exists)
		info.ver = (struct obj_ver){0, 0};
	/* A removal of an absent object is done (WHY E x-stuck). */
	if ((obj_ver_cmp(ver, info.ver) <= 0 && MARKED(rep_done)) ||
	    (q->op == PEER_REMOVE && !exists && MARKED(rep_removed)))
		return CHECK_DONE;
	return obj_ver_cmp(prev, info.ver) == 0 && MARKED(rep_apply) ? CHECK_APPLY : CHECK_PREVIOUS;
}

struct write_op {
	struct replica *rep;
	struct peer_call *c;
	struct store_write w;
	struct held held;
	struct landing landing;
	uint64_t hash;
	uint8_t copies;
	int error; /* of the store */
	unsigned repairs;
};

static int write_queue(struct write_op *op, struct store_obj *o)
{
	bool remove = op->c->req.op == PEER_REMOVE;

	sync_have(op->rep->sh->sync, op->copies);
	int r = remove ? store_queue_remove(o, &op->w) : store_queue(o, &op->w);

	if (r == 0) {
		op->landing.oid = op->c->req.oid;
		cds_list_add_tail(&op->landing.node, &op->rep->landing);
	}
	return r;
}

/* One try, under the lock. */
static enum check write_try(struct write_op *op)
{
	struct replica *rep = op->rep;
	struct store_obj *o = store_get(rep->sh->store, op->c->req.oid, true); /* ~ */
	enum check v = write_check(rep, op->c, op->copies, op->hash, &op->held);

	op->error = 0;
	if (PLANTED(no_recheck) && v == CHECK_APPLY) {
		store_put(o);
		co_sleep(300000000);				     /* ~ */
		o = store_get(rep->sh->store, op->c->req.oid, true); /* ~ */
	}
	if (v == CHECK_APPLY && op->c->req.op == PEER_WRITE) {
		op->error = store_prepare(o, &op->w); /* ~ so all is checked again */
		if (op->error == 0) {
			if (!PLANTED(no_recheck))
				v = write_check(rep, op->c, op->copies, op->hash, &op->held);
			if (v != CHECK_APPLY && MARKED(rep_recheck))
				store_abandon(&op->w);
		}
	}
	if (v == CHECK_APPLY && op->error == 0)
		op->error = write_queue(op, o); /* no yield since the check */
	store_put(o);
	return v;
}

static bool write_wait(struct write_op *op, enum check v)
{
	struct peer_call *c = op->c;
	struct sync *s = op->rep->sh->sync;
	struct held *h = &op->held;
	static const struct settle_by none;

	if (!h->room && !room_enter(op->rep, c->req.oid, h) && MARKED(rep_hold_nomem)) {
		c->rsp.result = SD_RES_NO_MEM;
		return false;
	}
	if (room_behind(op->rep, c->req.oid, h) || sync_admit(s, c->req.epoch) == -EAGAIN)
		co_cond_wait(&h->turn, "write held"); /* ~ */
	else if (v != CHECK_PREVIOUS)
		return waited(c, sync_wait(s, c->req.epoch, c->req.oid, op->copies, &none,
					   &c->voided)); /* ~ */
	else if (co_cond_wait_until(&h->turn, env_now(op->rep->sh->env) + PREVIOUS_NS,
				    "previous write") < 0 &&
		 MARKED(rep_previous_never)) /* ~ */
		/* What comes before it was refused, or is behind us: it must be sent again, and so
		 * must we then; the sender does that in the order of versions. */
		h->failed = true;
	if (h->failed && MARKED(rep_failed_behind))
		c->rsp.result = SD_RES_AGAIN;
	return !h->failed;
}

/* Wait for what the check missed.  False: it is answered. */
static bool write_hold(struct write_op *op, enum check v)
{
	struct hold h;

	if (!hold_begin(op->rep, op->c, &h))
		return false;
	bool again = write_wait(op, v); /* ~ */
	hold_end(op->rep, &h);
	return again;
}

/* A block that the write covers in part is bad: it can only be applied when it is repaired.  False:
 * answered, nobody can do that now.  The owner gives the write up when all say so, else it sends it
 * again: then there is one to take the object from. */
static bool write_repair(struct write_op *op)
{
	struct peer_call *c = op->c;
	struct sync *s = op->rep->sh->sync;
	uint64_t last = c->req.off + c->req.len - 1;
	struct held *h = &op->held;

	if (!h->room && !room_enter(op->rep, c->req.oid, h)) {
		c->rsp.result = SD_RES_NO_MEM;
		return false;
	}
	MARK(rep_write_repair);
	int r = repair_range(s, c->req.oid, op->copies, c->req.off, 1); /* ~ */
	if (r == 0)
		r = repair_range(s, c->req.oid, op->copies, last, 1); /* ~ */
	/* The last word is the check's: it may be void, old or done by now. */
	if (++op->repairs < (r ? REPAIR_TRIES : 2 * REPAIR_TRIES))
		return true;
	MARK(rep_write_bad);
	c->rsp.result = SD_RES_EIO;
	c->rsp.flags |= PEER_F_BAD;
	return false;
}

/* Queued: out of the way of the next one, then to the disk, outside of the lock. */
static void write_land(struct write_op *op)
{
	struct replica *rep = op->rep;
	struct peer_call *c = op->c;

	rep->full_since = 0;
	room_leave(rep, c->req.oid, &op->held);
	room_poke(rep, c->req.oid);
	int r = store_wait(rep->sh->store, &op->w); /* ~ */
	cds_list_del(&op->landing.node);
	co_cond_broadcast(&rep->landed);
	if (r < 0)
		store_broken(rep, c, r);
	else
		c->rsp.result = SD_RES_SUCCESS;
}

/* False: try again. */
static bool write_step(struct write_op *op)
{
	struct peer_call *c = op->c;
	enum check v = write_try(op); /* ~ */

	switch (v) {
	case CHECK_APPLY:
		if (op->error == -EILSEQ)
			return !write_repair(op); /* ~ */
		if (op->error == -ENOENT && MARKED(rep_no_obj))
			c->rsp.result = SD_RES_NO_OBJ; /* it should have said CREATE */
		else if (op->error == -ENOMEM && MARKED(rep_write_nomem))
			c->rsp.result = SD_RES_NO_MEM;
		else if (op->error == -EINVAL &&
			 MARKED(rep_write_size)) /* the object has another size */
			c->rsp.result = SD_RES_INVALID_PARMS;
		else if (op->error == -ENOSPC)
			store_full(op->rep, c);
		else if (op->error < 0)
			store_broken(op->rep, c, op->error);
		else
			write_land(op); /* ~ */
		return true;
	case CHECK_DONE:
		MARK(rep_answer_done);
		wait_landed(op->rep, c->req.oid); /* ~ R3 */
		c->rsp.result = SD_RES_SUCCESS;
		return true;
	case CHECK_OLD:
		MARK(rep_answer_old);
		c->rsp.result = SD_RES_OLD_NODE_VER;
		c->rsp.epoch = op->rep->sh->sync->refuse;
		return true;
	case CHECK_FENCED: c->rsp.result = SD_RES_STALE_OBJ; return true;
	case CHECK_VOID: c->error = -ECANCELED; return true;
	default: return !write_hold(op, v); /* ~ */
	}
}

/* What came over the wire is what was sent: one checksum for each piece cut at 4 KiB boundaries. */
static bool crc_good(const struct peer_call *c)
{
	if (!c->data)
		return !c->crc_nr; /* a CREATE without payload */
	const uint8_t *p = (const uint8_t *)c->data->data + c->data_off;
	uint64_t off = c->req.off, left = c->req.len;

	for (unsigned i = 0; i < c->crc_nr; i++) {
		uint64_t n = SD_BLOCK_SIZE - off % SD_BLOCK_SIZE;
		n = n < left ? n : left;
		if (crc32c(p, n) != c->crc[i])
			return false;
		p += n;
		off += n;
		left -= n;
	}
	return true;
}

/* Input from the wire: SD_RES_SUCCESS when it makes sense. */
static uint32_t write_sane(const struct peer_call *c)
{
	const struct peer_hdr *q = &c->req;

	if ((!q->ver_gen && !q->ver_seq) || !q->epoch)
		return SD_RES_INVALID_PARMS;
	if (q->op == PEER_REMOVE)
		return SD_RES_SUCCESS;
	if (q->len != c->data_len || q->len > SD_DATA_LEN_MAX || (q->len && !c->data) ||
	    !q->obj_size || q->obj_size > 1ull << SD_OBJ_SHIFT_MAX || q->off > q->obj_size ||
	    q->len > q->obj_size - q->off || (!q->len && !(q->flags & PEER_F_CREATE)))
		return SD_RES_INVALID_PARMS;
	uint64_t pieces =
		!q->len ? 0 : (q->off + q->len - 1) / SD_BLOCK_SIZE - q->off / SD_BLOCK_SIZE + 1;
	return pieces == c->crc_nr && (!pieces || c->crc) ? SD_RES_SUCCESS : SD_RES_INVALID_PARMS;
}

static void do_write(struct replica *rep, struct peer_call *c, bool local)
{
	const struct peer_hdr *q = &c->req;
	struct write_op op = {.rep = rep, .c = c, .hash = sd_hash_oid(q->oid)};

	c->rsp.result = write_sane(c);
	if (c->rsp.result != SD_RES_SUCCESS && MARKED(rep_insane))
		return;
	op.copies = sync_copies(rep->sh->sync, q->oid, q->copies);
	if (!op.copies) {
		c->rsp.result = SD_RES_INVALID_PARMS;
		return;
	}
	if (c->crc_nr && !local && !crc_good(c) && MARKED(rep_bad_crc)) {
		c->error = -EBADMSG;
		return;
	}
	op.w = (struct store_write){
		.ver = {q->ver_gen, q->ver_seq},
		.durable = q->flags & PEER_F_DURABLE,
		.copies = op.copies,
	};
	if (q->op == PEER_WRITE) {
		op.w.off = q->off;
		op.w.len = q->len;
		op.w.data = c->data;
		op.w.data_off = c->data_off;
		op.w.crc = c->crc;
		op.w.create = q->flags & PEER_F_CREATE;
		op.w.size = q->obj_size;
	}
	while (!write_step(&op)) /* ~ */
		;
	if (c->rsp.result != SD_RES_SUCCESS)
		room_fail(&op.held);
	room_leave(rep, q->oid, &op.held);
}

/* ---- reads ---- */

static void read_reply(struct replica *rep, struct peer_call *c, int r, uint64_t bad,
		       uint8_t copies)
{
	const struct peer_hdr *q = &c->req;

	if (r == 0) {
		c->rsp.result = SD_RES_SUCCESS;
		c->reply_len = q->len;
		return;
	}
	c->rsp.result = SD_RES_EIO;
	if (r == -ENOENT && MARKED(rep_read_absent))
		c->rsp.result = SD_RES_NO_OBJ;
	if (r == -ENOMEM && MARKED(rep_read_nomem))
		c->rsp.result = SD_RES_NO_MEM;
	if (r == -EILSEQ &&
	    MARKED(rep_read_bad)) { /* I6: never as data; the owner reads elsewhere */
		c->rsp.flags |= PEER_F_BAD;
		log_warn(rep->sh->log, "object %016" PRIx64 ": bad block at %" PRIu64, q->oid, bad);
		repair_start(rep->sh->sync, q->oid, copies, bad, q->off + q->len - bad);
	}
}

static bool read_buffer(struct replica *rep, struct peer_call *c)
{
	if (!c->reply_buf) { /* for a remote owner: peer.c puts it after it was sent */
		c->reply_buf = buf_new(rep->sh->pool, c->req.len);
		c->reply_off = 0;
		c->reply_cap = c->reply_buf ? c->req.len : 0;
	}
	return c->reply_cap >= c->req.len;
}

static void do_read(struct replica *rep, struct peer_call *c)
{
	const struct peer_hdr *q = &c->req;
	struct sync *s = rep->sh->sync;
	uint8_t copies = sync_copies(s, q->oid, q->copies);
	struct obj_info info = {0};
	uint64_t bad = q->off;
	bool done = false, remote = !c->reply_buf;

	if (!copies || !q->len || q->len > SYNC_READ_MAX || q->off > 1ull << SD_OBJ_SHIFT_MAX) {
		c->rsp.result = SD_RES_INVALID_PARMS;
		return;
	}
	while (!done && (PLANTED(read_unsynced) ? enter_epoch(rep, c)
						: enter_sync(rep, c, copies, NULL))) { /* ~ */
		struct store_obj *o = store_get(rep->sh->store, q->oid, false);	       /* ~ */
		int r = -ENOMEM;

		store_lookup(rep->sh->store, q->oid, &info);
		if (read_buffer(rep, c))
			r = store_read(o, q->off, q->len, c->reply_buf, c->reply_off, &bad); /* ~ */
		store_put(o);
		/* The epoch may be over, now that the data is there: then it is not ours to give.
		 */
		if (canceled(rep, c) && MARKED(rep_read_void))
			break;
		if ((sync_admit(s, q->epoch) ||
		     (!PLANTED(read_unsynced) &&
		      !sync_in(s, q->oid, sd_hash_oid(q->oid), copies))) &&
		    MARKED(rep_read_over))
			continue;
		c->rsp.ver_gen = info.ver.gen;
		c->rsp.ver_seq = info.ver.seq;
		c->rsp.obj_size = info.size;
		read_reply(rep, c, r, bad, copies);
		done = true;
	}
	if (remote && (c->error || c->rsp.result != SD_RES_SUCCESS))
		buf_put(TAKE(c->reply_buf, NULL));
}

/* ---- versions and takeover (DESIGN 5.6) ---- */

static void version_reply(struct peer_call *c, const struct obj_info *info)
{
	MARK(rep_version);
	c->rsp.result = SD_RES_SUCCESS;
	c->rsp.ver_gen = info->ver.gen;
	c->rsp.ver_seq = info->ver.seq;
	c->rsp.obj_size = info->size;
	c->rsp.copies = info->copies;
	if (info->torn && MARKED(rep_version_torn))
		c->rsp.flags |= PEER_F_TORN;
}

/* The simulator's test of itself (plant.h): what answers a takeover counts as in sync. */
static void plant_in_sync(struct replica *rep, uint64_t oid, uint8_t copies)
{
	struct mark_rec rec = {
		.type = MARK_OBJECT, .oid = oid, .box.clo = copies, .box.chi = copies};
	struct job j;

	if (!PLANTED(recon_all) || sync_in(rep->sh->sync, oid, sd_hash_oid(oid), copies))
		return;
	job_begin(rep->sh->sync, &j);
	rec.epoch = j.epoch;
	sync_mark(&j, &rec); /* ~ */
	job_end(&j);
}

/* Answered once in sync in that epoch: each of ring(e) must be (WHY E x-take).  The lock: a state
 * that is being brought up is there whole, or not yet. */
static void do_version(struct replica *rep, struct peer_call *c)
{
	struct sync *s = rep->sh->sync;
	uint64_t oid = c->req.oid;
	uint8_t copies = sync_copies(s, oid, c->req.copies);
	struct settle_by by = {c->req.prev_gen, {c->req.ver_gen, c->req.ver_seq}};

	if (!copies) {
		c->rsp.result = SD_RES_INVALID_PARMS;
		return;
	}
	while (PLANTED(x_take) || PLANTED(recon_all) ? enter_epoch(rep, c)
						     : enter_sync(rep, c, copies, &by)) { /* ~ */
		struct obj_info info = {0};
		plant_in_sync(rep, oid, copies); /* ~ */
		if (PLANTED(x_take) && !sync_in(s, oid, sd_hash_oid(oid), copies)) {
			info.ver = (struct obj_ver){UINT64_MAX, 0}; /* not asked */
			version_reply(c, &info);
			return;
		}
		struct store_obj *o = store_get(rep->sh->store, oid, false); /* ~ */
		wait_landed(rep, oid);					     /* ~ R3 */
		store_lookup(rep->sh->store, oid, &info);
		store_put(o);
		if (canceled(rep, c) && MARKED(rep_version_void))
			return;
		bool in = sync_in(s, oid, sd_hash_oid(oid), copies);
		if ((sync_admit(s, c->req.epoch) || !in) && MARKED(rep_version_over))
			continue;
		version_reply(c, &info);
		return;
	}
}

struct settle {
	struct replica *rep;
	struct peer_call *c;
	uint8_t copies;
};

/* The tag (epoch, generation) still holds. */
static bool settle_still(struct job *j, void *arg)
{
	const struct settle *se = arg;
	uint64_t oid = se->c->req.oid;

	return !se->c->voided && !gen_old(se->rep, oid, se->c->req.prev_gen) &&
	       sync_in(j->s, oid, sd_hash_oid(oid), se->copies);
}

static int settle_locked(struct job *j, struct settle *se, struct store_obj *o, unsigned src)
{
	const struct peer_hdr *q = &se->c->req;
	struct pull p = {.oid = q->oid, .copies = se->copies, .src = src, .rule = PULL_EXACT};
	struct obj_info info = {0};

	p.ver = (struct obj_ver){q->ver_gen, q->ver_seq};
	p.gen = q->prev_gen;
	p.still = settle_still;
	p.arg = se;
	store_lookup(j->s->sh->store, q->oid, &info);
	if (!settle_still(j, se) && MARKED(rep_settle_tag))
		return -EAGAIN;
	int d = obj_ver_cmp(info.ver, p.ver);
	if (d == 0 && !info.torn && MARKED(rep_settle_same))
		return 0;
	if (d > 0 && MARKED(rep_settle_higher))
		return -EAGAIN;
	MARK(rep_settle);
	return pull_locked(j, o, &p); /* ~ */
}

/* Bring this replica, in sync, to the version that the takeover found highest.  It is a later one
 * of the same sequence of writes, so we stay in sync (I3). */
static void do_settle(struct replica *rep, struct peer_call *c)
{
	struct sync *s = rep->sh->sync;
	struct settle se = {rep, c, sync_copies(s, c->req.oid, c->req.copies)};
	struct incarnation from;
	struct job j;
	int r = -EAGAIN;

	_Static_assert(sizeof(from) <= sizeof(c->req.client), "SETTLE's source");
	memcpy(&from, c->req.client, sizeof(from));
	if (!se.copies || (!c->req.ver_gen && !c->req.ver_seq)) {
		c->rsp.result = SD_RES_INVALID_PARMS;
		return;
	}
	if (!enter_sync(rep, c, se.copies, NULL)) /* ~ */
		return;
	job_begin(s, &j);
	int src = view_find(j.view, &from);
	struct store_obj *o =
		src < 0 || src == j.view->self ? NULL : pull_lock(&j, c->req.oid); /* ~ */
	if (o) {
		r = job_over(&j) ? -ESTALE : settle_locked(&j, &se, o, (unsigned)src); /* ~ */
		pull_unlock(&j, c->req.oid, o);
		room_poke(rep, c->req.oid);
	}
	/* Stored in an epoch that is over by now: whoever asks next sees it, and answers anew. */
	if (r == 0 && job_over(&j) && MARKED(rep_settle_late))
		r = -ESTALE;
	job_end(&j);
	if (canceled(rep, c) || r == -ECANCELED)
		c->error = -ECANCELED;
	else if (r == -ESTALE) {
		c->rsp.result = SD_RES_OLD_NODE_VER;
		c->rsp.epoch = s->refuse;
	} else
		c->rsp.result = r == 0 ? SD_RES_SUCCESS : SD_RES_AGAIN;
}

/* ---- the others ---- */

static void do_flush(struct replica *rep, struct peer_call *c)
{
	const struct vdi *v;

	if (!enter_epoch(rep, c)) /* ~ */
		return;
	if ((c->req.flags & PEER_F_IN_SYNC) && !sync_covered(rep->sh->sync, c->req.copies) &&
	    MARKED(rep_flush_early)) {
		c->rsp.result = SD_RES_AGAIN;
		return;
	}
	MARK(rep_flush);
	int r = store_flush(rep->sh->store); /* ~ */
	if (r < 0) {
		store_broken(rep, c, r);
		return;
	}
	c->rsp.result = SD_RES_SUCCESS;
	v = cluster_vdi(rep->sh->cluster, c->req.vid);
	if (v && v->cache_lost) /* the owner may hear of it later than we did */
		c->rsp.flags |= PEER_F_LOSSY;
}

/* len: is there room for a client's write of so many bytes? */
static void do_ping(struct replica *rep, struct peer_call *c)
{
	bool room = !c->req.len || store_has_room(rep->sh->store, c->req.len);

	c->rsp.result = room || !MARKED(rep_no_room) ? SD_RES_SUCCESS : SD_RES_NO_SPACE;
}

/* Has this write room here?  What the object takes on the disk already needs none, and is not
 * refused below the reserve (I9). */
static void do_room(struct replica *rep, struct peer_call *c)
{
	const struct peer_hdr *q = &c->req;
	struct store *st = rep->sh->store;
	uint8_t copies = sync_copies(rep->sh->sync, q->oid, q->copies);
	bool create = q->flags & PEER_F_CREATE, room;

	c->rsp.result = SD_RES_INVALID_PARMS;
	if (!copies || q->obj_size > 1ull << SD_OBJ_SHIFT_MAX || q->off > q->obj_size ||
	    q->len > q->obj_size - q->off)
		return;
	room = store_take_room(st, create ? q->obj_size : q->len);
	if (!room && !create) {
		MARK(rep_low);
		if (!enter_sync(rep, c, copies, NULL)) /* ~ */
			return;
		struct store_obj *o = store_get(st, q->oid, false); /* ~ */
		room = !store_allocates(o, q->off, q->len);	    /* ~ */
		store_put(o);
		if (canceled(rep, c))
			return;
	}
	c->rsp.result = room || !MARKED(rep_low_refused) ? SD_RES_SUCCESS : SD_RES_NO_SPACE;
}

static void dispatch(struct replica *rep, struct peer_call *c, bool local)
{
	struct sheep *sh = rep->sh;
	struct sync *s = sh->sync;

	switch ((enum peer_op)c->req.op) {
	case PEER_WRITE:
		sh->stat.peer_write++;
		do_write(rep, c, local); /* ~ */
		break;
	case PEER_REMOVE:
		sh->stat.peer_remove++;
		do_write(rep, c, local); /* ~ */
		break;
	case PEER_READ:
		sh->stat.peer_read++;
		do_read(rep, c); /* ~ */
		break;
	case PEER_VERSION: do_version(rep, c); break; /* ~ */
	case PEER_SETTLE: do_settle(rep, c); break;   /* ~ */
	case PEER_FLUSH: do_flush(rep, c); break;     /* ~ */
	case PEER_PING: do_ping(rep, c); break;
	case PEER_ROOM: do_room(rep, c); break; /* ~ */
	case PEER_SYNC_QUERY:
		if (PLANTED(pull_any_epoch) || enter_epoch(rep, c)) /* ~ */
			serve_query(s, c);
		break;
	case PEER_SYNC_LIST:
		if (PLANTED(pull_any_epoch) || enter_epoch(rep, c)) /* ~ */
			serve_list(s, c);
		break;
	case PEER_VID_LIST:
		if (enter_epoch(rep, c)) /* ~ */
			serve_vid_list(s, c);
		break;
	case PEER_DROP_CHECK:
		if (enter_epoch(rep, c)) /* ~ */
			serve_drop_check(s, c);
		break;
	case PEER_TORN_AS:
		if (enter_epoch(rep, c))     /* ~ */
			serve_torn_as(s, c); /* ~ */
		break;
	case PEER_PULL:
		if (PLANTED(pull_any_epoch) || enter_epoch(rep, c)) /* ~ */
			serve_pull(s, c);			    /* ~ */
		break;
	default: c->rsp.result = SD_RES_NO_SUPPORT; break;
	}
}

void replica_handle(struct sheep *sh, const struct incarnation *from, struct peer_call *c)
{
	bool local = from->start == sh->self.inc.start &&
		     memcmp(from->uuid, sh->self.inc.uuid, sizeof(from->uuid)) == 0;

	c->from = from;
	c->error = 0;
	c->reply_len = 0;
	c->rsp = (struct peer_hdr){
		.op = c->req.op,
		.id = c->req.id,
		.epoch = c->req.epoch,
		.vid = c->req.vid,
		.oid = c->req.oid,
	};
	dispatch(sh->replica, c, local);		   /* ~ */
	if (store_failed(sh->store) && MARKED(rep_failed)) /* it has versions without their data */
		c->error = -ECANCELED;
}
