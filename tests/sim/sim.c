/* sim.c - one run: a cluster, clients, a phase in which anything survivable may happen, a phase in
 * which all heals and must come to rest, the checks.
 *
 *   sim [--seed N] [--count N] [--jobs N] [--log] [--until SECONDS] [--no-faults] [--twice]
 *       [--quiet] [--plant NAME] [--first]
 *
 * With --count each seed has a process of its own, and every 20th is run twice: the two traces must
 * be the same.  --log (of one seed) tells the story.
 */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "include/sheepdog/sheepdog.h"
#include "lib/client/client.h"
#include "sheep/cluster.h"
#include "sheep/peer.h"
#include "sheep/plant.h"
#include "tests/sim/check.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK_SIZE    (16ull << 30)
#define CLIENTS_MAX  4u
#define HEAL_NS	     (120 * SEC) /* everything must be at rest by then */
#define EVENTS_MAX   40000000ull
#define JOBS_MAX     64u
#define SEED_SECONDS 180u /* of real time */

struct run {
	struct world w;
	struct sim_shape shape;
	struct node node[NODES_MAX];
	struct client client[CLIENTS_MAX];
	struct history *h;
	struct event fault, doom;
	bool faults_on;
	/* the administrator: formats, creates */
	struct proc *admin;
	struct co_sched *admin_sched;
	bool admin_done;
	char gateways[256];
};

static uint64_t until_ns = UINT64_MAX;
static bool no_faults;
#ifdef SIM_PLANTS
enum plant planted;
static const char *const plant_names[] = {"none",
#define X(name) #name,
					  PLANTS(X)
#undef X
};
#endif

/* --plant NAME: which bug this run has. */
static bool plant(const char *name)
{
#ifdef SIM_PLANTS
	for (unsigned i = 0; i < PLANT_NR; i++)
		if (!strcmp(plant_names[i], name)) {
			planted = (enum plant)i;
			return true;
		}
#endif
	fprintf(stderr, "no such plant here: %s\n", name);
	return false;
}

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

static bool step_arg(void *arg)
{
	return step(arg);
}

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

