/* conn.c - framing on one socket: many requests in one send, many replies in one receive.
 *
 * Promises: requests are sent in the order of the queue; a reply is matched by id and checked
 * against its request (opcode, length) before a byte of it is stored; payloads go from and to the
 * caller's iovecs, except for what a receive for small replies has caught along with them.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "lib/client/client.h"

/* ---- segments ---- */

void seg_advance(struct seg *s, size_t n)
{
	assert(n <= s->len);
	s->len -= n;
	if (!s->iov)
		return;
	s->skip += n;
	while (s->len && s->skip >= s->iov->iov_len) {
		s->skip -= s->iov->iov_len;
		s->iov++;
	}
}

int seg_iov(const struct seg *s, size_t off, const uint8_t *zeros, struct iovec *iov, int max,
	    size_t *bytes)
{
	struct seg at = *s;
	int nr = 0;

	*bytes = 0;
	seg_advance(&at, off);
	while (at.len && nr < max) {
		size_t n = at.iov ? at.iov->iov_len - at.skip : ZERO_BYTES;
		if (n > at.len)
			n = at.len;
		iov[nr].iov_base = at.iov ? (uint8_t *)at.iov->iov_base + at.skip
					  : (uint8_t *)(uintptr_t)zeros;
		iov[nr++].iov_len = n;
		*bytes += n;
		seg_advance(&at, n);
	}
	return nr;
}

void seg_copy(const struct seg *s, size_t off, const void *src, size_t n)
{
	const uint8_t *p = src;
	struct seg at = *s;

	seg_advance(&at, off);
	while (n) {
		size_t k = at.iov->iov_len - at.skip;
		if (k > n)
			k = n;
		memcpy((uint8_t *)at.iov->iov_base + at.skip, p, k);
		p += k;
		n -= k;
		seg_advance(&at, k);
	}
}

void seg_zero(const struct seg *s)
{
	struct seg at = *s;

	while (at.len) {
		size_t k = at.iov->iov_len - at.skip;
		if (k > at.len)
			k = at.len;
		memset((uint8_t *)at.iov->iov_base + at.skip, 0, k);
		seg_advance(&at, k);
	}
}

/* ---- slots ---- */

static bool slot_get(struct conn *k, struct rq *rq)
{
	size_t len = rq->req.data_length;

	if (rq->slotted)
		return true;
	if (!k->nr_free)
		return false;
	if (!rq->urgent &&
	    (conn_inflight(k) >= CONN_INFLIGHT || (k->bytes && k->bytes + len > CONN_BYTES)))
		return false;
	uint8_t s = k->free_slot[--k->nr_free];
	k->slot[s] = rq;
	k->id_high++;
	rq->req.id = k->id_high << 8 | s;
	rq->slotted = true;
	k->bytes += len;
	return true;
}

static void slot_put(struct conn *k, struct rq *rq)
{
	uint8_t s = (uint8_t)rq->req.id;

	if (!rq->slotted)
		return;
	assert(k->slot[s] == rq);
	k->slot[s] = NULL;
	k->free_slot[k->nr_free++] = s;
	k->bytes -= rq->req.data_length;
	rq->slotted = false;
}

/* ---- sending ---- */

static struct rq *queue_first(struct conn *k)
{
	return cds_list_empty(&k->queue) ? NULL : cds_list_first_entry(&k->queue, struct rq, node);
}

static void rq_finish(struct conn *k, struct rq *rq, int err)
{
	cds_list_del(&rq->node);
	slot_put(k, rq);
	rq->place = RQ_IDLE;
	rq->answered = false;
	rq->done(rq, err);
}

/* One send's worth of the queue. */
static int gather(struct conn *k, struct iovec *iov, size_t *total)
{
	size_t skip = k->tx_off;
	struct rq *rq;
	int nr = 0;

	*total = 0;
	cds_list_for_each_entry (rq, &k->queue, node) {
		size_t n, want = sizeof(rq->req) + rq->out.len;
		if ((k->hold && !rq->urgent) || nr == CONN_TX_IOV || !slot_get(k, rq))
			break;
		size_t got = skip;
		if (skip < sizeof(rq->req)) {
			iov[nr].iov_base = (uint8_t *)&rq->req + skip;
			iov[nr].iov_len = sizeof(rq->req) - skip;
			*total += iov[nr].iov_len;
			got += iov[nr++].iov_len;
		}
		nr += seg_iov(&rq->out, got - sizeof(rq->req), k->zeros, iov + nr, CONN_TX_IOV - nr,
			      &n);
		*total += n;
		if (got + n < want)
			break;
		skip = 0;
	}
	return nr;
}

