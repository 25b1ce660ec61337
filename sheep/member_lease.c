/* member_lease.c - heartbeats, the lease of this node, and who hangs (DESIGN 4.4, 5.6; WHY B7).
 *
 * Every node that has the state of a running group broadcasts a heartbeat each SD_HEARTBEAT_NS: its
 * number, the newest numbers that were delivered to it from the members of its epoch, and a hash of
 * the state.  Heartbeats take no part in the state: they are neither logged nor counted.
 *
 *  H1 The lease runs SD_LEASE_NS from the sending of our newest heartbeat that a majority of the
 * view (we are one of it) has named.  A naming counts only when everything that is ordered before
 * it and may change the membership was applied here.  So whoever goes on without us has applied
 *     that we are out after we sent that heartbeat: it waits SD_LEASE_NS from then, and some.
 *  H2 A heartbeat is heard when it is delivered, not when its turn comes: a slow disk, which holds
 *     up what is logged, gets nobody expelled.
 *  H3 Who was late itself, or was delivered nothing, counts anew; who is late a bit gives the
 * others more time: a starved node, or one that has just been woken up, accuses nobody. H4 The hash
 * is taken right after a heartbeat of the speaker, in its turn: at the same place of the order by
 * all.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "lib/base/util.h"
#include "sheep/member_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

struct heartbeat {
	uint64_t number;
	struct lease_place place;
	uint32_t epoch;
	unsigned nr;
	const uint8_t *named; /* nr times u64 */
};

/* The clock goes on while we work: @then may be after a @now that was read earlier. */
static uint64_t since(uint64_t then, uint64_t now)
{
	return now > then ? now - then : 0;
}

static bool runs(const struct cluster *c)
{
	return c->s && c->s->live && !c->is_out && !c->stopping;
}

/* ---- the other nodes ---- */

static struct lease_peer *find(struct cluster *c, const struct incarnation *inc)
{
	for (unsigned i = 0; i < c->lease.nr; i++)
		if (inc_same(&c->lease.peers[i].inc, inc))
			return &c->lease.peers[i];
	return NULL;
}

static bool is_watched(const struct lobby *l)
{
	return l->synced && !l->refused;
}

/* As many as there are in the lobby.  Who comes is heard from now on. */
static int peers_update(struct cluster *c)
{
	struct lease *ls = &c->lease;
	uint64_t now = env_now(c->env);
	unsigned kept = 0;

	for (unsigned i = 0; i < ls->nr; i++) {
		const struct lobby *l = cs_lobby(c->s, &ls->peers[i].inc);
		if (l && is_watched(l))
			ls->peers[kept++] = ls->peers[i];
	}
	ls->nr = kept;
	if (ls->cap < c->s->nr_lobby) {
		struct lease_peer *n = realloc(ls->peers, c->s->nr_lobby * sizeof(*n));
		if (!n)
			return -ENOMEM;
		ls->peers = n;
		ls->cap = c->s->nr_lobby;
	}
	for (unsigned i = 0; i < c->s->nr_lobby; i++) {
		const struct lobby *l = c->s->lobby[i];
		if (is_watched(l) && !find(c, &l->j.m.inc))
			ls->peers[ls->nr++] =
				(struct lease_peer){.inc = l->j.m.inc, .heard_at = now};
	}
	return 0;
}

static struct lease_peer *find_or_add(struct cluster *c, const struct incarnation *inc)
{
	struct lease_peer *p = find(c, inc);
	const struct lobby *l = p ? NULL : cs_lobby(c->s, inc);

	if (!l || !is_watched(l))
		return p;
	return peers_update(c) == 0 ? find(c, inc) : NULL;
}

/* ---- sending ---- */

static const struct lease_place *last_place(const struct lease *ls)
{
	return &ls->places[(ls->next_place + LEASE_PLACES - 1) % LEASE_PLACES];
}

