/* journal.c - the journal's writer: groups of records, one write each, synced when one of them must
 * be durable.
 *
 * One group is in flight at a time; the next one gathers meanwhile.  When nothing unsynced lies
 * before it, a durable group is one write with DSYNC, else a write and a sync.  An intent is
 * always synced: its data may go in place only then (J1).
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lib/base/crc.h"
#include "lib/base/util.h"

uint64_t journal_used(const struct store *st)
{
	return st->jr.vhead - st->jr.vtail;
}

/* Blocks of it that are in the journal. */
uint32_t rec_pages(const struct rec *r)
{
	if (r->kind == REC_WRITE)
		return r->nr;
	return r->kind == REC_INTENT ? r->head + r->tail : 0;
}

static uint32_t rec_crc_nr(const struct rec *r)
{
	return r->kind == REC_WRITE || r->kind == REC_INTENT ? r->nr : 0;
}

static uint32_t rec_desc(const struct rec *r)
{
	return (uint32_t)sizeof(struct journal_rec) + desc_crc_len(rec_crc_nr(r));
}

/* ---- waiting ---- */

static void waiter_add(struct cds_list_head *list, struct waiter *w)
{
	struct cds_list_head *at = list->prev;

	while (at != list && caa_container_of(at, struct waiter, node)->ticket > w->ticket)
		at = at->prev;
	cds_list_add(&w->node, at);
}

static void waiters_wake(struct cds_list_head *list, uint64_t upto)
{
	while (!cds_list_empty(list)) {
		struct waiter *w = cds_list_first_entry(list, struct waiter, node);
		if (w->ticket > upto)
			return;
		cds_list_del(&w->node);
		w->done = true;
		co_wake(w->co);
	}
}

void journal_wake_all(struct store *st)
{
	waiters_wake(&st->jr.wait_written, UINT64_MAX);
	waiters_wake(&st->jr.wait_durable, UINT64_MAX);
	journal_kick(st);
}

co_fn int journal_wait(struct store *st, uint64_t ticket, bool durable)
{
	struct journal *jr = &st->jr;
	const uint64_t *have = durable ? &jr->durable : &jr->written;

	if (*have < ticket && !st->failed) {
		struct waiter w = {.ticket = ticket, .co = co_self()};
		waiter_add(durable ? &jr->wait_durable : &jr->wait_written, &w);
		while (!w.done)
			co_park("journal"); /* ~ */
	}
	return *have >= ticket ? 0 : -EIO;
}

/* Everything up to @ticket is durable in the journal. */
co_fn int journal_sync(struct store *st, uint64_t ticket)
{
	struct journal *jr = &st->jr;

	assert(ticket <= jr->queued);
	if (ticket > jr->want)
		jr->want = ticket;
	journal_kick(st);
	return journal_wait(st, ticket, true); /* ~ */
}

/* ---- the queue ---- */

void journal_kick(struct store *st)
{
	if (!st->jr.idle)
		return;
	st->jr.idle = false;
	co_wake(st->jr.writer);
}

void journal_add(struct store *st, struct rec *r)
{
	r->in_queue = true;
	cds_list_add_tail(&r->node, &st->jr.queue);
	journal_kick(st);
}

/* The intent's data is in its file, synced: replay need not look.  Goes with the next group, or
 * never. */
void journal_add_done(struct store *st, const struct rec *intent)
{
	struct rec *r = rec_new(st, 0);

	if (!r)
		return;
	r->kind = REC_DONE;
	r->oid = intent->oid;
	r->ver = intent->ver;
	r->size = intent->size;
	r->ref = intent->ticket;
	r->blk = intent->blk + intent->head;
	r->nr = intent->nr - intent->head - intent->tail;
	cds_list_add_tail(&r->node, &st->jr.lazy);
}

int journal_add_upto(struct live *lv)
{
	struct store *st = lv->st;
	struct rec *r = rec_new(st, 0);

	if (!r)
		return -ENOMEM;
	r->ticket = ++st->jr.queued;
	r->kind = REC_DONE;
	r->flags = F_UPTO;
	r->oid = lv->o->oid;
	r->ver = lv->o->ver;
	r->ref = lv->synced_upto;
	journal_add(st, r);
	return 0;
}

/* ---- one group ---- */

struct group {
	uint64_t first, last; /* tickets */
	uint32_t desc, payload, nr_rec;
	unsigned iovs;
	bool sync;
};

