/* sync_rig.h - nodes in one process around the real replica.c, sync*.c, recover*.c, pull.c: a
 * network in memory whose messages a test can hold, views that each node applies when the test says
 * so. */
#ifndef TESTS_UNIT_SYNC_RIG_H
#define TESTS_UNIT_SYNC_RIG_H

#include "lib/env/linux.h"
#include "sheep/sync_int.h"

#define RIG_NODES  4u
#define RIG_EPOCHS 64u
enum { A, B, C, D };
#define M(n) (1u << (n))
#define ABC  (M(A) | M(B) | M(C))

struct rig;

struct cluster { /* what sheep->cluster points to here */
	struct node *n;
};

struct node {
	struct rig *rig;
	unsigned idx;
	struct sheep sh;
	struct sheep_conf conf;
	struct cluster cluster;
	char dir[64];
	bool up, exited, given_up;
	uint32_t common_epoch;
	struct view *view; /* applied by this incarnation */
	unsigned nr_handlers;
};

struct rig_epoch {
	unsigned mask;
	bool forced;
	uint64_t start[RIG_NODES]; /* of the incarnations */
	uint8_t name[8];
};

struct rig {
	struct env *env;
	struct co_sched *sched;
	struct buf_pool *pool;
	struct node node[RIG_NODES];
	unsigned nr;
	char dir[32];
	struct rig_epoch epoch[RIG_EPOCHS + 1];
	uint32_t nr_epochs;
	struct cds_list_head wires;
	struct co_cond moved;
	/* requests from..to of an op wait; so do answers (of what `to` answers `from`) */
	bool hold_req[RIG_NODES][RIG_NODES][PEER_OP_NR], hold_rsp[RIG_NODES][RIG_NODES][PEER_OP_NR];
	unsigned sent[PEER_OP_NR]; /* counts */
	struct vdi vdi;		   /* the only one; vid 0: there is none */
	unsigned nr_lost;	   /* CMD_CACHE_LOST */
	unsigned lost_fails;	   /* so many of them first */
	int branch;		   /* makes the names of epochs differ */
	struct cluster_params params;
	const char *job; /* running */
};

int rig_setup(void **state);
int rig_teardown(void **state);

/* Run until *flag, at most 10 s. */
void rig_until(struct rig *r, const bool *flag);
void rig_ms(struct rig *r, unsigned ms);
/* Run fn(arg) in a coroutine to its end. */
void rig_run(struct rig *r, void (*fn)(void *arg), void *arg);

void rig_start(struct rig *r, unsigned n);
void rig_crash(struct rig *r, unsigned n);
void rig_format(struct rig *r, unsigned n);
/* A new epoch of these nodes (which are up); nobody has applied it yet.  Its number. */
uint32_t rig_epoch(struct rig *r, unsigned mask);
struct view *rig_view(struct rig *r, uint32_t epoch, int self);
void rig_apply(struct rig *r, unsigned n, uint32_t epoch);
int rig_apply_clean(struct rig *r, unsigned n, uint32_t epoch, bool clean);
/* Its nodes start, format, and apply epoch 1. */
void rig_boot(struct rig *r, unsigned mask);
uint32_t rig_step(struct rig *r, unsigned mask); /* rig_epoch, and all of them apply it */
void rig_rest(struct rig *r, unsigned mask);	 /* until they are at rest */
void rig_hold(struct rig *r, bool on, bool rsp, unsigned from, unsigned to, enum peer_op op);
void rig_hold_all(struct rig *r, bool on, bool rsp, unsigned to, enum peer_op op);
/* A newer connection from..to voids what came over the older one. */
void rig_void(struct rig *r, unsigned from, unsigned to);

/* The @k-th data object whose ring, over all four nodes, is A B C D in this order. */
uint64_t rig_oid(struct rig *r, unsigned k);

/* One call from a test. */
struct call {
	struct peer_call c;
	struct rig *r;
	bool done;
	uint8_t *got;
};
struct call *call_write(struct rig *r, unsigned from, unsigned to, uint32_t epoch, uint64_t oid,
			struct obj_ver ver, struct obj_ver prev, uint8_t fill);
struct call *call_remove(struct rig *r, unsigned from, unsigned to, uint32_t epoch, uint64_t oid,
			 struct obj_ver ver, struct obj_ver prev);
struct call *call_read(struct rig *r, unsigned from, unsigned to, uint32_t epoch, uint64_t oid);
struct call *call_op(struct rig *r, unsigned from, unsigned to, uint32_t epoch, uint64_t oid,
		     enum peer_op op);
void call_submit(struct call *k, unsigned from, unsigned to);
void call_wait(struct call *k);
void call_free(struct call *k); /* done or not */
/* Wait, check that it was a success (or @result), free. */
void call_ok_(struct call *k);
void call_is_(struct call *k, uint32_t result);

/* Write everywhere in @mask, and wait for all. */
void rig_write(struct rig *r, unsigned owner, unsigned mask, uint64_t oid, struct obj_ver ver,
	       struct obj_ver prev, uint8_t fill);
/* What a read from @n in its epoch says: the byte; -1: no object; -2: not answered soon. */
int rig_read(struct rig *r, unsigned n, uint64_t oid);
struct obj_ver rig_ver(struct rig *r, unsigned n, uint64_t oid);
bool rig_in_sync(struct rig *r, unsigned n, uint64_t oid);
/* Run until it is. */
void rig_wait_sync(struct rig *r, unsigned n, uint64_t oid);

#define V(g, s)	 ((struct obj_ver){g, s})
#define OBJ_SIZE (64u << 10)
extern unsigned rig_copies;

#endif
