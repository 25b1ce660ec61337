/* floor.c - the least that any gateway-replicated store must do (DESIGN section 11): a client, a
 * gateway and two peers, as processes on 127.0.0.1; each write goes client -> gateway -> both
 * peers, each of the three writes the 4 KiB into a file of its own, and the gateway answers when
 * all three have.  No checks, no order of anything, no durability; one receive and one send per
 * batch.
 *
 *     floor [-d DEPTH] [-s SECONDS] [-D DIR]
 *
 * Without -d: depth 1 and depth 32.  DIR (default /dev/shm) should be in memory.  For each depth
 * one line for people and one for programs ("floor depth=... writes_per_s=... ").
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	BLOCK = 4096,
	BLOCKS = 16384, /* 64 MiB a file */
	DEPTH_MAX = 256,
	BUF = 2 << 20,
	SOCK_BUF = 4 << 20,
	PEERS = 2,
	WARM_UP_MS = 300,
	LATENCIES_MIN = 1 << 16,
};

struct head {
	uint32_t id, block;
};

struct msg {
	struct head h;
	uint8_t data[BLOCK];
};

/* A stream, received in batches. */
struct stream {
	int fd;
	size_t len;
	uint8_t *buf;
};

static const char *dir = "/dev/shm";

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- sockets ---- */

static int tune(int fd)
{
	int one = 1, size = SOCK_BUF;
	if (fd < 0)
		die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	return fd;
}

static int listener(struct sockaddr_in *a)
{
	socklen_t len = sizeof(*a);
	int fd = tune(socket(AF_INET, SOCK_STREAM, 0));
	*a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (bind(fd, (struct sockaddr *)a, len) < 0 || listen(fd, 1) < 0 ||
	    getsockname(fd, (struct sockaddr *)a, &len) < 0)
		die("listen");
	return fd;
}

static int connect_to(const struct sockaddr_in *a)
{
	int fd = tune(socket(AF_INET, SOCK_STREAM, 0));
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0)
		die("connect");
	return fd;
}

static struct stream stream_new(int fd)
{
	struct stream s = {.fd = fd, .buf = malloc(BUF)};
	if (!s.buf)
		die("malloc");
	return s;
}

/* Take what is there; 0 at the end of the stream. */
static int stream_fill(struct stream *s, int flags)
{
	ssize_t n = recv(s->fd, s->buf + s->len, BUF - s->len, flags);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n <= 0)
		return 0;
	s->len += (size_t)n;
	return 1;
}

static void stream_drop(struct stream *s, size_t n)
{
	memmove(s->buf, s->buf + n, s->len - n);
	s->len -= n;
}

static void send_all(int fd, const void *buf, size_t len)
{
	for (const uint8_t *p = buf; len;) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("send");
		p += n;
		len -= (size_t)n;
	}
}

/* ---- the store ---- */

static int store_open(void)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s/floor.%d", dir, getpid());
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		die(path);
	unlink(path);
	if (posix_fallocate(fd, 0, (off_t)BLOCKS * BLOCK))
		die("no space for the file");
	return fd;
}

static void store_write(int fd, const struct msg *m)
{
	if (pwrite(fd, m->data, BLOCK, (off_t)(m->h.block % BLOCKS) * BLOCK) != BLOCK)
		die("pwrite");
}

/* the peer: write, acknowledge */
static void peer(int lst)
{
	static struct head acks[BUF / sizeof(struct msg) + 1];
	struct stream in = stream_new(tune(accept(lst, NULL, NULL)));
	int file = store_open();
	while (stream_fill(&in, 0)) {
		size_t n = in.len / sizeof(struct msg);
		const struct msg *m = (const struct msg *)in.buf;
		for (size_t i = 0; i < n; i++) {
			store_write(file, &m[i]);
			acks[i] = m[i].h;
		}
		if (n)
			send_all(in.fd, acks, n * sizeof(*acks));
		stream_drop(&in, n * sizeof(*m));
	}
	exit(0);
}

/* the gateway: pass on, write, answer what all three have */
struct gateway {
	struct stream client, peers[PEERS];
	int file;
	/* streams keep their order: counts say which writes are complete */
	uint64_t local, acked[PEERS], answered;
	struct head heads[DEPTH_MAX * 2]; /* of writes in flight, by number */
};

static void gateway_client(struct gateway *g)
{
	size_t n = g->client.len / sizeof(struct msg);
	const struct msg *m = (const struct msg *)g->client.buf;
	if (!n)
		return;
	for (int p = 0; p < PEERS; p++)
		send_all(g->peers[p].fd, m, n * sizeof(*m));
	for (size_t i = 0; i < n; i++) {
		store_write(g->file, &m[i]);
		g->heads[g->local++ % (DEPTH_MAX * 2)] = m[i].h;
	}
	stream_drop(&g->client, n * sizeof(*m));
}

static void gateway_answer(struct gateway *g)
{
	struct head out[DEPTH_MAX * 2];
	size_t n = 0;
	uint64_t all = g->local;
	for (int p = 0; p < PEERS; p++)
		all = g->acked[p] < all ? g->acked[p] : all;
	while (g->answered < all)
		out[n++] = g->heads[g->answered++ % (DEPTH_MAX * 2)];
	if (n)
		send_all(g->client.fd, out, n * sizeof(*out));
}

static void watch(int ep, struct stream *s)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};
	if (epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &ev) < 0)
		die("epoll_ctl");
}

