/* wait.c - what coroutines wait on: time, I/O, events, conditions, mutexes, ranges, groups,
 * semaphores.
 *
 * Every wait is a record on the waiter's stack in somebody's list.  Who wakes takes the record out
 * of the list first, so a record is woken once; the waiter looks at the record, never at the fact
 * that it runs again.
 */
#include "config.h"

#include "lib/co/co_int.h"

#include <assert.h>
#include <errno.h>

struct waiter {
	struct cds_list_head node;
	struct co *co;
	bool done; /* taken out of the list by who woke it */
	uint64_t n;
	struct env_timer timer;
	bool expired;
};

static void waiter_wake(struct waiter *w)
{
	cds_list_del(&w->node);
	w->done = true;
	co_wake(w->co);
}

static void waiter_init(struct waiter *w, struct cds_list_head *list)
{
	w->co = co_self();
	w->done = w->expired = false;
	cds_list_add_tail(&w->node, list);
}

static void waiter_timeout(struct env_timer *t)
{
	struct waiter *w = caa_container_of(t, struct waiter, timer);

	if (w->done)
		return;
	w->expired = true;
	waiter_wake(w);
}

/* Until it is taken out of the list, or @until_ns.  0 or -ETIMEDOUT. */
static int waiter_wait_until(struct waiter *w, uint64_t until_ns, const char *why)
{
	struct env *env = co_sched_env(w->co->sched);

	w->timer = (struct env_timer){.fn = waiter_timeout};
	env_timer_set(env, &w->timer, until_ns);
	while (!w->done)
		co_park(why);
	env_timer_del(env, &w->timer);
	return w->expired ? -ETIMEDOUT : 0;
}

/* ---- time and I/O ---- */

void co_sleep(uint64_t ns)
{
	struct cds_list_head list;
	struct waiter w;

	CDS_INIT_LIST_HEAD(&list);
	waiter_init(&w, &list);
	waiter_wait_until(&w, env_now(co_sched_env(w.co->sched)) + ns, "sleep");
}

struct io_wait {
	struct co *co;
	bool done;
};

static void io_done(struct env_io *io)
{
	struct io_wait *w = io->arg;

	w->done = true;
	co_wake(w->co);
}

int64_t co_io(struct co_sched *s, struct env_io *io)
{
	struct io_wait w = {.co = co_self()};

	io->done = io_done;
	io->arg = &w;
	env_io_submit(co_sched_env(s), io);
	while (!w.done)
		co_park("disk");
	return io->result;
}

/* ---- event ---- */

void co_event_init(struct co_event *ev)
{
	CDS_INIT_LIST_HEAD(&ev->waiters);
	ev->set = false;
}

void co_event_set(struct co_event *ev)
{
	ev->set = true;
	while (!cds_list_empty(&ev->waiters))
		waiter_wake(cds_list_first_entry(&ev->waiters, struct waiter, node));
}

void co_event_clear(struct co_event *ev)
{
	ev->set = false;
}

void co_event_wait(struct co_event *ev)
{
	struct waiter w;

	if (ev->set)
		return;
	waiter_init(&w, &ev->waiters);
	while (!w.done)
		co_park("event");
}

int co_event_wait_until(struct co_event *ev, uint64_t until_ns)
{
	struct waiter w;

	if (ev->set)
		return 0;
	waiter_init(&w, &ev->waiters);
	return waiter_wait_until(&w, until_ns, "event");
}

/* ---- condition ---- */

void co_cond_init(struct co_cond *c)
{
	CDS_INIT_LIST_HEAD(&c->waiters);
}

void co_cond_wait(struct co_cond *c, const char *why)
{
	struct waiter w;

	waiter_init(&w, &c->waiters);
	while (!w.done)
		co_park(why);
}

int co_cond_wait_until(struct co_cond *c, uint64_t until_ns, const char *why)
{
	struct waiter w;

	waiter_init(&w, &c->waiters);
	return waiter_wait_until(&w, until_ns, why);
}

void co_cond_signal(struct co_cond *c)
{
	if (!cds_list_empty(&c->waiters))
		waiter_wake(cds_list_first_entry(&c->waiters, struct waiter, node));
}

void co_cond_broadcast(struct co_cond *c)
{
	while (!cds_list_empty(&c->waiters))
		waiter_wake(cds_list_first_entry(&c->waiters, struct waiter, node));
}

/* ---- mutex: handed over to the first waiter ---- */

void co_mutex_init(struct co_mutex *m)
{
	m->owner = NULL;
	CDS_INIT_LIST_HEAD(&m->waiters);
}

bool co_mutex_trylock(struct co_mutex *m)
{
	if (m->owner)
		return false;
	m->owner = co_self();
	return true;
}

