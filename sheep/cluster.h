/* cluster.h - the replicated state machine (cluster.c: pure) and its life around the bus
 * (member.c).
 *
 * cluster.c: apply(state, command) -> reply, actions; no clock, no I/O, no randomness, no logging.
 * member.c:  joins, orders, persists, publishes: owns the bus and the files epoch/ of the store.
 *
 * Promises (cited as C1..C6):
 *  C1 What can be read through this header (the VDI table, the history, views, answers of
 *     cluster_do) is durable on this node: a command is in the log before it is applied.
 *  C2 Commands, views and hooks happen in the order of the bus, one at a time, in one coroutine.
 *     An answer of cluster_do comes after the hooks of everything ordered before it.
 *  C3 An epoch is published (cluster_view) right before its hooks run, and only on a node that is
 *     in it; the status becomes RUNNING when the hooks of the first one have returned.
 *  C4 A generation is given once, in this branch and any other, and is above every generation
 *     that any joiner has in its store.
 *  C5 An epoch with a joiner is made only when every present node has made durable that the start
 *     set has it; without its whole start set the cluster does not start (DESIGN 4.3).
 *  C6 Two nodes that have applied the same prefix of the order have the same cluster_state_hash.
 */
#ifndef SHEEP_CLUSTER_H
#define SHEEP_CLUSTER_H

#include "lib/proto/ring.h"
#include "sheep/cluster/driver.h"

struct sheep;

enum cluster_status { CLUSTER_WAIT_FORMAT, CLUSTER_WAIT_JOIN, CLUSTER_RUNNING, CLUSTER_SHUTDOWN };

struct member {
	struct incarnation inc;
	struct net_addr addr;	 /* data and client address (-y, -p) */
	struct net_addr io_addr; /* -i, family 0 when none */
	uint32_t zone;
	uint16_t nr_vnodes;    /* as of this view */
	uint16_t fixed_vnodes; /* -V; 0: automatic */
	bool gateway;
	uint64_t space;
	uint8_t boot_id[16];
	/* It came back from a branch that `recover force` gave up (DESIGN 4.3): all that it has
	 * counts as of @common_epoch at most (0: of none), its files belong in .stale/.  Stays set
	 * in all views of this incarnation: whoever acts on it records durably that it did. */
	bool given_up;
	uint32_t common_epoch;
};

/* A view: immutable once published, reference counted (one thread: no atomics). */
struct view {
	unsigned refs;
	uint32_t epoch;
	uint8_t name[8]; /* the epoch's random name */
	uint64_t time;	 /* unix seconds; may be filled in a moment after publishing */
	unsigned nr;
	struct member *members; /* sorted by (addr, port): index = dog's node id */
	struct ring *ring;	/* over members with nr_vnodes > 0; ring entry i = members[i] */
	int self;		/* index of this node, -1 when not in it */
	bool forced;		/* made by FORCE_RECOVER, which gave up the absent ones: DESIGN 5.5
				 * (2) waits for no member of an earlier epoch */
};

#define VDI_LOCKS_MAX 31u
#define VDI_OPEN      2u /* CMD_VDI_LOCK: no lock */

/* The VDI table's entry. */
struct vdi {
	uint32_t vid;
	char name[256], tag[256];
	uint64_t create_time, snap_ctime; /* (sec << 32) | nsec */
	uint64_t vm_clock_nsec, size, vm_state_size;
	uint32_t snap_id, parent_vid;
	uint32_t family;       /* family number */
	uint32_t create_epoch; /* the newest epoch when it was created */
	uint32_t btree_counter;
	uint8_t copies, copy_policy, store_policy, shift;
	bool deleted;	 /* tombstone: the vid stays in use */
	bool creating;	 /* CREATE was applied, VISIBLE was not */
	bool reclaiming; /* deleted, its objects are still being removed */
	bool cached; /* @gen, or one before it that was not released clean, took cached writes */
	bool cache_lost;     /* next flush answers EIO once */
	uint32_t lost_epoch; /* the newest epoch in which it was said to be lost */
	uint64_t opens; /* how often it was opened (CMD_VDI_LOCK): what a client that was gone by
			 * then had asked for is not done any more (DESIGN 5.1) */
	/* ownership */
	bool owned; /* @owner holds it (it may be dead: then the next CLAIM takes over) */
	bool clean; /* owned: the takeover is finished.  Not owned: the last owner released clean;
		     * false: a new generation begins dirty */
	struct incarnation owner;
	uint64_t gen;
	/* USE_LOCK locks */
	uint8_t lock_state;		/* 1 unlocked, 2 locked, 3 shared */
	uint8_t lock_nr;		/* at most VDI_LOCKS_MAX */
	struct incarnation *lock_owner; /* [lock_nr]; NULL when 0 */
	struct net_addr *lock_addr;
};

