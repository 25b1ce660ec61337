/* history_client.c - one client: the real libsheepdog, random overlapping work on few places of its
 * volumes, everything it did and saw appended to its history file (history.h) first or at once.
 *
 *   historian client GATEWAYS FILE NUMBER SEED VOLUME[:c][:d] ...
 *
 * :c writes with the cache flag, :d discards too (only where no other client writes: sheepdog.h).
 * SIGTERM: finish what is in flight, make FILE.idle, wait for SIGUSR1, read everything once more,
 * end with 0.
 * An error, or data that nobody can have written: a line on stderr, and 1.
 */
#include "config.h"

#include "include/sheepdog/sheepdog.h"
#include "tests/functional/history.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 8u
#define OP_MAX	  512u /* sectors */
#define MS	  1000000ull
#define IDLE	  1000u
#define OPEN_NS	  (60000u * MS) /* all faults of a round together take less */

struct vol {
	struct sd_vdi *v;
	struct vol_rec rec;
	bool cached, discards;
};

struct op {
	struct client *c;
	uint8_t *buf;
	uint8_t vol, kind;
	bool busy, discard;
	uint32_t op, first, nr;
	uint64_t value;
};

struct client {
	struct sd_cluster *sd;
	struct vol vol[VOLS_MAX];
	unsigned nr_vols, depth, in_flight, writes;
	const char *path;
	int fd;
	uint32_t number, next_op;
	uint64_t rnd, next_value, mood_until, next_at;
	struct op op[DEPTH_MAX];
	int err;
};

static volatile sig_atomic_t stop, final;

static void on_signal(int sig)
{
	if (sig == SIGTERM)
		stop = 1;
	else
		final = 1;
}

static uint64_t rnd(struct client *c, uint64_t n)
{
	c->rnd ^= c->rnd << 13;
	c->rnd ^= c->rnd >> 7;
	c->rnd ^= c->rnd << 17;
	return (c->rnd >> 11) % n;
}

static void record(struct client *c, const struct rec *r, const void *more, size_t len)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)r, sizeof(*r)}, {(void *)(uintptr_t)more, len}};
	ssize_t n = writev(c->fd, iov, len ? 2 : 1);

	if (n != (ssize_t)(sizeof(*r) + len)) {
		perror("history: cannot record");
		exit(1);
	}
}

static struct rec rec_of(const struct op *op, int kind)
{
	return (struct rec){.magic = REC_MAGIC,
			    .kind = (uint8_t)kind,
			    .vol = op->vol,
			    .cached = op->c->vol[op->vol].cached,
			    .op = op->op,
			    .first = op->first,
			    .nr = op->nr,
			    .value = op->value,
			    .time = history_now()};
}

/* What a sector holds: its value and, so that one in a wrong place is found, where it belongs. */
static void stamp(struct op *op)
{
	for (uint32_t i = 0; i < op->nr; i++)
		for (unsigned k = 0; k < SECTOR; k += 16) {
			uint64_t w[2] = {op->value, op->first + i};
			memcpy(op->buf + i * SECTOR + k, w, sizeof(w));
		}
}

static void bad(struct op *op, uint32_t sector, const char *what, uint64_t a, uint64_t b)
{
	fprintf(stderr,
		"history: client %u: %s sector %u: %s (%" PRIx64 " %" PRIx64 ") in operation %u\n",
		op->c->number, op->c->vol[op->vol].rec.name, sector, what, a, b, op->op);
	op->c->err = 1;
}

/* The value of one sector. */
static uint64_t value_of(struct op *op, uint32_t i)
{
	uint64_t first[2], w[2];
	const uint8_t *p = op->buf + i * SECTOR;

	memcpy(first, p, sizeof(first));
	for (unsigned k = 16; k < SECTOR; k += 16) {
		memcpy(w, p + k, sizeof(w));
		if (memcmp(w, first, sizeof(w))) {
			bad(op, op->first + i, "torn inside", w[0], w[1]);
			return 0;
		}
	}
	if (first[1] != (first[0] ? op->first + i : 0))
		bad(op, op->first + i, "holds what belongs elsewhere", first[0], first[1]);
	return first[0];
}

static void op_done(void *arg, int err)
{
	struct op *op = arg;
	struct client *c = op->c;
	struct run runs[OP_MAX];
	struct rec r = rec_of(op, err ? REC_ERROR : REC_END);

	op->busy = false;
	c->in_flight--;
	r.nr = 0;
	for (uint32_t i = 0; !err && op->kind == REC_READ && i < op->nr; i++) {
		uint64_t v = value_of(op, i);
		if (r.nr && runs[r.nr - 1].value == v)
			runs[r.nr - 1].nr++;
		else
			runs[r.nr++] = (struct run){op->first + i, 1, v};
	}
	record(c, &r, runs, r.nr * sizeof(runs[0]));
	if (err) {
		fprintf(stderr, "history: client %u: operation %u (kind %u, %s %u+%u): %s\n",
			c->number, op->op, op->kind, c->vol[op->vol].rec.name, op->first, op->nr,
			sd_strerror(err));
		c->err = 1;
	}
}

