/* client.h - what the files of libsheepdog share; nobody outside of lib/client includes it, but for
 * the simulator, which runs a client on its own env (client_open_on).
 *
 * Layers: conn.c (framing on one socket, matching replies) < cluster.c (which gateway, sessions,
 * resending, timeouts, dispatch) < vdi.c (open, load, create...) and io.c (reads, writes, index).
 * All of it is callbacks from the env; the blocking calls of the API turn the env until theirs
 * came.
 *
 * Invariants:
 *  1. A request (struct rq) is in one place: idle, in a connection's queue (nothing of it or a part
 *     was sent; only the first may be a part), in its list of sent ones, or in the cluster's list
 * of those to be sent later.
 *  2. Lost connection: the sent ones go back to the front of the queue, in their order, and
 *     everything is sent again under the next session.
 *  3. A request that has bytes on the wire leaves (timeout, close) only together with the
 *     connection: the next session fences what the old one may still do (DESIGN 5.1).
 *  4. User callbacks run outside of the env's turn, so they may call anything but
 *     sd_cluster_close().
 *  5. An object whose index entry is being changed is "busy": its part is the only one working on
 *     it, others wait in order.
 */
#ifndef LIB_CLIENT_CLIENT_H
#define LIB_CLIENT_CLIENT_H

#include "lib/env/env.h"
#include "lib/proto/peer.h"
#include "sheepdog/proto.h"
#include "sheepdog/sheepdog.h"

#define MSEC 1000000ull

enum {
	CONN_SLOTS = 256,	 /* ids in use: the low byte of an id is its slot */
	CONN_INFLIGHT = 192,	 /* fewer than SD_CONN_INFLIGHT_MAX: the server never pauses us */
	CONN_BYTES = 32 << 20,	 /* payload in flight (a larger single request goes alone) */
	CONN_SCRATCH = 64 << 10, /* receive buffer: many small replies in one call */
	CONN_TX_IOV = 256,	 /* one send */
	CONN_RX_IOV = 64,	 /* one receive, besides the scratch */
	ZERO_BYTES = 64 << 10,	 /* source of zeros */
	GATEWAYS_MAX = 32,	 /* addresses of one client */
	GARBAGE_MAX = 3,  /* connections that end in garbage, per address, before a request fails */
	PASS_TRIES = 100, /* results that pass: tries, 100 ms apart */
	OPS_MAX = 1 << 16,	  /* user operations in flight */
	PARTS_MAX = 1024,	  /* parts beyond the one each operation has built in */
	OP_PARTS = 64,		  /* parts of one operation at a time */
	PART_BYTES = 4 << 20,	  /* one request */
	INLINE_IOV = 8,		  /* longer iovec arrays are allocated */
	IOV_CNT_MAX = 1 << 16,	  /* iovecs of one operation */
	BATCH_ENTRIES = 128,	  /* index entries written by one request */
	WAIT_BUCKETS = 64,	  /* parts that wait for a busy object, by index */
	RELOADS = 3,		  /* an operation that the volume's reload does not help fails */
	CALLBACKS_IDLE_MAX = 256, /* operations kept for reuse */
};
_Static_assert(CONN_INFLIGHT < SD_CONN_INFLIGHT_MAX, "the server never has to pause us");
_Static_assert(2u * CONN_BYTES <= SD_CONN_BYTES_MAX, "the server never has to pause us");
_Static_assert(CONN_INFLIGHT < CONN_SLOTS, "a slot for each, and for HELLO and the probe");

/* @len bytes that begin @skip bytes into iov[0]; iov NULL: zeros (only to be sent). */
struct seg {
	const struct iovec *iov;
	size_t skip, len;
};
/* Move the begin of @s forward by @n. */
void seg_advance(struct seg *s, size_t n);
/* Fill @iov with at most @max pieces of @s from @off on; returns the number, *bytes what they hold.
 */
int seg_iov(const struct seg *s, size_t off, const uint8_t *zeros, struct iovec *iov, int max,
	    size_t *bytes);
void seg_copy(const struct seg *s, size_t off, const void *src, size_t n);
void seg_zero(const struct seg *s);

struct conn;
enum rq_place { RQ_IDLE, RQ_QUEUED, RQ_SENT, RQ_LATER };

