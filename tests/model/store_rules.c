/* store_rules.c - five small models of single rules on two replicas, A and B: flush and cache lost
 * (DESIGN 5.4), repair (5.3), torn large writes (6); and of reclaim (8). */
#include "config.h"

#include "tests/model/models.h"

#include <string.h>

static const char NAME[] = "AB";

/* ---- flush: what was answered before it is durable on all replicas ----
 *
 * flush_round() in owner_io.c; open_dirs() in store/store.c
 *   1: the first flush of a generation goes to the replicas that this owner has written to
 *   2: a store is not synced at its start */

struct flush_state {
	uint8_t writes;		    /* answered */
	uint8_t has[2], durable[2]; /* writes; in the kernel, on the disk */
	uint8_t knows[2];	    /* the daemon: there is something to sync */
	uint8_t list, first;	    /* the owner: written to; no flush in this generation yet */
	uint8_t owners, restarts;
};

static void flush_init(const void *conf, void *state)
{
	struct flush_state *s = state;

	s->first = 1;
}

static void flush_next(struct explore *x, const void *conf, const void *state)
{
	const struct small_conf *c = conf;
	const struct flush_state *o = state;
	struct flush_state s = *o;

	if (o->writes < 3) {
		s.writes++;
		for (unsigned i = 0; i < 2; i++) {
			s.has[i] = s.writes;
			s.knows[i] = 1;
		}
		s.list = 3;
		step(x, &s, NULL, "cached write %u is answered", s.writes);
	}
	if (o->owners < 2) {
		s = *o;
		s.owners++;
		s.list = 0;
		s.first = 1;
		step(x, &s, NULL, "the owner dies; a new one takes over");
	}
	for (unsigned i = 0; i < 2 && o->restarts < 2; i++) {
		s = *o;
		s.restarts++;
		s.knows[i] = 0;
		if (c->without != 2)
			s.durable[i] = s.has[i];
		step(x, &s, NULL, "the daemon of %c dies and starts again", NAME[i]);
	}
	s = *o;
	for (unsigned i = 0; i < 2; i++)
		if ((o->list >> i & 1 || (o->first && c->without != 1)) && o->knows[i]) {
			s.durable[i] = s.has[i];
			s.knows[i] = 0;
		}
	s.list = s.first = 0;
	step(x, &s,
	     s.durable[0] < o->writes || s.durable[1] < o->writes
		     ? "a flush is answered, and something is not durable"
		     : NULL,
	     "a flush is answered");
}

const struct model flush_model = {sizeof(struct flush_state), flush_init, flush_next};

/* ---- cache lost: the next flush says so, once ----
 *
 * One cached write.  A replica that lost power is todo until it has taken the state of one in sync;
 * when nobody is, the first that comes in sync looks at the boot ids (5.5, 2).
 * gv_say_cached(), owner_flush(), flush_lost(), vdi_cache_lost()
 *   1: no mark      2: CACHED is said after the write is answered
 *   3: the death of daemons counts as well */

struct lost_state {
	uint8_t said, begun, answered;
	uint8_t has[2], durable[2], in_sync[2], powered[2]; /* powered: since it was in sync */
	uint8_t mark, cuts, deaths, flushed;
};

static void lost_init(const void *conf, void *state)
{
	struct lost_state *s = state;

	s->in_sync[0] = s->in_sync[1] = s->powered[0] = s->powered[1] = 1;
}

static void lost_write(struct explore *x, const struct small_conf *c, const struct lost_state *o)
{
	struct lost_state s = *o;
	bool early = c->without != 2;

	if (!o->said && (early || o->answered)) {
		s.said = 1;
		step(x, &s, NULL, "CACHED is applied");
	}
	for (unsigned i = 0; i < 2; i++)
		if ((o->said || !early) && !o->has[i] && o->in_sync[i] && !o->answered) {
			s = *o;
			s.begun = s.has[i] = 1;
			step(x, &s, NULL, "%c has the write in its kernel", NAME[i]);
		}
	if (o->begun && !o->answered && o->has[0] && o->has[1] && o->in_sync[0] && o->in_sync[1]) {
		s = *o;
		s.answered = 1;
		step(x, &s, NULL, "the write is answered");
	}
}

/* @i comes back in sync. */
static void lost_recover(struct explore *x, const struct small_conf *c, const struct lost_state *o,
			 unsigned i)
{
	struct lost_state s = *o;
	bool first = !o->in_sync[!i], all = !o->powered[0] && !o->powered[1];

	if (o->in_sync[i])
		return;
	s.in_sync[i] = s.powered[i] = 1;
	if (!first) {
		s.has[i] = o->has[!i];
	} else {
		s.has[i] |= o->has[!i]; /* the highest of both */
		s.has[!i] = s.has[i];
		s.in_sync[!i] = s.powered[!i] = 1;
		if ((all || c->without == 3) && o->said && c->without != 1)
			s.mark = 1;
	}
	step(x, &s, NULL, "%c is in sync again%s", NAME[i], s.mark ? "; cache lost" : "");
}

