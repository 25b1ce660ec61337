/* history_check.c - do the recorded histories of all clients fit one order?  The checker is the
 * simulator's (tests/sim/check.h).
 *
 *   historian check [-t] EVENTS STATE FIGURES FILE...
 *
 * EVENTS: the faults, by the script.  STATE: a directory with what the volumes held at the end of
 * the round before; on success it gets what they hold now.  -t: check the check, too: the same
 * histories with one read changed must not pass.
 */
#include "config.h"

#include "tests/functional/history_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct change { /* one read saw something else */
	const struct hop *op;
	uint32_t sector;
	uint64_t value;
};

/* May it have been sent twice?  Any fault while it was in flight may have broken a connection. */
static bool was_disturbed(const struct work *k, const struct hop *op)
{
	for (unsigned i = 0; i < k->nr_windows; i++)
		if (k->windows[i].begin < op->end && op->start < k->windows[i].end)
			return true;
	return false;
}

static void add_write(const struct work *k, struct history *h, const struct hop *op)
{
	size_t w = history_write(h, op->r.first, op->r.nr, op->r.value, op->start);

	history_writer(h, w, op->client, op->r.cached);
	if (was_disturbed(k, op))
		history_resent(h, w);
	if (op->end != CHECK_NEVER)
		history_written(h, w, op->end);
	else if (k->rest != CHECK_NEVER) /* its client was killed: done by then, or never */
		history_failed(h, w, k->rest);
}

static void add_read(struct history *h, const struct hop *op, const struct change *ch)
{
	for (uint32_t i = 0; i < op->nr_runs; i++)
		for (uint32_t s = op->runs[i].first; s < op->runs[i].first + op->runs[i].nr; s++) {
			bool changed = ch && ch->op == op && ch->sector == s;
			history_read(h, s, changed ? ch->value : op->runs[i].value, op->start,
				     op->end);
		}
}

static struct history *build(const struct work *k, const struct volume *v, const struct change *ch)
{
	struct history *h = history_new(v->rec.nr_obj * v->rec.per_obj);

	for (unsigned s = 0; s < v->rec.nr_obj * v->rec.per_obj; s++)
		if (v->before[s])
			history_written(h, history_write(h, s, 1, v->before[s], 1), 2);
	for (size_t i = 0; i < k->nr_ops; i++) {
		const struct hop *op = &k->ops[i];
		if (op->vol != v)
			continue;
		if (op->r.kind == REC_READ)
			add_read(h, op, ch);
		else if (op->r.kind != REC_FLUSH)
			add_write(k, h, op);
		else if (op->end != CHECK_NEVER)
			history_flush(h, op->start, op->end, true);
	}
	return h;
}

/* What the last reads saw is what the next round begins with. */
static void find_after(const struct work *k)
{
	for (size_t i = 0; i < k->nr_ops; i++) {
		const struct hop *op = &k->ops[i];
		if (op->r.kind != REC_READ || op->start < k->rest)
			continue;
		for (uint32_t n = 0; n < op->nr_runs; n++)
			for (uint32_t s = 0; s < op->runs[n].nr; s++)
				op->vol->after[op->runs[n].first + s] = op->runs[n].value;
	}
}

static bool check_volume(const struct work *k, const struct volume *v, const char *figures)
{
	struct history *h = build(k, v, NULL);
	char why[1024] = "", story[600];
	unsigned sector;
	bool ok = history_check(h, why, sizeof(why));

	history_free(h);
	if (ok)
		return true;
	fprintf(stderr, "history: volume %s: %s\n", v->rec.name, why);
	if (sscanf(why, "sector %u", &sector) == 1) {
		snprintf(story, sizeof(story), "%s.story", figures);
		write_story(k, v, sector, story);
		fprintf(stderr, "history: all that touched it: %s\n", story);
	}
	return false;
}

/* ---- the check of the check ---- */

enum lie { LIE_LOST, LIE_ZEROS, LIE_NOBODY, LIE_FUTURE, NR_LIES };
static const char *const lie_name[] = {"an acknowledged write that is lost", "zeros after a write",
				       "a value that nobody wrote", "a value of the future"};

