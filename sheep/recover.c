/* recover.c - bringing single objects in sync: the two rules of DESIGN 5.5, and the workers for the
 * objects that requests wait for. */
#include "config.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/sync_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* ---- members of older epochs ---- */

void recover_view(struct sync *s)
{
	for (unsigned i = 0; i < SYNC_HISTORY; i++) {
		view_put(s->history[i]);
		s->history[i] = NULL;
	}
	s->nr_awaited = 0;
	map_done(&s->told);
}

/* Borrowed; NULL: not known. */
static struct view *history(struct sync *s, uint32_t epoch)
{
	struct view **slot = &s->history[epoch % SYNC_HISTORY];

	if (!*slot || (*slot)->epoch != epoch) {
		view_put(*slot);
		*slot = cluster_history(s->sh->cluster, epoch);
	}
	return *slot;
}

/* By store: a restarted daemon is the same store. */
static bool present(const struct view *v, const struct member *m)
{
	for (unsigned i = 0; i < v->nr; i++)
		if (memcmp(v->members[i].inc.uuid, m->inc.uuid, sizeof(m->inc.uuid)) == 0)
			return true;
	return false;
}

static void log_awaited(struct sync *s, const struct member *m, uint32_t epoch)
{
	char ip[INET6_ADDRSTRLEN] = "?";

	for (unsigned i = 0; i < s->nr_awaited; i++)
		if (memcmp(s->awaited[i], m->inc.uuid, sizeof(m->inc.uuid)) == 0)
			return;
	if (s->nr_awaited == SYNC_AWAITED)
		return;
	memcpy(s->awaited[s->nr_awaited++], m->inc.uuid, sizeof(m->inc.uuid));
	if (m->addr.family == AF_INET)
		inet_ntop(AF_INET, m->addr.ip + 12, ip, sizeof(ip));
	else if (m->addr.family == AF_INET6)
		inet_ntop(AF_INET6, m->addr.ip, ip, sizeof(ip));
	log_warn(s->sh->log,
		 "waiting for node %s:%u: it was in epoch %u and may have newer data than all that "
		 "are here",
		 ip, m->addr.port, epoch);
}

/* The first member of @h's ring at (hash, copies) that is not here now. */
static const struct member *ring_absent(const struct view *h, const struct view *now, uint64_t hash,
					uint8_t copies)
{
	uint32_t ring[SD_COPIES_MAX];
	unsigned nr = h->ring ? ring_lookup(h->ring, hash, copies, ring) : 0;

	for (unsigned i = 0; i < nr; i++)
		if (!present(now, &h->members[ring[i]]))
			return &h->members[ring[i]];
	return NULL;
}

static bool all_present(const struct view *h, const struct view *now)
{
	for (unsigned i = 0; i < h->nr; i++)
		if (h->members[i].nr_vnodes && !present(now, &h->members[i]))
			return false;
	return true;
}

/* Of one epoch: 1: wait, 0: no. */
static int epoch_absent(struct job *j, const struct view *h, struct sync_box *b)
{
	const struct member *m;

	if (all_present(h, j->view))
		return 0;
	uint64_t end = h->ring && h->ring->nr_points ? ring_arc_end(h->ring, b->from) : UINT64_MAX;
	if (end < b->to)
		b->to = end;
	m = ring_absent(h, j->view, b->from, b->clo);
	if (!m) {
		m = ring_absent(h, j->view, b->from, b->chi);
		if (m) /* those with fewer copies are looked at later */
			b->clo = b->chi;
	}
	if (m && MARKED(rec_awaited))
		log_awaited(j->s, m, h->epoch);
	return m != NULL;
}

/* 5.5 (2): if a ring member of an epoch after E is not here, it may know more: wait for it (WHY B1i
 * no-wait-absent).  A forced epoch has given up on who was absent then. */
bool sync_absent(struct job *j, uint32_t e, struct sync_box *b)
{
	bool forced = (j->view->forced && MARKED(rec_forced)) || PLANTED(no_wait_absent);

	for (uint32_t k = j->epoch - 1; k > e && !forced && !job_over(j); k--) {
		const struct view *h = history(j->s, k);
		if (!h && MARKED(rec_no_history)) {
			log_warn(j->s->sh->log, "the members of epoch %u are not known any more",
				 k);
			return true;
		}
		if (epoch_absent(j, h, b))
			return true;
		forced = h->forced;
		if (k % 16 == 0)
			co_yield (); /* ~ */
	}
	return false;
}

/* ---- the rules ---- */

