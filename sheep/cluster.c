/* cluster.c - the replicated state machine: apply(state, event) -> reply, actions.  Pure.
 *
 * Used by: member.c.  The events are those of the bus, in its order; every node that has the state
 * applies them all, so all have the same state at the same place (C6).
 *
 * Who is on the bus and has sent JOIN is in the *lobby*.  The oldest of it, the founder, begins
 * with what its disk has; each later one is sent the state as of its JOIN by the speaker (the
 * oldest that has it), applies what was ordered since, and is then *synced*.
 *  - While nothing runs the group's state is the newest that any of them has on disk (cs_best sends
 *    it), and waits for the format or for the start set.
 *  - While it runs a synced joiner is *admitted*: the start set has it.  When all synced ones have
 *    said that this is durable, an epoch with it is made (DESIGN 4.3, C5).
 * `pos` counts the events while the state is live; a start jumps to the next multiple of 2^32, so
 * that two lives of one epoch never share positions.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "sheep/cluster_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* ---- memory ---- */

struct cs *cs_new(void)
{
	return calloc(1, sizeof(struct cs));
}

void hist_free(struct hist *h)
{
	for (unsigned i = 0; i < h->nr; i++)
		if (--h->members[i].node->refs == 0)
			free(h->members[i].node);
	free(h->members);
	free(h);
}

void cs_forget(struct cs *s)
{
	for (unsigned i = 0; i < s->nr_hist; i++)
		hist_free(s->hist[i]);
	s->nr_hist = 0;
	free(s->members);
	s->members = NULL;
	s->nr_members = 0;
	free(s->start);
	s->start = NULL;
	s->nr_start = 0;
	cs_vdi_free_all(s);
	free(s->sessions);
	s->sessions = NULL;
	s->nr_sessions = 0;
	s->silent = 0;
	memset(&s->params, 0, sizeof(s->params));
}

static void lobby_clear(struct cs *s)
{
	for (unsigned i = 0; i < s->nr_lobby; i++)
		lobby_free(s->lobby[i]);
	free(s->lobby);
	s->lobby = NULL;
	s->nr_lobby = 0;
}

void cs_free(struct cs *s)
{
	if (!s)
		return;
	cs_forget(s);
	lobby_clear(s);
	free(s);
}

void cs_out_done(struct cs_out *out)
{
	free(out->vids);
	memset(out, 0, sizeof(*out));
}

int cs_out_vid(struct cs_out *out, uint32_t vid)
{
	if (out->nr_vids && out->vids[out->nr_vids - 1] == vid)
		return 0;
	if (out->nr_vids == out->cap_vids) {
		unsigned cap = out->cap_vids ? out->cap_vids * 2 : 8;
		uint32_t *n = realloc(out->vids, cap * sizeof(*n));
		if (!n)
			return -ENOMEM;
		out->vids = n;
		out->cap_vids = cap;
	}
	out->vids[out->nr_vids++] = vid;
	return 0;
}

/* ---- questions ---- */

int cs_key_cmp(const struct cs_key *a, const struct cs_key *b)
{
	if (a->forces != b->forces)
		return a->forces < b->forces ? -1 : 1;
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	if (PLANTED(log_position))
		return 0;
	return a->pos < b->pos ? -1 : a->pos > b->pos;
}

struct cs_key cs_key(const struct cs *s)
{
	const struct hist *h = cs_newest(s);

	return (struct cs_key){s->forces, h ? h->epoch : 0, h ? s->pos : 0};
}

const struct lobby *cs_best(const struct cs *s)
{
	const struct lobby *best = NULL;
	struct cs_key key = cs_key(s);

	for (unsigned i = 0; !s->live && i < s->nr_lobby; i++) {
		const struct lobby *l = s->lobby[i];
		if (!l->refused && cs_key_cmp(&l->j.key, &key) > 0) {
			best = l;
			key = l->j.key;
		}
	}
	return best;
}

struct lobby *cs_lobby(const struct cs *s, const struct incarnation *inc)
{
	for (unsigned i = 0; i < s->nr_lobby; i++)
		if (inc_same(&s->lobby[i]->j.m.inc, inc))
			return s->lobby[i];
	return NULL;
}

