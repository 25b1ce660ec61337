/* peer_conn.c - one connection between daemons: bytes in and out, see peer_int.h. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sheep/peer_int.h"
#include "sheep/mark.h"

/* ---- life ---- */

struct peer_conn *conn_new(struct peers *p, unsigned ch, bool out)
{
	struct peer_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->kind = PEER_KIND_CONN;
	conn->p = p;
	conn->ch = ch;
	conn->out = out;
	conn->refs = 1;
	conn->state = out ? CONN_CONNECT : CONN_OPEN;
	CDS_INIT_LIST_HEAD(&conn->tx);
	CDS_INIT_LIST_HEAD(&conn->reqs);
	co_cond_init(&conn->drained);
	p->nr_conns++;
	return conn;
}

void conn_put(struct peer_conn *conn)
{
	assert(conn->refs > 0);
	if (--conn->refs)
		return;
	assert(!conn->sock && !conn->nr_reqs && !conn->rx_buf && cds_list_empty(&conn->tx));
	assert(!conn->dirty && !conn->queued && !conn->wait);
	conn->p->nr_conns--;
	co_cond_broadcast(&conn->p->idle);
	free(conn->pend);
	free(conn);
}

static void conn_unlist(struct peer_conn *conn)
{
	if (conn->wait == WAIT_CLASS || conn->wait == WAIT_CO)
		cds_list_del(&conn->wait_node);
	conn->wait = WAIT_NONE;
	if (conn->dirty)
		cds_list_del(&conn->dirty_node);
	if (conn->queued)
		cds_list_del(&conn->input_node);
	conn->dirty = conn->queued = false;
}

void conn_close(struct peer_conn *conn)
{
	if (!conn->sock)
		return;
	env_sock_close(conn->sock, false);
	conn->sock = NULL;
	conn_unlist(conn);
	conn->rx_on = false;
	conn->hdr_len = 0;
	buf_put(conn->rx_buf);
	conn->rx_buf = NULL;
	if (conn->out)
		chan_conn_closed(conn);
	else
		req_conn_closed(conn);
	peers_kick(conn->p); /* others may have waited behind it */
	conn_put(conn);
}

void conn_garbage(struct peer_conn *conn, const char *what)
{
	if (!conn->sock)
		return;
	MARK(peer_garbage);
	log_err(conn->p->sh->log, "closing a connection %s another node: %s",
		conn->out ? "to" : "from", what);
	conn_close(conn);
}

/* ---- waiting ---- */

void conn_wait(struct peer_conn *conn, enum conn_wait why)
{
	struct peers *p = conn->p;

	assert(!conn->wait && conn->sock);
	conn->wait = why;
	if (why == WAIT_CLASS)
		cds_list_add_tail(&conn->wait_node, &p->class[conn->ch].waiting);
	else if (why == WAIT_CO)
		cds_list_add_tail(&conn->wait_node, &p->starved);
}

static void conn_queue_input(struct peer_conn *conn)
{
	if (conn->queued)
		return;
	conn->queued = true;
	cds_list_add_tail(&conn->input_node, &conn->p->input);
	peers_kick(conn->p);
}

void conn_unwait(struct peer_conn *conn)
{
	if (!conn->sock || !conn->wait)
		return;
	if (conn->wait == WAIT_CLASS || conn->wait == WAIT_CO)
		cds_list_del(&conn->wait_node);
	conn->wait = WAIT_NONE;
	conn_queue_input(conn);
}

/* ---- receiving ---- */

/* @n more bytes of checksums and data are where they belong. */
static void conn_advance(struct peer_conn *conn, size_t n)
{
	for (unsigned i = 0; i < 2; i++) {
		size_t k = conn->rx[i].iov_len < n ? conn->rx[i].iov_len : n;
		conn->rx[i].iov_base = (uint8_t *)conn->rx[i].iov_base + k;
		conn->rx[i].iov_len -= k;
		n -= k;
	}
	assert(!n);
	if (conn->rx[0].iov_len || conn->rx[1].iov_len)
		return;
	conn->rx_on = false;
	if (conn->out)
		chan_message(conn);
	else
		req_message(conn);
}

