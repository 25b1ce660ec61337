/* sim.c - one run: a cluster, clients, a phase in which anything survivable may happen, a phase in
 * which all heals and must come to rest, the checks.
 *
 *   sim --seed N [--count N] [--log] [--until SECONDS] [--no-faults]
 */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "include/sheepdog/sheepdog.h"
#include "lib/client/client.h"
#include "sheep/cluster.h"
#include "sheep/peer.h"
#include "tests/sim/check.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DISK_SIZE   (16ull << 30)
#define CLIENTS_MAX 4u
#define HEAL_NS	    (120 * SEC) /* everything must be at rest by then */
#define EVENTS_MAX  40000000ull

struct run {
	struct world w;
	struct sim_shape shape;
	struct node node[NODES_MAX];
	struct client client[CLIENTS_MAX];
	struct history *h;
	struct event fault;
	bool faults_on;
	/* the administrator: formats, creates */
	struct proc *admin;
	struct co_sched *admin_sched;
	bool admin_done;
	char gateways[256];
};

static uint64_t until_ns = UINT64_MAX;
static bool no_faults;

static bool step(struct run *r)
{
	if (r->w.failed || r->w.now > until_ns)
		return false;
	if (r->w.nr_events > EVENTS_MAX) {
		world_fail(&r->w, "more than %llu events", (unsigned long long)EVENTS_MAX);
		return false;
	}
	return world_step(&r->w);
}

static bool run_until(struct run *r, bool (*fn)(struct run *r), uint64_t ns, const char *what)
{
	uint64_t end = r->w.now + ns;

	while (!fn(r)) {
		if (!step(r))
			return false;
		if (r->w.now > end) {
			world_fail(&r->w, "waited in vain: %s", what);
			return false;
		}
	}
	return true;
}

/* ---- the administrator ---- */

static void admin_wait(void *arg)
{
	co_sleep(100 * US);
}

static void admin_co(void *arg)
{
	struct run *r = arg;
	struct sd_create_opts opts = {.copies = (uint8_t)r->shape.copies,
				      .object_shift = (uint8_t)r->shape.shift};
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER,
			     .opcode = SD_OP_MAKE_FS,
			     .flags = SD_FLAG_WRITE,
			     .data_length = 6};
	struct sd_cluster *c;
	struct sd_rsp rsp;
	char name[24];

	assert(client_open_on(&r->admin->env, admin_wait, r, r->gateways, &c) == 0);
	sd_cluster_set_connect_timeout(c, 0);
	req.cluster.copies = (uint8_t)r->shape.copies;
	req.cluster.flags = SD_CLUSTER_AUTO_VNODES;
	int e = sd_request(c, &req, "plain", NULL, NULL, &rsp);
	if (e || rsp.result)
		world_fail(&r->w, "format: %d, %x", e, rsp.result);
	for (unsigned i = 0; i < r->shape.nr_clients && !r->w.failed; i++) {
		snprintf(name, sizeof(name), "v%u", i);
		e = sd_vdi_create(c, name, (uint64_t)r->shape.nr_objects << r->shape.shift, &opts,
				  NULL);
		if (e)
			world_fail(&r->w, "create: %s", sd_strerror(e));
		if (r->shape.shared)
			break;
	}
	sd_cluster_close(c);
	r->admin_done = true;
}

static void admin_main(void *arg)
{
	struct run *r = arg;

	r->admin_sched = co_sched_new(&r->admin->env, 10);
	assert(co_start(r->admin_sched, admin_co, r, "admin"));
}

static bool admin_ready(struct run *r)
{
	return r->admin_done && !co_sched_nr(r->admin_sched);
}

static void admin_free(void *arg)
{
	struct run *r = arg;

	co_sched_free(r->admin_sched);
}

static void admin_end(struct run *r)
{
	if (!r->admin)
		return;
	if (admin_ready(r)) {
		proc_call(r->admin, admin_free, r);
		proc_exit(r->admin);
	} else {
		co_sched_drop(r->admin_sched);
		proc_kill(r->admin);
	}
	r->admin = NULL;
}

/* ---- conditions ---- */

static bool nodes_started(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (!r->node[i].started)
			return false;
	return true;
}

static bool at_rest(struct run *r)
{
	if (!nodes_started(r))
		return false;
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		struct sheep *sh = r->node[i].sh;
		const struct view *v = cluster_view(sh->cluster);
		if (cluster_status(sh->cluster) != CLUSTER_RUNNING || !v ||
		    v->nr != r->shape.nr_nodes || !sync_at_rest(sh))
			return false;
		if (cluster_state_hash(sh->cluster) != cluster_state_hash(r->node[0].sh->cluster))
			return false;
	}
	return true;
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

/* ---- faults ---- */

