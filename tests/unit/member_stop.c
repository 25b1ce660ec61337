/* Stops and starts: what is on disk, who is waited for, random deaths. */
#include "config.h"

#include "tests/unit/member_rig.h"

void test_restart_any_order(void)
{
	static const unsigned order[6][3] = {{1, 2, 3}, {1, 3, 2}, {2, 1, 3},
					     {2, 3, 1}, {3, 1, 2}, {3, 2, 1}};
	uint64_t gen, last = 0;

	cluster_of(3);
	uint32_t vid = make_vdi(1, "v", &gen);
	for (unsigned i = 0; i < 6; i++) {
		struct cmd k = {.type = CMD_CLAIM, .vid = vid};
		unsigned who = 1 + i % 3;
		assert_int_equal(do_cmd(who, &k), 0);
		if (k.result == SD_RES_VDI_LOCKED) {
			k = (struct cmd){.type = CMD_RELEASE,
					 .vid = vid,
					 .gen = cluster_vdi(nodes[who].c, vid)->gen};
			assert_int_equal(do_cmd(i == 0 ? 1 : 1 + (i - 1) % 3, &k), 0);
			k = (struct cmd){.type = CMD_CLAIM, .vid = vid};
			assert_int_equal(do_cmd(who, &k), 0);
		}
		assert_int_equal(k.result, OK);
		assert_true(k.ret_gen > last);
		last = k.ret_gen;
		down_all();
		for (unsigned x = 0; x < 3; x++) {
			if (x == 1 && i % 2)
				settle(); /* slowly, or all at once */
			node_up(order[i][x]);
			if (x == 0) {
				node_started(&nodes[order[i][0]]);
				assert_non_null(strstr(nodes[order[i][0]].waiting, "2 of 3"));
			}
		}
		for (unsigned n = 1; n <= 3; n++) {
			node_started(&nodes[n]);
			WAIT(node_at(n, i + 2));
			assert_false(nodes[n].clean);
			const struct vdi *v = cluster_vdi(nodes[n].c, vid);
			assert_true(v && v->gen == last && v->owned);
		}
		same_state();
	}
}

/* Not all of the start set: wait, then not. */
void test_missing_node(void)
{
	cluster_of(3);
	down_all();
	node_started(node_up(2));
	node_started(node_up(3));
	assert_non_null(strstr(nodes[3].waiting, "1 of 3"));
	assert_non_null(strstr(nodes[3].waiting, "127.0.0.1:7001"));
	settle();
	assert_int_equal(cluster_status(nodes[2].c), CLUSTER_WAIT_JOIN);
	assert_int_equal(cluster_epoch(nodes[2].c), 1);
	/* a new node does not count for the one that is missing */
	node_started(node_up(4));
	settle();
	assert_int_equal(cluster_status(nodes[2].c), CLUSTER_WAIT_JOIN);
	node_started(node_up(1));
	/* the three first, then the new one, in two steps */
	for (unsigned n = 1; n <= 4; n++)
		WAIT(node_at(n, 3));
	struct view *v = cluster_history(nodes[1].c, 2);
	assert_int_equal(v->nr, 3);
	view_put(v);
	same_state();
}

/* Who stopped earlier than the others is not waited for, and does not make them wait. */
void test_left_before_stop(void)
{
	cluster_of(3);
	node_down(1);
	WAIT(node_at(2, 2) && node_at(3, 2));
	down_all();
	node_started(node_up(1)); /* knows of all three only */
	assert_non_null(strstr(nodes[1].waiting, "2 of 3"));
	node_started(node_up(2));
	settle();
	assert_false(node_running(1)); /* node 2 knows better: it needs node 3 */
	assert_int_equal(cluster_epoch(nodes[1].c), 2);
	node_up(3);
	for (unsigned n = 1; n <= 3; n++)
		WAIT(node_at(n, 4));
	same_state();
}

