/* pull.c - calls of the recovery to other nodes; pulls and repairs of single objects. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/sync_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* ---- calls (Y6) ---- */

static void frames_free(struct ask *a)
{
	struct pull_frame *f, *next;

	cds_list_for_each_entry_safe (f, next, &a->frames, node) {
		cds_list_del(&f->node);
		peer_frame_done(&a->c, f->len);
		buf_put(f->buf);
		free(f);
	}
}

static void ask_free(struct ask *a)
{
	frames_free(a);
	buf_put(a->reply);
	free(a);
}

static void ask_done(struct peer_call *c)
{
	struct ask *a = caa_container_of(c, struct ask, c);

	a->finished = true;
	if (a->job)
		co_cond_broadcast(&a->job->cond);
	else
		ask_free(a);
}

static void ask_frame(struct peer_call *c, const struct peer_hdr *h, struct buf *data)
{
	struct ask *a = caa_container_of(c, struct ask, c);
	struct pull_frame *f = a->job ? malloc(sizeof(*f)) : NULL;

	if (!f && MARKED(pull_dropped)) {
		a->lost = true;
		peer_frame_done(c, h->data_len);
		buf_put(data);
		return;
	}
	*f = (struct pull_frame){.off = h->off, .size = h->obj_size, .len = h->data_len};
	f->copies = h->copies;
	f->buf = data;
	cds_list_add_tail(&f->node, &a->frames);
	co_cond_broadcast(&a->job->cond);
}

struct ask *ask_new(struct job *j, enum peer_op op, unsigned member, uint64_t oid, uint8_t copies)
{
	struct ask *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->job = j;
	a->member = member;
	CDS_INIT_LIST_HEAD(&a->frames);
	a->c.req.op = op;
	a->c.req.epoch = j->epoch;
	a->c.req.oid = oid;
	a->c.req.vid = SD_OID_VID(oid);
	a->c.req.copies = copies;
	a->c.done = ask_done;
	if (op == PEER_PULL)
		a->c.frame = ask_frame;
	return a;
}

void ask_send(struct ask *a)
{
	peer_submit(a->job->s->sh, &a->job->view->members[a->member].inc, &a->c);
}

void ask_drop(struct ask *a)
{
	if (!a)
		return;
	if (a->finished) {
		ask_free(a);
		return;
	}
	frames_free(a);
	a->job = NULL; /* done() frees it */
}

bool ask_ok(const struct ask *a)
{
	return a->finished && !a->c.error && a->c.rsp.epoch == a->c.req.epoch &&
	       a->c.rsp.result != SD_RES_OLD_NODE_VER;
}

int ask_wait(struct ask *a)
{
	struct job *j = a->job;

	while (!a->finished && !job_over(j))
		co_cond_wait(&j->cond, "peer"); /* ~ */
	if (job_over(j))
		return j->s->stopping ? -ECANCELED : -ESTALE;
	return 0;
}

/* ---- pull ---- */

struct incoming {
	struct job *j;
	const struct pull *p;
	struct store_obj *o;
	struct ask *a;
	struct store_replace *r;
	uint64_t got;
};

static int incoming_begin(struct incoming *in, uint64_t size, uint8_t copies)
{
	if (in->r)
		return 0;
	if (copies > SD_COPIES_MAX)
		return -EPROTO;
	sync_have(in->j->s, copies ? copies : in->p->copies);
	return store_replace_begin(in->o, size, copies ? copies : in->p->copies, &in->r); /* ~ */
}

static int incoming_frame(struct incoming *in, struct pull_frame *f)
{
	int r = -EPROTO;

	if (f->len && f->len <= f->buf->cap && f->off < f->size && f->len <= f->size - f->off) {
		r = incoming_begin(in, f->size, f->copies); /* ~ */
		if (r == 0)
			r = store_replace_data(in->r, f->off, f->buf, 0, f->len); /* ~ */
	}
	in->got += f->len;
	peer_frame_done(&in->a->c, f->len);
	buf_put(f->buf);
	free(f);
	return r;
}

