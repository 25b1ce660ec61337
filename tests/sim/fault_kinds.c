/* fault_kinds.c - what can go wrong: processes, machines, clocks.  The network and the bus are in
 * fault_net.c, disks in fault_disk.c. */
#include "config.h"

#include "include/sheepdog/limits.h"
#include "sheep/cluster.h"
#include "tests/sim/check.h"
#include "tests/sim/fault_disk.h"
#include "tests/sim/fault_net.h"

#define DRIFT_MAX 40000 /* ppm: two such clocks are less than SD_DRIFT_NS apart after a lease */
_Static_assert(2ull * DRIFT_MAX * SD_LEASE_NS / 1000000 < SD_DRIFT_NS, "DESIGN 4.4");

/* ---- deaths ---- */

static void die(struct run *r, struct node *n, bool power)
{
	unrot(r);
	world_fault(&r->w, power ? FAULT_POWER : FAULT_KILL);
	if (power)
		node_power_cut(n);
	else
		node_kill(n);
}

/* An owner (or the source of a pull) dies in the middle of what it does. */
static void doom(struct event *ev)
{
	struct run *r = caa_container_of(ev, struct run, doom);
	struct node *n = &r->node[net_doomed(r->w.net) - 1];

	if (!n->p || !r->faults_on)
		return;
	world_fault(&r->w, FAULT_OWNER);
	if (prng_chance(&r->w.rnd_fault, 1, 2))
		kill_client(r);
	if (r->w.now > r->shape.fault_ns - r->shape.calm_ns) { /* nothing covers it up any more */
		r->shape.fault_ns = r->w.now;
		calm(r, UINT64_MAX);
	} else if (prng_chance(&r->w.rnd_fault, 1, 3)) {
		calm(r, prng_in(&r->w.rnd_fault, 10 * MS, 600 * MS));
	}
	die(r, n, prng_chance(&r->w.rnd_fault, 1, 4) && !r->shape.cached);
}

static bool k_owner(struct run *r, struct node *n)
{
	r->doom.fn = doom;
	r->doom.what = "doom";
	net_on_send(r->w.net, &r->doom, (unsigned)prng_in(&r->w.rnd_fault, 1, 20));
	return true;
}

static bool k_kill(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;

	die(r, n, false);
	if (prng_chance(p, 1, 3))
		kill_client(r);
	n = any_node(r);
	if (n->p && prng_chance(p, 1, 4))
		die(r, n, false);
	return true;
}

static bool k_power(struct run *r, struct node *n)
{
	if (!may_lose_power(r))
		return false;
	die(r, n, true);
	return true;
}

static void all_die(struct run *r, bool power)
{
	story(&r->w, "all > %s", power ? "power cut" : "killed");
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].installed && (power || r->node[i].p))
			die(r, &r->node[i], power);
}

static bool k_kill_all(struct run *r, struct node *n)
{
	all_die(r, false);
	return true;
}

/* What was cached and not flushed is there or not, and said to be lost if it is not (5.4). */
static bool k_power_all(struct run *r, struct node *n)
{
	for (unsigned i = 0; r->shape.cached && i < r->nr_volumes; i++) {
		struct volume *v = &r->volume[i];
		if (v->h)
			history_cut(v->h, 0, (v->max_objects << r->shape.shift) / SECTOR, r->w.now);
	}
	all_die(r, true);
	return true;
}

/* ---- who comes and goes ---- */

static void come(struct run *r, struct node *n, uint32_t arg)
{
	n->away = false;
	if (!n->p)
		node_start(n);
}

static bool k_stop(struct run *r, struct node *n)
{
	if (!n->started || n->p->paused)
		return false;
	world_fault(&r->w, FAULT_STOP);
	node_stop(n);
	return true;
}