static unsigned nr_up(struct run *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		n += r->node[i].p != NULL;
	return n;
}

static void one_fault(struct event *ev)
{
	struct run *r = caa_container_of(ev, struct run, fault);
	struct prng *p = &r->w.rnd_fault;
	struct node *n = &r->node[prng_in(p, 0, r->shape.nr_nodes - 1)];
	unsigned dice = (unsigned)prng_in(p, 0, 99);

	event_set(&r->w, ev, r->w.now + prng_in(p, 10 * MS, 1500 * MS));
	if (!n->p) {
		node_start(n);
	} else if (dice < 40) {
		world_fault(&r->w, FAULT_KILL);
		node_kill(n);
	} else if (dice < 50) {
		world_fault(&r->w, FAULT_POWER);
		node_power_cut(n);
	} else if (dice < 55) {
		story(&r->w, "all > killed");
		for (unsigned i = 0; i < r->shape.nr_nodes; i++)
			if (r->node[i].p) {
				world_fault(&r->w, FAULT_KILL);
				node_kill(&r->node[i]);
			}
	} else if (dice < 58 && !r->shape.cached) {
		story(&r->w, "all > power cut");
		for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
			world_fault(&r->w, FAULT_POWER);
			node_power_cut(&r->node[i]);
		}
	} else if (dice < 75) {
		if (net_reset_one(r->w.net, n->ip, p)) {
			story(&r->w, "%s > a connection is reset", n->name);
			world_fault(&r->w, FAULT_RESET);
		}
	} else if (dice < 85) {
		uint32_t to = 1 + (uint32_t)prng_in(p, 0, r->shape.nr_nodes - 1);
		story(&r->w, "%s > slow link, a stall", n->name);
		if (to != n->ip) {
			net_slow(r->w.net, to, prng_in(p, 0, 20 * MS));
			world_fault(&r->w, FAULT_SLOW_LINK);
		}
		disk_set_stall(n->disk, r->w.now + prng_in(p, 0, 500 * MS));
		world_fault(&r->w, FAULT_STALL);
	} else if (dice < 92 && n->started) {
		node_stop(n);
	} else if (disk_rot(n->disk, p)) {
		story(&r->w, "%s > a bit rots", n->name);
		world_fault(&r->w, FAULT_BIT_ROT);
	}
	(void)nr_up;
}

static bool time_over(struct run *r)
{
	return !r->faults_on || r->w.now >= r->shape.fault_ns;
}

static void heal(struct run *r)
{
	story(&r->w, "all > heals");
	event_del(&r->w, &r->fault);
	net_heal(r->w.net);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		disk_set_stall(r->node[i].disk, 0);
		disk_set_errors(r->node[i].disk, 0);
		disk_set_full(r->node[i].disk, false);
	}
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

static void draw_shape(struct run *r)
{
	struct prng p;
	struct sim_shape *s = &r->shape;

	prng_init(&p, r->w.seed, 7);
	s->nr_nodes = (unsigned)prng_in(&p, 3, 5);
	s->copies = (unsigned)prng_in(&p, 2, 3);
	s->nr_clients = (unsigned)prng_in(&p, 1, 3);
	s->shift = SD_OBJ_SHIFT_MIN;
	s->nr_objects = (unsigned)prng_in(&p, 2, 6);
	s->blocks = (unsigned)prng_in(&p, 1, 4);
	s->depth = (unsigned)prng_in(&p, 1, 6);
	s->discards = prng_chance(&p, 1, 2);
	s->shared = false;
	s->cached = prng_chance(&p, 1, 4);
	s->fault_ns = prng_in(&p, 10, 25) * SEC;
}

static bool start_all(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++) {
		node_init(&r->node[i], &r->w, i, DISK_SIZE);
		size_t len = strlen(r->gateways);
		snprintf(r->gateways + len, sizeof(r->gateways) - len, "%s10.0.0.%u:7000",
			 i ? "," : "", r->node[i].ip);
		node_start(&r->node[i]);
	}
	if (!run_until(r, nodes_started, 20 * SEC, "the start"))
		return false;
	r->admin = proc_new(&r->w, "admin", 40, NULL);
	proc_call(r->admin, admin_main, r);
	if (!run_until(r, admin_ready, 60 * SEC, "format and create"))
		return false;
	admin_end(r);
	return run_until(r, at_rest, 20 * SEC, "rest after format and create");
}