/* @n more bytes are with the kernel. */
static void conn_sent(struct conn *k, size_t n)
{
	struct rq *rq;

	k->tx_off += n;
	while ((rq = queue_first(k))) {
		size_t len = sizeof(rq->req) + rq->out.len;
		if (k->tx_off < len)
			return;
		k->tx_off -= len;
		if (rq->answered) {
			rq_finish(k, rq, 0);
			continue;
		}
		cds_list_del(&rq->node);
		cds_list_add_tail(&rq->node, &k->sent);
		rq->place = RQ_SENT;
	}
	assert(!k->tx_off);
}

void conn_flush(struct conn *k)
{
	struct iovec iov[CONN_TX_IOV];
	size_t total;

	while (k->up && !k->full) {
		int nr = gather(k, iov, &total);
		if (!nr)
			return;
		ssize_t n = env_send(k->sock, iov, nr);
		if (n == -EAGAIN) {
			k->full = true;
			return;
		}
		if (n < 0) {
			k->ops->lost(k, (int)n, NULL);
			return;
		}
		unsigned number = k->number;
		k->moved++;
		conn_sent(k, (size_t)n);
		if (k->number != number)
			return;
		k->full = (size_t)n < total;
	}
}

static void on_tx(struct env_defer *d)
{
	conn_flush((struct conn *)((char *)d - offsetof(struct conn, tx)));
}

void conn_kick(struct conn *k)
{
	if (k->up && !k->full)
		env_defer(k->env, &k->tx);
}

void conn_add(struct conn *k, struct rq *rq)
{
	assert(rq->place == RQ_IDLE);
	rq->place = RQ_QUEUED;
	cds_list_add_tail(&rq->node, &k->queue);
}

void conn_add_first(struct conn *k, struct rq *rq)
{
	assert(rq->place == RQ_IDLE);
	rq->place = RQ_QUEUED;
	cds_list_add(&rq->node, k->tx_off ? k->queue.next : &k->queue);
}

bool conn_take(struct conn *k, struct rq *rq)
{
	if (rq->place == RQ_SENT || (rq == queue_first(k) && k->tx_off))
		return false;
	cds_list_del(&rq->node);
	slot_put(k, rq);
	rq->place = RQ_IDLE;
	return true;
}

/* ---- receiving ---- */

/* The header of a reply.  NULL: garbage. */
static struct rq *reply_of(struct conn *k, const struct sd_rsp *rsp)
{
	struct rq *rq = k->slot[rsp->id & (CONN_SLOTS - 1)];

	if (!rq || rq->req.id != rsp->id || rq->req.opcode != rsp->opcode || rq->answered)
		return NULL;
	if (rq->place == RQ_QUEUED && (rq != queue_first(k) || k->tx_off < sizeof(rq->req)))
		return NULL; /* not even asked */
	if (rsp->data_length > rq->in.len)
		return NULL;
	if (rq->exact && rsp->data_length != (rsp->result ? 0 : rq->in.len))
		return NULL;
	return rq;
}

static void reply_complete(struct conn *k, struct rq *rq)
{
	k->replies++;
	if (rq->place == RQ_QUEUED)
		rq->answered = true; /* refused at its header; the payload must still go */
	else
		rq_finish(k, rq, 0);
}

/* Cut the scratch into replies.  False: the connection is gone. */
static bool conn_parse(struct conn *k)
{
	unsigned number = k->number;
	size_t at = 0;

	while (k->scratch_len - at >= sizeof(struct sd_rsp)) {
		struct sd_rsp rsp;
		memcpy(&rsp, k->scratch + at, sizeof(rsp));
		struct rq *rq = reply_of(k, &rsp);
		if (!rq) {
			k->ops->lost(k, -EPROTO, "garbage");
			return false;
		}
		at += sizeof(rsp);
		rq->rsp = rsp;
		size_t n = k->scratch_len - at;
		if (n > rsp.data_length)
			n = rsp.data_length;
		seg_copy(&rq->in, 0, k->scratch + at, n);
		at += n;
		if (n < rsp.data_length) {
			k->rx = rq;
			k->rx_got = n;
			k->rx_left = rsp.data_length - n;
			break;
		}
		reply_complete(k, rq);
		if (k->number != number)
			return false;
	}
	k->scratch_len -= at;
	memmove(k->scratch, k->scratch + at, k->scratch_len);
	return true;
}

