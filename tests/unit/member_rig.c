/* member_rig.c - see member_rig.h. */
#include "config.h"

#include "tests/unit/member_rig.h"

#include <ftw.h>

struct fake fake;
struct env *env;
struct co_sched *sched;
struct node nodes[NODES + 1];
char top[48];

/* ---- hooks ---- */

static void hook_view(void *arg, struct view *old, struct view *v, bool clean)
{
	struct node *nd = arg;

	assert_non_null(nd->c); /* *ret is set before the first hook */
	assert_true(v->self >= 0);
	assert_ptr_equal(cluster_view(nd->c), v);
	nd->nr_view++;
	nd->old_epoch = old ? old->epoch : 0;
	nd->epoch = v->epoch;
	nd->clean = clean;
	nd->given_up = v->members[v->self].given_up;
	nd->common = v->members[v->self].common_epoch;
	while (nd->block_view)
		co_sleep(1000000);
}

static void hook_vdi(void *arg, const struct vdi *v)
{
	struct node *nd = arg;

	assert_true(v->vid > 0);
	nd->nr_vdi++;
}

static int hook_format(void *arg)
{
	struct node *nd = arg;

	nd->nr_format++;
	while (nd->block_format)
		co_sleep(1000000);
	return !nd->fail_format_nr || nd->nr_format == nd->fail_format_nr ? nd->fail_format : 0;
}

static void hook_shutdown(void *arg)
{
	struct node *nd = arg;
	const struct view *v = cluster_view(nd->c);

	nd->nr_shutdown++;
	if (!v)
		return;
	nd->clean_epoch = v->epoch;
	memcpy(nd->clean_name, v->name, 8);
}

static void hook_out(void *arg, const char *reason)
{
	struct node *nd = arg;

	nd->nr_out++;
	snprintf(nd->out, sizeof(nd->out), "%s", reason);
}

/* ---- nodes ---- */

static void dir_open(struct node *nd)
{
	struct env_io io = {.op = ENV_IO_OPEN, .name = nd->dir, .flags = O_RDONLY | O_DIRECTORY};

	assert_true(co_io(sched, &io) >= 0);
	nd->dirf = io.result_file;
}

static void dir_close(struct node *nd)
{
	struct env_io io = {.op = ENV_IO_CLOSE, .file = nd->dirf};

	co_io(sched, &io);
	nd->dirf = NULL;
}

static void start_co(void *arg)
{
	struct node *nd = arg;
	struct cluster_conf conf = {
		.driver = &fake_driver,
		.param = nd->param,
		.self = nd->m,
		.zone_auto = true,
		.max_gen = nd->max_gen,
		.clean_epoch = nd->clean_epoch,
		.dir = nd->dirf,
		.hooks = {hook_view, hook_vdi, hook_format, hook_shutdown, hook_out},
		.arg = nd,
	};

	memcpy(conf.clean_name, nd->clean_name, 8);
	nd->r = cluster_start(sched, &conf, &nd->c, &nd->waiting, &nd->err);
	nd->starting = false;
}

struct node *node_up(unsigned n)
{
	struct node *nd = &nodes[n];

	assert_false(nd->up);
	nd->m.inc.start = ++nd->start;
	free(nd->waiting);
	free(nd->err);
	nd->waiting = nd->err = NULL;
	nd->nr_view = nd->nr_format = nd->nr_vdi = nd->nr_shutdown = nd->nr_out = 0;
	nd->epoch = 0;
	nd->clean = nd->given_up = false;
	nd->r = 1;
	mkdir(nd->dir, 0700);
	dir_open(nd);
	nd->up = nd->starting = true;
	assert_non_null(co_start(sched, start_co, nd, "start"));
	return nd;
}

/* What a failure looks like. */
void node_dump(void)
{
	for (unsigned n = 1; n <= NODES; n++) {
		const struct node *nd = &nodes[n];
		const struct cs *s = nd->c ? nd->c->s : NULL;
		if (!nd->up)
			continue;
		print_message("node %u.%u: starting %d r %d out '%s' status %d view %u\n", n,
			      (unsigned)nd->start, nd->starting, nd->r, nd->out,
			      nd->c ? (int)nd->c->status : -1,
			      nd->c && nd->c->view ? nd->c->view->epoch : 0);
		if (!s)
			continue;
		print_message("  status %d live %d epoch %u members %u start %u\n", s->status,
			      s->live, cs_newest(s) ? cs_newest(s)->epoch : 0, s->nr_members,
			      s->nr_start);
		for (unsigned i = 0; i < s->nr_lobby; i++)
			print_message("  lobby %u.%u synced %d admitted %d refused %d acks %u key "
				      "%u/%u/%llx\n",
				      s->lobby[i]->j.m.inc.uuid[0],
				      (unsigned)s->lobby[i]->j.m.inc.start, s->lobby[i]->synced,
				      s->lobby[i]->admitted, s->lobby[i]->refused,
				      s->lobby[i]->nr_acks, s->lobby[i]->j.key.forces,
				      s->lobby[i]->j.key.epoch,
				      (unsigned long long)s->lobby[i]->j.key.pos);
	}
}

/* Give everything that is on its way the time to arrive. */
void settle(void)
{
	co_sleep(30000000);
}

void node_started(struct node *nd)
{
	WAIT(!nd->starting);
	if (nd->r < 0)
		fail_msg("node %u: %s", nd->n, nd->err ? nd->err : strerror(-nd->r));
}

