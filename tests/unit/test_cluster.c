/* The cluster state machine: commands and answers, encoding, determinism; members in
 * cluster_members.c. */
#include "config.h"

#include "tests/unit/cluster_rig.h"

/* ---- format ---- */

static void test_format(void **state)
{
	struct join j1 = join_of(1, 1), j2 = join_of(2, 1);
	struct cs *s = found(&j1);
	struct cmd f = format_cmd();

	assert_int_equal(s->status, CLUSTER_WAIT_FORMAT);
	assert_int_equal(CMD(s, 1, .type = CMD_CLAIM, .vid = 1), SD_RES_WAIT_FOR_FORMAT);
	assert_int_equal(CMD(s, 1, .type = CMD_FORCE_RECOVER), SD_RES_WAIT_FOR_FORMAT);
	assert_int_equal(CMD(s, 1, .type = CMD_BARRIER), OK);
	/* somebody who has not joined is not heard */
	assert_int_equal(send_cmd(s, 2, 1, &f), SD_RES_WAIT_FOR_JOIN);
	send_join(s, &j2);
	send_state(s, &j2);
	f = format_cmd();
	f.copies = 32;
	assert_int_equal(send_cmd(s, 2, 1, &f), SD_RES_INVALID_PARMS);
	f = format_cmd();
	f.flags = 0; /* -V, but the nodes compute theirs */
	assert_int_equal(send_cmd(s, 2, 1, &f), SD_RES_INVALID_VNODES_STRATEGY);
	f = format_cmd();
	assert_int_equal(send_cmd(s, 2, 1, &f), OK);
	assert_true(out.format && out.epoch && !out.clean && !out.guess);
	assert_int_equal(s->status, CLUSTER_RUNNING);
	assert_int_equal(epoch(s), 1);
	assert_int_equal(s->nr_members, 2);
	assert_int_equal(s->nr_start, 2);
	assert_memory_equal(cs_newest(s)->name, "\1\2\3\4\5\6\7\10", 8);
	assert_int_equal(cs_newest(s)->time, 1700000000);
	assert_int_equal(s->members[0].nr_vnodes, 128);
	/* again: the request sent twice, then a real one */
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_CREATE, .name = "a", .size = 1), OK);
	f = format_cmd();
	assert_int_equal(send_cmd(s, 2, 1, &f), OK);
	assert_false(out.format);
	assert_int_equal(s->nr_vdis, 1);
	uint64_t gen = s->gen;
	f = format_cmd();
	f.ctime++;
	assert_int_equal(send_cmd(s, 2, 1, &f), OK);
	assert_true(out.format);
	assert_int_equal(s->nr_vdis, 0);
	assert_int_equal(epoch(s), 1);
	assert_true(s->gen >= gen); /* C4 */
	cs_free(s);
}

static void test_vnodes(void **state)
{
	static const uint64_t space[] = {1000, 3000, 2000, 0};
	static const unsigned want[] = {64, 192, 128, 0};
	struct join j = join_of(1, 1);
	j.m.space = space[0];
	struct cs *s = found(&j);
	struct cmd f = format_cmd();

	for (unsigned n = 2; n <= 4; n++) {
		j = join_of(n, 1);
		j.m.space = space[n - 1];
		j.m.gateway = n == 4;
		send_join(s, &j);
		send_state(s, &j);
	}
	assert_int_equal(send_cmd(s, 1, 1, &f), OK);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(s->members[i].nr_vnodes, want[i]);
	/* a new capacity counts from the next epoch on */
	assert_int_equal(CMD(s, 2, .type = CMD_SPACE, .size = 1000), OK);
	assert_int_equal(s->members[1].nr_vnodes, 192);
	VIEW(s, 1, 2, 4);
	assert_int_equal(epoch(s), 2);
	assert_true(out.guess);
	assert_int_equal(s->members[0].nr_vnodes, 128);
	assert_int_equal(s->members[1].nr_vnodes, 128);
	cs_free(s);
}

