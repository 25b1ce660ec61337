/* member.c - the life of a member: events of the bus, commands, persistence, hooks, start and stop.
 *
 * One coroutine, the runner, takes the events of the bus in their order.  While the state is live
 * they are first written to the log, as many at once as are there, with one sync; then each is
 * applied, others are told what follows from it, its hooks run, its sender (if that is here) gets
 * its answer (C1, C2).  What makes a state live is followed by a snapshot before anything else.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/base/util.h"
#include "sheep/member_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

/* ---- the end ---- */

static void waiters_fail(struct cluster *c)
{
	while (!cds_list_empty(&c->waiters)) {
		struct waiter *w = cds_list_first_entry(&c->waiters, struct waiter, node);
		cds_list_del(&w->node);
		MARK(mem_cmd_lost);
		w->r = -ENOTCONN;
		co_event_set(&w->done);
	}
}

static void tell_out(struct cluster *c)
{
	if (!c->is_out || c->out_told || c->stopping || !(c->started || c->hooked))
		return;
	c->out_told = true;
	c->conf.hooks.out(c->conf.arg, c->out_reason ? c->out_reason : "out of memory");
}

void member_fail(struct cluster *c, char *reason)
{
	if (c->is_out) {
		free(reason);
		return;
	}
	c->is_out = true;
	c->out_reason = reason;
	waiters_fail(c);
	co_event_set(&c->work);
	co_cond_broadcast(&c->progress);
	if (c->started)
		tell_out(c);
}

void member_fail_errno(struct cluster *c, const char *what, int err)
{
	member_fail(c, str_printf("%s: %s", what, strerror(-err)));
}

void member_refused(struct cluster *c, char *reason)
{
	if (!c->is_out)
		c->refused = true;
	member_fail(c, reason);
}

/* ---- events ---- */

void event_free(struct event *ev)
{
	free(ev->present);
	free(ev);
}

/* May it take somebody out of the membership?  (Then the naming of a heartbeat that is ordered
 * behind it counts only when it was applied: DESIGN 4.4.) */
static bool is_fence(const struct event *ev)
{
	return ev->is_view || (ev->len > 1 && ev->data[1] == CMD_ACCUSE);
}

static void event_push(struct cluster *c, struct event *ev)
{
	c->queue_bytes += ev->len + sizeof(*ev);
	cds_list_add_tail(&ev->node, &c->queue);
	c->fences += is_fence(ev);
	if (c->queue_bytes > QUEUE_MAX && MARKED(mem_too_slow))
		member_fail(c, str_printf("This node is too slow for the cluster"));
	co_event_set(&c->work);
}

static struct event *event_pop(struct cluster *c)
{
	struct event *ev = cds_list_first_entry(&c->queue, struct event, node);

	cds_list_del(&ev->node);
	c->queue_bytes -= ev->len + sizeof(*ev);
	return ev;
}

static void on_view(void *arg, const struct bus_member *members, unsigned nr,
		    const struct bus_member *left, unsigned nr_left)
{
	struct cluster *c = arg;

	if (c->is_out || c->stopping)
		return;
	struct event *ev = calloc(1, sizeof(*ev));
	if (ev)
		ev->present = calloc(nr + nr_left + 1, sizeof(*ev->present));
	if (!ev || !ev->present) {
		free(ev);
		member_fail_errno(c, "A change of the membership is lost", -ENOMEM);
		return;
	}
	ev->is_view = true;
	ev->left = nr_left != 0;
	ev->nr = nr;
	for (unsigned i = 0; i < nr; i++)
		ev->present[i] = members[i].inc;
	for (unsigned i = 0; i < nr_left; i++)
		if (left[i].silent)
			ev->present[nr + ev->nr_silent++] = left[i].inc;
	event_push(c, ev);
}

static void on_message(void *arg, const struct incarnation *from, const void *msg, size_t len)
{
	struct cluster *c = arg;

	if (c->is_out || c->stopping)
		return;
	if (lease_heartbeat(c, from, msg, len, !c->busy && cds_list_empty(&c->queue),
			    c->fences == c->fences_done))
		return;
	struct event *ev = calloc(1, sizeof(*ev) + len);
	if (!ev) {
		member_fail_errno(c, "A message of the cluster is lost", -ENOMEM);
		return;
	}
	ev->from = *from;
	ev->len = len;
	memcpy(ev->data, msg, len);
	event_push(c, ev);
}

