/* object.c - DESIGN 4.4, 5.1 to 5.3, 5.5, 5.6: one object of one VDI, on up to four nodes.
 *
 * The bus is one sequence of views and commands, which each node applies at its own pace (a pause
 * is: it does not apply).  Requests and pulls are under way for any time, overtake each other, or
 * stay under way for ever; a new view sends writes again.  The ring of a view is its first `copies`
 * members.  Contents are the list of the writes that were applied, three bits each.
 *
 * What must hold in every state:
 *   I1  a write that is answered follows on all that clients have seen, and
 *   I2  what is read too: `floor` is what they have seen
 *   I3  replicas in sync in the same epoch: one is a prefix of the other
 *   and equal versions there are equal contents
 *
 * Abstractions: applying and persisting a view is one step; the answers to the questions of 5.5 are
 * taken in one step (who is asked can only come in sync meanwhile, which is rule 1); an answer to a
 * write arrives at once (a late one is a late step of the replica); a lease ends at some time;
 * ranges, several objects, flushes and power cuts are not here: see models.h. */
#include "config.h"

#include "tests/model/object_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool mut(const struct ctx *c, enum object_mutant m)
{
	return c->conf->mutant == m;
}

int ver_cmp(struct ver a, struct ver b)
{
	return a.gen != b.gen ? a.gen - b.gen : a.seq - b.seq;
}

bool absent(struct ver v)
{
	return !v.gen;
}

bool prefix(uint16_t a, uint16_t b)
{
	while (b > a)
		b /= 8;
	return a == b;
}

uint8_t ring_of(const struct object_conf *conf, uint8_t members)
{
	uint8_t ring = 0;

	for (unsigned i = 0, n = 0; i < conf->nodes && n < conf->copies; i++)
		if (members >> i & 1) {
			ring |= 1 << i;
			n++;
		}
	return ring;
}

/* cs_view(), cs_epoch_next(), vdi_claim(), vdi_owner_cmd() */
static void log_apply(const struct ctx *c, struct at *a, const struct entry *e, unsigned pos)
{
	switch (e->type) {
	case VIEW:
		a->epoch++;
		a->members = e->who;
		a->ring = ring_of(c->conf, e->who);
		if (a->owner >= 0 && !(e->who >> a->owner & 1))
			a->owner = -1;
		break;
	case CLAIM:
		if (a->owner >= 0 || !(a->members >> e->who & 1))
			break; /* not granted, or void */
		a->owner = (int8_t)e->who;
		a->gen++;
		a->claim_pos = (uint8_t)pos;
		a->dirty = !a->clean;
		a->clean = false;
		break;
	case RELEASE:
		if (a->owner == e->who) {
			a->owner = -1;
			a->clean = e->arg;
		}
		break;
	}
}

const struct at *at(const struct ctx *c, unsigned n)
{
	return &c->at[c->s->n[n].pos];
}

const struct at *tail(const struct ctx *c)
{
	return &c->at[c->s->nr_log];
}

bool owns(const struct ctx *c, unsigned n)
{
	const struct node *o = &c->s->n[n];

	return o->up && o->member && o->phase != NOTHING && at(c, n)->owner == (int)n &&
	       at(c, n)->gen == o->gen;
}

/* In the same epoch: who answers requests of it. */
bool meets(const struct ctx *c, unsigned n, uint8_t epoch)
{
	const struct node *r = &c->s->n[n];

	return r->up && r->member && at(c, n)->epoch == epoch;
}

/* ---- messages ---- */

static int msg_cmp(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct msg));
}

/* Messages that can only be refused are gone; the order of those under way says nothing. */
void msgs_trim(const struct ctx *c, struct state *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->nr_msg; i++) {
		struct msg m = s->msg[i];
		const struct node *r = &s->n[m.to];
		bool late = r->member && c->at[r->pos].epoch > m.epoch;
		if (!r->up || (late && m.type == WRITE && !m.checked && !mut(c, MUT_no_epoch)) ||
		    (late && m.type == PULL && !mut(c, MUT_pull_untagged)) ||
		    (late && m.type == SETTLE && !mut(c, MUT_settle_untagged)) ||
		    (m.type == PULL && r->member && r->in_sync))
			continue;
		s->msg[n++] = m;
	}
	qsort(s->msg, n, sizeof(*s->msg), msg_cmp);
	s->nr_msg = 0;
	for (unsigned i = 0; i < n; i++)
		if (!i || msg_cmp(&s->msg[i], &s->msg[s->nr_msg - 1]))
			s->msg[s->nr_msg++] = s->msg[i];
	memset(s->msg + s->nr_msg, 0, sizeof(*s->msg) * (MSGS - s->nr_msg));
}

