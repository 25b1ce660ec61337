/* bus.c - the simulated cluster driver (B1 to B5 of DESIGN 4.1): one order, every member at its own
 * pace. */
#include "config.h"

#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct item { /* one place of the order */
	uint64_t nr;
	unsigned refs;
	bool view;
	struct incarnation from; /* messages */
	size_t len;
	void *data; /* message, or array of struct bus_member: present, then left */
	unsigned nr_members, nr_left;
};

struct sent { /* not in the order yet */
	struct event ev;
	struct cds_list_head node;
	struct bus *from; /* NULL: it has died, the message with it or not */
	struct sim_bus *sb;
	struct incarnation inc;
	size_t len;
	uint8_t data[];
};

struct bus { /* one member */
	struct cds_list_head node;
	struct sim_bus *sb;
	struct proc *p;
	struct incarnation inc;
	struct bus_cb cb;
	void *arg;
	uint64_t next; /* the item it gets next */
	uint64_t last_sent_at;
	struct pevent pe;
	bool pe_set, member, closing, in_cb;
	struct event join;
};

struct sim_bus {
	struct world *w;
	struct item **items;
	size_t nr_items, cap_items;
	struct cds_list_head buses;
	struct bus_member members[NODES_MAX * 2];
	unsigned nr_members;
	struct cds_list_head sent;
	uint64_t lag[64], late[64]; /* by ip */
	bool held[64];
	struct death {
		struct event ev;
		struct sim_bus *sb;
		struct incarnation inc;
		struct death *next;
	} * deaths;
};

static bool same(const struct incarnation *a, const struct incarnation *b)
{
	return a->start == b->start && !memcmp(a->uuid, b->uuid, sizeof(a->uuid));
}

static void schedule(struct bus *b);

static struct item *item_add(struct sim_bus *sb, bool view, const void *data, size_t len)
{
	struct item *it = calloc(1, sizeof(*it));
	struct bus *b;

	assert(it);
	it->nr = sb->nr_items;
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
	cds_list_for_each_entry (b, &sb->buses, node)
		schedule(b);
	return it;
}

/* The membership as it is now becomes a place of the order. */
static void view_add(struct sim_bus *sb, const struct bus_member *left, unsigned nr_left)
{
	struct bus_member list[NODES_MAX * 4];

	memcpy(list, sb->members, sb->nr_members * sizeof(*list));
	if (nr_left)
		memcpy(list + sb->nr_members, left, nr_left * sizeof(*list));
	struct item *it = item_add(sb, true, list, (sb->nr_members + nr_left) * sizeof(*list));
	it->nr_members = sb->nr_members;
	it->nr_left = nr_left;
}

static int member_idx(const struct sim_bus *sb, const struct incarnation *inc)
{
	for (unsigned i = 0; i < sb->nr_members; i++)
		if (same(&sb->members[i].inc, inc))
			return (int)i;
	return -1;
}

static void member_remove(struct sim_bus *sb, const struct incarnation *inc, bool silent)
{
	int i = member_idx(sb, inc);
	struct bus_member left;

	if (i < 0)
		return;
	left = sb->members[i];
	left.silent = silent;
	memmove(&sb->members[i], &sb->members[i + 1],
		(sb->nr_members - (unsigned)i - 1) * sizeof(left));
	sb->nr_members--;
	view_add(sb, &left, 1);
}

/* ---- delivery ---- */

static void bus_free(struct bus *b)
{
	struct world *w = b->sb->w;
	struct proc *before = w->running;

	w->running = NULL;
	if (b->pe_set)
		pevent_del(&b->pe);
	event_del(w, &b->join);
	cds_list_del(&b->node);
	free(b);
	w->running = before;
}

static void deliver(struct pevent *pe)
{
	struct bus *b = caa_container_of(pe, struct bus, pe);
	struct item *it = b->sb->items[b->next++];

	b->pe_set = false;
	fold(b->sb->w, &it->nr, sizeof(it->nr));
	b->in_cb = true;
	if (it->view) {
		const struct bus_member *m = it->data;
		b->cb.view(b->arg, m, it->nr_members, m + it->nr_members, it->nr_left);
	} else {
		b->cb.message(b->arg, &it->from, it->data, it->len);
	}
	b->in_cb = false;
	if (b->closing)
		bus_free(b);
	else
		schedule(b);
}

