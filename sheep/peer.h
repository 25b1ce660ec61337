/* peer.h - requests between daemons.  One call interface for the local replica and for remote ones.
 *
 * Owner-side code (vdi.c, gateway.c) fills in a struct peer_call and submits it to a member; the
 * same call on this node's own index goes straight to replica.c.  Framing: lib/proto/peer.h.
 * Ordering: calls to one member with the same object are sent, and handed to the replica, in
 * the order of submission (DESIGN 5.2: one connection, version order).
 */
#ifndef SHEEP_PEER_H
#define SHEEP_PEER_H

#include "include/sheepdog/proto.h"
#include "lib/proto/peer.h"
#include "sheep/cluster.h"
#include "sheep/store/store.h"

struct peer_call {
	/* request: lib/proto/peer.h */
	struct peer_hdr req;
	struct buf *data; /* payload, or NULL; a reference is held while the call is in flight */
	size_t data_off, data_len;
	const uint32_t
		*crc; /* PEER_WRITE: one per piece cut at 4 KiB boundaries; copied at submit */
	unsigned crc_nr;
	/* where a READ, or a FORWARDed read, puts its data (len known by the caller) */
	struct buf *reply_buf;
	size_t reply_off, reply_cap;
	/* answer */
	int error;	     /* 0, -ESTALE (the peer is in a newer epoch: see rsp.epoch), -ENOTCONN
			      * (connection	   broken or member gone: outcome unknown), -ECANCELED */
	struct peer_hdr rsp; /* when error == 0; rsp.result is SD_RES_* */
	size_t reply_len;
	void (*done)(struct peer_call *c); /* on the reactor; the call may be freed in it */
	void *arg;
	/* The caller's, at any time until done(): nobody waits for the answer any more.  What is
	 * not on its way yet is not sent, and what a broken connection had is not sent again: it
	 * ends with -ENOTCONN. */
	bool unwanted;
	/* PEER_PULL only: each frame of the stream; @data's reference goes to the callee.  What is
	 * not given back with peer_frame_done() yet holds up the connection beyond
	 * PEER_STREAM_MAX.  A stream that has begun is not begun again when the connection breaks:
	 * the call ends with -ENOTCONN. */
	void (*frame)(struct peer_call *c, const struct peer_hdr *h, struct buf *data);
	/* Handler's side: the connection it came over is void (a newer one opened): it must not be
	 * queued in the journal any more (DESIGN 5.2). */
	bool voided;
	const struct incarnation *from; /* replica.c's own: whose it is */
	/* peer.c's own */
	struct peer_msg {
		struct cds_list_head node;
		const struct peer_hdr *hdr;
		const uint32_t *crc;
		struct buf *buf;
		size_t off, len;
		unsigned crc_nr;
		bool queued; /* not all of it is sent */
		bool frame;  /* of a stream */
	} tx;
	struct cds_list_head node;
	uint32_t id;
	void *chan; /* the channel or connection */
	struct sheep *sheep;
	size_t stream_held;
	bool streamed; /* a frame of it was handed over */
	uint32_t crc_small[4], *crc_mem;
};

/* Bounds.  What is above one waits in its list or in the socket. */
#define PEER_DATA_MAX	   SD_DAEMON_BYTES_MAX /* payload of one message */
#define PEER_FRAME_MAX	   (4u << 20)	       /* one frame of a stream */
#define PEER_STREAM_MAX	   (8u << 20) /* frames from one peer not given back yet (and one frame) */
#define PEER_STREAM_QUEUE  (4u << 20) /* frames to one peer not sent yet (and one frame) */
#define PEER_CALLS_MAX	   1024u      /* calls sent to one peer on one channel; a power of two */
#define PEER_CONN_REQS_MAX 256u	      /* requests of one connection that are not answered */
#define PEER_CONN_BYTES_MAX                                                                        \
	SD_CONN_BYTES_MAX		  /* their payloads (a larger single one is taken alone) */
#define PEER_CLASS_BYTES_MAX (256u << 20) /* payloads of all peers' requests of one channel */
/* Handlers of one channel, for all peers together, and for calls to ourselves. */
#define PEER_DATA_HANDLERS    512u
#define PEER_CONTROL_HANDLERS 128u
#define PEER_FORWARD_HANDLERS 256u
#define PEER_PROBE_HANDLERS   64u /* without coroutines */
_Static_assert(2 * (PEER_DATA_HANDLERS + PEER_CONTROL_HANDLERS + PEER_FORWARD_HANDLERS) <
		       SD_REQUESTS_MAX / 2,
	       "the server has the other half, our own work the rest");

/* Of those handlers of data requests, local ones included, so many wait for a view, for an object
 * to be in sync, or for another write, at most, and so many of one sender; who comes then hears
 * NO_MEM and asks again soon.  The rest is for what can be done at once: a volume that waits for an
 * absent node does not hold up the others that share the connection. */
