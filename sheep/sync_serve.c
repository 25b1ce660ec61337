/* sync_serve.c - what this node answers when others bring their objects in sync (DESIGN 5.5).
 *
 * A member answers once it has applied the asker's epoch, and from then on refuses writes of older
 * ones (WHY B1f pull-any-epoch): replica.c sees to that before it calls these.
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

/* ---- one object ---- */

void serve_query(struct sync *s, struct peer_call *c)
{
	const struct peer_hdr *q = &c->req;
	uint64_t hash = sd_hash_oid(q->oid);
	uint8_t copies = sync_copies(s, q->oid, q->copies);
	struct obj_info info = {0};

	if (!copies) {
		c->rsp.result = SD_RES_INVALID_PARMS;
		return;
	}
	store_lookup(s->sh->store, q->oid, &info);
	c->rsp.result = SD_RES_SUCCESS;
	c->rsp.synced = sync_synced(s, q->oid, hash, copies);
	c->rsp.ver_gen = info.ver.gen;
	c->rsp.ver_seq = info.ver.seq;
	c->rsp.obj_size = info.size;
	c->rsp.copies = copies;
	if (sync_in(s, q->oid, hash, copies) && MARKED(srv_in_sync))
		c->rsp.flags |= PEER_F_IN_SYNC;
	if (!c->rsp.synced &&
	    MARKED(srv_unknown)) /* "do not know" is not "it does not exist" (WHY B1k) */
		c->rsp.flags |= PEER_F_UNKNOWN;
	if (info.torn && MARKED(srv_torn))
		c->rsp.flags |= PEER_F_TORN;
	if (sync_lossy(s, c->rsp.synced) && MARKED(srv_lossy))
		c->rsp.flags |= PEER_F_LOSSY;
}

/* ---- a box of them ---- */

struct rows {
	struct peer_obj *row;
	unsigned nr, cap;
};

static int rows_add(struct rows *r, const struct peer_obj *row)
{
	if (r->nr == r->cap) {
		unsigned cap = r->cap ? r->cap * 2 : 64;
		struct peer_obj *p = realloc(r->row, cap * sizeof(*p));
		if (!p)
			return -ENOMEM;
		r->row = p;
		r->cap = cap;
	}
	r->row[r->nr++] = *row;
	return 0;
}

static int row_add(struct sync *s, struct rows *r, uint64_t oid, uint64_t hash, uint8_t copies,
		   const struct obj_info *info)
{
	struct peer_obj row = {.oid = oid, .copies = copies};

	row.ver_gen = info->ver.gen;
	row.ver_seq = info->ver.seq;
	row.size = info->size;
	row.synced = sync_synced(s, oid, hash, copies);
	row.flags = (sync_in(s, oid, hash, copies) ? PEER_F_IN_SYNC : 0) |
		    (info->torn ? PEER_F_TORN : 0) | (row.synced ? 0 : PEER_F_UNKNOWN) |
		    (sync_lossy(s, row.synced) ? PEER_F_LOSSY : 0);
	return rows_add(r, &row);
}

static int row_cmp(const void *a, const void *b)
{
	const struct peer_obj *x = a, *y = b;
	uint64_t hx = sd_hash_oid(x->oid), hy = sd_hash_oid(y->oid);

	if (hx != hy)
		return hx < hy ? -1 : 1;
	return x->oid < y->oid ? -1 : x->oid > y->oid;
}

/* What is in the store, until there are too many rows. */
static int list_store(struct sync *s, const struct sync_box *b, struct rows *r)
{
	struct obj_info info[64];
	uint64_t h = 0, o = 0;
	bool cont = false;
	unsigned n;

	while (r->nr <= SYNC_LIST_MAX &&
	       (n = store_list(s->sh->store, b->from, b->to, cont, h, o, info, 64))) {
		for (unsigned i = 0; i < n; i++) {
			uint8_t copies = sync_stored_copies(s, &info[i]);
			if (copies < b->clo || copies > b->chi)
				continue;
			if (row_add(s, r, info[i].oid, info[i].hash, copies, &info[i]) < 0)
				return -ENOMEM;
		}
		h = info[n - 1].hash;
		o = info[n - 1].oid;
		cont = true;
	}
	return 0;
}