static void send_heartbeat(struct cluster *c)
{
	const struct lobby *self = cs_lobby(c->s, &c->self.inc);
	const struct hist *h = cs_newest(c->s);
	const struct lease_place *pl = last_place(&c->lease);
	struct enc e = {0};

	if (!self || !is_watched(self) || !h)
		return;
	c->lease.number++;
	c->lease.sent_at[c->lease.number % LEASE_SENT] = env_now(c->env);
	msg_begin(&e, CMD_HEARTBEAT, 0);
	enc_u64(&e, c->lease.number);
	enc_u64(&e, pl->pos);
	enc_u64(&e, pl->number);
	enc_u64(&e, pl->hash);
	enc_u32(&e, h->epoch);
	enc_u32(&e, h->nr);
	for (unsigned i = 0; i < h->nr; i++) {
		const struct lease_peer *p = find(c, &h->members[i].node->m.inc);
		enc_u64(&e, p ? p->heard : 0);
	}
	member_send(c, &e);
}

static bool decode(const void *msg, size_t len, struct heartbeat *hb)
{
	struct dec d = {.p = msg, .end = (const uint8_t *)msg + len};
	struct msg_head h;

	if (!msg_decode(&d, &h) || h.version != CLUSTER_MSG_VERSION)
		return false;
	hb->number = dec_u64(&d);
	hb->place.pos = dec_u64(&d);
	hb->place.number = dec_u64(&d);
	hb->place.hash = dec_u64(&d);
	hb->epoch = dec_u32(&d);
	hb->nr = dec_u32(&d);
	hb->named = d.p;
	return !d.failed && dec_left(&d) == 8ull * hb->nr;
}

static void soon(struct cluster *c)
{
	if (!c->lease.soon.heap_idx)
		env_timer_set(c->env, &c->lease.soon, env_now(c->env) + LEASE_SOON_NS);
}

/* ---- the lease ---- */

/* By how many members of the view our heartbeat @number or a later one was named. */
static unsigned nr_named(const struct cluster *c, uint64_t number)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->lease.nr; i++)
		n += c->lease.peers[i].named >= number &&
		     view_find(c->view, &c->lease.peers[i].inc) >= 0;
	return n;
}

/* H1.  Somebody has named one that is newer than the one that counts. */
static void lease_extend(struct cluster *c)
{
	struct lease *ls = &c->lease;
	uint64_t best = ls->named, now = env_now(c->env);

	if (!c->view)
		return;
	for (unsigned i = 0; i < ls->nr; i++) {
		uint64_t n = ls->peers[i].named;
		if (n > best && nr_named(c, n) > c->view->nr / 2)
			best = n;
	}
	if (best == ls->named || best + LEASE_SENT <= ls->number)
		return;
	MARK(lease_extended);
	ls->named = best;
	uint64_t until = ls->sent_at[best % LEASE_SENT] + SD_LEASE_NS;
	bool back = ls->until <= now && until > now;
	if (until > ls->until)
		ls->until = until;
	if (back && MARKED(lease_back))
		co_cond_broadcast(&c->changed);
}

/* Our index among the members of @epoch, in the order of its heartbeats; -1. */
static int index_in(struct cluster *c, uint32_t epoch)
{
	const struct hist *h;

	if (c->lease.idx_epoch == epoch)
		return c->lease.idx;
	h = cs_hist(c->s, epoch);
	c->lease.idx = -1;
	c->lease.idx_epoch = epoch;
	for (unsigned i = 0; h && i < h->nr; i++)
		if (inc_same(&h->members[i].node->m.inc, &c->self.inc))
			c->lease.idx = (int)i;
	return c->lease.idx;
}

static void named(struct cluster *c, struct lease_peer *p, const struct heartbeat *hb)
{
	uint64_t n;
	int i;

	if (inc_same(&p->inc, &c->self.inc)) {
		n = hb->number;
	} else {
		i = index_in(c, hb->epoch);
		if (i < 0 || (unsigned)i >= hb->nr)
			return;
		struct dec d = {.p = hb->named + 8 * i, .end = hb->named + 8 * i + 8};
		n = dec_u64(&d);
	}
	if (n > c->lease.number || n <= p->named)
		return;
	p->named = n;
	if (n > c->lease.named)
		lease_extend(c);
}

