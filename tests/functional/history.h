/* history.h - the file that a client of tests/functional/history.sh leaves behind, however it ends:
 * a sequence of records, each appended by one write(2), so that all but the last are whole.
 *
 * history_client.c writes it, history_check.c reads it.  Times are CLOCK_MONOTONIC in ns of the one
 * machine that all clients run on: their order is exact.
 */
#ifndef TESTS_FUNCTIONAL_HISTORY_H
#define TESTS_FUNCTIONAL_HISTORY_H

#include <stdint.h>

#define SECTOR	   512u
#define REC_MAGIC  0x48495354u
#define VOLS_MAX   4u
#define NR_OBJ_MAX 16u
/* What is worked on of each object: its first and its last sectors, so that much collides, and so
 * that operations cross from one object to the next. */
#define USED_FIRST 320u
#define USED_LAST  32u

enum rec_kind {
	REC_CLIENT =
		1, /* the first one: rec.op is the number of this incarnation; vol_rec follow */
	REC_READ,  /* an operation begins (a write before any of it is sent) */
	REC_WRITE,
	REC_ZERO, /* discard or write_zeroes */
	REC_FLUSH,
	REC_END, /* operation rec.op was answered; for a read rec.nr runs follow */
	REC_ERROR,
	REC_BYE, /* the client ended in order: everything was answered */
};

struct rec {
	uint32_t magic;
	uint8_t kind, vol, cached, pad;
	uint32_t op;	    /* counts from 0 in each file */
	uint32_t first, nr; /* sectors of the volume; of REC_END: number of runs */
	uint32_t pad2;
	uint64_t time, value;
};
_Static_assert(sizeof(struct rec) == 40, "no hidden padding");

struct run { /* sectors [first, first + nr) all held the same value */
	uint32_t first, nr;
	uint64_t value;
};

struct vol_rec {
	char name[32];
	uint32_t nr_obj, per_obj; /* objects; sectors of one */
};

/* The three programs in one. */
int history_client(int argc, char **argv);
int history_check_main(int argc, char **argv);
uint64_t history_now(void);

#endif