static void on_out(void *arg, const char *reason)
{
	struct cluster *c = arg;

	if (!c->stopping)
		member_fail(c, str_printf("%s", reason ? reason : "the cluster driver gave up"));
}

static void on_warn(void *arg, const char *text)
{
	struct cluster *c = arg;

	if (!c->stopping)
		c->conf.hooks.warn(c->conf.arg, text);
}

void member_send(struct cluster *c, struct enc *e)
{
	int r = e->failed ? -ENOMEM : -ENOTCONN;

	if (!e->failed && !c->is_out && c->bus)
		r = c->conf.driver->send(c->bus, e->p, e->len);
	free(e->p);
	*e = (struct enc){0};
	/* Out of the bus: the driver says so itself, at its place. */
	if (r < 0 && r != -ENOTCONN)
		member_fail_errno(c, "Cannot send to the cluster", r);
}

int member_apply(struct cluster *c, struct cs *s, const struct event *ev, struct cmd *reply,
		 struct cs_out *out)
{
	struct dec d = {.p = ev->data, .end = ev->data + ev->len};
	struct state_msg m;
	struct msg_head h;
	int r;

	memset(reply, 0, sizeof(*reply));
	reply->type = CMD_NR;
	if (ev->is_view) {
		r = cs_view(s, ev->present, ev->nr, ev->present + ev->nr, ev->nr_silent, out);
	} else {
		bool ours = msg_decode(&d, &h) && h.version == CLUSTER_MSG_VERSION;
		if (ours && h.type == CMD_JOIN)
			xfer_drop_offer(c);
		r = cs_message(s, &ev->from, ev->data, ev->len, reply, out);
		if (r == 0 && ours && h.type == CMD_STATE && state_msg_decode(&d, &m) &&
		    m.kind == STATE_OFFER)
			r = xfer_offer(c, s, &ev->from, &m, out);
	}
	if (r < 0)
		member_fail_errno(c, "Cannot follow the cluster", r);
	return r;
}

/* ---- what follows from an event ---- */

void member_send_cmd(struct cluster *c, struct cmd *cmd)
{
	struct enc e = {0};

	cmd->time = env_wall(c->env);
	cmd->random = env_random64(c->env);
	msg_begin(&e, cmd->type, 0);
	cmd_encode(&e, cmd);
	member_send(c, &e);
}

/* The start set with the joiners is durable here: say so (DESIGN 4.3). */
static void send_acks(struct cluster *c)
{
	for (unsigned i = 0; i < c->s->nr_lobby; i++) {
		struct lobby *l = c->s->lobby[i];
		if (!l->admitted || l->ack_sent)
			continue;
		struct cmd cmd = {.type = CMD_ADMIT_ACK, .target = l->j.m.inc};
		MARK(mem_ack);
		l->ack_sent = true;
		member_send_cmd(c, &cmd);
	}
}

static void member_speak(struct cluster *c, const struct cs_out *out)
{
	const struct lobby *self = cs_lobby(c->s, &c->self.inc), *sp = cs_speaker(c->s);

	if (self && self->refused == REF_EXPELLED && MARKED(mem_expelled)) {
		member_fail(c, cs_refusal_text(c->s, self)); /* to come back as another one */
		return;
	}
	if (!self || !self->synced)
		return;
	if (c->s->live && c->s->status == CLUSTER_RUNNING && !self->refused)
		send_acks(c);
	xfer_speak(c);
	if (out->epoch && out->guess && sp == self) {
		struct cmd cmd = {.type = CMD_EPOCH_TIME, .snapid = cs_newest(c->s)->epoch};
		member_send_cmd(c, &cmd);
	}
	if (self->refused)
		member_refused(c, cs_refusal_text(c->s, self));
}

static void status_update(struct cluster *c)
{
	enum cluster_status st = member_status(c);

	if (st != c->status) {
		c->status = st;
		co_cond_broadcast(&c->changed);
	}
}

static void write_flags(struct cluster *c, unsigned flags)
{
	struct enc e = {0};

	if (c->is_out || c->stopping || !c->s->live)
		return;
	assert(c->logged);
	c->flags = flags;
	es_rec_flags(&e, flags);
	int r = es_append(&c->es, &e); /* ~ */
	free(e.p);
	if (r < 0)
		member_fail_errno(c, "Cannot write the cluster's state", r);
}

