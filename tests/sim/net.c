/* net.c - the simulated network: streams between addresses, with delay, cuts, resets and half-open
 * ends.  net_fault.c does to it what faults.c draws.
 *
 *  - Bytes of one direction of one connection arrive in order; different connections do not wait
 * for each other.
 *  - What was sent before its sender died still arrives.
 *  - A cut holds bytes back; they arrive when it heals.  A new connection over a cut waits.
 */
#include "config.h"

#include "tests/sim/net_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define CUT_RETRY   (5 * MS)
#define CONNECT_MAX (30 * SEC) /* over a cut that does not heal */
#define DOOM_BYTES  512u

static uint64_t latency(struct sim_net *n, uint32_t from, uint32_t to)
{
	struct prng *r = &n->w->rnd_net;
	uint64_t ns = prng_in(r, 20 * US, 200 * US);

	if (from == to)
		ns /= 4;
	if (prng_chance(r, 1, 100))
		ns += prng_in(r, 0, 20 * MS);
	return ns + n->slow[net_ip(from)][net_ip(to)];
}

/* ---- events of a socket ---- */

static void sock_call(struct pevent *pe)
{
	struct env_sock *s = caa_container_of(pe, struct env_sock, pe);
	unsigned events = s->events;

	s->pe_set = false;
	s->events = 0;
	if (s->fn)
		s->fn(s, events, s->arg);
}

void net_sock_event(struct env_sock *s, unsigned events)
{
	s->events |= events;
	if (s->pe_set)
		return;
	s->pe_set = true;
	s->pe.fn = sock_call;
	pevent_set(s->p, &s->pe, s->net->w->now + US, "socket");
}

/* ---- bytes on their way ---- */

static void arm(struct env_sock *s)
{
	if (!cds_list_empty(&s->coming))
		event_set(s->net->w, &s->arrive,
			  cds_list_first_entry(&s->coming, struct chunk, node)->at);
}

static void arrived(struct event *ev)
{
	struct env_sock *s = caa_container_of(ev, struct env_sock, arrive);
	struct sim_net *n = s->net;
	struct chunk *c = cds_list_first_entry(&s->coming, struct chunk, node);

	if (s->let)
		s->let--;
	else if (s->held || n->cut[net_ip(net_addr_ip(&s->remote))][net_ip(s->p->ip)]) {
		event_set(n->w, ev, n->w->now + CUT_RETRY);
		return;
	}
	cds_list_del(&c->node);
	if (c->kind == K_DATA) {
		fold(n->w, c->data, c->len < 256 ? c->len : 256);
		cds_list_add_tail(&c->node, &s->ready);
		net_sock_event(s, ENV_SOCK_IN);
	} else {
		if (c->kind == K_EOF)
			s->eof = true;
		else
			s->reset = true;
		s->half = false;
		net_sock_event(s, ENV_SOCK_IN | (c->kind == K_RESET ? ENV_SOCK_HUP : 0));
		free(c);
	}
	arm(s);
}

/* Somebody sends data to another node: the moment at which a death does the most harm. */
static void doom(struct sim_net *n, const struct env_sock *to, size_t len)
{
	uint32_t from = net_addr_ip(&to->remote);

	if (!n->doom || len < DOOM_BYTES || from > NODES_MAX || to->p->ip > NODES_MAX ||
	    from == to->p->ip || --n->doom_left)
		return;
	n->doomed = from;
	event_set(n->w, n->doom, n->w->now + prng_in(&n->w->rnd_fault, 0, 200 * US));
	n->doom = NULL;
}

void net_on_send(struct sim_net *n, struct event *ev, unsigned nr)
{
	n->doom = ev;
	n->doom_left = nr;
}

uint32_t net_doomed(const struct sim_net *n)
{
	return n->doomed;
}

