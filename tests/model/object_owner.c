/* object_owner.c - what an owner does: owner_io.c, owner_read.c, vdi.c of sheep/; see object.c. */
#include "config.h"

#include "tests/model/object_int.h"

#include <string.h>

/* ---- the owner: writes (owner_io.c) ---- */

static uint16_t contents_of(const struct node *o, unsigned w)
{
	return w + 1 == o->out ? o->contents : o->contents / 8;
}

bool removes(const struct ctx *c, uint16_t contents)
{
	return c->conf->removal && contents % 8 == c->conf->removal;
}

/* What the @w-th write in flight (0: the oldest) follows on. */
static struct ver previous_of(const struct ctx *c, const struct node *o, unsigned w)
{
	if (w == 0)
		return o->before;
	if (removes(c, contents_of(o, 0)))
		return (struct ver){0, 0};
	return (struct ver){o->gen, (uint8_t)(o->seq - 1)};
}

/* write_send(): to all of ring(epoch) */
void write_send(const struct ctx *c, struct state *s, unsigned n, unsigned w, uint8_t skip)
{
	const struct node *o = &s->n[n];
	const struct at *a = &c->at[o->pos];

	for (unsigned i = 0; i < c->conf->nodes; i++) {
		if (!(a->ring >> i & 1) || skip >> i & 1 || !s->n[i].up)
			continue;
		msg_put(s, (struct msg){.type = WRITE,
					.to = (uint8_t)i,
					.from = (uint8_t)n,
					.epoch = a->epoch,
					.ver = {o->gen, (uint8_t)(o->seq - (o->out - 1 - w))},
					.prev = previous_of(c, o, w),
					.has = contents_of(o, w)});
	}
}

/* A client is told, or sees: it must follow on what was seen before, or be seen already. */
static const char *seen(struct state *s, uint16_t contents, bool read)
{
	if (prefix(s->floor, contents)) {
		s->floor = contents;
		return NULL;
	}
	if (read)
		return "a read goes back in time (I2)";
	return prefix(contents, s->floor) ? NULL : "a write is answered that is lost (I1)";
}

static bool answered_by_all(const struct ctx *c, const struct node *o, uint8_t acks)
{
	uint8_t ring = c->at[o->pos].ring;

	return mut(c, MUT_ack_early) ? acks & ring : !(ring & ~acks);
}

/* write_settled(): the client is answered, in whatever order; a write leaves when those before it
 * have. */
const char *writes_settle(const struct ctx *c, struct state *s, unsigned n)
{
	struct node *o = &s->n[n];
	const char *bad = NULL;

	if (o->out == 2 && answered_by_all(c, o, o->acks[1]))
		bad = seen(s, o->contents, false);
	while (o->out && answered_by_all(c, o, o->acks[0])) {
		uint16_t has = contents_of(o, 0);
		const char *b = seen(s, has, false);
		bad = b ? b : bad;
		o->before = removes(c, has) ? (struct ver){0, 0}
					    : (struct ver){o->gen, (uint8_t)(o->seq - o->out + 1)};
		o->out--;
		o->acks[0] = o->acks[1];
		o->acks[1] = 0;
	}
	return bad;
}

/* write_call_done(): an answer counts in the owner's epoch only */
const char *answer(const struct ctx *c, struct state *s, const struct msg *m)
{
	struct node *o = &s->n[m->from];

	if (!o->up || !o->member || o->phase != SERVES || o->gen != m->ver.gen || !o->out ||
	    m->ver.seq > o->seq || m->ver.seq + o->out <= o->seq)
		return NULL;
	if (c->at[o->pos].epoch != m->epoch && !mut(c, MUT_resend_unanswered))
		return NULL;
	o->acks[m->ver.seq + o->out - 1 - o->seq] |= 1 << m->to;
	return writes_settle(c, s, m->from);
}

