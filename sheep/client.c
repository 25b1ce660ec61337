/* client.c - one client connection: cuts the stream into requests, sends replies. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "sheep/server_int.h"

void client_put(struct client *cl)
{
	assert(cl->refs > 0);
	if (--cl->refs)
		return;
	assert(!cl->sock && !cl->rx && !cl->inflight && cds_list_empty(&cl->replies));
	free(cl->pend);
	free(cl);
}

static void client_unpause(struct client *cl)
{
	if (!cl->paused)
		return;
	cl->paused = false;
	cds_list_del(&cl->paused_node);
}

/* The connection object is done with its socket (closed, or handed to the peers). */
static void client_detach(struct client *cl)
{
	struct server *srv = cl->srv;

	cl->sock = NULL;
	client_unpause(cl);
	if (cl->dirty) {
		cl->dirty = false;
		cds_list_del(&cl->dirty_node);
	}
	cds_list_del(&cl->node);
	srv->nr_clients--;
	if (cl->served)
		srv->nr_served--;
	server_kick(srv);
}

void client_close(struct client *cl)
{
	struct request *rq, *next;

	if (!cl->sock)
		return;
	env_sock_close(cl->sock, false);
	client_detach(cl);
	if (cl->used_gateway && cl->srv->sh->gateway)
		gateway_conn_closed(cl->srv->sh, &cl->gw);
	if (cl->rx)
		request_free(TAKE(cl->rx, NULL));
	cds_list_for_each_entry_safe (rq, next, &cl->replies, node) {
		cds_list_del(&rq->node);
		request_free(rq);
	}
	cds_list_for_each_entry_safe (rq, next, &cl->srv->parked, node) {
		if (rq->cl != cl)
			continue;
		cds_list_del(&rq->node);
		cl->srv->nr_parked--;
		request_free(rq);
	}
	client_put(cl);
}

/* ---- receiving ---- */

static void client_pause(struct client *cl)
{
	if (cl->paused)
		return;
	cl->paused = true;
	cds_list_add_tail(&cl->paused_node, &cl->srv->paused);
}

/* PEER_HELLO is complete: the connection leaves us, unless it is refused. */
static void client_peer_hello(struct client *cl, size_t rest)
{
	struct request *rq = TAKE(cl->rx, NULL);
	struct sheep *sh = cl->srv->sh;
	struct peer_hello hello;
	struct env_sock *sock = cl->sock;
	uint32_t res = SD_RES_INVALID_PARMS;

	memcpy(&hello, rq->data->data, sizeof(hello));
	if (!rest && cl->inflight == 1 && !cl->srv->stopping)
		res = peer_accept(sh, sock, &cl->addr, &rq->req, &hello);
	if (res == SD_RES_SUCCESS) {
		client_detach(cl);
		request_free(rq);
		client_put(cl);
		return;
	}
	rq->rsp.result = res;
	rq->op = NULL; /* answered as it is */
	request_dispatch(rq);
}

/* Take the next piece of the stream; returns the bytes used, fewer than @n when paused or closed.
 * Never yields, but a request may run until its first wait in here. */
static size_t client_consume(struct client *cl, const uint8_t *p, size_t n)
{
	size_t used = 0, k;

	while (used < n && cl->sock && !cl->paused) {
		if (cl->skip) {
			k = cl->skip < n - used ? cl->skip : n - used;
			cl->skip -= k;
			used += k;
		} else if (cl->rx) {
			struct request *rq = cl->rx;
			k = rq->req.data_length - rq->data_got;
			if (k > n - used)
				k = n - used;
			memcpy((uint8_t *)rq->data->data + rq->data_got, p + used, k);
			rq->data_got += k;
			used += k;
			if (rq->data_got < rq->req.data_length)
				continue;
			if (rq->req.opcode == SD_OP_PEER_HELLO) {
				client_peer_hello(cl, n - used);
			} else {
				cl->rx = NULL;
				request_dispatch(rq);
			}
		} else {
			struct sd_req req;
			k = sizeof(req) - cl->hdr_len;
			if (k > n - used)
				k = n - used;
			memcpy(cl->hdr + cl->hdr_len, p + used, k);
			cl->hdr_len += k;
			used += k;
			if (cl->hdr_len < sizeof(req))
				continue;
			memcpy(&req, cl->hdr, sizeof(req));
			switch (request_header(cl, &req)) {
			case ADMIT_OK: cl->hdr_len = 0; break;
			case ADMIT_PAUSE: client_pause(cl); break;
			case ADMIT_CLOSE: client_close(cl); break;
			}
		}
	}
	return used;
}