#define CLUSTER_HISTORY 1024u

struct cluster; /* member.c's object: the state machine of this node and its life */

/* ---- what other modules ask (no yield) ---- */

enum cluster_status cluster_status(const struct cluster *c);
/* The newest view that this node has persisted and is in; NULL before the first.  Borrowed:
 * view_get() it to keep it over a yield.  It is published right before its hooks run: who does I/O
 * for others (the replica side) admits requests of it when the hooks did their part. */
struct view *cluster_view(const struct cluster *c);
struct view *view_get(struct view *v);
void view_put(struct view *v);					    /* NULL is fine */
int view_find(const struct view *v, const struct incarnation *inc); /* index or -1 */
/* Members of epoch @e from the history (for DESIGN 5.5 (2)); NULL: not known (the last
 * CLUSTER_HISTORY epochs are).  view_put() it. */
struct view *cluster_history(struct cluster *c, uint32_t epoch);
/* Newest epoch known here (also while waiting for members); 0: none. */
uint32_t cluster_epoch(const struct cluster *c);
/* The members present now, also when there is no view yet (before format, waiting for others): for
 * node lists.  epoch and name are of no meaning.  view_put() it; NULL: out of memory. */
struct view *cluster_present(struct cluster *c);
/* Fires when the view or the status changed (broadcast). */
struct co_cond *cluster_changed(struct cluster *c);
const struct vdi *cluster_vdi(const struct cluster *c, uint32_t vid); /* NULL: never used */
const struct vdi *cluster_vdi_next(const struct cluster *c, uint32_t after_vid);
/* Lookup by protocol.md 6.1; SD_RES_*. */
uint32_t cluster_lookup(const struct cluster *c, const char name[256], const char tag[256],
			uint32_t snapid, const struct vdi **ret);

/* ---- leases (DESIGN 4.4; no yield) ---- */

/* Does this node's lease run?  To be asked after the data of a read is there, before it is
 * answered; without it nothing is served. */
bool cluster_lease(const struct cluster *c);
/* Time of env_now() before which no claim of the present epoch serves: somebody fell silent, and
 * may still think that it is the owner.  0: no wait. */
uint64_t cluster_serve_after(const struct cluster *c);
/* The peer side has heard nothing of @who for SD_PEER_SILENT_NS although it should have.  Said
 * again at least each SD_LEASE_NS while it is so; what was not said again for a while is taken
 * back. */
void cluster_accuse(struct cluster *c, const struct incarnation *who);
/* It answers again: what was said of it is taken back at once. */
void cluster_acquit(struct cluster *c, const struct incarnation *who);
/* Whom it is good to ask now whether they live: who stands accused, and who accuses this node.  At
 * most @max; returns how many.  No yield. */
unsigned cluster_suspects(const struct cluster *c, struct incarnation *who, unsigned max);
/* The newest session of that client that was opened on the bus (CMD_SESSION); 0: none. */
uint64_t cluster_session(const struct cluster *c, uint64_t client_id);

