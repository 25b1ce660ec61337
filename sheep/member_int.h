/* member_int.h - inside of member*.c: the side of the cluster module that does I/O. */
#ifndef SHEEP_MEMBER_INT_H
#define SHEEP_MEMBER_INT_H

#include "sheep/cluster_int.h"

#define LOG_MIN		  (1u << 20)	 /* a log shorter than that is not worth a new snapshot */
#define QUEUE_MAX	  (256u << 20)	 /* bytes of undelivered events: a node this slow leaves */
#define BATCH_BYTES	  (4u << 20)	 /* events logged by one write */
#define START_NS	  10000000000ull /* then cluster_start() says that it still waits */
#define AGAIN_NS	  20000000ull
#define CLUSTER_EVENT_MAX (BUS_MSG_MAX + 64u)
_Static_assert(BATCH_BYTES <= QUEUE_MAX && CLUSTER_EVENT_MAX <= QUEUE_MAX, "bounds");

/* ---- member_file.c: the directory epoch/ ----
 *
 * `snapshot`: the state; `log.N`: what was applied since, N being in the snapshot.
 *  E1 The snapshot is replaced by rename, after its log (empty) is there.
 *  E2 The log grows by groups; a group is durable when es_append() returns, and the next one begins
 *     only then: only the last group can be torn, and nobody has acted on it.
 */
struct epoch_store {
	struct co_sched *sched;
	struct env_file *dir; /* epoch/ */
	struct env_file *log;
	uint64_t nr; /* of the snapshot and its log */
	uint64_t groups, log_off, snap_len;
};
enum rec_kind { REC_VIEW = 1, REC_MSG, REC_FLAGS };

/* What only this node knows, beside the state. */
enum es_flag {
	ES_HANDLED = 1, /* it has acted on having been given up */
	ES_WIPE = 2,	/* a format was applied, its hook has not returned */
};

/* Opens (makes) the directory and loads: *ret is never NULL on success, as it was when it was
 * written (cs_sleep() it).  -errno; *err: malloc'ed sentence. */
co_fn int es_open(struct epoch_store *es, struct co_sched *sched, struct env_file *store,
		  struct cs **ret, unsigned *flags, char **err);
co_fn int es_snapshot(struct epoch_store *es, const struct cs *s, unsigned flags);
/* @recs: records made by es_rec_*. */
co_fn int es_append(struct epoch_store *es, const struct enc *recs);
co_fn void es_close(struct epoch_store *es);
/* @present: followed by the @nr_silent that have left without being known to be dead */
void es_rec_view(struct enc *e, const struct incarnation *present, unsigned nr, unsigned nr_silent);
void es_rec_message(struct enc *e, const struct incarnation *from, const void *msg, size_t len);
void es_rec_flags(struct enc *e, unsigned flags);

/* ---- member_lease.c: heartbeats, this node's lease, who hangs ---- */

#define LEASE_SENT	64u		  /* own heartbeats whose time of sending is known */
#define LEASE_PLACES	8u		  /* places of the order whose hash is known */
#define LEASE_REPORTS	4u		  /* and of each other node */
#define LEASE_SOON_NS	2000000ull	  /* a heartbeat before its time: somebody is new */
#define LEASE_SLACK	4u		  /* times what this node itself came late lately... */
#define LEASE_SLACK_MAX (3 * SD_EXPEL_NS) /* ...is added to the time to accuse, at most that */

/* The state's hash right after heartbeat @number of the speaker, at @pos (DESIGN 4.2). */
struct lease_place {
	uint64_t pos, number, hash;
};

struct lease_peer { /* a node that has the state; self too */
	struct incarnation inc;
	uint64_t heard;	     /* number of its newest heartbeat that was delivered here */
	uint64_t heard_at;   /* when; or since when we count anew */
	uint64_t named;	     /* our newest number that it has named */
	uint64_t blamed_at;  /* the peer side hears nothing of it; 0: it does */
	uint64_t accused_at; /* our last accusation */
	uint32_t accused_epoch;
	struct lease_place reports[LEASE_REPORTS];
	unsigned next_report;
};

struct lease {
	struct env_timer tick, soon;
	uint64_t due;		      /* when the tick should come */
	uint64_t slack;		      /* how late we came ourselves: decays */
	uint64_t number;	      /* of our newest heartbeat */
	uint64_t sent_at[LEASE_SENT]; /* by number % LEASE_SENT */
	uint64_t named;		      /* our newest one that a quorum has named */
	uint64_t until;		      /* the lease */
	uint64_t silent;	      /* cs.silent that serve_after is about */
	uint64_t serve_after, over_sent_at;
	unsigned nr, cap;
	struct lease_peer *peers;
	uint32_t idx_epoch; /* our index among the members of that epoch */
	int idx;
	struct lease_place places[LEASE_PLACES];
	unsigned next_place;
};

struct event;
void lease_start(struct cluster *c);
void lease_stop(struct cluster *c);
/* A message of the bus, as it is delivered: true: it was a heartbeat and is done with.  @in_turn:
 * everything before it was applied.  @settled: everything before it that may expel was. */
