/* peer_probe.c - members that are alive on the bus and dead for us (DESIGN 5.6), see peer_int.h.
 *
 * A request may wait for long for good reasons (an object that is not in sync), so that it is not
 * answered says nothing.  PEER_PROBE is answered by whoever receives it, from the reactor, on a
 * channel of its own where nothing waits.
 *
 *  Q1 Nobody is asked while all is answered: there is no traffic between members that have nothing
 *     to say to each other.  Asked is who owes us answers for SD_PEER_QUIET_NS, who stands accused,
 *     who accuses us; and some others, as witnesses, while we wait for an answer.
 *  Q2 It is accused when it has not answered for SD_PEER_SILENT_NS, on one connection or another,
 *     while we ran, and while some other member (if there is one) answered us: who answers nobody
 *     is sick itself.  What we came late ourselves is given to everybody, PROBE_PATIENCE times.
 *  Q3 A refused greeting is an answer: it lives, and has another view.
 *  Q4 A connection on which a probe is not answered for PROBE_RENEW_NS is replaced: it may be dead
 *     at the other end only.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "sheep/peer_int.h"
#include "sheep/mark.h"

#define PROBE_TICK_NS	 SD_HEARTBEAT_NS
#define PROBE_QUIET	 (SD_PEER_QUIET_NS / PROBE_TICK_NS) /* ticks */
#define PROBE_RENEW_NS	 1000000000ull
#define PROBE_WITNESS_NS 1000000000ull /* a witness has answered since then */
#define PROBE_WITNESSES	 3u	       /* asked at a time */
#define PROBE_SUSPECTS	 8u	       /* of the cluster's, at a time */
#define PROBE_PATIENCE	 4u
_Static_assert(PROBE_RENEW_NS < SD_PEER_SILENT_NS, "Q4: there is time for another connection");
_Static_assert(PROBE_QUIET >= 1 && 2 * PROBE_TICK_NS <= PROBE_WITNESS_NS, "ticks are short");

/* The one question to a peer that is out, and when it was answered last. */
struct peer_probe {
	struct peer_call c;
	struct peers *p;
	struct peer *peer; /* NULL: it has left the view */
	bool out;
	bool accused;	   /* the log says so */
	uint64_t since;	   /* it does not answer; what we slept is taken off */
	uint64_t conn_at;  /* on this connection */
	uint64_t heard_at; /* it has answered; 0: never */
};

static uint64_t after(uint64_t then, uint64_t now)
{
	return now > then ? now - then : 0;
}

/* ---- asking ---- */

static void probe_done(struct peer_call *c)
{
	struct peer_probe *q = caa_container_of(c, struct peer_probe, c);

	q->out = false;
	if (!q->peer) {
		free(q);
		return;
	}
	if (!c->error || c->error == -ESTALE)
		probe_heard(q->peer);
}

void probe_heard(struct peer *peer)
{
	struct peer_probe *q = peer->probe;

	if (!q)
		return;
	q->heard_at = q->since = q->conn_at = env_now(q->p->sh->env);
	if (q->accused && MARKED(probe_again)) {
		log_notice(q->p->sh->log, "another node answers again");
		cluster_acquit(q->p->sh->cluster, &peer->inc);
	}
	q->accused = false;
}

void probe_drop(struct peer *peer)
{
	struct peer_probe *q = peer->probe;

	if (!q)
		return;
	peer->probe = NULL;
	q->peer = NULL;
	if (!q->out)
		free(q);
}

static void ask(struct peers *p, struct peer *peer, uint64_t now)
{
	struct peer_probe *q = peer->probe;

	if (q && q->out)
		return;
	if (!q) {
		q = peer->probe = calloc(1, sizeof(*q));
		if (!q)
			return; /* the next tick */
		q->p = p;
		q->peer = peer;
	}
	q->c = (struct peer_call){.req = {.op = PEER_PROBE}, .done = probe_done};
	q->out = true;
	q->since = q->conn_at = now;
	peer_submit(p->sh, &peer->inc, &q->c);
}

/* A question that is out for longer than it takes. */
static bool doubtful(const struct peer *peer, uint64_t now)
{
	return peer->probe && peer->probe->out && after(peer->probe->since, now) > PROBE_TICK_NS;
}

/* Q1.  Answers of streams count too. */
static bool quiet(struct peer *peer)
{
	bool is = false;

	for (unsigned ch = 0; ch < PEER_CH_PROBE; ch++) {
		struct peer_chan *chan = peer->chan[ch];
		if (!chan)
			continue;
		if (cds_list_empty(&chan->calls) || chan->answers != chan->answers_seen)
			chan->quiet = 0;
		else
			chan->quiet++;
		chan->answers_seen = chan->answers;
		if (chan->quiet > PROBE_QUIET) {
			chan->quiet = 0; /* asked again after so long */
			is = MARKED(probe_quiet);
		}
	}
	return is;
}

