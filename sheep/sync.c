/* sync.c - what is in sync here, durably (DESIGN 5.5; invariants Y1 to Y6 in sync_int.h). */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/sync_int.h"
#include "sheep/mark.h"

/* ---- who is inside ---- */

void sync_enter(struct sync *s)
{
	s->nr_inside++;
}

void sync_leave(struct sync *s)
{
	assert(s->nr_inside);
	if (--s->nr_inside == 0)
		co_cond_broadcast(&s->left);
}

void job_begin(struct sync *s, struct job *j)
{
	*j = (struct job){.s = s, .epoch = s->epoch, .view = view_get(s->view)};
	co_cond_init(&j->cond);
	cds_list_add_tail(&j->node, &s->jobs);
	sync_enter(s);
}

void job_end(struct job *j)
{
	cds_list_del(&j->node);
	view_put(j->view);
	sync_leave(j->s);
}

int job_wait(struct job *j, uint64_t ns, const char *why)
{
	return co_cond_wait_until(&j->cond, env_now(j->s->sh->env) + ns, why); /* ~ */
}

static void jobs_wake(struct sync *s)
{
	struct job *j;

	cds_list_for_each_entry (j, &s->jobs, node)
		co_cond_broadcast(&j->cond);
}

/* ---- asking: no yield ---- */

bool sync_mine(const struct sync *s, uint64_t hash, uint8_t copies)
{
	return s->map.seg[smap_find(&s->map, hash)].rank < copies;
}

static uint32_t seg_synced(const struct sync *s, const struct sync_seg *seg, uint64_t oid,
			   uint8_t copies)
{
	uint32_t e = seg->s[copies - 1];

	if (s->marks.nr) {
		const struct sync_mark *m = map_get(&s->marks, oid);
		if (m && m->epoch > e)
			e = m->epoch;
	}
	return e;
}

uint32_t sync_synced(const struct sync *s, uint64_t oid, uint64_t hash, uint8_t copies)
{
	return seg_synced(s, &s->map.seg[smap_find(&s->map, hash)], oid, copies);
}

/* The check of every write: a search over the arcs; the maps are empty when all is in sync. */
bool sync_in(const struct sync *s, uint64_t oid, uint64_t hash, uint8_t copies)
{
	const struct sync_seg *seg = &s->map.seg[smap_find(&s->map, hash)];

	if (!s->epoch || seg->rank >= copies)
		return false;
	if (seg->s[copies - 1] != s->epoch && seg_synced(s, seg, oid, copies) != s->epoch)
		return false;
	return !s->torn.nr || !map_get(&s->torn, oid);
}

bool sync_is(struct sheep *sh, uint32_t e, uint64_t oid, uint8_t copies)
{
	struct sync *s = sh->sync;

	if (!e || s->epoch != e || copies < 1 || copies > SD_COPIES_MAX)
		return false;
	return sync_in(s, oid, sd_hash_oid(oid), copies);
}

uint32_t sync_epoch(const struct sheep *sh)
{
	return sh->sync->epoch;
}

bool sync_at_rest(struct sheep *sh)
{
	const struct sync *s = sh->sync;

	return s->epoch && s->rest_epoch == s->epoch;
}

uint8_t sync_copies(struct sync *s, uint64_t oid, uint8_t copies)
{
	struct obj_info info;
	const struct vdi *v;

	if (!copies && (v = cluster_vdi(s->sh->cluster, SD_OID_VID(oid))))
		copies = v->copies;
	if (!copies && store_lookup(s->sh->store, oid, &info))
		copies = info.copies;
	return copies <= SD_COPIES_MAX ? copies : 0;
}

uint8_t sync_stored_copies(const struct sync *s, const struct obj_info *info)
{
	const struct vdi *v;

	if (info->copies >= 1 && info->copies <= SD_COPIES_MAX)
		return info->copies;
	v = cluster_vdi(s->sh->cluster, SD_OID_VID(info->oid));
	return v && v->copies >= 1 && v->copies <= SD_COPIES_MAX ? v->copies : 1;
}

/* ---- waiting for an object ---- */

static struct want *want_get(struct sync *s, uint64_t oid, uint8_t copies)
{
	struct want *w = map_get(&s->wants, oid);

