/* The life of members around the bus: joins, deaths in the middle of things, refusals. */
#include "config.h"

#include "tests/unit/member_rig.h"

/* ---- tests: each runs in a coroutine ---- */

static void test_format(void)
{
	node_started(node_up(1));
	assert_non_null(strstr(nodes[1].waiting, "dog cluster format"));
	assert_int_equal(cluster_status(nodes[1].c), CLUSTER_WAIT_FORMAT);
	node_started(node_up(2));
	node_started(node_up(3));
	struct view *v = cluster_present(nodes[3].c);
	assert_int_equal(v->nr, 3);
	assert_int_equal(v->self, 2); /* by address: the driver's, 127.0.0.N */
	assert_int_equal(v->members[2].zone, 127 | 3u << 24);
	view_put(v);
	assert_null(cluster_view(nodes[1].c));
	assert_int_equal(DO(2, .type = CMD_CLAIM, .vid = 1), SD_RES_WAIT_FOR_FORMAT);
	format_all(2);
	assert_int_equal(nodes[2].epoch, 1); /* the hooks come before the answer */
	for (unsigned n = 1; n <= 3; n++) {
		WAIT(node_at(n, 1));
		assert_int_equal(nodes[n].nr_format, 1);
		assert_int_equal(nodes[n].nr_view, 1);
		assert_false(nodes[n].clean);
		assert_int_equal(cluster_view(nodes[n].c)->nr, 3);
		assert_int_equal(cluster_view(nodes[n].c)->self, n - 1);
		assert_int_equal(cluster_view(nodes[n].c)->ring->nr_points, 3 * 128);
	}
	same_state();
	v = cluster_history(nodes[1].c, 1);
	assert_int_equal(v->nr, 3);
	assert_memory_equal(v->name, cluster_view(nodes[1].c)->name, 8);
	view_put(v);
	assert_null(cluster_history(nodes[1].c, 2));
}

/* Once more, with data: everything is gone, the hook came first. */
static void test_reformat(void)
{
	uint64_t gen;

	cluster_of(2);
	make_vdi(1, "v", &gen);
	node_down(2);
	WAIT(node_at(1, 2));
	format_all(1);
	WAIT(node_at(1, 1));
	assert_int_equal(nodes[1].nr_format, 2);
	assert_int_equal(nodes[1].old_epoch, 0);
	assert_null(cluster_vdi_next(nodes[1].c, 0));
	make_vdi(1, "v", &gen);
	assert_true(gen > 1); /* never twice */
	/* who was away has a store of the cluster that is no more */
	node_up(2);
	WAIT(!nodes[2].starting);
	assert_int_equal(nodes[2].r, -EPERM);
	assert_non_null(strstr(nodes[2].err, "another cluster"));
	assert_null(nodes[2].c);
}

static void test_join(void)
{
	uint64_t gen;

	cluster_of(2);
	uint32_t vid = make_vdi(1, "v", &gen);
	settle();
	fake_hold(bus_of(1)); /* one that does not confirm */
	node_up(3);
	settle();
	/* node 1 speaks for the group: without it there is no state */
	assert_null(nodes[3].c->s);
	fake_release(bus_of(1), 2); /* the view and the JOIN: it sends the state */
	WAIT(node_has(3));
	WAIT(nodes[2].c->s->nr_start == 3);
	settle();
	assert_true(node_at(2, 1)); /* not made yet */
	assert_true(nodes[3].starting);
	assert_int_equal(cluster_status(nodes[3].c), CLUSTER_WAIT_JOIN);
	assert_null(cluster_view(nodes[3].c));
	assert_non_null(cluster_vdi(nodes[3].c, vid)); /* but the state is there */
	assert_int_equal(DO(3, .type = CMD_CLAIM, .vid = vid), SD_RES_WAIT_FOR_JOIN);
	fake_release(bus_of(1), 0);
	node_started(&nodes[3]);
	assert_null(nodes[3].waiting);
	for (unsigned n = 1; n <= 3; n++)
		WAIT(node_at(n, 2));
	assert_int_equal(nodes[1].old_epoch, 1);
	assert_int_equal(nodes[3].old_epoch, 0);
	assert_false(nodes[3].given_up);
	same_state();
}

