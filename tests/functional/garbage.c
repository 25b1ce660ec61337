/* garbage - connections that talk nonsense to a daemon (tests/functional/garbage.sh).
 *
 *   garbage [-n CONNECTIONS] [-s SECONDS] [-r SEED] PORT
 *
 * Each connection (64) plays one of the roles below, on 127.0.0.1, again and again for SECONDS (5):
 * what the daemon closes is opened anew, playing the next role.  Prints for each role how often it
 * began, the bytes it sent and received, and how often the daemon ended it.  None of what is sent
 * can change the cluster: no operation that would is among it, not even by chance.  Exit 1 when a
 * connection could not be made.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/util.h"
#include "lib/proto/peer.h"
#include "sheepdog/proto.h"

enum role {
	NOISE,	    /* random bytes */
	ABSURD,	    /* headers that announce absurd lengths */
	HALF,	    /* a part of a header, then silence */
	SHORT_DATA, /* a payload that ends early */
	DISORDER,   /* good headers in an order that makes no sense */
	DEAF,	    /* asks for much and reads nothing */
	HASTY,	    /* asks and leaves at once */
	FAKE_PEER,  /* the protocol between daemons, badly */
	NR_ROLES
};

static const char *const role_name[NR_ROLES] = {"noise",    "absurd", "half",  "short",
						"disorder", "deaf",   "hasty", "peer"};

enum { CONNS_MAX = 256, CHUNK = 16384, TURN_MS = 5 };

struct conn {
	int fd;
	enum role role;
	unsigned step;
	uint8_t out[CHUNK];
	size_t len, sent;
	uint64_t until; /* ms: leaves by itself */
};

static struct {
	unsigned began, ended;
	uint64_t tx, rx;
} stat_of[NR_ROLES];
static uint64_t seed = 1;
static struct sockaddr_in daemon_addr = {.sin_family = AF_INET};

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % n;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Random bytes, without the version that administration needs: they may be taken for headers. */
static void noise(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		p[i] = (uint8_t)rnd(256);
		if (p[i] == SD_INTERNAL_PROTO_VER)
			p[i] = 0xff;
		/* nor a version of public operations, with which a volume could be made or deleted
		 */
		if (p[i] <= SD_PROTO_VER)
			p[i] = 0xfe;
	}
}

static void put(struct conn *c, const void *p, size_t n)
{
	if (c->len + n > sizeof(c->out))
		n = sizeof(c->out) - c->len;
	memcpy(c->out + c->len, p, n);
	c->len += n;
}

static void put_req(struct conn *c, uint8_t op, uint16_t flags, uint32_t len)
{
	struct sd_req req = {.opcode = op, .flags = flags, .data_length = len, .id = rnd(4)};

	req.proto_ver = op < 0x80 ? (uint8_t)rnd(3) : SD_INTERNAL_PROTO_VER;
	req.obj.oid = SD_DATA_OID(0xfffff0 + rnd(8), rnd(1u << 20)); /* no such volume */
	req.obj.offset = rnd(2) ? rnd(1u << 22) : UINT32_MAX - rnd(4096);
	put(c, &req, sizeof(req));
}

static void say_disorder(struct conn *c)
{
	static const uint8_t ops[] = {
		SD_OP_READ_OBJ,
		SD_OP_WRITE_OBJ,
		SD_OP_CREATE_AND_WRITE_OBJ,
		SD_OP_FLUSH_VDI,
		SD_OP_GET_VDI_INFO,
		SD_OP_RELEASE_VDI,
		SD_OP_GET_NODE_LIST,
		SD_OP_STAT_CLUSTER,
		SD_OP_GET_EPOCH,
		SD_OP_GET_OBJ_LIST,
		SD_OP_OIDS_EXIST,
		SD_OP_EXIST,
		SD_OP_READ_PEER,
		SD_OP_WRITE_PEER,
		SD_OP_GET_HASH,
		SD_OP_CLIENT_HELLO,
		SD_OP_READ_DEL_VDIS,
		SD_OP_MD_INFO,
		0x00,
		0x3f,
		0xff,
	};
	uint8_t data[600];
	uint8_t op = ops[rnd(sizeof(ops))];
	uint32_t len = rnd(sizeof(data));
	uint16_t flags = (uint16_t)(rnd(0x800) & ~(uint32_t)SD_FLAG_WRITE);

	if (rnd(2)) {
		put_req(c, op, flags | SD_FLAG_WRITE, len);
		noise(data, sizeof(data));
		put(c, data, len);
	} else {
		put_req(c, op, flags, len);
	}
}

static void say_peer(struct conn *c)
{
	struct peer_hello hello = {.version = c->step % 3, .channel = rnd(5)};
	struct peer_hdr hdr = {.magic = rnd(2) ? PEER_MAGIC : 0, .op = (uint16_t)rnd(20)};
	uint32_t len = c->step % 2 ? (uint32_t)sizeof(hello) : rnd(100);

	put_req(c, SD_OP_PEER_HELLO, SD_FLAG_WRITE, len);
	noise(hello.from_uuid, sizeof(hello.from_uuid));
	noise(hello.to_uuid, sizeof(hello.to_uuid));
	put(c, &hello, len < sizeof(hello) ? len : sizeof(hello));
	hdr.data_len = hdr.crc_nr = UINT32_MAX - rnd(10);
	put(c, &hdr, sizeof(hdr));
}