/* The next members behind us that we have no reason to doubt. */
static void ask_witnesses(struct peers *p, const struct view *v, uint64_t now)
{
	unsigned nr = 0;

	for (unsigned i = 1; i < v->nr && nr < PROBE_WITNESSES; i++) {
		const struct member *m = &v->members[((unsigned)v->self + i) % v->nr];
		struct peer *peer = peer_get(p, &m->inc);
		if (!peer || doubtful(peer, now))
			continue;
		ask(p, peer, now);
		nr++;
	}
}

/* ---- judging ---- */

/* Q2 */
static bool has_witness(const struct peers *p, const struct peer *accused, uint64_t now)
{
	struct peer *peer;

	cds_list_for_each_entry (peer, &p->list, node)
		if (peer != accused && peer->probe && peer->probe->heard_at &&
		    after(peer->probe->heard_at, now) <= PROBE_WITNESS_NS)
			return true;
	MARK(probe_sick_itself);
	return false;
}

static void look(struct peers *p, struct peer *peer, const struct view *v, uint64_t now)
{
	struct peer_probe *q = peer->probe;
	struct peer_chan *chan = peer->chan[PEER_CH_PROBE];

	if (!q || !q->out)
		return;
	if (after(q->since, now) >= SD_PEER_SILENT_NS && (v->nr < 3 || has_witness(p, peer, now))) {
		if (!q->accused && MARKED(probe_accuses))
			log_warn(p->sh->log, "another node is on the bus, but does not answer us");
		q->accused = true;
		cluster_accuse(p->sh->cluster, &peer->inc);
	}
	if (after(q->conn_at, now) < PROBE_RENEW_NS)
		return;
	q->conn_at = now;
	if (chan && chan->conn && chan->conn->state != CONN_CONNECT && MARKED(probe_renew))
		conn_close(chan->conn); /* Q4 */
}

/* Q2.  We did not run for so long: whose answer may lie here unread? */
static void forgive(struct peers *p, uint64_t late, uint64_t now)
{
	struct peer *peer;

	cds_list_for_each_entry (peer, &p->list, node) {
		struct peer_probe *q = peer->probe;
		if (!q || !q->out)
			continue;
		MARK(probe_forgive);
		q->since += PROBE_PATIENCE * late;
		if (q->since > now || late > PROBE_TICK_NS)
			q->since = now;
		if (late > PROBE_TICK_NS)
			q->conn_at = now;
	}
}

static void look_around(struct peers *p, const struct view *v, uint64_t now)
{
	struct incarnation who[PROBE_SUSPECTS];
	struct peer *peer, *next;
	bool doubt = false;

	unsigned nr = cluster_suspects(p->sh->cluster, who, PROBE_SUSPECTS);
	for (unsigned i = 0; i < nr; i++) {
		peer = peer_inc_eq(&who[i], &p->sh->self.inc) ? NULL : peer_get(p, &who[i]);
		if (peer)
			ask(p, peer, now);
	}
	cds_list_for_each_entry (peer, &p->list, node) {
		if (quiet(peer))
			ask(p, peer, now);
		doubt |= doubtful(peer, now);
	}
	if (doubt && MARKED(probe_doubt))
		ask_witnesses(p, v, now);
	cds_list_for_each_entry_safe (peer, next, &p->list, node)
		look(p, peer, v, now);
}

/* ---- life ---- */

static void on_tick(struct env_timer *t)
{
	struct peers *p = caa_container_of(t, struct peers, tick);
	uint64_t now = env_now(p->sh->env), late = after(p->tick_due, now);

	p->tick_due = now + PROBE_TICK_NS;
	env_timer_set(p->sh->env, t, p->tick_due);
	if (p->stopping || !p->sh->cluster)
		return;
	const struct view *v = cluster_view(p->sh->cluster);
	if (!v || v->self < 0)
		return;
	if (late)
		forgive(p, late, now);
	look_around(p, v, now);
}

void probe_start(struct peers *p)
{
	p->tick.fn = on_tick;
	p->tick_due = env_now(p->sh->env) + PROBE_TICK_NS;
	env_timer_set(p->sh->env, &p->tick, p->tick_due);
}

void probe_stop(struct peers *p)
{
	env_timer_del(p->sh->env, &p->tick);
}
