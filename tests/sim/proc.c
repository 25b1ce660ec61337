/* proc.c - one simulated process: its clock, timers, deferred calls; pause, resume, the end. */
#include "config.h"

#include "tests/sim/world.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TURN_NS 2000ull /* from a deferred call to its turn: a reactor is not infinitely fast */

static struct proc *proc_of(struct env *e)
{
	return (struct proc *)e;
}

/* ---- running its code ---- */

void proc_call(struct proc *p, void (*fn)(void *arg), void *arg)
{
	struct world *w = p->w;
	struct proc *before = w->running;

	assert(!p->dead && !p->paused);
	w->running = p;
	fn(arg);
	w->running = before;
}

static void pevent_run(void *arg)
{
	struct pevent *pe = arg;

	pe->fn(pe);
}

static void pevent_fire(struct event *ev)
{
	struct pevent *pe = caa_container_of(ev, struct pevent, ev);

	if (pe->p->paused) {
		cds_list_add_tail(&pe->held, &pe->p->held);
		return;
	}
	cds_list_del(&pe->all);
	CDS_INIT_LIST_HEAD(&pe->all);
	proc_call(pe->p, pevent_run, pe);
}

void pevent_set(struct proc *p, struct pevent *pe, uint64_t at, const char *what)
{
	pe->p = p;
	pe->ev.fn = pevent_fire;
	pe->ev.what = what;
	CDS_INIT_LIST_HEAD(&pe->held);
	cds_list_add_tail(&pe->all, &p->pevents);
	event_set(p->w, &pe->ev, at);
}

void pevent_del(struct pevent *pe)
{
	if (!pe->p)
		return;
	event_del(pe->p->w, &pe->ev);
	cds_list_del(&pe->held);
	cds_list_del(&pe->all);
	CDS_INIT_LIST_HEAD(&pe->held);
	CDS_INIT_LIST_HEAD(&pe->all);
}

/* ---- deferred calls ---- */

static void turn(struct pevent *pe)
{
	struct proc *p = caa_container_of(pe, struct proc, turn);
	struct cds_list_head list;

	/* What they queue themselves comes in the next turn. */
	CDS_INIT_LIST_HEAD(&list);
	cds_list_splice(&p->defers, &list);
	CDS_INIT_LIST_HEAD(&p->defers);
	p->turn_set = false;
	while (!cds_list_empty(&list)) {
		struct env_defer *d = cds_list_first_entry(&list, struct env_defer, node);
		cds_list_del(&d->node);
		d->queued = false;
		d->fn(d);
	}
}

static void sim_defer(struct env *e, struct env_defer *d)
{
	struct proc *p = proc_of(e);

	if (d->queued)
		return;
	d->queued = true;
	cds_list_add_tail(&d->node, &p->defers);
	if (!p->turn_set) {
		p->turn_set = true;
		p->turn.fn = turn;
		pevent_set(p, &p->turn, p->w->now + TURN_NS, "turn");
	}
}

static void sim_defer_del(struct env *e, struct env_defer *d)
{
	if (d->queued)
		cds_list_del(&d->node);
	d->queued = false;
}

/* ---- clocks and timers ---- */

uint64_t clock_at(const struct sim_clock *c, uint64_t world_ns)
{
	uint64_t gone = world_ns - c->base;

	return c->local + gone + (uint64_t)((int64_t)(gone / 1000) * c->drift_ppm / 1000);
}

void clock_drift(struct sim_clock *c, uint64_t world_ns, int64_t ppm)
{
	c->local = clock_at(c, world_ns);
	c->base = world_ns;
	c->drift_ppm = ppm;
}

static uint64_t sim_now(struct env *e)
{
	struct proc *p = proc_of(e);

	return clock_at(p->clock, p->w->now);
}

/* World time at which the local clock shows at least @local. */
static uint64_t to_world(struct proc *p, uint64_t local)
{
	uint64_t now = sim_now(&p->env), per_ms = (uint64_t)(1000000 + p->clock->drift_ppm);

	if (local <= now)
		return p->w->now;
	/* Rounded up; a timer that comes too early all the same is set again. */
	return p->w->now + (local - now) / per_ms * 1000000 +
	       (local - now) % per_ms * 1000000 / per_ms + 1;
}

static uint64_t sim_wall(struct env *e)
{
	return 1700000000ull * SEC + proc_of(e)->w->now + (uint64_t)proc_of(e)->clock->wall_off;
}

