/* check.h - the history checker: each sector is a register; what clients saw must fit one order
 * (I1, I2).
 *
 * Every write has a value of its own.  For registers whose writes differ, Gibbons and Korach
 * ("Testing Shared Memories", SIAM J. Comput. 26(4), 1997, section 4) give an exact test: the
 * operations of one value (its write and the reads that saw it) span a zone from the first end to
 * the last begin; the history is linearizable iff no two zones that run forward overlap, and none
 * that runs backward lies within one. Zeros are written by creation and by discards alike: a read
 * of zeros is checked for staleness only.
 */
#ifndef TESTS_SIM_CHECK_H
#define TESTS_SIM_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK_NEVER UINT64_MAX /* end of a write that was never answered */

struct history;

struct history *history_new(unsigned nr_sectors);
void history_free(struct history *h);
/* A write of @value (0: zeros) to sectors [@first, @first + @nr) began at @start; the handle is for
 * its end. */
size_t history_write(struct history *h, unsigned first, unsigned nr, uint64_t value,
		     uint64_t start);
void history_written(struct history *h, size_t op, uint64_t end);
/* It failed for certain before anything of it was done: it is no write at all. */
void history_forget(struct history *h, size_t op);
/* A read of one sector saw @value. */
void history_read(struct history *h, unsigned sector, uint64_t value, uint64_t start, uint64_t end);
uint64_t history_nr_ops(const struct history *h);
/* True: all is well.  Else @why says what was seen where. */
bool history_check(struct history *h, char *why, size_t len);

#endif