/* ---- VDIs ---- */

static uint32_t lookup(const struct cs *s, const char *name, const char *tag, uint32_t id)
{
	char n[256] = {0}, t[256] = {0};
	struct vdi *v;

	snprintf(n, sizeof(n), "%s", name);
	snprintf(t, sizeof(t), "%s", tag);
	return cs_lookup(s, n, t, id, &v);
}

static void test_create(void **state)
{
	struct cs *s = group(2);
	struct cmd c;

	assert_int_equal(create(s, 1, "test", &c), OK);
	assert_int_equal(c.ret_vid, 0x7c2b25); /* protocol.md 4.3 */
	assert_int_equal(c.ret_copies, 3);
	assert_int_equal(c.ret_shift, 22);
	const struct vdi *v = cs_vdi(s, c.ret_vid);
	assert_true(v->creating && v->owned && v->clean && v->gen == c.ret_gen);
	assert_true(v->create_time == (5ull << 32 | 42));
	assert_int_equal(v->snap_id, 1);
	assert_int_equal(v->create_epoch, 1);
	assert_int_equal(lookup(s, "test", "", 0), SD_RES_NO_VDI);
	struct cmd again;
	assert_int_equal(create(s, 2, "test", &again), SD_RES_AGAIN);
	/* only its creator, with its generation, makes it visible */
	assert_int_equal(CMD(s, 2, .type = CMD_VDI_VISIBLE, .vid = c.ret_vid, .gen = c.ret_gen),
			 SD_RES_VDI_NOT_LOCKED);
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_VISIBLE, .vid = c.ret_vid, .gen = c.ret_gen + 1),
			 SD_RES_VDI_NOT_LOCKED);
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_VISIBLE, .vid = c.ret_vid, .gen = c.ret_gen),
			 OK);
	assert_int_equal(out.nr_vids, 1);
	assert_int_equal(lookup(s, "test", "", 0), OK);
	assert_int_equal(lookup(s, "test", "tag", 0), SD_RES_NO_TAG);
	assert_int_equal(lookup(s, "test", "", 1), SD_RES_NO_TAG);
	assert_int_equal(create(s, 2, "test", &again), SD_RES_VDI_EXIST);
	/* bounds */
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_CREATE, .name = "big", .size = (1ull << 42) + 1),
			 SD_RES_INVALID_PARMS);
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_CREATE, .name = "big", .size = 1ull << 42), OK);
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_CREATE, .name = "c", .copies = 32),
			 SD_RES_INVALID_PARMS);
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_CREATE, .name = ""), SD_RES_INVALID_PARMS);
	/* deleted: the name is free, the vid is not (T15, T16) */
	cs_vdi(s, 0x7c2b25)->size = 1u << 20;
	assert_int_equal(CMD(s, 2, .type = CMD_VDI_DELETE, .name = "test"), OK);
	v = cs_vdi(s, 0x7c2b25);
	assert_true(v->deleted && v->reclaiming && !v->name[0]);
	assert_int_equal(v->size, 1u << 20); /* reclaim removes what no index entry names, too */
	assert_int_equal(CMD(s, 2, .type = CMD_VDI_DELETE, .name = "test"), SD_RES_NO_VDI);
	assert_int_equal(create_visible(s, 2, "test", &c), OK);
	assert_int_equal(c.ret_vid, 0x7c2b26);
	assert_int_equal(lookup(s, "test", "", 0), OK);
	cs_free(copy(s));
	cs_free(s);
}

