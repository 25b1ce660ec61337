/* Joins, epochs, starts, refusals: the state machine with no bus and no disk. */
#include "config.h"

#include "tests/unit/cluster_rig.h"

/* ---- members ---- */

void test_join(void **state)
{
	struct cs *s = group(2);
	struct join j = join_of(3, 1);

	j.max_gen = 500;
	send_join(s, &j);
	assert_true(s->gen >= 500); /* C4 */
	assert_int_equal(epoch(s), 1);
	assert_int_equal(s->nr_start, 2);
	send_state(s, &j);
	/* the first step: the start set only */
	assert_int_equal(s->nr_start, 3);
	assert_int_equal(epoch(s), 1);
	assert_int_equal(s->nr_members, 2);
	assert_int_equal(CMD(s, 3, .type = CMD_CLAIM, .vid = 1), SD_RES_WAIT_FOR_JOIN);
	send_ack(s, 1, 3, 1);
	send_ack(s, 1, 3, 1);
	send_ack(s, 3, 3, 1);
	assert_int_equal(epoch(s), 1);
	cs_free(copy(s));
	send_ack(s, 2, 3, 1); /* the last one */
	assert_true(out.epoch && !out.guess);
	assert_int_equal(epoch(s), 2);
	assert_int_equal(s->nr_members, 3);
	assert_int_equal(cs_newest(s)->time, 9);
	assert_int_equal(cs_newest(s)->name[0], 77);
	assert_false(s->members[2].given_up);
	/* the history shares what did not change */
	assert_ptr_equal(s->hist[0]->members[0].node, s->hist[1]->members[0].node);
	assert_int_equal(CMD(s, 3, .type = CMD_CLAIM, .vid = 1), SD_RES_NO_VDI);
	cs_free(s);
}

void test_joiner_dies(void **state)
{
	struct cs *s = group(2);
	struct join j = join_of(3, 1);

	send_join(s, &j);
	VIEW(s, 1, 2); /* before it has the state */
	assert_false(out.epoch);
	assert_int_equal(s->nr_lobby, 2);
	send_join(s, &j);
	send_state(s, &j);
	send_ack(s, 1, 3, 1);
	send_ack(s, 3, 3, 1);
	assert_int_equal(s->nr_start, 3);
	VIEW(s, 1, 2); /* between the steps */
	assert_false(out.epoch);
	assert_int_equal(s->nr_start, 2);
	send_ack(s, 2, 3, 1); /* late: for nobody */
	assert_int_equal(epoch(s), 1);
	cs_free(s);
}

/* Who has not confirmed dies: the rest have, the joiner is in. */
void test_acker_dies(void **state)
{
	struct cs *s = group(3);
	struct join j = join_of(4, 1);

	send_join(s, &j);
	send_state(s, &j);
	send_ack(s, 1, 4, 1);
	send_ack(s, 4, 4, 1);
	send_ack(s, 3, 4, 1);
	VIEW(s, 1, 3, 4);
	assert_int_equal(epoch(s), 2); /* one epoch for both */
	assert_int_equal(s->nr_members, 3);
	assert_true(cs_member(s, &j.m.inc) >= 0);
	assert_int_equal(s->nr_start, 3);
	cs_free(s);
}

/* A second joiner has to confirm the first as well. */
void test_two_joiners(void **state)
{
	struct cs *s = group(1);
	struct join a = join_of(2, 1), b = join_of(3, 1);

	send_join(s, &a);
	send_join(s, &b);
	send_state(s, &a);
	send_state(s, &b);
	assert_int_equal(s->nr_start, 3);
	send_ack(s, 1, 2, 1);
	send_ack(s, 2, 2, 1);
	assert_int_equal(epoch(s), 1);
	send_ack(s, 3, 2, 1);
	assert_int_equal(epoch(s), 2);
	assert_int_equal(s->nr_members, 2);
	assert_int_equal(s->nr_start, 3); /* the other one stays in it */
	send_ack(s, 1, 3, 1);
	send_ack(s, 2, 3, 1);
	send_ack(s, 3, 3, 1);
	assert_int_equal(epoch(s), 3);
	assert_int_equal(s->nr_members, 3);
	cs_free(s);
}