/* What the role says next. */
static void say(struct conn *c)
{
	c->len = c->sent = 0;
	switch (c->role) {
	case NOISE:
		c->len = 1 + rnd(CHUNK);
		noise(c->out, c->len);
		break;
	case ABSURD:
		put_req(c, c->step % 2 ? SD_OP_WRITE_OBJ : SD_OP_READ_OBJ,
			(uint16_t)(rnd(2) ? SD_FLAG_WRITE : 0), UINT32_MAX - rnd(1u << rnd(31)));
		put_req(c, SD_OP_CREATE_AND_WRITE_OBJ, SD_FLAG_WRITE, (1u << 31) - rnd(3));
		break;
	case HALF:
		if (!c->step) {
			put_req(c, SD_OP_READ_OBJ, 0, 512);
			c->len = 1 + rnd(sizeof(struct sd_req) - 1);
		}
		break;
	case SHORT_DATA:
		if (!c->step) {
			put_req(c, SD_OP_WRITE_OBJ, SD_FLAG_WRITE, 1u << (12 + rnd(11)));
			noise(c->out + c->len, 1000);
			c->len += 1000;
		}
		break;
	case DISORDER:
		for (unsigned i = 0; i < 8; i++)
			say_disorder(c);
		break;
	case DEAF:
		for (unsigned i = 0; i < 16; i++)
			put_req(c, rnd(2) ? SD_OP_READ_VDIS : SD_OP_READ_DEL_VDIS, 0,
				SD_NR_VDIS / 8);
		break;
	case HASTY: put_req(c, SD_OP_READ_VDIS, 0, SD_NR_VDIS / 8); break;
	case FAKE_PEER: say_peer(c); break;
	case NR_ROLES: break;
	}
	c->step++;
}

static int conn_open(struct conn *c, enum role role)
{
	*c = (struct conn){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .role = role};
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&daemon_addr, sizeof(daemon_addr)) < 0) {
		fprintf(stderr, "garbage: connect: %s\n", strerror(errno));
		return -1;
	}
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	c->until = now_ms() + 50 + rnd(role == HASTY ? 1 : 2000);
	stat_of[role].began++;
	return 0;
}

/* False: the daemon has ended it. */
static bool conn_turn(struct conn *c)
{
	uint8_t buf[CHUNK];
	ssize_t n = 1;

	while (c->role != DEAF && n > 0) {
		n = recv(c->fd, buf, sizeof(buf), 0);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return false;
		if (n > 0)
			stat_of[c->role].rx += (uint64_t)n;
	}
	for (unsigned i = 0; i < 4; i++) {
		if (c->sent == c->len)
			say(c);
		if (!c->len)
			return true;
		n = send(c->fd, c->out + c->sent, c->len - c->sent, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN;
		c->sent += (size_t)n;
		stat_of[c->role].tx += (uint64_t)n;
	}
	return true;
}

static int run(struct conn *conns, unsigned nr, unsigned seconds)
{
	uint64_t end = now_ms() + seconds * 1000ull;

	for (unsigned i = 0; i < nr; i++)
		if (conn_open(&conns[i], (enum role)(i % NR_ROLES)) < 0)
			return 1;
	while (now_ms() < end) {
		for (unsigned i = 0; i < nr; i++) {
			struct conn *c = &conns[i];
			bool alive = conn_turn(c);
			if (alive && now_ms() < c->until)
				continue;
			stat_of[c->role].ended += !alive;
			if (rnd(2)) { /* with a reset */
				struct linger lg = {.l_onoff = 1};
				setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
			}
			close(c->fd);
			if (conn_open(c, (enum role)((c->role + 1) % NR_ROLES)) < 0)
				return 1;
		}
		poll(NULL, 0, TURN_MS);
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t nr = 64, seconds = 5, port = 0;
	int o;

	while ((o = getopt(argc, argv, "n:s:r:")) != -1) {
		if ((o == 'n' && !parse_u64(optarg, 1, CONNS_MAX, &nr)) ||
		    (o == 's' && !parse_u64(optarg, 1, 3600, &seconds)) ||
		    (o == 'r' && !parse_u64(optarg, 0, UINT64_MAX, &seed)))
			continue;
		return 64;
	}
	if (optind + 1 != argc || parse_u64(argv[optind], 1, 65535, &port) < 0)
		return 64;
	daemon_addr.sin_port = htons((uint16_t)port);
	daemon_addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	struct conn *conns = calloc(nr, sizeof(*conns));
	if (!conns)
		return 1;
	int r = run(conns, (unsigned)nr, (unsigned)seconds);
	for (unsigned i = 0; i < NR_ROLES; i++)
		printf("%-9s %6u connections, %6u ended by the daemon, %10llu bytes out, %10llu "
		       "in\n",
		       role_name[i], stat_of[i].began, stat_of[i].ended,
		       (unsigned long long)stat_of[i].tx, (unsigned long long)stat_of[i].rx);
	free(conns);
	return r;
}