/* Vids wrap around the end of their range, and lookups with them. */
static void test_vid_wrap(void **state)
{
	struct cs *s = group(1);
	char name[16] = "";
	struct cmd c;
	unsigned i = 0;

	do
		snprintf(name, sizeof(name), "n%u", i++);
	while (sd_hash_vdi(name) < 0xffff00);
	uint32_t h = sd_hash_vdi(name);
	for (unsigned k = 0; k < 0x1000000 - h + 2; k++) {
		assert_int_equal(create_visible(s, 1, name, &c), OK);
		assert_int_equal(c.ret_vid,
				 h + k < 0x1000000 ? h + k : h + k - 0x1000000 + 1); /* never 0 */
		assert_int_equal(lookup(s, name, "", 0), OK);
		if (k < 0x1000000 - h + 1)
			assert_int_equal(send_cmd(s, 1, 1, &(struct cmd){.type = CMD_BARRIER}), OK);
		struct cmd d = {.type = CMD_VDI_DELETE};
		memcpy(d.name, c.name, sizeof(d.name));
		assert_int_equal(send_cmd(s, 1, 1, &d), OK);
		assert_int_equal(d.ret_vid, c.ret_vid);
	}
	cs_free(s);
}

/* Snapshots cannot be made yet, but what finds them is there (protocol.md 6.1). */
static void test_lookup_snapshots(void **state)
{
	struct cs *s = group(1);
	struct cmd c;
	struct vdi *v;

	assert_int_equal(create_visible(s, 1, "s", &c), OK);
	v = cs_vdi(s, c.ret_vid);
	v->snap_ctime = 1;
	snprintf(v->tag, sizeof(v->tag), "one");
	assert_int_equal(lookup(s, "s", "", 0), SD_RES_NO_VDI);
	assert_int_equal(lookup(s, "s", "two", 0), SD_RES_NO_VDI);
	assert_int_equal(create_visible(s, 1, "s", &c), OK);
	assert_int_equal(cs_vdi(s, c.ret_vid)->snap_id, 2);
	assert_int_equal(lookup(s, "s", "", 0), OK);
	assert_int_equal(lookup(s, "s", "one", 0), OK);
	assert_int_equal(lookup(s, "s", "two", 1), OK); /* tag or id */
	assert_int_equal(lookup(s, "s", "one", 9), OK);
	assert_int_equal(lookup(s, "s", "two", 9), SD_RES_NO_TAG);
	assert_int_equal(lookup(s, "s", "", 2), SD_RES_NO_TAG); /* never a working one */
	/* readers of a snapshot do not exclude each other */
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_LOCK, .name = "s", .tag = "one"), OK);
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_LOCK, .name = "s", .tag = "one"), OK);
	cs_free(s);
}