static bool run_until(struct run *r, bool (*fn)(struct run *r), uint64_t ns, const char *what)
{
	uint64_t end = r->w.now + ns;

	while (!fn(r)) {
		if (!step(r))
			return false;
		if (r->w.now > end) {
			world_fail(&r->w, "waited in vain: %s", what);
			dump(r);
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
		if (!r->node[i].started || r->node[i].sh->exiting)
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

static bool time_over(struct run *r)
{
	return !r->faults_on || r->w.now >= r->shape.fault_ns;
}

static void heal(struct run *r)
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
	s->copies = prng_chance(&p, 1, 8) ? 1 : (unsigned)prng_in(&p, 2, 3);
	s->nr_clients = (unsigned)prng_in(&p, 1, 3);
	s->shift = SD_OBJ_SHIFT_MIN;
	s->nr_objects = (unsigned)prng_in(&p, 2, 6);
	s->blocks = (unsigned)prng_in(&p, 1, 4);
	s->depth = (unsigned)prng_in(&p, 1, 6);
	s->discards = prng_chance(&p, 1, 2);
	s->shared = false;
	s->cached = prng_chance(&p, 1, 4) && s->copies > 1;
	static const unsigned gaps[] = {30, 100, 300, 1000};
	bool calm = prng_chance(&p, 1, 2);
	s->eager = (unsigned)prng_in(&p, 0, 9);
	s->gap_ns = gaps[prng_in(&p, 0, 3)] * MS;
	s->fault_ns = prng_in(&p, 30, 80) * s->gap_ns / 2;
	s->calm_ns = calm ? s->fault_ns / 2 : 0;
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
		unsigned at = (unsigned)prng_in(&r->w.rnd_work, 0, r->shape.nr_nodes - 1);
		for (unsigned k = 0; k < r->shape.nr_nodes; k++) {
			size_t len = strlen(c->gateways);
			snprintf(c->gateways + len, sizeof(c->gateways) - len, "%s10.0.0.%u:7000",
				 k ? "," : "", r->node[(at + k) % r->shape.nr_nodes].ip);
		}
		snprintf(c->volume, sizeof(c->volume), "v%u", r->shape.shared ? 0 : i);
		snprintf(c->name, sizeof(c->name), "client%u", i);
		c->w = &r->w;
		c->ip = 50 + i;
		c->shape = &r->shape;
		c->depth = r->shape.depth;
		c->cached = r->shape.cached;
		c->h = r->shape.shared && i
			       ? r->client[0].h
			       : history_new((r->shape.nr_objects << r->shape.shift) / 512);
		client_start(c);
	}
}

static bool refers(void *arg, uint64_t oid)
{
	const struct run *r = arg;

	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		if (r->client[i].vid == SD_OID_VID(oid) && SD_OID_IS_DATA(oid))
			return SD_OID_IDX(oid) < OBJECTS_MAX &&
			       r->client[i].refers[SD_OID_IDX(oid)];
	return true;
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
	uint64_t end = r->w.now + 500 * MS; /* the clients go on */
	while (r->w.now < end)
		if (!step(r))
			return;
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		r->client[i].stop = true;
	if (!run_until(r, clients_finished, HEAL_NS, "the clients' end"))
		return;
	check_histories(r);
	if (!run_until(r, at_rest, HEAL_NS, "rest at the end") ||
	    !contents_check(&r->w, r->node, r->shape.nr_nodes, step_arg, refers, r))
		return;
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		client_end(&r->client[i]);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		node_stop(&r->node[i]);
	run_until(r, nodes_gone, HEAL_NS, "the daemons' end");
}

struct totals { /* of all seeds; shared with the children */
	uint64_t passed, failed, ops, ns, faults[FAULT_NR];
};

/* @hash: of the trace. */
static int one_seed(uint64_t seed, FILE *log, bool quiet, struct totals *sum, uint64_t *hash)
{
	struct run *r = calloc(1, sizeof(*r));
	uint64_t ops = 0, longest = 0, nr_faults = 0;

	assert(r);
	world_init(&r->w, seed);
	memory_world_only(&r->w);
	r->w.story = log;
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
		if (r->client[i].h && (!r->shape.shared || !i))
			history_free(r->client[i].h);
	}
	admin_end(r);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].w)
			node_done(&r->node[i]);
	for (unsigned i = 0; i < FAULT_NR; i++) {
		nr_faults += r->w.faults[i];
		__atomic_add_fetch(&sum->faults[i], r->w.faults[i], __ATOMIC_RELAXED);
	}
	__atomic_add_fetch(&sum->ops, ops, __ATOMIC_RELAXED);
	__atomic_add_fetch(&sum->ns, r->w.now, __ATOMIC_RELAXED);
	if (!quiet || r->w.failed)
		printf("seed %" PRIu64 " %s hash %016" PRIx64 ": %" PRIu64 " ops, %" PRIu64
		       " faults, %.1f s, %" PRIu64 " events, longest op %.1f s%s%s\n",
		       seed, r->w.failed ? "FAILED" : "ok", r->w.hash, ops, nr_faults,
		       (double)r->w.now / 1e9, r->w.nr_events, (double)longest / 1e9,
		       r->w.failed ? ": " : "", r->w.why);
	fflush(stdout);
	*hash = r->w.hash;
	int status = r->w.failed;
	event_del(&r->w, &r->fault);
	event_del(&r->w, &r->doom);
	bus_destroy(r->w.bus);
	world_done(&r->w);
	memory_world_only(NULL);
	free(r);
	return status;
}

/* The same seed gives the same trace. */
static int seed_twice(uint64_t seed, bool quiet, struct totals *sum)
{
	uint64_t hash[2];

	if (one_seed(seed, NULL, quiet, sum, &hash[0]))
		return 1;
	one_seed(seed, NULL, true, sum, &hash[1]);
	if (hash[0] == hash[1])
		return 0;
	printf("seed %" PRIu64 " FAILED: two runs, two traces: %016" PRIx64 ", %016" PRIx64 "\n",
	       seed, hash[0], hash[1]);
	fflush(stdout);
	return 1;
}