bool cluster_lease(const struct cluster *c)
{
	if (c->is_out || !c->view)
		return false;
	/* Once a shutdown of the cluster was applied no claim is granted until all have stopped. */
	if (c->s && c->s->status == CLUSTER_SHUTDOWN)
		return true;
	return env_now(c->env) < c->lease.until || !MARKED(lease_none);
}

uint64_t cluster_serve_after(const struct cluster *c)
{
	return c->lease.serve_after;
}

void lease_applied(struct cluster *c, const struct cs_out *out)
{
	struct lease *ls = &c->lease;

	if (!c->s->live) {
		ls->silent = 0;
		return;
	}
	if (ls->silent != c->s->silent) {
		ls->silent = c->s->silent;
		if (ls->silent && MARKED(lease_claims_wait))
			ls->serve_after = env_now(c->env) + SD_LEASE_NS + SD_DRIFT_NS;
		else
			ls->serve_after = 0;
		co_cond_broadcast(&c->changed);
	}
	if (PLANTED(lease_one) && out->epoch && !out->silent)
		ls->serve_after = 0; /* the last one died for certain */
	if (out->epoch) {
		ls->idx_epoch = 0; /* a format begins to count anew */
		soon(c);
	}
	if (out->expel && c->bus && c->conf.driver->expel &&
	    !inc_same(&out->expelled, &c->self.inc) && MARKED(lease_expel))
		c->conf.driver->expel(c->bus, &out->expelled);
}

/* The first member that is there says that the leases of who fell silent have ended. */
static void say_over(struct cluster *c, uint64_t now)
{
	struct lease *ls = &c->lease;
	unsigned i = 0;

	if (!c->s->silent || now < ls->serve_after || since(ls->over_sent_at, now) < SD_LEASE_NS)
		return;
	while (i < c->s->nr_lobby &&
	       (!is_watched(c->s->lobby[i]) || cs_member(c->s, &c->s->lobby[i]->j.m.inc) < 0))
		i++;
	if (i == c->s->nr_lobby || !inc_same(&c->s->lobby[i]->j.m.inc, &c->self.inc))
		return;
	struct cmd cmd = {.type = CMD_LEASES_OVER, .size = c->s->silent};
	MARK(lease_over);
	ls->over_sent_at = now;
	member_send_cmd(c, &cmd);
}

/* ---- the hash of the state (DESIGN 4.2) ---- */

static const struct lease_place *report(const struct lease_peer *p, const struct lease_place *at)
{
	for (unsigned i = 0; i < LEASE_REPORTS; i++)
		if (p->reports[i].pos == at->pos && p->reports[i].number == at->number)
			return &p->reports[i];
	return NULL;
}

/* Who has another state at that place, more than us?  Then it is ours that is wrong. */
static void judge(struct cluster *c, const struct lease_place *mine)
{
	const struct lobby *sp = cs_speaker(c->s);
	const struct lease *ls = &c->lease;

	if (!mine->pos || !c->view)
		return;
	for (unsigned i = 0; i < ls->nr; i++) {
		const struct lease_place *r = report(&ls->peers[i], mine);
		unsigned votes = 0;
		bool speaker = false;
		if (!r || r->hash == mine->hash)
			continue;
		for (unsigned k = 0; k < ls->nr; k++) {
			const struct lease_place *o = report(&ls->peers[k], mine);
			if (!o || o->hash != r->hash || view_find(c->view, &ls->peers[k].inc) < 0)
				continue;
			votes++;
			speaker |= sp && inc_same(&sp->j.m.inc, &ls->peers[k].inc);
		}
		if (2 * votes > c->view->nr || (2 * votes == c->view->nr && speaker)) {
			MARK(lease_differs);
			member_refused(c,
				       str_printf("The state of the cluster on this node differs "
						  "from that of the others: it stops, please "
						  "report this"));
			return;
		}
	}
}

