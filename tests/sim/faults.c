/* faults.c - what goes wrong, drawn from the seed, and how it heals. */
#include "config.h"

#include "tests/sim/run.h"

static void kill_client(struct run *r)
{
	struct client *c = &r->client[prng_in(&r->w.rnd_fault, 0, r->shape.nr_clients - 1)];

	world_fault(&r->w, FAULT_CLIENT);
	client_kill(c);
	client_start(c);
}

/* Clients only read, for a while. */
static void calm(struct run *r, uint64_t ns)
{
	for (unsigned i = 0; i < r->shape.nr_clients; i++) {
		r->client[i].writes = 0;
		r->client[i].mood_until = ns == UINT64_MAX ? ns : r->w.now + ns;
	}
}

/* An owner (or the source of a pull) dies in the middle of what it does. */
static void doom(struct event *ev)
{
	struct run *r = caa_container_of(ev, struct run, doom);
	struct node *n = &r->node[net_doomed(r->w.net) - 1];

	if (!n->p || !r->faults_on)
		return;
	if (prng_chance(&r->w.rnd_fault, 1, 2))
		kill_client(r);
	if (r->w.now > r->shape.fault_ns - r->shape.calm_ns) { /* nothing covers it up any more */
		r->shape.fault_ns = r->w.now;
		calm(r, UINT64_MAX);
	} else if (prng_chance(&r->w.rnd_fault, 1, 3)) {
		calm(r, prng_in(&r->w.rnd_fault, 10 * MS, 600 * MS));
	}
	if (prng_chance(&r->w.rnd_fault, 1, 4) && !r->shape.cached) {
		world_fault(&r->w, FAULT_POWER);
		node_power_cut(n);
	} else {
		world_fault(&r->w, FAULT_KILL);
		node_kill(n);
	}
}

static void kill_all(struct run *r, bool power)
{
	story(&r->w, "all > %s", power ? "power cut" : "killed");
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		struct node *n = &r->node[i];
		if (power)
			node_power_cut(n);
		else if (n->p)
			node_kill(n);
		else
			continue;
		world_fault(&r->w, power ? FAULT_POWER : FAULT_KILL);
	}
}

static void one_fault(struct event *ev)
{
	struct run *r = caa_container_of(ev, struct run, fault);
	struct prng *p = &r->w.rnd_fault;
	struct node *n = &r->node[prng_in(p, 0, r->shape.nr_nodes - 1)];
	unsigned dice = (unsigned)prng_in(p, 0, 99);

	event_set(&r->w, ev, r->w.now + prng_in(p, r->shape.gap_ns / 50, r->shape.gap_ns));
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		disk_unrot(r->node[i].disk);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (!r->node[i].p && prng_chance(p, r->shape.eager, 10))
			n = &r->node[i];
	if (!n->p) {
		node_start(n);
	} else if (dice < 30) {
		r->doom.fn = doom;
		r->doom.what = "doom";
		net_on_send(r->w.net, &r->doom, (unsigned)prng_in(p, 1, 20));
	} else if (dice < 40) {
		world_fault(&r->w, FAULT_KILL);
		node_kill(n);
		if (prng_chance(p, 1, 3))
			kill_client(r);
		n = &r->node[prng_in(p, 0, r->shape.nr_nodes - 1)];
		if (n->p && prng_chance(p, 1, 4)) {
			world_fault(&r->w, FAULT_KILL);
			node_kill(n);
		}
	} else if (dice < 50 && (!r->shape.cached || at_rest(r))) {
		/* What is cached survives in the other replicas: they must be there (DESIGN I1). */
		world_fault(&r->w, FAULT_POWER);
		node_power_cut(n);
	} else if (dice < 58) {
		kill_all(r, dice >= 55 && !r->shape.cached);
	} else if (dice < 62) {
		kill_client(r);
	} else if (dice < 68) {
		bool slow = prng_chance(p, 1, 2);
		uint64_t ns = slow ? prng_in(p, MS, r->shape.gap_ns) : 0;
		story(&r->w, "%s > the bus lags by %u ms", n->name, (unsigned)(ns / MS));
		bus_lag(r->w.bus, n->ip, ns);
		world_fault(&r->w, FAULT_LATE_VIEW);
	} else if (dice < 78) {
		if (net_reset_one(r->w.net, n->ip, p)) {
			story(&r->w, "%s > a connection is reset", n->name);
			world_fault(&r->w, FAULT_RESET);
		}
	} else if (dice < 85) {
		uint32_t to = 1 + (uint32_t)prng_in(p, 0, r->shape.nr_nodes - 1);
		story(&r->w, "%s > slow link, a stall", n->name);
		if (to != n->ip) {
			net_slow(r->w.net, to, prng_chance(p, 1, 3) ? 0 : prng_in(p, 0, 20 * MS));
			world_fault(&r->w, FAULT_SLOW_LINK);
		}
		disk_set_stall(n->disk, r->w.now + prng_in(p, 0, 500 * MS));
		world_fault(&r->w, FAULT_STALL);
	} else if (dice < 92 && n->started) {
		node_stop(n);
	} else if (r->shape.copies > 1 && at_rest(r) && disk_rot(n->disk, p)) {
		/* Until the next fault: the other copies are good, and there. */
		story(&r->w, "%s > a bit rots", n->name);
		world_fault(&r->w, FAULT_BIT_ROT);
	}
}

void faults_start(struct run *r)
{
	r->faults_on = true;
	r->shape.fault_ns += r->w.now;
	r->fault.fn = one_fault;
	r->fault.what = "fault";
	if (!r->no_faults)
		event_set(&r->w, &r->fault, r->w.now + 500 * MS);
}

void faults_done(struct run *r)
{
	event_del(&r->w, &r->fault);
	event_del(&r->w, &r->doom);
}

void heal(struct run *r)
{
	story(&r->w, "all > heals");
	event_del(&r->w, &r->fault);
	event_del(&r->w, &r->doom);
	net_on_send(r->w.net, NULL, 0);
	net_heal(r->w.net);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		bus_lag(r->w.bus, r->node[i].ip, 0);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		disk_set_stall(r->node[i].disk, 0);
		disk_set_errors(r->node[i].disk, 0);
		disk_set_full(r->node[i].disk, false);
		disk_unrot(r->node[i].disk);
	}
}