/* One has been delivered less than the others when all are killed. */
void test_newest_wins(void)
{
	uint64_t gen;

	cluster_of(2);
	uint32_t vid = make_vdi(2, "v", &gen);
	settle();
	fake_hold(bus_of(1));
	assert_int_equal(DO(2, .type = CMD_RELEASE, .vid = vid, .gen = gen, .clean = true), OK);
	struct cmd k = {.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(do_cmd(2, &k), 0);
	assert_true(k.ret_gen > gen);
	down_all();
	for (unsigned i = 0; i < 2; i++) {
		node_started(
			node_up(i ? 2 : 1)); /* the one that knows less, the one that knows more */
		node_up(i ? 1 : 2);
		WAIT(node_at(1, 2 + i) && node_at(2, 2 + i));
		assert_true(cluster_vdi(nodes[1].c, vid)->gen == k.ret_gen);
		same_state();
		down_all();
	}
	/* generations of the store count as well */
	nodes[1].max_gen = 1000;
	node_up(1);
	node_up(2);
	WAIT(node_running(1) && node_running(2));
	k = (struct cmd){.type = CMD_CLAIM, .vid = vid};
	assert_int_equal(do_cmd(2, &k), 0);
	assert_int_equal(k.result, OK);
	assert_true(k.ret_gen > 1000 && k.ret_dirty);
}

void test_force_and_given_up(void)
{
	cluster_of(3);
	node_down(1);
	WAIT(node_at(2, 2) && node_at(3, 2));
	down_all();
	node_started(node_up(1));
	assert_int_equal(DO(1, .type = CMD_FORCE_RECOVER), OK);
	WAIT(node_at(1, 2));
	assert_true(cluster_view(nodes[1].c)->forced);
	assert_int_equal(cluster_view(nodes[1].c)->nr, 1);
	assert_int_equal(DO(1, .type = CMD_FORCE_RECOVER), SD_RES_FORCE_RECOVER);
	/* node 2 went on to another epoch 2: given up, and it dies before it acted on that */
	nodes[2].block_view = true;
	node_up(2);
	WAIT(nodes[2].nr_view == 1);
	assert_true(nodes[2].given_up);
	assert_int_equal(nodes[2].common, 1);
	node_down(2);
	node_started(node_up(2));
	assert_true(nodes[2].given_up); /* still */
	assert_int_equal(nodes[2].common, 1);
	int i;
	WAIT((i = view_find(cluster_view(nodes[1].c), &nodes[2].m.inc)) >= 0);
	assert_true(cluster_view(nodes[1].c)->members[i].given_up);
	settle();
	node_down(2);
	node_started(node_up(2));
	assert_false(nodes[2].given_up); /* once is enough */
	/* the same with a stop of all */
	node_started(node_up(3));
	assert_true(nodes[3].given_up);
	settle();
	same_state();
	uint32_t e = cluster_epoch(nodes[1].c);
	down_all();
	for (unsigned n = 3; n; n--)
		node_up(n);
	for (unsigned n = 1; n <= 3; n++) {
		WAIT(node_at(n, e + 1));
		assert_false(nodes[n].given_up);
	}
	same_state();
}

/* A forced branch that waits outranks the one that was given up, whoever comes first. */
void test_forced_outranks(void)
{
	cluster_of(4);
	node_down(1);
	WAIT(node_at(2, 2) && node_at(3, 2) && node_at(4, 2));
	node_down(2);
	WAIT(node_at(3, 3) && node_at(4, 3));
	down_all();
	node_started(node_up(1));
	assert_int_equal(DO(1, .type = CMD_FORCE_RECOVER), OK);
	node_down(1);
	node_started(node_up(3)); /* waits for node 4 */
	assert_int_equal(cluster_epoch(nodes[3].c), 3);
	node_started(node_up(1)); /* needs nobody */
	WAIT(node_running(1) && node_running(3));
	assert_true(cluster_epoch(nodes[1].c) >= 3);
	assert_true(nodes[3].given_up);
	same_state();
}

static void copy_dir(const char *from, const char *to)
{
	char cmd[300];

	snprintf(cmd, sizeof(cmd), "rm -rf %s && cp -r %s %s", to, from, to);
	assert_int_equal(system(cmd), 0);
}

/* What was answered is on the disk when it is answered. */
void test_persist_before_answer(void)
{
	char snap[80];
	uint64_t gen;

	cluster_of(1);
	uint32_t vid = make_vdi(1, "v", &gen);
	for (unsigned i = 0; i < 20; i++) {
		struct cmd k = {.type = CMD_CLAIM, .vid = vid};
		assert_int_equal(do_cmd(1, &k), 0);
		assert_int_equal(k.result, OK);
		snprintf(snap, sizeof(snap), "%s/copy", top);
		copy_dir(nodes[1].dir, snap); /* no yield since the answer */
		struct env_io io = {.op = ENV_IO_OPEN,
				    .name = snap,
				    .flags = O_RDONLY | O_DIRECTORY};
		assert_true(co_io(sched, &io) >= 0);
		struct epoch_store es;
		struct cs *s;
		unsigned flags;
		char *err = NULL;
		assert_int_equal(es_open(&es, sched, io.result_file, &s, &flags, &err), 0);
		assert_true(cs_vdi(s, vid)->gen == k.ret_gen);
		assert_int_equal(s->nr_members, 1);
		cs_free(s);
		es_close(&es);
		struct env_io cl = {.op = ENV_IO_CLOSE, .file = io.result_file};
		co_io(sched, &cl);
	}
}

static void log_path(unsigned n, char *buf, size_t len)
{
	snprintf(buf, len, "%s/epoch/log.%llu", nodes[n].dir,
		 (unsigned long long)nodes[n].c->es.nr);
}

void test_torn_log(void)
{
	char path[120], keep[80], data[80];
	struct stat st;
	uint64_t gen;

	cluster_of(1);
	uint32_t vid = make_vdi(1, "v", &gen);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(DO(1, .type = CMD_CLAIM, .vid = vid), OK);
	uint64_t last = cluster_vdi(nodes[1].c, vid)->gen;
	log_path(1, path, sizeof(path));
	node_down(1);
	snprintf(keep, sizeof(keep), "%s/keep", top);
	copy_dir(nodes[1].dir, keep);
	assert_int_equal(stat(path, &st), 0);
	for (unsigned cut = 1; cut < 200; cut += 13) {
		copy_dir(keep, nodes[1].dir);
		assert_int_equal(truncate(path, st.st_size - cut), 0);
		node_started(node_up(1));
		assert_true(node_running(1));
		const struct vdi *v = cluster_vdi(nodes[1].c, vid);
		assert_true(v->gen < last && v->gen + 2 >= last); /* one or two are lost */
		node_down(1);
	}
	/* garbage in the last group is a torn tail, too; in the middle it is not */
	for (unsigned middle = 0; middle < 2; middle++) {
		copy_dir(keep, nodes[1].dir);
		int fd = open(path, O_RDWR);
		off_t off = middle ? 40 : st.st_size - 40;
		assert_int_equal(pread(fd, data, 8, off), 8);
		data[0] ^= 1;
		assert_int_equal(pwrite(fd, data, 8, off), 8);
		close(fd);
		node_up(1);
		WAIT(!nodes[1].starting);
		assert_int_equal(nodes[1].r, middle ? -EBADMSG : 0);
		if (middle)
			assert_non_null(strstr(nodes[1].err, "damaged"));
		else
			assert_true(cluster_vdi(nodes[1].c, vid)->gen == last - 1);
		node_down(1);
	}
	snprintf(path, sizeof(path), "%s/epoch/snapshot", nodes[1].dir);
	copy_dir(keep, nodes[1].dir);
	assert_int_equal(truncate(path, 100), 0);
	node_up(1);
	WAIT(!nodes[1].starting);
	assert_int_equal(nodes[1].r, -EBADMSG);
	node_down(1);
}

void test_clean_restart(void)
{
	uint64_t gen;

	cluster_of(3);
	make_vdi(1, "v", &gen);
	node_started(node_up(4));
	WAIT(node_at(1, 2) && node_at(2, 2) && node_at(3, 2));
	for (unsigned round = 0; round < 3; round++) {
		uint32_t e = cluster_epoch(nodes[1].c);
		uint8_t name[8];
		memcpy(name, cluster_view(nodes[1].c)->name, 8);
		assert_int_equal(DO(2, .type = CMD_SHUTDOWN), OK);
		for (unsigned n = 1; n <= 4; n++) {
			WAIT(nodes[n].nr_shutdown == 1);
			assert_int_equal(cluster_status(nodes[n].c), CLUSTER_SHUTDOWN);
		}
		/* owners may still release, and who leaves makes no epoch */
		assert_int_equal(DO(2, .type = CMD_CLAIM, .vid = 1), SD_RES_SHUTDOWN);
		node_down(1);
		settle();
		assert_int_equal(cluster_epoch(nodes[2].c), e);
		down_all();
		if (round == 1)
			nodes[3].clean_epoch = 0; /* this one was cut off */
		for (unsigned n = 4; n; n--)
			node_up(n);
		for (unsigned n = 1; n <= 4; n++) {
			node_started(&nodes[n]);
			WAIT(node_at(n, round == 1 ? e + 1 : e));
			assert_int_equal(nodes[n].clean, round != 1);
			if (round != 1)
				assert_memory_equal(name, cluster_view(nodes[n].c)->name, 8);
			nodes[n].clean_epoch = 0;
		}
		same_state();
		assert_int_equal(cluster_view(nodes[1].c)->members[0].inc.start, nodes[1].start);
	}
	/* killed after a clean start: the life before this one does not count as this one */
	down_all();
	for (unsigned n = 1; n <= 4; n++)
		node_up(n);
	for (unsigned n = 1; n <= 4; n++)
		WAIT(node_at(n, 4));
	same_state();
}

/* A format that was cut off is finished before anything else. */
void test_format_cut(void)
{
	node_started(node_up(1));
	nodes[1].block_format = true;
	struct pair p = {.n = 1, .c = {.type = CMD_FORMAT, .ctime = 77, .copies = 1, .shift = 22}};
	p.c.flags = SD_CLUSTER_AUTO_VNODES;
	co_start(sched, do_co, &p, "format");
	WAIT(nodes[1].nr_format == 1);
	settle();
	node_down(1);
	assert_true(p.done && p.r == -ENOTCONN);
	node_started(node_up(1));
	assert_int_equal(nodes[1].nr_format, 1);
	WAIT(node_at(1, 2));
	settle();
	node_down(1);
	node_started(node_up(1));
	assert_int_equal(nodes[1].nr_format, 0);
	WAIT(node_at(1, 3));
	/* one that failed is not done either */
	nodes[1].fail_format = -EIO;
	p.done = false;
	p.c.type = CMD_FORMAT;
	p.c.ctime = 79;
	co_start(sched, do_co, &p, "format");
	WAIT(nodes[1].nr_out == 1);
	settle();
	node_down(1);
	nodes[1].fail_format = 0;
	node_started(node_up(1));
	assert_int_equal(nodes[1].nr_format, 1);
	WAIT(node_at(1, 2));
	/* the same when it runs already */
	nodes[1].block_format = true;
	p.done = false;
	p.c.type = CMD_FORMAT;
	p.c.ctime = 78;
	co_start(sched, do_co, &p, "format");
	WAIT(nodes[1].nr_format == 1);
	settle();
	node_down(1);
	node_started(node_up(1));
	assert_int_equal(nodes[1].nr_format, 1);
	assert_true(cluster_params(nodes[1].c)->ctime == 78);
	WAIT(node_at(1, 2));
}

/* Two formats at once: that the first one's hook was run is not said of the second. */
void test_format_twice(void)
{
	struct pair p[2];

	cluster_of(1);
	settle();
	nodes[1].fail_format = -EIO;
	nodes[1].fail_format_nr = nodes[1].nr_format + 2;
	fake_hold(bus_of(1));
	for (unsigned i = 0; i < 2; i++) {
		p[i] = (struct pair){.n = 1, .c = {.type = CMD_FORMAT, .copies = 1, .shift = 22}};
		p[i].c.ctime = 80 + i;
		p[i].c.flags = SD_CLUSTER_AUTO_VNODES;
		co_start(sched, do_co, &p[i], "format");
	}
	settle();
	fake_release(bus_of(1), 0);
	WAIT(nodes[1].nr_out == 1);
	assert_true(p[0].done && p[0].r == 0 && p[0].c.result == OK);
	settle();
	node_down(1);
	nodes[1].fail_format = 0;
	node_started(node_up(1));
	assert_int_equal(nodes[1].nr_format, 1);
	assert_true(cluster_params(nodes[1].c)->ctime == 81);
}

struct many {
	unsigned from, nr, n;
	unsigned *left;
};

static void many_co(void *arg)
{
	struct many *m = arg;

	for (unsigned i = 0; i < m->nr; i++) {
		struct cmd c = {.type = CMD_VDI_CREATE, .size = 1};
		memset(c.name, 'n', 240);
		snprintf(c.name + 240, 16, "%u", m->from + i);
		if (do_cmd(m->n, &c) == 0)
			assert_int_equal(c.result, OK);
	}
	--*m->left;
}

/* Somebody joins between the pieces of an offered state: he has not seen the first ones. */
void test_offer_and_joiner(void)
{
	enum { COS = 40, EACH = 30 };
	struct many m[COS];
	unsigned left = COS;

	cluster_of(1);
	for (unsigned i = 0; i < COS; i++) {
		m[i] = (struct many){i * EACH, EACH, 1, &left};
		assert_non_null(co_start(sched, many_co, &m[i], "many"));
	}
	WAIT(!left);
	node_down(1);
	node_started(node_up(2)); /* knows nothing, and founds */
	fake.slow_uuid = 1;
	fake.slow_pass = 2; /* JOIN, and the first piece of its offer */
	node_up(1);
	WAIT(fake_find(&nodes[1].m.inc));
	fake.slow_uuid = 0;
	WAIT(!cds_list_empty(&bus_of(1)->out));
	settle();
	assert_true(nodes[2].c->offer.len > 0);
	node_up(3);
	WAIT(node_has(3));
	settle();
	assert_false(node_running(1));
	fake_flush(bus_of(1));
	for (unsigned n = 1; n <= 3; n++)
		WAIT(node_running(n) && nodes[n].c->s->nr_vdis == COS * EACH);
	same_state();
}

/* One batch at a node that was not taken in yet: the last member leaves, another's better state is
 * offered, it runs, commands.  What is behind the state must be in the log that belongs to it. */
void test_offer_and_commands(void)
{
	struct cmd force = {.type = CMD_FORCE_RECOVER};
	uint64_t gen;

	cluster_of(2);
	down_all();
	node_started(node_up(2));
	assert_int_equal(do_cmd(2, &force), 0);
	WAIT(node_running(2));
	node_down(2);
	node_started(node_up(2)); /* newer than node 1's branch is going to be */
	node_down(2);
	node_started(node_up(1));
	assert_int_equal(do_cmd(1, &force), 0);
	WAIT(node_running(1));
	fake.slow_uuid = 3;
	fake.slow_pass = 1; /* its JOIN: it confirms nobody */
	node_up(3);
	WAIT(node_has(3));
	fake.slow_uuid = 0;
	node_up(4);
	WAIT(node_has(4) && nodes[4].c->logged && nodes[4].c->s->live);
	settle();
	fake_hold(bus_of(4));
	node_down(1);
	WAIT(!nodes[3].c->s->live);
	fake_flush(bus_of(3));
	node_up(2);
	WAIT(node_running(2));
	uint32_t vid = make_vdi(2, "v", &gen);
	settle();
	assert_true(nodes[4].c->s->live && !cluster_vdi(nodes[4].c, vid));
	fake_release(bus_of(4), 0);
	WAIT(cluster_vdi(nodes[4].c, vid));
	same_state();
	down_all();
	node_started(node_up(4));
	assert_non_null(cluster_vdi(nodes[4].c, vid)); /* C1 */
}

/* A state of several pieces, a log that is replaced, both while commands flow. */
void test_big_state(void)
{
	enum { COS = 50, EACH = 70 };
	struct many m[COS];
	unsigned left = COS;

	cluster_of(2);
	uint64_t nr = nodes[1].c->es.nr;
	for (unsigned i = 0; i < COS; i++) {
		m[i] = (struct many){i * EACH, EACH, 1 + i % 2, &left};
		assert_non_null(co_start(sched, many_co, &m[i], "many"));
	}
	WAIT(nodes[1].c->s->nr_vdis > 2500);
	node_started(node_up(3));
	WAIT(!left);
	assert_true(nodes[1].c->es.nr > nr);
	WAIT(nodes[3].c->s->nr_vdis == COS * EACH);
	same_state();
	down_all();
	for (unsigned n = 1; n <= 3; n++)
		node_up(n);
	for (unsigned n = 1; n <= 3; n++) {
		WAIT(node_running(n));
		assert_int_equal(nodes[n].c->s->nr_vdis, COS * EACH);
	}
	same_state();
	/* offered in pieces: the first one has an empty disk */
	down_all();
	node_started(node_up(4));
	for (unsigned n = 1; n <= 3; n++)
		node_up(n);
	for (unsigned n = 1; n <= 4; n++)
		WAIT(node_running(n) && nodes[n].c->s->nr_vdis == COS * EACH);
	same_state();
}

/* ---- random deaths, delays, restarts ---- */

static uint32_t rnd(uint32_t *x)
{
	*x = *x * 1664525u + 1013904223u;
	return *x >> 8;
}

struct claimer {
	unsigned n;
	uint32_t vid;
	uint64_t *gens; /* all that were ever granted */
	unsigned *nr_gens;
	unsigned *running;
};

static void claimer_co(void *arg)
{
	struct claimer *k = arg;
	struct cmd c = {.type = CMD_CLAIM, .vid = k->vid};

	if (cluster_do(nodes[k->n].c, &c) == 0 && c.result == OK) {
		for (unsigned i = 0; i < *k->nr_gens; i++)
			assert_true(k->gens[i] != c.ret_gen); /* C4 */
		k->gens[(*k->nr_gens)++] = c.ret_gen;
		if (c.ret_gen % 3 == 0) {
			c = (struct cmd){.type = CMD_RELEASE,
					 .vid = k->vid,
					 .gen = c.ret_gen,
					 .clean = true};
			cluster_do(nodes[k->n].c, &c);
		}
	}
	--*k->running;
	free(k);
}

static void churn(uint32_t seed, uint64_t *gens, unsigned *nr_gens, uint32_t vid)
{
	uint32_t x = seed;
	unsigned active = 0;

	for (unsigned i = 0; i < 120; i++) {
		unsigned n = 1 + rnd(&x) % 4;
		struct node *nd = &nodes[n];
		switch (rnd(&x) % 8) {
		case 0:
			if (nd->up && !nd->starting)
				node_down(n);
			break;
		case 1:
		case 2:
			if (!nd->up)
				node_up(n);
			break;
		case 3:
			if (nd->up && fake_find(&nd->m.inc))
				fake_hold(bus_of(n));
			break;
		case 4:
			for (unsigned k = 1; k <= 4; k++)
				if (nodes[k].up && fake_find(&nodes[k].m.inc))
					fake_release(bus_of(k), rnd(&x) % 4);
			break;
		default:
			if (!nd->up || nd->starting || !node_running(n) || *nr_gens > 4000)
				break;
			struct claimer *k = malloc(sizeof(*k));
			*k = (struct claimer){n, vid, gens, nr_gens, &active};
			active++;
			assert_non_null(co_start(sched, claimer_co, k, "claim"));
		}
		co_sleep(1000 * (rnd(&x) % 3000));
	}
	for (unsigned n = 1; n <= 4; n++)
		if (nodes[n].up && fake_find(&nodes[n].m.inc))
			fake_release(bus_of(n), 0);
	for (unsigned n = 1; n <= 4; n++)
		if (!nodes[n].up)
			node_up(n);
	for (unsigned n = 1; n <= 4; n++)
		WAIT(node_running(n) && cluster_view(nodes[n].c)->nr == 4);
	WAIT(!active);
	same_state();
}

void test_churn(void)
{
	static uint64_t gens[5000];
	unsigned nr_gens = 0;
	uint64_t gen;

	cluster_of(4);
	uint32_t vid = make_vdi(1, "v", &gen);
	for (uint32_t seed = 1; seed <= 8; seed++) {
		churn(seed * 77, gens, &nr_gens, vid);
		const struct vdi *v = cluster_vdi(nodes[1].c, vid);
		for (unsigned i = 0; i < nr_gens; i++) /* nothing granted was forgotten */
			assert_true(gens[i] <= v->gen);
	}
	assert_true(nr_gens > 50);
}
