/* cluster_rules.c - three small models of what the bus knows: the start of a cluster (DESIGN 4.3),
 * which record counts (4.2, 4.3), client sessions (5.1). */
#include "config.h"

#include "tests/model/models.h"

#include <string.h>

static const char NAME[] = "ABCD";

/* ---- ADMIT: a full stop forgets no epoch that took a write ----
 *
 * A and B are the cluster, C and D may join.  Whoever is in it applies the log at its own pace, and
 * what it has applied is durable.  A write of an epoch is answered when its ring (the last two
 * members: who has come last) is in that epoch.  Then the power goes; who comes back starts again
 * when the start set of the newest record among them is there.
 * cs_admit(), cs_admitted(), cs_start_set(), cs_try_start() in cluster_epoch.c; the ACKs of
 * member.c
 *   1: a join is one command     2: the same, but all members must have an epoch before a write */

enum { START_NODES = 4, START_LOG = 8 };

struct start_state {
	uint8_t members[START_LOG], set[START_LOG], epoch[START_LOG]; /* after each entry */
	uint8_t joiner;						      /* mask: admitted */
	uint8_t pos[START_NODES]; /* durable; 0: never in it; else 1 + the last entry */
	uint8_t alive, back, nr;
	uint8_t served; /* the newest entry in whose epoch a write was answered, + 1 */
	uint8_t power;	/* gone */
};

static void start_init(const void *conf, void *state)
{
	struct start_state *s = state;

	s->members[0] = s->set[0] = s->alive = 3;
	s->epoch[0] = 1;
	s->pos[0] = s->pos[1] = s->nr = 1;
}

static void start_entry(struct start_state *s, uint8_t members, uint8_t joiner, bool epoch)
{
	uint8_t i = s->nr++;

	s->members[i] = members;
	s->set[i] = members | joiner;
	s->epoch[i] = (uint8_t)(s->epoch[i - 1] + epoch);
	s->joiner = joiner;
}

/* True: all of @mask have applied entry @i, and @exact: are still in its epoch. */
static bool start_have(const struct start_state *s, uint8_t mask, unsigned i, bool exact)
{
	for (unsigned n = 0; n < START_NODES; n++)
		if (mask >> n & 1 &&
		    (s->pos[n] <= i || (exact && s->epoch[s->pos[n] - 1] != s->epoch[i])))
			return false;
	return true;
}

static uint8_t start_ring(uint8_t members)
{
	uint8_t ring = 0;

	for (unsigned n = START_NODES, left = 2; n-- && left;)
		if (members >> n & 1) {
			ring |= 1 << n;
			left--;
		}
	return ring;
}

static void start_bus(struct explore *x, const struct small_conf *conf, const struct start_state *o,
		      unsigned n)
{
	uint8_t m = o->members[o->nr - 1], bit = 1 << n;
	struct start_state s = *o;

	if (o->nr == conf->size)
		return;
	if (!(o->alive & bit) && !(m & bit) && !o->joiner && !o->pos[n]) {
		s.alive |= bit;
		start_entry(&s, conf->without ? m | bit : m, conf->without ? 0 : bit,
			    conf->without != 0);
		step(x, &s, NULL, "%c joins%s", NAME[n],
		     conf->without ? ": an epoch with it" : ": ADMIT");
	}
	s = *o;
	if (o->joiner & bit && start_have(o, m, o->nr - 1u, false)) {
		start_entry(&s, m | bit, 0, true);
		step(x, &s, NULL, "all present have ADMIT(%c): an epoch with it", NAME[n]);
	}
	s = *o;
	if (o->alive & bit && (m | o->joiner) & bit && m != bit) {
		s.alive &= ~bit;
		start_entry(&s, m & ~bit, o->joiner & ~bit, m & bit);
		step(x, &s, NULL, "%c dies: %s without it", NAME[n],
		     m & bit ? "an epoch" : "a start set");
	}
}

static void start_live(struct explore *x, const struct small_conf *conf,
		       const struct start_state *o)
{
	struct start_state s;

	for (unsigned n = 0; n < START_NODES; n++) {
		start_bus(x, conf, o, n);
		if (o->alive >> n & 1 && o->pos[n] < o->nr &&
		    (o->pos[n] || o->members[o->nr - 1] >> n & 1)) {
			s = *o;
			do /* a joiner is sent the state in which it is a member */
				s.pos[n]++;
			while (!(s.members[s.pos[n] - 1] >> n & 1) && s.pos[n] < s.nr);
			step(x, &s, NULL, "%c has record %u, of epoch %u", NAME[n], s.pos[n],
			     s.epoch[s.pos[n] - 1]);
		}
	}
	for (unsigned i = o->served; i < o->nr; i++) {
		uint8_t must = conf->without == 2 ? o->members[i] : 0;
		if ((i && o->epoch[i] == o->epoch[i - 1]) ||
		    !start_have(o, start_ring(o->members[i]), i, true) ||
		    !start_have(o, must, i, false))
			continue;
		s = *o;
		s.served = (uint8_t)(i + 1);
		step(x, &s, NULL, "a write is answered in epoch %u, on %x", o->epoch[i],
		     start_ring(o->members[i]));
	}
	if (o->served) {
		s = *o;
		s.power = 1;
		s.alive = 0;
		step(x, &s, NULL, "the power of all goes");
	}
}

