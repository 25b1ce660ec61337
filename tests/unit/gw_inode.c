/* gw_inode.c - test_gateway: inodes, discard, flush, degraded service, deletion */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/gw_tests.h"

/* ---- inodes ---- */

void inode_reads(void **state)
{
	static const uint32_t lens[] = {1, 4664, 4672, SD_INODE_OLD_SIZE, SD_INODE_SIZE};
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct sd_inode_header h;

	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 0), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(idx_set(r, 0, vid, 0, vid, 0), SD_RES_SUCCESS);
	for (int node = 0; node < 2; node++)
		for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
			uint8_t *p = malloc(lens[i]);
			assert_int_equal(rq_read(r, node, SD_INODE_OID(vid), 0, p, lens[i]), 0);
			assert_int_equal(p[0], 'a');
			if (lens[i] > 4664) {
				memcpy(&h, p, sizeof(h));
				assert_int_equal(h.vdi_id, vid);
				assert_true(h.vdi_size == 64ull << 20);
				assert_int_equal(h.nr_copies, 3);
				assert_int_equal(h.block_size_shift, SHIFT);
				assert_memory_equal(p + 4664, &vid, 4);
			}
			if (lens[i] > SD_INODE_OLD_SIZE)
				assert_true(
					all(p + SD_INODE_OLD_SIZE, lens[i] - SD_INODE_OLD_SIZE, 0));
			free(p);
		}
	/* the header needs no claim, and no object */
	uint32_t other;
	assert_int_equal(rq_create(r, 1, "b", 1, &other), SD_RES_SUCCESS);
	rig_kill(r, 1);
	rig_view(r);
	assert_int_equal(rq_read(r, 0, SD_INODE_OID(other), 0, got, 4664), SD_RES_SUCCESS);
	assert_int_equal(r->nr_claims, 0);
	assert_int_equal(rq_read(r, 0, SD_INODE_OID(vid), SD_INODE_SIZE, got, 8), SD_RES_SUCCESS);
	assert_true(all(got, 8, 0));
	rig_free(r);
}

void headers(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct sd_inode_header h;
	uint64_t o = SD_INODE_OID(vid);

	assert_int_equal(rq_read(r, 1, o, 0, &h, sizeof(h)), SD_RES_SUCCESS);
	h.vdi_size = 128ull << 20;
	h.vdi_id = 999;
	h.snap_ctime = 5;
	memset(h.name, 'z', 10);
	assert_int_equal(rq(r, 1, WRITE, o, 0, &h, sizeof(h), 0), SD_RES_SUCCESS);
	assert_true(rig_vdi(r, vid)->size == 128ull << 20);
	assert_int_equal(rq_read(r, 0, o, 0, &h, sizeof(h)), SD_RES_SUCCESS);
	assert_int_equal(h.vdi_id, vid);
	assert_true(!h.snap_ctime && !strcmp(h.name, "a") && h.vdi_size == 128ull << 20);
	h.vdi_size = 1 << 20;
	assert_int_equal(rq(r, 0, WRITE, o, 0, &h, sizeof(h), 0), SD_RES_INVALID_PARMS);
	h.vdi_size = (uint64_t)SD_NR_OBJS_MAX * OBJLEN + 1;
	assert_int_equal(rq(r, 0, WRITE, o, 0, &h, sizeof(h), 0), SD_RES_INVALID_PARMS);
	char tag[256] = "snap";
	assert_int_equal(rq(r, 0, WRITE, o, 256, tag, 256, 0), SD_RES_SUCCESS);
	assert_string_equal(rig_vdi(r, vid)->tag, "snap");
	assert_true(rig_vdi(r, vid)->size == 128ull << 20);
	assert_int_equal(rq(r, 0, WRITE, o, SD_INODE_SIZE - 1, tag, 2, 0), SD_RES_INVALID_PARMS);
	rig_free(r);
}