/* Only a joiner is left: it knows the state, not the data, and waits for the start set. */
void test_only_joiner_left(void **state)
{
	struct cs *s = group(1);
	struct join a = join_of(2, 1), back = join_of(1, 2);

	send_join(s, &a);
	send_state(s, &a);
	send_ack(s, 2, 2, 1);
	VIEW(s, 2);
	assert_int_equal(s->status, CLUSTER_WAIT_JOIN);
	assert_int_equal(epoch(s), 1);
	char *text = cs_waiting_text(s);
	assert_non_null(strstr(text, "127.0.0.1:7001"));
	assert_null(strstr(text, "127.0.0.1:7002"));
	free(text);
	back.ctime = CTIME;
	back.key = (struct cs_key){0, 1, 1};
	send_join(s, &back);
	send_state(s, &back);
	assert_int_equal(s->status, CLUSTER_RUNNING);
	assert_int_equal(epoch(s), 2);
	assert_int_equal(s->nr_members, 2);
	cs_free(s);
}

static void refuse(struct cs *s, const struct join *j, enum refusal why, const char *text)
{
	send_join(s, j);
	const struct lobby *l = cs_lobby(s, &j->m.inc);
	assert_non_null(l);
	assert_int_equal(l->refused, why);
	char *t = cs_refusal_text(s, l);
	assert_non_null(strstr(t, text));
	free(t);
	send_state(s, j);
	assert_false(l->synced);
	assert_int_equal(CMD(s, j->m.inc.uuid[0], .type = CMD_SHUTDOWN), SD_RES_WAIT_FOR_JOIN);
	assert_int_equal(s->status, CLUSTER_RUNNING);
}

void test_refusals(void **state)
{
	struct cs *s = group(2);
	struct incarnation from = inc(20, 1);
	struct join j = join_of(10, 1);
	struct enc e = {0};
	struct cmd reply;

	j.ctime = 99;
	refuse(s, &j, REF_CTIME, "another cluster");
	j = join_of(11, 1);
	j.m.addr.port = 7002;
	refuse(s, &j, REF_ADDR, "127.0.0.1:7002");
	j = join_of(2, 1);
	j.m.inc.start = 2;
	j.m.addr.port = 7012;
	send_join(s, &j);
	assert_int_equal(cs_lobby(s, &j.m.inc)->refused, REF_UUID);
	j = join_of(13, 1);
	j.m.fixed_vnodes = 64;
	refuse(s, &j, REF_AUTO, "without -V");
	j.m.inc = inc(14, 1);
	j.m.addr.port = 7014;
	j.m.gateway = true; /* has none, either way */
	send_join(s, &j);
	assert_int_equal(cs_lobby(s, &j.m.inc)->refused, REF_NONE);
	j = join_of(15, 1);
	j.ctime = CTIME;
	j.key = (struct cs_key){1, 9, 9};
	refuse(s, &j, REF_BRANCH, "recover force");
	/* a version that we cannot read */
	enc_u8(&e, CLUSTER_MSG_VERSION + 1);
	enc_u8(&e, CMD_JOIN);
	enc_u64(&e, 0);
	msg(s, &from, &e, &reply);
	assert_int_equal(cs_lobby(s, &from)->refused, REF_VERSION);
	assert_int_equal(CMD(s, 1, .type = CMD_SHUTDOWN), OK);
	assert_true(out.shutdown);
	j = join_of(16, 1);
	send_join(s, &j);
	assert_int_equal(cs_lobby(s, &j.m.inc)->refused, REF_SHUTDOWN);
	/* while it shuts down, who leaves makes no epoch, owners finish, nothing new begins */
	assert_int_equal(CMD(s, 1, .type = CMD_VDI_CREATE, .name = "x"), SD_RES_SHUTDOWN);
	VIEW(s, 1);
	assert_int_equal(epoch(s), 1);
	cs_free(s);
}

/* ---- start after a full stop ---- */

/* What a node has on disk that stopped with @s; its JOIN when it comes back. */
static struct join back_join(const struct cs *s, unsigned n)
{
	struct join j = join_of(n, 2);

	j.ctime = s->params.ctime;
	j.key = cs_key(s);
	j.nr_names = s->nr_hist;
	j.names = calloc(s->nr_hist, sizeof(*j.names));
	for (unsigned i = 0; i < s->nr_hist; i++) {
		j.names[i].epoch = s->hist[i]->epoch;
		memcpy(j.names[i].name, s->hist[i]->name, 8);
	}
	return j;
}

static struct cs *found_with(struct cs *disk, const struct join *j)
{
	clear_out();
	cs_sleep(disk);
	assert_int_equal(cs_found(disk, j, &out), 0);
	return disk;
}