bool lease_heartbeat(struct cluster *c, const struct incarnation *from, const void *msg, size_t len,
		     bool in_turn, bool settled);
/* An event was applied to the live state. */
void lease_applied(struct cluster *c, const struct cs_out *out);

/* ---- the cluster object ---- */

struct event { /* one of the bus, waiting for its turn */
	struct cds_list_head node;
	bool is_view, left; /* left: somebody has */
	struct incarnation from;
	unsigned nr, nr_silent;
	struct incarnation *present; /* then the silent ones of who has left */
	size_t len;
	uint8_t data[];
};

struct waiter { /* in cluster_do() */
	struct cds_list_head node;
	uint64_t id;
	struct cmd *cmd;
	struct co_event done;
	int r;
};

struct cluster {
	/* fixed once started */
	struct co_sched *sched;
	struct env *env;
	struct cluster_conf conf;
	struct member self;
	struct bus *bus;
	/* the state */
	struct cs *s;	 /* the group's; NULL until we have it */
	struct cs *disk; /* what we brought; NULL when it is of no use any more */
	struct epoch_store es;
	bool logged;	/* s is what snapshot and log say */
	unsigned flags; /* es_flag */
	/* joining */
	struct join join;
	bool seen_view;
	unsigned nr_seen; /* the others on the bus */
	struct seen {
		struct incarnation inc;
		uint64_t attempt; /* its last JOIN; 0: it was there before us */
		bool may_have;	  /* the state */
	} * seen;
	bool buffering; /* our JOIN of rx_attempt was delivered: what follows is kept */
	uint64_t rx_attempt;
	struct cds_list_head buffer;
	size_t buffer_bytes;
	uint64_t rx_at;	   /* when we sent JOIN, or a piece came */
	struct enc rx;	   /* the state that is arriving */
	uint32_t rx_chunk; /* next one */
	struct enc offer;  /* another's better state that is arriving */
	uint32_t offer_chunk;
	struct incarnation offer_from;
	bool offer_sent; /* ours */
	/* published */
	struct view *view;
	bool view_done; /* its hooks have returned */
	enum cluster_status status;
	struct co_cond changed;
	/* events and commands */
	struct cds_list_head queue;
	size_t queue_bytes;
	bool busy; /* the runner: with an event */
	/* events that may change who is a member: arrived, applied */
	uint64_t fences, fences_done;
	struct lease lease;
	struct co_event work;
	struct co *runner;
	struct cds_list_head waiters;
	uint64_t next_id;
	unsigned nr_calls; /* inside cluster_do() */
	struct co_cond idle;
	struct co_cond progress; /* cluster_start() looks again */
	/* life */
	bool started; /* cluster_start() has returned 0 */
	bool hooked;  /* a hook was called */
	bool stopping, is_out, out_told, refused;
	bool again;   /* out, but only this incarnation */
	bool hung_up; /* cluster_hangup() */
	char *out_reason;
};

/* member.c */

/* We cannot go on; takes @reason. */
void member_fail(struct cluster *c, char *reason);
void member_fail_errno(struct cluster *c, const char *what, int err);
/* As member_fail(): the cluster does not want us. */
void member_refused(struct cluster *c, char *reason);
/* Send the message in @e and free it. */
void member_send(struct cluster *c, struct enc *e);
void member_send_cmd(struct cluster *c, struct cmd *cmd);
void event_free(struct event *ev);
/* One event onto @s; fatal errors end this node. */
int member_apply(struct cluster *c, struct cs *s, const struct event *ev, struct cmd *reply,
		 struct cs_out *out);
/* @c->s has changed by @out: make it durable if the log does not, tell others, run the hooks. */
co_fn void member_act(struct cluster *c, struct cs_out *out);

/* member_xfer.c: the state on its way to others */

#define XFER_AGAIN_NS 2000000000ull /* no piece of the state for so long: JOIN again */
void xfer_join(struct cluster *c);
/* While we have no state, now and then: who should have sent it may have been expelled. */
void xfer_tick(struct cluster *c);
/* An event while we have no state.  Uses it up. */
co_fn void xfer_unsynced(struct cluster *c, struct event *ev);
/* A JOIN was applied: send the joiner the state as of now, if that is our part. */
void xfer_serve(struct cluster *c, const struct incarnation *joiner);
/* Refusals that we have to tell, our own better state that we have to offer. */
void xfer_speak(struct cluster *c);
/* Part of another's better state. */
int xfer_offer(struct cluster *c, struct cs *s, const struct incarnation *from,
	       const struct state_msg *m, struct cs_out *out);
/* Somebody has joined: he has not seen the beginning of an offer, so it begins anew. */
void xfer_drop_offer(struct cluster *c);
void xfer_done(struct cluster *c);

/* member_view.c: what is published */

struct view *view_make(const struct member *m, unsigned nr, const struct incarnation *self);
enum cluster_status member_status(const struct cluster *c);
/* The group's state, or what we brought. */
const struct cs *member_state(const struct cluster *c);

#endif