/* Whole before torn, then the higher version, then our own. */
static bool better(const struct answer *a, const struct answer *b, bool a_self)
{
	int d = obj_ver_cmp(a->ver, b->ver);

	if (a->torn != b->torn)
		return b->torn;
	return d > 0 || (d == 0 && a_self);
}

/* Every replica that may be taken is torn: the one with the highest version settles it; of equals
 * one of the ring, the first one: all come to the same answer. */
static int settler(struct job *j, uint64_t hash, uint8_t copies, const struct answer *a, uint32_t e)
{
	uint32_t ring[SD_COPIES_MAX];
	unsigned nr = ring_lookup(j->view->ring, hash, copies, ring);
	int best = -1;
	bool best_mine = false;

	for (unsigned m = 0; m < j->view->nr; m++) {
		bool mine = false;
		if (a[m].synced != e)
			continue;
		for (unsigned i = 0; i < nr; i++)
			mine |= ring[i] == m;
		int d = best < 0 ? 1 : obj_ver_cmp(a[m].ver, a[best].ver);
		if (d > 0 || (d == 0 && mine && !best_mine)) {
			best = (int)m;
			best_mine = mine;
		}
	}
	return best;
}

/* What was acknowledged with the cache flag may be in the memory of those who died without losing
 * power only (DESIGN 5.4): have all who were in sync last lost it, and is there something cached?
 */
static bool all_lossy(struct job *j, uint64_t oid, const struct answer *a, uint32_t e)
{
	const struct vdi *v = cluster_vdi(j->s->sh->cluster, SD_OID_VID(oid));
	bool lossy = e && v && v->cached;

	for (unsigned i = 0; i < j->view->nr && lossy; i++)
		lossy = a[i].synced != e || a[i].lossy;
	return lossy;
}

enum verdict sync_decide(struct job *j, uint64_t oid, uint8_t copies, const struct answer *a,
			 struct decision *d)
{
	uint64_t hash = sd_hash_oid(oid);
	struct sync_box b = {hash, hash, copies, copies};
	int best = -1, self = j->view->self;
	uint32_t e = 0;

	/* (1) Somebody is in sync: his state is the object, a higher version of ours included: it
	 * was never acknowledged (WHY B1a trust-higher).  An equal version of somebody who is not
	 * in sync says nothing (WHY B1b trust-equal). */
	*d = (struct decision){.src = -1, .rule1 = true};
	for (unsigned i = 0; i < j->view->nr; i++)
		if (a[i].ok && a[i].in_sync && !a[i].torn && MARKED(rec_rule1)) {
			d->src = (int)i;
			return VERDICT_TAKE;
		}
	for (unsigned i = 0; PLANTED(trust_equal) && i < j->view->nr; i++)
		if (a[i].ok && (int)i != self && a[i].synced && a[self].synced && !a[self].torn &&
		    obj_ver_cmp(a[i].ver, a[self].ver) == 0) {
			d->src = self;
			return VERDICT_TAKE;
		}
	/* (2) Nobody is, and all members have answered (WHY B1j first-come). */
	d->rule1 = false;
	for (unsigned i = 0; i < j->view->nr; i++) {
		assert(a[i].ok || PLANTED(first_come));
		e = a[i].synced > e ? a[i].synced : e;
	}
	/* If all of E who are here lack what they had cached, one of E who is not may have it: he
	 * is waited for as those of later epochs are. */
	d->lost = all_lossy(j, oid, a, e) && MARKED(rec_all_lossy);
	if (sync_absent(j, d->lost ? e - 1 : e, &b)) /* ~ */
		return VERDICT_WAIT;
	/* Only those who were in sync last count (WHY B1d). */
	for (unsigned i = 0; i < j->view->nr; i++)
		if (a[i].synced == e && (best < 0 || better(&a[i], &a[best], (int)i == self)))
			best = (int)i;
	d->src = best;
	if (!a[best].torn && MARKED(rec_rule2))
		return VERDICT_TAKE;
	MARK(rec_all_torn);
	d->src = settler(j, hash, copies, a, e);
	return VERDICT_TORN;
}

int sync_say_lost(struct job *j, uint32_t vid)
{
	struct sync *s = j->s;

	while (!map_get(&s->told, vid)) {
		struct cmd cmd = {.type = CMD_CACHE_LOST, .vid = vid, .on = true};
		const struct vdi *v = cluster_vdi(s->sh->cluster, vid);

		if (!v || !v->cached || PLANTED(cache_lost))
			return 0;
		int r = cluster_do(s->sh->cluster, &cmd); /* ~ */
		if (job_over(j))
			return s->stopping ? -ECANCELED : -ESTALE;
		if (r == 0 && MARKED(rec_cache_lost)) {
			log_warn(s->sh->log,
				 "VDI %06x: all replicas of an object lost power before its cached "
				 "writes were flushed: the next flush will fail",
				 vid);
			return map_set(&s->told, vid, s) < 0 ? -ENOMEM : 0;
		}
		job_wait(j, SYNC_RETRY_NS, "cache lost"); /* ~ */
	}
	return 0;
}

