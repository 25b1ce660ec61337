/* history_load.c - what clients and the script wrote down, in memory.  See history_int.h. */
#include "config.h"

#include "tests/functional/history_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_NS (1000ull * 1000 * 1000) /* what a fault has broken is noticed that much later */

static void *grow(void *p, size_t *cap, size_t nr, size_t size)
{
	if (nr < *cap)
		return p;
	*cap = *cap ? 2 * *cap : 1024;
	p = realloc(p, *cap * size);
	assert(p);
	return p;
}

static bool wrong(const char *path, const char *what)
{
	fprintf(stderr, "history: %s: %s\n", path, what);
	return false;
}

static struct volume *volume_of(struct work *k, const struct vol_rec *vr)
{
	for (unsigned i = 0; i < k->nr_vols; i++)
		if (!strcmp(k->vols[i].rec.name, vr->name))
			return &k->vols[i];
	assert(k->nr_vols < VOLUMES_MAX && vr->nr_obj <= NR_OBJ_MAX);
	k->vols[k->nr_vols].rec = *vr;
	return &k->vols[k->nr_vols++];
}

/* One client's file; @f is open. */
static bool load_records(struct work *k, FILE *f, const char *path)
{
	struct volume *vol[VOLS_MAX];
	struct vol_rec vr[VOLS_MAX];
	size_t first = k->nr_ops;
	uint32_t client;
	bool bye = false;
	struct rec r;

	if (fread(&r, sizeof(r), 1, f) != 1)
		return true; /* killed before it had opened its volumes */
	if (r.magic != REC_MAGIC || r.kind != REC_CLIENT || r.nr > VOLS_MAX ||
	    fread(vr, sizeof(vr[0]), r.nr, f) != r.nr)
		return wrong(path, "not a history");
	client = r.op;
	for (uint32_t i = 0; i < r.nr; i++)
		vol[i] = volume_of(k, &vr[i]);
	while (fread(&r, sizeof(r), 1, f) == 1) {
		if (r.magic != REC_MAGIC || r.vol >= VOLS_MAX)
			return wrong(path, "a damaged record");
		if (r.kind == REC_BYE) {
			bye = true;
			break;
		}
		if (r.kind < REC_END) {
			k->ops = grow(k->ops, &k->cap_ops, k->nr_ops, sizeof(*k->ops));
			k->ops[k->nr_ops++] = (struct hop){.r = r,
							   .client = client,
							   .vol = vol[r.vol],
							   .start = r.time,
							   .end = CHECK_NEVER};
			continue;
		}
		if (first + r.op >= k->nr_ops || r.kind == REC_ERROR)
			return wrong(path, r.kind == REC_ERROR ? "an operation failed"
							       : "a damaged record");
		struct hop *op = &k->ops[first + r.op];
		op->runs = check_alloc(r.nr, sizeof(*op->runs));
		if (fread(op->runs, sizeof(*op->runs), r.nr, f) != r.nr)
			break; /* killed here */
		op->nr_runs = r.nr;
		op->end = r.time;
	}
	if (!bye)
		k->nr_killed++;
	for (size_t i = first; bye && i < k->nr_ops; i++)
		if (k->ops[i].end == CHECK_NEVER)
			return wrong(path, "an operation was never answered");
	return true;
}

bool load_history(struct work *k, const char *path)
{
	FILE *f = fopen(path, "r");
	bool ok;

	if (!f)
		return wrong(path, "cannot be opened");
	ok = load_records(k, f, path);
	fclose(f);
	return ok;
}

/* Lines of the script: "NS begin KIND ...", "NS end KIND ...", "NS rest". */
bool load_events(struct work *k, const char *path)
{
	char line[256], what[16], kind[16];
	FILE *f = fopen(path, "r");
	uint64_t t;

	if (!f)
		return wrong(path, "cannot be opened");
	k->rest = CHECK_NEVER;
	while (fgets(line, sizeof(line), f)) {
		kind[0] = 0;
		if (sscanf(line, "%" SCNu64 " %15s %15s", &t, what, kind) < 2)
			continue;
		if (!strcmp(what, "rest"))
			k->rest = t;
		if (!strcmp(what, "begin")) {
			assert(k->nr_windows < WINDOWS_MAX);
			struct window *w = &k->windows[k->nr_windows++];
			*w = (struct window){.begin = t, .end = CHECK_NEVER};
			snprintf(w->kind, sizeof(w->kind), "%s", kind);
			snprintf(w->text, sizeof(w->text), "%s", strchr(line, 'b') + 6);
			w->text[strcspn(w->text, "\n")] = 0;
		}
		for (unsigned i = k->nr_windows; !strcmp(what, "end") && i-- > 0;)
			if (!strcmp(k->windows[i].kind, kind) && k->windows[i].end == CHECK_NEVER) {
				k->windows[i].end = t + GRACE_NS;
				break;
			}
	}
	fclose(f);
	return true;
}

/* What the volume held when the round began: one value for each sector. */
bool load_state(struct volume *v, const char *dir)
{
	size_t nr = (size_t)v->rec.nr_obj * v->rec.per_obj;
	char path[512];

	v->before = check_alloc(nr, sizeof(*v->before));
	v->after = check_alloc(nr, sizeof(*v->after));
	snprintf(path, sizeof(path), "%s/%s", dir, v->rec.name);
	FILE *f = fopen(path, "r");
	if (!f)
		return true; /* the first round: as it was created */
	bool ok = fread(v->before, sizeof(*v->before), nr, f) == nr;
	fclose(f);
	memcpy(v->after, v->before, nr * sizeof(*v->after));
	return ok || wrong(path, "is too short");
}

bool save_state(const struct volume *v, const char *dir)
{
	size_t nr = (size_t)v->rec.nr_obj * v->rec.per_obj;
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, v->rec.name);
	FILE *f = fopen(path, "w");
	if (!f)
		return wrong(path, "cannot be written");
	bool ok = fwrite(v->after, sizeof(*v->after), nr, f) == nr;
	return fclose(f) == 0 && ok ? true : wrong(path, "cannot be written");
}
