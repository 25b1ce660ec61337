/* disk.h - what a store looks like on disk.  Little endian.
 *
 * Object file: the data, rounded up to blocks; then, at its end, pages whose last 512 bytes are the
 * header and, right before it, one checksum sector for each CHUNK_BLKS blocks.  A sector of zeros
 * is a valid one: nothing was written there.
 *
 * Journal file: two superblocks (pages 0 and 1, the higher generation holds), then the area of
 * groups, used in a circle.  A group is contiguous: header pages with the records' descriptors and
 * checksums, then the journalled blocks.  A group that does not fit before the end of the area
 * begins at its start.
 */
#ifndef SHEEP_STORE_DISK_H
#define SHEEP_STORE_DISK_H

#include <stdint.h>

#include "include/sheepdog/limits.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "disk structures are used in place");

#define BLK	       SD_BLOCK_SIZE
#define SECTOR	       512u
#define CHUNK_BLKS     112u
#define OBJ_SIZE_MAX   (1ull << SD_OBJ_SHIFT_MAX)
#define OBJ_NAME_LEN   24
#define OBJ_MAGIC      0x314a424f50454853ull /* "SHEPOBJ1" */
#define CONFIG_MAGIC   0x314f545350454853ull /* "SHEPSTO1" */
#define SUPER_MAGIC    0x314c4e4a50454853ull /* "SHEPJNL1" */
#define GROUP_MAGIC    0x315052474a504853ull /* "SHPJGRP1" */
#define JOURNAL_SUPERS 2u

struct obj_header {
	uint64_t magic;
	uint32_t sum; /* CRC-32C of the sector with 0 here */
	uint32_t format;
	uint64_t oid, gen, seq, size;
	uint32_t torn_blk, torn_nr; /* blocks of an intent that never finished; 0: none */
	uint8_t copies, pad[7];
	uint8_t spare[SECTOR - 64];
};

struct crc_sector {
	uint32_t sum, idx;
	uint64_t oid;
	uint64_t data[2]; /* bit: the block was written */
	uint64_t bad[2];  /* bit: its checksum is not known */
	uint8_t spare[16];
	uint32_t crc[CHUNK_BLKS];
};

struct disk_config {
	uint64_t magic;
	uint32_t sum, format;
	uint8_t uuid[16];
	uint64_t start;
	uint8_t boot_id[16];
	uint32_t clean_epoch, flags;
	uint8_t clean_name[8];
	uint64_t space, journal_id, journal_prev, max_gen;
	uint8_t spare[SECTOR - 104];
};

struct journal_super {
	uint64_t magic;
	uint32_t sum, format;
	uint64_t id;  /* as in the config */
	uint64_t gen; /* of this superblock */
	uint64_t inc; /* random; groups of other incarnations are void */
	uint64_t pages, tail, tail_gseq;
	uint32_t empty, pad; /* closed in order: nothing to replay */
	uint8_t spare[BLK - 72];
};

struct journal_group {
	uint64_t magic;
	uint32_t sum; /* over hdr_len bytes with 0 here */
	uint32_t hdr_len;
	uint64_t inc, gseq, synced; /* synced: newest group known durable when this was made */
	uint32_t pages, nr_rec;
	uint8_t spare[16];
};

enum rec_kind {
	REC_WRITE = 1, /* all blocks are journalled */
	REC_INTENT,    /* all but first (F_HEAD) and last (F_TAIL) go in place */
	REC_REMOVE,
	REC_DONE, /* the intent with ticket ref is in its file, synced; F_UPTO: all the object's up
		   * to there */
};
enum rec_flag {
	F_CREATE = 1,
	F_FRESH = 2 /* it was absent before */,
	F_HEAD = 4,
	F_TAIL = 8,
	F_UPTO = 16
};

struct journal_rec { /* followed by nr checksums, and 4 bytes of zeros if nr is odd */
	uint64_t oid, gen, seq, size, ticket;
	uint64_t ref; /* of an intent: those of the object up to this ticket are in its file, synced
		       */
	uint32_t blk, nr;
	uint8_t kind, copies, flags, pad;
	uint32_t nr_payload;
};

_Static_assert(sizeof(struct obj_header) == SECTOR, "one sector");
_Static_assert(sizeof(struct crc_sector) == SECTOR, "one sector");
_Static_assert(sizeof(struct disk_config) == SECTOR, "one sector");
_Static_assert(sizeof(struct journal_super) == BLK, "one page");
_Static_assert(sizeof(struct journal_group) == 64, "layout");
_Static_assert(sizeof(struct journal_rec) == 64, "layout");

/* Bytes that @nr checksums take in a descriptor. */
static inline uint32_t desc_crc_len(uint32_t nr)
{
	return (nr + 1) / 2 * 8;
}
static inline uint32_t size_blks(uint64_t size)
{
	return (uint32_t)((size + BLK - 1) / BLK);
}
static inline uint32_t size_chunks(uint64_t size)
{
	return (size_blks(size) + CHUNK_BLKS - 1) / CHUNK_BLKS;
}
static inline uint64_t size_file(uint64_t size)
{
	uint64_t meta = ((uint64_t)size_chunks(size) + 1) * SECTOR;
	return (uint64_t)size_blks(size) * BLK + (meta + BLK - 1) / BLK * BLK;
}
/* Place of checksum sector @c; the header's is that of sector size_chunks(size). */
static inline uint64_t sector_off(uint64_t size, uint32_t c)
{
	return size_file(size) - ((uint64_t)(size_chunks(size) - c) + 1) * SECTOR;
}

#endif
