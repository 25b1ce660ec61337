/* gw_sweep.c - a part of test_gateway: the takeover's sweep (DESIGN 5.6). */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "lib/proto/ring.h"
#include "tests/unit/gw_tests.h"

/* ---- a replica's answer ---- */

static int oid_cmp(const void *a, const void *b)
{
	uint64_t x = sd_hash_oid(*(const uint64_t *)a), y = sd_hash_oid(*(const uint64_t *)b);

	return x < y ? -1 : x > y;
}

/* The objects of one VDI, rig.list_max at a time. */
void rig_list(struct node *n, struct msg *m)
{
	struct peer_hdr *h = &m->h.req;
	uint64_t *all = calloc(n->objs.nr + 1, sizeof(*all)), oid;
	size_t pos = 0, nr = 0, max = n->rig->list_max;

	n->nr_list++;
	m->h.rsp.result = n->mute_list ? SD_RES_EIO : SD_RES_SUCCESS;
	while (map_next(&n->objs, &pos, &oid))
		if (SD_OID_VID(oid) == h->vid && sd_hash_oid(oid) >= h->off)
			all[nr++] = oid;
	qsort(all, nr, sizeof(*all), oid_cmp);
	m->h.rsp.off = h->off;
	m->h.rsp.len = nr > max ? sd_hash_oid(all[max]) - 1 : UINT64_MAX;
	nr = nr > max ? max : nr;
	m->h.reply_buf = buf_new(n->rig->pool, nr * sizeof(*all) + 1);
	memcpy(m->h.reply_buf->data, all, nr * sizeof(*all));
	m->h.reply_len = nr * sizeof(*all);
	free(all);
}

/* ---- tests ---- */

#define NR 24u /* objects that the owner wrote */

struct torn { /* an owner that died with @nr writes, creates and removals on one replica only */
	struct rig *r;
	uint32_t vid;
	uint64_t o[3 * NR];
};

