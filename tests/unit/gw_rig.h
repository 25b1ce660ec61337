/* gw_rig.h - several gateways in one process, over a virtual clock, a fake cluster, a fake peer
 * layer and replicas in memory that follow DESIGN 5.2 to 5.6.  For test_gateway.c. */
#ifndef TESTS_UNIT_GW_RIG_H
#define TESTS_UNIT_GW_RIG_H

#include "lib/base/map.h"
#include "lib/base/util.h"
#include "sheep/gateway.h"

#define NODES  4
#define MS     1000000ull
#define SHIFT  20u
#define OBJLEN (1u << SHIFT)

static inline bool inc_same(const struct incarnation *a, const struct incarnation *b)
{
	return a->start == b->start && !__builtin_memcmp(a->uuid, b->uuid, sizeof(a->uuid));
}

struct rig;
struct cluster {
	struct rig *rig;
	struct node *n;
	struct view *view;
};

#define HOLE 65536u /* objects take no room from here on */

struct robj { /* a replica's object */
	struct obj_ver ver;
	uint64_t size;
	uint8_t *data;
	bool cached; /* has writes that were not durable */
};

struct node {
	struct rig *rig;
	int i;
	bool alive, up; /* up: its gateway exists */
	struct sheep sh;
	struct sheep_conf conf;
	struct cluster c;
	/* its replica side */
	struct map objs;
	uint32_t epoch;
	bool insync, full, bad, lose; /* lose: answers NO_OBJ to reads, once */
	bool low;		      /* below its reserve */
	uint64_t rotten;	      /* oid + 1 of an object whose first block is bad; 0: none */
	bool paused;		      /* messages to it wait */
	bool torn_view;		      /* does not apply views by itself */
	bool impatient;		      /* does not hold what lacks its previous write */
	bool mute_list;		      /* cannot list its objects */
	bool late_epoch;	      /* its answers name the epoch in which they leave */
	unsigned nr_write, nr_flush, nr_version, nr_settle, nr_read, nr_forward, nr_list, nr_room;
	unsigned nr_volatile; /* removals that a power cut may take back */
	uint32_t last_write_epoch;
	bool no_lease;
	uint64_t serve_after;
	unsigned do_fails;	   /* so many commands fail for want of memory */
	struct cds_list_head held; /* messages that wait for something */
	uint64_t persisted_gen;
};

struct msg {
	struct cds_list_head node; /* rig.msgs */
	struct cds_list_head hnode;
	struct rig *rig;
	struct env_timer timer;
	struct node *from, *to;
	uint64_t to_start;
	struct peer_call *call; /* NULL: the caller is gone */
	struct peer_call h;	/* the handler's side */
	struct incarnation from_inc;
	uint32_t *crc;
	bool handled, held;
	int error;
};

struct rig {
	struct env env;
	uint64_t now, seq, rng;
	struct cds_list_head timers, defers;
	struct co_sched *sched;
	struct buf_pool *pool;
	struct node n[NODES];
	unsigned nr;
	struct map table;
	uint64_t gen;
	struct view *view; /* newest */
	uint32_t epoch;
	struct cluster_params params;
	struct cds_list_head msgs;
	uint64_t link_at[NODES][NODES]; /* order of a connection */
	bool blocked[NODES][NODES];	/* messages of this direction are kept */
	unsigned delay_us;		/* at most */
	unsigned list_max;		/* objects in one answer */
	unsigned dup;			/* one in so many writes comes twice; 0: none */
	unsigned nr_claims, nr_barriers, nr_cached, nr_sessions;
	struct map sessions; /* client id -> the newest on the bus */
	uint32_t next_vid;
	bool mix; /* cluster_do takes its time */
};

extern const struct env_ops rig_ops; /* gw_env.c */
void rig_timer_set(struct env *e, struct env_timer *t, uint64_t at);
void rig_timer_del(struct env *e, struct env_timer *t);

struct rig *rig_new(unsigned nodes, unsigned copies);
void rig_free(struct rig *r); /* stops all, checks that nothing is left */
uint64_t rig_rand(struct rig *r, uint64_t n);
/* Run until *flag, or @ns of virtual time have passed; returns *flag. */
bool rig_run(struct rig *r, const bool *flag, uint64_t ns);
void rig_sleep(struct rig *r, uint64_t ns);

/* A new view of the nodes that are alive; applied by all but those with torn_view. */
void rig_view(struct rig *r);
void rig_apply(struct node *n); /* the newest view */
void rig_kill(struct rig *r, int i);
void rig_restart(struct rig *r, int i); /* a new incarnation; not in sync */
void rig_recover(struct rig *r);	/* all of the newest view come in sync */
void rig_unblock(struct rig *r, int from, int to);
/* The connection breaks: of what is blocked, what nobody waits for ends. */
void rig_break(struct rig *r, int from, int to);
void rig_kick(struct node *n);
void rig_list(struct node *n, struct msg *m); /* gw_sweep.c: PEER_VID_LIST */

struct robj *rig_obj(struct rig *r, int node, uint64_t oid);
void rig_lose(struct rig *r, int node, uint64_t oid); /* it is not there any more */
/* All replicas in sync are identical. */
void rig_compare(struct rig *r);
struct vdi *rig_vdi(struct rig *r, uint32_t vid);

/* One request in a coroutine of its own. */
struct tr {
	struct rig *r;
	struct node *n;
	struct gw_request g;
	bool done;
};
void tr_start(struct rig *r, struct tr *t, int node, uint8_t op, uint64_t oid, uint32_t off,
	      const void *data, uint32_t len, uint16_t flags);
uint32_t tr_wait(struct rig *r, struct tr *t); /* result; 0xffff: no answer was to be sent */
void tr_end(struct tr *t);
/* Start, wait, end. */
uint32_t rq(struct rig *r, int node, uint8_t op, uint64_t oid, uint32_t off, const void *data,
	    uint32_t len, uint16_t flags);
uint32_t rq_read(struct rig *r, int node, uint64_t oid, uint32_t off, void *data, uint32_t len);
uint32_t rq_create(struct rig *r, int node, const char *name, uint64_t size, uint32_t *vid);
uint32_t rq_delete(struct rig *r, int node, const char *name);
/* Run @fn(@arg) in a coroutine to its end. */
void rig_co(struct rig *r, void (*fn)(void *arg), void *arg);

#endif
