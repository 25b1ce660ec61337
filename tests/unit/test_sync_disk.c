/* test_sync_disk.c - test_sync's nodes over the real store: writes, deaths, recovery, and in the
 * end equal replicas. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/crc.h"
#include "tests/unit/sync_rig.h"
#include "tests/unit/sync_store.h"

#define LARGE (256u << 10)
#define NR    24u

void mem_forget_all(void)
{
}

/* What the objects should be, at the owner. */
struct model {
	struct obj_ver ver[NR];
	uint8_t byte[NR]; /* of the whole object */
	uint64_t seq;
};

/* A write of the whole object: large ones go in place behind an intent. */
static struct call *write_whole(struct rig *r, unsigned to, uint64_t oid, struct obj_ver ver,
				struct obj_ver prev, uint8_t fill)
{
	struct call *k = call_op(r, A, to, r->nr_epochs, oid, PEER_WRITE);
	struct buf *b = buf_new(r->pool, LARGE);
	uint32_t crc[LARGE / SD_BLOCK_SIZE];

	memset(b->data, fill, LARGE);
	for (unsigned i = 0; i < LARGE / SD_BLOCK_SIZE; i++)
		crc[i] = crc32c(b->data, SD_BLOCK_SIZE);
	k->c.req.ver_gen = ver.gen;
	k->c.req.ver_seq = ver.seq;
	k->c.req.prev_gen = prev.gen;
	k->c.req.prev_seq = prev.seq;
	k->c.req.obj_size = LARGE;
	k->c.req.len = k->c.data_len = LARGE;
	k->c.req.flags = PEER_F_DURABLE | (prev.gen ? 0 : PEER_F_CREATE);
	k->c.data = b;
	k->c.crc = crc;
	k->c.crc_nr = LARGE / SD_BLOCK_SIZE;
	call_submit(k, A, to);
	k->c.crc = NULL;
	buf_put(b);
	k->c.data = NULL;
	return k;
}

/* Change some objects, on all of @mask; a version is taken and sent to all or not at all. */
static void work(struct rig *r, struct model *m, unsigned mask, unsigned count)
{
	struct call *k[3];

	for (unsigned n = 0; n < count; n++) {
		unsigned i = (unsigned)random() % NR;
		bool remove = m->ver[i].gen && random() % 4 == 0;
		struct obj_ver ver = V(1, ++m->seq);
		uint8_t fill = (uint8_t)(m->seq | 1);
		for (unsigned to = A; to <= C; to++)
			k[to] = !(mask & M(to)) ? NULL
				: remove ? call_remove(r, A, to, r->nr_epochs, SD_DATA_OID(1, i),
						       ver, m->ver[i])
					 : write_whole(r, to, SD_DATA_OID(1, i), ver, m->ver[i],
						       fill);
		for (unsigned to = A; to <= C; to++)
			if (k[to])
				call_ok_(k[to]);
		m->ver[i] = remove ? V(0, 0) : ver;
		m->byte[i] = remove ? 0 : fill;
	}
}

static void check(struct rig *r, const struct model *m, unsigned mask)
{
	for (unsigned to = A; to <= C; to++)
		for (unsigned i = 0; i < NR && (mask & M(to)); i++) {
			uint64_t oid = SD_DATA_OID(1, i);
			struct call *k = call_op(r, to, to, r->nr_epochs, oid, PEER_READ);

			assert_int_equal(obj_ver_cmp(rig_ver(r, to, oid), m->ver[i]), 0);
			k->c.req.len = LARGE;
			k->c.reply_cap = LARGE;
			k->c.reply_buf = buf_new(r->pool, LARGE);
			k->got = k->c.reply_buf->data;
			call_submit(k, to, to);
			call_wait(k);
			assert_int_equal(k->c.rsp.result,
					 m->ver[i].gen ? SD_RES_SUCCESS : SD_RES_NO_OBJ);
			for (unsigned b = 0; m->ver[i].gen && b < LARGE; b += 512)
				assert_int_equal(k->got[b], m->byte[i]);
			call_free(k);
		}
}

/* One node after the other is away while the rest goes on. */
static void test_absences(void **state)
{
	struct rig *r = *state;
	struct model m = {0};

	srandom(3);
	rig_copies = 3;
	rig_boot(r, ABC);
	work(r, &m, ABC, 40);
	for (unsigned n = A; n <= C; n++) {
		/* A sends the writes of the test: it is only away together with all. */
		if (n != A) {
			rig_crash(r, n);
			rig_step(r, ABC & ~M(n));
			work(r, &m, ABC & ~M(n), 25);
			rig_start(r, n);
			rig_step(r, ABC);
			work(r, &m, ABC, 10); /* while it recovers */
			rig_rest(r, ABC);
			check(r, &m, ABC);
		}
	}
}

/* All are killed, with a write that one of them did not get; they come back, in sync again. */
static void test_all_killed(void **state)
{
	struct rig *r = *state;
	struct model m = {0};

	srandom(4);
	rig_copies = 3;
	rig_boot(r, ABC);
	work(r, &m, ABC, 40);
	for (unsigned round = 0; round < 3; round++) {
		unsigned i = round, only = (round + 1) % 3;
		struct obj_ver ver = V(1, ++m.seq);
		call_ok_(write_whole(r, only, SD_DATA_OID(1, i), ver, m.ver[i], 0x7e));
		m.ver[i] = ver; /* the highest of those in sync last: it is there, or nowhere */
		m.byte[i] = 0x7e;
		for (unsigned n = A; n <= C; n++)
			rig_crash(r, n);
		for (unsigned n = A; n <= C; n++)
			rig_start(r, (n + round) % 3);
		rig_step(r, ABC);
		rig_rest(r, ABC);
		check(r, &m, ABC);
		work(r, &m, ABC, 10);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(absences),
		T(all_killed),
	};
	return cmocka_run_group_tests_name("sync_disk", tests, NULL, NULL);
}