/* The header is complete.  While it waits it stays, and this is called again. */
static void conn_header(struct peer_conn *conn)
{
	if (conn->state == CONN_HELLO) {
		conn->hdr_len = 0;
		chan_greeted(conn, &conn->hdr.greeting);
		return;
	}
	switch (conn->out ? chan_header(conn) : req_header(conn)) {
	case HDR_GARBAGE: conn_garbage(conn, "a message that makes no sense"); break;
	case HDR_WAIT: break;
	case HDR_TAKEN:
		conn->hdr_len = 0;
		conn->rx_on = true;
		if (!conn->rx[0].iov_len && !conn->rx[1].iov_len)
			conn_advance(conn, 0);
		break;
	}
}

static size_t conn_header_len(const struct peer_conn *conn)
{
	return conn->state == CONN_HELLO ? sizeof(struct sd_rsp) : sizeof(struct peer_hdr);
}

/* Consume; returns the bytes used, fewer than @n when it must wait or was closed. */
static size_t conn_feed(struct peer_conn *conn, const uint8_t *b, size_t n)
{
	size_t used = 0, k;

	while (used < n && conn->sock && !conn->wait) {
		if (conn->rx_on) {
			struct iovec *v = &conn->rx[conn->rx[0].iov_len ? 0 : 1];
			k = v->iov_len < n - used ? v->iov_len : n - used;
			memcpy(v->iov_base, b + used, k);
			used += k;
			conn_advance(conn, k);
			continue;
		}
		size_t need = conn_header_len(conn);
		assert(conn->hdr_len < need);
		k = need - conn->hdr_len < n - used ? need - conn->hdr_len : n - used;
		memcpy(conn->hdr.bytes + conn->hdr_len, b + used, k);
		conn->hdr_len += k;
		used += k;
		if (conn->hdr_len == need)
			conn_header(conn);
	}
	return used;
}

/* P7 */
static void conn_keep(struct peer_conn *conn, const uint8_t *b, size_t n)
{
	if (!n || !conn->sock)
		return;
	if (conn->pend_len + n > conn->pend_cap) {
		size_t cap = conn->pend_len + n + PEER_SCRATCH;
		uint8_t *q = realloc(conn->pend, cap);
		if (!q && MARKED(peer_keep_nomem)) {
			conn_close(conn); /* the stream cannot go on */
			return;
		}
		conn->pend = q;
		conn->pend_cap = cap;
	}
	memcpy(conn->pend + conn->pend_len, b, n);
	conn->pend_len += n;
}

static void conn_take(struct peer_conn *conn, const uint8_t *b, size_t n)
{
	size_t used = conn->pend_len ? 0 : conn_feed(conn, b, n);

	conn_keep(conn, b + used, n - used);
}

/* ---- guessed payloads: a header in its slot, then a buffer for the data ---- */

static unsigned guess_fill(struct peer_conn *conn, struct iovec *iov, struct buf **bufs,
			   size_t direct)
{
	uint32_t len = conn->guess.len;
	size_t slot_len = sizeof(struct peer_hdr) + 4 * conn->guess.crc_nr;
	unsigned i, nr = conn->guess.nr;

	if (!len || conn->hdr_len || direct > PEER_GUESS_BYTES)
		return 0;
	if (nr > PEER_GUESS_NR)
		nr = PEER_GUESS_NR;
	if (nr > PEER_GUESS_BYTES / len)
		nr = PEER_GUESS_BYTES / len;
	for (i = 0; i < nr; i++) {
		bufs[i] = buf_new(conn->p->sh->pool, len);
		if (!bufs[i])
			break;
		iov[2 * i] =
			(struct iovec){conn->p->scratch + PEER_SCRATCH + i * PEER_SLOT, slot_len};
		iov[2 * i + 1] = (struct iovec){bufs[i]->data, len};
	}
	return i;
}