static void unblock(void *arg)
{
	struct node *nd = arg;

	co_sleep(3000000);
	nd->block_view = nd->block_format = nd->unblocking = false;
}

/* kill -9 */
void node_down(unsigned n)
{
	struct node *nd = &nodes[n];
	struct bus *b = fake_find(&nd->m.inc);

	assert_true(nd->up);
	if (b)
		fake_kill(b);
	nd->unblocking = true;
	assert_non_null(co_start(sched, unblock, nd, "unblock"));
	if (nd->c && !nd->starting) {
		cluster_stop(nd->c);
	} else if (nd->c) { /* it is still starting: the driver's end makes that return */
		struct cluster *c = nd->c;
		member_fail(c, strdup("killed"));
		WAIT(!nd->starting);
		if (nd->r == 0)
			cluster_stop(c);
	}
	nd->c = NULL;
	WAIT(!nd->starting);
	WAIT(!nd->unblocking);
	dir_close(nd);
	nd->up = false;
}

struct bus *bus_of(unsigned n)
{
	struct bus *b = fake_find(&nodes[n].m.inc);

	assert_non_null(b);
	return b;
}

int do_cmd(unsigned n, struct cmd *cmd)
{
	cmd->time = env_wall(env);
	cmd->random = env_random64(env);
	return cluster_do(nodes[n].c, cmd);
}

void format_all(unsigned n)
{
	struct cmd f = {.type = CMD_FORMAT,
			.ctime = env_wall(env),
			.copies = 2,
			.shift = 22,
			.flags = SD_CLUSTER_AUTO_VNODES,
			.store = "plain"};

	assert_int_equal(do_cmd(n, &f), 0);
	assert_int_equal(f.result, OK);
}

bool node_running(unsigned n)
{
	return nodes[n].c && cluster_status(nodes[n].c) == CLUSTER_RUNNING;
}

bool node_at(unsigned n, uint32_t epoch)
{
	return node_running(n) && cluster_view(nodes[n].c)->epoch == epoch;
}

bool node_has(unsigned n)
{
	return nodes[n].c && nodes[n].c->s;
}

/* Nodes 1 .. @nr, formatted. */
void cluster_of(unsigned nr)
{
	for (unsigned n = 1; n <= nr; n++)
		node_started(node_up(n));
	format_all(nr);
	for (unsigned n = 1; n <= nr; n++)
		WAIT(node_at(n, 1));
}

/* All at once: nobody sees the others die. */
void down_all(void)
{
	for (unsigned n = 1; n <= NODES; n++)
		if (nodes[n].up && fake_find(&nodes[n].m.inc))
			fake_hold(bus_of(n));
	for (unsigned n = 1; n <= NODES; n++)
		if (nodes[n].up)
			node_down(n);
}

static bool all_same(void)
{
	const struct node *first = NULL;

	for (unsigned n = 1; n <= NODES; n++) {
		if (!nodes[n].up || !node_has(n))
			continue;
		if (!first)
			first = &nodes[n];
		else if (cluster_state_hash(nodes[n].c) != cluster_state_hash(first->c))
			return false;
	}
	return first != NULL;
}

/* At rest, C6. */
void same_state(void)
{
	settle();
	WAIT(all_same());
}

uint32_t make_vdi(unsigned n, const char *name, uint64_t *gen)
{
	struct cmd c = {.type = CMD_VDI_CREATE, .size = 1 << 20};

	snprintf(c.name, sizeof(c.name), "%s", name);
	assert_int_equal(do_cmd(n, &c), 0);
	assert_int_equal(c.result, OK);
	assert_int_equal(DO(n, .type = CMD_VDI_VISIBLE, .vid = c.ret_vid, .gen = c.ret_gen), OK);
	*gen = c.ret_gen;
	return c.ret_vid;
}

void do_co(void *arg)
{
	struct pair *p = arg;

	p->r = do_cmd(p->n, &p->c);
	p->done = true;
}

/* ---- around them ---- */

struct body {
	void (*fn)(void);
	bool done;
};

static void body_co(void *arg)
{
	struct body *b = arg;

	b->fn();
	down_all();
	b->done = true;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void nodes_init(void)
{
	snprintf(top, sizeof(top), "/tmp/test_member.XXXXXX");
	assert_non_null(mkdtemp(top));
	for (unsigned n = 1; n <= NODES; n++) {
		struct node *nd = &nodes[n];
		memset(nd, 0, sizeof(*nd));
		nd->n = n;
		snprintf(nd->dir, sizeof(nd->dir), "%s/%u", top, n);
		memset(nd->m.inc.uuid, (int)n, 16);
		nd->m.addr.port = (uint16_t)(7000 + n);
		nd->m.space = 1000;
	}
}

void in_coroutine(void (*fn)(void))
{
	struct env_linux_conf conf = {.nr_workers = 2};
	struct body b = {.fn = fn};

	nodes_init();
	assert_int_equal(env_linux_new(&conf, &env), 0);
	sched = co_sched_new(env, 200);
	assert_non_null(co_start(sched, body_co, &b, "test"));
	while (!b.done || co_sched_nr(sched))
		env_linux_turn(env, -1);
	assert_int_equal(fake.nr, 0);
	co_sched_free(sched);
	env_linux_free(env);
	for (unsigned n = 1; n <= NODES; n++) {
		free(nodes[n].waiting);
		free(nodes[n].err);
	}
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