static uint32_t group_pages(const struct group *g)
{
	return DIV_ROUND_UP(g->desc, BLK) + g->payload;
}

/* Take @r if there is room; the first one always fits. */
static bool group_take(struct store *st, struct group *g, struct rec *r)
{
	struct journal *jr = &st->jr;
	struct group t = *g;

	t.desc += rec_desc(r);
	t.payload += rec_pages(r);
	t.iovs += 2;
	t.nr_rec++;
	bool cut = g->last && g->last <= jr->cut && r->ticket > jr->cut;
	if (g->nr_rec && (group_pages(&t) > jr->group_max || t.iovs > GROUP_IOV_MAX || cut))
		return false;
	if (r->ticket) {
		t.last = r->ticket;
		t.first = g->first ? g->first : r->ticket;
	}
	t.sync |= r->durable || r->kind == REC_INTENT;
	*g = t;
	cds_list_del(&r->node);
	cds_list_add_tail(&r->node, &jr->inflight);
	return true;
}

static void group_gather(struct store *st, struct group *g)
{
	struct journal *jr = &st->jr;
	struct rec *r, *n;

	*g = (struct group){.desc = sizeof(struct journal_group), .iovs = 1};
	cds_list_for_each_entry_safe (r, n, &jr->queue, node)
		if (!group_take(st, g, r))
			break;
	cds_list_for_each_entry_safe (r, n, &jr->lazy, node)
		if (!group_take(st, g, r))
			break;
	g->sync |= jr->want > jr->durable;
}

static void iov_add(struct journal *jr, const uint8_t *p, size_t len)
{
	struct iovec *last = jr->iovcnt ? &jr->iov[jr->iovcnt - 1] : NULL;

	if (last && (const uint8_t *)last->iov_base + last->iov_len == p) {
		last->iov_len += len;
		return;
	}
	assert(jr->iovcnt < GROUP_IOV_MAX);
	jr->iov[jr->iovcnt++] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = len};
}

static void payload_add(struct journal *jr, const struct rec *r)
{
	const struct seg *a = &r->seg[0], *b = &r->seg[1];

	if (r->kind == REC_WRITE) {
		if (a->nr)
			iov_add(jr, a->data, (size_t)a->nr * BLK);
		if (b->nr)
			iov_add(jr, b->data, (size_t)b->nr * BLK);
		return;
	}
	if (r->head)
		iov_add(jr, a->data, BLK);
	if (r->tail && b->nr)
		iov_add(jr, b->data, BLK);
	else if (r->tail)
		iov_add(jr, a->data + (size_t)(a->nr - 1) * BLK, BLK);
}

static uint8_t *desc_put(uint8_t *p, const struct rec *r)
{
	struct journal_rec d = {
		.oid = r->oid,
		.gen = r->ver.gen,
		.seq = r->ver.seq,
		.size = r->size,
		.ticket = r->ticket,
		.ref = r->kind == REC_INTENT ? r->lv->synced_upto : r->ref,
		.blk = r->blk,
		.nr = r->nr,
		.kind = r->kind,
		.copies = r->copies,
		.flags = r->flags,
		.nr_payload = rec_pages(r),
	};
	uint32_t n = rec_crc_nr(r);

	memcpy(p, &d, sizeof(d));
	p += sizeof(d);
	memcpy(p, r->crc, (size_t)n * 4);
	memset(p + (size_t)n * 4, 0, desc_crc_len(n) - (size_t)n * 4);
	return p + desc_crc_len(n);
}

/* Fill the header pages and the I/O vector. */
static void group_fill(struct store *st, const struct group *g, struct buf *hdr)
{
	struct journal *jr = &st->jr;
	struct journal_group *h = hdr->data;
	uint8_t *p = (uint8_t *)hdr->data + sizeof(*h);
	size_t len = ROUND_UP((size_t)g->desc, BLK);
	struct rec *r;

	jr->iovcnt = 0;
	iov_add(jr, hdr->data, len);
	*h = (struct journal_group){
		.magic = GROUP_MAGIC,
		.hdr_len = g->desc,
		.inc = jr->inc,
		.gseq = jr->gseq,
		.synced = jr->synced_gseq,
		.pages = group_pages(g),
		.nr_rec = g->nr_rec,
	};
	cds_list_for_each_entry (r, &jr->inflight, node) {
		p = desc_put(p, r);
		if (rec_pages(r))
			payload_add(jr, r);
	}
	assert((size_t)(p - (uint8_t *)hdr->data) == g->desc);
	memset(p, 0, len - g->desc);
	h->sum = crc32c(hdr->data, g->desc);
}