void discards(void **state)
{
	uint32_t vid, other;
	struct rig *r = start(3, 3, &vid);
	uint32_t e[8];

	assert_int_equal(rq_create(r, 0, "b", 1, &other), SD_RES_SUCCESS);
	for (uint32_t i = 0; i < 8; i++) {
		e[i] = i == 5 ? other : vid;
		assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, i), 0, pat(i), 4096, 0), 0);
	}
	assert_int_equal(rq(r, 0, WRITE, SD_INODE_OID(vid), IDX(0), e, sizeof(e), CACHE), 0);
	assert_false(rig_obj(r, 0, SD_INODE_OID(vid))->cached); /* whatever its flags */
	unsigned reads = r->n[0].nr_read;
	struct obj_ver v = rig_obj(r, 0, SD_INODE_OID(vid))->ver;
	/* T22: the same values are no change; before the first flush of a generation they may be
	 * from an owner before us, and become durable with this */
	assert_int_equal(rq(r, 0, WRITE, SD_INODE_OID(vid), IDX(0), e, sizeof(e), CACHE), 0);
	assert_int_not_equal(obj_ver_cmp(rig_obj(r, 0, SD_INODE_OID(vid))->ver, v), 0);
	assert_int_equal(rq(r, 0, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	v = rig_obj(r, 0, SD_INODE_OID(vid))->ver;
	assert_int_equal(rq(r, 0, WRITE, SD_INODE_OID(vid), IDX(0), e, sizeof(e), CACHE), 0);
	assert_int_equal(rq(r, 0, WRITE, SD_INODE_OID(vid), IDX(0), e, sizeof(e), 0), 0);
	assert_int_equal(obj_ver_cmp(rig_obj(r, 0, SD_INODE_OID(vid))->ver, v), 0);
	/* one zeroed: its object goes before the answer, on all */
	assert_int_equal(idx_set(r, 0, vid, 3, 0, CACHE), SD_RES_SUCCESS);
	assert_false(rig_obj(r, 0, SD_INODE_OID(vid))->cached); /* durable before the removal */
	for (int n = 0; n < 3; n++) {
		assert_null(rig_obj(r, n, SD_DATA_OID(vid, 3)));
		assert_int_equal(r->n[n].nr_volatile, 0); /* whatever its flags */
	}
	assert_int_equal(rq_read(r, 0, SD_DATA_OID(vid, 3), 0, got, 1), SD_RES_NO_OBJ);
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 3), 0, pat(33), 4096, 0), 0);
	assert_int_equal(rq_read(r, 0, SD_DATA_OID(vid, 3), 0, got, 1), SD_RES_SUCCESS);
	assert_int_equal(got[0], 33);
	/* a range: entries of another VDI lose their reference only */
	e[3] = vid;
	assert_int_equal(idx_set(r, 0, vid, 3, vid, 0), SD_RES_SUCCESS);
	memset(e + 2, 0, 4 * sizeof(*e));
	assert_int_equal(rq(r, 0, WRITE, SD_INODE_OID(vid), IDX(0), e, sizeof(e), 0), 0);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(!!rig_obj(r, 1, SD_DATA_OID(vid, i)), i < 2 || i > 4);
	assert_int_equal(idx_get(r, 1, vid, 1), vid);
	assert_int_equal(idx_get(r, 1, vid, 5), 0);
	assert_int_equal(r->n[0].nr_read,
			 reads + 3); /* the index is cached: only the three reads above */
	/* DISCARD_OBJ */
	assert_int_equal(rq(r, 1, DISCARD, SD_DATA_OID(vid, 0), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_null(rig_obj(r, 0, SD_DATA_OID(vid, 0)));
	assert_int_equal(rq(r, 1, DISCARD, SD_DATA_OID(vid, 0), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 1, DISCARD, SD_DATA_OID(0x999, 0), 0, NULL, 0, 0), SD_RES_NO_OBJ);
	/* nonsense */
	assert_int_equal(idx_set(r, 0, vid, 0, 0x123456, 0), SD_RES_INVALID_PARMS);
	assert_int_equal(rq(r, 0, WRITE, SD_INODE_OID(vid), IDX(0) + 1, e, 4, 0),
			 SD_RES_INVALID_PARMS);
	rig_compare(r);
	rig_free(r);
}

/* T11: index writes in flight together, over chunk borders, survive a takeover. */
void index_parallel(void **state)
{
	uint32_t vid, idx[64];
	struct rig *r = start(3, 3, &vid);
	struct tr t[64];

	memset(t, 0, sizeof(t));
	for (int i = 0; i < 64; i++) {
		idx[i] = i < 32 ? 4096 - 16 + i : 1000 * i;
		tr_start(r, &t[i], i % 2, WRITE, SD_INODE_OID(vid), IDX(idx[i]), &vid, 4, 0);
	}
	for (int i = 0; i < 64; i++) {
		assert_int_equal(tr_wait(r, &t[i]), SD_RES_SUCCESS);
		tr_end(&t[i]);
	}
	rig_compare(r);
	rig_kill(r, 0);
	rig_view(r);
	for (int i = 0; i < 64; i++)
		assert_int_equal(idx_get(r, 1, vid, idx[i]), vid);
	assert_int_equal(idx_get(r, 1, vid, 4096 + 20), 0);
	rig_free(r);
}

/* T23: an object that was made again while its discard was on its way stays. */
void discard_races(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	struct tr d = {0}, c = {0};
	uint64_t o = SD_DATA_OID(vid, 0);
	uint32_t zero = 0;

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(idx_set(r, 0, vid, 0, vid, 0), SD_RES_SUCCESS);
	r->n[2].insync = false;
	tr_start(r, &d, 0, WRITE, SD_INODE_OID(vid), IDX(0), &zero, 4, 0);
	rig_sleep(r, 10 * MS);
	tr_start(r, &c, 0, CREATE, o, 0, pat(2), 4096, 0);
	rig_sleep(r, 10 * MS);
	assert_false(d.done || c.done);
	r->n[2].insync = true;
	rig_kick(&r->n[2]);
	assert_int_equal(tr_wait(r, &d), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &c), SD_RES_SUCCESS);
	tr_end(&d);
	tr_end(&c);
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2));
	rig_compare(r);
	rig_free(r);
}

