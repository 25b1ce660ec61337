/* bus.c - the simulated cluster driver (B1 to B5 of DESIGN 4.1): one order, every member at its own
 * pace.
 *
 *  B1 is the array `items`: a member gets one after the other (deliver()).
 *  B2 a message takes its place in that order, or is void with its sender, who is told that it is
 *     out; own messages come back in the order in which they were sent (message()).
 *  B3 who is not a member at the place of its message is not heard (ordered(), message()).
 *  B4 of two sides the one with most of the members goes on (bus_split.c).
 *  B5 who is said to have died has (bus_remove()); who is only not heard of any more is `silent`.
 * Each of them is asserted where it is named.
 */
#include "config.h"

#include "sheep/cluster_int.h"
#include "tests/sim/bus_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static struct item *item_add(struct sim_bus *sb, bool view, const void *data, size_t len)
{
	struct item *it = calloc(1, sizeof(*it));

	assert(it);
	it->nr = sb->nr_items;
	it->at = sb->w->now;
	it->view = view;
	it->len = len;
	it->data = malloc(len ? len : 1);
	assert(it->data);
	memcpy(it->data, data, len);
	if (sb->nr_items == sb->cap_items) {
		sb->cap_items = sb->cap_items ? 2 * sb->cap_items : 256;
		sb->items = realloc(sb->items, sb->cap_items * sizeof(*sb->items));
		assert(sb->items);
	}
	sb->items[sb->nr_items++] = it;
	return it;
}

static void schedule_all(struct sim_bus *sb)
{
	struct bus *b;

	cds_list_for_each_entry (b, &sb->buses, node)
		bus_schedule(b);
}

/* What the driver would log. */
static void tell(struct sim_bus *sb, const char *what, const struct mem *who, unsigned nr)
{
	char line[400];
	size_t len = 0;

	for (unsigned i = 0; i < nr; i++)
		len += (size_t)snprintf(line + len, sizeof(line) - len, "%s%s", i ? ", " : "",
					who[i].name);
	len += (size_t)snprintf(line + len, sizeof(line) - len, " %s; members:", what);
	for (unsigned i = 0; i < sb->nr_members && len < sizeof(line) - 32; i++)
		len += (size_t)snprintf(line + len, sizeof(line) - len, " %s", sb->members[i].name);
	story(sb->w, "bus > %s", line);
}

/* The membership as it is now becomes a place of the order. */
static void view_add(struct sim_bus *sb, const struct mem *left, unsigned nr_left)
{
	struct bus_member list[BUS_MEMBERS * 2];
	unsigned nr = 0;

	for (unsigned i = 0; i < sb->nr_members; i++)
		list[nr++] = sb->members[i].m;
	for (unsigned i = 0; i < nr_left; i++)
		list[nr++] = left[i].m;
	struct item *it = item_add(sb, true, list, nr * sizeof(*list));
	it->nr_members = sb->nr_members;
	it->nr_left = nr_left;
	schedule_all(sb);
}

int bus_member_idx(const struct sim_bus *sb, const struct incarnation *inc)
{
	for (unsigned i = 0; i < sb->nr_members; i++)
		if (bus_same(&sb->members[i].m.inc, inc))
			return (int)i;
	return -1;
}

static struct bus *bus_of(struct sim_bus *sb, const struct incarnation *inc)
{
	struct bus *b;

	cds_list_for_each_entry (b, &sb->buses, node)
		if (bus_same(&b->inc, inc))
			return b;
	return NULL;
}

/* Out of the list, into @left; nobody hears of it yet. */
static unsigned take_out(struct sim_bus *sb, const bool *which, bool silent, struct mem *left)
{
	unsigned kept = 0, gone = 0;

	for (unsigned i = 0; i < sb->nr_members; i++) {
		if (!which[i]) {
			sb->members[kept++] = sb->members[i];
			continue;
		}
		left[gone] = sb->members[i];
		left[gone++].m.silent = silent;
		const struct bus *b = bus_of(sb, &sb->members[i].m.inc);
		assert(silent || !b || b->closing); /* B5 */
	}
	sb->nr_members = kept;
	return gone;
}

void bus_remove(struct sim_bus *sb, const bool *which, bool silent)
{
	struct mem left[BUS_MEMBERS];
	unsigned gone = take_out(sb, which, silent, left);

	if (!gone)
		return;
	tell(sb, silent ? "fell silent" : "left", left, gone);
	view_add(sb, left, gone);
}

/* ---- delivery ---- */