void test_start_newest(void **state)
{
	struct cs *b = group(2), *a;
	struct cmd c;

	assert_int_equal(create_visible(b, 1, "v", &c), OK);
	a = copy(b); /* node 1 has less */
	assert_int_equal(CMD(b, 1, .type = CMD_RELEASE, .vid = c.ret_vid, .gen = c.ret_gen), OK);
	struct join ja = back_join(a, 1), jb = back_join(b, 2);
	struct cs *s = found_with(a, &ja);
	assert_int_equal(s->status, CLUSTER_WAIT_JOIN);
	assert_int_equal(CMD(s, 1, .type = CMD_CLAIM, .vid = c.ret_vid), SD_RES_WAIT_FOR_JOIN);
	send_join(s, &jb);
	send_state(s, &jb);
	/* all are there, but one of them knows more */
	assert_int_equal(s->status, CLUSTER_WAIT_JOIN);
	assert_true(inc_same(&cs_best(s)->j.m.inc, &jb.m.inc));
	struct cmd force = {.type = CMD_FORCE_RECOVER};
	struct incarnation two = inc(2, 2);
	struct enc e = {0};
	msg_begin(&e, CMD_FORCE_RECOVER, 1);
	cmd_encode(&e, &force);
	msg(s, &two, &e, &force);
	assert_int_equal(force.result, SD_RES_AGAIN);
	uint64_t pos = b->pos;
	clear_out();
	assert_int_equal(cs_adopt(s, b, &out), 0);
	assert_int_equal(s->status, CLUSTER_RUNNING);
	assert_true(out.epoch && !out.clean);
	assert_int_equal(epoch(s), 2);
	assert_false(cs_vdi(s, c.ret_vid)->owned); /* what only node 2 knew */
	assert_true(s->pos > pos && s->pos >> 32 != pos >> 32);
	assert_int_equal(s->nr_members, 2);
	join_done(&ja);
	join_done(&jb);
	cs_free(s);
}

void test_start_clean(void **state)
{
	/* bad: 0 all clean, 1 one without mark, 2 another epoch's name, 3 other zone */
	for (unsigned bad = 0; bad < 4; bad++) {
		struct cs *s = group(2);
		struct join j[2];
		VIEW(s, 1, 2);
		for (unsigned i = 0; i < 2; i++) {
			j[i] = back_join(s, i + 1);
			j[i].clean_epoch = 1;
			memcpy(j[i].clean_name, cs_newest(s)->name, 8);
		}
		if (bad == 1)
			j[1].clean_epoch = 0;
		if (bad == 2)
			j[1].clean_name[3] ^= 1;
		if (bad == 3)
			j[1].m.zone = 77;
		uint64_t pos = s->pos;
		s = found_with(s, &j[0]);
		send_join(s, &j[1]);
		send_state(s, &j[1]);
		assert_int_equal(s->status, CLUSTER_RUNNING);
		assert_true(out.epoch);
		assert_int_equal(out.clean, !bad);
		assert_int_equal(epoch(s), bad ? 2 : 1);
		assert_true(s->pos >> 32 > pos >> 32);
		assert_true(cs_member(s, &j[1].m.inc) >= 0); /* the new incarnations */
		assert_int_equal(s->members[1].nr_vnodes, 128);
		assert_int_equal(cs_newest(s)->members[1].node->m.inc.start, 2);
		cs_free(copy(s));
		join_done(&j[0]);
		join_done(&j[1]);
		cs_free(s);
	}
}

/* A joiner that was admitted, and only it wrote that down: the start waits for it (WHY B4). */
void test_start_set_with_joiner(void **state)
{
	struct cs *s = group(1), *old = copy(s);
	struct join x = join_of(2, 1);

	send_join(s, &x);
	send_state(s, &x); /* ADMIT */
	struct join j1 = back_join(old, 1), j2 = back_join(s, 2);
	/* node 2 alone waits for node 1 */
	struct cs *w = found_with(copy(s), &j2);
	assert_int_equal(w->status, CLUSTER_WAIT_JOIN);
	cs_free(w);
	/* node 1 did not write it down: it had not confirmed, no epoch with node 2 was made */
	w = found_with(old, &j1);
	assert_int_equal(w->status, CLUSTER_RUNNING);
	cs_free(w);
	/* it did: it waits */
	join_done(&j1);
	j1 = back_join(s, 1);
	w = found_with(s, &j1);
	assert_int_equal(w->status, CLUSTER_WAIT_JOIN);
	cs_free(w);
	join_done(&j1);
	join_done(&j2);
}

