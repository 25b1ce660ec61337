/* recover_bulk.c - bringing whole arcs in sync behind what requests wait for (DESIGN 5.5, 7), and
 * dropping what lies here beside the ring.
 *
 * The work goes by boxes: a range of hashes x a range of numbers of copies, cut down until every
 * node that is asked has one status for all of it.  A box is marked when every object in it is
 * done; then what is neither listed nor here does not exist.
 *  K1 Of equal versions no data moves.
 *  K2 A box is marked only if all of its objects are; a failed one leaves the box todo.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/sync_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

struct task {
	uint64_t oid;
	uint8_t copies;
	bool resolve; /* by the rules for one object; else: */
	bool rule1;
	unsigned src;
	struct obj_ver ver;
};

struct lists { /* by member; self included */
	struct job *j;
	struct sync_box box;
	struct list {
		struct ask *ask;
		bool ok, in_sync;
		uint32_t synced; /* of what is not in it */
		const struct peer_obj *row;
		struct peer_obj *own; /* malloc'ed */
		unsigned nr;
	} * list;
	struct task *task;
	unsigned nr_task, cap_task;
	struct map lost; /* vids that are cache lost */
	/* running them */
	unsigned next, failed;
};

static int over(const struct job *j)
{
	if (!job_over(j))
		return 0;
	return j->s->stopping ? -ECANCELED : -ESTALE;
}

/* ---- lists ---- */

static int list_send(struct lists *l, unsigned m)
{
	struct ask *a = ask_new(l->j, PEER_SYNC_LIST, m, 0, l->box.clo);

	if (!a)
		return -ENOMEM;
	size_t len = SYNC_LIST_MAX * sizeof(struct peer_obj);
	a->reply = buf_new(l->j->s->sh->pool, len);
	if (!a->reply) {
		ask_drop(a);
		return -ENOMEM;
	}
	a->c.reply_buf = a->reply;
	a->c.reply_cap = len;
	a->c.req.off = l->box.from;
	a->c.req.len = l->box.to;
	a->c.req.obj_size = l->box.chi;
	l->list[m].ask = a;
	ask_send(a);
	return 0;
}

/* The box is what all lists cover; their own corner (from, chi) is in each. */
static bool list_covers(struct lists *l, uint64_t from, uint64_t to, unsigned clo, unsigned chi)
{
	if (from != l->box.from || to < from || to > l->box.to || chi != l->box.chi ||
	    clo < l->box.clo || clo > chi)
		return false;
	l->box.to = to;
	l->box.clo = (uint8_t)clo;
	return true;
}

static int list_take(struct lists *l, unsigned m)
{
	struct list *li = &l->list[m];
	const struct peer_hdr *h = &li->ask->c.rsp;

	if ((!ask_ok(li->ask) || h->result != SD_RES_SUCCESS ||
	     li->ask->c.reply_len % sizeof(struct peer_obj)) &&
	    MARKED(bulk_list_failed))
		return -EAGAIN;
	struct sync_box was = l->box;
	if (!list_covers(l, h->off, h->len < was.to ? h->len : was.to,
			 h->copies > was.clo ? h->copies : was.clo, (unsigned)h->obj_size))
		return -EAGAIN;
	li->ok = true;
	li->in_sync = h->flags & PEER_F_IN_SYNC;
	li->synced = h->synced;
	li->nr = li->ask->c.reply_len / sizeof(struct peer_obj);
	li->row = (const struct peer_obj *)((const uint8_t *)li->ask->reply->data +
					    li->ask->c.reply_off);
	return 0;
}

static int list_self(struct lists *l)
{
	struct list *li = &l->list[l->j->view->self];

	li->ok = true;
	int r = sync_list(l->j->s, &l->box, &li->own, &li->nr, &li->synced, &li->in_sync);
	li->row = li->own;
	return r;
}