static void op_start(struct op *op)
{
	struct client *c = op->c;
	struct sd_vdi *v = c->vol[op->vol].v;
	uint64_t off = (uint64_t)op->first * SECTOR, len = (uint64_t)op->nr * SECTOR;
	struct iovec iov = {op->buf, len};
	int e;

	op->op = c->next_op++;
	op->value = op->kind == REC_WRITE ? (uint64_t)c->number << 32 | ++c->next_value : 0;
	op->busy = true;
	c->in_flight++;
	struct rec r = rec_of(op, op->kind);
	record(c, &r, NULL, 0);
	switch (op->kind) {
	case REC_READ:
		memset(op->buf, 0xee, len);
		e = sd_readv_async(v, &iov, 1, off, op_done, op);
		break;
	case REC_WRITE:
		stamp(op);
		e = sd_writev_async(v, &iov, 1, off, op_done, op);
		break;
	case REC_FLUSH: e = sd_flush_async(v, op_done, op); break;
	default:
		e = op->discard ? sd_discard_async(v, len, off, op_done, op)
				: sd_write_zeroes_async(v, len, off, op_done, op);
	}
	if (e)
		op_done(op, e);
}

/* A range to work on: mostly small and in the first blocks of an object, sometimes large (an intent
 * in the store), sometimes across the border of two objects. */
static void draw_range(struct client *c, struct op *op)
{
	const struct vol_rec *vr = &c->vol[op->vol].rec;
	uint32_t obj = (uint32_t)rnd(c, vr->nr_obj) * vr->per_obj;
	unsigned dice = (unsigned)rnd(c, 100);

	if (dice < 40) { /* a page */
		op->first = obj + (uint32_t)rnd(c, 4) * 8;
		op->nr = 8;
	} else if (dice < 60) { /* a part of one, or over its border */
		op->nr = 1 + (uint32_t)rnd(c, 12);
		op->first = obj + (uint32_t)rnd(c, 48);
	} else if (dice < 75) {
		op->nr = 8 + (uint32_t)rnd(c, 120);
		op->first = obj + (uint32_t)rnd(c, USED_FIRST - op->nr + 1);
	} else if (dice < 85) { /* 64 KiB or more */
		op->nr = 128 + (uint32_t)rnd(c, USED_FIRST - 128 + 1);
		op->first = obj + (uint32_t)rnd(c, USED_FIRST - op->nr + 1);
	} else if (obj + vr->per_obj < vr->nr_obj * vr->per_obj) {
		uint32_t before = 1 + (uint32_t)rnd(c, USED_LAST);
		op->first = obj + vr->per_obj - before;
		op->nr = before + 1 + (uint32_t)rnd(c, dice < 97 ? 16 : USED_FIRST);
	} else {
		op->first = obj + vr->per_obj - USED_LAST;
		op->nr = USED_LAST;
	}
}

static void op_random(struct client *c, struct op *op)
{
	unsigned dice;

	op->vol = (uint8_t)rnd(c, c->nr_vols);
	op->discard = false;
	draw_range(c, op);
	dice = (unsigned)rnd(c, 100);
	if (dice < c->writes) {
		op->kind = rnd(c, 40) ? REC_WRITE : REC_ZERO;
	} else if (dice < 95) {
		op->kind = REC_READ;
	} else if (dice < 98 || !c->vol[op->vol].discards) {
		op->kind = REC_FLUSH;
	} else {
		op->kind = REC_ZERO;
		op->discard = true;
		op->nr = c->vol[op->vol].rec.per_obj;
		op->first = op->first / op->nr * op->nr;
	}
	op_start(op);
}

static struct op *free_op(struct client *c)
{
	for (unsigned i = 0; i < c->depth; i++)
		if (!c->op[i].busy)
			return &c->op[i];
	return NULL;
}

/* What a dead owner left different on its replicas is seen only while nobody writes. */
static void change_mood(struct client *c, uint64_t now)
{
	static const unsigned moods[] = {0, 5, 45, 45, 90, IDLE};

	if (now < c->mood_until)
		return;
	c->writes = moods[rnd(c, 6)];
	c->depth = 1 + (unsigned)rnd(c, DEPTH_MAX);
	c->mood_until = now + 5 * MS + rnd(c, 400 * MS);
}

/* Until something can be dispatched, or @until. */
static void turn(struct client *c, uint64_t until)
{
	struct pollfd p = {.fd = sd_cluster_fd(c->sd), .events = POLLIN};
	uint64_t now = history_now(), ns = until > now ? until - now : 0;
	struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	ppoll(&p, 1, &ts, NULL);
	sd_dispatch(c->sd);
}

