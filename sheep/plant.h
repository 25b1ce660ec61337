/* plant.h - bugs planted on purpose, one at a time, to test the simulator (`make sim-mutants`):
 * each drops one clause of DESIGN section 5, whose reason is in the model (WHY).  Nothing of it is
 * in a daemon: without -DSIM_PLANTS every PLANTED() is false. */
#ifndef SHEEP_PLANT_H
#define SHEEP_PLANT_H

#define PLANTS(X)                                                                                  \
	X(ack_early)	     /* answered when the first replica has it */                          \
	X(no_epoch)	     /* a replica takes writes of any epoch */                             \
	X(no_recon)	     /* takeover does not compare the replicas */                          \
	X(read_unsynced)     /* an object in todo is read */                                       \
	X(trust_higher)	     /* a higher version is kept although another one is in sync */        \
	X(trust_equal)	     /* an equal version of somebody not in sync will do */                \
	X(recon_all)	     /* a takeover counts replicas that are not in sync */                 \
	X(read_inflight)     /* a read does not wait for writes in flight */                       \
	X(no_lease)	     /* an answer without a lease */                                       \
	X(lease_one)	     /* only the newest view says whether somebody fell silent */          \
	X(resend_unanswered) /* a new view does not void answers */                                \
	X(done_unsynced)     /* an object in todo answers a write as done */                       \
	X(plan_replaced)     /* a new view shortens todo */                                        \
	X(pull_any_epoch)    /* the source of a pull may be in another epoch */                    \
	X(pull_notag)	     /* what was pulled in an older epoch is stored */                     \
	X(first_come)	     /* nobody in sync: only the ring is asked     */                      \
	X(x_take)	     /* a takeover asks only the replicas in sync */                       \
	X(no_recheck)	     /* a yield between the check and the journal's queue */               \
	X(no_wait_absent)    /* nobody absent is waited for */                                     \
	X(mark_volatile)     /* what is in sync is not durable */                                  \
	X(mark_unsynced)     /* a mark is durable before the state that it vouches for */          \
	X(tomb_none)	     /* what came over an older connection is still applied */             \
	X(drop_early)	     /* surplus is dropped without asking the ring */                      \
	X(no_session)	     /* requests of older sessions are served */                           \
	X(no_fence)	     /* requests of clients that were gone when others came are served */  \
	X(flush_missed)	     /* a flush leaves out one replica */                                  \
	X(flush_not_all)     /* the first flush of a generation goes to known writers only */      \
	X(intent_unlogged)   /* a large write goes in place before its intent is durable */        \
	X(meta_early)	     /* an intent is said to be done before its data is synced */          \
	X(repair_any)	     /* a block read for a repair is stored whatever was written since */  \
	X(remove_first)	     /* a discarded object goes before its reference is gone */            \
	X(start_unsynced)    /* what a death left in the kernel is not synced at start */          \
	X(log_position)	     /* at a start the newest epoch counts, not the place in the log */    \
	X(join_at_once)	     /* an epoch has a joiner before all have the start set durable */     \
	X(apply_clock)	     /* the state machine looks at the clock of its node */                \
	X(pointer_order)     /* the replicas of an object in an order of its address in memory */  \
	X(index_cached)	     /* an index entry is no more durable than its client asks for */      \
	X(cache_lost)	     /* nobody says that cached writes were lost */                        \
	X(reuse_early)	     /* journal space is reused before the objects are synced */

#ifdef SIM_PLANTS
enum plant {
	PLANT_none,
#define X(name) PLANT_##name,
	PLANTS(X)
#undef X
		PLANT_NR
};
extern enum plant planted; /* the simulator's */
#define PLANTED(name) (planted == PLANT_##name)
#else
#define PLANTED(name) 0
#endif

#endif
