/* object_replica.c - coming in sync, and what arrives at a replica: recover.c, pull.c,
 * sync_serve.c, replica.c of sheep/; see object.c. */
#include "config.h"

#include "tests/model/object_int.h"

#include <string.h>

/* sync_mark(): durable together with the state, before it is served */
void in_sync_now(const struct ctx *c, struct state *s, unsigned n)
{
	struct node *r = &s->n[n];

	r->in_sync = 1;
	if (!mut(c, MUT_mark_volatile))
		r->synced = c->at[r->pos].epoch;
}

/* ---- coming in sync (recover.c, pull.c, sync_serve.c) ---- */

static void pull(const struct ctx *c, unsigned n, unsigned from, const char *why)
{
	const struct node *r = &c->s->n[from];
	struct state s = *c->s;

	msg_put(&s, (struct msg){.type = PULL,
				 .to = (uint8_t)n,
				 .from = (uint8_t)from,
				 .epoch = at(c, n)->epoch,
				 .ver = r->ver,
				 .has = r->has});
	NEXT(c, &s, NULL, "%c, epoch %u, is sent %u,%u by %c: %s", NAME[n], at(c, n)->epoch,
	     r->ver.gen, r->ver.seq, NAME[from], why);
}

static void keeps(const struct ctx *c, unsigned n, const char *why)
{
	struct state s = *c->s;

	in_sync_now(c, &s, n);
	NEXT(c, &s, NULL, "%c, epoch %u, keeps %u,%u and is in sync: %s", NAME[n], at(c, n)->epoch,
	     s.n[n].ver.gen, s.n[n].ver.seq, why);
}

/* sync_decide(), (1); pull_allowed(): the source is asked in its epoch.  True: somebody is in sync.
 */
static bool rule1(const struct ctx *c, unsigned n)
{
	const struct node *me = &c->s->n[n];
	bool any = false;

	for (unsigned i = 0; i < c->conf->nodes; i++) {
		const struct node *r = &c->s->n[i];
		if (i == n || !(at(c, n)->members >> i & 1) || !r->up || !r->member ||
		    (!meets(c, i, at(c, n)->epoch) && !mut(c, MUT_pull_any_epoch)))
			continue;
		if (mut(c, MUT_trust_equal) && !absent(me->ver) && !ver_cmp(me->ver, r->ver))
			keeps(c, n, "an equal version");
		if (!r->in_sync)
			continue;
		any = true;
		if (mut(c, MUT_trust_higher) && ver_cmp(me->ver, r->ver) >= 0)
			keeps(c, n, "not older than who is in sync");
		else
			pull(c, n, i, "in sync");
	}
	return any;
}

/* sync_absent(): a ring member of an epoch after @e, by store, that is not here */
static bool somebody_absent(const struct ctx *c, unsigned n, uint8_t e)
{
	for (unsigned p = 1; p <= c->s->n[n].pos; p++)
		if (c->at[p].epoch > e && c->at[p].epoch < at(c, n)->epoch &&
		    c->at[p].ring & ~at(c, n)->members)
			return true;
	return false;
}

/* sync_decide(), (2) */
static void rule2(const struct ctx *c, unsigned n)
{
	const struct node *me = &c->s->n[n];
	uint8_t e = me->synced, answered = 0;
	int best = -1;

	for (unsigned i = 0; i < c->conf->nodes; i++)
		if (at(c, n)->members >> i & 1 && c->s->n[i].up && c->s->n[i].member &&
		    (meets(c, i, at(c, n)->epoch) || mut(c, MUT_pull_any_epoch))) {
			answered |= 1 << i;
			e = c->s->n[i].synced > e ? c->s->n[i].synced : e;
		}
	if (answered != at(c, n)->members && !mut(c, MUT_first_come))
		return;
	if (somebody_absent(c, n, e) && !mut(c, MUT_no_wait_absent))
		return;
	for (unsigned i = 0; i < c->conf->nodes; i++) {
		const struct node *r = &c->s->n[i];
		if (answered >> i & 1 && r->synced == e &&
		    (best < 0 || ver_cmp(r->ver, c->s->n[best].ver) > 0))
			best = (int)i;
	}
	if (best < 0)
		return;
	if (me->synced == e && !ver_cmp(me->ver, c->s->n[best].ver))
		keeps(c, n, "the highest of those that were in sync last");
	else
		pull(c, n, (unsigned)best, "the highest of those that were in sync last");
}