static void test_joiner_dies(void)
{
	cluster_of(2);
	fake_hold(bus_of(2));
	node_up(3);
	WAIT(nodes[1].c->s->nr_start == 3);
	settle();
	node_down(3);
	WAIT(nodes[1].c->s->nr_start == 2);
	fake_release(bus_of(2), 0);
	WAIT(nodes[2].c->s->nr_lobby == 2);
	settle();
	assert_true(node_at(1, 1) && node_at(2, 1));
	assert_int_equal(nodes[2].c->s->nr_start, 2);
	same_state();
	node_started(node_up(3));
	WAIT(node_at(1, 2) && node_at(2, 2) && node_at(3, 2));
	same_state();
}

/* Only the joiner had written down that it was admitted, when all stopped: the start waits for
 * whom that record names, and the others' record is enough for them (WHY B4). */
static void test_admit_then_stop(void)
{
	cluster_of(2);
	fake_hold(bus_of(2));
	node_up(3);
	WAIT(node_has(3) && nodes[3].c->logged && nodes[3].c->s->nr_start == 3);
	settle();
	down_all();
	node_started(node_up(3));
	assert_non_null(strstr(nodes[3].waiting, "127.0.0.1:7001"));
	assert_non_null(strstr(nodes[3].waiting, "127.0.0.2:7002"));
	assert_int_equal(DO(3, .type = CMD_CLAIM, .vid = 1), SD_RES_WAIT_FOR_JOIN);
	node_up(1);
	settle();
	assert_false(node_running(1) || node_running(3));
	node_up(2);
	WAIT(node_at(1, 2) && node_at(2, 2) && node_at(3, 2));
	assert_int_equal(cluster_view(nodes[1].c)->nr, 3);
	same_state();
}

/* The speaker dies with the state half on its way. */
static void test_speaker_dies(void)
{
	cluster_of(3);
	fake_hold(bus_of(1));
	node_up(4);
	settle();
	assert_null(nodes[4].c->s);
	node_down(1);
	node_started(&nodes[4]);
	WAIT(node_at(2, 3) && node_at(3, 3) && node_at(4, 3));
	same_state();
	/* and one that dies with its confirmation outstanding */
	fake_hold(bus_of(3));
	node_up(5);
	WAIT(nodes[2].c->s->nr_start == 4);
	settle();
	node_down(3);
	node_started(&nodes[5]);
	WAIT(node_at(2, 4) && node_at(4, 4) && node_at(5, 4));
	assert_int_equal(cluster_view(nodes[5].c)->nr, 3);
	same_state();
}

/* The oldest on the bus need not be one that has the state (X1). */
static void test_oldest_has_nothing(void)
{
	node_started(node_up(1));
	format_all(1);
	WAIT(node_at(1, 1));
	fake.hold_uuid = 2;
	node_up(2);
	WAIT(fake_find(&nodes[2].m.inc));
	fake.hold_uuid = 0;
	node_started(node_up(3));
	WAIT(node_at(1, 2) && node_at(3, 2));
	node_down(1);
	WAIT(node_at(3, 3));
	fake_release(bus_of(2), 0);
	node_started(&nodes[2]);
	WAIT(node_at(2, 4) && node_at(3, 4));
	same_state();
}

/* A gateway whose node was in the cluster before never says that there is none to be: not either
 * while the oldest on the bus is an empty node.  Such a one, when it is taken in, says so no more
 * as soon as it lets clients in (the hook of its first view). */
static void test_restart_behind_empty(void)
{
	node_started(node_up(1));
	format_all(1);
	WAIT(node_at(1, 1));
	node_down(1);
	node_started(node_up(2));
	assert_int_equal(cluster_status(nodes[2].c), CLUSTER_WAIT_FORMAT);
	nodes[2].block_view = true;
	fake.hold_uuid = 1;
	node_up(1);
	WAIT(nodes[1].c && fake_find(&nodes[1].m.inc));
	fake.hold_uuid = 0;
	bool behind = false;
	for (unsigned i = 0; i < 200 && !node_running(1); i++) {
		fake_release(bus_of(1), 1); /* one event more */
		co_sleep(3000000);
		assert_int_not_equal(cluster_status(nodes[1].c), CLUSTER_WAIT_FORMAT);
		behind |= nodes[1].c->s && !nodes[1].c->s->params.ctime;
	}
	assert_true(behind);
	fake_release(bus_of(1), 0);
	WAIT(node_running(1) && nodes[2].nr_view);
	assert_int_equal(cluster_status(nodes[2].c), CLUSTER_WAIT_JOIN);
	nodes[2].block_view = false;
	WAIT(node_at(1, 3) && node_at(2, 3));
	same_state();
}