/* What is known to be absent, alone, in an arc that is not in sync. */
static int list_marks(struct sync *s, const struct sync_box *b, uint32_t synced, struct rows *r)
{
	const struct sync_mark *m;
	struct obj_info info;
	size_t pos = 0;

	while ((m = map_next(&s->marks, &pos, NULL))) {
		uint64_t hash = sd_hash_oid(m->oid);
		if (m->epoch <= synced || m->copies < b->clo || m->copies > b->chi ||
		    hash < b->from || hash > b->to || store_lookup(s->sh->store, m->oid, &info))
			continue;
		MARK(srv_known_absent);
		info = (struct obj_info){0};
		if (row_add(s, r, m->oid, hash, m->copies, &info) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* At most SYNC_LIST_MAX rows, and whole hashes only. */
static int list_cut(struct sync_box *b, struct rows *r)
{
	if (r->nr <= SYNC_LIST_MAX)
		return 0;
	MARK(srv_list_cut);
	qsort(r->row, r->nr, sizeof(*r->row), row_cmp);
	uint64_t h = sd_hash_oid(r->row[SYNC_LIST_MAX].oid);
	while (r->nr && sd_hash_oid(r->row[r->nr - 1].oid) >= h)
		r->nr--;
	if (!r->nr)
		return -E2BIG;
	b->to = h - 1;
	return 0;
}

int sync_list(struct sync *s, struct sync_box *b, struct peer_obj **ret, unsigned *nr,
	      uint32_t *synced, bool *in_sync)
{
	struct rows r = {0};
	int e;

	*synced = smap_uniform(&s->map, s->epoch, b, in_sync);
	e = list_store(s, b, &r);
	if (e == 0)
		e = list_cut(b, &r);
	if (e == 0 && s->marks.nr && !*in_sync) {
		e = list_marks(s, b, *synced, &r);
		if (e == 0)
			e = list_cut(b, &r);
	}
	if (e < 0) {
		free(r.row);
		return e;
	}
	if (r.nr)
		qsort(r.row, r.nr, sizeof(*r.row), row_cmp);
	*ret = r.row;
	*nr = r.nr;
	return 0;
}

/* A piece of data for the answer; the local caller has brought the room for it. */
static bool reply_bytes(struct sync *s, struct peer_call *c, const void *p, size_t len)
{
	if (!c->reply_buf && len) {
		c->reply_buf = buf_new(s->sh->pool, len);
		c->reply_off = 0;
		c->reply_cap = c->reply_buf ? len : 0;
	}
	if (c->reply_cap < len)
		return false;
	if (len)
		memcpy((uint8_t *)c->reply_buf->data + c->reply_off, p, len);
	c->reply_len = len;
	return true;
}

static bool req_box(const struct peer_hdr *q, struct sync_box *b)
{
	if (q->off > q->len || q->copies < 1 || q->copies > q->obj_size ||
	    q->obj_size > SD_COPIES_MAX)
		return false;
	*b = (struct sync_box){q->off, q->len, q->copies, (uint8_t)q->obj_size};
	return true;
}

void serve_list(struct sync *s, struct peer_call *c)
{
	struct peer_obj *row = NULL;
	struct sync_box b;
	unsigned nr = 0;
	bool in_sync;

	if (!req_box(&c->req, &b)) {
		c->rsp.result = SD_RES_INVALID_PARMS;
		return;
	}
	if (sync_list(s, &b, &row, &nr, &c->rsp.synced, &in_sync) < 0) {
		c->rsp.result = SD_RES_NO_MEM;
		return;
	}
	c->rsp.result = reply_bytes(s, c, row, nr * sizeof(*row)) ? SD_RES_SUCCESS : SD_RES_NO_MEM;
	free(row);
	c->rsp.off = b.from;
	c->rsp.len = b.to;
	c->rsp.copies = b.clo;
	c->rsp.obj_size = b.chi;
	c->rsp.flags |= (in_sync ? PEER_F_IN_SYNC : 0) | (c->rsp.synced ? 0 : PEER_F_UNKNOWN);
}

/* ---- the objects of one VDI, for the takeover (DESIGN 5.6) ---- */

struct vid_list {
	uint64_t oid[PEER_VID_LIST_MAX], hash[PEER_VID_LIST_MAX];
	unsigned nr, seen;
	uint64_t to; /* the answer covers all up to here */
};

/* Whole hashes only: the last one looked at is not covered when there may be more of it. */
static void vid_list_cut(struct vid_list *l, uint64_t hash)
{
	l->to = hash - 1; /* (hash 0: nothing is covered, see vid_list()) */
	while (l->nr && l->hash[l->nr - 1] == hash)
		l->nr--;
}

/* False: there are too many objects of one hash: no such store exists. */
static bool vid_list(struct sync *s, uint32_t vid, uint64_t from, struct vid_list *l)
{
	struct obj_info info[64];
	uint64_t h = 0, o = 0;
	bool cont = false;
	unsigned n;

	l->to = UINT64_MAX;
	while ((n = store_list(s->sh->store, from, UINT64_MAX, cont, h, o, info, 64))) {
		for (unsigned i = 0; i < n; i++) {
			if (++l->seen == SYNC_SCAN_MAX || l->nr == PEER_VID_LIST_MAX) {
				vid_list_cut(l, info[i].hash);
				return info[i].hash > from;
			}
			if (SD_OID_VID(info[i].oid) != vid)
				continue;
			l->oid[l->nr] = info[i].oid;
			l->hash[l->nr++] = info[i].hash;
		}
		h = info[n - 1].hash;
		o = info[n - 1].oid;
		cont = true;
	}
	return true;
}

/* Writes that are queued are in the index, and older epochs are refused by now: what a dead owner
 * has left here is listed, or it never comes. */
void serve_vid_list(struct sync *s, struct peer_call *c)
{
	struct vid_list *l = calloc(1, sizeof(*l));

	if (!l) {
		c->rsp.result = SD_RES_NO_MEM;
		return;
	}
	c->rsp.result = SD_RES_INVALID_PARMS;
	if (c->req.vid && vid_list(s, c->req.vid, c->req.off, l))
		c->rsp.result = reply_bytes(s, c, l->oid, l->nr * sizeof(*l->oid)) ? SD_RES_SUCCESS
										   : SD_RES_NO_MEM;
	c->rsp.off = c->req.off;
	c->rsp.len = l->to;
	free(l);
}

/* ---- */

/* Is all that is mine of the box in sync here?  Only then may others drop what they have of it
 * beside the ring (WHY B1k drop-early). */
void serve_drop_check(struct sync *s, struct peer_call *c)
{
	struct sync_box b;
	bool all = true;

	if (!req_box(&c->req, &b)) {
		c->rsp.result = SD_RES_INVALID_PARMS;
		return;
	}
	unsigned i = smap_find(&s->map, b.from), last = smap_find(&s->map, b.to);
	for (; i <= last && all; i++)
		for (unsigned n = b.clo; n <= b.chi && all; n++)
			all = s->map.seg[i].rank >= n || s->map.seg[i].s[n - 1] == s->epoch;
	c->rsp.result = SD_RES_SUCCESS;
	if (all && !s->torn.nr && MARKED(srv_drop_yes))
		c->rsp.flags |= PEER_F_IN_SYNC;
}

/* DESIGN 6: all replicas are torn and none of them is in the ring: ours is taken. */
void serve_torn_as(struct sync *s, struct peer_call *c)
{
	struct obj_ver ver = {c->req.ver_gen, c->req.ver_seq};
	struct job j;

	job_begin(s, &j);
	int r = j.epoch == c->req.epoch ? sync_settle_as(&j, c->req.oid, ver) : -ESTALE; /* ~ */
	job_end(&j);
	c->rsp.result = r == 0 ? SD_RES_SUCCESS : SD_RES_AGAIN;
}

/* ---- the whole of one object, of one version ---- */

struct outgoing {
	struct peer_call *c;
	struct obj_info info;
	uint64_t total;
	unsigned head, nr; /* frames read and not sent yet */
	struct {
		struct buf *buf;
		uint64_t off;
		uint32_t len;
	} frame[SYNC_PULL_AHEAD];
};

static int send_one(struct outgoing *out)
{
	struct peer_hdr h = out->c->rsp;
	unsigned i = out->head % SYNC_PULL_AHEAD;
	struct buf *buf = out->frame[i].buf;

	h.off = out->frame[i].off;
	h.len = h.data_len = out->frame[i].len;
	out->head++;
	out->nr--;
	int r = peer_stream(out->c, &h, buf, 0, h.data_len); /* ~ */
	buf_put(buf);
	return r;
}

static void outgoing_done(struct outgoing *out)
{
	for (; out->nr; out->nr--)
		buf_put(out->frame[out->head++ % SYNC_PULL_AHEAD].buf);
}

/* Read one frame; when as many as may be are waiting, send the oldest first. */
static int read_one(struct sync *s, struct outgoing *out, struct store_obj *o, uint64_t off,
		    uint32_t len, uint64_t *bad)
{
	int r = 0;

	if (out->nr == SYNC_PULL_AHEAD)
		r = send_one(out); /* ~ */
	if (r < 0)
		return r;
	struct buf *buf = buf_new(s->sh->pool, len);
	if (!buf)
		return -ENOMEM;
	r = store_read(o, off, len, buf, 0, bad); /* ~ */
	if (r < 0) {
		buf_put(buf);
		return r;
	}
	unsigned i = (out->head + out->nr++) % SYNC_PULL_AHEAD;
	out->frame[i].buf = buf;
	out->frame[i].off = off;
	out->frame[i].len = len;
	out->total += len;
	return 0;
}

static int read_all(struct sync *s, struct outgoing *out, struct store_obj *o, uint64_t *bad)
{
	uint64_t off = 0, start, len;

	while (off < out->info.size && store_next_data(o, off, &start, &len)) { /* ~ */
		if (start >= out->info.size)
			break;
		uint64_t end = len < out->info.size - start ? start + len : out->info.size;
		for (off = start; off < end;) {
			uint64_t n = end - off < SYNC_PULL_CHUNK ? end - off : SYNC_PULL_CHUNK;
			int r = s->stopping ? -ECANCELED
					    : read_one(s, out, o, off, (uint32_t)n, bad); /* ~ */
			if (r < 0)
				return r;
			off += n;
		}
	}
	return 0;
}

/* May this state be had?  The asker says by which rule it wants it: from whoever is in sync, or
 * (rule 2) exactly the version that was answered.  A torn one never. */
static bool pull_allowed(struct sync *s, const struct peer_hdr *q, const struct obj_info *info,
			 uint8_t copies, bool *in_sync)
{
	*in_sync = sync_in(s, q->oid, sd_hash_oid(q->oid), copies);
	if (info->torn && MARKED(srv_pull_torn))
		return false;
	if (q->flags & PEER_F_IN_SYNC)
		return *in_sync && MARKED(srv_pull_rule1);
	return obj_ver_cmp(info->ver, (struct obj_ver){q->ver_gen, q->ver_seq}) == 0 &&
	       MARKED(srv_pull_rule2);
}

static void pull_answer(struct sync *s, struct outgoing *out, int r, uint64_t bad, uint8_t copies)
{
	struct peer_call *c = out->c;

	if (r == 0)
		c->rsp.result = SD_RES_SUCCESS;
	else if (r == -ECANCELED && MARKED(srv_pull_void))
		c->error = -ECANCELED;
	else if (r == -EILSEQ && MARKED(srv_pull_bad)) {
		c->rsp.result = SD_RES_EIO;
		c->rsp.flags |= PEER_F_BAD;
		repair_start(s, c->req.oid, copies, bad, out->info.size - bad);
	} else
		c->rsp.result = r == -ENOMEM ? SD_RES_NO_MEM : SD_RES_EIO;
	c->rsp.len = out->total;
	c->rsp.flags |= PEER_F_LAST;
}

static void pull_from(struct sync *s, struct outgoing *out, struct store_obj *o)
{
	struct peer_call *c = out->c;
	uint8_t copies = sync_copies(s, c->req.oid, c->req.copies);
	uint64_t bad = 0;
	bool in_sync;

	/* The version cannot change while we have the lock, and the epoch was looked at under it:
	 * what is sent is one state of this epoch. */
	store_lookup(s->sh->store, c->req.oid, &out->info);
	if ((sync_admit(s, c->req.epoch) && !PLANTED(pull_any_epoch)) || !copies ||
	    (!pull_allowed(s, &c->req, &out->info, copies, &in_sync) && MARKED(srv_pull_no))) {
		store_put(o);
		c->rsp.result = SD_RES_AGAIN;
		c->rsp.flags |= PEER_F_LAST;
		return;
	}
	c->rsp.flags |= in_sync ? PEER_F_IN_SYNC : 0;
	c->rsp.ver_gen = out->info.ver.gen;
	c->rsp.ver_seq = out->info.ver.seq;
	c->rsp.obj_size = out->info.size;
	c->rsp.copies = out->info.copies;
	if (!out->info.ver.gen && !out->info.ver.seq && MARKED(srv_pull_absent)) {
		store_put(o);
		c->rsp.result = SD_RES_NO_OBJ;
		c->rsp.flags |= PEER_F_LAST;
		return;
	}
	int r = read_all(s, out, o, &bad); /* ~ */
	store_put(o);
	while (r == 0 && out->nr)
		r = send_one(out); /* ~ */
	pull_answer(s, out, r, bad, copies);
}

void serve_pull(struct sync *s, struct peer_call *c)
{
	struct outgoing out = {.c = c};

	co_sem_take(&s->served, 1); /* ~ */
	if (s->stopping) {
		c->error = -ECANCELED;
	} else if (map_get(&s->pulling, c->req.oid) && MARKED(srv_pull_busy)) {
		/* Its lock is held for a pull: two that pull from each other must not wait. */
		c->rsp.result = SD_RES_AGAIN;
		c->rsp.flags |= PEER_F_LAST;
	} else {
		struct store_obj *o = store_get(s->sh->store, c->req.oid, false); /* ~ */
		pull_from(s, &out, o);						  /* ~ */
	}
	outgoing_done(&out);
	co_sem_give(&s->served, 1);
}