static void start_next(struct explore *x, const void *conf, const void *state)
{
	const struct start_state *o = state;
	struct start_state s = *o;
	uint8_t newest = 0;

	if (!o->power) {
		start_live(x, conf, o);
		return;
	}
	for (unsigned n = 0; n < START_NODES; n++) {
		if (o->back >> n & 1 && o->pos[n] > newest)
			newest = o->pos[n];
		if (o->back >> n & 1 || !o->pos[n])
			continue;
		s = *o;
		s.back |= 1 << n;
		step(x, &s, NULL, "%c is back, with record %u of epoch %u", NAME[n], o->pos[n],
		     o->epoch[o->pos[n] - 1]);
	}
	s = *o;
	if (!newest || o->set[newest - 1] & ~o->back || o->alive)
		return;
	s.alive = o->back;
	step(x, &s,
	     o->epoch[newest - 1] < o->epoch[o->served - 1] ? "an epoch with a write is forgotten"
							    : NULL,
	     "all of the start set of record %u are back: the cluster starts", newest);
}

const struct model start_model = {sizeof(struct start_state), start_init, start_next};

/* ---- the newest record is the one with the highest (epoch, position) ----
 *
 * Two members of one epoch; a command (a claim, say) is done for its sender when it is durable
 * there.  cs_adopt(), member_xfer.c
 *   1: joiners are compared by epoch only */

struct place_state {
	uint8_t ordered, pos[2], durable[2], done, power, back, over;
};

static void place_init(const void *conf, void *state)
{
}

static void place_next(struct explore *x, const void *conf, const void *state)
{
	const struct small_conf *c = conf;
	const struct place_state *o = state;
	struct place_state s;

	if (o->over)
		return;
	if (!o->power && o->ordered < 3) {
		s = *o;
		s.ordered++;
		step(x, &s, NULL, "command %u is ordered", s.ordered);
	}
	for (unsigned n = 0; n < 2; n++) {
		if (!o->power && o->pos[n] < o->ordered) {
			s = *o;
			s.pos[n]++;
			step(x, &s, NULL, "%c applies command %u", NAME[n], s.pos[n]);
		}
		if (!o->power && o->durable[n] < o->pos[n]) {
			s = *o;
			s.durable[n]++;
			step(x, &s, NULL, "%c has it durable", NAME[n]);
		}
		if (!o->power && n == 0 && o->done < o->durable[0]) {
			s = *o;
			s.done = s.durable[0];
			step(x, &s, NULL, "A says that command %u is done", s.done);
		}
		if (o->power && !(o->back >> n & 1)) {
			s = *o;
			s.back |= 1 << n;
			step(x, &s, NULL, "%c is back, at %u", NAME[n], o->durable[n]);
		}
		if (o->back == 3 && (c->without == 1 || o->durable[n] >= o->durable[!n])) {
			s = *o;
			s.over = 1;
			step(x, &s,
			     o->durable[n] < o->done ? "a command that was done is gone" : NULL,
			     "the state of %c is taken", NAME[n]);
		}
	}
	if (!o->power) {
		s = *o;
		s.power = 1;
		step(x, &s, NULL, "the power of both goes");
	}
}

const struct model place_model = {sizeof(struct place_state), place_init, place_next};

/* ---- sessions: a request that was sent elsewhere again does not land later ----
 *
 * A client has sent X through G1 (session 1), which is paused.  It reconnects to G2 as session 2
 * and sends X again; when that is answered, Y to the same place.  The owner may change.
 * session_say(), session_enter(), cs_session_open()
 *   1: the owner does not look at sessions     2: a new owner does not ask the machine */

enum { TO_RECONNECT, SAID, SENT_X, DONE_X, SENT_Y, DONE_Y };

struct session_state {
	uint8_t client;
	uint8_t g1;	 /* X of session 1 is there still */
	uint8_t machine; /* the newest session that was said on the bus */
	uint8_t owner;	 /* the newest that the owner knows; 0: of no client yet */
	uint8_t changes; /* of the owner */
	char block;
};

static void session_init(const void *conf, void *state)
{
	struct session_state *s = state;

	s->g1 = 1;
	s->machine = s->owner = 1;
	s->block = '-';
}

/* session_enter(): does the owner serve a request of @session? */
static bool session_enters(const struct small_conf *c, struct session_state *s, uint8_t session)
{
	if (!s->owner && c->without != 2)
		s->owner = s->machine;
	if (session < s->owner && c->without != 1)
		return false;
	s->owner = session > s->owner ? session : s->owner;
	return true;
}

static void session_next(struct explore *x, const void *conf, const void *state)
{
	const struct session_state *o = state;
	struct session_state s = *o;

	if (o->client == TO_RECONNECT) {
		s.client = SAID;
		s.machine = 2;
		step(x, &s, NULL, "the client connects to G2: session 2 is said on the bus");
	}
	if (o->client == SAID || o->client == DONE_X) {
		s = *o;
		s.client++;
		step(x, &s, NULL, "it sends %c", o->client == SAID ? 'X' : 'Y');
	}
	s = *o;
	if ((o->client == SENT_X || o->client == SENT_Y) && session_enters(conf, &s, 2)) {
		s.block = o->client == SENT_X ? 'X' : 'Y';
		s.client++;
		step(x, &s, NULL, "the owner writes %c of session 2, and answers", s.block);
	}
	s = *o;
	s.g1 = 0;
	if (o->g1 && session_enters(conf, &s, 1)) {
		s.block = 'X';
		step(x, &s,
		     o->client == DONE_Y ? "Y was answered, and the block has X again" : NULL,
		     "G1 goes on: the owner writes X of session 1");
	}
	if (o->changes < 1) {
		s = *o;
		s.changes++;
		s.owner = 0;
		step(x, &s, NULL, "another node becomes the owner");
	}
}

const struct model session_model = {sizeof(struct session_state), session_init, session_next};