/* ---- durability ---- */

static unsigned flushes(struct rig *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->nr; i++)
		n += r->n[i].nr_flush;
	return n;
}

/* WHY B5 */
void flush(void **state)
{
	uint32_t vid;
	struct rig *r = start(4, 2, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 1, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(flushes(r), 4); /* the first of a generation: all */
	assert_int_equal(rq(r, 1, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(flushes(r), 4);
	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, CACHE), SD_RES_SUCCESS);
	for (int n = 0; n < 4; n++) /* T13: what an index entry will name */
		assert_true(!rig_obj(r, n, o) || !rig_obj(r, n, o)->cached);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(2), 4096, CACHE | SD_FLAG_DIRECT), 0);
	assert_int_equal(rq(r, 0, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(flushes(r), 4);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(3), 4096, CACHE), SD_RES_SUCCESS);
	/* the members change places: node 0 may die, the cached write is remembered */
	int holder = 0;
	for (int n = 1; n < 4; n++)
		if (rig_obj(r, n, o))
			holder = n;
	assert_true(holder && rig_obj(r, holder, o)->cached);
	assert_int_equal(rq(r, 0, WRITE, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(flushes(r), 6); /* T9: QEMU's resent flush; the two replicas */
	assert_false(rig_obj(r, holder, o)->cached);
	/* a new generation: all again, for what the owner before may have left */
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(4), 4096, CACHE), SD_RES_SUCCESS);
	rig_kill(r, 0);
	rig_view(r);
	rig_recover(r);
	unsigned before = flushes(r);
	assert_int_equal(rq(r, 1, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(flushes(r), before + 3);
	/* cache lost: EIO once */
	rig_vdi(r, vid)->cache_lost = true;
	assert_int_equal(rq(r, 1, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_EIO);
	assert_int_equal(rq(r, 1, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	rig_free(r);
}

/* A cached write whose answer comes while a flush runs is the next flush's; and the members of the
 * list are followed through a view in which they have other places. */
void flush_races(void **state)
{
	uint32_t vid;
	struct rig *r = start(4, 4, &vid);
	struct tr f = {0}, g = {0};
	uint64_t o = SD_DATA_OID(vid, 0);

	/* owner: node 2 */
	rig_kill(r, 0);
	rig_view(r);
	assert_int_equal(rq(r, 2, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 2, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 2, WRITE, o, 0, pat(2), 4096, CACHE), SD_RES_SUCCESS);
	rig_restart(r, 0);
	rig_view(r); /* 1, 2, 3 were places 0, 1, 2 */
	rig_recover(r);
	unsigned n1 = r->n[1].nr_flush, n3 = r->n[3].nr_flush;
	assert_int_equal(rq(r, 2, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	assert_int_equal(r->n[1].nr_flush, n1 + 1);
	assert_int_equal(r->n[3].nr_flush, n3 + 1);
	assert_int_equal(r->n[0].nr_flush, 0);
	/* a member does not answer: the flush waits, a second one too; it dies: both are done */
	assert_int_equal(rq(r, 2, WRITE, o, 0, pat(3), 4096, CACHE), SD_RES_SUCCESS);
	r->blocked[2][3] = true;
	tr_start(r, &f, 2, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0);
	rig_sleep(r, 10 * MS);
	tr_start(r, &g, 2, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0);
	rig_sleep(r, 100 * MS);
	assert_false(f.done || g.done);
	rig_kill(r, 3);
	rig_view(r);
	assert_int_equal(tr_wait(r, &f), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &g), SD_RES_SUCCESS);
	assert_false(rig_obj(r, 1, o)->cached);
	tr_end(&f);
	tr_end(&g);
	rig_free(r);
}

/* ---- degraded ---- */

void degraded(void **state)
{
	uint32_t vid, other;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	rig_kill(r, 2);
	rig_view(r);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(2), 4096, 0), SD_RES_SUCCESS);
	r->params.flags = SD_CLUSTER_STRICT;
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(3), 4096, 0), SD_RES_HALT);
	assert_int_equal(idx_set(r, 0, vid, 0, vid, 0), SD_RES_HALT);
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_int_equal(rq_create(r, 0, "c", 1, &other), SD_RES_VDI_WRITE);
	r->params.flags = 0;
	for (int i = 0; i < 2; i++)
		r->n[i].conf.gateway = true;
	rig_view(r);
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_HALT);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(3), 4096, 0), SD_RES_HALT);
	assert_int_equal(rq_create(r, 0, "c", 1, &other), SD_RES_VDI_WRITE);
	rig_free(r);
}