static void lists_done(struct lists *l)
{
	for (unsigned i = 0; l->list && i < l->j->view->nr; i++) {
		ask_drop(l->list[i].ask);
		free(l->list[i].own);
	}
	free(l->list);
	free(l->task);
	map_done(&l->lost);
}

/* The ring at this place, one after the other, until one is in sync: *src, or -1. */
static int ask_ring(struct lists *l, int *src)
{
	uint32_t ring[SD_COPIES_MAX];
	const struct view *v = l->j->view;
	struct sync_box asked = l->box;
	unsigned nr = ring_lookup(v->ring, l->box.from, l->box.chi, ring);

	*src = -1;
	for (unsigned i = 0; i < nr; i++) {
		if ((int)ring[i] == v->self)
			continue;
		l->box = asked;
		int r = list_send(l, ring[i]);
		if (r == 0)
			r = ask_wait(l->list[ring[i]].ask); /* ~ */
		if (r == 0)
			r = list_take(l, ring[i]);
		if (r < 0)
			return r;
		if (l->list[ring[i]].in_sync && MARKED(bulk_rule1)) {
			*src = (int)ring[i];
			return 0;
		}
	}
	return 0;
}

/* Everybody, in parallel. */
static int ask_all(struct lists *l)
{
	const struct view *v = l->j->view;
	int r = 0;

	for (unsigned i = 0; i < v->nr && r == 0 && !PLANTED(first_come); i++) {
		if ((int)i == v->self)
			continue;
		ask_drop(TAKE(l->list[i].ask, NULL));
		l->list[i] = (struct list){0};
		r = list_send(l, i);
	}
	for (unsigned i = 0; i < v->nr && r == 0 && !PLANTED(first_come); i++) {
		if ((int)i == v->self)
			continue;
		r = ask_wait(l->list[i].ask); /* ~ */
		if (r == 0)
			r = list_take(l, i);
	}
	return r;
}

/* ---- what is to be done for the objects of the box ---- */

struct entry {
	uint64_t hash;
	const struct peer_obj *row;
	unsigned member;
};

static int entry_cmp(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	if (x->row->oid != y->row->oid)
		return x->row->oid < y->row->oid ? -1 : 1;
	return x->member < y->member ? -1 : x->member > y->member;
}

/* All rows that lie in the box, sorted, as *ret (malloc'ed); the number. */
static int entries(struct lists *l, struct entry **ret)
{
	size_t max = 0, n = 0;

	for (unsigned i = 0; i < l->j->view->nr; i++)
		max += l->list[i].ok ? l->list[i].nr : 0;
	struct entry *e = malloc((max + 1) * sizeof(*e));
	if (!e)
		return -ENOMEM;
	for (unsigned i = 0; i < l->j->view->nr; i++)
		for (unsigned k = 0; l->list[i].ok && k < l->list[i].nr; k++) {
			const struct peer_obj *row = &l->list[i].row[k];
			uint64_t h = sd_hash_oid(row->oid);
			if (h >= l->box.from && h <= l->box.to && row->copies >= l->box.clo &&
			    row->copies <= l->box.chi)
				e[n++] = (struct entry){h, row, i};
		}
	qsort(e, n, sizeof(*e), entry_cmp);
	*ret = e;
	return (int)n;
}

static int task_add(struct lists *l, const struct task *t)
{
	if (l->nr_task == l->cap_task) {
		unsigned cap = l->cap_task ? l->cap_task * 2 : 32;
		struct task *p = realloc(l->task, cap * sizeof(*p));
		if (!p)
			return -ENOMEM;
		l->task = p;
		l->cap_task = cap;
	}
	l->task[l->nr_task++] = *t;
	return 0;
}

static void row_answer(struct answer *a, const struct peer_obj *row)
{
	a->in_sync = row->flags & PEER_F_IN_SYNC;
	a->torn = row->flags & PEER_F_TORN;
	a->lossy = row->flags & PEER_F_LOSSY;
	a->synced = row->synced;
	a->ver = (struct obj_ver){row->ver_gen, row->ver_seq};
}

