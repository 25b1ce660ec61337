/* peer_int.h - shared by peer.c (life, calls to ourselves, the view), peer_chan.c (the caller's
 * side), peer_req.c (the handler's side), peer_conn.c (one connection: bytes in and out) and
 * peer_probe.c (who does not answer) only.
 *
 * Invariants:
 *  P1 Per peer incarnation and channel there is at most one connection opened by us and at most one
 *     that is read from; a connection that is closed is void: the handlers of its requests see
 *     c->voided before anything of a newer connection is read (DESIGN 5.2, WHY B13).
 *  P2 conn_nr only grows over the life of a daemon, and the newest one seen from a peer is
 *     remembered as long as that peer is in the view: an old hello that comes late is refused.
 *  P3 chan->calls are the unanswered calls that have an id, in the order of submission; a new
 *     connection sends all of them again in that order.  chan->waiting follows them.
 *  P4 Requests of one connection, and calls to ourselves of one channel, are handed to their
 *     handlers in the order in which they came.
 *  P5 done() and frame() are called from the env or from a coroutine of ours, never from inside a
 *     function of peer.h.
 *  P6 A request counts against the bounds from its header until its reply is sent or dropped; a
 *     connection that may not take the next header is not read (conn->wait says why).
 *  P7 A socket's bytes are consumed at once, or kept in conn->pend until the wait is over.
 */
#ifndef SHEEP_PEER_INT_H
#define SHEEP_PEER_INT_H

#include "lib/base/map.h"
#include "sheep/gateway.h"
#include "sheep/peer.h"

#define PEER_SCRATCH	   (64u << 10) /* small messages of one receive */
#define PEER_BATCH	   64u	       /* messages in one send */
#define PEER_TURN_RECVS	   16u	       /* receives of one connection before the others get a turn */
#define PEER_TURN_WAITERS  256u	       /* connections that waited, served in one turn */
#define PEER_SPARE_MAX	   1024u       /* requests kept for reuse; as many frames */
#define PEER_OPEN_NS	   3000000000ull /* to connect and to be greeted */
#define PEER_BACKOFF_MIN   5000000ull
#define PEER_BACKOFF_MAX   500000000ull
#define PEER_BACKOFF_AGAIN 50000000ull	 /* at most, while the other side lacks our view */
#define PEER_STABLE_NS	   1000000000ull /* a connection that lived so long: no back-off before */
#define PEER_RETRY_NS	   5000000ull	 /* no coroutine was free: try again */
/* Payloads received directly into their buffers: the next messages are guessed to be like the last
 * one. */
#define PEER_GUESS_NR	 16u
#define PEER_GUESS_MIN	 1024u /* less is copied as quickly */
#define PEER_GUESS_MAX	 (64u << 10)
#define PEER_GUESS_BYTES (256u << 10)
#define PEER_GUESS_CRC	 (PEER_GUESS_MAX / SD_BLOCK_SIZE + 1)
#define PEER_SLOT	 (sizeof(struct peer_hdr) + 4 * PEER_GUESS_CRC)

/* What peer_call.chan points to begins with this. */
enum peer_kind { PEER_KIND_CHAN, PEER_KIND_CONN, PEER_KIND_LOCAL };

enum conn_state { CONN_CONNECT, CONN_HELLO, CONN_OPEN };
enum conn_wait {
	WAIT_NONE,
	WAIT_SELF,  /* for its own requests to be answered */
	WAIT_CLASS, /* for others of its channel; in peer_class.waiting */
	WAIT_CO,    /* for a coroutine; in peers.starved */
	WAIT_HELD,  /* for frames to be given back */
};

struct peer_frame {
	struct peer_msg m;
	struct peer_hdr hdr;
	struct peer_frame *next; /* spare */
};