static void bus_free(struct bus *b)
{
	struct world *w = b->sb->w;
	struct proc *before = w->running;

	w->running = NULL;
	if (b->pe_set)
		pevent_del(&b->pe);
	if (b->out_set)
		pevent_del(&b->out);
	event_del(w, &b->join);
	cds_list_del(&b->node);
	free(b);
	w->running = before;
}

static void message(struct bus *b, const struct item *it)
{
	const struct bus_member *m = b->view->data;
	unsigned i = 0;

	while (i < b->view->nr_members && !bus_same(&m[i].inc, &it->from))
		i++;
	assert(i < b->view->nr_members); /* B3 */
	if (bus_same(&it->from, &b->inc)) {
		assert(it->seq == b->nr_owned); /* B2 */
		b->nr_owned++;
	}
	b->cb.message(b->arg, &it->from, it->data, it->len);
}

static void deliver(struct pevent *pe)
{
	struct bus *b = caa_container_of(pe, struct bus, pe);
	const struct item *it = b->sb->items[b->next];

	b->pe_set = false;
	assert(it->nr == b->next && b->next < b->limit && !b->is_out); /* B1, B4 */
	b->next++;
	fold(b->sb->w, &it->nr, sizeof(it->nr));
	b->in_cb = true;
	if (it->view) {
		const struct bus_member *m = it->data;
		b->view = it;
		b->cb.view(b->arg, m, it->nr_members, m + it->nr_members, it->nr_left);
	} else {
		message(b, it);
	}
	b->in_cb = false;
	if (b->closing)
		bus_free(b);
	else
		bus_schedule(b);
}

void bus_schedule(struct bus *b)
{
	struct sim_bus *sb = b->sb;
	struct prng *r = &sb->w->rnd_bus;
	unsigned ip = b->p->ip % BUS_IPS;

	if (b->pe_set || !b->view || b->is_out || b->next >= sb->nr_items || b->next >= b->limit ||
	    sb->held[ip])
		return;
	/* What waits with others comes with them. */
	uint64_t at = sb->w->now + prng_in(r, US, b->next + 1 < sb->nr_items ? 20 * US : 300 * US);
	uint64_t due = sb->items[b->next]->at + sb->late[ip];
	if (sb->lag[ip])
		due += prng_in(r, 0, sb->lag[ip]);
	if (prng_chance(r, 1, 40))
		at += prng_in(r, 0, 100 * MS);
	at = at > due ? at : due;
	if (sb->batch[ip]) {
		if (sb->items[b->next]->at > b->gate)
			b->gate = at - at % sb->batch[ip] + sb->batch[ip];
		at = at > b->gate ? at : b->gate;
	}
	b->pe_set = true;
	b->pe.fn = deliver;
	b->pe.drop = NULL;
	pevent_set(b->p, &b->pe, at, "bus");
}

static void out_now(struct pevent *pe)
{
	struct bus *b = caa_container_of(pe, struct bus, out);

	b->out_set = false;
	b->is_out = true;
	if (b->pe_set)
		pevent_del(&b->pe);
	b->pe_set = false;
	b->in_cb = true;
	b->cb.out(b->arg, b->reason);
	b->in_cb = false;
	if (b->closing)
		bus_free(b);
}

void bus_put_out(struct bus *b, const char *reason, uint64_t after)
{
	if (b->limit > b->sb->nr_items)
		b->limit = b->sb->nr_items;
	if (b->out_set || b->is_out)
		return;
	b->out_set = true;
	b->reason = reason;
	b->out.fn = out_now;
	b->out.drop = NULL;
	pevent_set(b->p, &b->out, b->sb->w->now + after, "out");
}

/* ---- pace ---- */

void bus_lag(struct sim_bus *sb, uint32_t ip, uint64_t ns)
{
	sb->lag[ip % BUS_IPS] = ns;
}

void bus_late(struct sim_bus *sb, uint32_t ip, uint64_t ns)
{
	sb->late[ip % BUS_IPS] = ns;
}

void bus_batch(struct sim_bus *sb, uint32_t ip, uint64_t ns)
{
	sb->batch[ip % BUS_IPS] = ns;
}

void bus_hold(struct sim_bus *sb, uint32_t ip, bool held)
{
	struct bus *b;

	sb->held[ip % BUS_IPS] = held;
	cds_list_for_each_entry (b, &sb->buses, node) {
		if (b->p->ip != ip)
			continue;
		if (b->pe_set) /* what is about to arrive too, and at its new pace */
			pevent_del(&b->pe);
		b->pe_set = false;
		bus_schedule(b);
	}
}