/* Space is asked for before a version is taken. */
void space(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr t = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->n[0].full = true; /* the owner's own store */
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(2), 4096, 0), SD_RES_NO_SPACE);
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 1));
	r->n[0].full = false;
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(2), 4096, 0), SD_RES_SUCCESS);
	/* another one's: not known at once; what was sent is not given up */
	r->n[2].full = true;
	tr_start(r, &t, 0, WRITE, o, 0, pat(3), 4096, 0);
	rig_sleep(r, 500 * MS);
	assert_false(t.done);
	assert_int_equal(rig_obj(r, 1, o)->data[0], 3);
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 1), 0, pat(3), 4096, 0),
			 SD_RES_NO_SPACE);
	assert_null(rig_obj(r, 1, SD_DATA_OID(vid, 1)));
	r->n[2].full = false;
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	rig_sleep(r, 300 * MS); /* its word is believed that long */
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 1), 0, pat(3), 4096, 0), SD_RES_SUCCESS);
	/* discards still work on a full cluster: the index write needs no room */
	assert_int_equal(idx_set(r, 0, vid, 1, vid, 0), SD_RES_SUCCESS);
	rig_compare(r);
	rig_free(r);
}

/* Below the reserve only what needs more room is refused, and nothing as soon as there is some. */
void low_space(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0), p = SD_DATA_OID(vid, 1);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(r->n[0].nr_room + r->n[1].nr_room + r->n[2].nr_room, 0);
	for (int n = 0; n < 3; n++) { /* the owner's own store, others' */
		r->n[n].low = true;
		rig_sleep(r, 300 * MS);
		assert_int_equal(rq(r, 0, WRITE, o, 0, pat(2 + n), 4096, 0), SD_RES_SUCCESS);
		rig_sleep(r, 10 * MS); /* by now it is known */
		assert_int_equal(rq(r, 0, WRITE, o, 0, pat(2 + n), 4096, 0), SD_RES_SUCCESS);
		assert_true(r->n[n].nr_room > 0);
		assert_int_equal(rq(r, 0, WRITE, o, HOLE, pat(9), 4096, 0), SD_RES_NO_SPACE);
		assert_int_equal(rq(r, 1, CREATE, p, 0, pat(9), 4096, 0), SD_RES_NO_SPACE);
		assert_null(rig_obj(r, n, p));
		assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
		assert_true(all(got, 4096, 2 + n));
		r->n[n].low = false;
		assert_int_equal(rq(r, 0, WRITE, o, HOLE, pat(9), 4096, 0), SD_RES_SUCCESS);
		assert_int_equal(rq(r, 0, CREATE, p, 0, pat(9), 4096, 0), SD_RES_SUCCESS);
		r->n[n].low = true;
		assert_int_equal(rq(r, 0, REMOVE, p, 0, NULL, 0, 0), SD_RES_SUCCESS);
		r->n[n].low = false;
	}
	/* a view while it asks */
	r->n[1].low = true;
	rig_sleep(r, 300 * MS);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(6), 4096, 0), SD_RES_SUCCESS);
	rig_sleep(r, 10 * MS);
	struct tr t = {0};
	r->blocked[0][1] = true;
	tr_start(r, &t, 0, WRITE, o, HOLE, pat(7), 4096, 0);
	rig_sleep(r, 10 * MS);
	assert_false(t.done);
	rig_kill(r, 1);
	rig_view(r);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	rig_compare(r);
	rig_free(r);
}