/* A state that was sent for an earlier JOIN gives nobody a state: the oldest founds. */
static void test_stale_state(void)
{
	node_started(node_up(1));
	fake.hold_uuid = 2;
	node_up(2);
	WAIT(fake_find(&nodes[2].m.inc));
	fake.hold_uuid = 4;
	node_up(4);
	WAIT(fake_find(&nodes[4].m.inc));
	fake.hold_uuid = 0;
	settle();
	fake_hold(bus_of(1));
	node_up(3); /* JOIN */
	settle();
	node_down(4); /* JOIN again */
	settle();
	fake_release(bus_of(1), 2); /* it comes as far as the first JOIN, and sends the state */
	settle();
	node_down(1);
	fake_release(bus_of(2), 0);
	node_started(&nodes[2]);
	node_started(&nodes[3]);
	WAIT(node_has(2) && node_has(3));
	same_state();
}

/* The members have written down that a joiner was admitted, it has not: they wait for it. */
static void test_admit_is_durable(void)
{
	cluster_of(2);
	fake.hold_uuid = 3;
	fake.hold_take = 1; /* its first view: it sends its JOIN */
	node_up(3);
	WAIT(fake_find(&nodes[3].m.inc));
	fake.hold_uuid = fake.hold_take = 0;
	WAIT(nodes[1].c->s->nr_start == 3 && nodes[2].c->s->nr_start == 3);
	settle();
	assert_null(nodes[3].c->s);
	down_all();
	node_started(node_up(2));
	node_started(node_up(1));
	assert_non_null(strstr(nodes[1].waiting, "127.0.0.3:7003"));
	settle();
	assert_false(node_running(1) || node_running(2));
	node_up(3);
	WAIT(node_at(1, 2) && node_at(2, 2) && node_at(3, 2));
	same_state();
}

/* The first of all dies before anybody has its state. */
static void test_founder_dies(void)
{
	node_started(node_up(1));
	fake_hold(bus_of(1));
	node_up(2);
	node_up(3);
	settle();
	assert_true(nodes[2].starting && nodes[3].starting);
	node_down(1);
	node_started(&nodes[2]);
	node_started(&nodes[3]);
	WAIT(node_has(2) && node_has(3));
	same_state();
	node_started(node_up(1));
	format_all(3);
	WAIT(node_at(1, 1) && node_at(2, 1) && node_at(3, 1));
	same_state();
}