/* Keep what was received and could not be consumed. */
static void client_keep(struct client *cl, const uint8_t *p, size_t n)
{
	if (!n || !cl->sock)
		return;
	assert(!cl->pend && n <= SERVER_SCRATCH);
	cl->pend = malloc(n);
	if (!cl->pend) {
		client_close(cl); /* its bytes are lost: the stream cannot go on */
		return;
	}
	memcpy(cl->pend, p, n);
	cl->pend_len = n;
	cl->pend_off = 0;
}

/* Go on where the connection was paused: a complete header first, then the kept bytes.  True: it
 * may receive. */
static bool client_resume(struct client *cl)
{
	struct sd_req req;

	if (cl->hdr_len == sizeof(req)) {
		memcpy(&req, cl->hdr, sizeof(req));
		switch (request_header(cl, &req)) {
		case ADMIT_OK: cl->hdr_len = 0; break;
		case ADMIT_PAUSE: client_pause(cl); return false;
		case ADMIT_CLOSE: client_close(cl); return false;
		}
	}
	if (cl->pend) {
		cl->pend_off +=
			client_consume(cl, cl->pend + cl->pend_off, cl->pend_len - cl->pend_off);
		if (cl->pend_off == cl->pend_len || !cl->sock) {
			free(cl->pend);
			cl->pend = NULL;
		}
	}
	return cl->sock && !cl->paused;
}

/* One receive: the rest of a payload goes straight to its buffer, what follows to the scratch.
 * *more: it was filled, so there may be more (env_recv). */
static ssize_t client_recv(struct client *cl, bool *more)
{
	struct request *rq = cl->rx;
	struct iovec iov[2];
	size_t want = 0;
	int nr = 0;

	if (rq && rq->data_got < rq->req.data_length) {
		want = rq->req.data_length - rq->data_got;
		iov[nr++] = (struct iovec){(uint8_t *)rq->data->data + rq->data_got, want};
	}
	iov[nr++] = (struct iovec){cl->srv->scratch, SERVER_SCRATCH};
	ssize_t n = env_recv(cl->sock, iov, nr);
	*more = n < 0 || (size_t)n == want + SERVER_SCRATCH;
	if (n <= 0)
		return n;
	size_t direct = (size_t)n < want ? (size_t)n : want, rest = n - direct;
	if (direct) {
		rq->data_got += direct;
		if (rq->data_got == rq->req.data_length) {
			if (rq->req.opcode == SD_OP_PEER_HELLO) {
				client_peer_hello(cl, rest);
			} else {
				cl->rx = NULL;
				request_dispatch(rq);
			}
		}
	}
	if (rest && cl->sock) {
		size_t used = client_consume(cl, cl->srv->scratch, rest);
		client_keep(cl, cl->srv->scratch + used, rest - used);
	}
	return n;
}

void client_input(struct client *cl)
{
	unsigned turns = 0;
	bool more = true;
	ssize_t n;

	cl->refs++;
	client_unpause(cl);
	if (cl->sock && client_resume(cl)) {
		while (more && cl->sock && !cl->paused) {
			if (turns++ == SERVER_TURN_RECVS) {
				client_pause(cl); /* the others first; resumed by server_kick */
				server_kick(cl->srv);
				break;
			}
			n = client_recv(cl, &more);
			if (n == -EAGAIN)
				break;
			if (n == -EINTR)
				continue;
			if (n <= 0)
				client_close(cl);
		}
	}
	client_put(cl);
}