/* ---- asking all ---- */

struct poll {
	struct job *j;
	uint64_t oid;
	uint8_t copies;
	struct ask **ask; /* by member */
	struct answer *a;
};

static int poll_begin(struct poll *p, struct job *j, uint64_t oid, uint8_t copies)
{
	struct sync *s = j->s;
	struct obj_info info = {0};

	*p = (struct poll){.j = j, .oid = oid, .copies = copies};
	p->ask = calloc(j->view->nr, sizeof(*p->ask));
	p->a = calloc(j->view->nr, sizeof(*p->a));
	if (!p->ask || !p->a)
		return -ENOMEM;
	store_lookup(s->sh->store, oid, &info);
	p->a[j->view->self] = (struct answer){
		.ok = true,
		.torn = info.torn,
		.synced = sync_synced(s, oid, sd_hash_oid(oid), copies),
		.ver = info.ver,
	};
	p->a[j->view->self].lossy = sync_lossy(s, p->a[j->view->self].synced);
	return 0;
}

static void poll_end(struct poll *p)
{
	for (unsigned i = 0; p->ask && i < p->j->view->nr; i++)
		ask_drop(p->ask[i]);
	free(p->ask);
	free(p->a);
}

static int poll_send(struct poll *p, unsigned member)
{
	if (p->ask[member] || (int)member == p->j->view->self)
		return 0;
	p->ask[member] = ask_new(p->j, PEER_SYNC_QUERY, member, p->oid, p->copies);
	if (!p->ask[member])
		return -ENOMEM;
	ask_send(p->ask[member]);
	return 0;
}

/* Take what has come; how many are still out.  *in_sync: an answer from somebody in sync. */
static unsigned poll_collect(struct poll *p, bool *in_sync, bool *failed)
{
	unsigned out = 0;

	for (unsigned i = 0; i < p->j->view->nr; i++) {
		const struct ask *k = p->ask[i];
		if (!k)
			continue;
		if (!k->finished) {
			out++;
			continue;
		}
		if ((!ask_ok(k) || k->c.rsp.result != SD_RES_SUCCESS) && MARKED(rec_ask_failed)) {
			*failed = true;
			continue;
		}
		const struct peer_hdr *h = &k->c.rsp;
		p->a[i] = (struct answer){
			.ok = true,
			.in_sync = h->flags & PEER_F_IN_SYNC,
			.torn = h->flags & PEER_F_TORN,
			.lossy = h->flags & PEER_F_LOSSY,
			.synced = h->synced,
			.ver = {h->ver_gen, h->ver_seq},
		};
		*in_sync |= p->a[i].in_sync && !p->a[i].torn;
	}
	return out;
}

/* Until somebody in sync has answered, or all who were asked.  1: somebody in sync, 0: all have
 * answered, -EAGAIN: one could not. */
static int poll_wait(struct poll *p)
{
	struct job *j = p->j;

	for (;;) {
		bool in_sync = false, failed = false;
		if (job_over(j))
			return j->s->stopping ? -ECANCELED : -ESTALE;
		unsigned out = poll_collect(p, &in_sync, &failed);
		if (in_sync)
			return 1;
		if (!out)
			return failed ? -EAGAIN : 0;
		MARK(rec_ask_waits);
		co_cond_wait(&j->cond, "sync: answers"); /* ~ */
	}
}

/* The ring of this epoch first: who is in sync is in it.  Then everybody. */
static int poll_all(struct poll *p)
{
	uint32_t ring[SD_COPIES_MAX];
	const struct view *v = p->j->view;
	unsigned nr = ring_lookup(v->ring, sd_hash_oid(p->oid), p->copies, ring);
	int r = 0;

	for (unsigned i = 0; i < nr && r == 0; i++)
		r = poll_send(p, ring[i]);
	if (r == 0)
		r = poll_wait(p); /* ~ */
	if (r != 0 || PLANTED(first_come))
		return r < 0 ? r : 0;
	for (unsigned i = 0; i < v->nr && r == 0; i++)
		r = poll_send(p, i);
	if (r == 0)
		r = poll_wait(p); /* ~ */
	return r < 0 ? r : 0;
}

