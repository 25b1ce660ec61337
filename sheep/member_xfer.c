/* member_xfer.c - how a node comes by the state of its group.
 *
 * A joiner sends JOIN.  The speaker of the group sends it the state as it is right after that JOIN
 * was applied, in pieces; the joiner keeps what is ordered after its JOIN and applies it to that
 * state when the last piece is there.  When a member leaves meanwhile (it may have been the
 * speaker), or nothing comes for a while, the joiner sends JOIN again and all of it begins anew.
 *
 *  X1 A node founds the group, with what its disk has, only when it is the oldest on the bus and
 *     knows that nobody on the bus has the state: so there is one group.
 *  X2 While nothing runs, a state newer than the group's is offered by who brought it; all replace
 *     theirs where the last piece of it is in the order.
 *  X3 A state is taken over only when the group counts its taker among those that have it: what a
 *     node sent that was expelled before is void.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "lib/base/util.h"
#include "sheep/member_int.h"
#include "sheep/mark.h"

/* ---- sending ---- */

static void send_pieces(struct cluster *c, struct state_msg *m, const struct enc *all)
{
	size_t off = 0;

	m->chunk = 0;
	do {
		struct enc e = {0};
		m->len = all->len - off < CLUSTER_CHUNK ? all->len - off : CLUSTER_CHUNK;
		m->data = all->p + off;
		off += m->len;
		m->last = off == all->len;
		msg_begin(&e, CMD_STATE, 0);
		state_msg_encode(&e, m);
		member_send(c, &e);
		m->chunk++;
	} while (off < all->len && !c->is_out);
}

void xfer_join(struct cluster *c)
{
	struct enc e = {0};

	c->join.attempt++;
	c->rx_at = env_now(c->env);
	msg_begin(&e, CMD_JOIN, 0);
	join_encode(&e, &c->join);
	member_send(c, &e);
}

void xfer_tick(struct cluster *c)
{
	/* Only when our last JOIN is in the order: nobody counts one that is overtaken. */
	if (!c->s && c->seen_view && !c->is_out && !c->stopping && c->buffering &&
	    c->rx_attempt == c->join.attempt && env_now(c->env) - c->rx_at > XFER_AGAIN_NS)
		xfer_join(c);
}

static bool am_speaker(const struct cluster *c)
{
	const struct lobby *l = cs_speaker(c->s);

	return l && inc_same(&l->j.m.inc, &c->self.inc);
}

void xfer_serve(struct cluster *c, const struct incarnation *joiner)
{
	const struct lobby *l = cs_lobby(c->s, joiner);
	struct enc all = {0};

	if (!l || l->synced || l->refused || !am_speaker(c))
		return;
	struct state_msg m = {.kind = STATE_FOR_JOINER, .target = *joiner, .attempt = l->j.attempt};
	MARK(xfer_serve);
	cs_encode(c->s, &all);
	if (all.failed)
		member_fail_errno(c, "Cannot send the state of the cluster", -ENOMEM);
	else
		send_pieces(c, &m, &all);
	free(all.p);
}

static void tell_refusal(struct cluster *c, struct lobby *l)
{
	struct state_msg m = {.kind = STATE_REFUSAL, .target = l->j.m.inc};
	char *text = cs_refusal_text(c->s, l);

	if (text) {
		struct enc all = {.p = (uint8_t *)text, .len = strlen(text)};
		send_pieces(c, &m, &all);
	}
	free(text);
	l->told = true;
}

void xfer_speak(struct cluster *c)
{
	const struct lobby *best = cs_best(c->s);

	for (unsigned i = 0; am_speaker(c) && i < c->s->nr_lobby; i++)
		if (c->s->lobby[i]->refused && c->s->lobby[i]->refused != REF_EXPELLED &&
		    !c->s->lobby[i]->told)
			tell_refusal(c, c->s->lobby[i]);
	if (!best || !inc_same(&best->j.m.inc, &c->self.inc) || c->offer_sent || !c->disk)
		return;
	MARK(xfer_offers);
	struct state_msg m = {.kind = STATE_OFFER, .target = c->self.inc};
	struct enc all = {0};
	cs_encode(c->disk, &all);
	if (all.failed)
		member_fail_errno(c, "Cannot send the state of the cluster", -ENOMEM);
	else
		send_pieces(c, &m, &all);
	c->offer_sent = true;
	free(all.p);
}

/* ---- another's better state ---- */

void xfer_drop_offer(struct cluster *c)
{
	c->offer_sent = false;
	c->offer.len = 0;
	c->offer_chunk = 0;
}

