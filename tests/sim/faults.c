/* faults.c - when something goes wrong, drawn from the seed, and how all heals. */
#include "config.h"

#include "sheep/cluster.h"
#include "tests/sim/faults.h"

#include <assert.h>
#include <string.h>

#define TRIES	  8u
#define LULLS	  5u /* of a run, at most */
#define LULL_MAX  (4 * SEC)
#define LULL_STEP (100 * MS)

/* ---- the end of a fault that lasts ---- */

static void later_now(struct event *ev)
{
	struct later *l = caa_container_of(ev, struct later, ev);

	l->used = false;
	l->fn(l->r, l->n, l->arg);
}

bool later(struct run *r, uint64_t ns, void (*fn)(struct run *r, struct node *n, uint32_t arg),
	   struct node *n, uint32_t arg)
{
	unsigned i = 0;

	while (i < LATER_MAX && r->later[i].used)
		i++;
	if (i == LATER_MAX)
		return false;
	struct later *l = &r->later[i];
	l->used = true;
	l->r = r;
	l->fn = fn;
	l->n = n;
	l->arg = arg;
	l->ev.fn = later_now;
	l->ev.what = "later";
	event_set(&r->w, &l->ev, r->w.now + ns);
	return true;
}

/* ---- whom ---- */

struct node *any_node(struct run *r)
{
	return &r->node[prng_in(&r->w.rnd_fault, 0, r->shape.nr_nodes - 1)];
}

struct node *any_running(struct run *r)
{
	unsigned at = (unsigned)prng_in(&r->w.rnd_fault, 0, r->shape.nr_nodes - 1);

	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		struct node *n = &r->node[(at + i) % r->shape.nr_nodes];
		if (n->p)
			return n;
	}
	return NULL;
}

void unrot(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		disk_unrot(r->node[i].disk);
}

/* What is cached survives in the other replicas: they must be there (DESIGN I1). */
bool may_lose_power(struct run *r)
{
	return !r->shape.cached || at_rest(r);
}

void kill_client(struct run *r)
{
	struct client *c = &r->client[prng_in(&r->w.rnd_fault, 0, r->shape.nr_clients - 1)];

	world_fault(&r->w, FAULT_CLIENT);
	client_kill(c);
	client_start(c);
}

void calm(struct run *r, uint64_t ns)
{
	for (unsigned i = 0; i < r->shape.nr_clients; i++) {
		r->client[i].writes = 0;
		r->client[i].mood_until = ns == UINT64_MAX ? ns : r->w.now + ns;
	}
}

/* ---- one after the other ---- */

static unsigned weight(const struct run *r, unsigned i)
{
	return r->kinds >> i & 1 ? fault_kinds[i].weight : 0;
}

static const struct kind *draw(struct run *r)
{
	unsigned sum = 0, i;

	for (i = 0; fault_kinds[i].name; i++)
		sum += weight(r, i);
	if (!sum)
		return NULL;
	unsigned dice = (unsigned)prng_in(&r->w.rnd_fault, 0, sum - 1);
	for (i = 0; dice >= weight(r, i); i++)
		dice -= weight(r, i);
	return &fault_kinds[i];
}

/* ---- kinds that need rest ---- */

/* The phase takes as much longer, so that the other faults come to their turn. */
static void lull(struct run *r)
{
	uint64_t ns = r->shape.gap_ns < LULL_STEP ? r->shape.gap_ns : LULL_STEP;

	event_set(&r->w, &r->fault, r->w.now + ns);
	if (r->w.now < r->lull_until)
		r->shape.fault_ns += ns;
}

/* One bad disk is enough. */
static bool wait_for_patient(struct run *r)
{
	if (!r->patient)
		return false;
	lull(r);
	if (!r->patient->p)
		node_start(r->patient);
	if (all_well(r)) {
		story(&r->w, "%s > is well again", r->patient->name);
		r->patient = NULL;
	}
	return true;
}

