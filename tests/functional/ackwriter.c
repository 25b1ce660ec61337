/* ackwriter - writes stamped blocks through libsheepdog and remembers, in a file that outlives it,
 * what was sent and what was acknowledged; later verifies that every acknowledged write is read
 * back.
 *
 *   ackwriter write  GATEWAYS VOLUME STATE [-s SECONDS] [-d DEPTH] [-c] [-z BYTES]
 *   ackwriter verify GATEWAYS VOLUME STATE [-z BYTES]
 *
 * -c: cached writes and a flush now and then; only what a flush covered counts as acknowledged
 * then. -z: size of a block (default 4096); of one >= 64 KiB each sector may be old or new after a
 * power cut, as long as it was not acknowledged. Every block is NR_BLOCKS-th of the volume; each
 * holds (block, counter) in every 512-byte sector.  One write per block is in flight.  verify: each
 * sector holds a counter between the newest acknowledged and the newest sent one; small blocks hold
 * one counter only.  It also settles: what was read counts as acknowledged from then on, so that a
 * block that goes back later is found. Prints the longest time that one write took.  Exit 0, or 1
 * and a line on stderr. */
#include "config.h"

#include "include/sheepdog/sheepdog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NR_BLOCKS 512u
#define SECTOR	  512u
#define DEPTH_MAX 128u
#define SMALL	  65536u /* below: a write is whole or not at all */

struct state { /* the file */
	uint64_t sent[NR_BLOCKS], acked[NR_BLOCKS], total;
};

struct op {
	struct run *run;
	uint8_t *buf;
	uint32_t block;
	uint64_t counter, start_ns;
	bool busy;
};