static void start_clients(struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_clients; i++) {
		struct client *c = &r->client[i];
		char name[24];
		unsigned at = (unsigned)prng_in(&r->w.rnd_work, 0, r->shape.nr_nodes - 1);
		for (unsigned k = 0; k < r->shape.nr_nodes; k++) {
			size_t len = strlen(c->gateways);
			snprintf(c->gateways + len, sizeof(c->gateways) - len, "%s10.0.0.%u:7000",
				 k ? "," : "", r->node[(at + k) % r->shape.nr_nodes].ip);
		}
		snprintf(c->volume, sizeof(c->volume), "v%u", r->shape.shared ? 0 : i);
		snprintf(name, sizeof(name), "client%u", i);
		c->shape = &r->shape;
		c->depth = r->shape.depth;
		c->cached = r->shape.cached;
		c->h = r->shape.shared && i
			       ? r->client[0].h
			       : history_new((r->shape.nr_objects << r->shape.shift) / 512);
		client_start(c, &r->w, name, 50 + i);
	}
}

static void check_histories(struct run *r)
{
	char why[512];

	for (unsigned i = 0; i < r->shape.nr_clients && !r->w.failed; i++)
		if ((!r->shape.shared || !i) && !history_check(r->client[i].h, why, sizeof(why)))
			world_fail(&r->w, "history of v%u: %s", i, why);
}

static void phases(struct run *r)
{
	if (!start_all(r))
		return;
	start_clients(r);
	r->faults_on = true;
	r->shape.fault_ns += r->w.now;
	r->fault.fn = one_fault;
	r->fault.what = "fault";
	if (!no_faults)
		event_set(&r->w, &r->fault, r->w.now + 500 * MS);
	while (!time_over(r))
		if (!step(r))
			return;
	heal(r);
	if (!run_until(r, healed, HEAL_NS, "rest after the faults"))
		return;
	story(&r->w, "all > at rest");
	uint64_t end = r->w.now + 2 * SEC; /* the clients read on */
	while (r->w.now < end)
		if (!step(r))
			return;
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		r->client[i].stop = true;
	if (!run_until(r, clients_finished, HEAL_NS, "the clients' end"))
		return;
	check_histories(r);
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		client_end(&r->client[i]);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		node_stop(&r->node[i]);
	run_until(r, nodes_gone, HEAL_NS, "the daemons' end");
}

static int one_seed(uint64_t seed, bool log)
{
	struct run *r = calloc(1, sizeof(*r));
	uint64_t ops = 0, longest = 0, nr_faults = 0;

	assert(r);
	world_init(&r->w, seed);
	memory_world_only(&r->w);
	r->w.story = log ? stdout : NULL;
	r->w.bus = bus_new(&r->w);
	draw_shape(r);
	story(&r->w, "seed %" PRIu64 ": %u nodes, %u copies, %u clients, depth %u, %u objects%s%s",
	      seed, r->shape.nr_nodes, r->shape.copies, r->shape.nr_clients, r->shape.depth,
	      r->shape.nr_objects, r->shape.discards ? ", discards" : "",
	      r->shape.cached ? ", cached" : "");
	phases(r);
	for (unsigned i = 0; i < r->shape.nr_clients; i++) {
		ops += r->client[i].nr_ops;
		if (r->client[i].longest > longest)
			longest = r->client[i].longest;
		client_end(&r->client[i]);
		if (r->client[i].h)
			history_free(r->client[i].h);
	}
	admin_end(r);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].w)
			node_done(&r->node[i]);
	for (unsigned i = 0; i < FAULT_NR; i++)
		nr_faults += r->w.faults[i];
	printf("seed %" PRIu64 " %s hash %016" PRIx64 ": %" PRIu64 " ops, %" PRIu64
	       " faults, %.1f s, %" PRIu64 " events, longest op %.1f s%s%s\n",
	       seed, r->w.failed ? "FAILED" : "ok", r->w.hash, ops, nr_faults,
	       (double)r->w.now / 1e9, r->w.nr_events, (double)longest / 1e9,
	       r->w.failed ? ": " : "", r->w.why);
	fflush(stdout);
	int status = r->w.failed;
	event_del(&r->w, &r->fault);
	bus_destroy(r->w.bus);
	world_done(&r->w);
	memory_world_only(NULL);
	free(r);
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", 1, NULL, 's'},	 {"count", 1, NULL, 'c'},     {"log", 0, NULL, 'l'},
		{"until", 1, NULL, 'u'}, {"no-faults", 0, NULL, 'n'}, {NULL, 0, NULL, 0}};
	uint64_t seed = 1, count = 1, passed = 0, failed = 0;
	bool log = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (opt) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'c': count = strtoull(optarg, NULL, 0); break;
		case 'l': log = true; break;
		case 'u': until_ns = (uint64_t)(atof(optarg) * 1e9); break;
		case 'n': no_faults = true; break;
		default: return 64;
		}
	for (uint64_t i = 0; i < count; i++) {
		if (one_seed(seed + i, log))
			failed++;
		else
			passed++;
	}
	printf("%" PRIu64 " passed, %" PRIu64 " failed\n", passed, failed);
	return failed != 0;
}
