/* server_int.h - shared by server.c (listeners, bounds, life), client.c (one connection) and
 * request.c (admission, dispatch, end) only. */
#ifndef SHEEP_SERVER_INT_H
#define SHEEP_SERVER_INT_H

#include "sheep/op.h"

#define SERVER_SCRATCH	    (64u << 10) /* one receive takes that many small requests */
#define SERVER_SEND_BATCH   64u		/* replies in one send */
#define SERVER_TURN_RECVS   16u /* receives of one connection before the others get a turn */
#define SERVER_REQUESTS_MAX (SD_REQUESTS_MAX / 2) /* the rest is for peers and our own work */
#define SERVER_CONNS_MAX    (SD_CLIENTS_MAX + 2 * SD_MEMBERS_MAX) /* with peers about to say so */
#define SERVER_RETRY_NS	    (20ull * 1000 * 1000) /* out of descriptors or coroutines: try again */
#define SERVER_LISTEN_MAX   3u

struct server {
	/* fixed */
	struct sheep *sh;
	uint8_t *scratch; /* what is received is consumed at once: one for all connections */
	struct env_sock *listen[SERVER_LISTEN_MAX];
	unsigned nr_listen;
	uint16_t port;
	/* connections */
	struct cds_list_head clients;
	unsigned nr_clients, nr_served;
	uint64_t next_conn_id;
	struct cds_list_head paused; /* a complete header waits for room: first come first served */
	struct cds_list_head dirty;  /* have replies to send */
	/* requests */
	struct cds_list_head parked; /* object requests until the cluster runs */
	struct cds_list_head ready;  /* until a coroutine is free */
	struct cds_list_head spare;  /* struct request for reuse */
	unsigned nr_requests, nr_parked, nr_spare;
	size_t bytes;
	/* life */
	struct env_defer work;
	struct env_timer retry;
	struct co_cond idle; /* a request ended */
	bool full;	     /* SERVER_CONNS_MAX: the listeners wait */
	bool is_ready, draining, stopping, watching;
};

struct client {
	struct cds_list_head node, paused_node, dirty_node;
	struct server *srv;
	struct env_sock *sock; /* NULL: closed */
	struct net_addr addr;
	struct gw_client gw;
	unsigned refs; /* the socket, each request, each caller that walks it */
	bool paused, dirty, served, used_gateway, hello_done;
	/* being received: skip > rx > header */
	uint8_t hdr[sizeof(struct sd_req)];
	unsigned hdr_len;
	struct request *rx;
	uint64_t skip;
	uint8_t *pend; /* received but not consumed when it was paused */
	size_t pend_len, pend_off;
	/* in work and being sent */
	struct cds_list_head replies;
	size_t sent; /* bytes of the first reply that are out */
	unsigned inflight;
	size_t bytes;
};

/* client.c */
void client_accepted(struct server *srv, struct env_sock *lst);
void client_input(struct client *cl);
void client_flush(struct client *cl);
void client_close(struct client *cl);
void client_put(struct client *cl);

/* request.c */
enum admit { ADMIT_OK, ADMIT_PAUSE, ADMIT_CLOSE };
/* A complete header: on ADMIT_OK either cl->rx or cl->skip is set, or the request is on its way. */
enum admit request_header(struct client *cl, const struct sd_req *req);
/* The payload is complete (or there is none). */
void request_dispatch(struct request *rq);
/* The whole reply is sent, or nobody wants it. */
void request_free(struct request *rq);
void request_unpark(struct server *srv);
void request_run_ready(struct server *srv);

/* server.c */
void server_kick(struct server *srv); /* something changed: look at paused, dirty, ready soon */
void server_retry_later(struct server *srv);

#endif