struct run {
	struct sd_cluster *c;
	struct sd_vdi *v;
	struct state *st;
	uint64_t stride, written[NR_BLOCKS]; /* cached: answered, not yet flushed */
	size_t size;
	unsigned depth, in_flight;
	bool cached, flushing;
	uint64_t flush_covers[NR_BLOCKS];
	struct op op[DEPTH_MAX];
	bool busy[NR_BLOCKS];
	uint64_t rnd, longest_ns, nr_done;
	int err;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t next_rnd(struct run *r)
{
	r->rnd ^= r->rnd << 13;
	r->rnd ^= r->rnd >> 7;
	r->rnd ^= r->rnd << 17;
	return r->rnd;
}

static void stamp(uint8_t *buf, size_t size, uint64_t block, uint64_t counter)
{
	uint64_t w[2] = {block ^ 0xb10cull, counter};

	for (size_t i = 0; i < size; i += sizeof(w))
		memcpy(buf + i, w, sizeof(w));
}

static void on_flushed(void *arg, int err)
{
	struct run *r = arg;

	r->flushing = false;
	if (err) {
		r->err = err;
		return;
	}
	for (unsigned i = 0; i < NR_BLOCKS; i++)
		if (r->flush_covers[i] > r->st->acked[i])
			r->st->acked[i] = r->flush_covers[i];
}

static void on_written(void *arg, int err)
{
	struct op *op = arg;
	struct run *r = op->run;
	uint64_t t = now_ns() - op->start_ns;

	op->busy = false;
	r->busy[op->block] = false;
	r->in_flight--;
	if (err) {
		r->err = err;
		return;
	}
	if (t > r->longest_ns)
		r->longest_ns = t;
	r->nr_done++;
	r->st->total++;
	if (r->cached)
		r->written[op->block] = op->counter;
	else
		r->st->acked[op->block] = op->counter;
	if (r->cached && !r->flushing && r->nr_done % 64 == 0) {
		memcpy(r->flush_covers, r->written, sizeof(r->written));
		r->flushing = true;
		r->err = sd_flush_async(r->v, on_flushed, r);
	}
}

static void start_one(struct run *r, struct op *op)
{
	uint32_t b = (uint32_t)(next_rnd(r) % NR_BLOCKS);

	while (r->busy[b])
		b = (b + 1) % NR_BLOCKS;
	op->run = r;
	op->block = b;
	op->counter = ++r->st->sent[b]; /* before it can be anywhere */
	op->start_ns = now_ns();
	op->busy = r->busy[b] = true;
	r->in_flight++;
	stamp(op->buf, r->size, b, op->counter);
	struct iovec iov = {op->buf, r->size};
	int e = sd_writev_async(r->v, &iov, 1, b * r->stride, on_written, op);
	if (e)
		on_written(op, e);
}

static int do_write(struct run *r, unsigned seconds)
{
	uint64_t end = now_ns() + seconds * 1000000000ull;

	while (!r->err && (now_ns() < end || r->in_flight || r->flushing)) {
		for (unsigned i = 0; i < r->depth && now_ns() < end && !r->err; i++)
			if (!r->op[i].busy)
				start_one(r, &r->op[i]);
		sd_wait(r->c, 100);
	}
	while (r->in_flight || r->flushing)
		sd_wait(r->c, 100);
	return r->err;
}

static int bad(struct run *r, uint32_t b, size_t off, const char *what, uint64_t got)
{
	fprintf(stderr,
		"ackwriter: block %u at %zu: %s: counter %" PRIu64 ", acknowledged %" PRIu64
		", sent %" PRIu64 "\n",
		b, off, what, got, r->st->acked[b], r->st->sent[b]);
	return 1;
}

static int check_block(struct run *r, uint32_t b, const uint8_t *buf)
{
	uint64_t first = 0, least = UINT64_MAX;

	for (size_t off = 0; off < r->size; off += 16) {
		uint64_t w[2];
		memcpy(w, buf + off, sizeof(w));
		bool zero = !w[0] && !w[1];
		if (!zero && w[0] != (b ^ 0xb10cull))
			return bad(r, b, off, "another block's or no stamp", w[1]);
		if (w[1] < r->st->acked[b])
			return bad(r, b, off, "an acknowledged write is lost", w[1]);
		if (w[1] > r->st->sent[b])
			return bad(r, b, off, "never sent", w[1]);
		if (off == 0)
			first = w[1];
		if (w[1] != first && (r->size < SMALL || off % SECTOR))
			return bad(r, b, off, "torn", w[1]);
		if (w[1] < least)
			least = w[1];
	}
	r->st->acked[b] = least;
	return 0;
}

static int do_verify(struct run *r)
{
	int status = 0;

	for (uint32_t b = 0; b < NR_BLOCKS && status == 0; b++) {
		uint8_t *buf = r->op[0].buf;
		memset(buf, 0xee, r->size);
		int e = sd_read(r->v, buf, r->size, b * r->stride);
		if (e) {
			fprintf(stderr, "ackwriter: read of block %u: %s\n", b, sd_strerror(e));
			return 1;
		}
		status = check_block(r, b, buf);
		if (status == 0) { /* twice the same: it does not flip-flop */
			uint8_t *again = r->op[1].buf;
			e = sd_read(r->v, again, r->size, b * r->stride);
			if (e || memcmp(buf, again, r->size)) {
				fprintf(stderr, "ackwriter: block %u: two reads differ\n", b);
				return 1;
			}
		}
	}
	return status;
}

static struct state *map_state(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	struct state *st = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, sizeof(*st)) == 0)
		st = mmap(NULL, sizeof(*st), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (st == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	close(fd);
	return st;
}

int main(int argc, char **argv)
{
	struct run *r = calloc(1, sizeof(*r));
	unsigned seconds = 5;
	struct sd_vdi_info info;
	int opt, e;

	r->depth = 16;
	r->size = 4096;
	while ((opt = getopt(argc, argv, "s:d:cz:")) != -1)
		switch (opt) {
		case 's': seconds = (unsigned)atoi(optarg); break;
		case 'd': r->depth = (unsigned)atoi(optarg); break;
		case 'c': r->cached = true; break;
		case 'z': r->size = (size_t)atol(optarg); break;
		default: return 64;
		}
	if (argc - optind != 4 || r->depth < 1 || r->depth > DEPTH_MAX) {
		fprintf(stderr,
			"usage: ackwriter write|verify GATEWAYS VOLUME STATE [OPTION...]\n");
		return 64;
	}
	r->st = map_state(argv[optind + 3]);
	r->rnd = 0x9e3779b97f4a7c15ull ^ (uint64_t)getpid() ^ now_ns();
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		r->op[i].buf = malloc(r->size);
	e = sd_cluster_open(argv[optind + 1], &r->c);
	if (e == 0)
		e = sd_vdi_open(r->c, argv[optind + 2], r->cached ? SD_OPEN_CACHE : 0, &r->v);
	if (e) {
		fprintf(stderr, "ackwriter: %s: %s\n", argv[optind + 2], sd_strerror(e));
		return 1;
	}
	sd_vdi_get_info(r->v, &info);
	r->stride = info.size / NR_BLOCKS / 4096 * 4096;
	if (!strcmp(argv[optind], "write")) {
		e = do_write(r, seconds);
		if (e)
			fprintf(stderr, "ackwriter: write: %s\n", sd_strerror(e));
		printf("writes %" PRIu64 " longest_ms %" PRIu64 "\n", r->nr_done,
		       r->longest_ns / 1000000);
	} else {
		e = do_verify(r);
		if (e == 0)
			printf("verified, %" PRIu64 " writes so far\n", r->st->total);
	}
	sd_vdi_close(r->v);
	sd_cluster_close(r->c);
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		free(r->op[i].buf);
	free(r);
	return e ? 1 : 0;
}