/* To socket @to, behind what is already on its way. */
void net_carry(struct env_sock *to, enum kind kind, const struct iovec *iov, int n, size_t len,
	       uint64_t extra)
{
	struct sim_net *net = to->net;
	struct proc *before = net->w->running;
	struct chunk *c;
	size_t at = 0;

	net->w->running = NULL;
	c = malloc(sizeof(*c) + len);
	assert(c);
	c->kind = kind;
	c->len = len;
	c->used = 0;
	for (int i = 0; i < n && at < len; i++) {
		size_t k = iov[i].iov_len < len - at ? iov[i].iov_len : len - at;
		memcpy(c->data + at, iov[i].iov_base, k);
		at += k;
	}
	assert(at == len);
	c->at = net->w->now + extra + len * net->byte_ns[net_ip(to->p->ip)] +
		latency(net, net_addr_ip(&to->remote), to->p->ip);
	if (c->at <= to->last_at)
		c->at = to->last_at + 1;
	to->last_at = c->at;
	to->unread += len;
	cds_list_add_tail(&c->node, &to->coming);
	if (!to->arrive.idx)
		arm(to);
	if (kind == K_DATA)
		doom(net, to, len);
	net->w->running = before;
}

static struct env_sock *sock_new(struct proc *p, enum state state, env_sock_fn fn, void *arg)
{
	struct sim_net *n = p->w->net;
	struct proc *before = p->w->running;
	struct env_sock *s;

	p->w->running = NULL;
	s = calloc(1, sizeof(*s));
	assert(s);
	s->env = &p->env;
	s->net = n;
	s->p = p;
	s->state = state;
	s->fn = fn;
	s->arg = arg;
	s->arrive.fn = arrived;
	s->arrive.what = "bytes";
	CDS_INIT_LIST_HEAD(&s->backlog);
	CDS_INIT_LIST_HEAD(&s->coming);
	CDS_INIT_LIST_HEAD(&s->ready);
	cds_list_add_tail(&s->node, &n->socks);
	p->w->running = before;
	return s;
}

void net_chunks_free(struct cds_list_head *list)
{
	struct chunk *c, *next;

	cds_list_for_each_entry_safe (c, next, list, node) {
		cds_list_del(&c->node);
		free(c);
	}
}

void net_sock_reset(struct env_sock *s)
{
	struct chunk *c;

	cds_list_for_each_entry (c, &s->coming, node)
		s->unread -= c->len;
	net_chunks_free(&s->coming);
	event_del(s->net->w, &s->arrive);
	s->reset = true;
	s->net->w->nr_breaks++;
	s->half = false;
	net_sock_event(s, ENV_SOCK_IN | ENV_SOCK_HUP);
}

/* @how: what the other end gets to see. */
static void sock_free(struct env_sock *s, enum kind how, uint64_t extra)
{
	struct world *w = s->net->w;
	struct proc *before = w->running;
	struct env_sock *b, *next;

	w->running = NULL;
	cds_list_for_each_entry_safe (b, next, &s->backlog, node)
		sock_free(b, K_RESET, extra);
	if (s->peer) {
		w->nr_breaks += s->p->disk != NULL; /* not when a client ends in good order */
		s->peer->peer = NULL;
		s->peer->half = extra > 1; /* until the news arrives */
		if (how == K_RESET && !extra) {
			net_chunks_free(&s->peer->coming);
			event_del(w, &s->peer->arrive);
		}
		net_carry(s->peer, how, NULL, 0, 0, extra);
	}
	event_del(w, &s->arrive);
	if (s->pe_set)
		pevent_del(&s->pe);
	net_chunks_free(&s->coming);
	net_chunks_free(&s->ready);
	cds_list_del(&s->node);
	free(s);
	w->running = before;
}

/* ---- the env's calls ---- */

/* Unix sockets are those of machine @ip. */
static struct env_sock *find_listener(struct sim_net *n, const struct net_addr *a, uint32_t ip)
{
	struct env_sock *s;

	cds_list_for_each_entry (s, &n->socks, node)
		if (s->state == S_LISTEN && s->local.family == a->family &&
		    s->local.port == a->port &&
		    (a->family == AF_UNIX ? s->p->ip == ip && !strcmp(s->local.path, a->path)
					  : s->p->ip == net_addr_ip(a)))
			return s;
	return NULL;
}

int sim_listen(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
	       struct env_sock **ret)
{
	struct proc *p = (struct proc *)e;
	struct net_addr mine = *a;

	if (a->family == AF_INET6)
		return -EAFNOSUPPORT;
	if (a->family == AF_INET) {
		memset(mine.ip, 0, sizeof(mine.ip));
		mine.ip[12] = 10;
		mine.ip[15] = (uint8_t)p->ip;
	}
	if (find_listener(p->w->net, &mine, p->ip))
		return -EADDRINUSE;
	*ret = sock_new(p, S_LISTEN, fn, arg);
	(*ret)->local = mine;
	return 0;
}

