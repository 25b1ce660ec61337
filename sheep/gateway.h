/* gateway.h - the gateway's and the owner's side of the data path (DESIGN 5.1, 5.2-5.4, 5.6, 8).
 *
 * Used by: server.c (clients' object requests), ops (create, delete), peer.c (forwarded requests),
 * sheep.c (hooks, life).  Runs on the reactor.  A request is one coroutine from gateway_handle() to
 * its return; nothing here ever answers an error for a condition that passes (protocol.md T27).
 *
 * Sources: gateway.c (admission, forwarding, reads and writes of clients), session.c (client
 * sessions), vdi.c (claims, generations, takeover), owner_io.c (fan-out to the replicas), inode.c
 * (the inode object's rules, discard), reclaim.c (create, delete).  Their private header:
 * gateway_int.h.
 */
#ifndef SHEEP_GATEWAY_H
#define SHEEP_GATEWAY_H

#include "include/sheepdog/proto.h"
#include "sheep/cluster.h"
#include "sheep/peer.h"
#include "sheep/sheep.h"

/* Who sent a request. */
struct gw_client {
	uint64_t client_id; /* from SD_OP_CLIENT_HELLO; 0: a client without sessions */
	uint64_t session;   /* of client_id */
	uint64_t conn_id;   /* this daemon's number of the connection, from 1, never used twice */
};

/* One object request of a client (protocol.md 2.1, class G, FLUSH_VDI and DISCARD_OBJ).  Owned by
 * the caller and valid until gateway_handle() returns; zero it, then fill in the first block. */
struct gw_request {
	struct sd_req req; /* decoded, host order */
	struct gw_client client;
	struct buf *payload; /* WRITE: req.data_length bytes at payload_off (a multiple of 4096);
			      * else NULL.  Borrowed: the gateway takes references of its own */
	size_t payload_off;
	/* The answer, valid when gateway_handle() returned. */
	int error;	   /* 0: send the reply.  -ECANCELED: the daemon stops, or the
			    * connection or the session has ended: send nothing */
	struct sd_rsp rsp; /* result and the variant's fields; the caller fills in the header */
	struct buf *reply; /* data of a successful read, one reference for the caller; or NULL */
	size_t reply_len;  /* bytes of it: the reply's data_length, exactly (protocol.md 1.5) */
};

/* ---- life ---- */

/* Make sh->gateway.  sh->{env,sched,pool,log} must be there; the cluster need not. */
int gateway_init(struct sheep *sh);
/* Orderly stop, first half: after the server stopped reading requests.  Waits, at most @ms, until
 * what is in flight is answered; then flushes and releases the VDIs owned here, so that the next
 * owner begins clean. */
co_fn void gateway_drain(struct sheep *sh, unsigned ms);
/* Second half: every wait in here ends with -ECANCELED; returns when no request is left inside. */
co_fn void gateway_stop(struct sheep *sh);
/* PEER_TORN: a replica says that an object is torn on every replica: if this node owns it, what
 * lies there gets a version, and the writes in flight come after it (DESIGN 6).  Answers @c. */
void gateway_torn(struct sheep *sh, struct peer_call *c);
/* Free; after gateway_stop().  NULL sh->gateway is fine. */
void gateway_done(struct sheep *sh);

/* ---- requests ---- */

/* Serve one request: admission, forwarding to the owner or the owner's work itself.  Returns when
 * the answer is there. */
co_fn void gateway_handle(struct sheep *sh, struct gw_request *r);
/* A peer gateway forwards a client's request to us as the owner (PEER_FORWARD): c->req and c->data
 * as received.  Fills in c->rsp (op, result, client = struct sd_rsp; epoch) and for a read
 * c->reply_buf/reply_off/reply_len: into the caller's buffer when c->reply_buf is set, else a new
 * one whose reference the caller gets.  rsp.result is SD_RES_AGAIN when this node is not the owner
 * (the sender looks again).  c->error: 0, or -ECANCELED: send nothing. */
co_fn void gateway_forwarded(struct sheep *sh, const struct incarnation *from, struct peer_call *c);
/* A client connection of this node is closed (its requests' replies have nowhere to go): what of
 * it is queued is dropped, what was forwarded or sent is waited for before that VDI is served to a
 * new connection without sessions (DESIGN 5.1).  No yield. */
void gateway_conn_closed(struct sheep *sh, const struct gw_client *cl);

/* ---- hooks of the cluster (struct cluster_hooks) ---- */

/* A view was applied: owners send every write in flight again, to all of the new ring. */
co_fn void gateway_view(struct sheep *sh, struct view *old, struct view *new_view);
/* A VDI changed: owner, deletion, header. */
void gateway_vdi_changed(struct sheep *sh, const struct vdi *v);
/* Format: forget all VDIs. */
co_fn void gateway_format(struct sheep *sh);

/* ---- volumes (for the operations NEW_VDI and DEL_VDI) ---- */

/* CMD_VDI_CREATE with the caller's @cmd, then the inode object on its ring, then CMD_VDI_VISIBLE.
 * SD_RES_*; cmd->ret_vid, ret_copies, ret_shift as the machine answered.  SD_RES_VDI_WRITE when
 * writes are halted (strict mode) or no node stores data. */
co_fn uint32_t gateway_vdi_create(struct sheep *sh, struct cmd *cmd);
/* CMD_VDI_DELETE with the caller's @cmd; returns when the name is free.  The objects are removed in
 * the background by the VDI's owner, or, if it has none or it dies, by the lowest member of the
 * view; gateway_vdi_changed() and gateway_view() start it. */
co_fn uint32_t gateway_vdi_delete(struct sheep *sh, struct cmd *cmd);

#endif