static void schedule(struct bus *b)
{
	struct prng *r = &b->sb->w->rnd_bus;
	uint64_t delay = prng_in(r, 20 * US, 300 * US);

	if (b->pe_set || !b->member || b->next >= b->sb->nr_items || b->sb->held[b->p->ip % 64])
		return;
	delay += b->sb->late[b->p->ip % 64];
	uint64_t lag = b->sb->lag[b->p->ip % 64];
	if (lag)
		delay += prng_in(r, 0, lag);
	if (prng_chance(r, 1, 40)) {
		delay += prng_in(r, 0, 100 * MS);
		world_fault(b->sb->w, FAULT_LATE_VIEW);
	}
	b->pe_set = true;
	b->pe.fn = deliver;
	b->pe.drop = NULL;
	pevent_set(b->p, &b->pe, b->sb->w->now + delay, "bus");
}

void bus_lag(struct sim_bus *sb, uint32_t ip, uint64_t ns)
{
	sb->lag[ip % 64] = ns;
}

void bus_late(struct sim_bus *sb, uint32_t ip, uint64_t ns)
{
	sb->late[ip % 64] = ns;
}

void bus_hold(struct sim_bus *sb, uint32_t ip, bool held)
{
	struct bus *b;

	sb->held[ip % 64] = held;
	cds_list_for_each_entry (b, &sb->buses, node) {
		if (b->p->ip != ip)
			continue;
		if (b->pe_set) /* what is about to arrive too, and at its new pace */
			pevent_del(&b->pe);
		b->pe_set = false;
		schedule(b);
	}
}

static void ordered(struct event *ev)
{
	struct sent *m = caa_container_of(ev, struct sent, ev);

	if (member_idx(m->sb, &m->inc) >= 0) { /* else void (B3) */
		struct item *it = item_add(m->sb, false, m->data, m->len);
		it->from = m->inc;
	}
	cds_list_del(&m->node);
	free(m);
}

/* ---- the driver ---- */

static void joined(struct event *ev)
{
	struct bus *b = caa_container_of(ev, struct bus, join);
	struct sim_bus *sb = b->sb;

	assert(sb->nr_members < NODES_MAX * 2);
	sb->members[sb->nr_members++] = (struct bus_member){.inc = b->inc};
	b->next = sb->nr_items; /* the view with it comes first */
	b->member = true;
	view_add(sb, NULL, 0);
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
	b->member = false;
	struct death *d = calloc(1, sizeof(*d));
	assert(d);
	*d = (struct death){.sb = b->sb, .inc = b->inc, .next = b->sb->deaths};
	b->sb->deaths = d;
	sim_bus_schedule_death(b->sb, d, 0);
	w->running = before;
	b->closing = true;
	if (!b->in_cb)
		bus_free(b);
}

static void death_noticed(struct event *ev)
{
	struct death *d = caa_container_of(ev, struct death, ev);

	member_remove(d->sb, &d->inc, false);
}

void sim_bus_schedule_death(struct sim_bus *sb, struct death *d, uint64_t after)
{
	d->ev.fn = death_noticed;
	d->ev.what = "death";
	event_set(sb->w, &d->ev, sb->w->now + after);
}

static int sim_bus_send(struct bus *b, const void *msg, size_t len)
{
	struct world *w = b->sb->w;
	struct proc *before = w->running;
	struct sent *m;

	if (len > BUS_MSG_MAX)
		return -EMSGSIZE;
	w->running = NULL;
	m = malloc(sizeof(*m) + len);
	assert(m);
	*m = (struct sent){.from = b, .sb = b->sb, .inc = b->inc, .len = len};
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
		if (b->member || b->join.idx) {
			struct death *d = calloc(1, sizeof(*d));
			assert(d);
			*d = (struct death){.sb = sb, .inc = b->inc, .next = sb->deaths};
			sb->deaths = d;
			sim_bus_schedule_death(sb, d, prng_in(r, 2 * MS, 300 * MS));
		}
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