struct peer_conn {
	enum peer_kind kind;
	bool out; /* we opened it */
	bool dirty, queued;
	enum conn_state state;
	enum conn_wait wait;
	unsigned ch;
	unsigned refs; /* the socket, each request, each function that walks it */
	struct peers *p;
	struct env_sock *sock; /* NULL: closed, void */
	struct cds_list_head dirty_node, input_node, wait_node;
	/* sending: the greeting first */
	uint8_t pre[sizeof(struct sd_req) + sizeof(struct peer_hello)];
	unsigned pre_len;
	struct cds_list_head tx; /* struct peer_msg */
	size_t tx_off;		 /* bytes of the first that are out (of the greeting, if any) */
	/* receiving: a header, then rx[] = checksums, data */
	union {
		struct peer_hdr h;
		struct sd_rsp greeting;
		uint8_t bytes[sizeof(struct peer_hdr)];
	} hdr;
	unsigned hdr_len;
	bool rx_on;
	struct iovec rx[2];
	struct peer_call *rx_call;
	struct buf *rx_buf; /* a frame */
	uint8_t *pend;	    /* received while it waited */
	size_t pend_len, pend_off, pend_cap;
	struct {
		unsigned nr;
		uint32_t len, crc_nr; /* len 0: no guess */
		struct buf *buf;      /* for the header that is consumed now */
	} guess;
	/* opened by us */
	struct peer_chan *chan;
	uint64_t opened_ns;
	/* opened by the peer */
	struct peer *peer;
	struct incarnation from;
	struct cds_list_head reqs; /* all of its requests */
	struct peer_req *ready;	   /* received, no coroutine yet */
	unsigned nr_reqs;
	size_t bytes, stream_queued;
	unsigned stream_waiting; /* handlers that wait for room for a frame */
	bool stream_woken;	 /* one of them is about to have its turn */
	struct co_cond drained;
};

enum req_state { REQ_RX, REQ_READY, REQ_RUN, REQ_REPLY };

/* A request of a peer. */
struct peer_req {
	struct peer_call c;
	struct cds_list_head node; /* conn.reqs */
	struct peer_conn *conn;
	size_t cost;
	enum req_state state;
	bool counted; /* in peer_class.nr */
	struct peer_req *next;
};

/* Our calls to one incarnation on one channel. */
struct peer_chan {
	enum peer_kind kind;
	struct peers *p;
	struct peer *peer; /* NULL: it has left the view; kept for frames not given back */
	unsigned ch;
	struct peer_conn *conn;
	struct cds_list_head calls, waiting;
	struct peer_call *slot[PEER_CALLS_MAX]; /* by the low bits of the id */
	uint16_t free[PEER_CALLS_MAX];
	unsigned nr_free;
	uint32_t id_seq;
	size_t held;
	uint64_t backoff;
	bool complained;
	/* peer_probe.c: messages received; as of the last tick; ticks without one */
	uint32_t answers, answers_seen, quiet;
	struct env_timer timer; /* greeting overdue, or time to open again */
};

/* Another daemon, one incarnation of it, in the view. */
struct peer {
	struct cds_list_head node;
	struct peer *next; /* same hash */
	uint64_t hash;
	struct incarnation inc;
	struct net_addr addr;
	struct peer_chan *chan[PEER_CH_NR];
	struct peer_conn *in[PEER_CH_NR];
	uint32_t in_nr[PEER_CH_NR]; /* newest conn_nr seen */
	struct peer_probe *probe;   /* peer_probe.c; NULL: never asked */
};

struct peer_class {
	unsigned nr; /* requests that have or will have a handler */
	size_t bytes;
	struct cds_list_head waiting; /* connections, first come first served */
	struct peer_conn *turn;	      /* whose turn it is; NULL once it has had it */
};

struct peer_local {
	struct cds_list_head queue, running;
	unsigned nr; /* running */
};