struct rq {
	struct cds_list_head node;
	struct sd_req req; /* data_length and out/in agree */
	struct sd_rsp rsp; /* valid in done() when err is 0 */
	struct seg out, in;
	void (*done)(struct rq *rq, int err); /* once; 0 or -errno.  The rq is idle then */
	uint64_t at;			      /* RQ_LATER */
	enum rq_place place;
	bool slotted;  /* req.id is in the connection's table */
	bool exact;    /* a successful reply has all of in.len, a failed one nothing */
	bool once;     /* never sent again */
	bool urgent;   /* may pass while the connection holds the others back */
	bool answered; /* before all of it was sent: done when it is */
	bool resent;   /* an earlier connection may have carried it out */
	uint16_t tries, garbage;
};

/* ---- conn.c ---- */

struct conn_ops {
	void (*up)(struct conn *k); /* the socket is connected */
	void (*lost)(struct conn *k, int err,
		     const char *why); /* conn_reset() is the callee's job */
};

struct conn {
	struct env *env;
	const struct conn_ops *ops;
	struct env_sock *sock;
	bool up, hold;	 /* hold: only urgent requests are sent */
	bool full;	 /* ENV_SOCK_OUT comes */
	unsigned number; /* counted up by conn_reset() */
	struct cds_list_head queue, sent;
	struct rq *slot[CONN_SLOTS];
	uint8_t free_slot[CONN_SLOTS];
	unsigned nr_free;
	uint32_t id_high;
	size_t bytes;  /* of those that have a slot */
	size_t tx_off; /* bytes of the queue's first that were sent */
	struct rq *rx; /* whose payload is being received */
	size_t rx_got, rx_left;
	size_t scratch_len;
	uint64_t replies;	  /* complete ones */
	uint64_t received, moved; /* receives; those and sends */
	uint8_t *scratch, *zeros;
	struct env_defer tx;
};

int conn_init(struct conn *k, struct env *env, const struct conn_ops *ops);
void conn_done(struct conn *k); /* everything must be gone from it */
int conn_connect(struct conn *k, const struct net_addr *a);
void conn_add(struct conn *k, struct rq *rq);	    /* to the end of the queue */
void conn_add_first(struct conn *k, struct rq *rq); /* before those that wait */
/* Take @rq back without done().  False: it has bytes on the wire, so reset the connection first. */
bool conn_take(struct conn *k, struct rq *rq);
/* Send what can be sent, now. */
void conn_flush(struct conn *k);
/* Send at the end of this turn. */
void conn_kick(struct conn *k);
/* Close the socket; what was sent goes back to the queue, what may not be sent twice fails with
 * @err. */
void conn_reset(struct conn *k, int err);
static inline unsigned conn_inflight(const struct conn *k)
{
	return CONN_SLOTS - k->nr_free;
}

/* ---- addr.c ---- */

struct gateway {
	struct net_addr addr;
	char name[128]; /* for messages */
};
/* Parse @list; returns the number of addresses or -errno. */
int gateways_parse(const char *list, struct gateway gw[GATEWAYS_MAX]);

/* ---- cluster.c ---- */

/* Something with a time limit. */
struct job {
	struct cds_list_head node;
	uint64_t start, deadline;	      /* start: 0 when no limit applies */
	bool direct;			      /* not over the client's own connection */
	void (*stop)(struct job *j, int err); /* ends it; the job is off the list */
};

/* A request that somebody waits for. */
struct call {
	struct rq rq;
	struct job job;
	struct sd_cluster *c;
	bool raw;	   /* every result is the caller's */
	unsigned limit_ms; /* 0: the client's timeout alone */
	bool over;
	int err;
};

enum link_state { LINK_IDLE, LINK_CONNECTING, LINK_HELLO, LINK_UP, LINK_BACKOFF };

struct sd_cluster {
	struct env *env;
	void (*foreign_wait)(void *arg); /* env of somebody else: see client_open_on */
	void *foreign_arg;
	struct gateway gw[GATEWAYS_MAX];
	unsigned nr_gw, cur;
	struct conn conn;
	enum link_state state;
	struct env_timer link_timer; /* connect, HELLO, back-off; when up: is the gateway alive? */
	struct env_defer leave;
	struct rq hello, ping;
	struct client_hello hello_msg;
	struct iovec hello_iov;
	uint64_t client_id, session;
	unsigned fails;	  /* attempts since the last answer */
	unsigned refused; /* of these the last ones that failed at once */
	bool ever;	  /* a gateway has answered */
	bool closing;
	uint64_t served;	  /* conn.replies when the connection began */
	uint64_t received, moved; /* of the connection when the link timer last looked */
	unsigned timeout_ms, connect_timeout_ms;
	struct cds_list_head jobs;
	struct env_timer job_timer;
	struct cds_list_head later;
	struct env_timer later_timer;
	/* finished operations whose callbacks are to be run */
	struct cds_list_head finished;
	struct env_defer finished_defer;
	bool corked; /* outside of a turn, in a call that ends with sending all at once */
	struct cds_list_head vdis;
	/* pools and bounds (io.c) */
	struct cds_list_head idle_ops;
	unsigned nr_ops, nr_idle_ops, nr_parts;
	char error[256];
};