/* Where the next bytes go; *want: how many of them belong to the payload being received. */
static int rx_iov(struct conn *k, struct iovec *iov, size_t *want)
{
	int nr = 0;

	*want = 0;
	if (k->rx) {
		struct seg rest = k->rx->in;
		rest.len = k->rx_got + k->rx_left;
		nr = seg_iov(&rest, k->rx_got, NULL, iov, CONN_RX_IOV, want);
		if (*want < k->rx_left)
			return nr;
	}
	iov[nr++] = (struct iovec){k->scratch + k->scratch_len, CONN_SCRATCH - k->scratch_len};
	return nr;
}

static void conn_input(struct conn *k)
{
	unsigned number = k->number;

	while (k->number == number && k->up) {
		struct iovec iov[CONN_RX_IOV + 1];
		size_t want, direct, room = 0;
		int nr = rx_iov(k, iov, &want);
		for (int i = 0; i < nr; i++)
			room += iov[i].iov_len;
		ssize_t n = env_recv(k->sock, iov, nr);
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			k->ops->lost(k, n ? (int)n : -ECONNRESET, NULL);
			return;
		}
		k->received++;
		k->moved++;
		direct = (size_t)n < want ? (size_t)n : want;
		k->rx_got += direct;
		k->rx_left -= direct;
		if (k->rx && !k->rx_left) {
			reply_complete(k, TAKE(k->rx, NULL));
			if (k->number != number)
				return;
		}
		k->scratch_len += (size_t)n - direct;
		if (!conn_parse(k) || (size_t)n < room)
			return; /* a short count: that was all */
	}
}

static void on_sock(struct env_sock *s, unsigned events, void *arg)
{
	struct conn *k = arg;
	unsigned number = k->number;

	if (!k->up) {
		if (events & ENV_SOCK_HUP) {
			k->ops->lost(k, env_sock_error(s), NULL);
			return;
		}
		if (!(events & ENV_SOCK_OUT))
			return;
		k->up = true;
		k->ops->up(k);
		if (k->number != number)
			return;
	}
	if (events & (ENV_SOCK_IN | ENV_SOCK_HUP))
		conn_input(k);
	if (k->number != number)
		return;
	if (events & ENV_SOCK_OUT)
		k->full = false;
	if (!cds_list_empty(&k->queue))
		conn_kick(k);
}

/* ---- life ---- */

int conn_init(struct conn *k, struct env *env, const struct conn_ops *ops)
{
	memset(k, 0, sizeof(*k));
	k->env = env;
	k->ops = ops;
	k->tx.fn = on_tx;
	CDS_INIT_LIST_HEAD(&k->queue);
	CDS_INIT_LIST_HEAD(&k->sent);
	for (unsigned i = 0; i < CONN_SLOTS; i++)
		k->free_slot[k->nr_free++] = (uint8_t)(CONN_SLOTS - 1 - i);
	k->scratch = malloc(CONN_SCRATCH);
	k->zeros = calloc(1, ZERO_BYTES);
	if (k->scratch && k->zeros)
		return 0;
	free(k->scratch);
	free(k->zeros);
	return -ENOMEM;
}

void conn_done(struct conn *k)
{
	assert(!k->sock && cds_list_empty(&k->queue) && cds_list_empty(&k->sent));
	env_defer_del(k->env, &k->tx);
	free(k->scratch);
	free(k->zeros);
}

int conn_connect(struct conn *k, const struct net_addr *a)
{
	assert(!k->sock);
	return env_connect(k->env, a, on_sock, k, &k->sock);
}

void conn_reset(struct conn *k, int err)
{
	struct rq *rq, *next;
	CDS_LIST_HEAD(failed);

	k->number++;
	if (k->sock)
		env_sock_close(TAKE(k->sock, NULL), true);
	env_defer_del(k->env, &k->tx);
	rq = queue_first(k);
	if (rq && k->tx_off) { /* a part of it was sent */
		cds_list_del(&rq->node);
		cds_list_add_tail(&rq->node, &k->sent);
	}
	k->tx_off = k->rx_got = k->rx_left = k->scratch_len = 0;
	k->up = k->full = false;
	k->rx = NULL;
	cds_list_for_each_entry (rq, &k->queue, node)
		slot_put(k, rq);
	cds_list_for_each_entry_safe (rq, next, &k->sent, node) {
		slot_put(k, rq);
		rq->place = RQ_QUEUED;
		rq->answered = false;
		rq->resent = true;
		if (!rq->once)
			continue;
		cds_list_del(&rq->node);
		cds_list_add_tail(&rq->node, &failed);
	}
	cds_list_splice(&k->sent, &k->queue);
	CDS_INIT_LIST_HEAD(&k->sent);
	assert(k->nr_free == CONN_SLOTS && !k->bytes);
	while (!cds_list_empty(&failed))
		rq_finish(k, cds_list_first_entry(&failed, struct rq, node), err);
}
