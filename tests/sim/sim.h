/* sim.h - the simulated cluster: nodes with the daemon's own code, clients, the phases of a run,
 * the checkers. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "include/sheepdog/limits.h"
#include "sheep/cluster/driver.h"
#include "sheep/sheep.h"
#include "tests/sim/world.h"

/* ---- bus (bus.c) ---- */
extern const struct bus_driver bus_sim;
struct death;
struct sim_bus *bus_new(struct world *w);
void bus_destroy(struct sim_bus *sb);
/* The members find out after a while; what it had sent is ordered, or not. */
void bus_proc_died(struct sim_bus *sb, struct proc *p);
/* What is ordered reaches @ip up to @ns later; 0: no more. */
void bus_lag(struct sim_bus *sb, uint32_t ip, uint64_t ns);
/* What is ordered reaches @ip that much later. */
void bus_late(struct sim_bus *sb, uint32_t ip, uint64_t ns);
/* It reaches @ip every @ns, all that is there at once; 0: no more. */
void bus_batch(struct sim_bus *sb, uint32_t ip, uint64_t ns);
/* What is ordered does not reach @ip; or all that it has missed does. */
void bus_hold(struct sim_bus *sb, uint32_t ip, bool held);
/* Machines with @ips[ip] and the others do not hear of each other.  The side with most of the
 * members goes on (of two that are equal: the one with the oldest): after @notice ns the others
 * leave there, silent.  Those are told that they are out, each after up to @told ns.  False: one
 * side has nobody, or there is a split already.  Sets @ips to the side that does not go on. */
bool bus_split(struct sim_bus *sb, bool ips[64], uint64_t notice, uint64_t told);
/* The end of it; who was not noticed to be gone is still there, and has missed nothing. */
void bus_join(struct sim_bus *sb);
bool bus_is_split(const struct sim_bus *sb);
/* No side has quorum: all are out, each learns it after up to @told ns; nobody joins for @ns. */
void bus_lose_quorum(struct sim_bus *sb, uint64_t told, uint64_t ns);
/* Arm @ev soon after the @nr-th message of @type (enum cmd_type) from now on was ordered. */
void bus_watch(struct sim_bus *sb, struct event *ev, unsigned type, unsigned nr);
uint32_t bus_last_joiner(const struct sim_bus *sb); /* its ip */

/* ---- nodes (node.c): a machine, its disk and the daemon on it ---- */

struct node {
	struct world *w;
	unsigned idx;
	char name[16];
	uint32_t ip;
	struct sim_disk *disk;
	uint8_t boot_id[16];
	struct sim_clock clock;
	bool installed; /* a machine that is bought later is not yet */
	bool away;	/* nobody starts it */
	struct proc *p; /* NULL: no daemon runs */
	struct sheep *sh;
	struct sheep_conf conf;
	struct event end;   /* the daemon said that it has stopped */
	struct event again; /* its supervisor starts it again */
	bool starting, started, stopping;
	int start_result;
	uint64_t nr_starts;
};

void node_init(struct node *n, struct world *w, unsigned idx, uint64_t disk_size);
void node_done(struct node *n);
void node_start(struct node *n);
/* SIGKILL; nobody starts it again, as with a power cut. */
void node_kill(struct node *n);
void node_power_cut(struct node *n); /* kills it too */
void node_stop(struct node *n);	     /* SIGTERM */
void node_pause(struct node *n);     /* SIGSTOP: its clock goes on */
void node_resume(struct node *n);
/* Its monotonic clock runs that much faster from now on, its wall clock jumps. */
void node_clock_drift(struct node *n, int64_t ppm);
void node_wall_jump(struct node *n, int64_t ns);

/* ---- contents (contents.c) ---- */

/* @refers: is the object part of a volume?  One that a dead owner was removing is not, and may
 * differ until the sweep of a takeover is built. */
bool contents_check(struct world *w, struct node *nodes, unsigned nr, bool (*step)(void *arg),
		    bool (*refers)(void *arg, uint64_t oid), void *arg);

/* ---- logs (log.c): what a daemon logs is part of the story; instead of lib/base/log.c ---- */

struct log *sim_log_new(struct world *w, const char *name);

/* ---- clients (client.c) ---- */

struct sim_shape {	/* drawn from the seed */
	unsigned eager; /* of 10 times, a node that is down is started rather than anything else */
	unsigned nr_first; /* nodes at the beginning */
	unsigned nr_nodes, copies, nr_clients, shift, nr_objects, blocks, depth;
	bool discards, cached, shared;
	uint64_t fault_ns; /* how long faults go on */
	uint64_t gap_ns;   /* at most, from one to the next */
	uint64_t calm_ns;  /* before that: the death of an owner ends it, and nobody writes again */
};

#define OBJECTS_MAX 64u

struct history;
struct sd_cluster;
struct sd_vdi;
struct client {
	struct world *w;
	char name[24], gateways[256], volume[32];
	uint32_t ip;
	const struct sim_shape *shape;
	struct history *h;
	struct proc *p;
	struct co_sched *sched;
	struct sd_cluster *sd;
	struct sd_vdi *v;
	unsigned depth, in_flight;
	bool cached, stop, finished;
	unsigned writes; /* of 100 operations */
	uint32_t vid;	 /* at its end: which objects its volume has */
	bool refers[OBJECTS_MAX];
	uint64_t mood_until;
	uint64_t nr_ops, longest;
};

void client_start(struct client *c);
void client_kill(struct client *c); /* and client_start() begins anew */
/* Its process ends: in an orderly way when it is finished. */
void client_end(struct client *c);

#endif