static co_fn int group_write(struct store *st, const struct group *g, struct buf *hdr)
{
	struct journal *jr = &st->jr;
	uint64_t place = jr->vhead % jr->area, pages = group_pages(g);
	uint64_t gap = place + pages > jr->area ? jr->area - place : 0;
	bool dsync = g->sync && !st->conf.nosync && jr->durable == jr->written;

	if (journal_used(st) + gap + pages > jr->area && MARKED(st_journal_full))
		return -ENOSPC;
	group_fill(st, g, hdr);
	jr->vhead += gap;
	struct env_io io = {
		.op = ENV_IO_WRITE,
		.flags = ENV_IO_DIRECT | (dsync ? ENV_IO_DSYNC : 0),
		.file = jr->file,
		.iov = jr->iov,
		.iovcnt = jr->iovcnt,
		.off = (JOURNAL_SUPERS + jr->vhead % jr->area) * BLK,
	};
	jr->vhead += pages;
	jr->gseq++;
	int64_t n = co_io(st->s, &io); /* ~ */
	if (n >= 0 && (uint64_t)n != pages * BLK && MARKED(st_journal_short))
		n = -EIO;
	if (n >= 0 && g->sync && !dsync && !st->conf.nosync)
		n = st_sync_file(st, jr->file, ENV_IO_SYNC); /* ~ */
	return n < 0 ? (int)n : 0;
}

static void made_durable(struct store *st)
{
	struct journal *jr = &st->jr;

	jr->durable = jr->written;
	jr->synced_gseq = jr->gseq - 1;
	waiters_wake(&jr->wait_durable, jr->durable);
	intents_ready(st);
}

static void group_done(struct store *st, const struct group *g)
{
	struct journal *jr = &st->jr;
	struct rec *r, *n;

	cds_list_for_each_entry_safe (r, n, &jr->inflight, node) {
		cds_list_del(&r->node);
		r->in_queue = false;
		assert(jr->resv >= r->resv);
		jr->resv -= r->resv;
		r->resv = 0;
		if (r->kind != REC_INTENT)
			rec_free(st, r);
	}
	jr->written = g->last;
	if (g->last == jr->cut) {
		jr->cut_vhead = jr->vhead;
		jr->cut_gseq = jr->gseq;
	}
	waiters_wake(&jr->wait_written, jr->written);
	if (g->sync || st->conf.nosync)
		made_durable(st);
	else
		MARK(st_cached_group);
	if (!cds_list_empty(&st->room.waiters))
		co_cond_broadcast(&st->room);
	round_poke(st);
}

static co_fn int write_group(struct store *st)
{
	struct journal *jr = &st->jr;
	struct buf *hdr = jr->hdr;
	struct group g;

	group_gather(st, &g);
	assert(g.nr_rec && g.last);
	if (g.desc > hdr->cap) {
		hdr = buf_new(st->pool, g.desc);
		if (!hdr)
			return -ENOMEM;
	}
	int r = group_write(st, &g, hdr); /* ~ */
	if (hdr != jr->hdr)
		buf_put(hdr);
	if (r == 0)
		group_done(st, &g);
	return r;
}

/* The writer's coroutine. */
void journal_main(void *arg)
{
	struct store *st = arg;
	struct journal *jr = &st->jr;

	jr->writer = co_self();
	while (!st->failed) {
		int r = 0;
		if (!cds_list_empty(&jr->queue)) {
			r = write_group(st); /* ~ */
		} else if (jr->want > jr->durable) {
			uint64_t upto = jr->written;
			r = st->conf.nosync ? 0 : st_sync_file(st, jr->file, ENV_IO_SYNC); /* ~ */
			assert(upto == jr->written);
			if (r == 0)
				made_durable(st);
		} else if (st->stopping) {
			return;
		} else {
			jr->idle = true;
			while (jr->idle)
				co_park("journal is empty"); /* ~ */
		}
		if (r < 0 && MARKED(st_journal_io))
			st_fail(st, r);
	}
}
