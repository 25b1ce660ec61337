/* check.h - the history checker: each 512-byte sector of a volume is a "register with flush"; what
 * its clients saw must fit one order (DESIGN 5.8: I1, I2, I8; 5.4).
 *
 * Every write has a value of its own.  For registers whose writes differ, Gibbons and Korach
 * ("Testing Shared Memories", SIAM J. Comput. 26(4), 1997, section 4) give an exact test: the
 * operations of one value (its write and the reads that saw it) span a zone from the first end to
 * the last begin; the history fits iff there are no two values of which each must come before the
 * other: one's first end lies before the other's last begin, and the other way round.
 *
 *  - Zeros are written by creation and by discards alike, so a read of zeros may come from any of
 *    these: it fits when one of them need not be overwritten before it.  (Weaker than exact only
 *    where several discards and reads of zeros are mixed.)
 *  - A cut (every replica in sync of these sectors lost power at once) ends the register's life;
 * the next one begins with one of its values, the survivor: at or after the last write that was
 *    durable, and all reads agree on it.  Durable is a direct write that was answered; one with
 *    the cache flag after a flush that began when it was answered and succeeded; a survivor.
 *    Operations in flight at a cut may have been done on either side of it, writes on both.  Reads
 *    in flight at a cut are checked for a value that was written, no more.
 *  - When a survivor is older than a write that was answered, the next flush that would have
 *    covered that write must have said EIO (or somebody opened the volume anew: that clears it),
 *    and a flush may say EIO only after a cut of what was written with the cache flag, once for
 *    each (DESIGN 5.4, "cache lost").
 *  - Overlapping writes that were in flight together, of one client or of several, and that were
 *    resent after a fault may take effect in any order, also twice (I1): two values do not
 *    contradict each other when their writes overlap in time, and a connection that one of them
 *    may have travelled over broke while it was in flight (history_resent).
 *
 * Takes n log n for n operations of a sector.
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

/* ---- what clients did ---- */

/* A write of @value (0: zeros) to sectors [@first, @first + @nr) began at @start; the handle is for
 * its end.  It is a direct one of client 0, unless history_writer() says otherwise. */
size_t history_write(struct history *h, unsigned first, unsigned nr, uint64_t value,
		     uint64_t start);
void history_writer(struct history *h, size_t op, unsigned client, bool cached);
/* It was answered with success. */
void history_written(struct history *h, size_t op, uint64_t end);
/* It failed for certain before anything of it was done: it is no write at all. */
void history_forget(struct history *h, size_t op);
/* It was answered with an error at @end: if any of it was done, then by then. */
void history_failed(struct history *h, size_t op, uint64_t end);
/* A connection that it may have travelled over broke while it was in flight. */
void history_resent(struct history *h, size_t op);
/* @client is dead: that counts as a fault for all that it has in flight. */
void history_died(struct history *h, unsigned client);
/* A read of one sector saw @value. */
void history_read(struct history *h, unsigned sector, uint64_t value, uint64_t start, uint64_t end);
/* A flush was answered: success, or EIO. */
void history_flush(struct history *h, uint64_t start, uint64_t end, bool ok);
/* Some client opened the volume. */
void history_open(struct history *h, uint64_t start, uint64_t end);

/* ---- what the world did ---- */

/* No replica in sync of these sectors kept what was not durable at @time. */
void history_cut(struct history *h, unsigned first, unsigned nr, uint64_t time);
/* A loss that no flush told of is a violation (else that rule is not checked). */
void history_strict(struct history *h);

/* ---- the check ---- */

uint64_t history_nr_ops(const struct history *h);
/* True: all is well.  Else @why says what was seen where. */
bool history_check(struct history *h, char *why, size_t len);

#endif