static void work(struct client *c)
{
	while (!stop && !c->err) {
		uint64_t now = history_now();
		change_mood(c, now);
		struct op *op = c->writes == IDLE || now < c->next_at ? NULL : free_op(c);
		if (op) {
			op_random(c, op);
			c->next_at = now + rnd(c, 2 * MS);
		}
		turn(c, c->writes != IDLE && free_op(c) ? c->next_at : now + 5 * MS);
	}
	while (c->in_flight)
		turn(c, history_now() + 50 * MS);
}

/* Everything that may have been written, once more. */
static void read_all(struct client *c)
{
	for (unsigned i = 0; i < c->nr_vols; i++)
		for (uint32_t obj = 0; obj < c->vol[i].rec.nr_obj; obj++)
			for (unsigned part = 0; part < 2 && !c->err; part++) {
				struct op *op = &c->op[0];
				const struct vol_rec *vr = &c->vol[i].rec;
				op->vol = (uint8_t)i;
				op->kind = REC_READ;
				op->first = obj * vr->per_obj;
				op->nr = USED_FIRST;
				if (part) {
					op->first += vr->per_obj - USED_LAST;
					op->nr = USED_LAST;
				}
				op_start(op);
				while (op->busy)
					turn(c, history_now() + 50 * MS);
			}
}

static int open_volumes(struct client *c, char **arg, unsigned nr)
{
	struct vol_rec vr[VOLS_MAX] = {0};
	struct sd_vdi_info info;
	uint64_t begin = history_now();

	for (unsigned i = 0; i < nr; i++) {
		struct vol *v = &c->vol[i];
		char *flags = strchr(arg[i], ':');
		int e;
		v->cached = flags && strstr(flags, ":c");
		v->discards = flags && strstr(flags, ":d");
		if (flags)
			*flags = 0;
		snprintf(v->rec.name, sizeof(v->rec.name), "%s", arg[i]);
		/* it may be started while no gateway is there */
		while ((e = sd_vdi_open(c->sd, arg[i], v->cached ? SD_OPEN_CACHE : 0, &v->v))) {
			if (history_now() - begin > OPEN_NS) {
				fprintf(stderr, "history: client %u: open %s: %s\n", c->number,
					arg[i], sd_strerror(e));
				return 1;
			}
			poll(NULL, 0, 50);
		}
		sd_vdi_get_info(v->v, &info);
		v->rec.per_obj = (1u << info.object_shift) / SECTOR;
		v->rec.nr_obj = (uint32_t)(info.size >> info.object_shift);
		vr[i] = v->rec;
		if (!v->rec.nr_obj || v->rec.nr_obj > NR_OBJ_MAX) {
			fprintf(stderr, "history: %s has %u objects\n", arg[i], v->rec.nr_obj);
			return 1;
		}
	}
	c->nr_vols = nr;
	struct rec r = {.magic = REC_MAGIC, .kind = REC_CLIENT, .op = c->number, .nr = nr};
	r.time = history_now();
	record(c, &r, vr, nr * sizeof(vr[0]));
	return 0;
}

static int client_run(struct client *c)
{
	struct rec r = {.magic = REC_MAGIC, .kind = REC_BYE};
	char idle[512];
	int fd;

	work(c);
	snprintf(idle, sizeof(idle), "%s.idle", c->path);
	fd = open(idle, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		perror(idle);
		return 1;
	}
	close(fd);
	while (!final && !c->err)
		turn(c, history_now() + 20 * MS);
	read_all(c);
	for (unsigned i = 0; i < c->nr_vols; i++) {
		int e = sd_vdi_close(c->vol[i].v);
		if (e) {
			fprintf(stderr, "history: client %u: close: %s\n", c->number,
				sd_strerror(e));
			c->err = 1;
		}
	}
	r.time = history_now();
	if (!c->err)
		record(c, &r, NULL, 0);
	return c->err;
}

int history_client(int argc, char **argv)
{
	struct client *c = calloc(1, sizeof(*c));
	struct sigaction sa = {.sa_handler = on_signal};
	int r = 1;

	if (argc < 5 || argc > 4 + (int)VOLS_MAX || !c) {
		fprintf(stderr, "usage: historian client GATEWAYS FILE NUMBER SEED VOLUME...\n");
		return 64;
	}
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	c->number = (uint32_t)strtoul(argv[2], NULL, 10);
	c->rnd = (strtoull(argv[3], NULL, 10) * 1000003 + c->number) * 0x9e3779b97f4a7c15ull | 1;
	c->path = argv[1];
	c->fd = open(c->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		c->op[i] = (struct op){.c = c, .buf = malloc(OP_MAX * SECTOR)};
	if (c->fd < 0 || sd_cluster_open(argv[0], &c->sd))
		perror(argv[1]);
	else if (!open_volumes(c, argv + 4, (unsigned)argc - 4))
		r = client_run(c);
	sd_cluster_close(c->sd);
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		free(c->op[i].buf);
	close(c->fd);
	free(c);
	return r;
}