static void lost_next(struct explore *x, const void *conf, const void *state)
{
	const struct lost_state *o = state;
	struct lost_state s;
	const char *bad = NULL;

	lost_write(x, conf, o);
	for (unsigned i = 0; i < 2; i++) {
		lost_recover(x, conf, o, i);
		if (o->cuts < 2) {
			s = *o;
			s.cuts++;
			s.has[i] = o->durable[i];
			s.in_sync[i] = s.powered[i] = 0;
			step(x, &s, NULL, "%c loses power", NAME[i]);
		}
		if (o->deaths < 2 && o->in_sync[i]) {
			s = *o;
			s.deaths++;
			s.in_sync[i] = 0;
			step(x, &s, NULL, "the daemon of %c dies and starts again", NAME[i]);
		}
	}
	if (!o->in_sync[0] || !o->in_sync[1] || o->flushed)
		return;
	s = *o;
	s.flushed = 1;
	if (o->mark) {
		s.mark = 0;
		if (o->cuts < 2)
			bad = "a flush answers EIO, and nobody lost power";
		step(x, &s, bad, "a flush answers EIO");
		return;
	}
	s.durable[0] = o->has[0];
	s.durable[1] = o->has[1];
	if (o->answered && !(s.durable[0] && s.durable[1]))
		bad = "a flush is answered, and the write is gone";
	step(x, &s, bad, "a flush is answered");
}

const struct model lost_model = {sizeof(struct lost_state), lost_init, lost_next};

/* ---- repair: a bad block is replaced only in the version it was read at ----
 *
 * repair_block() in pull.c, store_repair() in store/replace.c
 *   1: the version is not looked at */

struct repair_state {
	uint8_t ver[2], data[2], bad[2];
	uint8_t begun, answered, rotten;
	uint8_t copying, to, copy, copy_ver; /* a repair under way */
};

static void repair_init(const void *conf, void *state)
{
	struct repair_state *s = state;

	s->ver[0] = s->ver[1] = s->data[0] = s->data[1] = s->answered = 1;
}

static void repair_at(struct explore *x, const struct repair_state *o, unsigned i)
{
	struct repair_state s = *o;

	if (o->begun && o->ver[i] < 2) {
		s.ver[i] = s.data[i] = 2;
		s.bad[i] = 0;
		if (s.ver[!i] == 2)
			s.answered = 2;
		step(x, &s, NULL, "%c applies write 2%s", NAME[i],
		     s.answered == 2 ? "; it is answered" : "");
	}
	s = *o;
	if (!o->rotten) {
		s.rotten = s.bad[i] = 1;
		step(x, &s, NULL, "the block rots on %c", NAME[i]);
	}
	s = *o;
	if (o->bad[i] && !o->copying) {
		s.copying = 1;
		s.to = (uint8_t)i;
		s.copy = o->data[!i];
		s.copy_ver = o->ver[!i];
		step(x, &s, NULL, "a repair of %c reads it at version %u", NAME[i], s.copy_ver);
	}
	if (!o->bad[i] && o->ver[i] >= o->answered)
		step(x, o, o->data[i] < o->answered ? "an answered write is not read" : NULL,
		     "a read from %c", NAME[i]);
}

static void repair_next(struct explore *x, const void *conf, const void *state)
{
	const struct small_conf *c = conf;
	const struct repair_state *o = state;
	struct repair_state s = *o;

	if (!o->begun) {
		s.begun = 1;
		step(x, &s, NULL, "write 2 begins");
	}
	for (unsigned i = 0; i < 2; i++)
		repair_at(x, o, i);
	if (!o->copying)
		return;
	s = *o;
	s.copying = s.copy = s.copy_ver = 0;
	if (o->ver[o->to] == o->copy_ver || c->without == 1) {
		s.data[o->to] = o->copy;
		s.bad[o->to] = 0;
	}
	step(x, &s, NULL, "the repair of %c, at version %u, is over", NAME[o->to], o->ver[o->to]);
}

const struct model repair_model = {sizeof(struct repair_state), repair_init, repair_next};

/* ---- torn: after a power cut of all, two reads of a sector see the same ----
 *
 * A large write goes in place, sector by sector, on both; the power goes; each knows by its intent
 * that it is torn.  better() and settler() in recover.c, replay_obj.c
 *   1: a torn object ranks like a whole one of its version     2: torn everywhere is served as is
 */

enum { WHOLE_OLD, IN_WORK, WHOLE_NEW };

struct torn_state {
	uint8_t stage[2], sector[2][2]; /* 0: old, 1: new */
	uint8_t power, in_sync, answered;
	uint8_t seen[2]; /* of each sector; 0: nothing yet, else 1 + what */
};

static void torn_init(const void *conf, void *state)
{
}

