/* test_env_sock.c - the network door: IPv4, IPv6, unix; half close, reset, close in a callback. */
#include "tests/unit/env_common.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT_FIRST = 31000 };

struct conn {
	struct env_sock *s;
	unsigned events, calls;
	char got[256];
	size_t nr_got;
	uint64_t bytes;
	bool eof, reset, done, close_me;
	struct conn *close_other;
	int error;
};

static struct conn server; /* the accepted one */
static struct conn client;
static struct env_sock *listener;
static bool net_in_call;
static int accept_result;

static void on_conn(struct env_sock *s, unsigned events, void *arg)
{
	struct conn *c = arg;
	char buf[65536];
	struct iovec iov[2] = {{buf, 10}, {buf + 10, sizeof(buf) - 10}};
	assert_false(net_in_call);
	assert_ptr_equal(c->s, s);
	c->events |= events;
	c->calls++;
	for (;;) {
		ssize_t n = env_recv(s, iov, 2);
		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			c->eof = n == 0;
			c->reset = n == -ECONNRESET;
			break;
		}
		size_t k = sizeof(c->got) - 1 - c->nr_got;
		k = (size_t)n < k ? (size_t)n : k;
		memcpy(c->got + c->nr_got, buf, k);
		c->nr_got += k;
		c->bytes += (uint64_t)n;
	}
	c->done = true;
	if (c->close_other && c->close_other->s) {
		env_sock_close(c->close_other->s, false);
		c->close_other->s = NULL;
	}
	if (c->close_me) {
		env_sock_close(s, false);
		c->s = NULL;
	}
}

static void on_accept(struct env_sock *l, unsigned events, void *arg)
{
	struct net_addr peer;
	assert_false(net_in_call);
	assert_true(events & ENV_SOCK_IN);
	if (!server.s) {
		net_in_call = true;
		accept_result = env_accept(l, on_conn, &server, &server.s, &peer);
		net_in_call = false;
	}
	server.done = accept_result == 0;
}

static struct net_addr addr4(uint16_t port)
{
	struct net_addr a = {.family = AF_INET, .port = port};
	a.ip[12] = 127;
	a.ip[15] = 1;
	return a;
}

static struct net_addr listen_on(struct net_addr a)
{
	assert_int_equal(env_listen(env, &a, on_accept, NULL, &listener), 0);
	assert_int_equal(env_sock_name(listener, &a), 0);
	return a;
}

static void connect_pair(struct net_addr a)
{
	memset(&server, 0, sizeof(server));
	memset(&client, 0, sizeof(client));
	a = listen_on(a);
	net_in_call = true;
	assert_int_equal(env_connect(env, &a, on_conn, &client, &client.s), 0);
	net_in_call = false;
	assert_true(turn_until(&client.done, 2000));
	assert_true(turn_until(&server.done, 2000));
	assert_int_equal(accept_result, 0);
	assert_true(client.events & ENV_SOCK_OUT);
	assert_false(client.events & ENV_SOCK_HUP);
	turns(5);
	client.done = server.done = false;
	client.events = server.events = client.calls = server.calls = 0;
}

static void close_pair(void)
{
	env_sock_close(server.s, false);
	env_sock_close(client.s, false);
	env_sock_close(listener, false);
	env_sock_close(NULL, true);
	server.s = client.s = listener = NULL;
}

static void say(struct env_sock *s, const char *text)
{
	struct iovec iov[2] = {{(char *)text, 1}, {(char *)text + 1, strlen(text) - 1}};
	assert_int_equal(env_send(s, iov, 2), strlen(text));
}

static void exchange(void)
{
	say(client.s, "hello");
	assert_false(server.done);
	assert_true(turn_until(&server.done, 2000));
	assert_string_equal(server.got, "hello");
	assert_int_equal(server.events, ENV_SOCK_IN | (server.events & ENV_SOCK_OUT));
	say(server.s, "world");
	assert_true(turn_until(&client.done, 2000));
	assert_string_equal(client.got, "world");
}

static int fd_of(struct env_sock *s)
{
	/* found by its name: the handle is opaque */
	struct net_addr a, b;
	assert_int_equal(env_sock_name(s, &a), 0);
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_storage ss;
		struct sockaddr_in *in = (struct sockaddr_in *)&ss;
		socklen_t len = sizeof(ss);
		int lst = 0;
		socklen_t l2 = sizeof(lst);
		if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0 || ss.ss_family != AF_INET ||
		    a.family != AF_INET)
			continue;
		b = addr4(ntohs(in->sin_port));
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &lst, &l2);
		if (b.port == a.port && !lst)
			return fd;
	}
	return -1;
}

static void tcp4(void **state)
{
	connect_pair(addr4(0));
	exchange();
	struct net_addr a;
	assert_int_equal(env_sock_name(client.s, &a), 0);
	assert_true(a.port != 0);
	assert_int_equal(a.ip[12], 127);
	close_pair();
	/* a fixed port, twice in a row (TIME_WAIT), and in use */
	for (int i = 0; i < 2; i++) {
		struct env_sock *second;
		a = addr4(PORT_FIRST);
		connect_pair(a);
		exchange();
		assert_int_equal(env_listen(env, &a, on_accept, NULL, &second), -EADDRINUSE);
		close_pair();
	}
}

