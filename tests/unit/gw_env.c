/* gw_env.c - the virtual clock of gw_rig.h */
#include "config.h"

#include <assert.h>
#include <stdlib.h>

#include "tests/unit/gw_rig.h"

/* ---- virtual world ---- */

static struct rig *rig_of(struct env *e)
{
	return caa_container_of(e, struct rig, env);
}

static uint64_t e_now(struct env *e)
{
	return rig_of(e)->now;
}

static uint64_t e_wall(struct env *e)
{
	return 1700000000000000000ull + rig_of(e)->now;
}

uint64_t rig_rand(struct rig *r, uint64_t n)
{
	r->rng ^= r->rng << 13;
	r->rng ^= r->rng >> 7;
	r->rng ^= r->rng << 17;
	return n ? r->rng % n : 0;
}

static void e_random(struct env *e, void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = rig_rand(rig_of(e), 256);
}

/* Timers are in a list in order of (time, sequence); heap_idx 1: armed. */
struct tnode {
	struct cds_list_head node;
	struct env_timer *t;
};

void rig_timer_del(struct env *e, struct env_timer *t)
{
	struct tnode *n, *next;

	if (!t->heap_idx)
		return;
	cds_list_for_each_entry_safe (n, next, &rig_of(e)->timers, node)
		if (n->t == t) {
			cds_list_del(&n->node);
			free(n);
			t->heap_idx = 0;
			return;
		}
	abort();
}

void rig_timer_set(struct env *e, struct env_timer *t, uint64_t at)
{
	struct rig *r = rig_of(e);
	struct tnode *n = malloc(sizeof(*n)), *o;
	struct cds_list_head *p = r->timers.prev;

	rig_timer_del(e, t);
	p = r->timers.prev;
	t->at_ns = at;
	t->seq = r->seq++;
	t->heap_idx = 1;
	n->t = t;
	for (; p != &r->timers; p = p->prev) {
		o = cds_list_entry(p, struct tnode, node);
		if (o->t->at_ns <= at)
			break;
	}
	cds_list_add(&n->node, p);
}

static void e_defer(struct env *e, struct env_defer *d)
{
	if (d->queued)
		return;
	d->queued = true;
	cds_list_add_tail(&d->node, &rig_of(e)->defers);
}

static void e_defer_del(struct env *e, struct env_defer *d)
{
	if (d->queued)
		cds_list_del(&d->node);
	d->queued = false;
}

const struct env_ops rig_ops = {
	.now = e_now,
	.wall = e_wall,
	.random = e_random,
	.timer_set = rig_timer_set,
	.timer_del = rig_timer_del,
	.defer = e_defer,
	.defer_del = e_defer_del,
};

static bool rig_step(struct rig *r, uint64_t until)
{
	if (!cds_list_empty(&r->defers)) {
		struct env_defer *d = cds_list_first_entry(&r->defers, struct env_defer, node);
		e_defer_del(&r->env, d);
		d->fn(d);
		return true;
	}
	if (cds_list_empty(&r->timers))
		return false;
	struct env_timer *t = cds_list_first_entry(&r->timers, struct tnode, node)->t;
	if (t->at_ns > until)
		return false;
	if (t->at_ns > r->now)
		r->now = t->at_ns;
	rig_timer_del(&r->env, t);
	t->fn(t);
	return true;
}

bool rig_run(struct rig *r, const bool *flag, uint64_t ns)
{
	uint64_t until = r->now + ns;

	while (!(flag && *flag) && rig_step(r, until))
		;
	if (!(flag && *flag) && r->now < until)
		r->now = until;
	return flag && *flag;
}

void rig_sleep(struct rig *r, uint64_t ns)
{
	rig_run(r, NULL, ns);
}

struct run {
	void (*fn)(void *);
	void *arg;
	bool done;
};

static void run_co(void *arg)
{
	struct run *x = arg;

	x->fn(x->arg);
	x->done = true;
}

void rig_co(struct rig *r, void (*fn)(void *arg), void *arg)
{
	struct run x = {fn, arg, false};

	assert(co_start(r->sched, run_co, &x, "test"));
	bool ok = rig_run(r, &x.done, 60000 * MS);
	assert(ok);
	(void)ok;
}