const struct lobby *cs_speaker(const struct cs *s)
{
	for (unsigned i = 0; i < s->nr_lobby; i++)
		if (s->lobby[i]->synced && !s->lobby[i]->refused)
			return s->lobby[i];
	return NULL;
}

int cs_member(const struct cs *s, const struct incarnation *inc)
{
	for (unsigned i = 0; i < s->nr_members; i++)
		if (inc_same(&s->members[i].inc, inc))
			return (int)i;
	return -1;
}

const struct hist *cs_hist(const struct cs *s, uint32_t epoch)
{
	unsigned lo = 0, hi = s->nr_hist;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		if (s->hist[mid]->epoch < epoch)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->nr_hist && s->hist[lo]->epoch == epoch ? s->hist[lo] : NULL;
}

/* ---- the lobby ---- */

static void see_time(struct cs *s, uint64_t time)
{
	if (time > s->last_time)
		s->last_time = time;
}

static void see_joiner(struct cs *s, const struct lobby *l)
{
	if (l->j.max_gen > s->gen && !PLANTED(log_position) && MARKED(cs_gen_above)) /* C4 */
		s->gen = l->j.max_gen;
	see_time(s, l->j.time);
}

/* Takes @j over.  NULL: out of memory. */
static struct lobby *lobby_add(struct cs *s, struct join *j)
{
	struct lobby *l = calloc(1, sizeof(*l));
	struct lobby **n = realloc(s->lobby, (s->nr_lobby + 1) * sizeof(*n));

	if (n)
		s->lobby = n;
	if (!l || !n) {
		free(l);
		return NULL;
	}
	l->j = *j;
	s->lobby[s->nr_lobby++] = l;
	return l;
}

int cs_found(struct cs *s, const struct join *self, struct cs_out *out)
{
	struct join j;

	assert(!s->live && !s->nr_lobby);
	if (join_copy(&j, self) < 0)
		return -ENOMEM;
	struct lobby *l = lobby_add(s, &j);
	if (!l) {
		join_done(&j);
		return -ENOMEM;
	}
	l->synced = true;
	l->refused = cs_join_check(s, l);
	see_joiner(s, l);
	return cs_try_start(s, out);
}

static int cs_join(struct cs *s, const struct incarnation *from, struct join *j)
{
	struct lobby *l = cs_lobby(s, from);

	if ((!inc_same(&j->m.inc, from) || (l && (l->synced || l->refused == REF_EXPELLED))) &&
	    MARKED(cs_join_void)) {
		join_done(j);
		return 0;
	}
	if (l && MARKED(cs_join_again)) { /* once more, from the beginning */
		join_done(&l->j);
		l->j = *j;
	} else {
		if (s->nr_lobby >= CLUSTER_LOBBY_MAX) {
			join_done(j);
			return 0;
		}
		l = lobby_add(s, j);
		if (!l) {
			join_done(j);
			return -ENOMEM;
		}
	}
	l->refused = cs_join_check(s, l);
	if (!l->refused)
		see_joiner(s, l);
	return 0;
}

/* Somebody whose JOIN we cannot read; @reply has no use for it. */
static int cs_join_alien(struct cs *s, const struct incarnation *from)
{
	struct join j = {.m.inc = *from};

	if (cs_lobby(s, from) || s->nr_lobby >= CLUSTER_LOBBY_MAX)
		return 0;
	struct lobby *l = lobby_add(s, &j);
	if (!l)
		return -ENOMEM;
	l->refused = REF_VERSION;
	return 0;
}

/* The last piece of the state for @m->target is there. */
static int cs_joined(struct cs *s, const struct state_msg *m, struct cs_out *out)
{
	struct lobby *l = cs_lobby(s, &m->target);

	if (m->kind != STATE_FOR_JOINER || !m->last || !l || l->synced || l->refused ||
	    l->j.attempt != m->attempt)
		return 0;
	l->synced = true;
	if (!s->live)
		return cs_try_start(s, out);
	if (s->status == CLUSTER_RUNNING && cs_member(s, &l->j.m.inc) < 0)
		return cs_admit(s, l);
	return 0;
}