static const struct lease_place *place_find(const struct lease *ls, const struct lease_place *at)
{
	for (unsigned i = 0; i < LEASE_PLACES; i++)
		if (ls->places[i].pos == at->pos && ls->places[i].number == at->number)
			return &ls->places[i];
	return NULL;
}

/* H4: heartbeat @number of the speaker, in its turn. */
static void take_hash(struct cluster *c, uint64_t number)
{
	struct lease *ls = &c->lease;
	struct enc e = {0};

	if (last_place(ls)->pos == c->s->pos && cs_sample_is_all(c->s))
		return;
	cs_encode_sample(c->s, number, &e);
	struct lease_place pl = {c->s->pos, number, e.failed ? 0 : sd_fnv1a64(e.p, e.len)};
	bool failed = e.failed;
	free(e.p);
	if (failed)
		return; /* the next one, perhaps */
	ls->places[ls->next_place] = pl;
	ls->next_place = (ls->next_place + 1) % LEASE_PLACES;
	judge(c, &pl);
}

/* ---- receiving ---- */

static void heard(struct cluster *c, struct lease_peer *p, const struct heartbeat *hb)
{
	if (!p->heard)
		soon(c); /* it is new: so are we, perhaps, for it */
	p->heard = hb->number;
	p->heard_at = env_now(c->env);
	if (!hb->place.pos || report(p, &hb->place))
		return;
	p->reports[p->next_report] = hb->place;
	p->next_report = (p->next_report + 1) % LEASE_REPORTS;
	const struct lease_place *mine = place_find(&c->lease, &hb->place);
	if (mine && mine->hash != hb->place.hash)
		judge(c, mine);
}

bool lease_heartbeat(struct cluster *c, const struct incarnation *from, const void *msg, size_t len,
		     bool in_turn, bool settled)
{
	const uint8_t *bytes = msg;
	struct heartbeat hb;

	if (len < 2 || bytes[1] != CMD_HEARTBEAT)
		return false;
	if (!runs(c) || !decode(msg, len, &hb))
		return true;
	struct lease_peer *p = find_or_add(c, from);
	if (!p && MARKED(lease_void))
		return true; /* void */
	if (hb.number > p->heard)
		heard(c, p, &hb);
	if (settled && runs(c))
		named(c, p, &hb);
	const struct lobby *sp = cs_speaker(c->s);
	bool speaks = sp && inc_same(&sp->j.m.inc, from);
	if (speaks && in_turn && runs(c))
		take_hash(c, hb.number);
	return in_turn || (settled && !speaks);
}

/* ---- who hangs ---- */

void cluster_accuse(struct cluster *c, const struct incarnation *who)
{
	struct lease_peer *p = runs(c) ? find_or_add(c, who) : NULL;

	if (p)
		p->blamed_at = env_now(c->env);
}

void cluster_acquit(struct cluster *c, const struct incarnation *who)
{
	struct lease_peer *p = find(c, who);

	if (p)
		p->blamed_at = 0;
}

unsigned cluster_suspects(const struct cluster *c, struct incarnation *who, unsigned max)
{
	unsigned nr = 0;

	for (unsigned i = 0; runs(c) && i < c->s->nr_lobby; i++) {
		const struct lobby *l = c->s->lobby[i];
		if (!l->accused || nr == max)
			continue;
		who[nr++] = inc_same(&l->j.m.inc, &c->self.inc) ? l->accuser : l->j.m.inc;
	}
	return nr;
}

/* L4: it accuses us as we do it, and nobody else has said which of us two is the sick one. */
static bool must_insist(const struct cluster *c, const struct lease_peer *p, uint64_t now)
{
	const struct lobby *self = cs_lobby(c->s, &c->self.inc);

	return self && self->accused && inc_same(&self->accuser, &p->inc) &&
	       since(p->accused_at, now) >= SD_INSIST_NS;
}

