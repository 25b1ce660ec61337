/* linux_sock.c - the network door: nonblocking stream sockets, edge-triggered.
 *
 * Invariants:
 *  1. A socket is registered with epoll once, for everything, after connect() or accept(); no
 *     epoll_ctl per operation.
 *  2. ENV_SOCK_OUT is reported only to whom it says something: once after the socket came to be,
 *     and after a send that was cut short.
 *  3. After sock_close no callback comes, also for events of the batch being worked on.
 *  4. A receive that was not filled is the last one that is needed until the next callback: an end
 *     of the stream that came along with the data gets a callback of its own.
 *  5. A listener that runs out of descriptors keeps its connections waiting and is called again
 *     after ACCEPT_RETRY_NS.
 */
#include "config.h"

#include "lib/env/linux_int.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCEPT_RETRY_NS 100000000ull

enum {
	BACKLOG = 1024,
	/* a peer that is silent is probed after 10 s, given up after 3 probes 5 s apart */
	KEEP_IDLE_S = 10,
	KEEP_INTERVAL_S = 5,
	KEEP_PROBES = 3,
	ALL_EVENTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP,
	ENDING = EPOLLRDHUP | EPOLLHUP | EPOLLERR,
};

struct env_sock {
	struct env *env; /* first: see env.h */
	struct ev_src src;
	env_sock_fn fn;
	void *arg;
	int error; /* -errno, kept since the kernel tells it once */
	bool listening, connecting, want_out;
	bool ending;		/* the end, or an error, is behind what can be received */
	struct env_defer end;	/* tells it to one that stopped before */
	struct env_timer retry; /* listener, out of descriptors */
};

/* ---- addresses ---- */