#define REPLICA_HELD_MAX      (PEER_DATA_HANDLERS / 4 * 3)
#define REPLICA_HELD_PEER_MAX (PEER_CONN_REQS_MAX / 4 * 3)
_Static_assert(REPLICA_HELD_PEER_MAX < REPLICA_HELD_MAX, "one peer alone does not use it up");

/* Zero a struct peer_call, fill in the request part, then submit.  All of @c but the payload's
 * reference stays the caller's.
 *
 * Submit @c to the member of incarnation @to.  done() comes exactly once, never from inside.  A
 * connection that breaks is opened again and everything unanswered is sent again, in order, until
 * the member leaves the view (-ENOTCONN).  Our own incarnation: handled here. */
void peer_submit(struct sheep *sh, const struct incarnation *to, struct peer_call *c);
/* Submit and wait. */
co_fn int peer_call_wait(struct sheep *sh, const struct incarnation *to, struct peer_call *c);
/* All calls in flight to members that are not in @v end with -ENOTCONN.  From the view hook. */
void peer_view_changed(struct sheep *sh, const struct view *v);

/* A connection began with SD_OP_PEER_HELLO (the server has read exactly that request from it).
 * SD_RES_SUCCESS: the socket is ours now: we set our own handler (env_sock_handler), send the reply
 * (struct sd_rsp made from @req: opcode, id, epoch, SUCCESS) and everything after it.  Any other
 * result: refused; the server answers it and closes the connection.  No yield. */
uint32_t peer_accept(struct sheep *sh, struct env_sock *sock, const struct net_addr *from,
		     const struct sd_req *req, const struct peer_hello *hello);

/* A frame of the stream was used up (len: its data). */
void peer_frame_done(struct peer_call *c, size_t len);
/* Handler of PEER_PULL: send one frame (takes its own reference); waits while the connection is
 * full.  -ECANCELED: the connection is gone. */
co_fn int peer_stream(struct peer_call *c, const struct peer_hdr *h, struct buf *data, size_t off,
		      size_t len);

/* Life.  peer_init: before connections are accepted.  peer_stop: every call in flight ends with
 * -ENOTCONN, all connections close; returns when no handler is left.  peer_done: free; NULL
 * sh->peers is fine. */
int peer_init(struct sheep *sh);
co_fn void peer_stop(struct sheep *sh);
void peer_done(struct sheep *sh);

/* ---- replica.c: this node's side ---- */

int replica_init(struct sheep *sh);
void replica_done(struct sheep *sh);
/* Something that handlers wait for has changed (a connection became void, the daemon stops). */
void replica_kick(struct sheep *sh);

/* Handle one request from a peer (or from ourselves): a coroutine for each.  Returns with c->rsp,
 * c->reply_* filled in; c->error -ECANCELED: nothing is to be sent, -EBADMSG: the payload's
 * checksum is wrong. */
co_fn void replica_handle(struct sheep *sh, const struct incarnation *from, struct peer_call *c);

/* ---- sync.c / recover.c: DESIGN 5.5 ---- */

/* Load the file `sync` of the store directory (sh->store is open).  Everything is todo until the
 * first view. */
co_fn int sync_init(struct sheep *sh);
/* Ends recovery; every wait in here ends with -ECANCELED; returns when nothing is left inside. */
co_fn void sync_stop(struct sheep *sh);
void sync_done(struct sheep *sh); /* free; NULL sh->sync is fine */
/* From the view hook, after peer_view_changed() and before the gateway's: makes the in-sync map of
 * the new epoch durable, then admits requests of that epoch (older ones are refused from the start
 * of the call). 0, or -errno: the map could not be written: this node must leave. */
co_fn int sync_view(struct sheep *sh, struct view *old, struct view *new_view, bool clean);
/* From the format hook, before store_format(): nothing is served any more, and who holds an object
 * lets go of it soon.  No yield. */
void sync_pause(struct sheep *sh);
/* From the format hook, after store_format(): forget everything. */
co_fn int sync_format(struct sheep *sh);
/* For `dog` and tests: objects' share that is not in sync here (0: all of mine is in sync in the
 * present epoch, and no surplus is left to drop). */
bool sync_at_rest(struct sheep *sh);
/* The epoch that this node's replica side serves; 0: none. */
uint32_t sync_epoch(const struct sheep *sh);

/* Wait until @oid is in sync here in @v; -ESTALE when the view moved on.  Starts the on-demand
 * pull. */
co_fn int sync_ensure(struct sheep *sh, struct view *v, uint64_t oid, uint8_t copies);
/* No yield: is it in sync here, now, in epoch @e? */
bool sync_is(struct sheep *sh, uint32_t e, uint64_t oid, uint8_t copies);

#endif