/* A new epoch: C3. */
static void publish(struct cluster *c, bool clean)
{
	const struct hist *h = cs_newest(c->s);
	struct view *v = view_make(c->s->members, c->s->nr_members, &c->self.inc);

	if (!v) {
		member_fail_errno(c, "Cannot make a view", -ENOMEM);
		return;
	}
	v->epoch = h->epoch;
	memcpy(v->name, h->name, sizeof(v->name));
	v->time = h->time;
	v->forced = h->forced;
	if (v->self < 0) {
		view_put(v);
		return;
	}
	struct view *old = c->view;
	c->view = v;
	co_cond_broadcast(&c->changed);
	c->hooked = true;
	view_get(v);
	c->conf.hooks.view(c->conf.arg, old, v, clean); /* ~ */
	bool given_up = v->members[v->self].given_up;
	view_put(v);
	view_put(old);
	if (given_up && !(c->flags & ES_HANDLED))
		write_flags(c, c->flags | ES_HANDLED); /* ~ */
	c->view_done = true;
}

static void run_hooks(struct cluster *c, struct cs_out *out)
{
	const struct cluster_hooks *hooks = &c->conf.hooks;

	if (out->format) {
		c->hooked = true;
		int r = hooks->format(c->conf.arg); /* ~ */
		if (r < 0) { /* ES_WIPE stays: objects of the old cluster must not stand in the new
				one */
			member_fail_errno(c, "Cannot format the store", r);
			return;
		}
		write_flags(c, c->flags & ~ES_WIPE); /* ~ */
		view_put(TAKE(c->view, NULL));
		c->view_done = false;
	}
	if (out->epoch && !c->is_out)
		publish(c, out->clean); /* ~ */
	for (unsigned i = 0; i < out->nr_vids && !c->is_out; i++) {
		const struct vdi *v = cs_vdi(c->s, out->vids[i]);
		c->hooked = true;
		if (v)
			hooks->vdi(c->conf.arg, v);
	}
	status_update(c);
	if (out->shutdown && !c->is_out) {
		c->hooked = true;
		hooks->shutdown(c->conf.arg);
	}
	tell_out(c);
}

void member_act(struct cluster *c, struct cs_out *out)
{
	lease_applied(c, out);
	if (out->format)
		c->flags |= ES_WIPE;
	if (c->s->live && !c->logged) {
		int r = es_snapshot(&c->es, c->s, c->flags); /* ~ */
		if (r < 0 && MARKED(mem_snapshot_io)) {
			member_fail_errno(c, "Cannot write the cluster's state", r);
			return;
		}
		c->logged = true;
		MARK(mem_snapshot);
	}
	if (c->s->live)
		cs_free(TAKE(c->disk, NULL));
	if (c->is_out || c->stopping)
		return;
	member_speak(c, out);
	if (!c->is_out)
		run_hooks(c, out); /* ~ */
}

static void answer(struct cluster *c, const struct event *ev, const struct cmd *reply)
{
	struct dec d = {.p = ev->data, .end = ev->data + ev->len};
	struct msg_head h;
	struct waiter *w;

	if (ev->is_view || reply->type == CMD_NR || !inc_same(&ev->from, &c->self.inc) ||
	    !msg_decode(&d, &h) || !h.id)
		return;
	cds_list_for_each_entry (w, &c->waiters, node) {
		if (w->id != h.id)
			continue;
		*w->cmd = *reply;
		cds_list_del(&w->node);
		co_event_set(&w->done);
		return;
	}
}

/* The cosmetic one: the view of that epoch is published already. */
static void view_time(struct cluster *c, const struct cmd *reply)
{
	if (reply->type != CMD_EPOCH_TIME)
		return;
	const struct hist *h = cs_hist(c->s, reply->snapid);
	if (h && c->view && c->view->epoch == h->epoch)
		c->view->time = h->time;
}

static void run_one(struct cluster *c, const struct event *ev)
{
	struct cs_out out = {0};
	struct cmd reply;
	struct dec d = {.p = ev->data, .end = ev->data + ev->len};
	struct msg_head h;

	int r = member_apply(c, c->s, ev, &reply, &out);
	c->fences_done += is_fence(ev);
	if (PLANTED(apply_clock) && c->s->live && !ev->is_view && cs_logged(ev->data, ev->len))
		c->s->last_time = env_wall(c->env);
	if (r == 0) {
		if (!ev->is_view)
			lease_heartbeat(c, &ev->from, ev->data, ev->len, true, true);
		if (!ev->is_view && msg_decode(&d, &h) && h.type == CMD_JOIN)
			xfer_serve(c, &ev->from);
		view_time(c, &reply);
		member_act(c, &out); /* ~ */
		if (!c->is_out && !c->stopping)
			answer(c, ev, &reply);
	}
	cs_out_done(&out);
}