static void accuse(struct cluster *c, struct lease_peer *p, bool guilty, uint64_t now)
{
	const struct lobby *l = cs_lobby(c->s, &p->inc);
	uint32_t epoch = cs_newest(c->s)->epoch;

	if (!l)
		return;
	bool stands = l->accused && inc_same(&l->accuser, &c->self.inc);
	bool insist = guilty && stands && must_insist(c, p, now);
	if ((guilty == stands && !insist) ||
	    (p->accused_at && p->accused_epoch == epoch && since(p->accused_at, now) < SD_LEASE_NS))
		return;
	struct cmd cmd = {.type = CMD_ACCUSE, .target = p->inc, .clean = !guilty, .on = insist};
	MARK(lease_accuses);
	p->accused_at = now;
	p->accused_epoch = epoch;
	member_send_cmd(c, &cmd);
}

/* H3.  @late: how late we come. */
static bool run_well(struct cluster *c, uint64_t late, uint64_t now)
{
	struct lease *ls = &c->lease;
	const struct lease_peer *self = find(c, &c->self.inc);
	uint64_t lag = self ? since(self->heard_at, now) : 0;

	lag = lag > SD_HEARTBEAT_NS ? lag - SD_HEARTBEAT_NS : 0;
	ls->slack -= ls->slack / 16;
	if (ls->slack < late)
		ls->slack = late;
	if (ls->slack < lag)
		ls->slack = lag;
	if (late <= SD_HEARTBEAT_NS && lag <= SD_HEARTBEAT_NS)
		return true;
	MARK(lease_late);
	for (unsigned i = 0; i < ls->nr; i++)
		if (&ls->peers[i] != self) {
			ls->peers[i].heard_at = now;
			ls->peers[i].blamed_at = 0;
		}
	return false;
}

/* With two nodes there is no third one to ask; else who has no lease is the one that hangs. */
static bool may_accuse(const struct cluster *c)
{
	return c->s->status == CLUSTER_RUNNING && c->view && cs_member(c->s, &c->self.inc) >= 0 &&
	       (c->s->nr_members < 3 || cluster_lease(c));
}

static void look_around(struct cluster *c, uint64_t now)
{
	struct lease *ls = &c->lease;
	uint64_t slack = LEASE_SLACK * ls->slack;

	if (!may_accuse(c))
		return;
	uint64_t patience = SD_EXPEL_NS + (slack < LEASE_SLACK_MAX ? slack : LEASE_SLACK_MAX);
	for (unsigned i = 0; i < ls->nr && runs(c); i++) {
		struct lease_peer *p = &ls->peers[i];
		if (inc_same(&p->inc, &c->self.inc))
			continue;
		if (p->blamed_at && since(p->blamed_at, now) > 2 * SD_LEASE_NS)
			p->blamed_at = 0; /* it answers again, or there is nothing to ask */
		accuse(c, p, p->blamed_at || since(p->heard_at, now) > patience, now);
	}
}

/* ---- the timers ---- */

static void on_tick(struct env_timer *t)
{
	struct cluster *c = caa_container_of(t, struct cluster, lease.tick);
	uint64_t now = env_now(c->env), late = now > c->lease.due ? now - c->lease.due : 0;

	c->lease.due = now + SD_HEARTBEAT_NS;
	env_timer_set(c->env, t, c->lease.due);
	xfer_tick(c);
	if (!runs(c) || peers_update(c) < 0)
		return;
	bool well = run_well(c, late, now);
	send_heartbeat(c);
	if (runs(c) && well) {
		look_around(c, now);
		say_over(c, now);
	}
}

static void on_soon(struct env_timer *t)
{
	struct cluster *c = caa_container_of(t, struct cluster, lease.soon);

	if (runs(c) && peers_update(c) == 0)
		send_heartbeat(c);
}

void lease_start(struct cluster *c)
{
	c->lease.tick.fn = on_tick;
	c->lease.soon.fn = on_soon;
	c->lease.due = env_now(c->env) + SD_HEARTBEAT_NS;
	env_timer_set(c->env, &c->lease.tick, c->lease.due);
}

void lease_stop(struct cluster *c)
{
	env_timer_del(c->env, &c->lease.tick);
	env_timer_del(c->env, &c->lease.soon);
	free(TAKE(c->lease.peers, NULL));
	c->lease.nr = c->lease.cap = 0;
}