struct peers {
	struct sheep *sh;
	enum peer_kind local_kind; /* peer_call.chan of calls to ourselves */
	struct map by_inc;
	struct cds_list_head list;
	struct peer_class class[PEER_CH_NR];
	struct peer_local local[PEER_CH_NR];
	struct cds_list_head dirty, input, starved;
	struct cds_list_head ended; /* calls whose done() is due */
	struct peer_req *spare_reqs;
	struct peer_frame *spare_frames;
	unsigned nr_spare_reqs, nr_spare_frames;
	unsigned nr_reqs, nr_conns, nr_chans, nr_local; /* alive */
	uint32_t conn_seq;
	uint8_t *scratch;
	bool receiving; /* scratch is in use */
	bool stopping;
	struct env_defer work;
	struct env_timer retry, tick;
	uint64_t tick_due;
	struct co_cond idle;	   /* something ended */
	struct co_cond given_back; /* frames of calls to ourselves */
};

static inline bool peer_inc_eq(const struct incarnation *a, const struct incarnation *b)
{
	return a->start == b->start && !__builtin_memcmp(a->uuid, b->uuid, sizeof(a->uuid));
}

static inline void peers_kick(struct peers *p)
{
	env_defer(p->sh->env, &p->work);
}

/* ---- peer.c ---- */

enum peer_channel peer_channel_of(unsigned op);
unsigned peer_class_max(unsigned ch);
/* The record of an incarnation in the present view; made when it is not there.  NULL: it is not in
 * the view, or no memory. */
struct peer *peer_get(struct peers *p, const struct incarnation *inc);
/* done() will come, with @error. */
void call_end(struct peers *p, struct peer_call *c, int error);
/* What the call refers to goes, but for the reply. */
void call_release(struct peer_call *c);
/* Run the handler of @c. */
co_fn void peer_handle(struct peers *p, const struct incarnation *from, struct peer_call *c);
/* Before and after that: statistics. */
void peer_count(struct peers *p, const struct peer_call *c, bool begin);
void peers_retry_later(struct peers *p);

/* ---- peer_conn.c ---- */

/* Adds the connection to the bound socket handler; @sock may be NULL (env_connect follows). */
struct peer_conn *conn_new(struct peers *p, unsigned ch, bool out);
void conn_put(struct peer_conn *conn);
/* Close and void it (P1); the memory stays while somebody has a reference. */
void conn_close(struct peer_conn *conn);
/* Somebody does not speak our language. */
void conn_garbage(struct peer_conn *conn, const char *what);
void conn_event(struct env_sock *sock, unsigned events, void *arg);
void conn_send(struct peer_conn *conn, struct peer_msg *m);
void conn_dirty(struct peer_conn *conn); /* there is something to send */
void conn_wait(struct peer_conn *conn, enum conn_wait why);
void conn_unwait(struct peer_conn *conn); /* it is read again soon */
void conn_flush(struct peer_conn *conn);
void conn_input(struct peer_conn *conn);

/* Return values of *_header(). */
enum { HDR_GARBAGE = -1, HDR_WAIT, HDR_TAKEN };

/* ---- peer_req.c ---- */

int req_header(struct peer_conn *conn);	  /* a complete header of a request: sets rx */
void req_message(struct peer_conn *conn); /* its payload is complete */
bool req_resume(struct peer_conn *conn);  /* start what is ready; false: it must still wait */
void req_sent(struct peer_conn *conn, struct peer_msg *m); /* or dropped */
void req_conn_closed(struct peer_conn *conn);
void req_pool_free(struct peers *p);

/* ---- peer_chan.c ---- */

void chan_submit(struct peer *peer, struct peer_call *c);
int chan_header(struct peer_conn *conn);
void chan_message(struct peer_conn *conn);
void chan_connected(struct peer_conn *conn);
void chan_greeted(struct peer_conn *conn, const struct sd_rsp *rsp);
void chan_conn_closed(struct peer_conn *conn);
/* The peer has left the view: all calls end with -ENOTCONN. */
void chan_drop(struct peer_chan *chan);
void chan_frame_done(struct peer_chan *chan, struct peer_call *c, size_t len);

/* ---- peer_probe.c: who is alive on the bus and dead for us ---- */

void probe_start(struct peers *p);
void probe_stop(struct peers *p);
void probe_heard(struct peer *peer); /* it lives */
void probe_drop(struct peer *peer);  /* it has left the view; before its calls end */

#endif
