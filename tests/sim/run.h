/* run.h - one run of the simulator: a cluster, its clients, the faults that are drawn for it.
 *
 * sim.c: options, many seeds, totals.  run.c: the phases and the conditions they wait for.
 * admin.c: who formats the cluster and creates the volumes.  faults.c: what goes wrong, and heals.
 */
#ifndef TESTS_SIM_RUN_H
#define TESTS_SIM_RUN_H

#include "tests/sim/check.h"
#include "tests/sim/sim.h"

#define CLIENTS_MAX 8u
#define HEAL_NS	    (120 * SEC) /* everything must be at rest by then */

#define LATER_MAX 64u

struct run;
struct kind;
struct later { /* what is going to happen: faults.c */
	struct event ev;
	struct run *r;
	struct node *n;
	void (*fn)(struct run *r, struct node *n, uint32_t arg);
	uint32_t arg;
	bool used;
};

struct run {
	struct world w;
	struct sim_shape shape;
	struct node node[NODES_MAX];
	struct client client[CLIENTS_MAX];
	struct volume volume[CLIENTS_MAX];
	unsigned nr_volumes;
	struct event fault, doom, ambush;
	struct later later[LATER_MAX];
	uint64_t kinds;	      /* of faults: bit i: fault_kinds[i] */
	struct node *patient; /* has a bad copy of something: fault_disk.c */
	/* What waits for rest (faults.c), and until when the phase is made longer for it. */
	const struct kind *wanted;
	uint64_t lull_until;
	unsigned nr_lulls;
	bool faults_on;
	const char *only;	    /* --only: the name of the kind; NULL: the seed says */
	bool no_faults;		    /* --no-faults */
	uint64_t until_ns;	    /* --until: it stops there */
	uint64_t fail_ns, crash_ns; /* --fail-at, --crash-at */
	/* the administrator: formats and creates; later, with admin_to, shuts down */
	struct proc *admin;
	struct co_sched *admin_sched;
	bool admin_done;
	char admin_to[32];
	char gateways[256];
};

/* ---- run.c ---- */

/* What the seed says about the size of the cluster and its clients. */
void draw_shape(struct run *r);
/* All of it; r->w.failed says how it went. */
void phases(struct run *r);
/* The next event; false: the run is over (failed, --until, nothing left). */
bool step(struct run *r);
/* Events until fn(@r); false: the run is over, it failed when @ns were not enough. */
bool run_until(struct run *r, bool (*fn)(struct run *r), uint64_t ns, const char *what);
/* All nodes are in one view, agree, and have nothing left to repair. */
bool at_rest(struct run *r);

/* ---- fleet.c: the clients and their volumes ---- */

/* After draw_shape(); may raise the number of clients. */
void fleet_draw(struct run *r);
void fleet_start(struct run *r);
void fleet_done(struct run *r);
/* What the clients saw. */
void fleet_check(struct run *r);
/* Nothing is left to be done for any volume: takeovers are clean, what was deleted is gone. */
bool fleet_rest(struct run *r);
/* For contents_check(); @arg: the run. */
enum object_is fleet_object(void *arg, uint64_t oid);

/* ---- admin.c ---- */

void admin_start(struct run *r);
bool admin_ready(struct run *r);
void admin_shutdown(struct run *r, const struct node *n); /* asks @n; does not wait */
void admin_end(struct run *r); /* at any time, also when it was never started */

/* ---- faults.c ---- */

/* From now on faults are drawn, until heal(). */
void faults_start(struct run *r);
void heal(struct run *r);
void faults_done(struct run *r);

#endif