static bool covers(const struct hop *op, uint32_t sector)
{
	return op->r.kind != REC_READ && op->r.kind != REC_FLUSH && sector - op->r.first < op->r.nr;
}

/* A value that @read of @sector, which saw what @w wrote and ended before, cannot have seen. */
static bool lie_for(const struct work *k, enum lie lie, const struct hop *read, const struct hop *w,
		    struct change *ch)
{
	bool zeros = false;

	ch->value = 0xdeadull << 48;
	if (lie == LIE_NOBODY)
		return true;
	for (size_t i = 0; i < k->nr_ops; i++) {
		const struct hop *op = &k->ops[i];
		if (op->vol != w->vol || !covers(op, ch->sector))
			continue;
		zeros |= !op->r.value;
		ch->value = op->r.value;
		if (op->r.value && lie == LIE_LOST && op->end < w->start)
			return true;
		if (op->r.value && lie == LIE_FUTURE && op->start > read->end)
			return true;
	}
	ch->value = 0;
	return lie == LIE_ZEROS && !zeros;
}

static const struct hop *writer_of(const struct work *k, const struct volume *v, uint64_t value)
{
	for (size_t i = 0; i < k->nr_ops; i++)
		if (k->ops[i].vol == v && k->ops[i].r.kind == REC_WRITE &&
		    k->ops[i].r.value == value)
			return &k->ops[i];
	return NULL;
}

static bool find_lie(const struct work *k, enum lie lie, struct change *ch)
{
	for (size_t n = 0; n < k->nr_ops; n++) {
		const struct hop *op = &k->ops[(n + k->nr_ops / 2) % k->nr_ops];
		if (op->r.kind != REC_READ || !op->nr_runs || !op->runs[0].value)
			continue;
		const struct hop *w = writer_of(k, op->vol, op->runs[0].value);
		*ch = (struct change){.op = op, .sector = op->runs[0].first};
		if (w && w->end < op->start && lie_for(k, lie, op, w, ch))
			return true;
	}
	return false;
}

static bool check_the_check(const struct work *k)
{
	for (enum lie lie = 0; lie < NR_LIES; lie++) {
		struct change ch;
		char why[1024];
		if (!find_lie(k, lie, &ch)) {
			fprintf(stderr, "history: nothing to show %s with\n", lie_name[lie]);
			return false;
		}
		struct history *h = build(k, ch.op->vol, &ch);
		bool passed = history_check(h, why, sizeof(why));
		history_free(h);
		if (passed) {
			fprintf(stderr, "history: the check does not see %s\n", lie_name[lie]);
			return false;
		}
	}
	printf("the check sees each of %d lies\n", NR_LIES);
	return true;
}

static bool check_all(struct work *k, char **arg, int nr, bool test)
{
	bool ok = load_events(k, arg[0]);

	for (int i = 3; ok && i < nr; i++)
		ok = load_history(k, arg[i]);
	for (unsigned i = 0; ok && i < k->nr_vols; i++)
		ok = load_state(&k->vols[i], arg[1]);
	ok = ok && write_figures(k, arg[2]);
	for (unsigned i = 0; ok && i < k->nr_vols; i++)
		ok = check_volume(k, &k->vols[i], arg[2]);
	if (ok && test)
		ok = check_the_check(k);
	if (!ok)
		return false;
	find_after(k);
	for (unsigned i = 0; ok && i < k->nr_vols; i++)
		ok = save_state(&k->vols[i], arg[1]);
	return ok;
}

int history_check_main(int argc, char **argv)
{
	struct work *k = check_alloc(1, sizeof(*k));
	bool test = argc && !strcmp(argv[0], "-t");

	if (argc - test < 4) {
		fprintf(stderr, "usage: historian check [-t] EVENTS STATE FIGURES FILE...\n");
		return 64;
	}
	bool ok = check_all(k, argv + test, argc - test, test);
	for (size_t i = 0; i < k->nr_ops; i++)
		free(k->ops[i].runs);
	for (unsigned i = 0; i < k->nr_vols; i++) {
		free(k->vols[i].before);
		free(k->vols[i].after);
	}
	free(k->ops);
	free(k);
	return ok ? 0 : 1;
}