/* All stop and leave the clean mark, if nothing comes between; started again one by one. */
static bool k_shutdown(struct run *r, struct node *n)
{
	if (!n->started || n->p->paused)
		return false;
	story(&r->w, "all > the cluster is shut down, at %s", n->name);
	world_fault(&r->w, FAULT_SHUTDOWN);
	admin_shutdown(r, n);
	return true;
}

static void stop_next(struct run *r, struct node *n, uint32_t arg)
{
	node_stop(n);
	later(r, prng_in(&r->w.rnd_fault, 20 * MS, 400 * MS), come, n, 0);
}

/* An upgrade: one is restarted, and the next one before the first is quite back. */
static bool k_restarts(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;
	struct node *m = any_running(r);

	if (m == n || !n->started || n->p->paused)
		return false;
	story(&r->w, "%s > is restarted, then %s", n->name, m->name);
	world_fault(&r->w, FAULT_RESTARTS);
	stop_next(r, n, 0);
	later(r, prng_in(p, 50 * MS, 800 * MS), stop_next, m, 0);
	return true;
}

static bool k_away(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;
	uint64_t left = r->shape.fault_ns - r->w.now;

	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].away)
			return false;
	if (left < SEC || !later(r, prng_in(p, SEC / 2, left), come, n, 0))
		return false;
	world_fault(&r->w, FAULT_AWAY);
	n->away = true;
	if (prng_chance(p, 1, 2))
		node_stop(n);
	else
		node_kill(n);
	story(&r->w, "%s > stays away for long", n->name);
	return true;
}

static bool k_added(struct run *r, struct node *n)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (!r->node[i].installed) {
			story(&r->w, "%s > is a new machine", r->node[i].name);
			world_fault(&r->w, FAULT_ADDED);
			node_start(&r->node[i]);
			return true;
		}
	return false;
}

/* The joiner, or another, dies between the steps of a join. */
static void ambush(struct event *ev)
{
	struct run *r = caa_container_of(ev, struct run, ambush);
	struct node *n = &r->node[bus_last_joiner(r->w.bus) - 1];

	if (prng_chance(&r->w.rnd_fault, 1, 4))
		n = any_node(r);
	if (!n->p || !r->faults_on)
		return;
	world_fault(&r->w, FAULT_JOINER);
	die(r, n, prng_chance(&r->w.rnd_fault, 1, 4) && !r->shape.cached);
}

static bool k_joiner(struct run *r, struct node *n)
{
	static const enum cmd_type steps[] = {CMD_JOIN, CMD_STATE, CMD_ADMIT_ACK, CMD_ADMIT_ACK};
	struct prng *p = &r->w.rnd_fault;

	r->ambush.fn = ambush;
	r->ambush.what = "ambush";
	bus_watch(r->w.bus, &r->ambush, steps[prng_in(p, 0, 3)], (unsigned)prng_in(p, 1, 3));
	if (prng_chance(p, 1, 2) && later(r, prng_in(p, 20 * MS, 400 * MS), come, n, 0))
		die(r, n, false);
	return true;
}

static bool k_client(struct run *r, struct node *n)
{
	kill_client(r);
	return true;
}

/* ---- who stands still ---- */

static void go_on(struct run *r, struct node *n, uint32_t arg)
{
	node_resume(n);
}

static bool pause_for(struct run *r, struct node *n, uint64_t ns, enum fault f)
{
	if (n->p->paused || !later(r, ns, go_on, n, 0))
		return false;
	story(&r->w, "%s > is paused for %u ms", n->name, (unsigned)(ns / MS));
	world_fault(&r->w, f);
	node_pause(n);
	return true;
}

static bool k_pause(struct run *r, struct node *n)
{
	return pause_for(r, n, prng_in(&r->w.rnd_fault, MS, SD_LEASE_NS / 2), FAULT_PAUSE);
}

static bool k_pause_long(struct run *r, struct node *n)
{
	return pause_for(r, n, prng_in(&r->w.rnd_fault, SD_LEASE_NS, 4 * SD_LEASE_NS),
			 FAULT_PAUSE_LONG);
}

