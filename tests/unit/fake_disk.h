/* fake_disk.h - an env whose disk is in memory and remembers what was synced, for crash tests.
 *
 * Every change is entered in a log: writes when they are submitted, and again when they are done; a
 * sync when it is done, with the place in the log where it was submitted: it makes durable what was
 * done before that.  Names become durable with the sync of their directory.  disk_cut() builds the
 * disk that a power cut at any place in the log leaves, with each unsynced write kept, dropped or
 * torn (by sectors), and the unsynced names of a directory kept up to some point.
 *
 * I/Os are completed one at a time, when and in which order the seed decides.
 */
#ifndef TESTS_UNIT_FAKE_DISK_H
#define TESTS_UNIT_FAKE_DISK_H

#include "lib/env/env.h"

struct disk;

enum cut_mode {
	CUT_DROP, /* nothing that was not synced is there */
	CUT_KEEP, /* all of it is: the death of the process */
	CUT_TEAR, /* by the seed: each write kept, dropped, torn */
};

struct disk *disk_new(uint64_t seed);
void disk_free(struct disk *d);
struct env *disk_env(struct disk *d);
/* A disk with the same contents, all of it durable, and an empty log. */
struct disk *disk_copy(const struct disk *d, uint64_t seed);
/* The disk that a cut before log entry @at leaves.  (disk_begin() it to cut it in its turn.) */
struct disk *disk_cut(const struct disk *d, unsigned at, enum cut_mode mode, uint64_t seed);
uint64_t disk_hash(const struct disk *d);
unsigned disk_log(const struct disk *d); /* entries */
/* The test's own note, at its place in the log. */
void disk_note(struct disk *d, unsigned what);
/* Largest note before entry @at that has the bits of @mask. */
unsigned disk_noted(const struct disk *d, unsigned at, unsigned mask);
/* Make the log empty: what happened so far is durable. */
void disk_begin(struct disk *d);
/* Let I/O number @n from now on and all later ones fail with -EIO; 0: never. */
void disk_fail_at(struct disk *d, unsigned n);
/* Change one bit of a file. */
void disk_flip(struct disk *d, const char *dir, const char *name, uint64_t off);
unsigned disk_ios(const struct disk *d);
/* Run what is ready, complete one I/O, or let time pass; false: nothing at all is left to do. */
bool disk_turn(struct disk *d);

#endif
