/* stage.h - what named scenarios are made of: a small cluster, clients that do one thing at a time,
 * a hand on every link, every process and every node's place in the order of the bus.
 *
 * Nodes are called by their place in the ring of the scenario's object: P and Q are the first two
 * replicas when all are there, then R, S: with two copies the ring of any view is its first two
 * members in that order, as in the model.  Every step does nothing once the run has failed, so a
 * scenario reads from top to bottom.
 */
#ifndef TESTS_SIM_STAGE_H
#define TESTS_SIM_STAGE_H

#include "sheep/store/store.h"
#include "tests/sim/sim.h"

#define STAGE_OPS     256u
#define STAGE_CLIENTS 4u

struct stage;

struct cast { /* a client */
	struct stage *st;
	char name[16], gateways[128], volume[16];
	uint32_t ip;
	bool cached, open, ended;
	struct proc *p;
	struct co_sched *sched;
	struct sd_cluster *sd;
	struct sd_vdi *v;
};

enum step_kind { STEP_READ, STEP_WRITE, STEP_FLUSH, STEP_DISCARD };

struct step { /* one operation of a client */
	struct cast *c;
	enum step_kind kind;
	unsigned block;
	uint8_t *buf;
	struct iovec iov;
	uint64_t value, start; /* of a read: what the first sector holds */
	size_t write;
	bool done, dead; /* dead: with its client */
	int err;
	unsigned nr; /* sectors */
	struct obj_ver before[NODES_MAX];
};

struct stage {
	struct world *w;
	struct node node[NODES_MAX];
	unsigned nr_nodes, nr_gateways, copies, nr_clients, nr_steps;
	unsigned role[NODES_MAX]; /* P Q R S ... -> index of the node */
	uint32_t vid, index[2];	  /* at the end */
	unsigned object;	  /* whose ring gives the roles */
	uint8_t admin_op;	  /* what the administrator wants */
	bool bare;		  /* no volume at the beginning */
	struct history *h;
	struct cast cast[STAGE_CLIENTS + 1]; /* the last one: the administrator */
	struct step step[STAGE_OPS];
};

struct scenario {
	const char *name, *about;
	void (*play)(struct stage *s);
};
extern const struct scenario scenarios[]; /* the last one has no name */

/* ---- the cluster ---- */

/* @nodes nodes start, a volume of @copies copies is made, all is at rest; roles are given. */
void stage_cluster(struct stage *s, unsigned nodes, unsigned copies);
/* The same; the last @gateways of them, by name and by role, store nothing. */
void stage_gateways(struct stage *s, unsigned nodes, unsigned copies, unsigned gateways);
/* All links, disks and places in the order are well, all nodes start; until all is at rest. */
void stage_heal(struct stage *s);
/* The end: heals, everything is read once more, histories, contents, orderly end. */
void stage_end(struct stage *s);
void stage_free(struct stage *s);

struct node *node_at(struct stage *s, char role);
void start(struct stage *s, char role); /* and do not wait */
void dies(struct stage *s, char role);	/* kill -9 */
/* All of the first @copies of them: they are the replicas, and what they had in the kernel is lost.
 */
void power_cut(struct stage *s, const char *roles);
/* A bit in block 0 of the scenario's object, once its file is synced. */
void rots(struct stage *s, char role);
void pauses(struct stage *s, char role);
void goes_on(struct stage *s, char role);
/* What @from sends to @to is held back, or flows. */
void cut(struct stage *s, char from, char to);
void joined(struct stage *s, char from, char to);
/* What is held now arrives, what comes later is held. */
void lets(struct stage *s, char from, char to);
/* What @from sends to @to takes so much longer. */
void slow(struct stage *s, char from, char to, uint64_t ns);
/* What is on connections that are open now is held back, or arrives; newer ones are not touched. */
void old_links_hold(struct stage *s, char from, char to, bool held);
/* @from's end of its connections to @to breaks; @to hears of it behind what is on its way. */
void loses_links(struct stage *s, char from, char to);
/* The others see @role fall silent; it goes on, and learns of it after @told ns. */
void falls_silent(struct stage *s, char role, uint64_t told);
/* @role gets nothing more from the bus; or what it has missed. */
void holds_bus(struct stage *s, char role);
void gets_bus(struct stage *s, char role);
/* Everything from the bus reaches @role @ns late, by as much each time. */
void late_bus(struct stage *s, char role, uint64_t ns);

/* ---- waiting ---- */

void pass(struct stage *s, uint64_t ns);
/* Until @role has applied the view of epoch @epoch (0: some view without waiting any more). */
void until_epoch(struct stage *s, char role, uint32_t epoch);
/* Until @role's newest view has exactly these members. */
void until_view(struct stage *s, char role, const char *members);
void until_started(struct stage *s, char role);
void until_rest(struct stage *s, const char *roles);
void until_applied(struct stage *s, char role, const struct step *w);
void until_stopped(struct stage *s);		/* all, by themselves; they are started again */
void until_removed(struct stage *s, char role); /* the scenario's object */
void until_in_sync(struct stage *s, char role);
void until_not_in_sync(struct stage *s, char role);
/* Until @role pulls the scenario's object, or is just about to. */
void until_pulling(struct stage *s, char role);
bool applied(struct stage *s, char role, const struct step *w);
uint32_t epoch_of(struct stage *s, char role);
uint64_t node_start_nr(struct stage *s, char role); /* of its incarnation; 0: it is not up */
struct obj_ver version_at(struct stage *s, char role);

/* ---- clients ---- */

/* Opens the volume over these gateways, first one first; waits until it has. */
struct cast *client(struct stage *s, const char *gateways, bool cached);
/* Makes the volume of a bare cluster, and opens it; does not wait. */
struct cast *creator(struct stage *s, const char *gateways);
bool has_opened(const struct cast *c);
void until_open(struct cast *c);
void client_dies(struct stage *s, struct cast *c);
/* `dog cluster ...` at @role: an SD_OP_..., and its answer is success. */
void administers(struct stage *s, char role, uint8_t op);
/* Start, and do not wait. */
struct step *writes(struct cast *c, unsigned block);
struct step *writes_big(struct cast *c);
struct step *reads(struct cast *c, unsigned block);
struct step *flushes(struct cast *c);
struct step *discards(struct cast *c);
void until_done(struct stage *s, struct step *op);
/* Both. */
void wrote(struct cast *c, unsigned block);
uint64_t has_read(struct cast *c, unsigned block);
void flushed(struct cast *c);
void discarded(struct cast *c);
/* Something that must be so, beside the checks at the end. */
void expect(struct stage *s, bool good, const char *what);

/* ---- between stage.c and cast.c ---- */

void cast_format(struct stage *s);    /* the administrator */
void cast_power_cut(struct stage *s); /* of all replicas of the scenario's object */
void cast_end(struct stage *s);	      /* everything is read once more, volumes are closed */
void cast_gone(struct stage *s);
void stage_versions(struct stage *s, struct obj_ver *ver);
bool stage_refers(const struct stage *s, uint64_t oid);

#endif
