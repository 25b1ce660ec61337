/* Members that hang, leases of who fell silent, sessions of clients, the marks of cached writes. */
#include "config.h"

#include "tests/unit/cluster_rig.h"

static uint32_t accuse(struct cs *s, unsigned by, unsigned who)
{
	return CMD(s, by, .type = CMD_ACCUSE, .target = inc(who, 1), .time = 9000000000ull,
		   .random = 0x55);
}

static uint32_t take_back(struct cs *s, unsigned by, unsigned who)
{
	return CMD(s, by, .type = CMD_ACCUSE, .target = inc(who, 1), .clean = true);
}

static bool is_member(const struct cs *s, unsigned n)
{
	struct incarnation i = inc(n, 1);

	return cs_member(s, &i) >= 0;
}

/* Two of three, once each: out, whatever the driver says. */
void test_expel(void **state)
{
	struct cs *s = group(3);
	struct incarnation three = inc(3, 1);
	struct join j = join_of(3, 1), next = join_of(3, 2);
	struct cmd v;

	assert_int_equal(create_visible(s, 3, "v", &v), OK);
	assert_int_equal(accuse(s, 3, 3), SD_RES_INVALID_PARMS);
	assert_int_equal(accuse(s, 1, 3), OK);
	assert_int_equal(accuse(s, 1, 3), OK); /* the same one again */
	assert_int_equal(epoch(s), 1);
	cs_free(copy(s));
	assert_int_equal(accuse(s, 2, 3), OK);
	assert_true(out.epoch && out.silent && out.expel && !out.guess);
	assert_true(inc_same(&out.expelled, &three));
	assert_int_equal(epoch(s), 2);
	assert_int_equal(s->nr_members, 2);
	assert_int_equal(s->nr_start, 2);
	assert_false(is_member(s, 3));
	assert_int_equal(s->silent, s->pos);
	assert_int_equal(cs_lobby(s, &three)->refused, REF_EXPELLED);
	cs_free(copy(s));
	/* void from here on: its commands, its JOIN, a view that still has it */
	assert_int_equal(CMD(s, 3, .type = CMD_RELEASE, .vid = v.ret_vid, .gen = v.ret_gen),
			 SD_RES_WAIT_FOR_JOIN);
	assert_int_equal(accuse(s, 3, 1), SD_RES_WAIT_FOR_JOIN);
	send_join(s, &j);
	assert_int_equal(cs_lobby(s, &three)->refused, REF_EXPELLED);
	VIEW(s, 1, 2, 3);
	assert_false(out.epoch);
	assert_int_equal(s->nr_members, 2);
	/* its VDI can be had, dirty */
	v = (struct cmd){.type = CMD_CLAIM, .vid = v.ret_vid};
	assert_int_equal(send_cmd(s, 2, 1, &v), OK);
	assert_true(v.ret_dirty);
	/* it comes back while the driver still has the old one */
	send_join(s, &next);
	send_state(s, &next);
	assert_int_equal(cs_lobby(s, &next.m.inc)->refused, REF_NONE);
	for (unsigned n = 1; n <= 2; n++)
		assert_int_equal(
			CMD(s, n, .type = CMD_ADMIT_ACK, .target = next.m.inc, .random = n), OK);
	struct cmd ack = {.type = CMD_ADMIT_ACK, .target = next.m.inc, .random = 9};
	assert_int_equal(send_cmd(s, 3, 2, &ack), OK);
	assert_int_equal(epoch(s), 3);
	assert_int_equal(s->nr_members, 3);
	VIEW(s, 1, 2); /* both have gone */
	assert_int_equal(epoch(s), 4);
	assert_null(cs_lobby(s, &three));
	cs_free(s);
}

void test_expel_two(void **state)
{
	struct cs *s = group(2);

	assert_int_equal(accuse(s, 2, 1), OK); /* the first one of two wins */
	assert_int_equal(epoch(s), 2);
	assert_int_equal(s->nr_members, 1);
	assert_true(is_member(s, 2));
	assert_int_equal(accuse(s, 1, 2), SD_RES_WAIT_FOR_JOIN);
	/* the rest leaves: nobody is there, though the driver has the expelled one */
	VIEW(s, 1);
	assert_int_equal(s->status, CLUSTER_WAIT_JOIN);
	assert_int_equal(epoch(s), 2);
	cs_free(s);
}