/* ---- one object ---- */

static int mark_object(struct job *j, uint64_t oid, uint8_t copies)
{
	struct mark_rec rec = {.type = MARK_OBJECT, .oid = oid, .epoch = j->epoch};

	rec.box.clo = rec.box.chi = copies;
	return sync_mark(j, &rec); /* ~ */
}

static int job_code(const struct job *j)
{
	return j->s->stopping ? -ECANCELED : -ESTALE;
}

/* Make the answered state ours, durably, then the mark. */
static int adopt(struct job *j, uint64_t oid, uint8_t copies, unsigned src, const struct answer *a,
		 bool rule1)
{
	struct pull p = {.oid = oid, .copies = copies, .src = src, .ver = a->ver};
	struct store_obj *o = pull_lock(j, oid); /* ~ */
	struct obj_info info = {0};
	int r = 0;

	if (!o && MARKED(rec_adopt_busy))
		return -EAGAIN; /* the bulk pull is at it */
	store_lookup(j->s->sh->store, oid, &info);
	bool done = sync_in(j->s, oid, sd_hash_oid(oid), copies);
	p.rule = rule1 ? PULL_IN_SYNC : PULL_EXACT;
	if (job_over(j))
		r = job_code(j);
	else if (done && MARKED(rec_adopt_done))
		r = 0;
	else if (PLANTED(trust_higher) && obj_ver_cmp(info.ver, a->ver) > 0)
		r = 0;
	else if ((int)src != j->view->self && (info.torn || obj_ver_cmp(info.ver, a->ver) != 0) &&
		 MARKED(rec_adopt))	   /* equal ones need no pull */
		r = pull_locked(j, o, &p); /* ~ */
	pull_unlock(j, oid, o);
	return r == 0 && !done ? mark_object(j, oid, copies) : r; /* ~ */
}

/* DESIGN 6: all that may be taken is torn: one replica's bytes count as they are, with a version
 * that no write has and every later one is above of.  Only while nothing of the object can be in
 * flight at an owner: there is none, or it just asks for the version before its first access in its
 * generation, or has named a version (all that it has in flight is above it). */
static bool settle_version(struct job *j, uint64_t oid, const struct settle_by *by,
			   struct obj_ver have, struct obj_ver *ret)
{
	const struct vdi *v = cluster_vdi(j->s->sh->cluster, SD_OID_VID(oid));
	bool live = v && v->owned && view_find(j->view, &v->owner) >= 0;

	if (by && by->gen > have.gen && (!v || v->gen == by->gen)) {
		*ret = (struct obj_ver){by->gen, 0};
		return true;
	}
	if (live) {
		if (!by || !by->ver.seq || by->ver.gen != v->gen)
			return false;
		*ret = by->ver;
	} else {
		ret->gen = v && v->gen > have.gen ? v->gen : have.gen;
		ret->seq = 1ull << 63 | j->epoch;
	}
	return obj_ver_cmp(*ret, have) > 0;
}

int sync_settle_as(struct job *j, uint64_t oid, struct obj_ver ver)
{
	struct store_obj *o = pull_lock(j, oid); /* ~ */
	struct obj_info info = {0};
	int r;

	if (!o)
		return -EAGAIN;
	store_lookup(j->s->sh->store, oid, &info);
	if (job_over(j))
		r = job_code(j);
	else if (!info.torn || obj_ver_cmp(ver, info.ver) <= 0)
		r = -EAGAIN;
	else
		r = store_settle(o, ver); /* ~ */
	pull_unlock(j, oid, o);
	if (r == 0 && MARKED(rec_settled))
		log_warn(j->s->sh->log,
			 "object %016" PRIx64 " was torn on every replica: it is as it lies here",
			 oid);
	return r;
}

static void tell_owner(struct job *j, uint64_t oid, uint8_t copies)
{
	const struct vdi *v = cluster_vdi(j->s->sh->cluster, SD_OID_VID(oid));
	int m = v && v->owned ? view_find(j->view, &v->owner) : -1;
	struct ask *a = m < 0 ? NULL : ask_new(j, PEER_TORN, (unsigned)m, oid, copies);

	if (a)
		ask_send(a);
	ask_drop(a);
}

/* It lies at @src, outside of the ring: once it is settled there it is pulled. */
static int settle_there(struct job *j, uint64_t oid, uint8_t copies, unsigned src,
			struct obj_ver ver)
{
	struct ask *a = ask_new(j, PEER_TORN_AS, src, oid, copies);
	int r;