static void tcp6(void **state)
{
	struct net_addr a = {.family = AF_INET6, .ip = {[15] = 1}};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd < 0) {
		print_message("no IPv6 here\n");
		skip();
	}
	close(fd);
	connect_pair(a);
	exchange();
	close_pair();
	/* v6 only: the same port on all v4 addresses stays free */
	struct net_addr any = {.family = AF_INET6, .port = PORT_FIRST + 1};
	struct env_sock *v6, *v4;
	assert_int_equal(env_listen(env, &any, on_accept, NULL, &v6), 0);
	any.family = AF_INET;
	assert_int_equal(env_listen(env, &any, on_accept, NULL, &v4), 0);
	env_sock_close(v6, false);
	env_sock_close(v4, false);
}

static void unix_socket(void **state)
{
	struct net_addr a = {.family = AF_UNIX}, b;
	struct env_sock *s;
	snprintf(a.path, sizeof(a.path), "/tmp/test_env.%d", getpid());
	connect_pair(a);
	exchange();
	assert_int_equal(env_sock_name(listener, &b), 0);
	assert_string_equal(a.path, b.path);
	close_pair();
	assert_int_equal(env_connect(env, &a, on_conn, &client, &s), -ECONNREFUSED);
	connect_pair(a); /* the leftover is replaced */
	close_pair();
	assert_int_equal(unlink(a.path), 0);
	/* anything but a socket is not */
	int fd = open(a.path, O_CREAT | O_RDWR, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(env_listen(env, &a, on_accept, NULL, &s), -EADDRINUSE);
	assert_int_equal(unlink(a.path), 0);
	memset(a.path, 'x', sizeof(a.path));
	assert_int_equal(env_listen(env, &a, on_accept, NULL, &s), -ENAMETOOLONG);
}

static void half_close(void **state)
{
	connect_pair(addr4(0));
	say(client.s, "last");
	int fd = fd_of(client.s);
	assert_true(fd >= 0);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_true(turn_until(&server.eof, 2000));
	assert_string_equal(server.got, "last"); /* before the end */
	assert_false(server.events & ENV_SOCK_HUP);
	say(server.s, "answer");
	client.done = false;
	assert_true(turn_until(&client.done, 2000));
	assert_string_equal(client.got, "answer");
	close_pair();
}

/* One receive a callback, as the data path does it: the end is told all the same. */
static void on_lazy(struct env_sock *s, unsigned events, void *arg)
{
	struct conn *c = arg;
	char buf[64];
	struct iovec iov = {buf, sizeof(buf)};
	ssize_t n = env_recv(s, &iov, 1);
	c->calls++;
	c->bytes += n > 0 ? (uint64_t)n : 0;
	c->eof = n == 0;
	c->reset = n == -ECONNRESET;
}

static void short_receive(void **state)
{
	struct net_addr u = {.family = AF_UNIX}, a[] = {addr4(0), addr4(0), u, u};
	snprintf(a[2].path, sizeof(a[2].path), "/tmp/test_env.%d", getpid());
	a[3] = a[2];
	for (int i = 0; i < 4; i++) {
		connect_pair(a[i]);
		env_sock_handler(server.s, on_lazy, &server);
		say(client.s, "last");
		env_sock_close(client.s, i % 2); /* the end is there with the data */
		client.s = NULL;
		bool *end = i == 1 ? &server.reset : &server.eof;
		assert_true(turn_until(end, 1000));
		if (i != 1)
			assert_int_equal(server.bytes, 4);
		unsigned calls = server.calls;
		turns(20);
		assert_int_equal(server.calls, calls); /* and not over and over */
		close_pair();
	}
	/* closed while that callback is on its way */
	connect_pair(addr4(0));
	server.close_me = true;
	say(client.s, "last");
	env_sock_close(client.s, false);
	client.s = NULL;
	assert_true(turn_until(&server.done, 1000));
	assert_null(server.s);
	turns(5);
	close_pair();
	unlink(a[2].path);
}

static void resets(void **state)
{
	connect_pair(addr4(0));
	env_sock_close(client.s, true);
	client.s = NULL;
	assert_true(turn_until(&server.reset, 2000));
	assert_true(server.events & ENV_SOCK_HUP);
	struct iovec iov = {(char *)"x", 1};
	assert_int_equal(env_send(server.s, &iov, 1), -EPIPE); /* and no SIGPIPE */
	close_pair();

	/* nobody listens */
	struct net_addr a = listen_on(addr4(0));
	env_sock_close(listener, false);
	listener = NULL;
	memset(&client, 0, sizeof(client));
	int r = env_connect(env, &a, on_conn, &client, &client.s);
	if (r == 0) {
		assert_true(turn_until(&client.done, 2000));
		assert_int_equal(client.events, ENV_SOCK_HUP);
		assert_int_equal(env_sock_error(client.s), -ECONNREFUSED);
		assert_int_equal(env_sock_error(client.s), -ECONNREFUSED); /* still */
		env_sock_close(client.s, false);
		client.s = NULL;
	} else {
		assert_int_equal(r, -ECONNREFUSED);
	}
}

/* Closing in a callback: oneself, and another socket whose event is in the same batch. */
static void close_in_callback(void **state)
{
	connect_pair(addr4(0));
	server.close_me = true;
	say(client.s, "x");
	assert_true(turn_until(&server.done, 2000));
	assert_null(server.s);
	assert_true(turn_until(&client.eof, 2000));
	close_pair();

	connect_pair(addr4(0));
	server.close_other = &client;
	client.close_other = &server;
	say(client.s, "x");
	say(server.s, "y");
	usleep(2000); /* both are readable now: one epoll batch */
	env_linux_turn(env, 100);
	assert_true((server.s == NULL) != (client.s == NULL));
	assert_int_equal(server.calls + client.calls, 1);
	turns(5);
	close_pair();
}

static unsigned other_calls;

static void on_other(struct env_sock *s, unsigned events, void *arg)
{
	other_calls++;
	assert_ptr_equal(arg, &other_calls);
}

static void handler(void **state)
{
	connect_pair(addr4(0));
	other_calls = 0;
	env_sock_handler(server.s, on_other, &other_calls);
	say(client.s, "x");
	turns(20);
	assert_true(other_calls > 0);
	assert_int_equal(server.calls, 0);
	close_pair();
}

/* A full socket says -EAGAIN, and ENV_SOCK_OUT comes when there is room; an idle one is quiet. */
static void back_pressure(void **state)
{
	char *buf = calloc(1, 1 << 20);
	connect_pair(addr4(0));
	env_sock_handler(server.s, on_other, &other_calls); /* reads nothing */
	uint64_t sent = 0;
	ssize_t n;
	struct iovec iov = {buf, 1 << 20};
	for (int i = 0; i < 1000 && (n = env_send(client.s, &iov, 1)) > 0; i++)
		sent += (uint64_t)n;
	assert_int_equal(n, -EAGAIN);
	turns(20);
	assert_false(client.events & ENV_SOCK_OUT);
	env_sock_handler(server.s, on_conn, &server);
	net_in_call = false;
	on_conn(server.s, ENV_SOCK_IN, &server); /* events may have been missed */
	bool out = false;
	for (int i = 0; i < 200 && !out; i++) {
		env_linux_turn(env, 10);
		out = client.events & ENV_SOCK_OUT;
	}
	assert_true(out);
	for (int i = 0; i < 200 && server.bytes < sent; i++)
		env_linux_turn(env, 10);
	assert_int_equal(server.bytes, sent);

	/* data for us must not look like room for them */
	client.events = 0;
	say(server.s, "quiet");
	turns(20);
	assert_int_equal(client.events, ENV_SOCK_IN);

	/* more buffers than the kernel takes */
	enum { N = 2500 };
	struct iovec *v = calloc(N, sizeof(*v));
	for (int i = 0; i < N; i++)
		v[i] = (struct iovec){buf, 4};
	assert_int_equal(env_send(client.s, v, N), 4 * N);
	free(v);
	close_pair();
	free(buf);
}

/* Out of descriptors: the connection waits, and is taken once there is one again. */
static void no_descriptors(void **state)
{
	struct rlimit old, now;
	memset(&server, 0, sizeof(server));
	memset(&client, 0, sizeof(client));
	struct net_addr a = listen_on(addr4(0));
	assert_int_equal(env_connect(env, &a, on_conn, &client, &client.s), 0);
	int top = dup(0);
	assert_true(top > 0);
	close(top);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	now = old;
	now.rlim_cur = (rlim_t)top;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	struct env_sock *s;
	assert_int_equal(env_connect(env, &a, on_conn, &client, &s), -EMFILE);
	turns(50);
	assert_int_equal(accept_result, -EMFILE);
	assert_null(server.s);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	/* valgrind plays the limit itself, and drops what was accepted above it */
	if (!getenv("SHEEP_VALGRIND")) {
		assert_true(turn_until(&server.done, 1000));
		assert_non_null(server.s);
	}
	close_pair();
}

/* A readable socket makes the epoll fd readable. */
static void nested_sock(void **state)
{
	connect_pair(addr4(0));
	while (readable(5))
		env_linux_turn(env, 0);
	say(client.s, "x");
	assert_true(readable(2000));
	server.done = false;
	env_linux_turn(env, 0);
	assert_true(server.done);
	close_pair();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(tcp4),	  T(tcp6),	     T(unix_socket),	   T(half_close),
		T(short_receive), T(resets),	     T(close_in_callback), T(handler),
		T(back_pressure), T(no_descriptors), T(nested_sock),
	};
	return cmocka_run_group_tests_name("env_sock", tests, NULL, NULL);
}
