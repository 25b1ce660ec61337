/* session.c - client sessions at the owner, and their stand-in for clients without them (DESIGN
 * 5.1, WHY B6).
 *
 * A reconnected client resends through another gateway; what the older gateway still has, or has
 * forwarded, must not take effect after something newer.  So a request of session s+1 is served
 * only when nothing of older sessions is left here that was sent, and from then nothing older is
 * let in. What was not sent yet looks at op_over() before it takes a version, and leaves.
 *
 * A new owner has not seen the clients of the one before.  So the gateway of a client that has
 * reconnected says its session on the bus before it serves anything of it; that is in the order
 * before whatever the old owner served of it, and so before the claim of the next one, which asks
 * the machine for the newest session of each client that it meets.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "sheep/gateway_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

static void session_free(struct gateway *gw, struct gw_session *s)
{
	assert(s->idle);
	cds_list_del(&s->idle_node);
	map_del(&gw->sessions, s->client_id);
	gw->nr_sessions--;
	free(s);
}

/* Bounded: the client that has been quiet the longest is forgotten. */
static void sessions_trim(struct gateway *gw)
{
	while (gw->nr_sessions > GW_SESSIONS_MAX && !cds_list_empty(&gw->idle_sessions))
		session_free(gw, cds_list_first_entry(&gw->idle_sessions, struct gw_session,
						      idle_node));
}

static void session_busy(struct gw_session *s)
{
	if (s->idle)
		cds_list_del(&s->idle_node);
	s->idle = false;
}

static void session_unbusy(struct gateway *gw, struct gw_session *s)
{
	if (s->idle || s->saying || !cds_list_empty(&s->ops))
		return;
	s->idle = true;
	cds_list_add_tail(&s->idle_node, &gw->idle_sessions);
}

/* A new one is idle. */
static struct gw_session *session_get(struct gateway *gw, uint64_t client_id)
{
	struct gw_session *s = map_get(&gw->sessions, client_id);

	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	if (map_set(&gw->sessions, client_id, s) < 0) {
		free(s);
		return NULL;
	}
	s->client_id = client_id;
	CDS_INIT_LIST_HEAD(&s->ops);
	co_cond_init(&s->ended);
	gw->nr_sessions++;
	session_unbusy(gw, s);
	return s;
}

/* One CMD_SESSION in flight for each client. */
static void say(struct gw_op *op, struct gw_session *s)
{
	struct gateway *gw = op->gw;
	struct cmd cmd = {
		.type = CMD_SESSION,
		.gen = op->client.client_id,
		.size = op->client.session,
	};

	s->saying = true;
	session_busy(s);
	int r = cluster_do(gw->sh->cluster, &cmd); /* ~ */
	if (r == 0 && cmd.result == SD_RES_SUCCESS && MARKED(ses_said)) {
		if (s->said < cmd.size)
			s->said = cmd.size;
	} else if (!op_over(op) && MARKED(ses_unsaid)) {
		gw_wait(gw, GW_LOOK_NS, "session"); /* ~ it passes, or we are out */
	}
	s->saying = false;
	session_unbusy(gw, s);
	co_cond_broadcast(&gw->changed);
}

int session_say(struct gw_op *op)
{
	struct gateway *gw = op->gw;
	struct gw_session *s;
	uint64_t known;

	for (;;) {
		if (op_over(op))
			return -ECANCELED;
		s = session_get(gw, op->client.client_id);
		if (!s)
			return SD_RES_NO_MEM;
		if (s->said == op->client.session)
			break;
		known = cluster_session(gw->sh->cluster, op->client.client_id);
		if (known > op->client.session && MARKED(ses_moved_on))
			return -ECANCELED; /* the client has moved on */
		if (known == op->client.session) {
			s->said = known;
		} else if (s->saying) {
			gw_wait(gw, GW_LOOK_NS, "session"); /* ~ */
		} else {
			say(op, s); /* ~ */
		}
	}
	sessions_trim(gw);
	op->said = true;
	return 0;
}

static bool older_left(const struct gw_session *s, uint64_t session)
{
	struct gw_op *op;

	cds_list_for_each_entry (op, &s->ops, ses_node)
		if (op->client.session < session && op->sent && MARKED(ses_older_left))
			return true;
	return false;
}

int session_enter(struct gw_op *op)
{
	struct gateway *gw = op->gw;
	struct gw_session *s;

	if (op->internal)
		return 0;
	if (!op->client.client_id)
		return session_wait_closed(op); /* ~ */
	s = op->ses ? op->ses : session_get(gw, op->client.client_id);
	if (!s)
		return SD_RES_NO_MEM;
	if (s->owned != gw->nr_owned) { /* others may have served it since */
		uint64_t known = cluster_session(gw->sh->cluster, op->client.client_id);
		if (s->newest < known && MARKED(ses_known))
			s->newest = known;
		s->owned = gw->nr_owned;
	}
	if (op->ses) /* it was here in an earlier generation, or before a view */
		return op_over(op) ? -ECANCELED : 0;
	if (PLANTED(no_session))
		s->clear = UINT64_MAX;
	else if (op->client.session < s->newest && MARKED(ses_refused))
		return -ECANCELED; /* refused: the client has moved on */
	s->newest = op->client.session;
	session_busy(s);
	cds_list_add_tail(&op->ses_node, &s->ops);
	op->ses = s;
	sessions_trim(gw);
	while (s->clear < op->client.session) {
		if (op_over(op))
			return -ECANCELED;
		if (!older_left(s, op->client.session))
			s->clear = op->client.session;
		else
			co_cond_wait(&s->ended, "older session"); /* ~ */
	}
	return op_over(op) ? -ECANCELED : 0;
}

void session_leave(struct gw_op *op)
{
	struct gw_session *s = op->ses;

	if (!s)
		return;
	op->ses = NULL;
	cds_list_del(&op->ses_node);
	co_cond_broadcast(&s->ended);
	session_unbusy(op->gw, s);
}

/* Is something of a closed connection without session still out, to the same VDI? */
static bool closed_left(const struct gw_op *op)
{
	const struct gw_op *o;

	cds_list_for_each_entry (o, &op->gw->ops, node)
		if (o->closed && o->sent && o->changes && o->vid == op->vid && !o->client.client_id)
			return true;
	return false;
}

int session_wait_closed(struct gw_op *op)
{
	struct gateway *gw = op->gw;

	if (op->client.client_id || op->internal)
		return 0;
	while (gw->nr_closed && closed_left(op)) {
		if (op_over(op))
			return -ECANCELED;
		MARK(ses_closed_left);
		co_cond_wait_until(&gw->idle, env_now(gw->sh->env) + GW_PARK_NS,
				   "closed connection"); /* ~ */
	}
	return 0;
}

void session_done(struct gateway *gw)
{
	struct gw_session *s, *next;

	cds_list_for_each_entry_safe (s, next, &gw->idle_sessions, idle_node) {
		assert(cds_list_empty(&s->ops));
		session_free(gw, s);
	}
	assert(!gw->nr_sessions);
}