static void half_done(struct torn *s)
{
	struct rig *r = s->r;
	struct tr *t = calloc(3 * NR, sizeof(*t));

	for (unsigned i = 0; i < 3 * NR; i++)
		s->o[i] = SD_DATA_OID(s->vid, i);
	for (unsigned i = 0; i < 2 * NR; i++)
		assert_int_equal(rq(r, 0, CREATE, s->o[i], 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->blocked[0][1] = true;
	for (unsigned i = 0; i < NR; i++)
		tr_start(r, &t[i], 0, WRITE, s->o[i], 0, pat(2), 4096, 0);
	for (unsigned i = NR; i < 2 * NR; i++)
		tr_start(r, &t[i], 0, REMOVE, s->o[i], 0, NULL, 0, 0);
	for (unsigned i = 2 * NR; i < 3 * NR; i++)
		tr_start(r, &t[i], 0, CREATE, s->o[i], 0, pat(3), 4096, 0);
	rig_sleep(r, 100 * MS);
	rig_kill(r, 0);
	for (unsigned i = 0; i < 3 * NR; i++) {
		assert_int_equal(tr_wait(r, &t[i]), NOTHING);
		tr_end(&t[i]);
	}
	free(t);
}

static void begin(struct torn *s, unsigned nodes)
{
	s->r = start(nodes, nodes, &s->vid);
	s->r->list_max = 5;
	half_done(s);
}

static bool is_clean(struct torn *s, int node)
{
	const struct vdi *v = rig_vdi(s->r, s->vid);

	return v->owned && v->clean &&
	       !memcmp(&v->owner, &s->r->n[node].sh.self.inc, sizeof(v->owner));
}

static void wait_clean(struct torn *s, int node)
{
	for (unsigned i = 0; i < 1000 && !is_clean(s, node); i++)
		rig_sleep(s->r, 10 * MS);
	assert_true(is_clean(s, node));
}

/* One request makes node 1 the owner; all the rest is found and made equal, page by page, whether
 * the inode refers to it or not.  Then the next owner's generation begins clean. */
void sweep(void **state)
{
	struct torn s;

	begin(&s, 3);
	struct rig *r = s.r;
	assert_null(rig_obj(r, 1, s.o[2 * NR]));
	assert_non_null(rig_obj(r, 1, s.o[NR]));
	rig_view(r);
	assert_int_equal(idx_get(r, 1, s.vid, 0), 0);
	wait_clean(&s, 1);
	rig_compare(r);
	for (unsigned i = 0; i < 3 * NR; i++)
		assert_non_null(rig_obj(r, 1, s.o[i])); /* the highest wins: nothing was removed */
	assert_true(rig_obj(r, 1, s.o[0])->data[0] == 2 && rig_obj(r, 1, s.o[NR])->data[0] == 1);
	assert_true(rig_obj(r, 1, s.o[2 * NR])->data[0] == 3);
	assert_true(r->n[1].nr_list > 2 * NR / 5);
	/* it is done once, and what came of it is served */
	unsigned lists = r->n[2].nr_list, v2 = r->n[2].nr_version;
	rig_sleep(r, 3000 * MS);
	assert_int_equal(rq_read(r, 1, s.o[3], 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2));
	assert_int_equal(r->n[2].nr_list, lists);
	assert_int_equal(r->n[2].nr_version, v2); /* clean: only our own replica was asked */
	rig_free(r);
}

/* A view in the middle: the page is listed and compared anew, the end is the same. */
void sweep_views(void **state)
{
	for (unsigned ms = 1; ms < 40; ms += 3) {
		struct torn s;

		begin(&s, 4);
		struct rig *r = s.r;
		r->delay_us = 500;
		rig_view(r);
		assert_int_equal(idx_get(r, 1, s.vid, 0), 0);
		rig_sleep(r, ms * MS);
		rig_kill(r, 2);
		rig_view(r);
		rig_sleep(r, ms * MS);
		rig_restart(r, 2);
		rig_view(r);
		rig_recover(r);
		wait_clean(&s, 1);
		rig_compare(r);
		rig_free(r);
	}
}

/* A member that cannot list its objects: never clean, but nothing else waits for it; a drain ends
 * it, and what is handed out is dirty. */
void sweep_stuck(void **state)
{
	struct torn s;

	begin(&s, 3);
	struct rig *r = s.r;
	r->n[2].mute_list = true;
	rig_view(r);
	assert_int_equal(idx_get(r, 1, s.vid, 0), 0);
	rig_sleep(r, 2000 * MS);
	assert_false(is_clean(&s, 1));
	assert_true(r->n[2].nr_list > 1);
	assert_int_equal(rq_read(r, 1, s.o[1], 0, got, 4096), SD_RES_SUCCESS);
	/* the owner dies: the next one does it */
	rig_kill(r, 1);
	r->n[2].mute_list = false;
	rig_view(r);
	assert_int_equal(idx_get(r, 2, s.vid, 0), 0);
	wait_clean(&s, 2);
	rig_free(r);
}

/* Requests of clients all the time: it comes to its end none the less, and they do as well. */
void sweep_busy(void **state)
{
	struct torn s;
	struct tr t[4];

	begin(&s, 3);
	struct rig *r = s.r;
	rig_view(r);
	memset(t, 0, sizeof(t));
	for (unsigned i = 0; i < 5000 && !is_clean(&s, 1); i++) {
		for (unsigned k = 0; k < 4; k++) {
			uint64_t o = s.o[(i * 4 + k) % (3 * NR)];
			if (i % 7)
				tr_start(r, &t[k], 1, CREATE, o, 0, pat(9), 4096, 0);
			else
				tr_start(r, &t[k], 1, REMOVE, o, 0, NULL, 0, 0);
		}
		for (unsigned k = 0; k < 4; k++) {
			uint32_t res = tr_wait(r, &t[k]);
			assert_true(res == SD_RES_SUCCESS || res == SD_RES_NO_OBJ);
			tr_end(&t[k]);
		}
	}
	assert_true(is_clean(&s, 1));
	rig_compare(r);
	rig_free(r);
}