void node_recovers(const struct ctx *c, unsigned n)
{
	const struct node *r = &c->s->n[n];

	if (!r->up || !r->member || r->in_sync || !(at(c, n)->ring >> n & 1))
		return;
	for (unsigned i = 0; i < c->s->nr_msg; i++)
		if (c->s->msg[i].type == PULL && c->s->msg[i].to == n &&
		    c->s->msg[i].epoch == at(c, n)->epoch)
			return; /* one at a time */
	if (!rule1(c, n))
		rule2(c, n);
}

/* drop_surplus(): when every ring member of its epoch is in sync (serve_drop_check()) */
void node_drops(const struct ctx *c, unsigned n)
{
	const struct node *r = &c->s->n[n];
	bool all = true;

	if (!c->conf->surplus || !r->up || !r->member || at(c, n)->ring >> n & 1 ||
	    (absent(r->ver) && !r->synced))
		return;
	for (unsigned i = 0; i < c->conf->nodes; i++)
		if (at(c, n)->ring >> i & 1)
			all = all && meets(c, i, at(c, n)->epoch) && c->s->n[i].in_sync;
	if (!all && !mut(c, MUT_drop_early))
		return;
	struct state s = *c->s;
	s.n[n].ver = (struct ver){0, 0};
	s.n[n].has = 0;
	s.n[n].synced = 0;
	NEXT(c, &s, NULL, "%c, epoch %u, not in the ring, drops its copy", NAME[n],
	     at(c, n)->epoch);
}

/* ---- what arrives ---- */

/* pull_valid(): a pull is tagged with its epoch */
static void pull_arrives(const struct ctx *c, unsigned k)
{
	struct msg m = c->s->msg[k];
	const struct node *r = &c->s->n[m.to];

	if (at(c, m.to)->epoch < m.epoch || !(at(c, m.to)->ring >> m.to & 1) || r->in_sync)
		return;
	if (at(c, m.to)->epoch != m.epoch && !mut(c, MUT_pull_untagged))
		return;
	struct state s = *c->s;
	msg_take(&s, k);
	s.n[m.to].ver = m.ver;
	s.n[m.to].has = m.has;
	in_sync_now(c, &s, m.to);
	NEXT(c, &s, NULL, "%c stores what was pulled, %u,%u, and is in sync in epoch %u",
	     NAME[m.to], m.ver.gen, m.ver.seq, at(c, m.to)->epoch);
}

/* settle_still(), settle_locked(): the tag (epoch, generation) holds, and it is a later version */
static void settle_arrives(const struct ctx *c, unsigned k)
{
	struct msg m = c->s->msg[k];
	const struct node *r = &c->s->n[m.to];
	bool tag = meets(c, m.to, m.epoch) && at(c, m.to)->gen <= m.prev.gen;

	if (!r->member || at(c, m.to)->epoch < m.epoch)
		return;
	if ((!r->in_sync && !mut(c, MUT_recon_all)) || (!tag && !mut(c, MUT_settle_untagged)))
		return;
	struct state s = *c->s;
	msg_take(&s, k);
	if (ver_cmp(r->ver, m.ver) < 0) {
		s.n[m.to].ver = m.ver;
		s.n[m.to].has = m.has;
	}
	struct node *o = &s.n[m.from];
	if (o->up && o->member && o->phase == CLAIMED && o->gen == m.prev.gen &&
	    at(c, m.from)->epoch == m.epoch && o->asked >> m.to & 1) {
		o->told[m.to] = s.n[m.to].ver;
		o->told_has[m.to] = s.n[m.to].has;
	}
	NEXT(c, &s, NULL, "%c is brought to %u,%u", NAME[m.to], s.n[m.to].ver.gen,
	     s.n[m.to].ver.seq);
}

enum check { OLD, HOLD, DONE, APPLY, PREVIOUS };

/* write_check() of replica.c */
static enum check write_check(const struct ctx *c, const struct msg *m)
{
	const struct node *r = &c->s->n[m->to];
	bool again = !m->checked;