/* One object, from what was answered; @only: of one source in sync and ourselves. */
static int plan_object(struct lists *l, const struct entry *e, unsigned n, struct answer *a,
		       int only)
{
	struct job *j = l->j;
	struct obj_info have = {0};
	struct task t = {.oid = e->row->oid, .copies = e->row->copies};
	struct decision d = {.src = only, .rule1 = true};

	for (unsigned i = 0; i < j->view->nr; i++)
		a[i] = (struct answer){.ok = l->list[i].ok,
				       .in_sync = l->list[i].in_sync,
				       .synced = l->list[i].synced};
	for (unsigned i = 0; i < n; i++)
		row_answer(&a[e[i].member], e[i].row);
	if (only < 0 && sync_decide(j, t.oid, t.copies, a, &d) != VERDICT_TAKE && /* ~ */
	    MARKED(bulk_resolve))
		t.resolve = true; /* torn: it is settled, or not yet */
	else if (only >= 0 && (!a[only].in_sync || a[only].torn))
		t.resolve = true;
	else if (d.lost && map_set(&l->lost, SD_OID_VID(t.oid), l) < 0)
		return -ENOMEM;
	/* The state here, now: what was done on demand meanwhile needs nothing. */
	store_lookup(j->s->sh->store, t.oid, &have);
	if (sync_in(j->s, t.oid, e->hash, t.copies))
		return 0;
	if (!t.resolve) {
		t.rule1 = d.rule1;
		t.src = (unsigned)d.src;
		t.ver = a[d.src].ver;
		if (PLANTED(trust_higher) && obj_ver_cmp(have.ver, t.ver) > 0)
			return 0;
		if ((d.src == j->view->self || (!have.torn && obj_ver_cmp(have.ver, t.ver) == 0)) &&
		    MARKED(bulk_equal)) /* K1 */
			return 0;
	}
	return task_add(l, &t);
}

static int plan(struct lists *l, int only)
{
	struct entry *e = NULL;
	struct answer *a = calloc(l->j->view->nr, sizeof(*a));
	int n = a ? entries(l, &e) : -ENOMEM, r = n < 0 ? n : 0;

	for (int i = 0, k; i < n && r == 0; i = k) {
		k = i + 1;
		while (k < n && e[k].row->oid == e[i].row->oid)
			k++;
		r = plan_object(l, e + i, (unsigned)(k - i), a, only);
		if (r == 0)
			r = over(l->j);
	}
	free(e);
	free(a);
	return r;
}

/* Before anything of them is taken. */
static int tell_lost(struct lists *l)
{
	uint64_t vid;
	size_t pos = 0;
	int r = 0;

	while (r == 0 && map_next(&l->lost, &pos, &vid) && MARKED(bulk_lost))
		r = sync_say_lost(l->j, (uint32_t)vid); /* ~ */
	return r;
}

/* ---- doing it ---- */

/* The state of t->src, if it is not in sync here by now. */
static int task_pull(struct job *j, const struct task *t)
{
	struct pull p = {.oid = t->oid, .copies = t->copies, .src = t->src, .ver = t->ver};
	struct store_obj *o = pull_lock(j, t->oid); /* ~ */
	int r = over(j);

	if (!o)
		return -EAGAIN;
	p.rule = t->rule1 ? PULL_IN_SYNC : PULL_EXACT;
	if (r == 0 && !sync_in(j->s, t->oid, sd_hash_oid(t->oid), t->copies) && MARKED(bulk_pull))
		r = pull_locked(j, o, &p); /* ~ */
	pull_unlock(j, t->oid, o);
	return r;
}

/* What requests wait for comes first; but the rest does not wait for ever. */
static void let_demand_pass(struct job *j)
{
	for (unsigned i = 0; i < 2 && j->s->nr_workers && !job_over(j); i++) {
		MARK(bulk_demand_first);
		job_wait(j, SYNC_RETRY_NS / 2, "sync: requests first"); /* ~ */
	}
}

