/* run.c - one run: a cluster, clients, a phase in which anything survivable may happen, a phase in
 * which all heals and must come to rest, the checks. */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "sheep/cluster.h"
#include "sheep/peer.h"
#include "tests/sim/run.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define DISK_SIZE  (16ull << 30)
#define EVENTS_MAX 40000000ull

/* What everybody was waiting for, for the story of a run that does not come to rest. */
static void dump_line(void *arg, const char *line)
{
	struct node *n = arg;

	fprintf(n->w->story, "    %s has %s\n", n->name, line);
}

static void dump(struct run *r)
{
	for (unsigned i = 0; r->w.story && i < r->shape.nr_nodes; i++) {
		struct node *n = &r->node[i];
		if (!n->p || !n->sh || !n->sh->cluster)
			continue;
		const struct view *v = cluster_view(n->sh->cluster);
		fprintf(r->w.story, "    %s: status %d, epoch %u, %s, state %016" PRIx64 "\n",
			n->name, (int)cluster_status(n->sh->cluster), v ? v->epoch : 0,
			n->sh->sync && sync_at_rest(n->sh) ? "at rest" : "not at rest",
			cluster_state_hash(n->sh->cluster));
		co_sched_dump(n->sh->sched, dump_line, n);
	}
	for (unsigned i = 0; r->w.story && i < r->shape.nr_clients; i++)
		fprintf(r->w.story, "    %s: %u in flight%s\n", r->client[i].name,
			r->client[i].in_flight, r->client[i].finished ? ", finished" : "");
}

bool step(struct run *r)
{
	if (r->w.failed)
		return false;
	if (r->w.now > r->until_ns) {
		story(&r->w, "--until: stopped; this is what everybody waits for:");
		dump(r);
		return false;
	}
	if (r->w.now >= r->fail_ns) {
		world_fail(&r->w, "--fail-at");
		return false;
	}
	assert(r->w.now < r->crash_ns); /* --crash-at */
	if (r->w.nr_events > EVENTS_MAX) {
		world_fail(&r->w, "more than %llu events", (unsigned long long)EVENTS_MAX);
		return false;
	}
	return world_step(&r->w);
}

static bool step_arg(void *arg)
{
	return step(arg);
}

bool run_until(struct run *r, bool (*fn)(struct run *r), uint64_t ns, const char *what)
{
	uint64_t end = r->w.now + ns, look = 0;

	for (;;) {
		if (r->w.now >= look) { /* it may be dear */
			if (fn(r))
				return true;
			look = r->w.now + MS / 2;
		}
		if (!step(r))
			return false;
		if (r->w.now > end) {
			world_fail(&r->w, "waited in vain: %s", what);
			dump(r);
			return false;
		}
	}
}

/* ---- conditions ---- */

static unsigned nr_installed(const struct run *r)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		nr += r->node[i].installed;
	return nr;
}

static bool nodes_started(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].installed && (!r->node[i].started || r->node[i].sh->exiting))
			return false;
	return true;
}

static bool node_at_rest(const struct node *n, unsigned nr, uint64_t hash)
{
	const struct cluster *c = n->sh->cluster;
	const struct view *v = cluster_view(c);
	struct incarnation suspect;

	return !cluster_suspects(c, &suspect, 1) && !n->p->paused &&
	       cluster_status(c) == CLUSTER_RUNNING && v && v->nr == nr && sync_at_rest(n->sh) &&
	       cluster_state_hash(c) == hash;
}

bool at_rest(struct run *r)
{
	unsigned nr = nr_installed(r);
	uint64_t hash = 0;

	if (!nodes_started(r) || bus_is_split(r->w.bus) || bus_nr_members(r->w.bus) != nr)
		return false; /* or has lost somebody who does not know it yet */
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		const struct node *n = &r->node[i];
		if (n->installed && !hash)
			hash = cluster_state_hash(n->sh->cluster);
		if (n->installed && !node_at_rest(n, nr, hash))
			return false;
	}
	return true;
}

/* No owner, dead or alive, has left anything open (DESIGN 5.6). */
static bool all_clean(struct run *r)
{
	return at_rest(r) && fleet_rest(r);
}