static void test_claim(void **state)
{
	struct cs *s = group(3);
	struct cmd c, k;

	assert_int_equal(create_visible(s, 1, "v", &c), OK);
	uint32_t vid = c.ret_vid;
	assert_int_equal(CMD(s, 2, .type = CMD_CLAIM, .vid = 99), SD_RES_NO_VDI);
	k = (struct cmd){.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(send_cmd(s, 2, 1, &k), SD_RES_VDI_LOCKED);
	assert_true(inc_same(&k.ret_owner, &(struct incarnation){0}) == false);
	struct incarnation one = inc(1, 1);
	assert_true(inc_same(&k.ret_owner, &one));
	/* release: wrong owner, wrong generation, dirty, clean */
	assert_int_equal(CMD(s, 2, .type = CMD_RELEASE, .vid = vid, .gen = c.ret_gen),
			 SD_RES_VDI_NOT_LOCKED);
	assert_int_equal(CMD(s, 1, .type = CMD_RELEASE, .vid = vid, .gen = c.ret_gen - 1),
			 SD_RES_VDI_NOT_LOCKED);
	assert_int_equal(CMD(s, 1, .type = CMD_RELEASE, .vid = vid, .gen = c.ret_gen), OK);
	k = (struct cmd){.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(send_cmd(s, 2, 1, &k), OK);
	assert_true(k.ret_gen > c.ret_gen && k.ret_dirty);
	assert_int_equal(CMD(s, 2, .type = CMD_CLEAN, .vid = vid, .gen = k.ret_gen), OK);
	assert_int_equal(
		CMD(s, 2, .type = CMD_RELEASE, .vid = vid, .gen = k.ret_gen, .clean = true), OK);
	uint64_t gen = k.ret_gen;
	k = (struct cmd){.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(send_cmd(s, 3, 1, &k), OK);
	assert_true(k.ret_gen > gen && !k.ret_dirty);
	/* the owner has forgotten: a new generation, dirty */
	gen = k.ret_gen;
	k = (struct cmd){.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(send_cmd(s, 3, 1, &k), OK);
	assert_true(k.ret_gen > gen && k.ret_dirty);
	assert_int_equal(CMD(s, 3, .type = CMD_CLEAN, .vid = vid, .gen = gen),
			 SD_RES_VDI_NOT_LOCKED);
	/* a clean owner that dies leaves it dirty all the same */
	assert_int_equal(CMD(s, 3, .type = CMD_CLEAN, .vid = vid, .gen = k.ret_gen), OK);
	VIEW(s, 1, 2);
	gen = k.ret_gen;
	k = (struct cmd){.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(send_cmd(s, 1, 1, &k), OK);
	assert_true(k.ret_gen > gen && k.ret_dirty);
	/* the dead one's own words are void */
	assert_int_equal(CMD(s, 3, .type = CMD_RELEASE, .vid = vid, .gen = gen, .clean = true),
			 SD_RES_WAIT_FOR_JOIN);
	assert_true(cs_vdi(s, vid)->owned);
	cs_free(s);
}

static void test_owner_commands(void **state)
{
	struct cs *s = group(2);
	struct cmd c;
	struct vdi *v;

	assert_int_equal(create_visible(s, 1, "v", &c), OK);
	v = cs_vdi(s, c.ret_vid);
	struct cmd h = {.type = CMD_VDI_HEADER,
			.vid = v->vid,
			.gen = v->gen,
			.tag = "t",
			.size = 1u << 20,
			.vm_state_size = 5,
			.vm_clock_nsec = 6};
	struct cmd x = h;
	assert_int_equal(send_cmd(s, 2, 1, &x), SD_RES_VDI_NOT_LOCKED);
	x = h;
	assert_int_equal(send_cmd(s, 1, 1, &x), OK);
	assert_string_equal(v->tag, "t");
	assert_true(v->size == 64u << 20 && v->vm_state_size == 5 && v->vm_clock_nsec == 6);
	x = h;
	x.size = 128u << 20;
	memset(x.tag, 'x', sizeof(x.tag)); /* QEMU may fill all 256 bytes */
	assert_int_equal(send_cmd(s, 1, 1, &x), OK);
	assert_true(v->size == 128u << 20);
	assert_memory_equal(v->tag, x.tag, sizeof(v->tag));
	x = h;
	x.size = (1ull << 42) + 1;
	assert_int_equal(send_cmd(s, 1, 1, &x), SD_RES_INVALID_PARMS);
	assert_int_equal(CMD(s, 1, .type = CMD_CACHED, .vid = v->vid, .gen = v->gen), OK);
	assert_int_equal(
		CMD(s, 1, .type = CMD_CACHE_LOST, .vid = v->vid, .gen = v->gen, .on = true), OK);
	assert_true(v->cache_lost);
	/* decided before the VDI was opened once more */
	assert_int_equal(CMD(s, 2, .type = CMD_VDI_LOCK, .name = "v", .lock_type = VDI_OPEN), OK);
	x = h;
	x.vm_state_size = 7;
	assert_int_equal(send_cmd(s, 1, 1, &x), SD_RES_OLD_NODE_VER);
	assert_int_equal(v->vm_state_size, 5);
	x.ctime = v->opens;
	assert_int_equal(send_cmd(s, 1, 1, &x), OK);
	assert_int_equal(v->vm_state_size, 7);
	cs_free(copy(s));
	assert_int_equal(CMD(s, 1, .type = CMD_CACHE_LOST, .vid = v->vid, .gen = v->gen), OK);
	assert_false(v->cache_lost);
	cs_free(s);
}

static void test_reclaim(void **state)
{
	struct cs *s = group(3);
	struct cmd c, k;
	struct vdi *v;

	assert_int_equal(create_visible(s, 1, "v", &c), OK);
	v = cs_vdi(s, c.ret_vid);
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_RECLAIMED, .vid = v->vid, .gen = v->gen),
			 SD_RES_NO_VDI); /* not deleted */
	uint32_t family = v->family;
	assert_int_equal(CMD(s, 2, .type = CMD_VDI_DELETE, .name = "v"), OK);
	assert_true(v->family > family);
	/* while its owner lives, it is his work */
	assert_int_equal(CMD(s, 2, .type = CMD_VDI_RECLAIMED, .vid = v->vid), SD_RES_VDI_LOCKED);
	VIEW(s, 2, 3);
	k = (struct cmd){.type = CMD_CLAIM, .vid = v->vid};
	assert_int_equal(send_cmd(s, 3, 1, &k), OK);
	assert_int_equal(CMD(s, 3, .type = CMD_VDI_RECLAIMED, .vid = v->vid, .gen = 1),
			 SD_RES_VDI_NOT_LOCKED);
	assert_int_equal(CMD(s, 3, .type = CMD_VDI_RECLAIMED, .vid = v->vid, .gen = k.ret_gen), OK);
	assert_true(v->deleted && !v->reclaiming && !v->owned);
	cs_free(s);
}

/* A create whose owner dies, or gives up, leaves a harmless tombstone. */
static void test_create_dies(void **state)
{
	struct cs *s = group(3);
	struct cmd c, d;

	assert_int_equal(create(s, 1, "v", &c), OK);
	VIEW(s, 2, 3);
	struct vdi *v = cs_vdi(s, c.ret_vid);
	assert_true(v->deleted && !v->creating && v->reclaiming && !v->name[0] && !v->size);
	assert_int_equal(out.nr_vids, 1);
	assert_int_equal(out.vids[0], v->vid);
	assert_int_equal(lookup(s, "v", "", 0), SD_RES_NO_VDI);
	assert_int_equal(create(s, 2, "v", &d), OK);
	assert_int_equal(d.ret_vid, c.ret_vid + 1);
	assert_int_equal(CMD(s, 2, .type = CMD_RELEASE, .vid = d.ret_vid, .gen = d.ret_gen), OK);
	assert_true(cs_vdi(s, d.ret_vid)->deleted);
	assert_int_equal(create_visible(s, 2, "v", &d), OK);
	assert_int_equal(d.ret_vid, c.ret_vid + 2);
	assert_int_equal(lookup(s, "v", "", 0), OK);
	cs_free(s);
}

static void test_locks(void **state)
{
	struct cs *s = group(4);
	struct cmd c;
	struct vdi *v;

	assert_int_equal(create_visible(s, 1, "v", &c), OK);
	v = cs_vdi(s, c.ret_vid);
#define LOCK(n, t)   CMD(s, n, .type = CMD_VDI_LOCK, .name = "v", .lock_type = t)
#define UNLOCK(n, t) CMD(s, n, .type = CMD_VDI_UNLOCK, .vid = v->vid, .lock_type = t)
	assert_int_equal(v->opens, 0);
	assert_int_equal(LOCK(1, 0), OK);
	assert_int_equal(v->lock_state, 2);
	assert_int_equal(v->opens, 1);
	assert_int_equal(LOCK(2, VDI_OPEN), OK); /* where locks are not used: it takes none */
	assert_int_equal(v->lock_state, 2);
	assert_int_equal(v->lock_nr, 1);
	assert_int_equal(v->opens, 2);
	assert_int_equal(v->lock_addr[0].port, 7001);
	struct cmd l = {.type = CMD_VDI_LOCK, .name = "v"};
	assert_int_equal(send_cmd(s, 2, 1, &l), SD_RES_VDI_LOCKED);
	assert_int_equal(l.ret_vid, v->vid); /* also when it failed */
	assert_int_equal(v->opens, 2);
	struct cs *k = copy(s);
	assert_int_equal(cs_vdi(k, v->vid)->opens, 2);
	cs_free(k);
	assert_int_equal(LOCK(2, 1), SD_RES_VDI_LOCKED);
	assert_int_equal(UNLOCK(2, 1), OK); /* no change */
	assert_int_equal(v->lock_state, 2);
	VIEW(s, 2, 3, 4); /* a normal lock outlives its gateway; any node may free it */
	assert_int_equal(v->lock_state, 2);
	assert_int_equal(UNLOCK(3, 0), OK);
	assert_int_equal(v->lock_state, 1);
	assert_int_equal(UNLOCK(3, 0), OK);
	assert_int_equal(LOCK(2, 1), OK);
	assert_int_equal(LOCK(3, 1), OK);
	assert_int_equal(LOCK(3, 1), SD_RES_VDI_LOCKED);
	assert_int_equal(LOCK(4, 0), SD_RES_VDI_LOCKED);
	assert_int_equal(LOCK(4, 1), OK);
	assert_int_equal(v->lock_state, 3);
	cs_free(copy(s));
	assert_int_equal(UNLOCK(3, 0), OK); /* no change */
	assert_int_equal(v->lock_nr, 3);
	assert_int_equal(UNLOCK(3, 1), OK);
	VIEW(s, 4); /* shared participation ends with the node */
	assert_int_equal(v->lock_nr, 1);
	assert_int_equal(v->lock_addr[0].port, 7004);
	assert_int_equal(UNLOCK(4, 1), OK);
	assert_int_equal(v->lock_state, 1);
	assert_int_equal(CMD(s, 4, .type = CMD_VDI_LOCK, .name = "none"), SD_RES_NO_VDI);
	cs_free(s);
}

/* ---- encoding, determinism ---- */

static void test_decode_garbage(void **state)
{
	struct cs *s = group(3), *c;
	struct join j = join_of(4, 1);
	struct cmd v;
	struct enc e = {0};

	assert_int_equal(create_visible(s, 1, "v", &v), OK);
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_LOCK, .name = "v"), OK);
	VIEW(s, 1, 2);
	send_join(s, &j);
	send_state(s, &j);
	send_ack(s, 1, 4, 1);
	cs_encode(s, &e);
	for (size_t len = 0; len < e.len; len++)
		assert_int_equal(cs_decode(e.p, len, &c), -EBADMSG);
	uint32_t x = 1;
	for (unsigned i = 0; i < 20000; i++) { /* no crash, no leak, whatever it is */
		x = x * 1664525u + 1013904223u;
		size_t at = x % e.len;
		uint8_t was = e.p[at];
		e.p[at] ^= (uint8_t)(1u << (x >> 29));
		if (cs_decode(e.p, e.len, &c) == 0)
			cs_free(c);
		e.p[at] = was;
	}
	free(e.p);
	cs_free(s);
}

/* Messages of any length and content change nothing, or something valid. */
static void test_message_garbage(void **state)
{
	struct cs *s = group(2);
	struct incarnation from = inc(2, 1);
	uint8_t buf[200];
	uint32_t x = 7;

	for (unsigned i = 0; i < 20000; i++) {
		size_t len;
		struct cmd reply;
		for (unsigned k = 0; k < sizeof(buf); k++) {
			x = x * 1664525u + 1013904223u;
			buf[k] = (uint8_t)(x >> 24);
		}
		len = (x >> 8) % sizeof(buf);
		buf[0] = CLUSTER_MSG_VERSION;
		buf[1] %= CMD_NR + 1;
		clear_out();
		assert_int_equal(cs_message(s, &from, buf, len, &reply, &out), 0);
	}
	cs_free(copy(s));
	cs_free(s);
}

static uint32_t rnd(uint32_t *x)
{
	*x = *x * 1664525u + 1013904223u;
	return *x >> 8;
}

/* A random command of a random node; the same for the same @x. */
static void random_event(struct cs *s, uint32_t *x)
{
	static const char *const names[] = {"a", "b", "test", "z"};
	unsigned n = 1 + rnd(x) % 3, vdis = s->nr_vdis;
	struct vdi *v = vdis ? s->vdis[rnd(x) % vdis] : NULL;
	struct cmd c = {.vid = v ? v->vid : 1, .gen = v ? v->gen - rnd(x) % 5 / 4 : 0};

	snprintf(c.name, sizeof(c.name), "%s", names[rnd(x) % 4]);
	c.clean = rnd(x) % 2;
	c.on = rnd(x) % 2;
	c.lock_type = rnd(x) % 2;
	c.size = rnd(x);
	switch (rnd(x) % 12) {
	case 0:
	case 1: c.type = CMD_VDI_CREATE; break;
	case 2:
	case 3: c.type = CMD_VDI_VISIBLE; break;
	case 4: c.type = CMD_CLAIM; break;
	case 5: c.type = CMD_RELEASE; break;
	case 6: c.type = CMD_VDI_HEADER; break;
	case 7: c.type = CMD_VDI_LOCK; break;
	case 8: c.type = CMD_VDI_UNLOCK; break;
	case 9: c.type = rnd(x) % 4 ? CMD_CLEAN : CMD_VDI_DELETE; break;
	case 10: c.type = CMD_VDI_RECLAIMED; break;
	default: c.type = CMD_SET_RECOVERY;
	}
	send_cmd(s, n, 1, &c);
	if (rnd(x) % 40 == 0) { /* node 3 goes and comes back */
		struct join j = join_of(3, 1);
		VIEW(s, 1, 2);
		send_join(s, &j);
		send_state(s, &j);
		for (unsigned k = 1; k <= 3; k++)
			send_ack(s, k, 3, 1);
	}
}

static void test_determinism(void **state)
{
	for (uint32_t seed = 1; seed <= 5; seed++) {
		struct cs *a = group(3), *b = group(3);
		uint32_t xa = seed, xb = seed;
		for (unsigned i = 0; i < 1500; i++) {
			random_event(a, &xa);
			random_event(b, &xb);
			if (i % 100 == 0) { /* a joiner takes the state over */
				struct cs *c = copy(b);
				cs_free(b);
				b = c;
				assert_true(hash(a) == hash(b));
			}
		}
		assert_true(hash(a) == hash(b));
		assert_true(a->nr_vdis > 20 && epoch(a) > 10);
		random_event(a, &xa);
		assert_true(hash(a) != hash(b)); /* it does tell states apart */
		cs_free(a);
		cs_free(b);
	}
}

static int done(void **state)
{
	clear_out();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_vnodes),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_vid_wrap),
		cmocka_unit_test(test_lookup_snapshots),
		cmocka_unit_test(test_claim),
		cmocka_unit_test(test_owner_commands),
		cmocka_unit_test(test_reclaim),
		cmocka_unit_test(test_create_dies),
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_joiner_dies),
		cmocka_unit_test(test_acker_dies),
		cmocka_unit_test(test_two_joiners),
		cmocka_unit_test(test_only_joiner_left),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_start_newest),
		cmocka_unit_test(test_start_clean),
		cmocka_unit_test(test_start_set_with_joiner),
		cmocka_unit_test(test_force),
		cmocka_unit_test(test_given_up),
		cmocka_unit_test(test_history_bound),
		cmocka_unit_test(test_expel),
		cmocka_unit_test(test_expel_two),
		cmocka_unit_test(test_expel_mutual),
		cmocka_unit_test(test_accusations_end),
		cmocka_unit_test(test_silent),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_decode_garbage),
		cmocka_unit_test(test_message_garbage),
		cmocka_unit_test(test_determinism),
	};

	return cmocka_run_group_tests(tests, NULL, done);
}