static uint32_t insist(struct cs *s, unsigned by, unsigned who)
{
	return CMD(s, by, .type = CMD_ACCUSE, .target = inc(who, 1), .on = true,
		   .time = 9000000000ull, .random = 0x55);
}

/* The link between two of three: both answer the third.  The one that came later goes. */
void test_expel_mutual(void **state)
{
	struct cs *s = group(3);

	assert_int_equal(insist(s, 1, 2), OK); /* nothing said before: an accusation */
	assert_int_equal(insist(s, 1, 2), OK); /* that is not returned */
	assert_int_equal(accuse(s, 2, 1), OK);
	assert_int_equal(accuse(s, 1, 2), OK); /* nobody insists */
	assert_int_equal(epoch(s), 1);
	assert_int_equal(take_back(s, 2, 1), OK);
	assert_int_equal(insist(s, 1, 2), OK); /* not returned any more */
	assert_int_equal(epoch(s), 1);
	assert_int_equal(accuse(s, 2, 1), OK);
	cs_free(copy(s));
	assert_int_equal(insist(s, 1, 2), OK);
	assert_true(out.epoch && out.silent && out.expel);
	assert_false(is_member(s, 2));
	assert_true(is_member(s, 1) && is_member(s, 3));
	assert_int_equal(insist(s, 2, 1), SD_RES_WAIT_FOR_JOIN);
	assert_int_equal(epoch(s), 2);
	cs_free(s);

	s = group(4); /* whoever insists: it may be the one who goes */
	assert_int_equal(accuse(s, 1, 4), OK);
	assert_int_equal(accuse(s, 4, 1), OK);
	assert_int_equal(accuse(s, 2, 3), OK); /* another pair */
	assert_int_equal(insist(s, 4, 1), OK);
	assert_true(is_member(s, 1) && !is_member(s, 4));
	assert_int_equal(insist(s, 1, 4), OK); /* it is gone */
	assert_int_equal(s->nr_members, 3);
	assert_int_equal(accuse(s, 2, 3), OK); /* the epoch has changed: anew */
	assert_int_equal(accuse(s, 3, 2), OK);
	assert_int_equal(accuse(s, 1, 2), OK); /* a third one knows better: not the younger */
	assert_true(is_member(s, 3) && !is_member(s, 2));
	cs_free(s);
}

void test_accusations_end(void **state)
{
	struct cs *s = group(5);
	struct join j = join_of(6, 1);

	assert_int_equal(accuse(s, 1, 5), OK);
	assert_int_equal(take_back(s, 2, 5), OK); /* not its own */
	assert_int_equal(accuse(s, 2, 4), OK);	  /* of another one */
	assert_int_equal(epoch(s), 1);
	assert_int_equal(take_back(s, 1, 5), OK);
	assert_int_equal(accuse(s, 2, 5), OK);
	assert_int_equal(epoch(s), 1);
	VIEW(s, 1, 2, 4, 5); /* another epoch: forgotten */
	assert_int_equal(epoch(s), 2);
	assert_int_equal(accuse(s, 1, 5), OK);
	assert_int_equal(accuse(s, 1, 4), OK);
	assert_int_equal(epoch(s), 2);
	assert_int_equal(accuse(s, 2, 5), OK);
	assert_int_equal(epoch(s), 3);
	/* a joiner that does not confirm holds up all others */
	send_join(s, &j);
	assert_int_equal(accuse(s, 1, 6), OK);
	assert_int_equal(accuse(s, 2, 6), OK); /* has no state: holds nobody up */
	assert_int_equal(cs_lobby(s, &j.m.inc)->refused, REF_NONE);
	send_state(s, &j);
	assert_int_equal(s->nr_start, 4);
	uint64_t silent = s->silent;
	assert_int_equal(accuse(s, 6, 1), SD_RES_WAIT_FOR_JOIN); /* no member */
	assert_int_equal(accuse(s, 1, 6), OK);
	assert_int_equal(accuse(s, 4, 6), OK);
	assert_int_equal(epoch(s), 3);
	assert_int_equal(s->nr_start, 3);
	assert_true(s->silent == silent); /* it never had a lease */
	cs_free(s);
}