	if (!a)
		return -ENOMEM;
	MARK(rec_settle_there);
	a->c.req.ver_gen = ver.gen;
	a->c.req.ver_seq = ver.seq;
	ask_send(a);
	r = ask_wait(a); /* ~ */
	ask_drop(a);
	return r < 0 ? r : -EAGAIN;
}

static int settle(struct job *j, uint64_t oid, uint8_t copies, const struct settle_by *by,
		  unsigned src, const struct answer *a)
{
	struct obj_ver ver;
	uint32_t ring[SD_COPIES_MAX];
	unsigned nr = ring_lookup(j->view->ring, sd_hash_oid(oid), copies, ring);
	int r;

	if (!settle_version(j, oid, by, a->ver, &ver) && MARKED(rec_settle_owner)) {
		tell_owner(j, oid, copies);
		return -EUCLEAN;
	}
	if ((int)src == j->view->self) {
		r = sync_settle_as(j, oid, ver);		 /* ~ */
		return r == 0 ? mark_object(j, oid, copies) : r; /* ~ */
	}
	for (unsigned i = 0; i < nr; i++)
		if (ring[i] == src)
			return -EAGAIN;		       /* it does so by itself */
	return settle_there(j, oid, copies, src, ver); /* ~ */
}

int sync_resolve(struct job *j, uint64_t oid, uint8_t copies, const struct settle_by *by)
{
	struct poll p;
	struct decision d;
	int r = poll_begin(&p, j, oid, copies);

	if (r == 0)
		r = poll_all(&p); /* ~ */
	if (r == 0) {
		enum verdict v = sync_decide(j, oid, copies, p.a, &d); /* ~ */
		if (v != VERDICT_WAIT && d.lost)
			r = sync_say_lost(j, SD_OID_VID(oid)); /* ~ */
		if (job_over(j))
			r = job_code(j);
		else if (r == 0 && v == VERDICT_TAKE)
			r = adopt(j, oid, copies, (unsigned)d.src, &p.a[d.src], d.rule1); /* ~ */
		else if (r == 0 && v == VERDICT_TORN)
			r = settle(j, oid, copies, by, (unsigned)d.src, &p.a[d.src]); /* ~ */
		else if (r == 0 && MARKED(rec_busy))
			r = -EBUSY;
	}
	poll_end(&p);
	return r;
}

/* ---- workers ---- */

static void want_step(struct sync *s, struct want *w)
{
	struct job j;

	job_begin(s, &j);
	struct settle_by by = w->by;
	int r = j.epoch == w->epoch ? sync_resolve(&j, w->oid, w->copies, &by) : /* ~ */
			-ESTALE;
	if (r == -EUCLEAN && by.gen == w->by.gen && obj_ver_cmp(by.ver, w->by.ver) == 0) {
		w->torn = true;
		co_cond_broadcast(&w->cond);
	}
	if (r < 0 && r != -EBUSY && !w->over && !job_over(&j) && MARKED(rec_retry))
		job_wait(&j, SYNC_RETRY_NS, "sync: again"); /* ~ */
	job_end(&j);
	/* -EBUSY: only another view can help, and that ends the want. */
	if (!w->over && r < 0 && r != -EBUSY)
		recover_queue(s, w);
}

static void worker(void *arg)
{
	struct sync *s = arg;

	while (!s->stopping && !cds_list_empty(&s->queue)) {
		struct want *w = cds_list_first_entry(&s->queue, struct want, node);
		cds_list_del(&w->node);
		w->queued = false;
		s->nr_demand--;
		w->refs++;
		if (!w->over && s->epoch)
			want_step(s, w); /* ~ */
		want_put(s, w);
	}
	s->nr_workers--;
	sync_leave(s);
}

void recover_queue(struct sync *s, struct want *w)
{
	if (!w->queued) {
		w->queued = true;
		s->nr_demand++;
		cds_list_add_tail(&w->node, &s->queue);
	}
	if (s->nr_workers >= SYNC_DEMAND_WORKERS || s->stopping)
		return;
	if (!co_start(s->sh->sched, worker, s, "sync") && MARKED(rec_no_worker)) {
		co_cond_broadcast(&s->changed); /* recover_main() starts one later */
		return;
	}
	s->nr_workers++;
	sync_enter(s);
}

void recover_workers(struct sync *s)
{
	if (cds_list_empty(&s->queue) || s->nr_workers || s->stopping)
		return;
	recover_queue(s, cds_list_first_entry(&s->queue, struct want, node));
}

int recover_start(struct sync *s)
{
	if (!co_start(s->sh->sched, recover_main, s, "recovery"))
		return -ENOMEM;
	sync_enter(s);
	return 0;
}
