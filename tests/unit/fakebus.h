/* fakebus.h - a cluster driver in memory, for tests of what stands on drivers: one order, views,
 * deaths, and delivery that the test can hold up for each member. */
#ifndef TESTS_UNIT_FAKEBUS_H
#define TESTS_UNIT_FAKEBUS_H

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/cluster/driver.h"

#define FAKE_MAX 16u

struct fake_ev {
	struct cds_list_head node;
	bool view;
	unsigned nr, nr_left;
	struct bus_member members[FAKE_MAX], left[FAKE_MAX];
	struct incarnation from;
	size_t len;
	uint8_t data[];
};

struct bus {
	struct env *env;
	struct bus_cb cb;
	void *arg;
	struct incarnation self;
	struct cds_list_head queue,
		out; /* to be delivered; sent, but without a place in the order */
	struct env_defer deliver;
	bool slow;     /* what it sends gets its place later... */
	unsigned pass; /* ...but for that many messages */
	bool held, dead;
	unsigned take; /* held, but that many events may pass */
};

/* The one bus of a test: members, oldest first. */
extern struct fake {
	struct bus *m[FAKE_MAX];
	unsigned nr;
	uint8_t hold_uuid;  /* whose uuid begins so is held from its beginning... */
	unsigned hold_take; /* ...but for that many events */
	uint8_t slow_uuid;  /* the same for bus.slow and bus.pass */
	unsigned slow_pass;
} fake;

static inline void fake_put(struct bus *b, struct fake_ev *ev)
{
	cds_list_add_tail(&ev->node, &b->queue);
	if (!b->held || b->take)
		env_defer(b->env, &b->deliver);
}

static inline void fake_view(const struct incarnation *left)
{
	for (unsigned i = 0; i < fake.nr; i++) {
		struct fake_ev *ev = calloc(1, sizeof(*ev));
		ev->view = true;
		for (unsigned k = 0; k < fake.nr; k++)
			ev->members[ev->nr++].inc = fake.m[k]->self;
		if (left)
			ev->left[ev->nr_left++].inc = *left;
		fake_put(fake.m[i], ev);
	}
}

static inline void fake_deliver(struct env_defer *d)
{
	struct bus *b = caa_container_of(d, struct bus, deliver);

	while (!cds_list_empty(&b->queue) && !b->dead && (!b->held || b->take)) {
		struct fake_ev *ev = cds_list_first_entry(&b->queue, struct fake_ev, node);
		cds_list_del(&ev->node);
		if (b->take)
			b->take--;
		if (ev->view)
			b->cb.view(b->arg, ev->members, ev->nr, ev->left, ev->nr_left);
		else
			b->cb.message(b->arg, &ev->from, ev->data, ev->len);
		free(ev);
	}
}

static inline struct bus *fake_find(const struct incarnation *inc)
{
	for (unsigned i = 0; i < fake.nr; i++)
		if (!memcmp(&fake.m[i]->self, inc, sizeof(*inc)))
			return fake.m[i];
	return NULL;
}

/* Hold up what @b is delivered; let all of it go, or @take events. */
static inline void fake_hold(struct bus *b)
{
	b->held = true;
	b->take = 0;
}

static inline void fake_release(struct bus *b, unsigned take)
{
	b->held = take != 0;
	b->take = take;
	env_defer(b->env, &b->deliver);
}

/* The process of @b is dead: the others are told, it is told nothing any more. */
static inline void fake_kill(struct bus *b)
{
	struct fake_ev *ev, *next;
	struct incarnation self = b->self;
	unsigned i = 0;

	if (b->dead)
		return;
	b->dead = true;
	env_defer_del(b->env, &b->deliver);
	cds_list_splice(&b->out, &b->queue);
	cds_list_for_each_entry_safe (ev, next, &b->queue, node) {
		cds_list_del(&ev->node);
		free(ev);
	}
	while (fake.m[i] != b)
		i++;
	memmove(&fake.m[i], &fake.m[i + 1], (fake.nr - i - 1) * sizeof(fake.m[0]));
	fake.nr--;
	fake_view(&self);
}

static inline int fake_open(struct env *env, const char *param, const struct incarnation *self,
			    const struct bus_cb *cb, void *arg, struct bus **ret, char **err)
{
	struct bus *b = calloc(1, sizeof(*b));

	if (param && !strcmp(param, "broken")) {
		free(b);
		*err = strdup("the bus is broken");
		return -ECONNREFUSED;
	}
	assert(fake.nr < FAKE_MAX);
	b->env = env;
	b->cb = *cb;
	b->arg = arg;
	b->self = *self;
	b->deliver.fn = fake_deliver;
	CDS_INIT_LIST_HEAD(&b->queue);
	CDS_INIT_LIST_HEAD(&b->out);
	b->held = fake.hold_uuid == self->uuid[0];
	b->take = b->held ? fake.hold_take : 0;
	b->slow = fake.slow_uuid == self->uuid[0];
	b->pass = b->slow ? fake.slow_pass : 0;
	fake.m[fake.nr++] = b;
	*ret = b;
	fake_view(NULL);
	return 0;
}

static inline void fake_close(struct bus *b)
{
	fake_kill(b);
	free(b);
}

static inline struct fake_ev *fake_message(struct bus *b, const void *msg, size_t len)
{
	struct fake_ev *ev = calloc(1, sizeof(*ev) + len);

	ev->from = b->self;
	ev->len = len;
	memcpy(ev->data, msg, len);
	return ev;
}

static inline void fake_order(struct bus *b, const void *msg, size_t len)
{
	for (unsigned i = 0; i < fake.nr; i++)
		fake_put(fake.m[i], fake_message(b, msg, len));
}

static inline int fake_send(struct bus *b, const void *msg, size_t len)
{
	if (b->dead)
		return -ENOTCONN;
	if (b->slow && !b->pass) {
		cds_list_add_tail(&fake_message(b, msg, len)->node, &b->out);
		return 0;
	}
	if (b->slow)
		b->pass--;
	fake_order(b, msg, len);
	return 0;
}

/* What @b has sent gets its place now. */
static inline void fake_flush(struct bus *b)
{
	struct fake_ev *ev, *next;

	b->slow = false;
	cds_list_for_each_entry_safe (ev, next, &b->out, node) {
		cds_list_del(&ev->node);
		fake_order(b, ev->data, ev->len);
		free(ev);
	}
}

static inline int fake_address(struct bus *b, uint8_t ip[16])
{
	memset(ip, 0, 16);
	ip[12] = 127;
	ip[15] = b->self.uuid[0];
	return 0;
}

static const struct bus_driver fake_driver = {
	.name = "fake",
	.open = fake_open,
	.close = fake_close,
	.send = fake_send,
	.my_address = fake_address,
};

#endif