int xfer_offer(struct cluster *c, struct cs *s, const struct incarnation *from,
	       const struct state_msg *m, struct cs_out *out)
{
	struct cs *better;

	if (m->chunk == 0) {
		c->offer.len = 0;
		c->offer_chunk = 0;
		c->offer_from = *from;
	}
	if (s->live || m->chunk != c->offer_chunk || !inc_same(from, &c->offer_from) ||
	    c->offer.len + m->len > CLUSTER_STATE_MAX)
		return 0;
	c->offer_chunk++;
	enc_bytes(&c->offer, m->data, m->len);
	if (c->offer.failed)
		return -ENOMEM;
	if (!m->last)
		return 0;
	int r = cs_decode(c->offer.p, c->offer.len, &better);
	free(c->offer.p);
	c->offer = (struct enc){0};
	c->offer_chunk = 0;
	if (r < 0)
		return r == -EBADMSG ? 0 : r; /* the same for all */
	c->logged = false;
	return cs_adopt(s, better, out);
}

/* ---- without a state ---- */

static void buffer_clear(struct cluster *c)
{
	struct event *ev, *next;

	cds_list_for_each_entry_safe (ev, next, &c->buffer, node) {
		cds_list_del(&ev->node);
		event_free(ev);
	}
	c->buffer_bytes = 0;
	free(c->rx.p);
	c->rx = (struct enc){0};
	c->rx_chunk = 0;
}

void xfer_done(struct cluster *c)
{
	buffer_clear(c);
	free(c->offer.p);
	c->offer = (struct enc){0};
	free(c->seen);
	c->seen = NULL;
	c->nr_seen = 0;
}

/* What we know of another; NULL: out of memory, which ends us. */
static struct seen *seen_get(struct cluster *c, const struct incarnation *inc)
{
	for (unsigned i = 0; i < c->nr_seen; i++)
		if (inc_same(&c->seen[i].inc, inc))
			return &c->seen[i];
	struct seen *n = realloc(c->seen, (c->nr_seen + 1) * sizeof(*n));
	if (!n) {
		member_fail_errno(c, "Cannot join", -ENOMEM);
		return NULL;
	}
	c->seen = n;
	n = &c->seen[c->nr_seen++];
	*n = (struct seen){.inc = *inc};
	return n;
}

/* Who has left is forgotten.  Returns how many of the rest may have the state. */
static unsigned seen_keep(struct cluster *c, const struct event *view)
{
	unsigned kept = 0, may = 0;

	for (unsigned i = 0; i < c->nr_seen; i++)
		for (unsigned k = 0; k < view->nr; k++)
			if (inc_same(&c->seen[i].inc, &view->present[k])) {
				may += c->seen[i].may_have;
				c->seen[kept++] = c->seen[i];
				break;
			}
	c->nr_seen = kept;
	return may;
}

/* X1 */
static void found(struct cluster *c)
{
	struct cs_out out = {0};

	MARK(xfer_found);
	buffer_clear(c);
	c->s = TAKE(c->disk, NULL);
	c->logged = false;
	int r = cs_found(c->s, &c->join, &out);
	if (r < 0)
		member_fail_errno(c, "Cannot begin", r);
	else
		member_act(c, &out); /* ~ */
	cs_out_done(&out);
}

/* All of the state is here, and what was ordered since. */
static void take_over(struct cluster *c)
{
	struct cs_out out = {0};
	struct event *ev, *next;
	struct cs *s;
	int r = cs_decode(c->rx.p, c->rx.len, &s);

	if (r < 0) {
		member_fail_errno(c, "The state of the cluster cannot be read", r);
		return;
	}
	cds_list_for_each_entry_safe (ev, next, &c->buffer, node) {
		struct cmd reply;
		if (r == 0)
			r = member_apply(c, s, ev, &reply, &out);
		cds_list_del(&ev->node);
		event_free(ev);
	}
	c->buffering = false;
	buffer_clear(c);
	const struct lobby *l = r < 0 ? NULL : cs_lobby(s, &c->self.inc);
	if (r == 0 && (!l || !(l->synced || l->refused))) {
		/* Who sent it had been expelled before: the group does not know that we have it,
		 * while others that wait like us think so.  Another incarnation begins anew. */
		MARK(xfer_from_out);
		c->again = true;
		member_fail(c, str_printf("The state of the cluster came from a node that is out"));
		r = -EAGAIN;
	}
	if (r < 0) {
		cs_free(s);
	} else {
		uint32_t common;
		if (l && cs_given_up(s, &l->j, &common))
			c->flags &= ~ES_HANDLED;
		if (out.format)
			c->flags |= ES_WIPE;
		c->s = s;
		c->logged = false;
		member_act(c, &out); /* ~ */
	}
	cs_out_done(&out);
}

