/* ring.h - consistent hashing exactly as protocol.md sections 4.3 and 8 describe it.  Pure. */
#ifndef LIB_PROTO_RING_H
#define LIB_PROTO_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t sd_fnv1a64(const void *buf, size_t len);
uint64_t sd_hash(const void *buf, size_t len); /* FNV-1a, then continued over its own 8 bytes */
uint64_t sd_hash_oid(uint64_t oid);	       /* sd_hash64 of protocol.md */
uint64_t sd_hash_next(uint64_t h);
uint32_t sd_hash_vdi(const char *name);

struct ring_node {
	uint8_t ip[16];
	uint16_t port;
	uint16_t nr_vnodes; /* 0: not on the ring */
	uint32_t zone;
};

struct ring_point {
	uint64_t hash;
	uint32_t node; /* index into the array the ring was built from */
};

struct ring {
	unsigned nr_points, nr_nodes, nr_zones;
	struct ring_point *points; /* sorted by hash */
	uint32_t *zone;		   /* by node index */
};

/* NULL: out of memory.  An empty ring (no vnodes at all) is fine. */
struct ring *ring_new(const struct ring_node *nodes, unsigned nr);
void ring_free(struct ring *r);
/* The nodes that hold what hashes to @hash with @copies copies, first replica first, at most one
 * per zone; returns how many: min(copies, zones). */
unsigned ring_lookup(const struct ring *r, uint64_t hash, unsigned copies, uint32_t *nodes);
/* Automatic vnodes: round-to-even(128 * space / mean space), in single precision; protocol.md 8. */
void ring_auto_vnodes(const uint64_t *space, unsigned nr, uint16_t *ret_vnodes);

#endif