void test_force(void **state)
{
	struct cs *s = group(4), *other;
	struct cmd f = {.type = CMD_FORCE_RECOVER, .random = 0xabcdef, .time = 7000000000ull};
	struct incarnation one = inc(1, 2);
	struct cmd reply;
	struct enc e = {0};

	assert_int_equal(CMD(s, 1, .type = CMD_FORCE_RECOVER), SD_RES_FORCE_RECOVER);
	VIEW(s, 1, 2, 3, 4);
	other = copy(s);
	VIEW(other, 2, 3, 4); /* the others went on without 1: epoch 2, then 3 */
	VIEW(other, 3, 4);
	assert_int_equal(epoch(other), 3);
	struct join j1 = back_join(s, 1), j2 = back_join(s, 2), j3 = back_join(other, 3);
	s = found_with(s, &j1);
	uint64_t gen = s->gen;
	msg_begin(&e, CMD_FORCE_RECOVER, 1);
	cmd_encode(&e, &f);
	msg(s, &one, &e, &reply);
	assert_int_equal(reply.result, OK);
	assert_int_equal(s->status, CLUSTER_RUNNING);
	assert_int_equal(epoch(s), 2);
	assert_true(cs_newest(s)->forced);
	assert_int_equal(cs_newest(s)->name[0], 0xef);
	assert_true(s->gen >= gen + (1ull << 32));
	assert_int_equal(s->nr_members, 1);
	/* node 3 is of a branch that was given up, as of epoch 1; node 2 only missed something */
	send_join(s, &j3);
	send_join(s, &j2);
	const struct lobby *l = cs_lobby(s, &j3.m.inc);
	uint32_t common;
	assert_int_equal(l->refused, REF_NONE);
	assert_true(cs_given_up(s, &l->j, &common));
	assert_int_equal(common, 1);
	assert_false(cs_given_up(s, &cs_lobby(s, &j2.m.inc)->j, &common));
	/* by the other side's eyes node 1 is of a later forced branch: people must decide */
	struct cs *w = copy(other);
	struct join j1b = back_join(s, 1);
	send_join(w, &j1b);
	assert_int_equal(cs_lobby(w, &j1b.m.inc)->refused, REF_BRANCH);
	cs_free(w);
	/* but while both wait the forced one counts, though its epoch is smaller */
	w = found_with(copy(other), &j3);
	send_join(w, &j1b);
	assert_true(inc_same(&cs_best(w)->j.m.inc, &j1b.m.inc));
	cs_free(w);
	join_done(&j1);
	join_done(&j2);
	join_done(&j3);
	join_done(&j1b);
	cs_free(other);
	cs_free(s);
}

void test_given_up(void **state)
{
	struct cs *s = group(1);
	struct epoch_name names[2] = {{1, {1, 2, 3, 4, 5, 6, 7, 8}}, {2, {9}}};
	struct join j = join_of(5, 1);
	uint32_t common = 99;

	assert_false(cs_given_up(s, &j, &common)); /* new */
	j.key.epoch = 2;
	j.names = names;
	j.nr_names = 2;
	assert_true(cs_given_up(s, &j, &common));
	assert_int_equal(common, 1);
	j.nr_names = 1;
	j.key.epoch = 1;
	assert_false(cs_given_up(s, &j, &common));
	j.given_up = true; /* it knows so, from before it had our state */
	j.common_epoch = 0;
	assert_true(cs_given_up(s, &j, &common));
	assert_int_equal(common, 0);
	names[0].name[0] ^= 1; /* nothing in common */
	j.given_up = false;
	assert_true(cs_given_up(s, &j, &common));
	assert_int_equal(common, 0);
	cs_free(s);
}

void test_history_bound(void **state)
{
	struct cs *s = group(2);

	for (unsigned i = 0; i < CLUSTER_HISTORY + 10; i++) {
		struct join j = join_of(3, i + 1);
		send_join(s, &j);
		send_state(s, &j);
		for (unsigned n = 1; n <= 2; n++)
			send_ack(s, n, 3, i + 1);
		struct cmd a = {.type = CMD_ADMIT_ACK, .target = j.m.inc, .random = i};
		assert_int_equal(send_cmd(s, 3, i + 1, &a), OK);
		VIEW(s, 1, 2);
	}
	assert_int_equal(epoch(s), 1 + 2 * (CLUSTER_HISTORY + 10));
	assert_int_equal(s->nr_hist, CLUSTER_HISTORY);
	assert_null(cs_hist(s, epoch(s) - CLUSTER_HISTORY));
	assert_non_null(cs_hist(s, epoch(s) - CLUSTER_HISTORY + 1));
	assert_null(cs_hist(s, epoch(s) + 1));
	cs_free(copy(s));
	cs_free(s);
}