static void torn_write(struct explore *x, const struct torn_state *o)
{
	struct torn_state s;

	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < 2; k++) {
			if (o->sector[i][k] || o->stage[i] == WHOLE_NEW)
				continue;
			s = *o;
			s.stage[i] = IN_WORK;
			s.sector[i][k] = 1;
			step(x, &s, NULL, "%c writes sector %u", NAME[i], k);
		}
		if (o->stage[i] == IN_WORK && o->sector[i][0] && o->sector[i][1]) {
			s = *o;
			s.stage[i] = WHOLE_NEW;
			s.answered = s.stage[!i] == WHOLE_NEW;
			step(x, &s, NULL, "%c is done%s", NAME[i], s.answered ? "; answered" : "");
		}
	}
	s = *o;
	s.power = 1;
	step(x, &s, NULL, "the power of both goes");
}

static void torn_take(struct explore *x, const struct torn_state *o, unsigned best,
		      const char *what)
{
	struct torn_state s = *o;

	s.in_sync = 1;
	memcpy(s.sector[!best], o->sector[best], sizeof(s.sector[0]));
	s.stage[!best] = o->stage[best];
	step(x, &s, NULL, "%s of %c", what, NAME[best]);
}

static void torn_recover(struct explore *x, const struct small_conf *c, const struct torn_state *o)
{
	uint8_t rank[2];
	struct torn_state s = *o;

	for (unsigned i = 0; i < 2; i++)
		rank[i] = o->stage[i] == WHOLE_NEW   ? 3
			  : o->stage[i] == WHOLE_OLD ? 2
						     : 1 + (c->without == 1);
	bool torn = o->stage[0] == IN_WORK && o->stage[1] == IN_WORK;
	if (rank[0] != rank[1])
		torn_take(x, o, rank[1] > rank[0], "the state");
	else if (torn && c->without != 2)
		torn_take(x, o, 0, "torn on both: settled with the bytes");
	else {
		s.in_sync = 1;
		step(x, &s, NULL, "the versions are equal");
	}
}

static void torn_next(struct explore *x, const void *conf, const void *state)
{
	const struct torn_state *o = state;

	if (!o->power) {
		torn_write(x, o);
		return;
	}
	if (!o->in_sync) {
		torn_recover(x, conf, o);
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		for (unsigned k = 0; k < 2; k++) {
			struct torn_state s = *o;
			const char *bad = NULL;
			s.seen[k] = (uint8_t)(1 + o->sector[i][k]);
			if (o->seen[k] && o->seen[k] != s.seen[k])
				bad = "two reads see different data";
			if (o->answered && !o->sector[i][k])
				bad = "an answered write is not read";
			step(x, &s, bad, "a read of sector %u from %c: %s", k, NAME[i],
			     o->sector[i][k] ? "new" : "old");
		}
}

const struct model torn_model = {sizeof(struct torn_state), torn_init, torn_next};

/* ---- reclaim: an object that a living VDI refers to is not removed ----
 *
 * D refers to X; E may be cloned from D, and D write its own copy.  The collector takes the list of
 * the family, then looks at one after the other.  DESIGN 8; the command comes with snapshots
 * (reclaim.c removes what is a deleted VDI's own, which nobody else can refer to).
 *   1: the removal is not confirmed by the family number */

struct reclaim_state {
	uint8_t lives, refers; /* masks: D, E */
	uint8_t list, read;    /* the collector's; list 0: none */
	uint8_t family, listed_at, gone;
};

static void reclaim_init(const void *conf, void *state)
{
	struct reclaim_state *s = state;

	s->lives = s->refers = 1;
}

static void reclaim_next(struct explore *x, const void *conf, const void *state)
{
	const struct small_conf *c = conf;
	const struct reclaim_state *o = state;
	struct reclaim_state s = *o;

	if (!(o->lives & 2)) {
		s.lives |= 2;
		s.refers |= (o->refers & 1) << 1;
		s.family++;
		step(x, &s, NULL, "E is cloned from D");
	}
	s = *o;
	if (o->refers & 1) {
		s.refers &= ~1;
		step(x, &s, NULL, "D writes a copy of its own");
	}
	s = *o;
	if (!o->list && !o->gone) {
		s.list = o->lives;
		s.listed_at = o->family;
		step(x, &s, NULL, "the collector lists the family");
	}
	for (unsigned i = 0; i < 2; i++) {
		if (!(o->list >> i & 1) || o->read >> i & 1)
			continue;
		s = *o;
		if (o->refers >> i & 1)
			s.list = s.read = 0;
		else
			s.read |= 1 << i;
		step(x, &s, NULL, "it reads %c: %s", "DE"[i],
		     o -> refers >> i & 1 ? "refers to X, which stays" : "no reference");
	}
	s = *o;
	if (!o->list || o->list != o->read)
		return;
	s.list = s.read = 0;
	if (c->without == 1 || o->family == o->listed_at)
		s.gone = 1;
	step(x, &s, s.gone && o->refers ? "X is gone, and somebody refers to it" : NULL,
	     "RECLAIM: %s", s.gone ? "X is removed" : "refused, the family has changed");
}

const struct model reclaim_model = {sizeof(struct reclaim_state), reclaim_init, reclaim_next};