/* The kind that was drawn waits for rest: nothing new goes wrong before. */
static bool wait_for_rest(struct run *r)
{
	const struct kind *k = r->wanted;

	if (!k || r->w.now > r->lull_until) {
		r->wanted = NULL;
		return false;
	}
	lull(r);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		struct node *n = &r->node[i];
		if (n->installed && !n->p && !n->away)
			node_start(n);
	}
	if (all_well(r)) {
		struct node *n = any_running(r);
		r->wanted = NULL;
		r->lull_until = r->w.now + LULL_MAX;
		k->fn(r, n);
	}
	return true;
}

static bool begin(struct run *r, const struct kind *k)
{
	struct node *n = any_running(r);

	if (!k || !n)
		return false;
	if (k->rest && r->shape.copies > 1 && !all_well(r) && r->nr_lulls < LULLS) {
		story(&r->w, "a lull, for %s", k->name);
		r->nr_lulls++;
		r->wanted = k;
		r->lull_until = r->w.now + LULL_MAX;
		return true;
	}
	r->lull_until = r->w.now + LULL_MAX;
	return k->fn(r, n);
}

static void one_fault(struct event *ev)
{
	struct run *r = caa_container_of(ev, struct run, fault);
	struct prng *p = &r->w.rnd_fault;
	struct node *n = NULL;

	event_set(&r->w, ev, r->w.now + prng_in(p, r->shape.gap_ns / 50, r->shape.gap_ns));
	if (wait_for_patient(r) || wait_for_rest(r))
		return;
	unrot(r);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (!r->node[i].p && r->node[i].installed && !r->node[i].away &&
		    prng_chance(p, r->shape.eager, 10))
			n = &r->node[i];
	if (!n)
		n = any_node(r);
	if (n->installed && !n->p && !n->away) {
		node_start(n);
		return;
	}
	for (unsigned i = 0; i < TRIES; i++)
		if (begin(r, draw(r)))
			return;
}

/* A random half of the kinds; now and then all of them. */
static void swarm(struct run *r)
{
	struct prng p;

	prng_init(&p, r->w.seed, 8);
	bool all = prng_chance(&p, 1, 8);
	for (unsigned i = 0; fault_kinds[i].name; i++) {
		assert(i < 64);
		bool on = prng_chance(&p, 1, 2) || all;
		if (r->only ? !strcmp(r->only, fault_kinds[i].name)
			    : on && r->shape.gap_ns >= fault_kinds[i].gap_ns)
			r->kinds |= 1ull << i;
	}
	char line[400];
	size_t len = 0;
	for (unsigned i = 0; fault_kinds[i].name && len < sizeof(line) - 40; i++)
		if (r->kinds >> i & 1)
			len += (size_t)snprintf(line + len, sizeof(line) - len, "%s%s",
						len ? ", " : "", fault_kinds[i].name);
	story(&r->w, "faults: one every %u ms at most, of: %s", (unsigned)(r->shape.gap_ns / MS),
	      len ? line : "none");
}

void faults_start(struct run *r)
{
	r->faults_on = true;
	r->shape.fault_ns += r->w.now;
	r->fault.fn = one_fault;
	r->fault.what = "fault";
	if (r->no_faults)
		return;
	swarm(r);
	event_set(&r->w, &r->fault, r->w.now + 500 * MS);
}

void faults_done(struct run *r)
{
	event_del(&r->w, &r->fault);
	event_del(&r->w, &r->doom);
	event_del(&r->w, &r->ambush);
	for (unsigned i = 0; i < LATER_MAX; i++)
		event_del(&r->w, &r->later[i].ev);
}

void heal(struct run *r)
{
	story(&r->w, "all > heals");
	faults_done(r);
	admin_end(r);
	r->patient = NULL;
	r->wanted = NULL;
	net_on_send(r->w.net, NULL, 0);
	bus_watch(r->w.bus, NULL, 0, 0);
	net_heal(r->w.net);
	bus_join(r->w.bus);
	unrot(r);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		struct node *n = &r->node[i];
		bus_lag(r->w.bus, n->ip, 0);
		bus_batch(r->w.bus, n->ip, 0);
		node_resume(n);
		n->away = false;
		disk_set_stall(n->disk, 0);
		disk_set_errors(n->disk, 0, 0);
		disk_set_full(n->disk, false);
	}
}