struct cluster_params {
	uint64_t ctime; /* cluster id; 0: not formatted */
	uint16_t flags;
	uint8_t copies, copy_policy, shift;
	bool disable_recovery;
	char store[16];
};
const struct cluster_params *cluster_params(const struct cluster *c);
/* Hash over the canonical encoding of the state (for heartbeats, DESIGN 4.2, and tests). */
uint64_t cluster_state_hash(const struct cluster *c);

/* ---- commands: each is one message on the bus; returns when it was applied and persisted here
 * ----
 *
 * Results: SD_RES_SUCCESS, or
 *  - WAIT_FOR_FORMAT, WAIT_FOR_JOIN, SHUTDOWN: the status forbids it, or the sender is not in the
 *    present view
 *  - NO_VDI: unknown vid or name (NO_TAG as in protocol.md 6.1)
 *  - VDI_NOT_LOCKED: the sender is not the owner, or of another generation
 *  - VDI_LOCKED: CLAIM: a live member owns it (ret_owner); VDI_LOCK: somebody has the lock;
 *    RECLAIMED: a live member owns it
 *  - INVALID_PARMS, VDI_EXIST, FULL_VDI, FORCE_RECOVER, INVALID_VNODES_STRATEGY
 */

enum cmd_type {
	CMD_FORMAT,
	CMD_SHUTDOWN,
	CMD_FORCE_RECOVER,
	CMD_VDI_CREATE,	   /* grants the vid, generation and ownership to the sender */
	CMD_VDI_VISIBLE,   /* its inode is written */
	CMD_VDI_DELETE,	   /* by name/tag/snapid */
	CMD_VDI_RECLAIMED, /* all objects of a deleted vid are gone */
	CMD_VDI_HEADER,	   /* an owner's header write: tag, vm_*, larger size; ctime: vdi.opens when
			    * it was decided.  OLD_NODE_VER: it was opened since */
	CMD_VDI_LOCK,	   /* by name/tag/snapid.  lock_type: 0 normal, 1 shared, VDI_OPEN: it takes
			    * no lock, and fails for none */
	CMD_VDI_UNLOCK,
	CMD_CLAIM,	/* by the owner itself: granted again, with a new, dirty generation */
	CMD_RELEASE,	/* gen, clean: takeover finished and everything flushed */
	CMD_CLEAN,	/* gen: takeover finished */
	CMD_CACHED,	/* gen: ordered before its first cached write is answered */
	CMD_CACHE_LOST, /* on: set the mark, from any member, of a VDI that is `cached`; off: clear
			 * it: the owner (gen) has told a client, or somebody opened the VDI anew
			 * (gen 0) */
	CMD_SESSION,	/* gen: client id, size: session: requests of older sessions of that client
			 * are void from here on, at every owner to come.  ret_gen: the newest one;
			 * INVALID_PARMS: that one is newer than this */
	CMD_ACCUSE,	/* target: hangs.  Two different accusers expel it (one when there are two
			 * members): as if the bus had reported it as silent.  clean: this accuser
			 * has heard it again and takes its accusation back.  A new epoch forgets
			 * all accusations: who still has reason to says it again.
			 * on: this accuser has waited for SD_INSIST_NS; if the target accuses it
			 * too, the one of the two that came later goes. */
	CMD_SET_RECOVERY, /* enable, disable */
	CMD_BARRIER, /* changes nothing: what was ordered before it is applied here (lookups) */
	/* member.c's own: */
	CMD_JOIN,
	CMD_ADMIT_ACK,
	CMD_STATE,
	CMD_EPOCH_TIME,
	CMD_SPACE,	 /* size: this member's capacity; counts from the next epoch on */
	CMD_LEASES_OVER, /* size: the sender has waited for the leases of who fell silent there */
	CMD_HEARTBEAT,	 /* changes nothing, is not logged */
	CMD_NR
};