/* Each seed in a process of its own: one that crashes or hangs is one that failed. */
static void ended(struct totals *sum, const pid_t *pid, const uint64_t *seed, unsigned nr_jobs,
		  pid_t gone, int status)
{
	for (unsigned i = 0; i < nr_jobs; i++)
		if (pid[i] == gone && WIFSIGNALED(status)) {
			printf("seed %" PRIu64 " FAILED: %s\n", seed[i],
			       WTERMSIG(status) == SIGALRM ? "it hangs"
							   : strsignal(WTERMSIG(status)));
			fflush(stdout);
		}
	if (status)
		sum->failed++;
	else
		sum->passed++;
}

static void many(uint64_t first, uint64_t count, unsigned jobs, bool twice, bool quiet, bool stop,
		 struct totals *sum)
{
	pid_t pid[JOBS_MAX] = {0};
	uint64_t seed[JOBS_MAX], next = first;
	unsigned running = 0;

	while (next < first + count || running) {
		if (stop && sum->failed) /* one is enough */
			next = first + count;
		int status;
		unsigned i = 0;
		if (next < first + count && running < jobs) {
			while (pid[i])
				i++;
			seed[i] = next++;
			pid[i] = fork();
			if (!pid[i]) {
				uint64_t hash;
				alarm(SEED_SECONDS);
				_exit(twice || seed[i] % 20 == 0
					      ? seed_twice(seed[i], quiet, sum)
					      : one_seed(seed[i], NULL, quiet, sum, &hash));
			}
			assert(pid[i] > 0);
			running++;
			continue;
		}
		pid_t gone = wait(&status);
		assert(gone > 0);
		ended(sum, pid, seed, JOBS_MAX, gone, status);
		for (i = 0; i < JOBS_MAX; i++)
			if (pid[i] == gone)
				pid[i] = 0;
		running--;
	}
}

static void print_totals(const struct totals *sum)
{
	printf("%" PRIu64 " operations, %.0f simulated seconds; faults:", sum->ops,
	       (double)sum->ns / 1e9);
	for (unsigned i = 0; i < FAULT_NR; i++)
		if (sum->faults[i])
			printf(" %s %" PRIu64 ",", fault_names[i], sum->faults[i]);
	printf("\n%" PRIu64 " passed, %" PRIu64 " failed\n", sum->passed, sum->failed);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", 1, NULL, 's'},	 {"count", 1, NULL, 'c'},     {"log", 0, NULL, 'l'},
		{"until", 1, NULL, 'u'}, {"no-faults", 0, NULL, 'n'}, {"twice", 0, NULL, 't'},
		{"jobs", 1, NULL, 'j'},	 {"quiet", 0, NULL, 'q'},     {"plant", 1, NULL, 'p'},
		{"first", 0, NULL, 'f'}, {NULL, 0, NULL, 0}};
	uint64_t seed = 1, count = 1, hash;
	bool log = false, twice = false, quiet = false, first = false;
	unsigned jobs = 1;
	int opt;
	struct totals *sum =
		mmap(NULL, sizeof(*sum), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert(sum != MAP_FAILED);
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (opt) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'c': count = strtoull(optarg, NULL, 0); break;
		case 'l': log = true; break;
		case 'u': until_ns = (uint64_t)(atof(optarg) * 1e9); break;
		case 'n': no_faults = true; break;
		case 't': twice = true; break;
		case 'j': jobs = (unsigned)atoi(optarg); break;
		case 'q': quiet = true; break;
		case 'f': first = true; break;
		case 'p':
			if (!plant(optarg))
				return 64;
			break;
		default: return 64;
		}
	if (jobs < 1 || jobs > JOBS_MAX)
		return 64;
	if (count == 1 && !twice)
		return one_seed(seed, log ? stdout : NULL, false, sum, &hash);
	many(seed, count, jobs, twice, quiet, first, sum);
	print_totals(sum);
	return sum->failed != 0;
}
