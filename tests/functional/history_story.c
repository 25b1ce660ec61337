/* history_story.c - the programs of history.sh in one, and what the check prints. */
#include "config.h"

#include "tests/functional/history_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MS 1000000u

uint64_t history_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- figures ---- */

struct kind { /* of faults */
	const char *name;
	uint64_t longest;
};

/* The one kind of fault that @op met; "none"; or "several". */
static const char *met(const struct work *k, const struct hop *op)
{
	const char *kind = NULL;

	for (unsigned i = 0; i < k->nr_windows; i++) {
		const struct window *w = &k->windows[i];
		if (w->begin >= op->end || op->start >= w->end)
			continue;
		if (kind && strcmp(kind, w->kind))
			return "several";
		kind = w->kind;
	}
	return kind ? kind : "none";
}

static void note(struct kind *kinds, unsigned *nr, const char *name, uint64_t ns)
{
	unsigned i = 0;

	while (i < *nr && strcmp(kinds[i].name, name))
		i++;
	if (i == *nr) {
		assert(*nr < 32);
		kinds[(*nr)++] = (struct kind){name, 0};
	}
	if (ns > kinds[i].longest)
		kinds[i].longest = ns;
}

bool write_figures(const struct work *k, const char *path)
{
	static const char *const name[] = {[REC_READ] = "reads",
					   [REC_WRITE] = "writes",
					   [REC_ZERO] = "zeros",
					   [REC_FLUSH] = "flushes"};
	uint64_t nr[REC_END] = {0}, open = 0;
	const struct hop *longest = NULL;
	struct kind kinds[32];
	unsigned nr_kinds = 0;
	FILE *f = fopen(path, "w");

	if (!f) {
		perror(path);
		return false;
	}
	for (size_t i = 0; i < k->nr_ops; i++) {
		const struct hop *op = &k->ops[i];
		nr[op->r.kind]++;
		if (op->end == CHECK_NEVER) {
			open++;
			continue;
		}
		note(kinds, &nr_kinds, met(k, op), op->end - op->start);
		if (!longest || op->end - op->start > longest->end - longest->start)
			longest = op;
	}
	for (int i = REC_READ; i < REC_END; i++)
		fprintf(f, "%s %" PRIu64 "\n", name[i], nr[i]);
	fprintf(f, "operations %zu\nnever-answered %" PRIu64 "\nclients-killed %u\n", k->nr_ops,
		open, k->nr_killed);
	for (unsigned i = 0; i < nr_kinds; i++)
		fprintf(f, "longest-ms-%s %" PRIu64 "\n", kinds[i].name, kinds[i].longest / MS);
	if (longest)
		fprintf(f, "longest-ms %" PRIu64 "\nlongest-began %" PRIu64 "\n",
			(longest->end - longest->start) / MS, longest->start);
	return fclose(f) == 0;
}

/* ---- the story of one sector ---- */

struct line {
	uint64_t time;
	char text[160];
};

static int cmp_line(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	return x->time < y->time ? -1 : x->time > y->time;
}

static void tell_op(struct line *l, const struct hop *op, unsigned sector)
{
	static const char *const name[] = {
		[REC_READ] = "read", [REC_WRITE] = "write", [REC_ZERO] = "zero"};
	uint64_t value = op->r.value;

	for (uint32_t i = 0; i < op->nr_runs; i++)
		if (sector - op->runs[i].first < op->runs[i].nr)
			value = op->runs[i].value;
	l->time = op->start;
	if (op->end == CHECK_NEVER)
		snprintf(l->text, sizeof(l->text), "client %u %s %u+%u %" PRIx64 " never answered",
			 op->client, name[op->r.kind], op->r.first, op->r.nr, value);
	else
		snprintf(l->text, sizeof(l->text),
			 "client %u %s %u+%u %" PRIx64 " until %" PRIu64 " (%.3f ms)", op->client,
			 name[op->r.kind], op->r.first, op->r.nr, value, op->end,
			 (double)(op->end - op->start) / MS);
}

void write_story(const struct work *k, const struct volume *v, unsigned sector, const char *path)
{
	struct line *l = check_alloc(k->nr_ops + 2 * k->nr_windows + 2, sizeof(*l));
	FILE *f = fopen(path, "w");
	size_t nr = 0;

	for (size_t i = 0; i < k->nr_ops; i++) {
		const struct hop *op = &k->ops[i];
		if (op->vol == v && op->r.kind != REC_FLUSH && sector - op->r.first < op->r.nr)
			tell_op(&l[nr++], op, sector);
	}
	for (unsigned i = 0; i < k->nr_windows; i++) {
		l[nr].time = k->windows[i].begin;
		snprintf(l[nr++].text, sizeof(l->text), "== begin %s", k->windows[i].text);
		l[nr].time = k->windows[i].end;
		snprintf(l[nr++].text, sizeof(l->text), "== end, and a second, %s",
			 k->windows[i].text);
	}
	l[nr].time = k->rest;
	snprintf(l[nr++].text, sizeof(l->text), "== rest");
	l[nr].time = 0;
	snprintf(l[nr++].text, sizeof(l->text), "the round began with %" PRIx64, v->before[sector]);
	qsort(l, nr, sizeof(*l), cmp_line);
	for (size_t i = 0; f && i < nr; i++)
		fprintf(f, "%" PRIu64 " %s\n", l[i].time, l[i].text);
	if (f)
		fclose(f);
	free(l);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "client"))
		return history_client(argc - 2, argv + 2);
	if (argc > 1 && !strcmp(argv[1], "check"))
		return history_check_main(argc - 2, argv + 2);
	if (argc == 2 && !strcmp(argv[1], "now")) {
		printf("%" PRIu64 "\n", history_now());
		return 0;
	}
	fprintf(stderr, "usage: historian client|check|now ...\n");
	return 64;
}
