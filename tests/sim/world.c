/* world.c - time, events, randomness, the story.  See world.h. */
#include "config.h"

#include "tests/sim/world.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *const fault_names[FAULT_NR] = {
	[FAULT_KILL] = "kill",
	[FAULT_POWER] = "power cut",
	[FAULT_PAUSE] = "pause",
	[FAULT_CUT] = "cut link",
	[FAULT_CUT_ONE_WAY] = "one-way cut",
	[FAULT_RESET] = "connection reset",
	[FAULT_SLOW_LINK] = "slow link",
	[FAULT_BIT_ROT] = "bit rot",
	[FAULT_IO_ERROR] = "I/O error",
	[FAULT_LOST_WRITE] = "lost write",
	[FAULT_STALL] = "disk stall",
	[FAULT_DISK_FULL] = "disk full",
	[FAULT_NEW_DISK] = "new disk",
	[FAULT_TORN] = "torn write",
	[FAULT_LATE_VIEW] = "late bus",
	[FAULT_CLOCK] = "clock drift",
	[FAULT_CLIENT] = "client killed",
	[FAULT_PAUSE_LONG] = "pause beyond the lease",
	[FAULT_SUSPEND] = "machine suspended",
	[FAULT_OWNER] = "death in a fan-out",
	[FAULT_STOP] = "node told to stop",
	[FAULT_SHUTDOWN] = "cluster shutdown",
	[FAULT_RESTARTS] = "restarts in a row",
	[FAULT_AWAY] = "away for long",
	[FAULT_ADDED] = "node added",
	[FAULT_JOINER] = "death in a join",
	[FAULT_BATCH] = "bus in batches",
	[FAULT_SPLIT] = "split",
	[FAULT_SILENT] = "silent member",
	[FAULT_QUORUM] = "quorum lost",
	[FAULT_HALF_OPEN] = "half-open connection",
	[FAULT_SLOW_READER] = "slow reader",
	[FAULT_ROT_START] = "bit rot before a start",
	[FAULT_WALL] = "wall clock jump",
};

/* ---- randomness: xorshift128+, seeded by splitmix64 ---- */

static uint64_t splitmix(uint64_t *x)
{
	uint64_t z = *x += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

void prng_init(struct prng *p, uint64_t seed, uint64_t stream)
{
	uint64_t x = seed * 0x2545f4914f6cdd1dull + stream;

	p->s[0] = splitmix(&x);
	p->s[1] = splitmix(&x);
}

uint64_t prng_next(struct prng *p)
{
	uint64_t a = p->s[0], b = p->s[1];

	p->s[0] = b;
	a ^= a << 23;
	p->s[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
	return p->s[1] + b;
}

uint64_t prng_in(struct prng *p, uint64_t lo, uint64_t hi)
{
	assert(lo <= hi);
	return lo + prng_next(p) % (hi - lo + 1);
}

bool prng_chance(struct prng *p, unsigned n, unsigned of)
{
	return prng_next(p) % of < n;
}

/* ---- the heap of events ---- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->nr < b->nr;
}

static void put(struct world *w, size_t i, struct event *ev)
{
	w->heap[i] = ev;
	ev->idx = i + 1;
}

static void sift(struct world *w, size_t i)
{
	struct event *ev = w->heap[i];

	while (i && before(ev, w->heap[(i - 1) / 2])) {
		put(w, i, w->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (;;) {
		size_t k = 2 * i + 1;
		if (k >= w->nr_heap)
			break;
		if (k + 1 < w->nr_heap && before(w->heap[k + 1], w->heap[k]))
			k++;
		if (!before(w->heap[k], ev))
			break;
		put(w, i, w->heap[k]);
		i = k;
	}
	put(w, i, ev);
}

void event_del(struct world *w, struct event *ev)
{
	if (!ev->idx)
		return;
	size_t i = ev->idx - 1;
	struct event *last = w->heap[--w->nr_heap];

	ev->idx = 0;
	if (last == ev)
		return;
	put(w, i, last);
	sift(w, i);
}

void event_set(struct world *w, struct event *ev, uint64_t at)
{
	event_del(w, ev);
	ev->at = at < w->now ? w->now : at;
	ev->nr = ++w->next_nr;
	if (w->nr_heap == w->cap_heap) {
		struct proc *before = w->running;
		w->running = NULL; /* the world's memory, whoever runs */
		w->cap_heap = w->cap_heap ? 2 * w->cap_heap : 1024;
		w->heap = realloc(w->heap, w->cap_heap * sizeof(*w->heap));
		assert(w->heap);
		w->running = before;
	}
	put(w, w->nr_heap++, ev);
	sift(w, w->nr_heap - 1);
}

bool world_step(struct world *w)
{
	struct event *ev;

	if (!w->nr_heap)
		return false;
	ev = w->heap[0];
	event_del(w, ev);
	assert(ev->at >= w->now);
	w->now = ev->at;
	w->nr_events++;
	fold(w, &ev->at, sizeof(ev->at));
	fold(w, ev->what, strlen(ev->what));
	ev->fn(ev);
	return true;
}

/* ---- the trace ---- */

void fold(struct world *w, const void *p, size_t len)
{
	const uint8_t *b = p;
	uint64_t h = w->hash, v;

	for (; len >= 8; len -= 8, b += 8) {
		memcpy(&v, b, 8);
		h = (h ^ v) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	for (; len; len--, b++)
		h = (h ^ *b) * 0x100000001b3ull;
	w->hash = h;
}

void story(struct world *w, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fold(w, line, strlen(line));
	if (w->story)
		fprintf(w->story, "[%6llu.%06llu] %s\n", (unsigned long long)(w->now / SEC),
			(unsigned long long)(w->now % SEC / US), line);
}

void world_fail(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->failed)
		return;
	w->failed = true;
	va_start(ap, fmt);
	vsnprintf(w->why, sizeof(w->why), fmt, ap);
	va_end(ap);
	story(w, "FAILED: %s", w->why);
}

void world_fault(struct world *w, enum fault f)
{
	w->faults[f]++;
}

void world_init(struct world *w, uint64_t seed)
{
	*w = (struct world){.seed = seed, .now = SEC, .hash = 0xcbf29ce484222325ull};
	prng_init(&w->rnd_net, seed, 1);
	prng_init(&w->rnd_disk, seed, 2);
	prng_init(&w->rnd_bus, seed, 3);
	prng_init(&w->rnd_fault, seed, 4);
	prng_init(&w->rnd_work, seed, 5);
	prng_init(&w->rnd_ids, seed, 6);
	w->net = net_new(w);
}

void world_done(struct world *w)
{
	while (w->procs)
		proc_kill(w->procs);
	net_free(w->net);
	order_free(w->order);
	free(w->heap);
}