static void test_owner_dies(void)
{
	uint64_t gen;

	cluster_of(3);
	uint32_t vid = make_vdi(3, "v", &gen);
	struct cmd c = {.type = CMD_VDI_CREATE, .name = "half"};
	assert_int_equal(do_cmd(3, &c), 0);
	struct cmd k = {.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(do_cmd(2, &k), 0);
	assert_int_equal(k.result, SD_RES_VDI_LOCKED);
	assert_memory_equal(&k.ret_owner, &nodes[3].m.inc, sizeof(k.ret_owner));
	WAIT(nodes[1].nr_vdi >= 3);
	unsigned vdis = nodes[1].nr_vdi;
	node_down(3);
	WAIT(node_at(1, 2) && node_at(2, 2));
	assert_int_equal(nodes[1].nr_vdi, vdis + 1); /* the tombstone */
	assert_true(cluster_vdi(nodes[1].c, c.ret_vid)->deleted);
	k = (struct cmd){.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(do_cmd(2, &k), 0);
	assert_int_equal(k.result, OK);
	assert_true(k.ret_dirty && k.ret_gen > gen);
	assert_true(cluster_view(nodes[1].c)->time > 1500000000); /* CMD_EPOCH_TIME came */
	node_started(node_up(3));
	WAIT(node_at(1, 3));
	same_state();
}

/* Two clients create the same name: the second one's fate depends on the first one's. */
static void test_create_twice(void)
{
	struct pair p = {.n = 2, .c = {.type = CMD_VDI_CREATE, .name = "v"}};
	struct pair q = {.n = 2, .c = {.type = CMD_VDI_CREATE, .name = "w"}};

	cluster_of(3);
	struct cmd a = {.type = CMD_VDI_CREATE, .name = "v"};
	assert_int_equal(do_cmd(1, &a), 0);
	co_start(sched, do_co, &p, "create");
	settle();
	assert_false(p.done);
	assert_int_equal(DO(1, .type = CMD_VDI_VISIBLE, .vid = a.ret_vid, .gen = a.ret_gen), OK);
	WAIT(p.done);
	assert_int_equal(p.c.result, SD_RES_VDI_EXIST);
	a = (struct cmd){.type = CMD_VDI_CREATE, .name = "w"};
	assert_int_equal(do_cmd(1, &a), 0);
	co_start(sched, do_co, &q, "create");
	settle();
	assert_false(q.done);
	node_down(1);
	WAIT(q.done);
	assert_int_equal(q.c.result, OK);
	assert_int_equal(q.c.ret_vid, a.ret_vid + 1);
}

/* Commands that wait, for the bus or for a name that another one is creating, end with hangup. */
static void test_hangup(void)
{
	struct pair p = {.n = 2, .c = {.type = CMD_VDI_CREATE, .name = "v"}};
	struct pair q = {.n = 2, .c = {.type = CMD_BARRIER}};

	cluster_of(2);
	assert_int_equal(DO(1, .type = CMD_VDI_CREATE, .name = "v", .time = 1), OK);
	co_start(sched, do_co, &p, "create");
	settle();
	fake_hold(bus_of(2));
	co_start(sched, do_co, &q, "barrier");
	settle();
	assert_false(p.done || q.done);
	cluster_hangup(nodes[2].c);
	WAIT(p.done && q.done);
	assert_int_equal(p.r, -ENOTCONN);
	assert_int_equal(q.r, -ENOTCONN);
	struct cmd k = {.type = CMD_BARRIER};
	assert_int_equal(do_cmd(2, &k), -ENOTCONN);
}

static void test_refused(void)
{
	cluster_of(2);
	nodes[3].m.addr = nodes[2].c->self.addr;
	node_up(3);
	WAIT(!nodes[3].starting);
	assert_int_equal(nodes[3].r, -EPERM);
	assert_non_null(strstr(nodes[3].err, "127.0.0.2:7002"));
	assert_null(nodes[3].c);
	node_down(3);
	memset(&nodes[3].m.addr, 0, sizeof(nodes[3].m.addr));
	nodes[3].m.addr.port = 7003;
	nodes[3].m.fixed_vnodes = 5;
	node_up(3);
	WAIT(!nodes[3].starting);
	assert_int_equal(nodes[3].r, -EPERM);
	node_down(3);
	nodes[3].m.fixed_vnodes = 0;
	nodes[3].param = "broken";
	node_up(3);
	WAIT(!nodes[3].starting);
	assert_int_equal(nodes[3].r, -ECONNREFUSED);
	assert_string_equal(nodes[3].err, "the bus is broken");
	node_down(3);
	nodes[3].param = NULL;
	assert_true(node_at(1, 1) && node_at(2, 1));
	/* who is told late, while it waits already, is out */
	nodes[4].m.fixed_vnodes = 5;
	down_all();
	node_started(node_up(4)); /* not formatted: nothing to mind */
	node_up(1);
	WAIT(nodes[4].nr_out == 1);
	assert_non_null(strstr(nodes[4].out, "without -V"));
	node_down(4);
	node_up(2);
	WAIT(node_running(1) && node_running(2));
	same_state();
}

static void test_out(void)
{
	struct pair p = {.n = 2, .c = {.type = CMD_BARRIER}};

	cluster_of(2);
	settle();
	fake_hold(bus_of(2));
	co_start(sched, do_co, &p, "do");
	settle();
	assert_false(p.done);
	bus_of(2)->cb.out(bus_of(2)->arg, "no quorum");
	assert_int_equal(nodes[2].nr_out, 1);
	assert_string_equal(nodes[2].out, "no quorum");
	WAIT(p.done);
	assert_int_equal(p.r, -ENOTCONN);
	struct cmd c = {.type = CMD_BARRIER};
	assert_int_equal(do_cmd(2, &c), -ENOTCONN);
	node_down(2);
	/* a disk that does not write any more: this node goes, the others stay */
	WAIT(node_at(1, 2));
	node_started(node_up(2));
	WAIT(node_at(2, 3));
	struct env_file *log = nodes[2].c->es.log;
	char dir[100];
	snprintf(dir, sizeof(dir), "%s/ro", top);
	fclose(fopen(dir, "w"));
	struct env_io ro = {.op = ENV_IO_OPEN, .name = dir, .flags = O_RDONLY};
	assert_true(co_io(sched, &ro) >= 0);
	nodes[2].c->es.log = ro.result_file;
	c = (struct cmd){.type = CMD_CLAIM, .vid = 1};
	assert_int_equal(do_cmd(2, &c), -ENOTCONN);
	assert_int_equal(nodes[2].nr_out, 1);
	assert_non_null(strstr(nodes[2].out, "Cannot write"));
	struct env_io cl = {.op = ENV_IO_CLOSE, .file = ro.result_file};
	co_io(sched, &cl);
	nodes[2].c->es.log = log;
	node_down(2);
	WAIT(node_at(1, 4));
}

#define TEST(name)                                                                                 \
	static void run_##name(void **state)                                                       \
	{                                                                                          \
		in_coroutine(test_##name);                                                         \
	}
TEST(format)
TEST(reformat)
TEST(join)
TEST(joiner_dies)
TEST(admit_then_stop)
TEST(speaker_dies)
TEST(founder_dies)
TEST(oldest_has_nothing)
TEST(restart_behind_empty)
TEST(stale_state)
TEST(admit_is_durable)
TEST(offer_and_joiner)
TEST(offer_and_commands)
TEST(restart_any_order)
TEST(missing_node)
TEST(left_before_stop)
TEST(newest_wins)
TEST(force_and_given_up)
TEST(forced_outranks)
TEST(persist_before_answer)
TEST(torn_log)
TEST(owner_dies)
TEST(create_twice)
TEST(hangup)
TEST(clean_restart)
TEST(refused)
TEST(out)
TEST(format_cut)
TEST(format_twice)
TEST(big_state)
TEST(churn)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(run_format),
		cmocka_unit_test(run_reformat),
		cmocka_unit_test(run_join),
		cmocka_unit_test(run_joiner_dies),
		cmocka_unit_test(run_admit_then_stop),
		cmocka_unit_test(run_speaker_dies),
		cmocka_unit_test(run_founder_dies),
		cmocka_unit_test(run_oldest_has_nothing),
		cmocka_unit_test(run_restart_behind_empty),
		cmocka_unit_test(run_stale_state),
		cmocka_unit_test(run_admit_is_durable),
		cmocka_unit_test(run_offer_and_joiner),
		cmocka_unit_test(run_offer_and_commands),
		cmocka_unit_test(run_restart_any_order),
		cmocka_unit_test(run_missing_node),
		cmocka_unit_test(run_left_before_stop),
		cmocka_unit_test(run_newest_wins),
		cmocka_unit_test(run_force_and_given_up),
		cmocka_unit_test(run_forced_outranks),
		cmocka_unit_test(run_persist_before_answer),
		cmocka_unit_test(run_torn_log),
		cmocka_unit_test(run_owner_dies),
		cmocka_unit_test(run_create_twice),
		cmocka_unit_test(run_hangup),
		cmocka_unit_test(run_clean_restart),
		cmocka_unit_test(run_refused),
		cmocka_unit_test(run_out),
		cmocka_unit_test(run_format_cut),
		cmocka_unit_test(run_format_twice),
		cmocka_unit_test(run_big_state),
		cmocka_unit_test(run_churn),
	};

	if (argc > 1) /* run_join, or run_* */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