static bool clients_finished(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		if (!r->client[i].finished || co_sched_nr(r->client[i].sched))
			return false;
	return true;
}

static bool nodes_gone(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].p)
			return false;
	return true;
}

static bool time_over(struct run *r)
{
	return !r->faults_on || r->w.now >= r->shape.fault_ns;
}

/* A daemon that has ended, or that did not start because it was refused for the moment, is started
 * again. */
static bool healed(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (!r->node[i].p)
			node_start(&r->node[i]);
	return at_rest(r);
}

/* ---- one run ---- */

void draw_shape(struct run *r)
{
	struct prng p;
	struct sim_shape *s = &r->shape;

	prng_init(&p, r->w.seed, 7);
	s->nr_first = s->nr_nodes = (unsigned)prng_in(&p, 3, 5);
	s->copies = prng_chance(&p, 1, 8) ? 1 : (unsigned)prng_in(&p, 2, 3);
	s->nr_clients = (unsigned)prng_in(&p, 1, 3);
	s->shift = SD_OBJ_SHIFT_MIN;
	s->nr_objects = (unsigned)prng_in(&p, 2, 6);
	s->blocks = (unsigned)prng_in(&p, 1, 4);
	s->depth = (unsigned)prng_in(&p, 1, 6);
	s->discards = prng_chance(&p, 1, 2);
	s->cached = prng_chance(&p, 1, 4) && s->copies > 1;
	static const unsigned gaps[] = {30, 100, 300, 1000};
	bool calm = prng_chance(&p, 1, 2);
	s->eager = (unsigned)prng_in(&p, 0, 9);
	s->gap_ns = gaps[prng_in(&p, 0, 3)] * MS;
	s->fault_ns = prng_in(&p, 30, 80) * s->gap_ns / 2;
	s->calm_ns = calm ? s->fault_ns / 2 : 0;
	if (prng_chance(&p, 1, 3)) /* machines that are added while clients run */
		s->nr_first -= (unsigned)prng_in(&p, 1, s->nr_nodes - 2);
}

static bool start_all(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		node_init(&r->node[i], &r->w, i, DISK_SIZE);
		size_t len = strlen(r->gateways);
		snprintf(r->gateways + len, sizeof(r->gateways) - len, "%s10.0.0.%u:7000",
			 i ? "," : "", r->node[i].ip);
		if (i < r->shape.nr_first)
			node_start(&r->node[i]);
	}
	if (!run_until(r, nodes_started, 20 * SEC, "the start"))
		return false;
	admin_start(r);
	if (!run_until(r, admin_ready, 60 * SEC, "format and create"))
		return false;
	admin_end(r);
	return run_until(r, at_rest, 20 * SEC, "rest after format and create");
}

static void tell_shape(struct run *r)
{
	const struct sim_shape *s = &r->shape;

	story(&r->w,
	      "seed %" PRIu64 ": %u nodes (%u at first), %u copies, %u clients, depth %u, %u "
	      "objects%s%s",
	      r->w.seed, s->nr_nodes, s->nr_first, s->copies, s->nr_clients, s->depth,
	      s->nr_objects, s->discards ? ", discards" : "", s->cached ? ", cached" : "");
}

void phases(struct run *r)
{
	fleet_draw(r);
	tell_shape(r);
	if (!start_all(r))
		return;
	fleet_start(r);
	faults_start(r);
	while (!time_over(r))
		if (!step(r))
			return;
	heal(r);
	if (!run_until(r, healed, HEAL_NS, "rest after the faults"))
		return;
	story(&r->w, "all > at rest");
	uint64_t end = r->w.now + 500 * MS; /* the clients go on */
	while (r->w.now < end)
		if (!step(r))
			return;
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		r->client[i].stop = true;
	if (!run_until(r, clients_finished, HEAL_NS, "the clients' end"))
		return;
	fleet_check(r);
	if (!run_until(r, all_clean, HEAL_NS, "rest at the end, all takeovers clean") ||
	    !contents_check(&r->w, r->node, r->shape.nr_nodes, step_arg, fleet_object, r))
		return;
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		client_end(&r->client[i]);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		node_stop(&r->node[i]);
	run_until(r, nodes_gone, HEAL_NS, "the daemons' end");
}
