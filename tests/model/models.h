/* models.h - the models of tests/model, and what may be left out of each. */
#ifndef MODEL_MODELS_H
#define MODEL_MODELS_H

#include "tests/model/explore.h"

/* ---- object.c: one object of one VDI, on a few nodes ---- */

#define OBJECT_MUTANTS(X)                                                                          \
	X(ack_early)	     /* a write is answered when the first replica has it */               \
	X(no_epoch)	     /* replicas and reads do not look at the epoch */                     \
	X(no_gen)	     /* replicas do not look at the generation (a belt) */                 \
	X(no_recon)	     /* a takeover takes what one replica says */                          \
	X(read_inflight)     /* a read does not wait for writes in flight */                       \
	X(read_unsynced)     /* an object in todo is read, and written */                          \
	X(done_unsynced)     /* an object in todo answers a write as done */                       \
	X(no_previous)	     /* a replica applies what does not follow on what it has */           \
	X(no_recheck)	     /* checked at receipt, not again when it is queued */                 \
	X(trust_higher)	     /* who has a higher version than one in sync keeps it */              \
	X(trust_equal)	     /* an equal version of somebody not in sync will do */                \
	X(recon_all)	     /* a takeover counts replicas that are not in sync */                 \
	X(x_take)	     /* a takeover asks only the replicas in sync */                       \
	X(settle_untagged)   /* a bring-up outlives its epoch and generation */                    \
	X(resend_unanswered) /* a new view does not void answers */                                \
	X(plan_replaced)     /* what was in the ring before this view counts as in sync */         \
	X(pull_any_epoch)    /* the source of a pull may be in another epoch */                    \
	X(pull_untagged)     /* what was pulled in an older epoch is stored */                     \
	X(first_come)	     /* nobody in sync: not all members are asked */                       \
	X(no_wait_absent)    /* nobody absent is waited for */                                     \
	X(mark_volatile)     /* what is in sync is not durable */                                  \
	X(no_lease)	     /* nobody waits for the leases of silent members */                   \
	X(lease_newest)	     /* only the newest view says whether somebody fell silent */          \
	X(late_copy)	     /* what came over an older connection is still applied */             \
	X(absent_not_done)   /* a removal of an absent object waits for its `previous` */          \
	X(release_busy)	     /* RELEASE says clean with a write in flight */                       \
	X(drop_early)	     /* surplus is dropped without asking the ring */

enum object_mutant {
#define X(name) MUT_##name,
	OBJECT_MUTANTS(X)
#undef X
		MUT_none
};

struct object_conf {
	uint8_t nodes, copies;
	uint8_t writes, in_flight;
	uint8_t removal; /* this write is a removal; 0: none */
	uint8_t crashes, silent, joins, claims, releases;
	uint8_t late;	 /* connections that break with a write in them */
	uint8_t initial; /* mask of the first members; 0: all */
	bool surplus;	 /* copies outside of the ring are dropped */
	enum object_mutant mutant;
};

extern const struct model object_model;

/* ---- cluster_rules.c, store_rules.c: single rules; `without`: which clause is left out, as each
 * says; 0: none ---- */

struct small_conf {
	unsigned without;
	unsigned size; /* start_model: entries of the log */
};

extern const struct model start_model, place_model, session_model;
extern const struct model flush_model, lost_model, repair_model, torn_model, reclaim_model;

#endif
