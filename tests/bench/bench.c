/* bench.c - what a client of the cluster gets, through libsheepdog (DESIGN section 11).
 *
 *     bench [-a GATEWAYS] [-v VOLUME] [-S SIZE] [-s SECONDS] [-d DEPTH] [-t TEST[,TEST...]] [-c]
 * [-k]
 *
 * Makes VOLUME (default "bench", 256M) unless it is there, writes all of it once, then measures the
 * tests for SECONDS (5) each: seqwrite and seqread (1 MiB, DEPTH 4), randwrite and randread (4 KiB,
 * DEPTH 1 and 32); -d asks for one depth instead.  -c: cached writes, with a flush at the end.
 * -k: keep the volume.  For each test one line for people and one for programs:
 *
 *     bench test=randwrite bs=4096 depth=32 ops=... iops=... mb_s=... mean_us=... p50_us=...
 *         p99_us=... cpu_us=...             (one line)
 *
 * cpu_us is the client's own time per operation.  Exit status 1 when any operation failed.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/util.h"
#include "sheepdog/result.h"
#include "sheepdog/sheepdog.h"

enum {
	DEPTH_MAX = 256,
	SEQ_DEPTH = 4,
	SEQ_BYTES = 1 << 20,
	RAND_BYTES = 4096,
	SUB = 64,	    /* buckets for each power of two: p99 within 1.6 % */
	BUCKETS = 40 * SUB, /* of nanoseconds */
};

struct bench;
struct slot {
	struct bench *b;
	uint8_t *buf;
	uint64_t started;
};

struct bench {
	struct sd_cluster *c;
	struct sd_vdi *v;
	uint64_t size, off, seed;
	bool write, seq;
	unsigned bytes, flying;
	uint64_t end, ops, sum_ns;
	uint64_t bucket[BUCKETS];
	int err;
	struct slot slot[DEPTH_MAX];
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static double cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned msb = ns < SUB ? 5 : 63 - (unsigned)__builtin_clzll(ns);
	unsigned b =
		ns < SUB ? (unsigned)ns : (msb - 5) * SUB + (unsigned)(ns >> (msb - 6) & (SUB - 1));

	return b < BUCKETS ? b : BUCKETS - 1;
}

static double bucket_us(unsigned b)
{
	if (b < SUB)
		return b / 1e3;
	return (double)((uint64_t)(SUB + b % SUB) << (b / SUB - 1)) / 1e3;
}

static void on_done(void *arg, int err);

static void slot_start(struct slot *s)
{
	struct bench *b = s->b;
	uint64_t blocks = b->size / b->bytes;
	struct iovec iov = {s->buf, b->bytes};
	uint64_t off = b->off;
	int r;

	if (b->seq) {
		b->off = (b->off + b->bytes) % (blocks * b->bytes);
	} else {
		b->seed = b->seed * 6364136223846793005ull + 1442695040888963407ull;
		off = (b->seed >> 24) % blocks * b->bytes;
	}
	if (b->write)
		memcpy(s->buf, &b->seed, sizeof(b->seed));
	s->started = now_ns();
	if (b->write)
		r = sd_writev_async(b->v, &iov, 1, off, on_done, s);
	else
		r = sd_readv_async(b->v, &iov, 1, off, on_done, s);
	if (r < 0)
		b->err = r;
	else
		b->flying++;
}

static void on_done(void *arg, int err)
{
	struct slot *s = arg;
	struct bench *b = s->b;
	uint64_t t = now_ns(), ns = t - s->started;

	b->flying--;
	b->ops++;
	b->sum_ns += ns;
	b->bucket[bucket_of(ns)]++;
	if (err && !b->err)
		b->err = err;
	if (t < b->end && !b->err)
		slot_start(s);
}

/* The latency that @part of 1000 operations stay below. */
static double quantile(const struct bench *b, uint64_t part)
{
	uint64_t n = 0, want = (b->ops * part + 999) / 1000;
	unsigned i = 0;

	while (i < BUCKETS && (n += b->bucket[i]) < want)
		i++;
	return bucket_us(i);
}

static int run(struct bench *b, const char *test, unsigned depth, double seconds)
{
	b->write = strstr(test, "write") != NULL;
	b->seq = !strncmp(test, "seq", 3);
	b->bytes = b->seq ? SEQ_BYTES : RAND_BYTES;
	b->off = b->ops = b->sum_ns = 0;
	b->err = 0;
	memset(b->bucket, 0, sizeof(b->bucket));
	if (b->size < b->bytes) {
		fprintf(stderr, "bench: the volume is too small\n");
		return 1;
	}
	double cpu = cpu_us();
	uint64_t t0 = now_ns();
	b->end = t0 + (uint64_t)(seconds * 1e9);
	for (unsigned i = 0; i < depth && !b->err; i++)
		slot_start(&b->slot[i]);
	while (b->flying)
		sd_wait(b->c, -1);
	if (b->write && !b->err)
		b->err = sd_flush(b->v);
	double took = (double)(now_ns() - t0) / 1e9;
	cpu = cpu_us() - cpu;
	if (b->err) {
		fprintf(stderr, "bench: %s: %s (%s)\n", test, sd_strerror(b->err),
			sd_last_error(b->c));
		return 1;
	}
	double ops = (double)b->ops, rate = ops / took, mean = (double)b->sum_ns / ops / 1e3;
	double mb = rate * b->bytes / 1e6, p50 = quantile(b, 500), p99 = quantile(b, 990);
	printf("%-9s %7u bytes, depth %3u: %8.0f /s, %7.1f MB/s, mean %8.1f us, p50 %8.1f us, "
	       "p99 %8.1f us, client %5.1f us\n",
	       test, b->bytes, depth, rate, mb, mean, p50, p99, cpu / ops);
	printf("bench test=%s bs=%u depth=%u ops=%" PRIu64 " iops=%.0f mb_s=%.1f mean_us=%.1f "
	       "p50_us=%.1f p99_us=%.1f cpu_us=%.2f\n",
	       test, b->bytes, depth, b->ops, rate, mb, mean, p50, p99, cpu / ops);
	fflush(stdout);
	return 0;
}