/* The whole machine, its part of the bus too; its monotonic clock goes on. */
static void wake(struct run *r, struct node *n, uint32_t arg)
{
	cut_node(r, n, false);
	bus_join(r->w.bus);
	node_resume(n);
}

static bool k_suspend(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;
	bool ips[64] = {false};

	ips[n->ip] = true;
	if (n->p->paused || bus_is_split(r->w.bus) ||
	    !later(r, prng_in(p, 300 * MS, 4 * SD_LEASE_NS), wake, n, 0))
		return false;
	/* With two members the other one may be the side that is out. */
	bus_split(r->w.bus, ips, prng_in(p, 200 * MS, SD_EXPEL_NS), SEC);
	story(&r->w, "%s > the machine is suspended", n->name);
	world_fault(&r->w, FAULT_SUSPEND);
	cut_node(r, n, true);
	node_pause(n);
	return true;
}

/* ---- clocks ---- */

static bool k_drift(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;
	int64_t max = prng_chance(p, 1, 2) ? DRIFT_MAX : 500;
	int64_t ppm = (int64_t)prng_in(p, 0, 2 * (uint64_t)max) - max;

	story(&r->w, "%s > its clock drifts by %d ppm", n->name, (int)ppm);
	world_fault(&r->w, FAULT_CLOCK);
	node_clock_drift(n, ppm);
	return true;
}

static bool k_wall(struct run *r, struct node *n)
{
	int64_t s = (int64_t)prng_in(&r->w.rnd_fault, 0, 200000) - 100000;

	story(&r->w, "%s > its wall clock jumps by %d s", n->name, (int)s);
	world_fault(&r->w, FAULT_WALL);
	node_wall_jump(n, s * (int64_t)SEC);
	return true;
}

const struct kind fault_kinds[] = {
	{"death of an owner", 30, 0, k_owner, false},
	{"kill", 10, 0, k_kill, false},
	{"power cut", 10, 0, k_power, false},
	{"kill of all", 5, 0, k_kill_all, false},
	{"power cut of all", 3, 0, k_power_all, false},
	{"clients killed", 4, 0, k_client, false},
	{"stop", 7, 0, k_stop, false},
	{"cluster shutdown", 4, 100 * MS, k_shutdown, false},
	{"restarts in a row", 4, 100 * MS, k_restarts, false},
	{"away for long", 3, 300 * MS, k_away, false},
	{"new machines", 10, 0, k_added, false},
	{"death in a join", 8, 0, k_joiner, false},
	{"pause", 8, 100 * MS, k_pause, false},
	{"long pause", 6, 300 * MS, k_pause_long, false},
	{"suspended machine", 4, 300 * MS, k_suspend, false},
	{"late bus", 6, 0, k_late, false},
	{"bus in batches", 5, 0, k_batch, false},
	{"split", 5, 300 * MS, k_split, false},
	{"silent member", 5, 300 * MS, k_silent, false},
	{"loss of quorum", 3, 300 * MS, k_quorum, false},
	{"reset", 10, 0, k_reset, false},
	{"half-open", 6, 0, k_half_open, false},
	{"cut link", 6, 0, k_cut, false},
	{"one-way cut", 6, 0, k_cut_one_way, false},
	{"node cut off", 4, 300 * MS, k_cut_off, false},
	{"slow link", 5, 0, k_slow, false},
	{"slow reader", 5, 0, k_slow_reader, false},
	{"clock drift", 3, 0, k_drift, false},
	{"wall clock jump", 2, 0, k_wall, false},
	{"disk stall", 4, 0, k_stall, false},
	{"bit rot", 8, 0, k_rot, true},
	{"bit rot before a start", 5, 0, k_rot_start, true},
	{"I/O errors", 6, 0, k_io_errors, true},
	{"disk full", 4, 0, k_full, true},
	{"new disk", 4, 0, k_new_disk, true},
	{NULL, 0, 0, NULL, false},
};