/* Which departures leave a lease behind, and who ends the wait. */
void test_silent(void **state)
{
	struct cs *s = group(4);
	struct incarnation here[] = {inc(1, 1), inc(2, 1), inc(3, 1)}, gone = inc(4, 1);

	clear_out();
	assert_int_equal(cs_view(s, here, 3, &gone, 1, &out), 0);
	assert_true(out.epoch && out.silent);
	assert_true(s->silent && s->silent == s->pos);
	uint64_t first = s->silent;
	cs_free(copy(s));
	clear_out(); /* no member any more */
	assert_int_equal(cs_view(s, here, 3, &gone, 1, &out), 0);
	assert_false(out.silent);
	VIEW(s, 1, 2); /* a clean death */
	assert_false(out.silent);
	assert_true(s->silent == first);
	clear_out();
	assert_int_equal(cs_view(s, here, 1, here + 1, 1, &out), 0);
	assert_true(s->silent > first);
	assert_int_equal(CMD(s, 1, .type = CMD_LEASES_OVER, .size = first), OK);
	assert_true(s->silent); /* of an earlier one */
	assert_int_equal(CMD(s, 2, .type = CMD_LEASES_OVER, .size = s->silent),
			 SD_RES_WAIT_FOR_JOIN);
	assert_int_equal(CMD(s, 1, .type = CMD_LEASES_OVER, .size = s->silent), OK);
	assert_int_equal(s->silent, 0);
	/* all members at once: a joiner alone halts, but knows it */
	struct join j = join_of(2, 2);
	send_join(s, &j);
	send_state(s, &j);
	clear_out();
	assert_int_equal(cs_view(s, &j.m.inc, 1, here, 1, &out), 0);
	assert_int_equal(s->status, CLUSTER_WAIT_JOIN);
	assert_true(s->silent && out.silent);
	cs_free(s);
}

void test_sessions(void **state)
{
	struct cs *s = group(2);
	struct cmd c = {.type = CMD_SESSION, .gen = 77, .size = 3};

	assert_int_equal(cs_session(s, 77), 0);
	assert_int_equal(send_cmd(s, 1, 1, &c), OK);
	assert_int_equal(c.ret_gen, 3);
	assert_int_equal(cs_session(s, 77), 3);
	assert_int_equal(send_cmd(s, 2, 1, &c), OK); /* the same again */
	c.size = 2;
	assert_int_equal(send_cmd(s, 2, 1, &c), SD_RES_INVALID_PARMS);
	assert_int_equal(c.ret_gen, 3);
	c.size = 9;
	assert_int_equal(send_cmd(s, 2, 1, &c), OK);
	assert_int_equal(cs_session(s, 77), 9);
	assert_int_equal(CMD(s, 1, .type = CMD_SESSION, .size = 1), SD_RES_INVALID_PARMS);
	for (uint64_t i = 1; i < CLUSTER_SESSIONS; i++)
		assert_int_equal(CMD(s, 1, .type = CMD_SESSION, .gen = 1000 + (i * 7919) % 10007,
				     .size = i),
				 OK);
	assert_int_equal(s->nr_sessions, CLUSTER_SESSIONS);
	assert_int_equal(cs_session(s, 77), 9);
	struct cs *t = copy(s); /* a joiner has them all, and forgets the same ones */
	c = (struct cmd){.type = CMD_SESSION, .gen = 1000 + 7919, .size = 500};
	assert_int_equal(send_cmd(s, 1, 1, &c), OK); /* the second oldest is used again */
	c = (struct cmd){.type = CMD_SESSION, .gen = 1000 + 7919, .size = 500};
	assert_int_equal(send_cmd(t, 1, 1, &c), OK);
	for (uint64_t i = 1; i <= 2; i++) {
		assert_int_equal(CMD(s, 1, .type = CMD_SESSION, .gen = i, .size = 1), OK);
		assert_int_equal(CMD(t, 1, .type = CMD_SESSION, .gen = i, .size = 1), OK);
	}
	assert_int_equal(s->nr_sessions, CLUSTER_SESSIONS);
	assert_int_equal(cs_session(s, 77), 0);
	assert_int_equal(cs_session(s, 1000 + 7919), 500);
	assert_int_equal(cs_session(s, 1000 + 2 * 7919 % 10007), 0);
	assert_int_equal(cs_session(s, 1), 1);
	assert_true(hash(s) == hash(t));
	cs_free(t);
	struct cmd f = format_cmd();
	f.ctime++;
	assert_int_equal(CMD(s, 1, .type = CMD_SHUTDOWN), OK);
	cs_sleep(s);
	assert_int_equal(cs_session(s, 1), 1); /* clients outlive a restart */
	cs_free(s);
}