/* All frames, until the last answer is there. */
static int incoming_stream(struct incoming *in)
{
	struct ask *a = in->a;
	int r = 0;

	while (r == 0) {
		if (job_over(in->j))
			return in->j->s->stopping ? -ECANCELED : -ESTALE;
		if (!cds_list_empty(&a->frames)) {
			struct pull_frame *f =
				cds_list_first_entry(&a->frames, struct pull_frame, node);
			cds_list_del(&f->node);
			r = incoming_frame(in, f); /* ~ */
		} else if (a->finished) {
			break;
		} else {
			co_cond_wait(&in->j->cond, "pull"); /* ~ */
		}
	}
	return r;
}

/* Is what came what was wanted, and whole?  -EAGAIN: ask around again. */
static int incoming_check(const struct incoming *in)
{
	const struct ask *a = in->a;
	const struct peer_hdr *rsp = &a->c.rsp;
	struct obj_ver ver = {rsp->ver_gen, rsp->ver_seq};
	const struct pull *p = in->p;

	if ((!ask_ok(a) || a->lost ||
	     (rsp->result != SD_RES_SUCCESS && rsp->result != SD_RES_NO_OBJ)) &&
	    MARKED(pull_failed))
		return -EAGAIN;
	if ((p->rule == PULL_EXACT ? obj_ver_cmp(ver, p->ver) != 0
				   : !(rsp->flags & PEER_F_IN_SYNC)) &&
	    MARKED(pull_other))
		return -EAGAIN;
	if (p->rule == PULL_AT_LEAST && obj_ver_cmp(ver, p->ver) < 0 && MARKED(pull_lower))
		return -EAGAIN;
	if (rsp->result == SD_RES_SUCCESS && rsp->len != in->got && MARKED(pull_short))
		return -EAGAIN;
	return 0;
}

/* The last look before it is stored, without a yield: a pull is tagged with its epoch and thrown
 * away if the view has changed (WHY B1g pull-notag). */
static bool pull_valid(struct job *j, const struct pull *p)
{
	return !job_over(j) && (!p->still || p->still(j, p->arg));
}

static int pull_stop(struct job *j)
{
	return j->s->stopping ? -ECANCELED : -ESTALE;
}

/* Somebody in sync does not have it: it goes to .stale/, never the other way round (DESIGN 7). */
static int pull_absent(struct incoming *in)
{
	struct sync *s = in->j->s;
	struct obj_info info;

	if (!store_lookup(s->sh->store, in->p->oid, &info))
		return 0;
	if (in->p->rule == PULL_AT_LEAST && MARKED(pull_repair_absent))
		return -EAGAIN; /* a repair makes nothing go away */
	MARK(pull_stale);
	log_info(s->sh->log, "object %016" PRIx64 " is stale", in->p->oid);
	s->purge = true;
	return store_stale(in->o, in->j->epoch); /* ~ */
}

static int pull_store(struct incoming *in)
{
	const struct peer_hdr *rsp = &in->a->c.rsp;
	struct sync *s = in->j->s;
	struct obj_info info;
	int r = incoming_begin(in, rsp->obj_size, rsp->copies); /* ~ an empty one */

	if (r < 0)
		return r;
	if (!pull_valid(in->j, in->p))
		return pull_stop(in->j);
	if (s->branch && store_lookup(s->sh->store, in->p->oid, &info) && MARKED(pull_branch)) {
		/* What a given-up branch had is kept for the operator (DESIGN 4.3). */
		r = store_stale(in->o, in->j->epoch); /* ~ */
		if (r < 0)
			return r;
		if (!pull_valid(in->j, in->p))
			return pull_stop(in->j);
	}
	MARK(pull_stored);
	return store_replace_commit(TAKE(in->r, NULL),
				    (struct obj_ver){rsp->ver_gen, rsp->ver_seq}); /* ~ */
}