static void gateway(int lst, const struct sockaddr_in *addrs)
{
	static struct gateway g;
	int ep = epoll_create1(0);
	if (ep < 0)
		die("epoll_create1");
	for (int p = 0; p < PEERS; p++) {
		g.peers[p] = stream_new(connect_to(&addrs[p]));
		watch(ep, &g.peers[p]);
	}
	g.file = store_open();
	g.client = stream_new(tune(accept(lst, NULL, NULL)));
	watch(ep, &g.client);
	for (;;) {
		struct epoll_event ev[PEERS + 1];
		int n = epoll_wait(ep, ev, PEERS + 1, -1);
		for (int i = 0; i < n; i++) {
			struct stream *s = ev[i].data.ptr;
			if (!stream_fill(s, MSG_DONTWAIT))
				exit(0); /* the client is done */
			if (s == &g.client) {
				gateway_client(&g);
				continue;
			}
			size_t k = s->len / sizeof(struct head);
			g.acked[s - g.peers] += k;
			stream_drop(s, k * sizeof(struct head));
		}
		gateway_answer(&g);
	}
}

/* ---- the client: a closed loop ---- */

struct result {
	uint32_t *ns;
	size_t nr, max;
	double seconds;
};

static void result_add(struct result *r, uint64_t ns)
{
	if (r->nr == r->max) {
		r->max = r->max ? r->max * 2 : LATENCIES_MIN;
		r->ns = realloc(r->ns, r->max * sizeof(*r->ns));
		if (!r->ns)
			die("realloc");
	}
	r->ns[r->nr++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static uint32_t next_block(uint32_t *x)
{
	return (*x = *x * 1664525 + 1013904223) >> 8;
}

static void client(int fd, unsigned depth, double seconds, struct result *r)
{
	static uint64_t sent[DEPTH_MAX];
	struct stream in = stream_new(fd);
	struct msg *out = calloc(depth, sizeof(*out));
	uint32_t x = 2463534242u;
	if (!out)
		die("calloc");
	uint64_t begin = now_ns() + WARM_UP_MS * 1000000ull;
	uint64_t end = begin + (uint64_t)(seconds * 1e9), now = now_ns();
	for (unsigned i = 0; i < depth; i++) {
		out[i].h = (struct head){.id = i, .block = next_block(&x)};
		sent[i] = now;
	}
	send_all(fd, out, depth * sizeof(*out));
	while (now < end) {
		if (!stream_fill(&in, 0))
			die("the gateway is gone");
		size_t n = in.len / sizeof(struct head);
		const struct head *h = (const struct head *)in.buf;
		now = now_ns();
		for (size_t i = 0; i < n; i++) {
			uint32_t id = h[i].id;
			if (id >= depth)
				die("a wrong answer");
			if (now >= begin)
				result_add(r, now - sent[id]);
			sent[id] = now;
			out[i].h = (struct head){.id = id, .block = next_block(&x)};
		}
		stream_drop(&in, n * sizeof(*h));
		if (n && now < end)
			send_all(fd, out, n * sizeof(*out));
	}
	r->seconds = (double)(now - begin) / 1e9;
	free(out);
	free(in.buf);
}

static int by_size(const void *a, const void *b)
{
	return (*(const uint32_t *)a > *(const uint32_t *)b) -
	       (*(const uint32_t *)a < *(const uint32_t *)b);
}

static void report(struct result *r, unsigned depth)
{
	double sum = 0;
	if (!r->nr)
		die("no write came back");
	for (size_t i = 0; i < r->nr; i++)
		sum += r->ns[i];
	qsort(r->ns, r->nr, sizeof(*r->ns), by_size);
	double rate = (double)r->nr / r->seconds, mean = sum / (double)r->nr / 1e3;
	double p99 = r->ns[(size_t)((double)(r->nr - 1) * 0.99)] / 1e3;
	printf("depth %3u: %8.0f writes/s, mean %7.1f us, p99 %7.1f us\n", depth, rate, mean, p99);
	printf("floor depth=%u writes_per_s=%.0f mean_us=%.1f p99_us=%.1f\n", depth, rate, mean,
	       p99);
	fflush(stdout);
}

static void run(unsigned depth, double seconds)
{
	struct sockaddr_in addrs[PEERS + 1];
	int lst[PEERS + 1];
	struct result r = {0};
	for (int i = 0; i <= PEERS; i++)
		lst[i] = listener(&addrs[i]);
	for (int i = 0; i <= PEERS; i++) {
		pid_t pid = fork();
		if (pid < 0)
			die("fork");
		if (pid > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (i < PEERS)
			peer(lst[i]);
		else
			gateway(lst[i], addrs);
	}
	int fd = connect_to(&addrs[PEERS]);
	for (int i = 0; i <= PEERS; i++)
		close(lst[i]);
	client(fd, depth, seconds, &r);
	close(fd);
	for (int i = 0; i <= PEERS; i++)
		wait(NULL);
	report(&r, depth);
	free(r.ns);
}

int main(int argc, char **argv)
{
	unsigned long depth = 0;
	double seconds = 3;
	int c, bad = 0;
	while ((c = getopt(argc, argv, "d:s:D:")) != -1) {
		switch (c) {
		case 'd':
			depth = strtoul(optarg, NULL, 10);
			bad |= depth < 1 || depth > DEPTH_MAX;
			break;
		case 's': seconds = strtod(optarg, NULL); break;
		case 'D': dir = optarg; break;
		default: bad = 1; break;
		}
	}
	if (bad || optind != argc || !(seconds > 0 && seconds <= 3600)) {
		fprintf(stderr, "usage: floor [-d DEPTH (1..%d)] [-s SECONDS] [-D DIR]\n",
			DEPTH_MAX);
		return 1;
	}
	run(depth ? (unsigned)depth : 1, seconds);
	if (!depth)
		run(32, seconds);
	return 0;
}