int sim_accept(struct env_sock *l, env_sock_fn fn, void *arg, struct env_sock **ret,
	       struct net_addr *peer)
{
	struct env_sock *s;

	if (cds_list_empty(&l->backlog))
		return -EAGAIN;
	s = cds_list_first_entry(&l->backlog, struct env_sock, node);
	cds_list_del(&s->node);
	cds_list_add_tail(&s->node, &l->net->socks);
	s->fn = fn;
	s->arg = arg;
	*peer = s->remote;
	*ret = s;
	if (!cds_list_empty(&s->ready) || s->eof || s->reset)
		net_sock_event(s, ENV_SOCK_IN);
	return 0;
}

/* The first packet reaches the other machine. */
static void connect_arrives(struct event *ev)
{
	struct env_sock *s = caa_container_of(ev, struct env_sock, arrive), *l, *t;
	struct sim_net *n = s->net;
	uint32_t to = s->remote.family == AF_UNIX ? s->p->ip : net_addr_ip(&s->remote);

	if (n->cut[net_ip(s->p->ip)][net_ip(to)] || n->cut[net_ip(to)][net_ip(s->p->ip)]) {
		if (n->w->now < s->give_up) {
			event_set(n->w, ev, n->w->now + CUT_RETRY);
			return;
		}
		s->error = ETIMEDOUT;
	}
	ev->fn = arrived;
	ev->what = "bytes";
	l = s->error ? NULL : find_listener(n, &s->remote, s->p->ip);
	if (!l) {
		s->error = s->error ? s->error : ECONNREFUSED;
		s->state = S_FAILED;
		net_sock_event(s, ENV_SOCK_HUP);
		return;
	}
	t = sock_new(l->p, S_OPEN, NULL, NULL);
	t->local = s->remote;
	t->remote = s->local;
	cds_list_del(&t->node);
	cds_list_add_tail(&t->node, &l->backlog);
	t->peer = s;
	s->peer = t;
	s->state = S_OPEN;
	net_sock_event(l, ENV_SOCK_IN);
	net_sock_event(s, ENV_SOCK_OUT);
}

int sim_connect(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
		struct env_sock **ret)
{
	struct proc *p = (struct proc *)e;
	struct sim_net *n = p->w->net;
	struct env_sock *s = sock_new(p, S_CONNECTING, fn, arg);

	s->remote = *a;
	s->local = (struct net_addr){.family = a->family, .port = ++n->next_port};
	s->local.ip[12] = 10;
	s->local.ip[15] = (uint8_t)p->ip;
	s->give_up = n->w->now + CONNECT_MAX;
	s->arrive.fn = connect_arrives;
	s->arrive.what = "connect";
	event_set(n->w, &s->arrive, n->w->now + latency(n, p->ip, net_addr_ip(a)));
	*ret = s;
	return 0;
}

static size_t window(const struct env_sock *s)
{
	uint32_t w = s->net->window[net_ip(s->p->ip)];

	return w ? w : NET_WINDOW;
}

ssize_t sim_recv(struct env_sock *s, const struct iovec *iov, int n)
{
	struct world *w = s->net->w;
	ssize_t got = 0;
	size_t in = 0;
	size_t room = window(s);
	bool full = s->unread >= room;

	for (int i = 0; i < n && !cds_list_empty(&s->ready);) {
		struct chunk *c = cds_list_first_entry(&s->ready, struct chunk, node);
		size_t k = c->len - c->used;
		if (k > iov[i].iov_len - in)
			k = iov[i].iov_len - in;
		memcpy((uint8_t *)iov[i].iov_base + in, c->data + c->used, k);
		c->used += k;
		in += k;
		got += (ssize_t)k;
		s->unread -= k;
		if (c->used == c->len) {
			struct proc *before = w->running;
			w->running = NULL;
			cds_list_del(&c->node);
			free(c);
			w->running = before;
		}
		if (in == iov[i].iov_len) {
			i++;
			in = 0;
		}
	}
	if (full && s->unread < room && s->peer && s->peer->want_out) {
		s->peer->want_out = false;
		net_sock_event(s->peer, ENV_SOCK_OUT);
	}
	if (got) {
		/* A short count: nobody asks again, so an end that came with it has its own call.
		 */
		if (cds_list_empty(&s->ready) && (s->eof || s->reset))
			net_sock_event(s, ENV_SOCK_IN);
		return got;
	}
	if (s->reset)
		return -ECONNRESET;
	if (s->eof)
		return 0;
	return s->state == S_FAILED ? -s->error : -EAGAIN;
}