/* owner_write() */
void owner_writes(const struct ctx *c, unsigned n)
{
	const struct object_conf *conf = c->conf;
	struct state s = *c->s;
	struct node *o = &s.n[n];

	if (!owns(c, n) || o->phase != SERVES || o->out >= conf->in_flight ||
	    s.writes == conf->writes)
		return;
	if (s.writes + 1 == conf->removal && !o->out && absent(o->before))
		return; /* nothing there */
	s.writes++;
	o->out++;
	o->seq++;
	o->contents = (uint16_t)(o->contents * 8 + s.writes);
	write_send(c, &s, n, o->out - 1u, 0);
	NEXT(c, &s, NULL, "%c, owner in epoch %u, begins write %u as version %u,%u%s", NAME[n],
	     at(c, n)->epoch, s.writes, o->gen, o->seq,
	     s.writes == conf->removal ? " (a removal)" : "");
}

/* owner_read(), op_answer(): from any replica in sync in the same epoch, not beside a write; the
 * lease is looked at when the data is there (cluster_lease()) */
void owner_reads(const struct ctx *c, unsigned n, unsigned from)
{
	const struct node *o = &c->s->n[n], *r = &c->s->n[from];

	if (!owns(c, n) || o->phase != SERVES || !(at(c, n)->ring >> from & 1) || o->lease_over)
		return;
	if ((o->out && !mut(c, MUT_read_inflight)) || !r->up || !r->member ||
	    (!r->in_sync && !mut(c, MUT_read_unsynced)))
		return;
	if (!meets(c, from, at(c, n)->epoch) && !mut(c, MUT_no_epoch))
		return;
	if (r->has == c->s->floor)
		return; /* nothing new */
	struct state s = *c->s;
	const char *bad = seen(&s, r->has, true);
	NEXT(c, &s, bad, "%c, owner of generation %u, reads %o from %c; seen was %o", NAME[n],
	     o->gen, r->has, NAME[from], c->s->floor);
}

/* gv_release(): drained */
void owner_releases(const struct ctx *c, unsigned n)
{
	struct state s = *c->s;
	struct node *o = &s.n[n];
	bool busy = o->out || o->phase != SERVES;

	if (!owns(c, n) || o->silent || s.releases == c->conf->releases || s.nr_log == LOG)
		return;
	if (busy && !mut(c, MUT_release_busy))
		return;
	s.releases++;
	s.log[s.nr_log++] = (struct entry){RELEASE, (uint8_t)n, true};
	o->phase = NOTHING;
	o->out = o->acks[0] = o->acks[1] = o->asked = 0;
	o->before = (struct ver){0, 0};
	o->contents = 0;
	NEXT(c, &s, NULL, "%c, owner, releases the VDI clean", NAME[n]);
}

/* ---- the owner: takeover (vdi.c) ---- */

/* cluster_serve_after(): nobody who fell silent before may still hold a lease */
static bool leases_over(const struct ctx *c, unsigned n)
{
	const struct node *o = &c->s->n[n];
	uint8_t newest = 0;

	for (uint8_t i = 0; i < o->pos; i++)
		if (c->s->log[i].type == VIEW)
			newest = i;
	for (unsigned i = 0; i < c->conf->nodes; i++) {
		const struct node *z = &c->s->n[i];
		if (i == n || !z->silent || z->lease_over || z->silent_at >= o->pos)
			continue;
		if (mut(c, MUT_no_lease) || (mut(c, MUT_lease_newest) && z->silent_at != newest))
			continue;
		return false;
	}
	return true;
}

void told_forget(struct node *o)
{
	o->asked = 0;
	memset(o->told, 0, sizeof(o->told));
	memset(o->told_has, 0, sizeof(o->told_has));
}

static void serve(struct node *o, struct ver ver, uint16_t has)
{
	o->phase = SERVES;
	o->before = ver;
	o->contents = has;
	told_forget(o);
}

/* load_clean(): our own copy, in sync, knows; else anybody's of the ring */
static void load_clean(const struct ctx *c, unsigned n, unsigned from)
{
	const struct node *r = &c->s->n[from], *me = &c->s->n[n];
	bool self = at(c, n)->ring >> n & 1 && me->in_sync;

	if (!meets(c, from, at(c, n)->epoch) || !r->in_sync || (self && from != n))
		return;
	struct state s = *c->s;
	serve(&s.n[n], r->ver, r->has);
	NEXT(c, &s, NULL, "%c, owner of a clean generation %u, is told %u,%u by %c and serves",
	     NAME[n], me->gen, r->ver.gen, r->ver.seq, NAME[from]);
}