/* ---- the runner ---- */

static void list_free(struct cds_list_head *list)
{
	struct event *ev, *next;

	cds_list_for_each_entry_safe (ev, next, list, node) {
		cds_list_del(&ev->node);
		event_free(ev);
	}
}

/* What it leads to may have to stand in the log before what comes behind it: a view can end the
 * life of the state, and another state with a log of its own may follow (xfer_offer); that the hook
 * of a format was run (write_flags) is not said of the next one, too. */
static bool ends_batch(const struct event *ev)
{
	return ev->is_view || (ev->len > 1 && ev->data[1] == CMD_FORMAT);
}

/* Everything that is there: one write to the log, then one after the other. */
static void run_batch(struct cluster *c)
{
	struct cds_list_head batch;
	struct enc recs = {0};
	struct event *ev;
	int r = 0;

	assert(c->logged);
	CDS_INIT_LIST_HEAD(&batch);
	for (bool end = false; !end && !cds_list_empty(&c->queue) && recs.len < BATCH_BYTES;) {
		ev = event_pop(c);
		end = ends_batch(ev);
		cds_list_add_tail(&ev->node, &batch);
		if (ev->is_view)
			es_rec_view(&recs, ev->present, ev->nr, ev->nr_silent);
		else if (cs_logged(ev->data, ev->len))
			es_rec_message(&recs, &ev->from, ev->data, ev->len);
	}
	if (recs.len || recs.failed)
		r = es_append(&c->es, &recs); /* ~ */
	free(recs.p);
	if (r < 0 && MARKED(mem_log_io))
		member_fail_errno(c, "Cannot write the cluster's log", r);
	while (!cds_list_empty(&batch) && !c->is_out && !c->stopping) {
		ev = cds_list_first_entry(&batch, struct event, node);
		cds_list_del(&ev->node);
		assert(c->s->live && c->logged); /* C1: that log is still this state's */
		run_one(c, ev);			 /* ~ */
		event_free(ev);
	}
	list_free(&batch);
	if (c->is_out || c->stopping || !c->s->live || c->es.log_off < LOG_MIN ||
	    c->es.log_off < c->es.snap_len)
		return;
	MARK(mem_log_grown);
	r = es_snapshot(&c->es, c->s, c->flags); /* ~ the log has grown */
	if (r < 0)
		member_fail_errno(c, "Cannot write the cluster's state", r);
}

static void runner(void *arg)
{
	struct cluster *c = arg;

	while (!c->stopping) {
		if (c->is_out || cds_list_empty(&c->queue)) {
			co_event_clear(&c->work);
			co_event_wait(&c->work); /* ~ */
			continue;
		}
		c->busy = true;
		if (!c->s) {
			struct event *ev = event_pop(c);
			c->fences_done += is_fence(ev);
			xfer_unsynced(c, ev); /* ~ */
		} else if (c->s->live) {
			run_batch(c); /* ~ */
		} else {
			struct event *ev = event_pop(c);
			c->logged = false;
			run_one(c, ev); /* ~ */
			event_free(ev);
		}
		c->busy = false;
		if (c->s)
			status_update(c);
		co_cond_broadcast(&c->progress);
	}
	c->runner = NULL;
	co_cond_broadcast(&c->idle);
}

/* ---- commands ---- */

static int do_once(struct cluster *c, struct cmd *cmd)
{
	struct waiter w = {.cmd = cmd};
	struct enc e = {0};

	if ((c->is_out || c->stopping || c->hung_up) && MARKED(mem_do_out))
		return -ENOTCONN;
	w.id = ++c->next_id;
	msg_begin(&e, cmd->type, w.id);
	cmd_encode(&e, cmd);
	int r = e.failed ? -ENOMEM : c->conf.driver->send(c->bus, e.p, e.len);
	free(e.p);
	if (r < 0)
		return r;
	co_event_init(&w.done);
	cds_list_add_tail(&w.node, &c->waiters);
	co_event_wait(&w.done); /* ~ */
	return w.r;
}