/* Nobody had known: the write was sent, and no replica can do it. */
void all_full(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr t = {0}, u = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	for (int n = 0; n < 3; n++)
		r->n[n].impatient = true;
	r->blocked[0][1] = true;
	tr_start(r, &t, 0, WRITE, o, 0, pat(2), 4096, 0);
	tr_start(r, &u, 0, WRITE, o, 8192, pat(3), 4096, 0);
	rig_sleep(r, 10 * MS); /* two have them */
	r->n[1].full = true;
	rig_unblock(r, 0, 1);
	rig_sleep(r, 500 * MS);
	assert_false(t.done || u.done);
	r->n[1].full = false;
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &u), SD_RES_SUCCESS);
	tr_end(&t);
	tr_end(&u);
	r->blocked[0][1] = true;
	rig_sleep(r, 300 * MS);
	r->blocked[0][2] = true;
	tr_start(r, &t, 0, WRITE, o, 0, pat(4), 4096, 0);
	tr_start(r, &u, 0, WRITE, o, 8192, pat(5), 4096, 0);
	r->n[0].full = r->n[1].full = r->n[2].full = true;
	rig_sleep(r, 10 * MS);
	rig_unblock(r, 0, 1);
	rig_unblock(r, 0, 2);
	assert_int_equal(tr_wait(r, &t), SD_RES_NO_SPACE);
	assert_int_equal(tr_wait(r, &u), SD_RES_NO_SPACE);
	tr_end(&t);
	tr_end(&u);
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2));
	r->n[0].full = r->n[1].full = r->n[2].full = false;
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(6), 4096, 0), SD_RES_SUCCESS);
	rig_compare(r);
	rig_free(r);
}

void bad_replicas(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->n[0].bad = true;
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 1));
	r->n[1].bad = r->n[2].bad = true;
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_EIO);
	r->n[0].bad = r->n[1].bad = r->n[2].bad = false;
	/* lost by one: read elsewhere, and brought back */
	r->n[0].lose = true;
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 1));
	rig_sleep(r, 100 * MS);
	rig_compare(r);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(2), 4096, 0), SD_RES_SUCCESS);
	/* the local one is not in sync: another one answers */
	r->n[0].insync = false;
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	r->n[0].insync = true;
	rig_free(r);
}