/* ---- into the order ---- */

void bus_watch(struct sim_bus *sb, struct event *ev, unsigned type, unsigned nr)
{
	sb->watch = ev;
	sb->watch_type = type;
	sb->watch_left = nr;
}

uint32_t bus_last_joiner(const struct sim_bus *sb)
{
	return sb->last_joiner;
}

static void watch(struct sim_bus *sb, const struct sent *m)
{
	struct dec d = {.p = m->data, .end = m->data + m->len};
	struct msg_head h;

	if (!sb->watch || !msg_decode(&d, &h) || h.type != sb->watch_type || --sb->watch_left)
		return;
	event_set(sb->w, sb->watch, sb->w->now + prng_in(&sb->w->rnd_fault, 0, 2 * MS));
	sb->watch = NULL;
}

static void ordered(struct event *ev)
{
	struct sent *m = caa_container_of(ev, struct sent, ev);

	if (m->sb->split && m->sb->away[m->ip])
		return; /* bus_join() sends it on, if it is of any use then */
	if (bus_member_idx(m->sb, &m->inc) >= 0) { /* else void (B3) */
		struct item *it = item_add(m->sb, false, m->data, m->len);
		it->from = m->inc;
		it->seq = m->seq;
		watch(m->sb, m);
		schedule_all(m->sb);
	}
	cds_list_del(&m->node);
	free(m);
}

/* ---- the driver ---- */

static void joined(struct event *ev)
{
	struct bus *b = caa_container_of(ev, struct bus, join);
	struct sim_bus *sb = b->sb;
	struct mem left[BUS_MEMBERS], *me;
	bool which[BUS_MEMBERS] = {false};
	unsigned gone = 0;

	if ((sb->split && sb->away[b->p->ip]) || sb->w->now < sb->quorum_after) {
		event_set(sb->w, ev, sb->w->now + 10 * MS);
		return;
	}
	/* That the one before is dead may come with the news that it is back. */
	for (unsigned i = 0; i < sb->nr_members; i++) {
		const struct incarnation *inc = &sb->members[i].m.inc;
		if (!memcmp(inc->uuid, b->inc.uuid, 16) && !bus_of(sb, inc) &&
		    prng_chance(&sb->w->rnd_bus, 1, 2))
			which[i] = true;
	}
	gone = take_out(sb, which, false, left);
	assert(sb->nr_members < BUS_MEMBERS);
	me = &sb->members[sb->nr_members++];
	*me = (struct mem){.m.inc = b->inc, .ip = b->p->ip};
	snprintf(me->name, sizeof(me->name), "%.8s%u", b->p->name, (unsigned)b->inc.start);
	tell(sb, gone ? "is back" : "joined", me, 1);
	b->next = sb->nr_items; /* the view with it comes first */
	b->limit = UINT64_MAX;
	b->member = true;
	sb->last_joiner = b->p->ip;
	view_add(sb, left, gone);
	b->view = sb->items[b->next];
	bus_schedule(b);
}

static int sim_bus_open(struct env *env, const char *param, const struct incarnation *self,
			const struct bus_cb *cb, void *arg, struct bus **ret, char **err)
{
	struct proc *p = (struct proc *)env;
	struct sim_bus *sb = p->w->bus;
	struct bus *b;

	p->w->running = NULL;
	b = calloc(1, sizeof(*b));
	assert(b);
	*b = (struct bus){.sb = sb, .p = p, .inc = *self, .cb = *cb, .arg = arg};
	cds_list_add_tail(&b->node, &sb->buses);
	b->join.fn = joined;
	b->join.what = "join";
	event_set(sb->w, &b->join, sb->w->now + prng_in(&sb->w->rnd_bus, 100 * US, 20 * MS));
	p->w->running = p;
	*ret = b;
	return 0;
}

static void death_noticed(struct event *ev)
{
	struct death *d = caa_container_of(ev, struct death, ev);
	bool which[BUS_MEMBERS] = {false};
	int i = bus_member_idx(d->sb, &d->inc);

	if (i < 0)
		return;
	if (d->sb->split && d->sb->away[d->ip]) { /* from here it is silent at most */
		event_set(d->sb->w, ev, d->sb->w->now + 10 * MS);
		return;
	}
	which[i] = true;
	bus_remove(d->sb, which, d->silent);
}

