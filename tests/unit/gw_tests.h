/* gw_tests.h - shared by the parts of test_gateway */
#ifndef TESTS_UNIT_GW_TESTS_H
#define TESTS_UNIT_GW_TESTS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/gw_rig.h"

#define CREATE	SD_OP_CREATE_AND_WRITE_OBJ
#define READ	SD_OP_READ_OBJ
#define WRITE	SD_OP_WRITE_OBJ
#define REMOVE	SD_OP_REMOVE_OBJ
#define FLUSH	SD_OP_FLUSH_VDI
#define DISCARD SD_OP_DISCARD_OBJ
#define CACHE	SD_FLAG_CACHE
#define IDX(i)	(SD_INODE_HEADER_SIZE + 4 * (i))
#define NOTHING 0xffffu

extern uint8_t got[OBJLEN + 8192];

const void *pat(int c); /* 4096 bytes of it */
bool all(const uint8_t *p, size_t n, int c);
/* A rig with the volume "a" of 64 MiB.  @gateway: a node without data, or -1. */
struct rig *start_with(unsigned nodes, unsigned copies, int gateway, uint32_t *vid);
struct rig *start(unsigned nodes, unsigned copies, uint32_t *vid);
uint32_t idx_set(struct rig *r, int node, uint32_t vid, uint32_t i, uint32_t e, uint16_t fl);
uint32_t idx_get(struct rig *r, int node, uint32_t vid, uint32_t i);

void inode_reads(void **state);
void headers(void **state);
void discards(void **state);
void index_parallel(void **state);
void discard_races(void **state);
void flush(void **state);
void flush_races(void **state);
void degraded(void **state);
void space(void **state);
void bad_replicas(void **state);
void lost_replica(void **state);
void deletion(void **state);
void deletion_dies(void **state);
void sweep(void **state);
void sweep_views(void **state);
void sweep_stuck(void **state);
void sweep_busy(void **state);
void stress(void **state);
void fence_on_the_way(void **state);
void fence_at_the_owner(void **state);
void fence_behind(void **state);
void fence_header(void **state);
void fence_late(void **state);
void lease(void **state);
void lease_cow(void **state);
void claim_waits(void **state);
void claim_wait_ends(void **state);
void claim_torn(void **state);
void handover(void **state);
void handover_not(void **state);
void handover_stuck(void **state);
void handover_unsent(void **state);
void session_new_owner(void **state);
void session_owner_again(void **state);
void session_said_once(void **state);
void cached(void **state);
void bad_blocks(void **state);
void low_space(void **state);
void all_full(void **state);
void commands_fail(void **state);

#endif