/* do_version(): once in sync in the epoch of the question */
static void takeover_asks(const struct ctx *c, unsigned n, unsigned i)
{
	const struct node *r = &c->s->n[i];

	if (c->s->n[n].asked >> i & 1 || !meets(c, i, at(c, n)->epoch))
		return;
	if (!r->in_sync && !mut(c, MUT_recon_all))
		return;
	struct state s = *c->s;
	struct node *o = &s.n[n];
	o->asked |= 1 << i;
	o->told[i] = r->ver;
	o->told_has[i] = r->has;
	NEXT(c, &s, NULL, "%c takes over (generation %u, epoch %u): %c says %u,%u", NAME[n], o->gen,
	     at(c, n)->epoch, NAME[i], r->ver.gen, r->ver.seq);
}

/* The highest version that was told; -1: none. */
static int takeover_best(const struct ctx *c, const struct node *o)
{
	int best = -1;

	for (unsigned i = 0; i < c->conf->nodes; i++)
		if (o->asked >> i & 1 && (best < 0 || ver_cmp(o->told[i], o->told[best]) > 0))
			best = (int)i;
	return best;
}

/* takeover_settle(): who is behind is told to pull exactly that version; do_settle(),
 * pull_allowed(): the source sends it if that is still what it has */
static void takeover_settles(const struct ctx *c, unsigned n, unsigned i, unsigned best)
{
	const struct node *o = &c->s->n[n], *b = &c->s->n[best];

	if (!meets(c, best, at(c, n)->epoch) || ver_cmp(b->ver, o->told[best]) ||
	    !meets(c, i, at(c, n)->epoch))
		return;
	struct msg m = {.type = SETTLE,
			.to = (uint8_t)i,
			.from = (uint8_t)n,
			.epoch = at(c, n)->epoch,
			.ver = b->ver,
			.prev = {o->gen, 0},
			.has = b->has};
	for (unsigned k = 0; k < c->s->nr_msg; k++)
		if (!memcmp(&c->s->msg[k], &m, sizeof(m)))
			return; /* under way */
	struct state s = *c->s;
	msg_put(&s, m);
	NEXT(c, &s, NULL, "%c has %c sent %u,%u by %c", NAME[n], NAME[i], m.ver.gen, m.ver.seq,
	     NAME[best]);
}

/* obj_equalize(): ALL of ring(epoch); then who is behind is brought up; served when all are equal
 */
static void load_dirty(const struct ctx *c, unsigned n)
{
	const struct node *o = &c->s->n[n];
	uint8_t ring = at(c, n)->ring, want = ring;
	bool equal = true;

	for (unsigned i = 0; mut(c, MUT_x_take) && i < c->conf->nodes; i++)
		if (!c->s->n[i].in_sync)
			want &= ~(1 << i);
	if (mut(c, MUT_no_recon)) {
		for (unsigned i = 0; i < c->conf->nodes; i++)
			if (ring >> i & 1)
				load_clean(c, n, i);
		return;
	}
	for (unsigned i = 0; i < c->conf->nodes; i++)
		if (want >> i & 1)
			takeover_asks(c, n, i);
	int best = takeover_best(c, o);
	if (want & ~o->asked || best < 0)
		return;
	for (unsigned i = 0; i < c->conf->nodes; i++)
		if (o->asked >> i & 1 && ver_cmp(o->told[i], o->told[best])) {
			equal = false;
			takeover_settles(c, n, i, (unsigned)best);
		}
	if (!equal)
		return;
	struct state s = *c->s;
	serve(&s.n[n], o->told[best], o->told_has[best]);
	for (unsigned i = 0; mut(c, MUT_recon_all) && i < c->conf->nodes; i++)
		if (ring >> i & 1)
			in_sync_now(c, &s, i);
	NEXT(c, &s, NULL, "%c, owner of generation %u, serves: the object is at %u,%u", NAME[n],
	     o->gen, o->told[best].gen, o->told[best].seq);
}

void owner_loads(const struct ctx *c, unsigned n)
{
	if (!owns(c, n) || c->s->n[n].phase != CLAIMED || !leases_over(c, n))
		return;
	if (c->s->n[n].dirty) {
		load_dirty(c, n);
		return;
	}
	for (unsigned i = 0; i < c->conf->nodes; i++)
		if (at(c, n)->ring >> i & 1)
			load_clean(c, n, i);
}