int pull_locked(struct job *j, struct store_obj *o, const struct pull *p)
{
	struct incoming in = {.j = j, .p = p, .o = o};
	int r;

	assert(map_get(&j->s->pulling, p->oid));
	in.a = ask_new(j, PEER_PULL, p->src, p->oid, p->copies);
	if (!in.a)
		return -ENOMEM;
	in.a->c.req.ver_gen = p->ver.gen;
	in.a->c.req.ver_seq = p->ver.seq;
	in.a->c.req.prev_gen = p->gen;
	in.a->c.req.flags = p->rule == PULL_EXACT ? 0 : PEER_F_IN_SYNC;
	ask_send(in.a);
	r = incoming_stream(&in); /* ~ */
	if (r == 0)
		r = incoming_check(&in);
	if (r == 0 && !pull_valid(j, p) && MARKED(pull_old))
		r = pull_stop(j);
	if (r == 0)
		r = in.a->c.rsp.result == SD_RES_NO_OBJ ? pull_absent(&in)
							: pull_store(&in); /* ~ */
	if (in.r)
		store_replace_abort(in.r); /* ~ */
	ask_drop(in.a);
	if (r < 0 && r != -EAGAIN && r != -ESTALE && r != -ECANCELED && MARKED(pull_io))
		log_err(j->s->sh->log, "cannot pull object %016" PRIx64 ": %s", p->oid,
			strerror(-r));
	return r;
}

struct store_obj *pull_lock(struct job *j, uint64_t oid)
{
	if ((map_get(&j->s->pulling, oid) || map_set(&j->s->pulling, oid, j) < 0) &&
	    MARKED(pull_busy))
		return NULL;
	return store_get(j->s->sh->store, oid, true); /* ~ */
}

void pull_unlock(struct job *j, uint64_t oid, struct store_obj *o)
{
	store_put(o);
	map_del(&j->s->pulling, oid);
}

/* ---- repair of bad blocks (DESIGN 5.3) ---- */

struct repair {
	struct sync *s;
	uint64_t oid, off, len;
	uint8_t copies;
};

#define REPAIR_STEP (64u << 10)

/* The first bad block at or after @off: 1 and *bad; 0: none. */
static int find_bad(struct sync *s, const struct repair *r, uint64_t off, struct buf *buf,
		    uint64_t *bad)
{
	struct store_obj *o = store_get(s->sh->store, r->oid, false); /* ~ */
	uint64_t end = r->off + r->len;
	int e = 0;

	while (e == 0 && off < end && !s->stopping) {
		uint64_t n = end - off < REPAIR_STEP ? end - off : REPAIR_STEP;
		e = store_read(o, off, n, buf, 0, bad); /* ~ */
		off += n;
	}
	store_put(o);
	return e == -EILSEQ ? 1 : e == -ENOENT ? 0 : e;
}

/* One block from one replica: stored only if we have exactly the version it was read at then (WHY
 * B9): store_repair() compares under the lock. */
static int repair_block(struct job *j, const struct repair *r, unsigned src, uint64_t off,
			uint64_t len)
{
	struct sync *s = j->s;
	struct ask *a = ask_new(j, PEER_READ, src, r->oid, r->copies);
	int e;

	if (!a)
		return -ENOMEM;
	a->reply = buf_new(s->sh->pool, SD_BLOCK_SIZE);
	if (!a->reply) {
		ask_drop(a);
		return -ENOMEM;
	}
	/* Dropped while it is out: the buffer stays until done(). */
	a->c.reply_buf = a->reply;
	a->c.reply_cap = SD_BLOCK_SIZE;
	a->c.req.off = off;
	a->c.req.len = len;
	ask_send(a);
	e = ask_wait(a); /* ~ */
	if (e == 0 && (!ask_ok(a) || a->c.rsp.result != SD_RES_SUCCESS || a->c.reply_len != len))
		e = -EAGAIN;
	if (e == 0) {
		struct obj_ver ver = {a->c.rsp.ver_gen, a->c.rsp.ver_seq};
		struct store_obj *o = store_get(s->sh->store, r->oid, true); /* ~ */
		struct obj_info have = {0};
		MARK(repair_block);
		if (PLANTED(repair_any) && store_lookup(s->sh->store, r->oid, &have))
			ver = have.ver;
		e = job_over(j) ? -ESTALE : store_repair(o, ver, off, a->reply, 0, len); /* ~ */
		if (e == -ESTALE)
			MARK(repair_moved);
		store_put(o);
	}
	ask_drop(a);
	return e;
}

/* We are in sync, so what we have answered is in what a replica in sync at our version or a later
 * one has: it replaces ours whole. */