int cluster_do(struct cluster *c, struct cmd *cmd)
{
	int r;

	assert(co_self() != c->runner && cmd->type < CMD_NR);
	c->nr_calls++;
	for (;;) {
		r = do_once(c, cmd); /* ~ */
		if (r < 0 || cmd->result != SD_RES_AGAIN)
			break;
		co_sleep(AGAIN_NS); /* ~ */
	}
	if (--c->nr_calls == 0)
		co_cond_broadcast(&c->idle);
	return r;
}

/* ---- start ---- */

/* Were we given up without having acted on it?  @s: as it was when we ended. */
static void recall_given_up(struct cluster *c, const struct cs *s)
{
	struct join *j = &c->join;

	if (c->flags & ES_HANDLED)
		return;
	for (unsigned i = 0; i < s->nr_members; i++)
		if (!memcmp(s->members[i].inc.uuid, c->self.inc.uuid, 16)) {
			j->given_up = s->members[i].given_up;
			j->common_epoch = s->members[i].common_epoch;
			return;
		}
	for (unsigned i = 0; i < s->nr_lobby; i++)
		if (!memcmp(s->lobby[i]->j.m.inc.uuid, c->self.inc.uuid, 16))
			j->given_up = cs_given_up(s, &s->lobby[i]->j, &j->common_epoch);
}

static int make_join(struct cluster *c)
{
	const struct cs *s = c->disk;
	struct join *j = &c->join;

	j->m = c->self;
	j->ctime = s->params.ctime;
	j->key = cs_key(s);
	j->max_gen = c->conf.max_gen > s->gen ? c->conf.max_gen : s->gen;
	j->clean_epoch = c->conf.clean_epoch;
	memcpy(j->clean_name, c->conf.clean_name, sizeof(j->clean_name));
	j->random = env_random64(c->env);
	j->time = env_wall(c->env);
	if (!s->nr_hist)
		return 0;
	j->names = calloc(s->nr_hist, sizeof(*j->names));
	if (!j->names)
		return -ENOMEM;
	for (; j->nr_names < s->nr_hist; j->nr_names++) {
		MARK(mem_join_knows);
		j->names[j->nr_names].epoch = s->hist[j->nr_names]->epoch;
		memcpy(j->names[j->nr_names].name, s->hist[j->nr_names]->name, 8);
	}
	return 0;
}

static int make_self(struct cluster *c, char **err)
{
	static const uint8_t zero[12];
	struct member *m = &c->self;

	if (m->addr.family)
		return 0;
	int r = c->conf.driver->my_address(c->bus, m->addr.ip);
	if (r < 0) {
		*err = str_printf("Cannot find out this node's address (%s): give it with -y",
				  strerror(-r));
		return r;
	}
	m->addr.family = memcmp(m->addr.ip, zero, sizeof(zero)) ? AF_INET6 : AF_INET;
	if (c->conf.zone_auto)
		m->zone = (uint32_t)m->addr.ip[12] | (uint32_t)m->addr.ip[13] << 8 |
			  (uint32_t)m->addr.ip[14] << 16 | (uint32_t)m->addr.ip[15] << 24;
	return 0;
}

/* We died in the middle of a format: the state is of the new cluster, the objects of the old. */
static int finish_format(struct cluster *c, char **err)
{
	MARK(mem_finish_format);
	int r = c->conf.hooks.format(c->conf.arg); /* ~ */

	if (r < 0) {
		*err = str_printf("Cannot format the store: %s", strerror(-r));
		return r;
	}
	c->flags &= ~ES_WIPE;
	r = es_snapshot(&c->es, c->disk, c->flags); /* ~ */
	if (r < 0)
		*err = str_printf("Cannot write the cluster's state: %s", strerror(-r));
	return r;
}

static int cluster_open(struct cluster *c, char **err)
{
	static const struct bus_cb cb = {on_view, on_message, on_out, on_warn};
	int r = es_open(&c->es, c->sched, c->conf.dir, &c->disk, &c->flags, err); /* ~ */

	if (r < 0)
		return r;
	recall_given_up(c, c->disk);
	cs_sleep(c->disk);
	c->status = member_status(c);
	if (c->flags & ES_WIPE) {
		r = finish_format(c, err); /* ~ */
		if (r < 0)
			return r;
	}
	r = c->conf.driver->open(c->env, c->conf.param, &c->self.inc, &cb, c, &c->bus, err);
	if (r < 0)
		return r;
	r = make_self(c, err);
	if (r == 0)
		r = make_join(c);
	if (r < 0)
		return r;
	c->runner = co_start(c->sched, runner, c, "cluster");
	if (!c->runner)
		return -ENOMEM;
	lease_start(c);
	return 0;
}