/* @iov: the slot and the buffer, of which @avail bytes (or less) are filled.  Returns how many. */
static size_t guess_take(struct peer_conn *conn, const struct iovec *iov, struct buf *buf,
			 uint32_t crc_nr, size_t avail)
{
	size_t a = avail < iov[0].iov_len ? avail : iov[0].iov_len;
	size_t b = avail - a < iov[1].iov_len ? avail - a : iov[1].iov_len;
	bool offered = a == iov[0].iov_len && conn->sock && !conn->rx_on && !conn->hdr_len &&
		       !conn->wait && !conn->pend_len && conn->guess.len == iov[1].iov_len &&
		       conn->guess.crc_nr == crc_nr;

	/* A slot that begins with a header ends with the last checksum, if the guess was right; if
	 * not, no second header is complete in it. */
	conn->guess.buf = offered ? buf : NULL;
	conn_take(conn, iov[0].iov_base, a);
	if (offered && !conn->guess.buf) { /* taken */
		if (b && conn->sock)
			conn_advance(conn, b);
		return a + b;
	}
	conn->guess.buf = NULL;
	conn_take(conn, iov[1].iov_base, b);
	buf_put(buf);
	return a + b;
}

/* One receive.  Bytes, 0 at the end, -errno.  *more: it was filled, so there may be more
 * (env_recv). */
static ssize_t conn_recv(struct peer_conn *conn, bool *more)
{
	struct iovec iov[2 + 2 * PEER_GUESS_NR + 1], *g;
	struct buf *bufs[PEER_GUESS_NR];
	uint32_t crc_nr = conn->guess.crc_nr;
	size_t direct = 0, room = PEER_SCRATCH, left, k;
	unsigned nr = 0, nr_guess;

	if (conn->rx_on)
		for (unsigned i = 0; i < 2; i++)
			if (conn->rx[i].iov_len) {
				iov[nr++] = conn->rx[i];
				direct += conn->rx[i].iov_len;
			}
	g = iov + nr;
	nr_guess = guess_fill(conn, g, bufs, direct);
	nr += 2 * nr_guess;
	iov[nr++] = (struct iovec){conn->p->scratch, PEER_SCRATCH};
	room += direct;
	for (unsigned i = 0; i < nr_guess; i++)
		room += g[2 * i].iov_len + g[2 * i + 1].iov_len;
	ssize_t n = env_recv(conn->sock, iov, nr);
	*more = n < 0 || (size_t)n == room;
	left = n > 0 ? (size_t)n : 0;
	k = left < direct ? left : direct;
	conn->guess.nr = k < left ? 1 : conn->guess.nr; /* counted up by each that fits */
	if (k)
		conn_advance(conn, k);
	left -= k;
	for (unsigned i = 0; i < nr_guess; i++) {
		if (left)
			left -= guess_take(conn, g + 2 * i, bufs[i], crc_nr, left);
		else
			buf_put(bufs[i]);
	}
	if (left)
		conn_take(conn, conn->p->scratch, left);
	return n;
}

/* Go on where it had to wait.  True: it may receive. */
static bool conn_resume(struct peer_conn *conn)
{
	if (!conn->out && !req_resume(conn))
		return false;
	if (conn->sock && conn->hdr_len == conn_header_len(conn))
		conn_header(conn);
	if (conn->pend_len && conn->sock && !conn->wait) {
		conn->pend_off += conn_feed(conn, conn->pend + conn->pend_off,
					    conn->pend_len - conn->pend_off);
		if (conn->pend_off == conn->pend_len) {
			free(conn->pend);
			conn->pend = NULL;
			conn->pend_len = conn->pend_off = conn->pend_cap = 0;
		}
	}
	return conn->sock && !conn->wait;
}

void conn_input(struct peer_conn *conn)
{
	struct peers *p = conn->p;
	unsigned turns = 0;
	bool more = true;

	if (!conn->sock || conn->wait || conn->state == CONN_CONNECT)
		return;
	assert(!p->receiving);
	p->receiving = true;
	conn->refs++;
	if (conn_resume(conn)) {
		while (more && conn->sock && !conn->wait) {
			if (turns++ == PEER_TURN_RECVS) {
				conn_queue_input(conn);
				break;
			}
			ssize_t n = conn_recv(conn, &more);
			if (n == -EAGAIN)
				break;
			if (n == -EINTR)
				continue;
			if (n <= 0 && MARKED(peer_recv_end))
				conn_close(conn);
		}
	}
	p->receiving = false;
	conn_put(conn);
}