union addr {
	struct sockaddr sa;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

static int addr_to(const struct net_addr *a, union addr *u, socklen_t *len)
{
	memset(u, 0, sizeof(*u));
	u->sa.sa_family = (sa_family_t)a->family;
	switch (a->family) {
	case AF_INET:
		u->in4.sin_port = htons(a->port);
		memcpy(&u->in4.sin_addr, a->ip + 12, 4);
		*len = sizeof(u->in4);
		return 0;
	case AF_INET6:
		u->in6.sin6_port = htons(a->port);
		memcpy(&u->in6.sin6_addr, a->ip, 16);
		*len = sizeof(u->in6);
		return 0;
	case AF_UNIX: {
		size_t n = strnlen(a->path, sizeof(a->path));
		if (n == 0)
			return -EINVAL;
		if (n >= sizeof(u->un.sun_path))
			return -ENAMETOOLONG;
		memcpy(u->un.sun_path, a->path, n);
		*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
		return 0;
	}
	}
	return -EAFNOSUPPORT;
}

static void addr_from(const union addr *u, socklen_t len, struct net_addr *a)
{
	memset(a, 0, sizeof(*a));
	a->family = u->sa.sa_family;
	if (a->family == AF_INET) {
		a->port = ntohs(u->in4.sin_port);
		memcpy(a->ip + 12, &u->in4.sin_addr, 4);
	} else if (a->family == AF_INET6) {
		a->port = ntohs(u->in6.sin6_port);
		memcpy(a->ip, &u->in6.sin6_addr, 16);
	} else if (len > offsetof(struct sockaddr_un, sun_path)) {
		size_t n = len - offsetof(struct sockaddr_un, sun_path);
		n = n < sizeof(a->path) ? n : sizeof(a->path) - 1;
		memcpy(a->path, u->un.sun_path, n);
	}
}

/* ---- events ---- */

int sock_error(struct env_sock *s)
{
	int e = 0;
	socklen_t len = sizeof(e);
	if (getsockopt(s->src.fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
		e = errno;
	if (e)
		s->error = -e;
	return s->error;
}

static void on_connecting(struct env_sock *s, uint32_t ev)
{
	unsigned out = ENV_SOCK_OUT;
	s->ending = ev & ENDING;
	if (!(ev & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		return;
	s->connecting = false;
	s->want_out = false;
	if (ev & (EPOLLERR | EPOLLHUP)) {
		if (sock_error(s) == 0)
			s->error = -ECONNRESET;
		out = ENV_SOCK_HUP;
	} else if (ev & (EPOLLIN | EPOLLRDHUP)) {
		out |= ENV_SOCK_IN;
	}
	s->fn(s, out, s->arg);
}

static void on_sock(struct ev_src *src, uint32_t ev)
{
	struct env_sock *s = src->owner;
	unsigned out = 0;
	if (s->connecting) {
		on_connecting(s, ev);
		return;
	}
	s->ending |= (ev & ENDING) != 0;
	if (ev & (EPOLLIN | EPOLLRDHUP))
		out |= ENV_SOCK_IN;
	if ((ev & EPOLLOUT) && s->want_out) {
		s->want_out = false;
		out |= ENV_SOCK_OUT;
	}
	if (ev & (EPOLLERR | EPOLLHUP))
		out |= ENV_SOCK_HUP;
	if (out)
		s->fn(s, out, s->arg);
}

static void on_retry(struct env_timer *t)
{
	struct env_sock *s = (struct env_sock *)((char *)t - offsetof(struct env_sock, retry));
	s->fn(s, ENV_SOCK_IN, s->arg);
}

static void on_end(struct env_defer *d)
{
	struct env_sock *s = (struct env_sock *)((char *)d - offsetof(struct env_sock, end));
	s->fn(s, ENV_SOCK_IN, s->arg);
}

/* ---- making them ---- */

static void set_opt(int fd, int level, int name, int value)
{
	/* none of them decides over right or wrong: a kernel without one is fine */
	(void)setsockopt(fd, level, name, &value, sizeof(value));
}

static void set_tcp(int fd)
{
	set_opt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_opt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_opt(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S);
	set_opt(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S);
	set_opt(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_PROBES);
}

/* Wrap and register @fd; it is closed on failure. */
static int sock_new(struct env *e, int fd, uint32_t events, env_sock_fn fn, void *arg,
		    struct env_sock **ret)
{
	struct env_sock *s = calloc(1, sizeof(*s));
	if (!s) {
		close(fd);
		return -ENOMEM;
	}
	s->env = e;
	s->src = (struct ev_src){.fn = on_sock, .owner = s, .fd = fd};
	s->fn = fn;
	s->arg = arg;
	s->want_out = true;
	s->retry.fn = on_retry;
	s->end.fn = on_end;
	int r = src_add(env_l(e), &s->src, events | EPOLLET);
	if (r < 0) {
		close(fd);
		free(s);
		return r;
	}
	env_l(e)->nr_socks++;
	*ret = s;
	return 0;
}

/* A leftover socket goes; anything else that has the name stays, and bind() complains. */
static void unlink_stale(const struct net_addr *a)
{
	struct stat st;
	if (a->family == AF_UNIX && lstat(a->path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(a->path);
}

int sock_listen(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
		struct env_sock **ret)
{
	union addr u;
	socklen_t len;
	int r = addr_to(a, &u, &len);
	if (r < 0)
		return r;
	int fd = socket(a->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (a->family != AF_UNIX)
		set_opt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	int one = 1;
	if (a->family == AF_INET6)
		r = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	unlink_stale(a);
	if (r < 0 || bind(fd, &u.sa, len) < 0 || listen(fd, BACKLOG) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	r = sock_new(e, fd, EPOLLIN, fn, arg, ret);
	if (r == 0)
		(*ret)->listening = true;
	return r;
}

/* Network errors of a connection that came and went: the next one may be fine. */
static bool accept_again(int e)
{
	return e == EINTR || e == ECONNABORTED || e == EPROTO || e == ENETDOWN ||
	       e == ENOPROTOOPT || e == EHOSTDOWN || e == ENONET || e == EHOSTUNREACH ||
	       e == EOPNOTSUPP || e == ENETUNREACH || e == EPERM;
}

int sock_accept(struct env_sock *lst, env_sock_fn fn, void *arg, struct env_sock **ret,
		struct net_addr *peer)
{
	union addr u;
	socklen_t len;
	int fd, tries = 0;
	assert(lst->listening);
	do {
		len = sizeof(u);
		memset(&u, 0, sizeof(u));
		fd = accept4(lst->src.fd, &u.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} while (fd < 0 && accept_again(errno) && ++tries < BACKLOG);
	int r = fd < 0 ? -errno : 0;
	if (r == 0) {
		if (u.sa.sa_family != AF_UNIX)
			set_tcp(fd);
		r = sock_new(lst->env, fd, ALL_EVENTS, fn, arg, ret);
	}
	if (r < 0 && r != -EAGAIN) /* no edge will come for those that wait */
		env_linux_timer_set(lst->env, &lst->retry,
				    env_linux_now(lst->env) + ACCEPT_RETRY_NS);
	if (r == 0 && peer)
		addr_from(&u, len, peer);
	return r;
}

int sock_connect(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
		 struct env_sock **ret)
{
	union addr u;
	socklen_t len;
	int r = addr_to(a, &u, &len);
	if (r < 0)
		return r;
	int fd = socket(a->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (a->family != AF_UNIX)
		set_tcp(fd);
	/* EINTR: it goes on by itself, like EINPROGRESS */
	if (connect(fd, &u.sa, len) < 0 && errno != EINPROGRESS && errno != EINTR) {
		r = -errno;
		close(fd);
		return r;
	}
	r = sock_new(e, fd, ALL_EVENTS, fn, arg, ret);
	if (r == 0)
		(*ret)->connecting = true;
	return r;
}

/* ---- using them ---- */

static ssize_t recv_once(struct env_sock *s, const struct iovec *iov, int n)
{
	ssize_t r;
	do {
		if (n == 1) {
			r = recv(s->src.fd, iov->iov_base, iov->iov_len, 0);
		} else {
			struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
			r = recvmsg(s->src.fd, &m, 0);
		}
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static size_t iov_room(const struct iovec *iov, int n)
{
	size_t sum = 0;
	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

ssize_t sock_recv(struct env_sock *s, const struct iovec *iov, int n)
{
	assert(n > 0 && n <= IOV_MAX);
	ssize_t r = recv_once(s, iov, n);
	if (s->ending && r > 0 && (size_t)r < iov_room(iov, n))
		env_defer(s->env, &s->end);
	return r;
}

static ssize_t send_once(struct env_sock *s, const struct iovec *iov, int n)
{
	ssize_t r;
	do {
		if (n == 1) {
			r = send(s->src.fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
		} else {
			struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
			r = sendmsg(s->src.fd, &m, MSG_NOSIGNAL);
		}
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* A short count means that the kernel is full, and that ENV_SOCK_OUT comes. */
ssize_t sock_send(struct env_sock *s, const struct iovec *iov, int n)
{
	ssize_t sum = 0;
	assert(n > 0);
	while (n > 0) {
		int k = n < IOV_MAX ? n : IOV_MAX;
		size_t want = iov_room(iov, k);
		ssize_t r = send_once(s, iov, k);
		if (r == -EAGAIN || (r >= 0 && (size_t)r < want))
			s->want_out = true;
		if (r < 0)
			return sum ? sum : r;
		sum += r;
		if ((size_t)r < want)
			break;
		iov += k;
		n -= k;
	}
	return sum;
}

void sock_handler(struct env_sock *s, env_sock_fn fn, void *arg)
{
	s->fn = fn;
	s->arg = arg;
}

int sock_name(struct env_sock *s, struct net_addr *ret)
{
	union addr u;
	socklen_t len = sizeof(u);
	memset(&u, 0, sizeof(u));
	if (getsockname(s->src.fd, &u.sa, &len) < 0)
		return -errno;
	addr_from(&u, len, ret);
	return 0;
}

void sock_close(struct env_sock *s, bool reset)
{
	struct env_linux *l = env_l(s->env);
	int fd = s->src.fd;
	struct linger lg = {.l_onoff = 1, .l_linger = 0};
	if (reset)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
	env_linux_timer_del(s->env, &s->retry);
	env_defer_del(s->env, &s->end);
	l->nr_socks--;
	src_del(l, &s->src); /* frees it, now or at the end of the turn */
	close(fd);
}
