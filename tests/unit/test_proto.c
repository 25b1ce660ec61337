/* test_proto.c - wire structures and placement against the vectors of protocol.md 4.3, 4.5, 8, 12.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "lib/proto/ring.h"
#include "sheepdog/proto.h"

static void hash_vdi(void **state)
{
	assert_int_equal(sd_hash_vdi("test"), 0x7c2b25);
	assert_int_equal(sd_hash_vdi("q1"), 0x72d497);
	assert_int_equal(sd_hash_vdi("z"), 0x021a6d);
	assert_int_equal(sd_hash_vdi("y"), 0x021554);
	assert_int_equal(sd_hash_vdi("at"), 0x45a968);
	assert_int_equal(sd_hash_vdi("hv"), 0x5e9293);
}

static const struct ring_node local7000 = {
	.ip = {[12] = 127, 0, 0, 1}, .port = 7000, .nr_vnodes = 1, .zone = 1};

static void placement_vectors(void **state)
{
	uint8_t id[18] = {[12] = 127, 0, 0, 1, 7000 & 0xff, 7000 >> 8};
	assert_true(sd_hash(id, sizeof(id)) == 0x9cb3d6dd0a4c0f9full);
	assert_true(sd_hash_oid(0x801719e500000000ull) == 0xc70638dcd47adc3cull);
	struct ring *r = ring_new(&local7000, 1);
	assert_int_equal(r->nr_points, 1);
	assert_true(r->points[0].hash == 0x3af2cba6e538cdf3ull);
	ring_free(r);
}

static void one_replica_per_zone(void **state)
{
	struct ring_node n[6];
	uint32_t got[31];
	for (unsigned i = 0; i < 6; i++) {
		n[i] = local7000;
		n[i].port = (uint16_t)(7000 + i);
		n[i].nr_vnodes = i == 5 ? 0 : 128;
		n[i].zone = i / 2;
	}
	struct ring *r = ring_new(n, 6);
	assert_int_equal(r->nr_zones, 3);
	for (uint64_t oid = 1; oid < 2000; oid++) {
		assert_int_equal(ring_lookup(r, sd_hash_oid(oid), 5, got), 3);
		assert_true(n[got[0]].zone != n[got[1]].zone && n[got[1]].zone != n[got[2]].zone &&
			    n[got[0]].zone != n[got[2]].zone);
		for (unsigned k = 0; k < 3; k++)
			assert_int_not_equal(got[k], 5);
	}
	ring_free(r);
	assert_non_null(r = ring_new(n, 0));
	assert_int_equal(ring_lookup(r, 1, 3, got), 0);
	ring_free(r);
}

static void auto_vnodes(void **state)
{
	uint64_t space[4] = {100, 100, 0, 400};
	uint16_t v[4];
	ring_auto_vnodes(space, 4, v);
	assert_int_equal(v[0], 64);
	assert_int_equal(v[2], 0);
	assert_int_equal(v[3], 256);
}

/* Section 12: the request that creates VDI "test", and its reply. */
static void new_vdi_bytes(void **state)
{
	struct sd_req q = {.proto_ver = 1,
			   .opcode = SD_OP_NEW_VDI,
			   .flags = SD_FLAG_WRITE,
			   .id = 3,
			   .data_length = 256,
			   .vdi.vdi_size = 10 << 20};
	static const uint8_t want[48] = {0x01, 0x11, 0x01, 0, 0, 0, 0, 0, 3,   0,
					 0,    0,    0,	   1, 0, 0, 0, 0, 0xa0};
	assert_memory_equal(&q, want, 48);
	static const uint8_t reply[48] = {0, 0x11, 0, 0,	   1,	 0,    0, 0,	    3,
					  0, 0,	   0, [24] = 0x25, 0x2b, 0x7c, 0, [32] = 2, 0x16};
	struct sd_rsp p;
	memcpy(&p, reply, 48);
	assert_int_equal(p.vdi.vdi_id, 0x7c2b25);
	assert_int_equal(p.vdi.copies, 2);
	assert_int_equal(p.vdi.block_size_shift, 22);
}

static void oids(void **state)
{
	assert_true(SD_INODE_OID(0x7c2b25) == 0x807c2b2500000000ull);
	assert_int_equal(SD_OID_VID(0x807c2b2500000000ull), 0x7c2b25);
	assert_true(SD_OID_IS_INODE(SD_INODE_OID(1)) && !SD_OID_IS_DATA(SD_INODE_OID(1)));
	assert_true(SD_OID_IS_DATA(SD_DATA_OID(0xffffff, 7)));
	assert_true(SD_OID_IS_VMSTATE(SD_VMSTATE_OID(5, 1)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_vdi),
		cmocka_unit_test(placement_vectors),
		cmocka_unit_test(one_replica_per_zone),
		cmocka_unit_test(auto_vnodes),
		cmocka_unit_test(new_vdi_bytes),
		cmocka_unit_test(oids),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