static bool someone_missing(const struct cs *s)
{
	for (unsigned i = 0; i < s->nr_start; i++) {
		unsigned k = 0;
		while (k < s->nr_lobby && (s->lobby[k]->refused ||
					   memcmp(s->lobby[k]->j.m.inc.uuid, s->start[i].uuid, 16)))
			k++;
		if (k == s->nr_lobby)
			return true;
	}
	return false;
}

/* Is it known what becomes of this start? */
static bool start_settled(const struct cluster *c)
{
	const struct cs *s = c->s;

	if (c->is_out || c->stopping)
		return true;
	if (!s || cs_best(s))
		return false;
	switch (s->status) {
	case CLUSTER_WAIT_FORMAT: return true;
	case CLUSTER_WAIT_JOIN: return someone_missing(s);
	case CLUSTER_RUNNING: return c->view && c->view_done;
	default: return true;
	}
}

static char *waiting_text(const struct cluster *c)
{
	const struct cs *s = c->s;

	if (!s)
		return str_printf("Waiting for the members of the cluster to answer");
	if (s->status == CLUSTER_WAIT_FORMAT)
		return str_printf("Waiting for the cluster to be formatted: dog cluster format");
	if (s->status == CLUSTER_WAIT_JOIN && someone_missing(s))
		return cs_waiting_text(s);
	if (s->status == CLUSTER_RUNNING && c->view && c->view_done)
		return NULL;
	return str_printf("Waiting for all members of the cluster to take this node in");
}

/* All but the coroutine, which has ended. */
static void cluster_free(struct cluster *c)
{
	assert(!c->runner && !c->nr_calls && cds_list_empty(&c->waiters));
	list_free(&c->queue);
	xfer_done(c);
	join_done(&c->join);
	cs_free(c->s);
	cs_free(c->disk);
	view_put(c->view);
	free(c->out_reason);
	free(c);
}

void cluster_hangup(struct cluster *c)
{
	c->hung_up = true;
	waiters_fail(c);
}

void cluster_stop(struct cluster *c)
{
	assert(co_self() != c->runner);
	c->stopping = true;
	lease_stop(c);
	if (c->bus)
		c->conf.driver->close(TAKE(c->bus, NULL));
	waiters_fail(c);
	co_event_set(&c->work);
	co_cond_broadcast(&c->changed);
	co_cond_broadcast(&c->progress);
	while (c->runner || c->nr_calls)
		co_cond_wait(&c->idle, "cluster: stop"); /* ~ */
	es_close(&c->es); /* ~ who waited on cluster_changed() has run meanwhile */
	cluster_free(c);
}

int cluster_start(struct co_sched *s, const struct cluster_conf *conf, struct cluster **ret,
		  char **waiting_for, char **err)
{
	struct cluster *c = calloc(1, sizeof(*c));

	*waiting_for = *err = NULL;
	*ret = NULL;
	if (!c)
		return -ENOMEM;
	c->sched = s;
	c->env = co_sched_env(s);
	c->conf = *conf;
	c->self = conf->self;
	CDS_INIT_LIST_HEAD(&c->queue);
	CDS_INIT_LIST_HEAD(&c->buffer);
	CDS_INIT_LIST_HEAD(&c->waiters);
	co_cond_init(&c->changed);
	co_cond_init(&c->idle);
	co_cond_init(&c->progress);
	co_event_init(&c->work);
	*ret = c;
	int r = cluster_open(c, err); /* ~ */
	uint64_t until = env_now(c->env) + START_NS;
	while (r == 0 && !start_settled(c))
		if (co_cond_wait_until(&c->progress, until, "cluster: start") < 0) /* ~ */
			break;
	if (r == 0 && (!c->is_out || c->hooked)) {
		c->started = true;
		if (c->is_out)
			tell_out(c);
		else
			*waiting_for = waiting_text(c);
		return 0;
	}
	if (r == 0) {
		r = c->refused ? -EPERM : c->again ? -EAGAIN : -ENOTCONN;
		*err = TAKE(c->out_reason, NULL);
	}
	*ret = NULL;
	cluster_stop(c); /* ~ */
	return r;
}
