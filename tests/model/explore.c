/* explore.c - breadth first over all states, see explore.h. */
#include "config.h"

#include "tests/model/explore.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct frontier {
	uint8_t *state;
	uint32_t *index; /* of each, among all */
	size_t nr, cap;
};

struct explore {
	const struct model *m;
	uint64_t *set; /* fingerprints; 0: free */
	size_t set_cap;
	uint32_t *from; /* by index: the state before, and which of its steps */
	uint16_t *choice;
	size_t nr, cap;
	struct frontier now, then;
	size_t at;	 /* in `now` */
	unsigned nr_out; /* steps of it so far */
	bool violated;
	bool show; /* going a trace again: the step `want` of the state */
	unsigned want;
	void *shown;
};

/* Not NULL, and what the caller had is taken over. */
static void *grow(void *p, size_t n, size_t size)
{
	void *q = reallocarray(p, n, size);

	if (!q) {
		fprintf(stderr, "out of memory\n");
		exit(2);
	}
	return q;
}

static uint64_t mix(uint64_t h)
{
	h ^= h >> 32;
	h *= 0xc4ceb9fe1a85ec53ull;
	return h ^ h >> 29;
}

static uint64_t fingerprint(const uint8_t *p, size_t len)
{
	uint64_t h = 0x9e3779b97f4a7c15ull, w;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&w, p, 8);
		h = mix((h ^ w) * 0xff51afd7ed558ccdull);
	}
	w = 0;
	memcpy(&w, p, len);
	h = mix((h ^ w) * 0xff51afd7ed558ccdull);
	h = mix(h + len);
	return h ? h : 1;
}

static bool set_put(uint64_t *set, size_t cap, uint64_t h)
{
	size_t i = h & (cap - 1);

	while (set[i]) {
		if (set[i] == h)
			return false;
		i = (i + 1) & (cap - 1);
	}
	set[i] = h;
	return true;
}

static bool is_new(struct explore *x, uint64_t h)
{
	if (x->nr * 10 >= x->set_cap * 6) {
		size_t cap = x->set_cap ? x->set_cap * 2 : 1 << 16;
		uint64_t *set = calloc(cap, sizeof(*set));
		if (!set) {
			fprintf(stderr, "out of memory\n");
			exit(2);
		}
		for (size_t i = 0; i < x->set_cap; i++)
			if (x->set[i])
				set_put(set, cap, x->set[i]);
		free(x->set);
		x->set = set;
		x->set_cap = cap;
	}
	return set_put(x->set, x->set_cap, h);
}

static void remember(struct explore *x, const void *state, uint32_t from, unsigned choice)
{
	struct frontier *f = &x->then;

	if (x->nr == x->cap) {
		x->cap = x->cap ? 2 * x->cap : 1024;
		x->from = grow(x->from, x->cap, sizeof(*x->from));
		x->choice = grow(x->choice, x->cap, sizeof(*x->choice));
	}
	if (f->nr == f->cap) {
		f->cap = f->cap ? 2 * f->cap : 1024;
		f->state = grow(f->state, f->cap, x->m->size);
		f->index = grow(f->index, f->cap, sizeof(*f->index));
	}
	x->from[x->nr] = from;
	x->choice[x->nr] = (uint16_t)choice;
	memcpy(f->state + f->nr * x->m->size, state, x->m->size);
	f->index[f->nr++] = (uint32_t)x->nr++;
}

void step(struct explore *x, const void *to, const char *bad, const char *fmt, ...)
{
	unsigned n = x->nr_out++;

	assert(n <= UINT16_MAX);
	if (x->show) {
		if (n != x->want)
			return;
		va_list ap;
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
		printf(bad ? "   <== %s\n" : "\n", bad);
		memcpy(x->shown, to, x->m->size);
		return;
	}
	if (x->violated)
		return;
	x->violated = bad;
	if (bad || is_new(x, fingerprint(to, x->m->size)))
		remember(x, to, x->now.index[x->at], n);
}

static void show_trace(struct explore *x, const void *conf)
{
	size_t nr = 0, i;
	uint32_t *way = NULL;
	uint8_t *a = grow(NULL, 1, x->m->size), *b = grow(NULL, 1, x->m->size);

	for (i = x->nr - 1; i; i = x->from[i]) {
		way = grow(way, nr + 1, sizeof(*way));
		way[nr++] = (uint32_t)i;
	}
	memset(a, 0, x->m->size);
	x->m->init(conf, a);
	x->show = true;
	x->shown = b;
	for (i = 0; i < nr; i++) {
		printf("    %2zu. ", i + 1);
		x->nr_out = 0;
		x->want = x->choice[way[nr - 1 - i]];
		x->m->next(x, conf, a);
		memcpy(a, b, x->m->size);
	}
	free(way);
	free(a);
	free(b);
}

struct outcome explore(const struct model *m, const void *conf, uint64_t limit, bool trace)
{
	struct explore x = {.m = m};
	struct outcome o = {.verdict = HOLDS};
	void *first = grow(NULL, 1, m->size);

	memset(first, 0, m->size);
	m->init(conf, first);
	is_new(&x, fingerprint(first, m->size));
	remember(&x, first, 0, 0);
	free(first);
	while (x.then.nr && o.verdict == HOLDS) {
		struct frontier f = x.now;
		x.now = x.then;
		x.then = f;
		x.then.nr = 0;
		for (x.at = 0; x.at < x.now.nr && o.verdict == HOLDS; x.at++) {
			x.nr_out = 0;
			m->next(&x, conf, x.now.state + x.at * m->size);
			if (x.violated)
				o.verdict = VIOLATED;
			else if (x.nr > limit)
				o.verdict = TOO_MANY;
		}
		o.depth += x.then.nr != 0;
	}
	o.states = x.nr;
	if (trace && x.violated)
		show_trace(&x, conf);
	free(x.set);
	free(x.from);
	free(x.choice);
	free(x.now.state);
	free(x.now.index);
	free(x.then.state);
	free(x.then.index);
	return o;
}