	if (w) {
		w->refs++;
		return w;
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->oid = oid;
	w->copies = copies;
	w->epoch = s->epoch;
	w->refs = 1;
	co_cond_init(&w->cond);
	if (map_set(&s->wants, oid, w) < 0) {
		free(w);
		return NULL;
	}
	recover_queue(s, w);
	return w;
}

/* The last one who waits for it takes it along; a worker has a reference of its own. */
void want_put(struct sync *s, struct want *w)
{
	assert(w->refs);
	if (--w->refs)
		return;
	if (w->queued) {
		cds_list_del(&w->node);
		s->nr_demand--;
	}
	if (!w->over)
		map_del(&s->wants, w->oid);
	free(w);
}

static void want_end(struct sync *s, struct want *w)
{
	if (w->over)
		return;
	w->over = true;
	map_del(&s->wants, w->oid);
	co_cond_broadcast(&w->cond);
}

/* All that was waited for in an older epoch is void. */
static void wants_end(struct sync *s)
{
	struct want *w;
	size_t pos = 0;

	while ((w = map_next(&s->wants, &pos, NULL))) {
		w->over = true;
		co_cond_broadcast(&w->cond);
	}
	map_done(&s->wants);
}

void sync_kick(struct sync *s)
{
	struct want *w;
	size_t pos = 0;

	while ((w = map_next(&s->wants, &pos, NULL)))
		co_cond_broadcast(&w->cond);
}

/* False: the one who waits is to name a version first. */
static bool want_by(struct want *w, const struct settle_by *by)
{
	if (by->gen > w->by.gen) {
		w->by.gen = by->gen;
		w->torn = false;
	}
	if (obj_ver_cmp(by->ver, w->by.ver) > 0) {
		w->by.ver = by->ver;
		w->torn = false;
	}
	return !w->torn;
}

int sync_wait(struct sync *s, uint32_t epoch, uint64_t oid, uint8_t copies,
	      const struct settle_by *by, const bool *voided)
{
	uint64_t hash = sd_hash_oid(oid);
	int r = 0;

	if (copies < 1 || copies > SD_COPIES_MAX)
		return -EINVAL;
	sync_enter(s);
	for (;;) {
		if (s->stopping || (voided && *voided)) {
			r = -ECANCELED;
			break;
		}
		if (s->epoch != epoch && MARKED(sync_wait_over)) {
			r = -ESTALE;
			break;
		}
		if (sync_in(s, oid, hash, copies))
			break;
		if (!sync_mine(s, hash, copies) && MARKED(sync_wait_alien)) {
			r = -EINVAL;
			break;
		}
		struct want *w = want_get(s, oid, copies);
		if (!w) {
			r = -ENOMEM;
			break;
		}
		if (by && !want_by(w, by) && MARKED(sync_wait_torn))
			r = -EUCLEAN;
		else
			co_cond_wait(&w->cond, "in sync"); /* ~ */
		MARK(sync_wait_todo);
		want_put(s, w);
		if (r < 0)
			break;
	}
	sync_leave(s);
	return r;
}

int sync_ensure(struct sheep *sh, struct view *v, uint64_t oid, uint8_t copies)
{
	struct sync *s = sh->sync;
	uint32_t e = v->epoch;
	int r;

	sync_enter(s);
	while ((r = sync_admit(s, e)) == -EAGAIN && !s->stopping)
		co_cond_wait(&s->changed, "view"); /* ~ */
	sync_leave(s);
	return r < 0 && r != -EAGAIN ? r : sync_wait(s, e, oid, copies, NULL, NULL); /* ~ */
}

/* ---- marks ---- */

/* Who waits for an object of the box may look: it is in sync now. */
static void wants_wake(struct sync *s, const struct mark_rec *rec)
{
	struct want *w;
	size_t pos = 0;

	if (rec->type == MARK_OBJECT) {
		w = map_get(&s->wants, rec->oid);
		if (w)
			want_end(s, w);
		return;
	}
	while ((w = map_next(&s->wants, &pos, NULL))) {
		if (!sync_in(s, w->oid, sd_hash_oid(w->oid), w->copies))
			continue;
		want_end(s, w);
		pos = 0;
	}
}

static int apply_object(struct sync *s, const struct mark_rec *rec)
{
	struct sync_mark *m = map_get(&s->marks, rec->oid);

	if (!m) {
		m = malloc(sizeof(*m));
		if (!m)
			return -ENOMEM;
		*m = (struct sync_mark){.oid = rec->oid};
		if (map_set(&s->marks, rec->oid, m) < 0) {
			free(m);
			return -ENOMEM;
		}
	}
	MARK(sync_mark_object);
	m->epoch = rec->epoch;
	m->copies = rec->box.chi;
	map_del(&s->torn, rec->oid);
	return 0;
}

static bool in_box(const struct sync_box *b, uint64_t oid, uint8_t copies)
{
	uint64_t h = sd_hash_oid(oid);

	return copies >= b->clo && copies <= b->chi && h >= b->from && h <= b->to;
}

/* What was dropped is not known here any more, the single objects of it included. */
static void marks_drop(struct sync *s, const struct sync_box *b)
{
	struct sync_mark *m;
	size_t pos = 0;

	while ((m = map_next(&s->marks, &pos, NULL)))
		if (in_box(b, m->oid, m->copies))
			m->epoch = 0;
}

static int apply(struct sync *s, const struct mark_rec *rec)
{
	if (rec->type == MARK_OBJECT)
		return apply_object(s, rec);
	int r = smap_set(&s->map, &rec->box, rec->epoch);
	if (rec->epoch)
		MARK(sync_mark_box);
	if (r == 0 && !rec->epoch && MARKED(sync_mark_drop))
		marks_drop(s, &rec->box);
	return r;
}

/* While the file is loaded.  Without memory for it the load fails later: the map is what counts. */
void sync_apply(struct sync *s, const struct mark_rec *rec)
{
	if (apply(s, rec) < 0)
		abort(); /* at the start: a mark that is forgotten is not safe */
}

#define MARK_BATCH 64u

/* The next batch of marks; those of another epoch are void (WHY B1g pull-notag). */
static unsigned batch_take(struct sync *s, struct mark_req **req, struct mark_rec *rec)
{
	struct mark_req *q, *next;
	unsigned nr = 0;

	cds_list_for_each_entry_safe (q, next, &s->pending, node) {
		if (nr == MARK_BATCH)
			break;
		cds_list_del(&q->node);
		req[nr] = q;
		q->result =
			s->epoch == q->job_epoch || PLANTED(pull_notag) || !MARKED(sync_mark_old)
				? 0
				: -ESTALE;
		if (PLANTED(pull_notag) && q->rec.epoch)
			q->rec.epoch = s->epoch;
		rec[nr++] = q->rec;
	}
	return nr;
}

static void batch_done(struct sync *s, struct mark_req **req, unsigned nr, int r)
{
	for (unsigned i = 0; i < nr; i++) {
		struct mark_req *q = req[i];

		if (q->result == 0)
			q->result = r < 0 ? r : apply(s, &q->rec);
		if (q->result == 0)
			wants_wake(s, &q->rec);
		q->done = true;
		if (q->co != co_self())
			co_wake(q->co);
	}
}

/* What the marks vouch for: of a copy that was found equal, or of one that was dropped here and
 * does not exist any more, nothing need be durable here yet; a flush of its owner did not reach us.
 * Else a power cut would bring back what was before, "in sync" (scenario dropped-stays-dropped). */
static int marks_state(struct sync *s, const struct mark_rec *rec, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		if (rec[i].epoch)
			return store_flush(s->sh->store); /* ~ */
	return 0;
}

/* One writer at a time, for all who have come meanwhile: the state and the mark are durable before
 * the first read or write is served from it (DESIGN 5.5; WHY B1h mark-volatile). */
static void write_marks(struct sync *s)
{
	struct mark_req *req[MARK_BATCH];
	struct mark_rec rec[MARK_BATCH], good[MARK_BATCH];

	s->writing = true;
	co_mutex_lock(&s->file_lock); /* ~ against sync_view() */
	while (!cds_list_empty(&s->pending)) {
		unsigned nr = batch_take(s, req, rec), n = 0;
		int r = 0;

		for (unsigned i = 0; i < nr; i++)
			if (req[i]->result == 0)
				good[n++] = rec[i];
		if (n && !PLANTED(mark_unsynced))
			r = marks_state(s, good, n); /* ~ */
		if (n && r == 0 && (!s->file || s->nr_appended > SYNC_APPEND_MAX))
			r = sync_file_write(s, s->map_epoch, s->map_name, &s->map,
					    &s->marks); /* ~ */
		if (n && r == 0)
			r = sync_file_append(s, good, n); /* ~ */
		if (r < 0 && MARKED(sync_mark_io))
			log_err(s->sh->log, "cannot mark objects as in sync: %s", strerror(-r));
		/* The view cannot have moved on in the map: it waits for file_lock. */
		batch_done(s, req, nr, r);
	}
	s->writing = false;
	co_mutex_unlock(&s->file_lock);
}

int sync_mark(struct job *j, const struct mark_rec *rec)
{
	struct sync *s = j->s;
	struct mark_req q = {.rec = *rec, .job_epoch = j->epoch, .co = co_self()};

	if (job_over(j))
		return s->stopping ? -ECANCELED : -ESTALE;
	cds_list_add_tail(&q.node, &s->pending);
	if (!s->writing)
		write_marks(s); /* ~ */
	while (!q.done)
		co_park("mark"); /* ~ */
	return q.result;
}

/* ---- views ---- */

/* Was this node, the same incarnation, a member of the epoch just before, served here? */
static bool continues(const struct sync *s, const struct view *old, const struct view *v)
{
	if (!old || !s->view || s->view->epoch != old->epoch || s->map_epoch != old->epoch ||
	    old->epoch + 1 != v->epoch || old->self < 0 || v->self < 0)
		return false;
	const struct incarnation *a = &old->members[old->self].inc, *b = &v->members[v->self].inc;
	return a->start == b->start && memcmp(a->uuid, b->uuid, sizeof(a->uuid)) == 0;
}

static bool same_epoch(const struct sync *s, const struct view *v)
{
	return v && s->map_epoch == v->epoch && memcmp(s->map_name, v->name, sizeof(v->name)) == 0;
}

/* We come from a branch that was given up: all we have counts as of the last common epoch, and goes
 * to .stale/ where the cluster has something else (DESIGN 4.3, WHY B4). */
static void give_up(struct sync *s, struct view *v)
{
	const struct member *self = v->self < 0 ? NULL : &v->members[v->self];
	struct sync_mark *m;
	size_t pos = 0;

	if (!self || !self->given_up || !s->map_epoch || same_epoch(s, v))
		return;
	struct view *h = cluster_history(s->sh->cluster, s->map_epoch);
	bool known = same_epoch(s, h);
	view_put(h);
	if (known)
		return; /* done in an earlier epoch */
	MARK(sync_give_up);
	log_warn(s->sh->log,
		 "what this node has is from a given-up branch: it counts as of epoch "
		 "%u, and goes to .stale/",
		 self->common_epoch);
	smap_cap(&s->map, self->common_epoch);
	if (s->lost > self->common_epoch) /* the epochs of this branch have the same numbers */
		s->lost = self->common_epoch;
	while ((m = map_next(&s->marks, &pos, NULL)))
		if (m->epoch > self->common_epoch)
			m->epoch = self->common_epoch;
	s->branch = s->keep_stale = true;
}

static uint32_t newest(const struct sync *s)
{
	struct sync_mark *m;
	size_t pos = 0;
	uint32_t e = smap_max(&s->map);

	while ((m = map_next(&s->marks, &pos, NULL)))
		if (m->epoch > e)
			e = m->epoch;
	return e;
}

/* Another boot id than when the file was written last: what was cached in the epochs it speaks of
 * may be gone.  The next write of the file, before anything is in sync in a newer epoch, says so
 * (Y7). */
static void look_at_power(struct sync *s)
{
	uint8_t now[16];

	env_boot_id(s->sh->env, now);
	if (memcmp(now, s->boot, sizeof(now)) != 0 && newest(s) && MARKED(sync_power_lost))
		s->lost = newest(s);
	memcpy(s->boot, now, sizeof(now));
}

/* After a clean restart nothing should be torn; if something is, it is todo (DESIGN 6). */
static int find_torn(struct sync *s)
{
	struct obj_info info[64];
	uint64_t h = 0, o = 0;
	bool cont = false;
	unsigned n;

	while ((n = store_list(s->sh->store, 0, UINT64_MAX, cont, h, o, info, 64))) {
		for (unsigned i = 0; i < n; i++) {
			if (!info[i].torn)
				continue;
			MARK(sync_find_torn);
			log_err(s->sh->log, "object %016" PRIx64 " is torn", info[i].oid);
			if (map_set(&s->torn, info[i].oid, s) < 0)
				return -ENOMEM;
		}
		h = info[n - 1].hash;
		o = info[n - 1].oid;
		cont = true;
	}
	return 0;
}

/* The objects of the store, by their copies. */
static void have_scan(struct sync *s)
{
	struct obj_info info[64];
	uint64_t h = 0, o = 0;
	bool cont = false;
	unsigned n;

	s->have = 0;
	while ((n = store_list(s->sh->store, 0, UINT64_MAX, cont, h, o, info, 64))) {
		for (unsigned i = 0; i < n; i++)
			sync_have(s, sync_stored_copies(s, &info[i]));
		h = info[n - 1].hash;
		o = info[n - 1].oid;
		cont = true;
	}
}

/* Numbers of copies that no VDI has at the view's place in the order (where the table is now: C2 of
 * cluster.h): no object of them exists, so who has none is in sync.  Without this, arcs of few
 * copies that nobody uses would wait for nodes that never come back, and a new VDI with them.  Who
 * has one (of a given-up branch, say) compares. */
static uint32_t unused(struct sync *s)
{
	uint32_t free_bits = UINT32_MAX;
	const struct vdi *v = NULL;

	while ((v = cluster_vdi_next(s->sh->cluster, v ? v->vid : 0)))
		if ((!v->deleted || v->reclaiming) && v->copies <= SD_COPIES_MAX)
			free_bits &= ~(1u << v->copies);
	if (free_bits & s->have)
		have_scan(s);
	return free_bits & ~s->have & ~s->dropped;
}

/* Single objects: as the arcs (seg_view). */
static void marks_view(struct sync *s, const struct sync_map *map, uint32_t from, uint32_t epoch)
{
	struct sync_mark *m;
	size_t pos = 0;

	while (from && (m = map_next(&s->marks, &pos, NULL))) {
		uint64_t hash = sd_hash_oid(m->oid);

		if (m->epoch == from && sync_mine(s, hash, m->copies) &&
		    map->seg[smap_find(map, hash)].rank < m->copies && MARKED(sync_keeps_object))
			m->epoch = epoch;
	}
}

/* Keep only marks that say more than their arcs.  Without memory for it they stay: harmless. */
static void marks_trim(struct sync *s)
{
	struct map keep;
	struct sync_mark *m;
	size_t pos = 0;

	map_init(&keep);
	while ((m = map_next(&s->marks, &pos, NULL))) {
		const struct sync_seg *seg = &s->map.seg[smap_find(&s->map, sd_hash_oid(m->oid))];
		if (m->epoch > seg->s[m->copies - 1] && map_set(&keep, m->oid, m) < 0) {
			map_done(&keep);
			return;
		}
	}
	pos = 0;
	while ((m = map_next(&s->marks, &pos, NULL)))
		if (!map_get(&keep, m->oid))
			free(m);
	map_done(&s->marks);
	s->marks = keep;
}

/* The map of @v, durable, in place.  Under file_lock. */
static int view_apply(struct sync *s, struct view *old, struct view *v, bool clean)
{ /* @clean: what was in sync in this very epoch is in sync at once (DESIGN 4.3) */
	uint32_t from = continues(s, old, v) ? old->epoch : 0;
	bool kept = clean && !old && same_epoch(s, v);
	MARK(sync_view_all);
	if (from)
		MARK(sync_stays);
	else if (kept)
		MARK(sync_kept);
	else
		MARK(sync_anew);
	struct sync_map map;
	int r;

	if (!s->view)
		give_up(s, v);
	/* "In sync" is told by the epoch's number (Y1): nothing may have it before. */
	if (!kept && newest(s) >= v->epoch && MARKED(sync_newer)) {
		log_err(s->sh->log, "this node was in sync in epoch %u or later already", v->epoch);
		return -EUCLEAN;
	}
	r = kept ? find_torn(s) : 0;
	if (r < 0)
		return r;
	r = smap_view(&s->map, v->ring, v->self, from, v->epoch, unused(s), &map);
	if (r < 0)
		return r;
	marks_view(s, &map, from, v->epoch);
	r = sync_file_write(s, v->epoch, v->name, &map, &s->marks); /* ~ */
	if (r < 0 && MARKED(sync_view_io)) {
		smap_done(&map);
		return r;
	}
	smap_done(&s->map);
	s->map = map;
	s->map_epoch = v->epoch;
	memcpy(s->map_name, v->name, sizeof(s->map_name));
	marks_trim(s);
	return 0;
}

int sync_view(struct sheep *sh, struct view *old, struct view *new_view, bool clean)
{
	struct sync *s = sh->sync;
	int r;

	if (s->stopping)
		return -ECANCELED;
	sync_enter(s);
	/* From here on writes of older epochs are refused; what is queued in the journal is in the
	 * index already, and whoever asks for versions waits for it to land (replica.c, WHY B3). */
	MARK(sync_refuses);
	s->refuse = new_view->epoch;
	s->epoch = 0;
	wants_end(s);
	jobs_wake(s);
	replica_kick(sh);
	co_mutex_lock(&s->file_lock); /* ~ marks of the old epoch that are being written count */
	r = s->stopping ? -ECANCELED : view_apply(s, old, new_view, clean); /* ~ */
	if (r == 0) {
		view_put(s->view);
		s->view = view_get(new_view);
		recover_view(s);
		s->epoch = new_view->epoch;
	}
	co_mutex_unlock(&s->file_lock);
	jobs_wake(s);
	co_cond_broadcast(&s->changed);
	replica_kick(sh);
	sync_leave(s);
	return r;
}

static void forget(struct sync *s)
{
	struct sync_mark *m;
	size_t pos = 0;

	while ((m = map_next(&s->marks, &pos, NULL)))
		free(m);
	map_done(&s->marks);
	map_done(&s->torn);
	smap_done(&s->map);
	view_put(s->view);
	s->view = NULL;
	s->epoch = s->refuse = s->map_epoch = s->rest_epoch = 0;
	memset(s->map_name, 0, sizeof(s->map_name));
	s->lost = 0;
	memset(s->covered, 0, sizeof(s->covered));
	s->branch = s->keep_stale = s->purge = false;
	s->have = UINT32_MAX;
}

void sync_pause(struct sheep *sh)
{
	struct sync *s = sh->sync;

	s->refuse = UINT32_MAX; /* until sync_format() */
	s->epoch = 0;
	wants_end(s);
	jobs_wake(s);
	replica_kick(sh);
}

int sync_format(struct sheep *sh)
{
	struct sync *s = sh->sync;
	int r;

	sync_enter(s);
	s->epoch = 0;
	wants_end(s);
	jobs_wake(s);
	co_mutex_lock(&s->file_lock); /* ~ */
	forget(s);
	recover_view(s);
	r = smap_init(&s->map);
	if (r == 0)
		r = sync_file_write(s, 0, s->map_name, &s->map, &s->marks); /* ~ */
	co_mutex_unlock(&s->file_lock);
	replica_kick(sh);
	sync_leave(s);
	return r;
}

/* ---- life ---- */

int sync_init(struct sheep *sh)
{
	struct sync *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->sh = sh;
	co_mutex_init(&s->file_lock);
	CDS_INIT_LIST_HEAD(&s->pending);
	CDS_INIT_LIST_HEAD(&s->jobs);
	CDS_INIT_LIST_HEAD(&s->queue);
	co_cond_init(&s->left);
	co_cond_init(&s->changed);
	co_sem_init(&s->served, SYNC_SERVED_PULLS);
	map_init(&s->marks);
	map_init(&s->torn);
	map_init(&s->wants);
	map_init(&s->pulling);
	map_init(&s->repairing);
	map_init(&s->told);
	s->have = UINT32_MAX; /* not looked at yet */
	s->purge = true;
	sh->sync = s;
	r = smap_init(&s->map);
	if (r == 0)
		r = sync_file_load(s); /* ~ */
	if (r == 0) {
		look_at_power(s);
		r = recover_start(s);
	}
	return r;
}

void sync_stop(struct sheep *sh)
{
	struct sync *s = sh->sync;

	s->stopping = true;
	wants_end(s);
	jobs_wake(s);
	co_cond_broadcast(&s->changed);
	replica_kick(sh);
	while (s->nr_inside)
		co_cond_wait(&s->left, "sync: stop"); /* ~ */
	assert(cds_list_empty(&s->pending) && cds_list_empty(&s->jobs));
	sync_file_close(s); /* ~ */
}

void sync_done(struct sheep *sh)
{
	struct sync *s = sh->sync;

	if (!s)
		return;
	forget(s);
	recover_view(s);
	assert(!s->wants.nr && !s->pulling.nr && !s->repairing.nr && !s->nr_workers);
	map_done(&s->wants);
	map_done(&s->pulling);
	map_done(&s->repairing);
	free(s);
	sh->sync = NULL;
}