static bool timer_before(const struct env_timer *a, const struct env_timer *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void timer_put(struct proc *p, size_t i, struct env_timer *t)
{
	p->timers[i] = t;
	t->heap_idx = i + 1;
}

static void timer_sift(struct proc *p, size_t i)
{
	struct env_timer *t = p->timers[i];

	while (i && timer_before(t, p->timers[(i - 1) / 2])) {
		timer_put(p, i, p->timers[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (;;) {
		size_t k = 2 * i + 1;
		if (k >= p->nr_timers)
			break;
		if (k + 1 < p->nr_timers && timer_before(p->timers[k + 1], p->timers[k]))
			k++;
		if (!timer_before(p->timers[k], t))
			break;
		timer_put(p, i, p->timers[k]);
		i = k;
	}
	timer_put(p, i, t);
}

static void timers_fire(struct pevent *pe)
{
	struct proc *p = caa_container_of(pe, struct proc, timer);
	struct env_timer *t;

	p->timer_set = false;
	while (p->nr_timers && p->timers[0]->at_ns <= sim_now(&p->env)) {
		t = p->timers[0];
		env_timer_del(&p->env, t);
		t->fn(t);
	}
	proc_arm(p);
}

void proc_arm(struct proc *p)
{
	if (p->timer_set)
		pevent_del(&p->timer);
	p->timer_set = p->nr_timers > 0;
	if (!p->timer_set)
		return;
	p->timer.fn = timers_fire;
	pevent_set(p, &p->timer, to_world(p, p->timers[0]->at_ns), "timer");
}

static void sim_timer_del(struct env *e, struct env_timer *t)
{
	struct proc *p = proc_of(e);

	if (!t->heap_idx)
		return;
	size_t i = t->heap_idx - 1;
	struct env_timer *last = p->timers[--p->nr_timers];

	t->heap_idx = 0;
	if (last == t)
		return;
	timer_put(p, i, last);
	timer_sift(p, i);
}

static void sim_timer_set(struct env *e, struct env_timer *t, uint64_t at)
{
	struct proc *p = proc_of(e);

	sim_timer_del(e, t);
	t->at_ns = at;
	t->seq = ++p->timer_seq;
	assert(p->nr_timers < PROC_TIMERS_MAX);
	timer_put(p, p->nr_timers++, t);
	timer_sift(p, p->nr_timers - 1);
	if (p->timers[0] == t)
		proc_arm(p);
}

static void sim_random(struct env *e, void *buf, size_t len)
{
	struct proc *p = proc_of(e);

	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)prng_next(&p->w->rnd_ids);
}

static void sim_boot_id(struct env *e, uint8_t id[16])
{
	memcpy(id, proc_of(e)->boot_id, 16);
}

static void sim_io_submit(struct env *e, struct env_io *io)
{
	disk_submit(proc_of(e), io);
}

const struct env_ops sim_ops = {
	.now = sim_now,
	.wall = sim_wall,
	.random = sim_random,
	.timer_set = sim_timer_set,
	.timer_del = sim_timer_del,
	.defer = sim_defer,
	.defer_del = sim_defer_del,
	.io_submit = sim_io_submit,
	.listen = sim_listen,
	.accept = sim_accept,
	.connect = sim_connect,
	.recv = sim_recv,
	.send = sim_send,
	.sock_handler = sim_sock_handler,
	.sock_error = sim_sock_error,
	.sock_name = sim_sock_name,
	.sock_close = sim_sock_close,
	.boot_id = sim_boot_id,
};

/* ---- birth and death ---- */

struct proc *proc_new(struct world *w, const char *name, uint32_t ip, struct sim_disk *disk)
{
	struct proc *before = w->running, *p, **end;

	w->running = NULL; /* its own memory is the world's */
	p = calloc(1, sizeof(*p));
	assert(p);
	p->env.ops = &sim_ops;
	p->w = w;
	p->pid = ++w->next_pid;
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->ip = ip;
	p->disk = disk;
	p->own = (struct sim_clock){.base = w->now, .local = w->now};
	p->clock = &p->own;
	CDS_INIT_LIST_HEAD(&p->defers);
	CDS_INIT_LIST_HEAD(&p->held);
	CDS_INIT_LIST_HEAD(&p->pevents);
	CDS_INIT_LIST_HEAD(&p->memory);
	for (end = &w->procs; *end; end = &(*end)->next)
		;
	*end = p;
	w->running = before;
	return p;
}

void proc_kill(struct proc *p)
{
	struct world *w = p->w;
	struct proc **at = &w->procs;

	assert(w->running != p);
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->dead = true;
	if (p->turn_set)
		pevent_del(&p->turn);
	if (p->timer_set)
		pevent_del(&p->timer);
	net_proc_died(w->net, p);
	if (p->disk)
		disk_proc_died(p->disk, p);
	while (!cds_list_empty(&p->pevents)) {
		struct pevent *pe = cds_list_first_entry(&p->pevents, struct pevent, all);
		pevent_del(pe);
		if (pe->drop)
			pe->drop(pe);
	}
	memory_drop(p);
	free(p);
}

bool proc_exit(struct proc *p)
{
	bool clean = !p->nr_blocks && !p->nr_files && !p->nr_ios && !p->nr_timers;

	if (!clean)
		world_fail(p->w, "%s left %llu blocks of memory, %u files, %u I/Os, %u timers",
			   p->name, (unsigned long long)p->nr_blocks, p->nr_files, p->nr_ios,
			   p->nr_timers);
	proc_kill(p);
	return clean;
}

void proc_pause(struct proc *p)
{
	p->paused = true;
}

void proc_resume(struct proc *p)
{
	struct cds_list_head list;

	CDS_INIT_LIST_HEAD(&list);
	cds_list_splice(&p->held, &list);
	CDS_INIT_LIST_HEAD(&p->held);
	p->paused = false;
	while (!cds_list_empty(&list)) { /* in the order in which they came */
		struct pevent *pe = cds_list_first_entry(&list, struct pevent, held);
		cds_list_del(&pe->held);
		CDS_INIT_LIST_HEAD(&pe->held);
		event_set(p->w, &pe->ev, p->w->now);
	}
}