void msg_put(struct state *s, struct msg m)
{
	if (s->nr_msg == MSGS) {
		fprintf(stderr, "more messages than a state holds\n");
		exit(2);
	}
	s->msg[s->nr_msg++] = m;
}

void msg_take(struct state *s, unsigned i)
{
	s->msg[i] = s->msg[--s->nr_msg];
	memset(&s->msg[s->nr_msg], 0, sizeof(s->msg[0]));
}

/* I3, and whatever else is to be looked at in a state. */
const char *look(const struct ctx *c, const struct state *s)
{
	for (unsigned i = 0; i < c->conf->nodes; i++)
		for (unsigned j = i + 1; j < c->conf->nodes; j++) {
			const struct node *a = &s->n[i], *b = &s->n[j];
			if (!a->up || !b->up || !a->member || !b->member || !a->in_sync ||
			    !b->in_sync || c->at[a->pos].epoch != c->at[b->pos].epoch)
				continue;
			if (!prefix(a->has, b->has) && !prefix(b->has, a->has))
				return "two in sync, and neither is a prefix of the other (I3)";
			if (!absent(a->ver) && !ver_cmp(a->ver, b->ver) && a->has != b->has)
				return "two in sync at one version, and not equal (I3)";
		}
	return NULL;
}

/* ---- views and commands, in their order ---- */

/* The memory of a process; also of one that learns that it is out. */
static void node_dies(struct state *s, unsigned n)
{
	struct node *d = &s->n[n];
	struct ver ver = d->ver;
	uint16_t has = d->has;
	uint8_t synced = d->synced;

	memset(d, 0, sizeof(*d));
	d->ver = ver;
	d->has = has;
	d->synced = synced;
}

/* sync_view(): seg_view(); owner_view() */
static void apply_view(const struct ctx *c, unsigned n, const struct at *old, const struct at *new)
{
	struct state s = *c->s;
	struct node *r = &s.n[n];
	const char *bad = NULL;

	r->pos++;
	if (!(new->members >> n & 1)) {
		node_dies(&s, n);
		NEXT(c, &s, NULL, "%c learns that it is out, and stops", NAME[n]);
		return;
	}
	bool mine = r->member && old->ring >> n & new->ring >> n & 1;
	r->in_sync = mine && (r->in_sync || mut(c, MUT_plan_replaced));
	r->member = 1;
	if (r->in_sync)
		r->synced = new->epoch;
	told_forget(r);
	if (r->out) {
		uint8_t acks[2] = {r->acks[0], r->acks[1]};
		if (!mut(c, MUT_resend_unanswered))
			acks[0] = acks[1] = 0;
		r->acks[0] = acks[0];
		r->acks[1] = acks[1];
		for (unsigned w = 0; w < r->out; w++)
			write_send(c, &s, n, w, acks[w]);
		bad = writes_settle(c, &s, n);
	}
	NEXT(c, &s, bad, "%c applies epoch %u (members %x)%s", NAME[n], new->epoch, new->members,
	     r->in_sync		  ? ", stays in sync"
	     : new->ring >> n & 1 ? ", is in its ring: todo"
				  : "");
}

static void node_applies(const struct ctx *c, unsigned n)
{
	const struct node *r = &c->s->n[n];

	if (!r->up || r->pos == c->s->nr_log)
		return;
	const struct entry *e = &c->s->log[r->pos];
	const struct at *old = &c->at[r->pos], *new = old + 1;
	if (e->type == VIEW) {
		apply_view(c, n, old, new);
		return;
	}
	struct state s = *c->s;
	struct node *o = &s.n[n];
	o->pos++;
	if (e->type == CLAIM && new->gen != old->gen && e->who == n) {
		o->phase = CLAIMED;
		o->gen = new->gen;
		o->dirty = new->dirty;
		o->seq = o->out = o->acks[0] = o->acks[1] = 0;
	}
	NEXT(c, &s, NULL, "%c applies a %s of %c", NAME[n], e->type == CLAIM ? "claim" : "release",
	     NAME[e->who]);
}

static void log_view(struct state *s, uint8_t members, bool silent)
{
	s->log[s->nr_log++] = (struct entry){VIEW, members, silent};
}

