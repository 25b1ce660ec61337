/* peer.h - requests between daemons.  One call interface for the local replica and for remote ones.
 *
 * Owner-side code (vdi.c, gateway.c) fills in a struct peer_call and submits it to a member; the
 * same call on this node's own index goes straight to replica.c.  Framing: lib/proto/peer.h.
 * Ordering: calls to one member with the same @order_key are sent, and handed to the replica, in
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
	/* peer.c's own */
	struct cds_list_head node;
	uint32_t id;
	void *peer;
};

/* Submit @c to the member of incarnation @to.  done() comes exactly once, never from inside. */
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

/* ---- replica.c: this node's side ---- */

/* Handle one request from a peer (or from ourselves): a coroutine for each. */
co_fn void replica_handle(struct sheep *sh, const struct incarnation *from, struct peer_call *c);

/* ---- sync.c / recover.c: DESIGN 5.5 ---- */

/* Wait until @oid is in sync here in @v; -ESTALE when the view moved on.  Starts the on-demand
 * pull. */
co_fn int sync_ensure(struct sheep *sh, struct view *v, uint64_t oid, uint8_t copies);
/* No yield: is it in sync here, now, in epoch @e? */
bool sync_is(struct sheep *sh, uint32_t e, uint64_t oid, uint8_t copies);

#endif