void co_mutex_lock(struct co_mutex *m)
{
	struct waiter w;

	if (co_mutex_trylock(m))
		return;
	assert(m->owner != co_self());
	waiter_init(&w, &m->waiters);
	while (!w.done)
		co_park("mutex");
	assert(m->owner == w.co);
}

void co_mutex_unlock(struct co_mutex *m)
{
	struct waiter *w;

	assert(m->owner == co_self());
	m->owner = NULL;
	if (cds_list_empty(&m->waiters))
		return;
	w = cds_list_first_entry(&m->waiters, struct waiter, node);
	m->owner = w->co;
	waiter_wake(w);
}

/* ---- range lock ---- */

void co_ranges_init(struct co_ranges *r)
{
	CDS_INIT_LIST_HEAD(&r->held);
	CDS_INIT_LIST_HEAD(&r->waiters);
}

bool co_ranges_idle(const struct co_ranges *r)
{
	/* urcu's cds_list_empty() takes no const */
	return r->held.next == &r->held && r->waiters.next == &r->waiters;
}

static bool range_conflict(const struct co_range *a, const struct co_range *b)
{
	return (a->excl || b->excl) && a->off < b->off + b->len && b->off < a->off + a->len;
}

/* Free of conflict with what is held and with who came before (no starvation). */
static bool range_may(struct co_ranges *r, struct co_range *h)
{
	struct co_range *o;

	cds_list_for_each_entry (o, &r->held, node)
		if (range_conflict(h, o))
			return false;
	cds_list_for_each_entry (o, &r->waiters, node) {
		if (o == h)
			break;
		if (range_conflict(h, o))
			return false;
	}
	return true;
}

void co_range_lock(struct co_ranges *r, struct co_range *h, uint64_t off, uint64_t len, bool excl)
{
	*h = (struct co_range){.off = off, .len = len, .excl = excl, .co = co_self(), .set = r};
	if (range_may(r, h)) {
		h->granted = true;
		cds_list_add_tail(&h->node, &r->held);
		return;
	}
	cds_list_add_tail(&h->node, &r->waiters);
	while (!h->granted)
		co_park("range lock");
}

void co_range_unlock(struct co_range *h)
{
	struct co_ranges *r = h->set;
	struct co_range *o, *next;

	assert(h->granted);
	cds_list_del(&h->node);
	h->set = NULL;
	cds_list_for_each_entry_safe (o, next, &r->waiters, node) {
		if (!range_may(r, o))
			continue;
		cds_list_del(&o->node);
		cds_list_add_tail(&o->node, &r->held);
		o->granted = true;
		co_wake(o->co);
	}
}

/* ---- group ---- */

void co_group_init(struct co_group *g)
{
	g->nr = 0;
	g->waiter = NULL;
}

void co_group_add(struct co_group *g)
{
	g->nr++;
}

void co_group_done(struct co_group *g)
{
	assert(g->nr);
	if (--g->nr == 0 && g->waiter)
		co_wake(g->waiter);
}

void co_group_wait(struct co_group *g)
{
	assert(!g->waiter);
	while (g->nr) {
		g->waiter = co_self();
		co_park("group");
	}
	g->waiter = NULL;
}

struct group_child {
	struct co_group *g;
	void (*fn)(void *arg);
	void *arg;
};

static void group_child(void *arg)
{
	struct group_child child = *(struct group_child *)arg;

	child.fn(child.arg);
	co_group_done(child.g);
}

int co_group_start(struct co_sched *s, struct co_group *g, void (*fn)(void *arg), void *arg,
		   const char *name)
{
	struct group_child child = {g, fn, arg}; /* copied before the child can wait */

	co_group_add(g);
	if (co_enter(s, group_child, &child, name))
		return 0;
	g->nr--;
	return -ENOMEM;
}

/* ---- semaphore ---- */

void co_sem_init(struct co_sem *s, uint64_t avail)
{
	s->avail = avail;
	CDS_INIT_LIST_HEAD(&s->waiters);
}

void co_sem_take(struct co_sem *s, uint64_t n)
{
	struct waiter w;

	if (cds_list_empty(&s->waiters) && s->avail >= n) {
		s->avail -= n;
		return;
	}
	w.n = n;
	waiter_init(&w, &s->waiters);
	while (!w.done)
		co_park("semaphore");
}

void co_sem_give(struct co_sem *s, uint64_t n)
{
	struct waiter *w;

	s->avail += n;
	while (!cds_list_empty(&s->waiters)) {
		w = cds_list_first_entry(&s->waiters, struct waiter, node);
		if (w->n > s->avail)
			return;
		s->avail -= w->n;
		waiter_wake(w);
	}
}