static void death_add(struct bus *b, bool silent, uint64_t after)
{
	struct sim_bus *sb = b->sb;
	struct death *d = calloc(1, sizeof(*d));

	assert(d);
	*d = (struct death){
		.sb = sb, .inc = b->inc, .ip = b->p->ip, .silent = silent, .next = sb->deaths};
	sb->deaths = d;
	d->ev.fn = death_noticed;
	d->ev.what = "death";
	event_set(sb->w, &d->ev, sb->w->now + after);
}

static void sim_bus_close(struct bus *b)
{
	struct world *w = b->sb->w;
	struct proc *before = w->running;
	struct sent *m;

	w->running = NULL;
	cds_list_for_each_entry (m, &b->sb->sent, node)
		if (m->from == b) { /* what was sent before is ordered before the leave */
			event_del(w, &m->ev);
			event_set(w, &m->ev, w->now);
			m->from = NULL;
		}
	death_add(b, false, 0);
	w->running = before;
	b->closing = true;
	if (!b->in_cb)
		bus_free(b);
}

static int sim_bus_send(struct bus *b, const void *msg, size_t len)
{
	struct world *w = b->sb->w;
	struct proc *before = w->running;
	struct sent *m;

	if (len > BUS_MSG_MAX)
		return -EMSGSIZE;
	if (b->is_out)
		return -ENOTCONN;
	w->running = NULL;
	m = malloc(sizeof(*m) + len);
	assert(m);
	*m = (struct sent){.from = b,
			   .sb = b->sb,
			   .inc = b->inc,
			   .ip = b->p->ip,
			   .seq = b->nr_sent++,
			   .len = len};
	memcpy(m->data, msg, len);
	m->ev.fn = ordered;
	m->ev.what = "order";
	uint64_t at = w->now + prng_in(&w->rnd_bus, 20 * US, 200 * US);
	if (at <= b->last_sent_at)
		at = b->last_sent_at + 1;
	b->last_sent_at = at;
	cds_list_add_tail(&m->node, &b->sb->sent);
	event_set(w, &m->ev, at);
	w->running = before;
	return 0;
}

static int sim_bus_my_address(struct bus *b, uint8_t ip[16])
{
	memset(ip, 0, 16);
	ip[12] = 10;
	ip[15] = (uint8_t)b->p->ip;
	return 0;
}

const struct bus_driver bus_sim = {
	.name = "sim",
	.help = "the simulator's",
	.open = sim_bus_open,
	.close = sim_bus_close,
	.send = sim_bus_send,
	.my_address = sim_bus_my_address,
};

const struct bus_driver *const bus_drivers[] = {&bus_sim, NULL};

/* ---- deaths ---- */

/* The driver's own service on that machine says at once that the process is gone; a machine without
 * power says nothing. */
void bus_proc_died(struct sim_bus *sb, struct proc *p)
{
	struct prng *r = &sb->w->rnd_bus;
	struct bus *b, *next;
	struct sent *m, *nm;

	cds_list_for_each_entry_safe (b, next, &sb->buses, node) {
		if (b->p != p)
			continue;
		cds_list_for_each_entry_safe (m, nm, &sb->sent, node) {
			if (m->from != b)
				continue;
			m->from = NULL;
			if (prng_chance(r, 1, 2)) { /* it never left the machine */
				event_del(sb->w, &m->ev);
				cds_list_del(&m->node);
				free(m);
			}
		}
		if (b->member)
			death_add(b, p->power_lost,
				  p->power_lost ? prng_in(r, 300 * MS, 1500 * MS)
						: prng_in(r, 2 * MS, 300 * MS));
		bus_free(b);
	}
}

struct sim_bus *bus_new(struct world *w)
{
	struct sim_bus *sb = calloc(1, sizeof(*sb));

	assert(sb);
	sb->w = w;
	CDS_INIT_LIST_HEAD(&sb->buses);
	CDS_INIT_LIST_HEAD(&sb->sent);
	return sb;
}

void bus_destroy(struct sim_bus *sb)
{
	struct sent *m, *next;
	struct death *d;

	assert(cds_list_empty(&sb->buses));
	event_del(sb->w, &sb->notice);
	cds_list_for_each_entry_safe (m, next, &sb->sent, node) {
		event_del(sb->w, &m->ev);
		free(m);
	}
	while ((d = sb->deaths)) {
		event_del(sb->w, &d->ev);
		sb->deaths = d->next;
		free(d);
	}
	for (size_t i = 0; i < sb->nr_items; i++) {
		free(sb->items[i]->data);
		free(sb->items[i]);
	}
	free(sb->items);
	free(sb);
}