/* All of the volume is written once, so that the tests measure no allocation. */
static int allocate(struct bench *b)
{
	struct sd_vdi_info info;

	sd_vdi_get_info(b->v, &info);
	b->size = info.size;
	for (uint64_t off = 0, n; off < info.size; off += n) {
		bool data = sd_vdi_is_data(b->v, off, info.size - off, &n);
		for (uint64_t o = off, step; !data && o < off + n; o += step) {
			step = off + n - o < SEQ_BYTES ? off + n - o : SEQ_BYTES;
			int r = sd_write(b->v, b->slot[0].buf, step, o);
			if (r < 0)
				return r;
		}
	}
	return sd_flush(b->v);
}

struct args {
	const char *gateways, *volume, *tests;
	uint64_t size;
	double seconds;
	unsigned depth;
	bool cache, keep;
};

static int usage(void)
{
	fprintf(stderr,
		"usage: bench [-a GATEWAYS] [-v VOLUME] [-S SIZE] [-s SECONDS] [-d DEPTH (1..%d)]\n"
		"             [-t seqwrite,seqread,randwrite,randread] [-c] [-k]\n",
		DEPTH_MAX);
	return 64;
}

static int parse(int argc, char **argv, struct args *a)
{
	uint64_t v;
	char *end;
	int o;

	*a = (struct args){.volume = "bench",
			   .tests = "seqwrite,seqread,randwrite,randread",
			   .size = 256u << 20,
			   .seconds = 5};
	while ((o = getopt(argc, argv, "a:v:S:s:d:t:ck")) != -1) {
		switch (o) {
		case 'a': a->gateways = optarg; break;
		case 'v': a->volume = optarg; break;
		case 't': a->tests = optarg; break;
		case 'c': a->cache = true; break;
		case 'k': a->keep = true; break;
		case 'S':
			if (parse_size(optarg, &a->size) < 0)
				return -1;
			break;
		case 's':
			a->seconds = strtod(optarg, &end);
			if (*end || !(a->seconds > 0 && a->seconds < 1e6))
				return -1;
			break;
		case 'd':
			if (parse_u64(optarg, 1, DEPTH_MAX, &v) < 0)
				return -1;
			a->depth = (unsigned)v;
			break;
		default: return -1;
		}
	}
	return optind == argc ? 0 : -1;
}

static int run_tests(struct bench *b, const struct args *a)
{
	CLEANUP(freep) char *list = strdup(a->tests);
	static const char *const known[] = {"seqwrite", "seqread", "randwrite", "randread"};
	char *save = NULL;
	int bad = 0;

	for (char *t = strtok_r(list, ",", &save); t && !bad; t = strtok_r(NULL, ",", &save)) {
		size_t i = 0;
		while (i < ARRAY_SIZE(known) && strcmp(known[i], t))
			i++;
		if (i == ARRAY_SIZE(known))
			return usage();
		if (a->depth)
			bad = run(b, t, a->depth, a->seconds);
		else if (i < 2)
			bad = run(b, t, SEQ_DEPTH, a->seconds);
		else
			bad = run(b, t, 1, a->seconds) || run(b, t, 32, a->seconds);
	}
	return bad;
}

static int fail(struct bench *b, const char *what, int err)
{
	fprintf(stderr, "bench: %s: %s (%s)\n", what, sd_strerror(err), sd_last_error(b->c));
	return 1;
}

int main(int argc, char **argv)
{
	CLEANUP(freep) struct bench *b = calloc(1, sizeof(*b));
	struct args a;
	uint64_t seed = 88172645463325252ull;
	bool made = false;

	if (!b || parse(argc, argv, &a) < 0)
		return usage();
	CLEANUP(freep) uint8_t *mem = aligned_alloc(4096, (size_t)DEPTH_MAX * SEQ_BYTES);
	if (!mem)
		return 1;
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		b->slot[i] = (struct slot){.b = b, .buf = mem + (size_t)i * SEQ_BYTES};
	for (unsigned i = 0; i < SEQ_BYTES; i += 8) {
		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		memcpy(mem + i, &seed, sizeof(seed));
	}
	for (unsigned i = 1; i < DEPTH_MAX; i++)
		memcpy(b->slot[i].buf, mem, i < SEQ_DEPTH || a.depth ? SEQ_BYTES : RAND_BYTES);
	b->seed = seed;
	int r = sd_cluster_open(a.gateways, &b->c);
	if (r < 0) {
		fprintf(stderr, "bench: %s: %s\n", a.gateways, sd_strerror(r));
		return 1;
	}
	r = sd_vdi_create(b->c, a.volume, a.size, NULL, NULL);
	made = r == 0;
	if (r < 0 && SD_ERR_RESULT(r) != SD_RES_VDI_EXIST)
		return fail(b, "create", r);
	r = sd_vdi_open(b->c, a.volume, a.cache ? SD_OPEN_CACHE : 0, &b->v);
	if (r < 0)
		return fail(b, "open", r);
	r = allocate(b);
	int bad = r < 0 ? fail(b, "allocate", r) : run_tests(b, &a);
	r = sd_vdi_close(b->v);
	if (!r && made && !a.keep)
		r = sd_vdi_delete(b->c, a.volume);
	if (r < 0)
		bad = fail(b, "close", r);
	sd_cluster_close(b->c);
	return bad;
}