/* A replica in sync has lost an object: writes do not wait for ever. */
void lost_replica(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr t[4];

	memset(t, 0, sizeof(t));
	for (int i = 0; i < 3; i++)
		r->n[i].impatient = true;
	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	rig_lose(r, 2, o);
	for (int i = 0; i < 4; i++)
		tr_start(r, &t[i], 0, WRITE, o, i * 4096, pat(2 + i), 4096, 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(tr_wait(r, &t[i]), SD_RES_SUCCESS);
		tr_end(&t[i]);
	}
	assert_int_equal(r->n[2].nr_settle, 1);
	assert_int_equal(rig_obj(r, 2, o)->data[3 * 4096], 5);
	rig_compare(r);
	rig_free(r);
}

/* ---- deleting ---- */

static bool gone(struct rig *r, uint32_t vid)
{
	uint64_t oid;
	size_t pos;

	for (unsigned i = 0; i < r->nr; i++)
		for (pos = 0; r->n[i].up && map_next(&r->n[i].objs, &pos, &oid);)
			if (SD_OID_VID(oid) == vid)
				return false;
	return true;
}

static void fill(struct rig *r, uint32_t vid)
{
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 0), 0, pat(1), 4096, 0), 0);
	assert_int_equal(idx_set(r, 0, vid, 0, vid, 0), 0);
	/* an orphan, one beyond the size, vmstate without a size */
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 7), 0, pat(1), 4096, 0), 0);
	assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(vid, 5000), 0, pat(1), 4096, 0), 0);
	assert_int_equal(idx_set(r, 0, vid, 5000, vid, 0), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(rq(r, 0, CREATE, SD_VMSTATE_OID(vid, i), 0, pat(1), 4096, 0), 0);
}

void deletion(void **state)
{
	uint32_t vid, again;
	struct rig *r = start(3, 3, &vid);

	fill(r, vid);
	assert_int_equal(rq_delete(r, 1, "none"), SD_RES_NO_VDI);
	assert_int_equal(rq_delete(r, 1, "a"), SD_RES_SUCCESS); /* not at its owner */
	assert_int_equal(rq_create(r, 1, "a", 1 << 20, &again), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, WRITE, SD_DATA_OID(vid, 0), 0, pat(1), 4096, 0), SD_RES_NO_OBJ);
	rig_sleep(r, 2000 * MS);
	assert_true(gone(r, vid));
	for (int n = 0; n < 3; n++) /* nobody looks again: it stays so over a power cut of all */
		assert_int_equal(r->n[n].nr_volatile, 0);
	assert_false(gone(r, again));
	assert_false(rig_vdi(r, vid)->reclaiming);
	/* the tombstone stays readable: no name, no size, no index */
	assert_int_equal(rq_read(r, 2, SD_INODE_OID(vid), 0, got, 8192), SD_RES_SUCCESS);
	assert_true(all(got, 256, 0) && all(got + 4664, 3528, 0));
	assert_int_equal(((struct sd_inode_header *)got)->vdi_id, vid);
	rig_free(r);
}

/* The owner dies in the middle, with a write in flight: the lowest member goes on. */
void deletion_dies(void **state)
{
	uint32_t vid;
	struct rig *r = start(4, 3, &vid);
	struct tr t = {0};

	fill(r, vid);
	for (int n = 1; n < 4; n++)
		r->n[n].insync = false;
	tr_start(r, &t, 0, CREATE, SD_DATA_OID(vid, 2), 0, pat(1), 4096, 0);
	rig_sleep(r, 10 * MS);
	assert_int_equal(rq_delete(r, 1, "a"), SD_RES_SUCCESS);
	rig_sleep(r, 1000 * MS);
	assert_false(gone(r, vid)); /* waits for the write */
	for (int n = 1; n < 4; n++)
		r->n[n].insync = true;
	rig_kill(r, 0);
	tr_wait(r, &t);
	tr_end(&t);
	rig_view(r);
	rig_recover(r);
	rig_sleep(r, 3000 * MS);
	assert_true(gone(r, vid));
	assert_false(rig_vdi(r, vid)->reclaiming);
	rig_free(r);
}