/* What was known of others while they were there is of no more use. */
static void cs_halt(struct cs *s)
{
	s->live = false;
	s->status = s->params.ctime ? CLUSTER_WAIT_JOIN : CLUSTER_WAIT_FORMAT;
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		s->lobby[i]->admitted = false;
		s->lobby[i]->nr_acks = 0;
	}
	cs_acquit_all(s);
}

void cs_sleep(struct cs *s)
{
	lobby_clear(s);
	cs_halt(s);
}

int cs_view(struct cs *s, const struct incarnation *present, unsigned nr,
	    const struct incarnation *silent, unsigned nr_silent, struct cs_out *out)
{
	unsigned kept = 0, members = 0;

	if (s->live) {
		s->pos++;
		cs_silent(s, silent, nr_silent, out);
	}
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		struct lobby *l = s->lobby[i];
		unsigned k = 0;
		while (k < nr && !inc_same(&present[k], &l->j.m.inc))
			k++;
		if (k == nr && MARKED(cs_leaves)) {
			lobby_free(l);
			continue;
		}
		s->lobby[kept++] = l;
		members += !l->refused && cs_member(s, &l->j.m.inc) >= 0;
	}
	s->nr_lobby = kept;
	if (!s->live)
		return cs_try_start(s, out);
	if (s->status != CLUSTER_RUNNING && MARKED(cs_shutdown_view))
		return 0; /* an ordered shutdown: leaving changes nothing */
	if (!members) {
		/* Only joiners are left: they know the state, but not the data.  As after a full
		 * stop they wait for the start set. */
		MARK(cs_only_joiners);
		cs_halt(s);
		return 0;
	}
	return cs_admitted(s, NULL, out);
}

static int cs_recheck(struct cs *s)
{
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		struct lobby *l = s->lobby[i];
		if (l->refused)
			continue;
		l->refused = cs_join_check(s, l);
		if (!l->refused)
			see_joiner(s, l);
	}
	return 0;
}

int cs_adopt(struct cs *s, struct cs *better, struct cs_out *out)
{
	struct cs_key mine = cs_key(s), its = cs_key(better);

	if (s->live || cs_key_cmp(&its, &mine) <= 0) {
		cs_free(better);
		return 0;
	}
	MARK(cs_adopt);
	uint64_t gen = s->gen, time = s->last_time;
	bool shutdown = s->status == CLUSTER_SHUTDOWN;
	struct lobby **lobby = s->lobby;
	unsigned nr_lobby = s->nr_lobby;
	cs_forget(s);
	lobby_clear(better);
	*s = *better;
	free(better);
	s->lobby = lobby;
	s->nr_lobby = nr_lobby;
	if (gen > s->gen)
		s->gen = gen;
	see_time(s, time);
	cs_halt(s);
	if (shutdown)
		s->status = CLUSTER_SHUTDOWN;
	cs_recheck(s);
	return cs_try_start(s, out);
}

/* ---- commands ---- */

static uint32_t cmd_shutdown(struct cs *s, struct cs_out *out)
{
	if (s->status != CLUSTER_SHUTDOWN)
		out->shutdown = true;
	s->status = CLUSTER_SHUTDOWN;
	return SD_RES_SUCCESS;
}

static uint32_t cmd_set_recovery(struct cs *s, const struct cmd *cmd)
{
	if (!s->params.ctime)
		return SD_RES_WAIT_FOR_FORMAT;
	if (s->status == CLUSTER_WAIT_JOIN)
		return SD_RES_WAIT_FOR_JOIN;
	s->params.disable_recovery = !cmd->on;
	return SD_RES_SUCCESS;
}

/* The speaker says when an epoch was made whose time was a guess. */
static uint32_t cmd_epoch_time(struct cs *s, const struct cmd *cmd)
{
	struct hist *h = (struct hist *)cs_hist(s, cmd->snapid);

	if (!h)
		return SD_RES_INVALID_EPOCH;
	h->time = cmd->time / 1000000000u;
	return SD_RES_SUCCESS;
}

static uint32_t cmd_space(struct cs *s, const struct incarnation *from, const struct cmd *cmd)
{
	struct lobby *l = cs_lobby(s, from);
	int i = cs_member(s, from);

	if (l && !l->j.m.gateway)
		l->j.m.space = cmd->size;
	if (i >= 0 && !s->members[i].gateway)
		s->members[i].space = cmd->size;
	return SD_RES_SUCCESS;
}