static void task_co(void *arg)
{
	struct lists *l = arg;
	struct sync *s = l->j->s;
	struct job j;

	job_begin(s, &j);
	while (l->next < l->nr_task && !job_over(l->j)) {
		const struct task *t = &l->task[l->next++];
		let_demand_pass(&j); /* ~ */
		int r = over(l->j);
		if (r == 0)
			r = t->resolve ? sync_resolve(&j, t->oid, t->copies, NULL)
				       : task_pull(&j, t); /* ~ */
		if (r < 0 && MARKED(bulk_failed))
			l->failed++;
	}
	job_end(&j);
}

static int run(struct lists *l)
{
	struct co_group g;
	unsigned n = l->nr_task < SYNC_BULK_PULLS ? l->nr_task : SYNC_BULK_PULLS;

	co_group_init(&g);
	for (unsigned i = 0; i < n; i++)
		if (co_group_start(l->j->s->sh->sched, &g, task_co, l, "bulk pull") < 0)
			break;
	if (n && !g.nr && l->next < l->nr_task)
		task_co(l); /* ~ too many coroutines: do it here */
	co_group_wait(&g);  /* ~ */
	int r = over(l->j);
	return r < 0 ? r : l->failed ? -EAGAIN : 0;
}

static int mark_box(struct job *j, const struct sync_box *b, uint32_t epoch)
{
	struct mark_rec rec = {.type = MARK_BOX, .box = *b, .epoch = epoch};

	return sync_mark(j, &rec); /* ~ */
}

/* The largest synced of all who answered, for what is in no list. */
static uint32_t lists_synced(const struct lists *l)
{
	uint32_t e = 0;

	for (unsigned i = 0; i < l->j->view->nr; i++)
		if (l->list[i].synced > e)
			e = l->list[i].synced;
	return e;
}

/* Rule (2) for the whole box. */
static int box_rule2(struct lists *l)
{
	int r = ask_all(l); /* ~ */

	if (r == 0)
		r = list_self(l);
	if (r == 0 && sync_absent(l->j, lists_synced(l), &l->box) && MARKED(bulk_absent)) /* ~ */
		r = -EBUSY;
	return r;
}

static int box_steps(struct lists *l)
{
	int src = -1, r = ask_ring(l, &src); /* ~ */

	if (r < 0)
		return r;
	if (src >= 0) { /* rule (1): only that one and we count */
		for (unsigned i = 0; i < l->j->view->nr; i++)
			l->list[i].ok = (int)i == src;
		r = list_self(l);
	} else { /* rule (2): all members must have answered */
		MARK(bulk_rule2);
		r = box_rule2(l); /* ~ */
	}
	if (r == 0)
		r = over(l->j);
	if (r == 0)
		r = plan(l, src); /* ~ */
	if (r == 0)
		r = tell_lost(l); /* ~ */
	if (r == 0)
		r = run(l);					  /* ~ */
	return r == 0 ? mark_box(l->j, &l->box, l->j->epoch) : r; /* ~ */
}

/* Bring a part of @b, around its corner (from, chi), in sync; @b becomes that part. */
static int bulk_box(struct job *j, struct sync_box *b)
{
	struct lists l = {.j = j, .box = *b};
	int r = -ENOMEM;

	map_init(&l.lost);
	l.list = calloc(j->view->nr, sizeof(*l.list));
	if (l.list)
		r = box_steps(&l); /* ~ */
	lists_done(&l);
	*b = l.box;
	return r;
}

/* ---- surplus: what lies here beside the ring ---- */

static bool asks_in_sync(struct job *j, const struct sync_box *b, uint32_t member)
{
	struct ask *a = ask_new(j, PEER_DROP_CHECK, member, 0, b->clo);

	if (!a)
		return false;
	a->c.req.off = b->from;
	a->c.req.len = b->to;
	a->c.req.obj_size = b->chi;
	ask_send(a);
	bool yes = ask_wait(a) == 0 && ask_ok(a) && a->c.rsp.result == SD_RES_SUCCESS && /* ~ */
		   (a->c.rsp.flags & PEER_F_IN_SYNC);
	ask_drop(a);
	return yes;
}

