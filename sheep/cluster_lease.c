/* cluster_lease.c - members that hang or fell silent, and the sessions of clients.  Pure.
 *
 *  L1 An accusation stands until it is taken back by who made it, or the epoch changes.  (Only what
 *     is in the log counts here: heartbeats are not, so "was heard again" has to be said.)
 *  L2 Who was expelled stays in the lobby, refused, for as long as the driver lists it: it speaks
 *     for nobody, its messages are void, its JOIN is too; its next incarnation is a new node.
 *  L3 `silent` is set by whatever takes out a member that may still be running, and cleared only by
 *     somebody who has waited for its lease to end (DESIGN 4.4).
 *  L4 Two that accuse each other are two accusers too: no third one can know which of them is sick
 *     when both answer it.  One has to go, or writes to both wait for ever: the younger, once one
 *     of them says that the others had time to find a better reason (CMD_ACCUSE, on).
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "sheep/cluster_int.h"
#include "sheep/mark.h"

/* ---- leases that may still run ---- */

void cs_silent(struct cs *s, const struct incarnation *who, unsigned nr, struct cs_out *out)
{
	for (unsigned i = 0; i < nr; i++)
		if (cs_member(s, &who[i]) >= 0) {
			MARK(cs_silent);
			s->silent = s->pos;
			out->silent = true;
		}
}

uint32_t cs_leases_over(struct cs *s, const struct incarnation *from, const struct cmd *cmd)
{
	if (!s->live || cs_member(s, from) < 0)
		return SD_RES_WAIT_FOR_JOIN;
	if (s->silent == cmd->size && MARKED(cs_leases_over))
		s->silent = 0;
	return SD_RES_SUCCESS;
}

/* ---- accusations ---- */

void cs_acquit_all(struct cs *s)
{
	for (unsigned i = 0; i < s->nr_lobby; i++)
		s->lobby[i]->accused = false;
}

static int expel(struct cs *s, struct lobby *l, const struct cmd *cmd, struct cs_out *out)
{
	MARK(cs_expel);
	l->refused = REF_EXPELLED;
	l->synced = l->admitted = l->accused = false;
	l->nr_acks = 0;
	cs_silent(s, &l->j.m.inc, 1, out);
	out->expelled = l->j.m.inc;
	out->expel = true;
	int r = cs_admitted(s, cmd, out);
	if (r == 0 && !out->epoch) /* it was no member yet */
		r = cs_start_set(s);
	return r;
}

static bool accuses(const struct lobby *by, const struct lobby *l)
{
	return l && l->accused && inc_same(&l->accuser, &by->j.m.inc);
}

/* L4: of two in the lobby.  The order of arrival is part of the state. */
static struct lobby *younger(const struct cs *s, struct lobby *a, struct lobby *b)
{
	unsigned i = 0;

	while (s->lobby[i] != a && s->lobby[i] != b)
		i++;
	return s->lobby[i] == a ? b : a;
}

uint32_t cs_accuse(struct cs *s, const struct incarnation *from, const struct cmd *cmd,
		   struct cs_out *out, int *err)
{
	struct lobby *l = cs_lobby(s, &cmd->target);

	if (!s->live || s->status != CLUSTER_RUNNING || cs_member(s, from) < 0)
		return SD_RES_WAIT_FOR_JOIN;
	if (inc_same(from, &cmd->target))
		return SD_RES_INVALID_PARMS;
	if (!l || !l->synced || l->refused)
		return SD_RES_SUCCESS; /* it is gone, or holds nobody up */
	bool mine = l->accused && inc_same(&l->accuser, from);
	if (cmd->clean) {
		if (mine && MARKED(cs_acquit))
			l->accused = false;
		return SD_RES_SUCCESS;
	}
	struct lobby *me = cs_lobby(s, from);
	if (cmd->on && mine && accuses(l, me) && MARKED(cs_insist)) {
		*err = expel(s, younger(s, l, me), cmd, out);
		return SD_RES_SUCCESS;
	}
	if (s->nr_members > 2 && (mine || !l->accused) && MARKED(cs_accuse_first)) {
		l->accused = true;
		l->accuser = *from;
		return SD_RES_SUCCESS;
	}
	if (s->nr_members <= 2)
		MARK(cs_expel_of_two);
	*err = expel(s, l, cmd, out);
	return SD_RES_SUCCESS;
}

/* ---- sessions ---- */

static unsigned session_at(const struct cs *s, uint64_t client)
{
	unsigned lo = 0, hi = s->nr_sessions;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		if (s->sessions[mid].client < client)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

uint64_t cs_session(const struct cs *s, uint64_t client)
{
	unsigned at = session_at(s, client);

	return at < s->nr_sessions && s->sessions[at].client == client ? s->sessions[at].session
								       : 0;
}

static void session_remove(struct cs *s, unsigned at)
{
	s->nr_sessions--;
	memmove(&s->sessions[at], &s->sessions[at + 1],
		(s->nr_sessions - at) * sizeof(*s->sessions));
}

/* The one that was opened longest ago goes: a request that has been on its way since then would
 * have to outlast as many reconnects of others as there are places. */
static void session_evict(struct cs *s)
{
	unsigned oldest = 0;

	for (unsigned i = 1; i < s->nr_sessions; i++)
		if (s->sessions[i].pos < s->sessions[oldest].pos)
			oldest = i;
	MARK(cs_session_evict);
	session_remove(s, oldest);
}

uint32_t cs_session_open(struct cs *s, struct cmd *cmd, int *err)
{
	unsigned at = session_at(s, cmd->gen);
	struct cs_session *x;

	if (!cmd->gen)
		return SD_RES_INVALID_PARMS;
	if (!s->sessions) {
		s->sessions = calloc(CLUSTER_SESSIONS, sizeof(*s->sessions));
		if (!s->sessions) {
			*err = -ENOMEM;
			return SD_RES_NO_MEM;
		}
	}
	if (at == s->nr_sessions || s->sessions[at].client != cmd->gen) {
		if (s->nr_sessions == CLUSTER_SESSIONS) {
			session_evict(s);
			at = session_at(s, cmd->gen);
		}
		x = &s->sessions[at];
		memmove(x + 1, x, (s->nr_sessions - at) * sizeof(*x));
		s->nr_sessions++;
		*x = (struct cs_session){.client = cmd->gen};
	}
	x = &s->sessions[at];
	cmd->ret_gen = x->session;
	if (cmd->size < x->session && MARKED(cs_session_old))
		return SD_RES_INVALID_PARMS;
	x->session = cmd->ret_gen = cmd->size;
	x->pos = s->pos;
	return SD_RES_SUCCESS;
}
