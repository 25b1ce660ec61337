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
/* What is ordered reaches @ip later, by up to @ns each; 0: no more. */
void bus_lag(struct sim_bus *sb, uint32_t ip, uint64_t ns);
/* What is ordered reaches @ip that much later. */
void bus_late(struct sim_bus *sb, uint32_t ip, uint64_t ns);
/* What is ordered does not reach @ip; or all that it has missed does. */
void bus_hold(struct sim_bus *sb, uint32_t ip, bool held);
void sim_bus_schedule_death(struct sim_bus *sb, struct death *d, uint64_t after);

/* ---- nodes (node.c): a machine, its disk and the daemon on it ---- */

struct node {
	struct world *w;
	unsigned idx;
	char name[16];
	uint32_t ip;
	struct sim_disk *disk;
	uint8_t boot_id[16];
	struct proc *p; /* NULL: no daemon runs */
	struct sheep *sh;
	struct sheep_conf conf;
	struct event end; /* the daemon said that it has stopped */
	bool starting, started, stopping;
	int start_result;
	uint64_t nr_starts;
};

void node_init(struct node *n, struct world *w, unsigned idx, uint64_t disk_size);
void node_done(struct node *n);
void node_start(struct node *n);
void node_kill(struct node *n);
void node_power_cut(struct node *n); /* kills it too */
void node_stop(struct node *n);	     /* SIGTERM */

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