static bool ring_in_sync(struct job *j, const struct sync_box *b)
{
	uint32_t ring[SD_COPIES_MAX];
	unsigned nr = ring_lookup(j->view->ring, b->to, b->chi, ring);
	bool all = nr > 0;

	for (unsigned i = 0; i < nr && all; i++) {
		if ((int)ring[i] == j->view->self)
			return false;
		all = asks_in_sync(j, b, ring[i]); /* ~ */
	}
	return all;
}

static int drop_one(struct job *j, const struct obj_info *info)
{
	struct store *st = j->s->sh->store;
	struct store_obj *o = store_get(st, info->oid, true); /* ~ */
	struct store_write w = {0};
	struct obj_info now;
	int r = over(j);

	if (r == 0 && store_lookup(st, info->oid, &now) &&
	    !sync_mine(j->s, now.hash, sync_stored_copies(j->s, &now)) && MARKED(bulk_drop)) {
		w.ver = now.ver;
		j->s->dropped |= 1u << sync_stored_copies(j->s, &now);
		r = store_queue_remove(o, &w);
		store_put(o);
		return r < 0 ? r : store_wait(st, &w); /* ~ */
	}
	store_put(o);
	return r;
}

/* Objects of the box: true if there is one; @drop: remove them. */
static int surplus_objects(struct job *j, const struct sync_box *b, bool drop)
{
	struct obj_info info[32];
	uint64_t h = 0, o = 0;
	bool cont = false;
	unsigned n;
	int r = 0, found = 0;

	while (r == 0 && (n = store_list(j->s->sh->store, b->from, b->to, cont, h, o, info, 32))) {
		for (unsigned i = 0; i < n && r == 0; i++) {
			uint8_t copies = sync_stored_copies(j->s, &info[i]);
			if (copies < b->clo || copies > b->chi)
				continue;
			found = 1;
			if (drop)
				r = drop_one(j, &info[i]); /* ~ */
			else
				return 1;
		}
		h = info[n - 1].hash;
		o = info[n - 1].oid;
		cont = true;
	}
	return r < 0 ? r : found;
}

/* The next box that is not mine and of which I know or have something. */
static bool surplus_next(struct job *j, uint64_t cursor, struct sync_box *b)
{
	const struct sync_map *m = &j->s->map;

	for (unsigned i = smap_find(m, cursor); i < m->nr; i++) {
		const struct sync_seg *seg = &m->seg[i];
		bool known = false;

		if (!seg->rank)
			continue;
		uint64_t start = smap_start(m, i);
		*b = (struct sync_box){start > cursor ? start : cursor, m->end[i], 1,
				       (uint8_t)seg->rank};
		for (unsigned c = 1; c <= seg->rank; c++)
			known |= seg->s[c - 1] != 0;
		if (known || surplus_objects(j, b, false) > 0)
			return true;
	}
	return false;
}

/* Does a pull of an older epoch still hold its object?  What it is just renaming into place will be
 * there although nobody wants it any more: we would look before it is. */
static bool older_pulls(const struct job *j)
{
	const struct job *o;
	size_t pos = 0;

	while ((o = map_next(&j->s->pulling, &pos, NULL)))
		if (o->epoch != j->epoch)
			return true;
	return false;
}

/* A node drops what is outside its arcs only after every ring member of the present epoch has told
 * it that it is in sync there (DESIGN 5.5; WHY B1k drop-early).  First the mark that nothing of it
 * is known here any more: "dropped" must never be taken for "does not exist". */
