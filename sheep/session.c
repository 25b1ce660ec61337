/* session.c - client sessions at the owner, and their stand-in for clients without them (DESIGN
 * 5.1, WHY B6).
 *
 * A reconnected client resends through another gateway; what the older gateway still has, or has
 * forwarded, must not take effect after something newer.  So a request of session s+1 is served
 * only when nothing of older sessions is left here that was sent, and from then nothing older is
 * let in. What was not sent yet looks at op_over() before it takes a version, and leaves.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "sheep/gateway_int.h"
#include "sheep/plant.h"

static void session_free(struct gateway *gw, struct gw_session *s)
{
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
	cds_list_add_tail(&s->idle_node, &gw->idle_sessions);
	gw->nr_sessions++;
	return s;
}

static bool older_left(const struct gw_session *s, uint64_t session)
{
	struct gw_op *op;

	cds_list_for_each_entry (op, &s->ops, ses_node)
		if (op->client.session < session && op->sent)
			return true;
	return false;
}

int session_enter(struct gw_op *op)
{
	struct gateway *gw = op->gw;
	struct gw_session *s;

	if (op->internal || op->ses)
		return 0;
	if (!op->client.client_id)
		return session_wait_closed(op); /* ~ */
	s = session_get(gw, op->client.client_id);
	if (!s)
		return SD_RES_NO_MEM;
	if (PLANTED(no_session))
		s->clear = UINT64_MAX;
	else if (op->client.session < s->newest)
		return -ECANCELED; /* refused: the client has moved on */
	s->newest = op->client.session;
	if (cds_list_empty(&s->ops))
		cds_list_del(&s->idle_node); /* in use */
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
	if (cds_list_empty(&s->ops))
		cds_list_add_tail(&s->idle_node, &op->gw->idle_sessions);
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
