/* server.h - listeners and client connections: framing, pipelining, pushback (protocol.md 1, 3.3).
 *
 * Used by: sheep.c (life), ops_*.c (struct request).  Runs on the reactor.
 *  V1 A connection is never accepted and then closed without a reason that its own bytes gave.
 *  V2 Payload memory of all client connections stays within SD_DAEMON_BYTES_MAX; a connection that
 *     is over a bound is not read from, that is all.
 *  V3 Replies leave in the order of completion, each whole; nothing of a closed connection is sent.
 *  V4 Checks of a request: version, opcode, cluster status, operation, in this order.
 *  V5 Object requests wait while the daemon cannot serve yet or any more (protocol.md T27).
 */
#ifndef SHEEP_SERVER_H
#define SHEEP_SERVER_H

#include "include/sheepdog/proto.h"
#include "sheep/gateway.h"

struct op;
struct client;

/* One request, from its header to the last byte of its reply. */
struct request {
	struct cds_list_head node; /* the client's replies, or a queue of the server */
	struct sheep *sh;
	struct client *cl; /* holds a reference; it may be closed meanwhile */
	const struct op *op;
	struct sd_req req;
	struct sd_rsp rsp;
	struct buf *data; /* payload of the request: req.data_length bytes */
	size_t data_got;
	struct buf *reply; /* payload of the reply */
	size_t reply_len;
	size_t charge;	/* bytes of the server's budget that it holds */
	bool no_answer; /* drop it: the daemon stops or the connection has ended */
};

/* Listen on sh->conf's addresses and on dir/sock.  Connections are taken from now on, but requests
 * wait until server_ready().  -errno, *err: malloc'ed sentence. */
int server_start(struct sheep *sh, char **err);
/* sh->cluster is there: requests are served, or refused as the cluster's status says. */
void server_ready(struct sheep *sh);
/* New clients are sent away, requests of the others that come later wait for ever; other daemons
 * are still let in, until server_hangup(): what they have in flight needs this node as a replica.
 * co_fn: until what is in work is answered and sent, at most @ms. */
co_fn void server_drain(struct sheep *sh, unsigned ms);
/* Close every connection without error replies; what is in work has nobody to answer to. */
void server_hangup(struct sheep *sh);
/* server_hangup(), then wait until no request is left (gateway_stop() ends those in the gateway),
 * and free. */
co_fn void server_stop(struct sheep *sh);
/* Connections and requests now, for statistics and tests. */
unsigned server_nr_clients(const struct server *srv);
unsigned server_nr_requests(const struct server *srv);
uint16_t server_port(const struct server *srv); /* of the first TCP listener (-p, tests use 0) */

/* ---- for ops_*.c ---- */

/* Make the reply's payload of @len zeroed bytes; NULL: it does not fit (BUFFER_SMALL is what to
 * return) or there is no memory. */
void *request_reply(struct request *rq, size_t len);
/* The client's address for logs. */
void request_peer_name(const struct request *rq, char *buf, size_t len);

#endif