/* Arguments and reply of a command, one flat struct (encoded field by field on the bus). */
struct cmd {
	enum cmd_type type;
	uint32_t vid;
	uint64_t gen; /* owner's commands carry it */
	char name[256], tag[256];
	uint32_t snapid, base_vid;
	uint64_t size, vm_state_size, vm_clock_nsec, ctime;
	uint8_t copies, copy_policy, store_policy, shift, lock_type;
	uint16_t flags;
	char store[16];
	uint64_t time;	 /* wall clock of the sender, for states that need one */
	uint64_t random; /* randomness of the sender (epoch names) */
	bool clean, on;
	struct incarnation target;
	/* reply */
	uint32_t result; /* SD_RES_* */
	uint32_t ret_vid;
	uint64_t ret_gen;	      /* CREATE, CLAIM granted: the generation */
	bool ret_dirty;		      /* CLAIM granted: the generation begins dirty */
	bool ret_lost;		      /* CACHE_LOST off: it was set until now */
	struct incarnation ret_owner; /* CLAIM refused: who has it */
	uint8_t ret_copies, ret_shift;
};

/* Send and wait.  0: c->result is the machine's answer.  -ENOTCONN: this node is out, or stops.
 * Persist-before-use (DESIGN 4.2) is inside: when cluster_do returns, the answer is durable here.
 * Never from a hook (asserted): the hooks are in its way.  A CREATE of a name that another live
 * gateway is creating waits until that is decided. */
co_fn int cluster_do(struct cluster *c, struct cmd *cmd);

/* ---- life ---- */

struct cluster_hooks {
	/* A new view was applied, persisted and published.  @old may be NULL.  Called in a
	 * coroutine of the cluster, may yield; I/O in the new epoch starts only after all hooks
	 * returned.  @clean: a clean restart of the whole start set, in sync at once (DESIGN 4.3).
	 */
	co_fn void (*view)(void *arg, struct view *old, struct view *new_view, bool clean);
	/* A VDI changed (created, deleted, owner, header...). */
	void (*vdi)(void *arg, const struct vdi *v);
	/* Format: drop everything (before the first view of the new cluster). */
	/* 0, or -errno: not done; it comes again at the next start, before anything else. */
	co_fn int (*format)(void *arg);
	/* Cluster shutdown was ordered: drain and stop, then leave the clean mark. */
	void (*shutdown)(void *arg);
	/* We are out: all connections must end; the daemon exits or comes back as a new
	 * incarnation. */
	void (*out)(void *arg, const char *reason);
	/* The cluster driver has something to say to the operator: for the log.  No yield. */
	void (*warn)(void *arg, const char *text);
};

struct cluster_conf {
	const struct bus_driver *driver;
	const char *param;
	struct member self;   /* addr.family 0: the driver's address (the port is set) */
	bool zone_auto;	      /* zone: the last 4 bytes of that address, little-endian */
	uint64_t max_gen;     /* store_max_gen() */
	uint32_t clean_epoch; /* from store_ident */
	uint8_t clean_name[8];
	struct env_file *dir; /* store directory: epoch/ lives in it */
	struct cluster_hooks hooks;
	void *arg;
};
/* Load the persisted state, open the bus, send the join.  Returns when this node was admitted, or
 * waits for others (*waiting_for = malloc'ed sentence naming them), or was refused (-EPERM, *err
 * says why), or has to try anew as another incarnation (-EAGAIN).  *ret is set before the first
 * hook is called.  On failure nothing is left (*ret is NULL), unless hooks were called already:
 * then hooks.out is, and 0 returned. */
co_fn int cluster_start(struct co_sched *s, const struct cluster_conf *conf, struct cluster **ret,
			char **waiting_for, char **err);
/* After hooks.out: does the cluster refuse this node for what it is?  Else it may come back at
 * once, as a new incarnation. */
bool cluster_refused(const struct cluster *c);
/* End waits in cluster_do, now and from now on (-ENOTCONN): who sends is about to be taken down.
 * The bus may be silent for long, or a name be in creation elsewhere.  No yield. */
void cluster_hangup(struct cluster *c);
/* Leave the bus, end waits in cluster_do (-ENOTCONN) and on cluster_changed, wait for own
 * coroutines, free. */
co_fn void cluster_stop(struct cluster *c);

#endif