/* ---- sending ---- */

/* Drop @n sent bytes from the front of the queue of replies. */
static void client_sent(struct client *cl, size_t n)
{
	cl->sent += n;
	while (!cds_list_empty(&cl->replies)) {
		struct request *rq = cds_list_first_entry(&cl->replies, struct request, node);
		size_t len = sizeof(rq->rsp) + rq->reply_len;
		if (cl->sent < len)
			return;
		cl->sent -= len;
		cds_list_del(&rq->node);
		request_free(rq);
	}
	assert(!cl->sent);
}

static int client_iov(struct client *cl, struct iovec *iov, size_t *len)
{
	size_t skip = cl->sent;
	struct request *rq;
	unsigned nr = 0;

	*len = 0;
	cds_list_for_each_entry (rq, &cl->replies, node) {
		if (nr + 2 > 2 * SERVER_SEND_BATCH)
			break;
		struct iovec part[2] = {{&rq->rsp, sizeof(rq->rsp)}, {NULL, rq->reply_len}};
		if (rq->reply)
			part[1].iov_base = rq->reply->data;
		for (int i = 0; i < 2; i++) {
			size_t k = skip < part[i].iov_len ? skip : part[i].iov_len;
			skip -= k;
			if (k == part[i].iov_len)
				continue;
			iov[nr].iov_base = (uint8_t *)part[i].iov_base + k;
			iov[nr].iov_len = part[i].iov_len - k;
			*len += iov[nr++].iov_len;
		}
	}
	return nr;
}

void client_flush(struct client *cl)
{
	struct iovec iov[2 * SERVER_SEND_BATCH];
	size_t len;

	cl->refs++;
	while (cl->sock && !cds_list_empty(&cl->replies)) {
		int nr = client_iov(cl, iov, &len);
		ssize_t n = env_send(cl->sock, iov, nr);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			break; /* ENV_SOCK_OUT comes */
		if (n < 0) {
			client_close(cl);
			break;
		}
		client_sent(cl, n);
	}
	client_put(cl);
}

/* ---- accepting ---- */

static void client_event(struct env_sock *sock, unsigned events, void *arg)
{
	struct client *cl = arg;

	cl->refs++;
	if (events & ENV_SOCK_OUT)
		client_flush(cl);
	/* A connection that waits for room to read keeps waiting, unless it is dead. */
	if (cl->sock && (events & (ENV_SOCK_IN | ENV_SOCK_HUP))) {
		if (!cl->paused)
			client_input(cl);
		else if (events & ENV_SOCK_HUP)
			client_close(cl);
	}
	client_put(cl);
}

void client_accepted(struct server *srv, struct env_sock *lst)
{
	struct client *cl;
	int r;

	while (srv->nr_clients < SERVER_CONNS_MAX) {
		cl = calloc(1, sizeof(*cl));
		if (!cl) {
			server_retry_later(srv);
			return;
		}
		r = env_accept(lst, client_event, cl, &cl->sock, &cl->addr);
		if (r < 0) {
			free(cl);
			if (r == -ECONNABORTED || r == -EINTR || r == -EPROTO)
				continue;
			if (r != -EAGAIN) {
				log_warn(srv->sh->log, "cannot accept a connection: %s",
					 strerror(-r));
				server_retry_later(srv);
			}
			return;
		}
		cl->srv = srv;
		cl->refs = 1;
		cl->gw.conn_id = ++srv->next_conn_id;
		CDS_INIT_LIST_HEAD(&cl->replies);
		cds_list_add_tail(&cl->node, &srv->clients);
		srv->nr_clients++;
	}
	srv->full = true; /* the rest waits in the backlog (V1) */
}