/* As sd_cluster_open, on an env that somebody else turns: callbacks come from the env, and blocking
 * calls call @wait(arg), which returns after callbacks of the env may have run (a coroutine's
 * park).  -errno. */
int client_open_on(struct env *env, void (*wait)(void *arg), void *arg, const char *gateways,
		   struct sd_cluster **ret);

void job_start(struct sd_cluster *c, struct job *j);
void job_end(struct job *j);
/* Queue @rq for the gateway. */
void cluster_submit(struct sd_cluster *c, struct rq *rq);
/* In done(): true when the result passes and @rq was queued again. */
bool cluster_retry(struct sd_cluster *c, struct rq *rq);
/* As cluster_retry(), for data of a volume that is open: a gateway that waits for a cluster, or for
 * a format, is one that has just come back or is new, and the cluster runs elsewhere. */
bool cluster_retry_io(struct sd_cluster *c, struct rq *rq);
/* Take @rq back, wherever it is; without done(). */
void cluster_cancel(struct sd_cluster *c, struct rq *rq);
/* Blocking calls: cork, start things, pump until they are over, uncork. */
bool cluster_cork(struct sd_cluster *c);
void cluster_uncork(struct sd_cluster *c, bool was);
void cluster_pump(struct sd_cluster *c);
/* One request, blocking; call->rq is filled in but for done.  0: call->rq.rsp is there. */
int cluster_call(struct sd_cluster *c, struct call *call);
void cluster_error(struct sd_cluster *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* An op is finished: its callback is run from sd_dispatch(). */
void cluster_finished(struct sd_cluster *c, struct cds_list_head *node);
static inline int result_err(uint32_t result)
{
	return result ? -(SD_ERR_BASE + (int)(result & 0xffff)) : 0;
}

/* ---- vdi.c ---- */

enum load_state { LOAD_NO, LOAD_WANTED, LOAD_LOOKUP, LOAD_HEADER, LOAD_INDEX };

struct sd_vdi {
	struct cds_list_head node;
	struct sd_cluster *c;
	char name[SD_NAME_LEN];
	uint32_t vid;
	struct sd_inode_header h;
	uint32_t *index;
	uint64_t *busy;
	uint32_t nr, nr_own; /* index entries; those that name vid */
	bool rdonly, cache, locked, no_flush;
	uint64_t writes, flushed; /* cached writes sent; how many of them the last flush covers */
	unsigned nr_ops;
	struct cds_list_head waiting[WAIT_BUCKETS]; /* parts, for a busy object */
	struct cds_list_head dirty;		    /* parts whose entry is to be written */
	struct cds_list_head batches;		    /* index writes in flight */
	struct env_defer index_defer;
	/* (re)load */
	enum load_state load;
	struct cds_list_head held; /* parts that wait for it */
	struct rq load_rq;
	char load_name[2 * SD_NAME_LEN];
	struct sd_inode_header load_h;
	uint32_t *load_index, load_vid, load_nr;
	struct iovec load_iov;
	void (*load_done)(struct sd_vdi *v, int err);
	bool load_lock;
	int open_err;
	bool open_over;
	struct job open_job;
};

/* Read the volume anew, once no index write is in flight; v->load_done(v, err) then. */
void vdi_load(struct sd_vdi *v);
/* An index write has ended. */
void vdi_load_next(struct sd_vdi *v);

/* ---- io.c ---- */

void io_run_callback(struct sd_cluster *c, struct cds_list_head *node);
void io_pools_free(struct sd_cluster *c);
void io_vdi_init(struct sd_vdi *v);
/* The load is over: what was held goes on. */
void io_loaded(struct sd_vdi *v, int err);
void io_set_entry(struct sd_vdi *v, uint32_t idx, uint32_t vid);

#endif