ssize_t sim_send(struct env_sock *s, const struct iovec *iov, int n)
{
	size_t len = 0, used, room;

	if (s->state == S_FAILED)
		return -s->error;
	if (s->state == S_CONNECTING)
		return -EAGAIN;
	if (s->reset || (!s->peer && !s->half))
		return s->reset ? -ECONNRESET : -EPIPE;
	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	used = s->peer ? s->peer->unread : s->lost;
	room = s->peer ? window(s->peer) : NET_WINDOW;
	if (used >= room) {
		s->want_out = true;
		return -EAGAIN;
	}
	/* A short count: nobody asks again, the callback comes when there is room. */
	if (len > room - used) {
		len = room - used;
		s->want_out = true;
	} else if (len > 1 && prng_chance(&s->net->w->rnd_net, 1, 50)) {
		size_t some = (size_t)prng_in(&s->net->w->rnd_net, 1, len);
		if (some < len)
			net_sock_event(s, ENV_SOCK_OUT);
		len = some;
	}
	if (!s->peer)
		s->lost += len;
	else if (len)
		net_carry(s->peer, K_DATA, iov, n, len, 0);
	return (ssize_t)len;
}

void sim_sock_handler(struct env_sock *s, env_sock_fn fn, void *arg)
{
	s->fn = fn;
	s->arg = arg;
}

int sim_sock_error(struct env_sock *s)
{
	return s->error ? -s->error : s->reset ? -ECONNRESET : 0;
}

int sim_sock_name(struct env_sock *s, struct net_addr *ret)
{
	*ret = s->local;
	return 0;
}

void sim_sock_close(struct env_sock *s, bool reset)
{
	sock_free(s, reset ? K_RESET : K_EOF, 0);
}

/* ---- deaths and faults ---- */

/* What a dying process had sent arrives, or the end of it does not: a reset overtakes it, or it was
 * never on the wire.  Each connection for itself: that is what leaves replicas different. */
void net_lose_end(struct sim_net *n, struct env_sock *to)
{
	struct prng *r = &n->w->rnd_net;
	struct chunk *c, *next;
	bool keep = prng_chance(r, 1, 2);

	cds_list_for_each_entry_safe (c, next, &to->coming, node) {
		if (keep || prng_chance(r, 1, 2))
			continue;
		if (c->kind == K_DATA && c->len > 1 && prng_chance(r, 1, 2)) {
			size_t some = (size_t)prng_in(r, 1, c->len - 1);
			to->unread -= c->len - some;
			c->len = some;
			c = next;
		}
		while (&c->node != &to->coming) {
			next = cds_list_entry(c->node.next, struct chunk, node);
			to->unread -= c->len;
			cds_list_del(&c->node);
			free(c);
			c = next;
		}
		break;
	}
	if (cds_list_empty(&to->coming))
		event_del(n->w, &to->arrive);
}

void net_proc_died(struct sim_net *n, struct proc *p)
{
	struct env_sock *s, *next;
	bool again = true;

	while (again) { /* a listener takes its backlog along */
		again = false;
		cds_list_for_each_entry_safe (s, next, &n->socks, node)
			if (s->p == p) {
				if (s->peer)
					net_lose_end(n, s->peer);
				/* A machine without power says nothing; its peers find out late. */
				sock_free(s, p->power_lost ? K_RESET : K_EOF,
					  p->power_lost ? prng_in(&n->w->rnd_net, MS, 2 * SEC) : 1);
				again = true;
				break;
			}
	}
}

struct sim_net *net_new(struct world *w)
{
	struct sim_net *n = calloc(1, sizeof(*n));

	assert(n);
	n->w = w;
	CDS_INIT_LIST_HEAD(&n->socks);
	return n;
}

void net_free(struct sim_net *n)
{
	assert(cds_list_empty(&n->socks));
	free(n);
}