static int repair_whole(struct job *j, const struct repair *r, unsigned src)
{
	struct pull p = {.oid = r->oid, .copies = r->copies, .src = src, .rule = PULL_AT_LEAST};
	struct store_obj *o = pull_lock(j, r->oid); /* ~ */
	struct obj_info info;
	int e = -EAGAIN;

	if (!o)
		return -EAGAIN;
	if (job_over(j))
		e = -ESTALE;
	else if (!sync_in(j->s, r->oid, sd_hash_oid(r->oid), r->copies) ||
		 !store_lookup(j->s->sh->store, r->oid, &info))
		e = 0; /* its recovery does it, or it is gone */
	else {
		MARK(repair_whole);
		p.ver = info.ver;
		e = pull_locked(j, o, &p); /* ~ */
	}
	pull_unlock(j, r->oid, o);
	return e;
}

/* Blocks one by one, the other replicas in turn; then whole. */
static int repair_bad(struct job *j, const struct repair *r, uint64_t bad)
{
	uint32_t ring[SD_COPIES_MAX];
	unsigned nr = ring_lookup(j->view->ring, sd_hash_oid(r->oid), r->copies, ring);
	struct obj_info info;
	int e = -EAGAIN;

	bad = ROUND_DOWN(bad, SD_BLOCK_SIZE);
	if (!store_lookup(j->s->sh->store, r->oid, &info) || bad >= info.size)
		return 0;
	uint64_t len = info.size - bad < SD_BLOCK_SIZE ? info.size - bad : SD_BLOCK_SIZE;
	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < nr; i++) {
			if ((int)ring[i] == j->view->self)
				continue;
			e = pass ? repair_whole(j, r, ring[i])
				 : repair_block(j, r, ring[i], bad, len); /* ~ */
			if (e == 0 || job_over(j))
				return e;
		}
	return e;
}

int repair_range(struct sync *s, uint64_t oid, uint8_t copies, uint64_t off, uint64_t len)
{
	struct repair r = {s, oid, ROUND_DOWN(off, SD_BLOCK_SIZE), 0, copies};
	uint64_t bad = r.off, last = UINT64_MAX;
	struct job j;
	int e;

	r.len = ROUND_UP(off + len, SD_BLOCK_SIZE) - r.off;
	if (s->stopping || !s->epoch || !copies)
		return -EAGAIN;
	job_begin(s, &j);
	struct buf *buf = buf_new(s->sh->pool, REPAIR_STEP);
	e = buf ? 1 : -ENOMEM;
	while (e > 0 && !job_over(&j)) {
		e = find_bad(s, &r, bad, buf, &bad); /* ~ */
		if (e <= 0)
			break;
		e = bad == last && MARKED(repair_again) ? -EIO : 1; /* repaired, and bad again */
		last = bad;
		int d = e < 0 ? e : repair_bad(&j, &r, bad); /* ~ */
		if (d < 0)
			e = d;
		else
			log_notice(s->sh->log, "object %016" PRIx64 ": repaired block at %" PRIu64,
				   oid, bad);
	}
	buf_put(buf);
	if (e < 0 && MARKED(repair_failed))
		log_err(s->sh->log,
			"object %016" PRIx64 ": block at %" PRIu64
			" is bad and cannot be repaired now: %s",
			oid, bad, strerror(-e));
	if (e == 0 || job_over(&j))
		e = job_over(&j) ? -EAGAIN : 0;
	job_end(&j);
	return e > 0 ? -EAGAIN : e;
}

static void repair_co(void *arg)
{
	struct repair r = *(struct repair *)arg;

	free(arg);
	repair_range(r.s, r.oid, r.copies, r.off, r.len); /* ~ */
	map_del(&r.s->repairing, r.oid);
	sync_leave(r.s);
}

/* More bad objects than SYNC_REPAIRS: those left out are found again by the next read. */
void repair_start(struct sync *s, uint64_t oid, uint8_t copies, uint64_t off, uint64_t len)
{
	struct repair *r;

	if ((s->stopping || s->repairing.nr >= SYNC_REPAIRS || map_get(&s->repairing, oid)) &&
	    MARKED(repair_skipped))
		return;
	r = malloc(sizeof(*r));
	if (!r)
		return;
	*r = (struct repair){s, oid, off, len, copies};
	if (map_set(&s->repairing, oid, s) < 0 || !co_start(s->sh->sched, repair_co, r, "repair")) {
		map_del(&s->repairing, oid);
		free(r);
		return;
	}
	sync_enter(s);
}