static void node_crashes(const struct ctx *c, unsigned n)
{
	const struct node *d = &c->s->n[n];
	uint8_t members = tail(c)->members;
	bool in = members >> n & 1 && !d->silent;

	if (!d->up || c->s->crashes == c->conf->crashes ||
	    (in && (members == 1 << n || c->s->nr_log == LOG)))
		return;
	struct state s = *c->s;
	s.crashes++;
	if (in)
		log_view(&s, members & ~(1 << n), false);
	node_dies(&s, n);
	NEXT(c, &s, NULL, "%c dies%s", NAME[n], in ? "; a view without it" : "");
}

static void node_falls_silent(const struct ctx *c, unsigned n)
{
	const struct node *d = &c->s->n[n];
	uint8_t members = tail(c)->members;

	if (!d->up || !d->member || d->silent || c->s->silent == c->conf->silent ||
	    !(members >> n & 1) || members == 1 << n || c->s->nr_log == LOG)
		return;
	struct state s = *c->s;
	s.silent++;
	s.n[n].silent = 1;
	s.n[n].silent_at = s.nr_log;
	log_view(&s, members & ~(1 << n), true);
	NEXT(c, &s, NULL, "%c falls silent, and lives on; a view without it", NAME[n]);
}

static void node_comes(const struct ctx *c, unsigned n)
{
	uint8_t members = tail(c)->members;

	if (c->s->n[n].up || members >> n & 1 || c->s->joins == c->conf->joins ||
	    c->s->nr_log == LOG)
		return;
	struct state s = *c->s;
	s.joins++;
	s.n[n].up = 1;
	s.n[n].pos = s.nr_log;
	log_view(&s, members | 1 << n, false);
	NEXT(c, &s, NULL, "%c starts and joins; a view with it", NAME[n]);
}

static void node_claims(const struct ctx *c, unsigned n)
{
	const struct node *d = &c->s->n[n];

	if (!d->up || !d->member || d->silent || c->s->claims == c->conf->claims ||
	    tail(c)->owner >= 0 || !(tail(c)->members >> n & 1) || c->s->nr_log == LOG)
		return;
	struct state s = *c->s;
	s.claims++;
	s.log[s.nr_log++] = (struct entry){CLAIM, (uint8_t)n, 0};
	NEXT(c, &s, NULL, "%c claims the VDI", NAME[n]);
}

static void lease_ends(const struct ctx *c, unsigned n)
{
	if (!c->s->n[n].silent || c->s->n[n].lease_over)
		return;
	struct state s = *c->s;
	s.n[n].lease_over = 1;
	NEXT(c, &s, NULL, "the lease of %c is over", NAME[n]);
}

/* ---- all of it ---- */

static void object_init(const void *conf, void *state)
{
	const struct object_conf *oc = conf;
	struct state *s = state;
	uint8_t members = oc->initial ? oc->initial : (1 << oc->nodes) - 1;

	assert(oc->nodes <= NODES && oc->writes < 6);
	log_view(s, members, false);
	for (unsigned i = 0; i < oc->nodes; i++) {
		struct node *n = &s->n[i];
		if (!(members >> i & 1))
			continue;
		n->up = n->member = n->pos = 1;
		n->in_sync = n->synced = ring_of(oc, members) >> i & 1;
	}
}

static void object_next(struct explore *x, const void *conf, const void *state)
{
	struct ctx c = {.x = x, .conf = conf, .s = state};

	c.at[0] = (struct at){.owner = -1, .clean = true};
	for (unsigned p = 0; p < c.s->nr_log; p++) {
		c.at[p + 1] = c.at[p];
		log_apply(&c, &c.at[p + 1], &c.s->log[p], p);
	}
	for (unsigned n = 0; n < c.conf->nodes; n++) {
		node_applies(&c, n);
		node_crashes(&c, n);
		node_falls_silent(&c, n);
		lease_ends(&c, n);
		node_comes(&c, n);
		node_claims(&c, n);
		owner_releases(&c, n);
		owner_loads(&c, n);
		owner_writes(&c, n);
		for (unsigned i = 0; i < c.conf->nodes; i++)
			owner_reads(&c, n, i);
		node_recovers(&c, n);
		node_drops(&c, n);
	}
	for (unsigned k = 0; k < c.s->nr_msg; k++)
		message_arrives(&c, k);
}

const struct model object_model = {sizeof(struct state), object_init, object_next};