	if (again && at(c, m->to)->epoch != m->epoch && !mut(c, MUT_no_epoch))
		return at(c, m->to)->epoch > m->epoch ? OLD : HOLD;
	if (again && at(c, m->to)->gen > m->ver.gen && !mut(c, MUT_no_gen))
		return OLD;
	if (again && !r->in_sync) {
		if (mut(c, MUT_done_unsynced) && !absent(r->ver) && ver_cmp(m->ver, r->ver) <= 0)
			return DONE;
		if (!mut(c, MUT_read_unsynced))
			return HOLD;
	}
	if (!absent(r->ver) && ver_cmp(m->ver, r->ver) <= 0)
		return DONE;
	if (removes(c, m->has) && absent(r->ver) && !mut(c, MUT_absent_not_done))
		return DONE;
	return !ver_cmp(m->prev, r->ver) || mut(c, MUT_no_previous) ? APPLY : PREVIOUS;
}

/* A replica in sync that waits for what comes before, and nothing will. */
static bool stuck(const struct ctx *c, const struct msg *m)
{
	const struct node *o = &c->s->n[m->from];

	if (!owns(c, m->from) || o->phase != SERVES || o->silent || m->copy ||
	    o->seq - o->out + 1 != m->ver.seq || o->gen != m->ver.gen || !o->out)
		return false;
	for (unsigned i = 0; i < c->conf->nodes; i++)
		if (c->s->n[i].up && c->s->n[i].pos != c->s->nr_log)
			return false;
	return at(c, m->from)->epoch == m->epoch && meets(c, m->to, m->epoch) &&
	       c->s->n[m->to].in_sync;
}

/* write_queue(): no yield since write_check() */
static void write_applied(const struct ctx *c, struct state *s, const struct msg *m)
{
	struct node *r = &s->n[m->to];
	const char *bad;

	r->has = (uint16_t)(r->has * 8 + m->has % 8);
	r->ver = removes(c, m->has) ? (struct ver){0, 0} : m->ver;
	bad = answer(c, s, m);
	NEXT(c, s, bad, "%c applies write %u,%u: has %o%s", NAME[m->to], m->ver.gen, m->ver.seq,
	     r->has, m->copy ? " (it came over an older connection)" : "");
}

static void write_step(const struct ctx *c, unsigned k, bool keep)
{
	struct msg m = c->s->msg[k];
	struct state s = *c->s;

	if (keep) { /* it comes over two connections */
		s.late++;
		s.msg[k].copy = 1;
	} else {
		msg_take(&s, k);
	}
	switch (write_check(c, &m)) {
	case OLD:
	case HOLD: return;
	case PREVIOUS:
		if (stuck(c, &m))
			NEXT(c, &s, "it can never be applied", "%c waits for what is before %u,%u",
			     NAME[m.to], m.ver.gen, m.ver.seq);
		return;
	case DONE: {
		const char *bad = answer(c, &s, &m);
		NEXT(c, &s, bad, "%c has %u,%u, and answers write %u,%u as done", NAME[m.to],
		     c->s->n[m.to].ver.gen, c->s->n[m.to].ver.seq, m.ver.gen, m.ver.seq);
		return;
	}
	case APPLY: write_applied(c, &s, &m); return;
	}
}

static void write_arrives(const struct ctx *c, unsigned k)
{
	const struct msg *m = &c->s->msg[k];

	if (mut(c, MUT_no_recheck) && !m->checked) {
		if (write_check(c, m) != APPLY)
			return;
		struct state s = *c->s;
		s.msg[k].checked = 1;
		NEXT(c, &s, NULL, "%c has checked write %u,%u", NAME[m->to], m->ver.gen,
		     m->ver.seq);
		return;
	}
	write_step(c, k, false);
	if (mut(c, MUT_late_copy) && !m->copy && c->s->late < c->conf->late)
		write_step(c, k, true);
}

void message_arrives(const struct ctx *c, unsigned k)
{
	const struct msg *m = &c->s->msg[k];

	if (!c->s->n[m->to].up || !c->s->n[m->to].member)
		return;
	switch (m->type) {
	case WRITE: write_arrives(c, k); break;
	case PULL: pull_arrives(c, k); break;
	case SETTLE: settle_arrives(c, k); break;
	}
}