static int drop_surplus(struct job *j)
{
	struct sync_box b;
	uint64_t cursor = 0;
	int left = older_pulls(j) && MARKED(bulk_older), r = 0;

	while (r >= 0 && surplus_next(j, cursor, &b)) {
		uint64_t end = ring_arc_end(j->view->ring, b.from);
		b.to = end < b.to ? end : b.to;
		bool may = PLANTED(drop_early) || ring_in_sync(j, &b); /* ~ */
		r = over(j);
		if (r == 0 && may)
			r = mark_box(j, &b, 0); /* ~ */
		if (r == 0 && may)
			r = surplus_objects(j, &b, true); /* ~ */
		left |= !may && MARKED(bulk_drop_not);
		if (b.to == UINT64_MAX)
			break;
		cursor = b.to + 1;
	}
	if (r >= 0 && j->s->dropped) {
		r = store_flush(j->s->sh->store); /* ~ */
		if (r == 0)
			j->s->dropped = 0; /* only this coroutine drops */
	}
	return r < 0 ? r : left ? -EAGAIN : 0;
}

/* ---- has every arc somebody in sync? ---- */

/* @b lies in one arc. */
static bool somebody_in_sync(struct job *j, const struct sync_box *b)
{
	uint32_t ring[SD_COPIES_MAX];
	unsigned nr = ring_lookup(j->view->ring, b->to, b->chi, ring);
	bool found = false;

	for (unsigned i = 0; i < nr && !found; i++)
		if ((int)ring[i] != j->view->self)
			found = asks_in_sync(j, b, ring[i]); /* ~ */
	return found;
}

struct cover {
	struct sync *s;
	uint8_t copies;
};

static void cover_co(void *arg)
{
	struct cover c = *(struct cover *)arg;
	struct sync *s = c.s;
	struct sync_box b;
	uint64_t cursor = 0;
	bool done = false;
	struct job j;

	free(arg);
	job_begin(s, &j);
	while (!done && !job_over(&j)) {
		done = !smap_todo(&s->map, j.epoch, c.copies, cursor, &b);
		if (done)
			break;
		uint64_t end = ring_arc_end(j.view->ring, b.from);
		b.to = end < b.to ? end : b.to;
		b.clo = b.chi;
		if (somebody_in_sync(&j, &b)) { /* ~ */
			done = b.to == UINT64_MAX;
			cursor = b.to + 1;
			continue;
		}
		MARK(bulk_not_covered);
		if (cluster_params(s->sh->cluster)->disable_recovery)
			bulk_box(&j, &b); /* ~ else recover_main() does */
		job_wait(&j, SYNC_RETRY_NS, "sync: an arc that nobody has"); /* ~ */
	}
	if (done && !job_over(&j))
		s->covered[c.copies - 1] = j.epoch;
	s->covering &= ~(1u << (c.copies - 1));
	job_end(&j);
}

bool sync_covered(struct sync *s, uint8_t copies)
{
	struct sync_box b;
	uint32_t bit;

	if (copies < 1 || copies > SD_COPIES_MAX || !s->epoch || s->stopping)
		return false;
	if (s->covered[copies - 1] == s->epoch || !smap_todo(&s->map, s->epoch, copies, 0, &b))
		return true;
	bit = 1u << (copies - 1);
	struct cover *c = s->covering & bit ? NULL : malloc(sizeof(*c));
	if (c) {
		*c = (struct cover){s, copies};
		s->covering |= bit;
		if (!co_start(s->sh->sched, cover_co, c, "cover")) {
			s->covering &= ~bit;
			free(c);
		}
	}
	return false;
}

/* ---- the recovery of this node ---- */

struct pass {
	bool again, absent;
};

/* All boxes of what is todo, those of many copies first: they are one for the most arcs. */
static int pass_copies(struct job *j, uint8_t copies, struct pass *p)
{
	struct sync_box b;
	uint64_t cursor = 0;

	while (smap_todo(&j->s->map, j->epoch, copies, cursor, &b)) {
		int r = bulk_box(j, &b); /* ~ */
		if (over(j))
			return over(j);
		p->absent |= r == -EBUSY;
		p->again |= r < 0 && r != -EBUSY;
		if (b.to == UINT64_MAX)
			break;
		cursor = b.to + 1;
	}
	return 0;
}