void test_cached(void **state)
{
	struct cs *s = group(2);
	struct cmd v;

	assert_int_equal(create_visible(s, 1, "v", &v), OK);
	uint32_t vid = v.ret_vid;
	uint64_t gen = v.ret_gen;
	/* nothing was cached: nothing is lost */
	assert_int_equal(CMD(s, 2, .type = CMD_CACHE_LOST, .vid = vid, .on = true), OK);
	assert_false(cs_vdi(s, vid)->cache_lost);
	assert_int_equal(CMD(s, 2, .type = CMD_CACHED, .vid = vid, .gen = gen),
			 SD_RES_VDI_NOT_LOCKED);
	assert_int_equal(CMD(s, 1, .type = CMD_CACHED, .vid = vid, .gen = gen - 1),
			 SD_RES_VDI_NOT_LOCKED);
	assert_int_equal(CMD(s, 1, .type = CMD_CACHED, .vid = vid, .gen = gen), OK);
	assert_int_equal(out.nr_vids, 1);
	assert_true(cs_vdi(s, vid)->cached);
	cs_free(copy(s));
	/* a dirty release keeps it, the next generation too */
	assert_int_equal(CMD(s, 1, .type = CMD_RELEASE, .vid = vid, .gen = gen), OK);
	v = (struct cmd){.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(send_cmd(s, 1, 1, &v), OK);
	gen = v.ret_gen;
	assert_true(cs_vdi(s, vid)->cached);
	assert_int_equal(CMD(s, 2, .type = CMD_CACHE_LOST, .vid = vid, .on = true), OK);
	assert_true(cs_vdi(s, vid)->cache_lost);
	cs_free(copy(s));
	assert_int_equal(CMD(s, 2, .type = CMD_CACHE_LOST, .vid = vid, .gen = gen),
			 SD_RES_VDI_NOT_LOCKED);
	assert_int_equal(CMD(s, 1, .type = CMD_CACHE_LOST, .vid = vid, .gen = gen), OK);
	assert_false(cs_vdi(s, vid)->cache_lost); /* the owner has said so */
	/* another node finds the same, later, in the same epoch: it has been told */
	assert_int_equal(CMD(s, 2, .type = CMD_CACHE_LOST, .vid = vid, .on = true), OK);
	assert_false(cs_vdi(s, vid)->cache_lost);
	cs_vdi(s, vid)->lost_epoch--;
	assert_int_equal(CMD(s, 2, .type = CMD_CACHE_LOST, .vid = vid, .on = true), OK);
	assert_true(cs_vdi(s, vid)->cache_lost);
	assert_int_equal(CMD(s, 2, .type = CMD_CACHE_LOST, .vid = vid), OK);
	assert_false(cs_vdi(s, vid)->cache_lost); /* opened anew */
	assert_int_equal(CMD(s, 1, .type = CMD_RELEASE, .vid = vid, .gen = gen, .clean = true), OK);
	assert_false(cs_vdi(s, vid)->cached);
	assert_int_equal(CMD(s, 2, .type = CMD_CACHE_LOST, .vid = vid, .on = true), OK);
	assert_false(cs_vdi(s, vid)->cache_lost);
	assert_int_equal(CMD(s, 2, .type = CMD_CACHE_LOST, .vid = 5, .on = true), SD_RES_NO_VDI);
	cs_free(s);
}
