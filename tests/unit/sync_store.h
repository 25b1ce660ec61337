/* sync_store.h - the store of test_sync: store.h in memory, with faults to plant.  What is in it
 * outlives store_close(), by directory, as a disk does. */
#ifndef TESTS_UNIT_SYNC_STORE_H
#define TESTS_UNIT_SYNC_STORE_H

#include "sheep/store/store.h"

void mem_tear(struct store *st, uint64_t oid);		    /* a torn range */
void mem_rot(struct store *st, uint64_t oid, uint64_t off); /* a bad block */
bool mem_bad(struct store *st, uint64_t oid);		    /* any bad block */
unsigned mem_nr_stale(struct store *st);
void mem_gate(struct store *st, bool closed);	      /* store_wait() does not return */
void mem_commit_gate(struct store *st, bool closed);  /* nor store_replace_commit() */
void mem_prepare_gate(struct store *st, bool closed); /* nor store_prepare() */
void mem_fail(struct store *st, int error);	      /* of the next store_queue() */
void mem_full(struct store *st, bool full);	      /* store_prepare(): -ENOSPC */
void mem_low(struct store *st, bool low);	      /* store_take_room(): no */
void mem_put(struct store *st, uint64_t oid, struct obj_ver ver, uint64_t size, uint8_t copies,
	     uint8_t fill);
uint8_t mem_byte(struct store *st, uint64_t oid, uint64_t off);
void mem_forget_all(void); /* all disks */

#endif