static bool any_todo(const struct sync *s, uint32_t epoch)
{
	struct sync_box b;

	for (unsigned c = 1; c <= SD_COPIES_MAX; c++)
		if (smap_todo(&s->map, epoch, (uint8_t)c, 0, &b))
			return true;
	return false;
}

/* All that came from a given-up branch has been compared: from now on what is replaced is not kept.
 */
static int rest_branch(struct job *j)
{
	struct sync *s = j->s;
	int r = 0;

	co_mutex_lock(&s->file_lock); /* ~ */
	if (!job_over(j)) {
		MARK(bulk_branch);
		s->branch = false;
		r = sync_file_write(s, s->map_epoch, s->map_name, &s->map, &s->marks); /* ~ */
	}
	co_mutex_unlock(&s->file_lock);
	return r;
}

static int rest(struct job *j)
{
	struct sync *s = j->s;
	int r = s->branch ? rest_branch(j) : 0; /* ~ */

	if (r == 0 && s->purge && !s->keep_stale) {
		MARK(bulk_purge);
		r = store_purge_stale(s->sh->store); /* ~ */
		s->purge = r != 0;
	}
	if (r < 0 && MARKED(bulk_rest_io))
		log_err(s->sh->log, "after recovery: %s", strerror(-r));
	if (over(j))
		return over(j);
	log_info(s->sh->log, "epoch %u: all of this node's objects are in sync", j->epoch);
	s->rest_epoch = j->epoch;
	return 0;
}

static int one_pass(struct job *j, struct pass *p)
{
	struct sync *s = j->s;
	int r = 0;

	for (unsigned c = SD_COPIES_MAX; c >= 1 && r == 0; c--)
		r = pass_copies(j, (uint8_t)c, p); /* ~ */
	if (r < 0)
		return r;
	if (PLANTED(drop_early))
		drop_surplus(j); /* ~ */
	if (p->absent || p->again || any_todo(s, j->epoch) || s->torn.nr) {
		p->again |= !p->absent;
		return 0;
	}
	r = drop_surplus(j); /* ~ */
	if (over(j))
		return over(j);
	if (r < 0) {
		p->again = true;
		return 0;
	}
	return rest(j); /* ~ */
}

/* Objects that are torn in an arc in sync (a clean restart that was not). */
static void torn_pass(struct job *j)
{
	uint64_t oid;
	size_t pos = 0;
	struct obj_info info;

	while (!job_over(j) && map_next(&j->s->torn, &pos, &oid) && MARKED(bulk_torn)) {
		if (!store_lookup(j->s->sh->store, oid, &info) || !info.torn ||
		    sync_resolve(j, oid, sync_stored_copies(j->s, &info), NULL) == 0) { /* ~ */
			map_del(&j->s->torn, oid);
			pos = 0;
		}
	}
}

void recover_main(void *arg)
{
	struct sync *s = arg;

	while (!s->stopping) {
		struct pass p = {0};
		struct job j;

		recover_workers(s);
		bool off = s->epoch && cluster_params(s->sh->cluster)->disable_recovery;
		bool work = s->epoch && s->rest_epoch != s->epoch && !off;
		if (work) {
			job_begin(s, &j);
			torn_pass(&j);	  /* ~ */
			one_pass(&j, &p); /* ~ */
			bool moved = job_over(&j);
			job_end(&j);
			if (moved && MARKED(bulk_moved))
				continue;
		}
		if (s->stopping)
			break;
		/* Absent nodes: only a new view helps. */
		bool soon = p.again || (s->nr_demand && !s->nr_workers);
		if (soon || off)
			co_cond_wait_until(&s->changed, env_now(s->sh->env) + SYNC_PASS_NS,
					   "recovery"); /* ~ */
		else
			co_cond_wait(&s->changed, "recovery"); /* ~ */
	}
	sync_leave(s);
}