static void buffer_add(struct cluster *c, struct event *ev)
{
	if (!c->buffering) {
		event_free(ev);
		return;
	}
	c->buffer_bytes += ev->len + sizeof(*ev);
	cds_list_add_tail(&ev->node, &c->buffer);
	if (c->buffer_bytes > QUEUE_MAX)
		member_fail(c, str_printf("The state of the cluster arrives too slowly: start "
					  "this node again"));
}

static void unsynced_view(struct cluster *c, struct event *ev)
{
	bool first = !c->seen_view;

	c->seen_view = true;
	/* Who came with us or after us has not got it, until we see that he gets it. */
	for (unsigned i = 0; first && i < ev->nr; i++) {
		if (inc_same(&ev->present[i], &c->self.inc))
			break;
		struct seen *o = seen_get(c, &ev->present[i]);
		if (o)
			o->may_have = true;
	}
	unsigned may = seen_keep(c, ev);
	if (!c->is_out && !may && ev->nr && inc_same(&ev->present[0], &c->self.inc)) {
		event_free(ev);
		found(c); /* ~ */
		return;
	}
	if (!first && ev->left)
		MARK(xfer_rejoin);
	if (first || ev->left)
		xfer_join(c);
	buffer_add(c, ev);
}

/* True: the last piece was added to what is buffered. */
static bool unsynced_state(struct cluster *c, struct event *ev, const struct state_msg *m)
{
	bool mine = inc_same(&m->target, &c->self.inc), done = false;

	if (m->kind == STATE_REFUSAL && mine) {
		char *text = str_printf("%.*s", (int)m->len, (const char *)m->data);
		member_refused(c, text);
	} else if (m->kind == STATE_FOR_JOINER && !mine && m->last) {
		/* As cs_joined() has it: of an earlier JOIN it is of no use. */
		struct seen *o = seen_get(c, &m->target);
		if (o && (!o->attempt || o->attempt == m->attempt))
			o->may_have = true;
	} else if (m->kind == STATE_FOR_JOINER && mine && c->buffering &&
		   m->attempt == c->rx_attempt) {
		if (m->chunk == 0) {
			c->rx.len = 0;
			c->rx_chunk = 0;
		}
		c->rx_at = env_now(c->env);
		if (m->chunk == c->rx_chunk && c->rx.len + m->len <= CLUSTER_STATE_MAX) {
			enc_bytes(&c->rx, m->data, m->len);
			c->rx_chunk++;
			done = m->last;
		}
		if (c->rx.failed)
			member_fail_errno(c, "Cannot join", -ENOMEM);
	}
	if (m->kind == STATE_FOR_JOINER) /* the pieces themselves are of no more use */
		ev->len = CLUSTER_MSG_HEADER + CLUSTER_STATE_HEADER;
	buffer_add(c, ev);
	return done && !c->is_out;
}

/* True: it was ours, which begins a new attempt. */
static bool unsynced_join(struct cluster *c, const struct event *ev, struct dec *d)
{
	struct join j;
	int r = join_decode(d, &j);
	uint64_t attempt = j.attempt;

	join_done(&j);
	if (r < 0)
		return false;
	if (inc_same(&ev->from, &c->self.inc)) {
		buffer_clear(c);
		c->buffering = true;
		c->rx_attempt = attempt;
		xfer_drop_offer(c);
		return true;
	}
	struct seen *o = seen_get(c, &ev->from);
	if (o)
		o->attempt = attempt;
	return false;
}

void xfer_unsynced(struct cluster *c, struct event *ev)
{
	struct dec d = {.p = ev->data, .end = ev->data + ev->len};
	struct state_msg m;
	struct msg_head h;

	assert(!c->s);
	if (ev->is_view) {
		unsynced_view(c, ev); /* ~ */
		return;
	}
	if (!msg_decode(&d, &h) || h.version != CLUSTER_MSG_VERSION) {
		buffer_add(c, ev);
		return;
	}
	if (h.type == CMD_JOIN && unsynced_join(c, ev, &d)) {
		event_free(ev);
		return;
	}
	if (h.type == CMD_STATE && state_msg_decode(&d, &m)) {
		if (unsynced_state(c, ev, &m))
			take_over(c); /* ~ */
		return;
	}
	buffer_add(c, ev);
}
