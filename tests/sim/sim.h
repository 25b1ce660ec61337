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
/* Who is in the cluster at the end of the order, whether or not anybody has heard of it. */
unsigned bus_nr_members(const struct sim_bus *sb);
/* The others see @ip fall silent at once; it learns of it after @told ns. */
void bus_silent(struct sim_bus *sb, uint32_t ip, uint64_t told);
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
	bool gateway;	/* stores nothing */
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

enum object_is {
	OBJECT_PART,	/* of a volume */
	OBJECT_LOOSE,	/* its volume is not clean: its copies may differ, and be fewer */
	OBJECT_LEFT,	/* of a volume's vid, but not in its index: left by a death, if any */
	OBJECT_DELETED, /* its volume is: it must not be there */
};
/* Read all of all stores; @step runs the world.  False: the run has failed. */
bool contents_check(struct world *w, struct node *nodes, unsigned nr, bool (*step)(void *arg),
		    enum object_is (*is)(void *arg, uint64_t oid), void *arg);

/* ---- logs (log.c): what a daemon logs is part of the story; instead of lib/base/log.c ---- */

struct log *sim_log_new(struct world *w, const char *name);

/* ---- clients (fleet.c: who they are; work.c: what they do; client.c, oldclient.c, churn.c) ----
 */

struct sim_shape {	/* drawn from the seed */
	unsigned eager; /* of 10 times, a node that is down is started rather than anything else */
	unsigned nr_first; /* nodes at the beginning */
	unsigned nr_nodes, copies, nr_clients, shift, nr_objects, blocks, depth;
	bool discards, cached;
	uint64_t fault_ns; /* how long faults go on */
	uint64_t gap_ns;   /* at most, from one to the next */
	uint64_t calm_ns;  /* before that: the death of an owner ends it, and nobody writes again */
};

#define OBJECTS_MAX 64u

struct history;
struct volume {
	char name[16];
	struct history *h;
	unsigned nr_objects; /* as far as any client knows */
	unsigned max_objects;
	bool shared; /* written by several clients: allocated when it is created, no discards */
	bool discards;
	uint32_t vid; /* set by a client at its end: which objects it has */
	bool refers[OBJECTS_MAX];
};

enum client_kind {
	CLIENT_OWN,    /* one volume, one client */
	CLIENT_SHARED, /* one volume, several clients on several gateways */
	CLIENT_MOVING, /* closes its volume and opens it through another gateway */
	CLIENT_OLD,    /* the protocol of QEMU up to 6.0 and tgt: no sessions, one gateway */
	CLIENT_CHURN,  /* creates and deletes volumes */
	CLIENT_NR
};
extern const char *const client_kinds[CLIENT_NR];

enum work_kind { /* the first four go through the history */
		 WORK_READ,
		 WORK_WRITE,
		 WORK_DISCARD,
		 WORK_FLUSH,
		 WORK_OPEN,
		 WORK_MOVE,
		 WORK_GROW,
		 WORK_CREATE,
		 WORK_DELETE,
		 WORK_NR
};
extern const char *const work_names[WORK_NR];

struct sd_cluster;
struct sd_vdi;
struct old;
struct churn;
struct client {
	struct world *w;
	enum client_kind kind;
	unsigned idx;
	char name[24];
	uint32_t ip;
	const struct sim_shape *shape;
	struct volume *vol;
	unsigned gateway; /* the node it begins with */
	struct proc *p;
	struct co_sched *sched;
	struct sd_cluster *sd;
	struct sd_vdi *v;
	struct old *old;
	struct churn *churn;
	unsigned depth, in_flight;
	bool cached, stop, finished;
	unsigned writes; /* of 100 operations */
	uint64_t mood_until, move_at, grow_at;
	uint64_t did[WORK_NR], longest;
};

void client_start(struct client *c);
void client_kill(struct client *c); /* and client_start() begins anew */
/* Its process ends: in an orderly way when it is finished. */
void client_end(struct client *c);
/* The body of a client of that kind, a coroutine of its process. */
void old_run(struct client *c);
void churn_run(struct client *c);
/* An answer that says: not now, and nothing was done.  The gateway is new and not in the cluster
 * yet, or the cluster waits for its nodes. */
bool client_waits(int err);
/* That, or all gateways are away: it is worth another try. */
bool client_passes(int err);
/* libsheepdog in this client's process; its gateways, @c->gateway first. */
struct sd_cluster *client_open_cluster(struct client *c);

struct churn *churn_new(void); /* what outlives the process of a CLIENT_CHURN; free() it */

/* ---- what they do (work.c) ---- */

#define SECTOR	  512u
#define WORK_IDLE 1000u /* client.writes: nothing at all */

struct work {
	struct client *c;
	enum work_kind kind;
	unsigned first, nr; /* sectors of the volume */
	uint64_t value, start;
	uint64_t breaks, session; /* of the world's connections, of the client */
	size_t write;		  /* in the history */
};

/* A random operation, begun now: a write is in the history. */
void task_begin(struct client *c, struct work *k);
/* One that is not random. */
void task_begin_read(struct client *c, struct work *k, unsigned first, unsigned nr);
void task_begin_flush(struct client *c, struct work *k);
/* It was answered: 0 (and what a read saw is in @buf), or an error: the run fails, unless a fault
 * allows it. */
void task_end(struct work *k, const uint8_t *buf, int err);
void task_stamp(const struct work *k, uint8_t *buf);
/* The client is in another mood now and then: what a dead owner left different on its replicas is
 * seen only while nobody writes. */
void task_mood(struct client *c);
/* An opening of the volume began at @start and has succeeded. */
void task_opened(struct client *c, uint64_t start);
/* What it had in flight will not be answered. */
void task_dropped(struct client *c);

/* invariants.c: what the file `sync` of a node says, loaded anew (I5); in a coroutine of the node.
 */
struct sync;
struct sync *marks_load(struct node *n);
bool marks_have(const struct sync *t, uint64_t oid, uint8_t copies, uint32_t epoch);
void marks_free(struct sync *t);

#endif