/* ---- sending ---- */

void conn_dirty(struct peer_conn *conn)
{
	if (conn->dirty || !conn->sock)
		return;
	conn->dirty = true;
	cds_list_add_tail(&conn->dirty_node, &conn->p->dirty);
	peers_kick(conn->p);
}

void conn_send(struct peer_conn *conn, struct peer_msg *m)
{
	assert(conn->sock && !m->queued);
	m->queued = true;
	cds_list_add_tail(&m->node, &conn->tx);
	conn_dirty(conn);
}

static size_t msg_len(const struct peer_msg *m)
{
	return sizeof(*m->hdr) + 4 * (size_t)m->crc_nr + m->len;
}

/* @n bytes more are out. */
static void conn_sent(struct peer_conn *conn, size_t n)
{
	n += conn->tx_off;
	if (conn->pre_len) {
		if (n < conn->pre_len) {
			conn->tx_off = n;
			return;
		}
		n -= conn->pre_len;
		conn->pre_len = 0;
	}
	while (!cds_list_empty(&conn->tx)) {
		struct peer_msg *m = cds_list_first_entry(&conn->tx, struct peer_msg, node);
		size_t len = msg_len(m);
		if (n < len)
			break;
		n -= len;
		cds_list_del(&m->node);
		m->queued = false;
		if (!conn->out)
			req_sent(conn, m);
	}
	assert(!n || !cds_list_empty(&conn->tx));
	conn->tx_off = n;
}

static unsigned conn_iov(struct peer_conn *conn, struct iovec *iov)
{
	size_t skip = conn->tx_off;
	struct peer_msg *m;
	unsigned nr = 0, nr_msg = 0;

	if (conn->pre_len) {
		iov[nr++] = (struct iovec){conn->pre + skip, conn->pre_len - skip};
		skip = 0;
	}
	if (conn->state != CONN_OPEN)
		return nr;
	cds_list_for_each_entry (m, &conn->tx, node) {
		if (nr_msg++ == PEER_BATCH)
			break;
		struct iovec part[3] = {{(void *)m->hdr, sizeof(*m->hdr)},
					{(void *)m->crc, 4 * (size_t)m->crc_nr},
					{NULL, m->len}};
		if (m->len)
			part[2].iov_base = (uint8_t *)m->buf->data + m->off;
		for (unsigned i = 0; i < 3; i++) {
			size_t k = skip < part[i].iov_len ? skip : part[i].iov_len;
			skip -= k;
			if (k == part[i].iov_len)
				continue;
			iov[nr].iov_base = (uint8_t *)part[i].iov_base + k;
			iov[nr++].iov_len = part[i].iov_len - k;
		}
	}
	return nr;
}

void conn_flush(struct peer_conn *conn)
{
	struct iovec iov[1 + 3 * PEER_BATCH];

	if (conn->state == CONN_CONNECT)
		return;
	conn->refs++;
	while (conn->sock) {
		unsigned nr = conn_iov(conn, iov);
		if (!nr)
			break;
		ssize_t n = env_send(conn->sock, iov, nr);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			break; /* ENV_SOCK_OUT comes */
		if (n < 0 && MARKED(peer_send_broke))
			conn_close(conn);
		else
			conn_sent(conn, n);
	}
	conn_put(conn);
}

void conn_event(struct env_sock *sock, unsigned events, void *arg)
{
	struct peer_conn *conn = arg;

	conn->refs++;
	if (conn->state == CONN_CONNECT) {
		if (events & ENV_SOCK_HUP)
			conn_close(conn);
		else if (events & ENV_SOCK_OUT)
			chan_connected(conn);
	}
	if (conn->sock && (events & ENV_SOCK_OUT))
		conn_flush(conn);
	if (conn->sock && (events & (ENV_SOCK_IN | ENV_SOCK_HUP))) {
		if (!conn->wait)
			conn_input(conn);
		else if ((events & ENV_SOCK_HUP) && MARKED(peer_wait_hup))
			conn_close(conn); /* nothing can be answered any more */
	}
	conn_put(conn);
}
