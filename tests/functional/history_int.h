/* history_int.h - shared by history_load.c (files to memory), history_check.c (the verdict) and
 * history_story.c (what is printed) only. */
#ifndef TESTS_FUNCTIONAL_HISTORY_INT_H
#define TESTS_FUNCTIONAL_HISTORY_INT_H

#include "tests/functional/history.h"
#include "tests/sim/check_int.h"

#include <stdbool.h>
#include <stddef.h>

#define VOLUMES_MAX 8u
#define WINDOWS_MAX 4096u

struct volume {
	struct vol_rec rec;
	uint64_t *before, *after; /* value of each sector: at the begin and at the end of a round */
};

struct hop { /* an operation of some client */
	struct rec r;
	uint32_t client; /* an incarnation */
	uint32_t nr_runs;
	struct volume *vol;
	struct run *runs; /* of a read */
	uint64_t start, end;
};

struct window { /* while a fault lasted, and a little longer */
	uint64_t begin, end;
	char kind[16], text[64];
};

struct work {
	struct hop *ops;
	size_t nr_ops, cap_ops;
	struct volume vols[VOLUMES_MAX];
	unsigned nr_vols, nr_killed, nr_windows;
	uint64_t rest; /* nothing is in flight from here, but for the last reads */
	struct window windows[WINDOWS_MAX];
};

/* ---- history_load.c: false: said why on stderr ---- */
bool load_history(struct work *k, const char *path);
bool load_events(struct work *k, const char *path);
bool load_state(struct volume *v, const char *dir);
bool save_state(const struct volume *v, const char *dir);

/* ---- history_story.c ---- */
/* Counts and the longest operations, one "NAME NUMBER" a line, to @path. */
bool write_figures(const struct work *k, const char *path);
/* Everything that touched @sector, and the faults, in order, to @path. */
void write_story(const struct work *k, const struct volume *v, unsigned sector, const char *path);

#endif