static int cs_cmd(struct cs *s, const struct incarnation *from, struct cmd *cmd, struct cs_out *out)
{
	int err = 0;

	if (cmd->type == CMD_BARRIER) { /* not in the log */
		cmd->result = SD_RES_SUCCESS;
		return 0;
	}
	see_time(s, cmd->time);
	switch (cmd->type) {
	case CMD_FORMAT: cmd->result = cs_format(s, cmd, out, &err); return err;
	case CMD_FORCE_RECOVER: cmd->result = cs_force(s, cmd, out, &err); return err;
	case CMD_SHUTDOWN: cmd->result = cmd_shutdown(s, out); return 0;
	case CMD_SET_RECOVERY: cmd->result = cmd_set_recovery(s, cmd); return 0;
	case CMD_ACCUSE: cmd->result = cs_accuse(s, from, cmd, out, &err); return err;
	case CMD_LEASES_OVER: cmd->result = cs_leases_over(s, from, cmd); return 0;
	case CMD_EPOCH_TIME: cmd->result = cmd_epoch_time(s, cmd); return 0;
	case CMD_SPACE: cmd->result = cmd_space(s, from, cmd); return 0;
	case CMD_ADMIT_ACK: {
		struct lobby *l = cs_lobby(s, &cmd->target);
		cmd->result = SD_RES_SUCCESS;
		if ((!s->live || s->status != CLUSTER_RUNNING || !l || !l->admitted) &&
		    MARKED(cs_ack_late))
			return 0;
		MARK(cs_ack);
		for (unsigned i = 0; i < l->nr_acks; i++)
			if (inc_same(&l->acks[i], from))
				return 0;
		struct incarnation *n = realloc(l->acks, (l->nr_acks + 1) * sizeof(*n));
		if (!n)
			return -ENOMEM;
		l->acks = n;
		l->acks[l->nr_acks++] = *from;
		return cs_admitted(s, cmd, out);
	}
	default: return cs_vdi_cmd(s, from, cmd, out);
	}
}

bool cs_logged(const void *msg, size_t len)
{
	struct dec d = {.p = msg, .end = (const uint8_t *)msg + len};
	struct state_msg m;
	struct msg_head h;

	if (!msg_decode(&d, &h))
		return false;
	if (h.version != CLUSTER_MSG_VERSION)
		return h.type == CMD_JOIN;
	if (h.type == CMD_STATE)
		return state_msg_decode(&d, &m) && m.kind == STATE_FOR_JOINER && m.last;
	return h.type != CMD_BARRIER && h.type != CMD_HEARTBEAT;
}

int cs_message(struct cs *s, const struct incarnation *from, const void *msg, size_t len,
	       struct cmd *reply, struct cs_out *out)
{
	struct dec d = {.p = msg, .end = (const uint8_t *)msg + len};
	const struct lobby *l = cs_lobby(s, from);
	struct msg_head h;
	struct join j;
	int r;

	memset(reply, 0, sizeof(*reply));
	reply->type = CMD_NR;
	if (s->live && cs_logged(msg, len))
		s->pos++;
	if (!msg_decode(&d, &h))
		return 0;
	if (h.version != CLUSTER_MSG_VERSION)
		return h.type == CMD_JOIN ? cs_join_alien(s, from) : 0;
	if (h.type == CMD_JOIN) {
		r = join_decode(&d, &j);
		if (r == 0)
			return cs_join(s, from, &j);
		join_done(&j);
		return r == -ENOMEM ? r : 0;
	}
	if (h.type == CMD_STATE) {
		struct state_msg m;
		if (!l || !l->synced || !state_msg_decode(&d, &m))
			return 0;
		return cs_joined(s, &m, out);
	}
	if (h.type == CMD_HEARTBEAT) /* member_lease.c's */
		return 0;
	if (!cmd_decode(&d, reply))
		return 0;
	reply->type = h.type;
	if (l && !l->refused)
		return cs_cmd(s, from, reply, out);
	MARK(cs_void);
	reply->result = SD_RES_WAIT_FOR_JOIN; /* void: nobody that we know */
	return 0;
}
