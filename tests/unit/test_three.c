/* Three daemons in one process (no mutable globals), and a client that writes through each of them.
 * The daemons share one env and thread; the client is libsheepdog on the main thread. */
#include "config.h"

#include "include/sheepdog/sheepdog.h"
#include "lib/base/util.h"
#include "lib/env/linux.h"
#include "sheep/server.h"
#include "sheep/sheep.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define NODES 3
#define BLOCK 65536u

extern const struct bus_driver bus_local;

struct node {
	struct sheep sh;
	struct sheep_conf conf;
	char dir[128];
	int result;
	char *msg;
	bool running;
};

struct world {
	char dir[64], bus[96];
	struct env *env;
	struct node node[NODES];
	pthread_t thread;
	_Atomic int want;  /* 1: start, 2: stop all, 3: end */
	_Atomic int state; /* number of daemons that run (want 1), or -1: failed */
	_Atomic uint16_t port[NODES];
};

static void on_stopped(struct sheep *sh)
{
	struct node *n = sh->arg;

	n->running = false;
}

static void start_co(void *arg)
{
	struct node *n = arg;

	n->result = sheep_start(&n->sh, &n->msg);
	n->running = n->result == 0;
	if (n->result < 0)
		fprintf(stderr, "node %s: %s\n", n->dir, n->msg);
}

static void node_begin(struct world *w, unsigned i)
{
	struct node *n = &w->node[i];

	memset(&n->sh, 0, sizeof(n->sh));
	n->conf = (struct sheep_conf){
		.store = {.dir = n->dir, .journal_size = STORE_JOURNAL_SIZE_MIN},
		.driver = &bus_local,
		.driver_param = w->bus,
		.bind = {.family = AF_INET, .ip = {[12] = 127, [15] = 1}},
		.zone_set = true,
		.zone = i,
		.port = w->port[i],
	};
	n->sh.conf = &n->conf;
	n->sh.env = w->env;
	n->sh.sched = co_sched_new(w->env, 1000);
	n->sh.stopped = on_stopped;
	n->sh.arg = n;
	n->result = 1;
	co_start(n->sh.sched, start_co, n, "start");
}

static void node_end(struct node *n)
{
	while (co_sched_nr(n->sh.sched))
		env_linux_turn(co_sched_env(n->sh.sched), 10);
	co_sched_free(n->sh.sched);
	free(n->msg);
	n->msg = NULL;
}

static void *daemons(void *arg)
{
	struct world *w = arg;
	struct env_linux_conf conf = {.nr_workers = 2, .aio_depth = 256};

	if (env_linux_new(&conf, &w->env) < 0) {
		w->state = -1;
		return NULL;
	}
	while (w->want != 3) {
		if (w->want == 1) {
			for (unsigned i = 0; i < NODES; i++) {
				node_begin(w, i);
				while (w->node[i].result == 1)
					env_linux_turn(w->env, 10);
				w->port[i] =
					w->node[i].running ? server_port(w->node[i].sh.server) : 0;
			}
			w->want = 0;
			w->state = NODES;
		} else if (w->want == 2) {
			for (unsigned i = 0; i < NODES; i++)
				if (w->node[i].running)
					sheep_exit(&w->node[i].sh, 0, "the test ends");
			for (unsigned i = 0; i < NODES; i++)
				node_end(&w->node[i]);
			w->want = 0;
			w->state = 0;
		}
		env_linux_turn(w->env, 5);
	}
	env_linux_free(w->env);
	return NULL;
}

static void order(struct world *w, int want, int state)
{
	w->want = want;
	for (int i = 0; w->want != 0 || w->state != state; i++) {
		assert_true(i < 20000);
		usleep(1000);
	}
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	snprintf(w->dir, sizeof(w->dir), "/tmp/test_three.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->bus, sizeof(w->bus), "%s/bus", w->dir);
	for (unsigned i = 0; i < NODES; i++)
		snprintf(w->node[i].dir, sizeof(w->node[i].dir), "%s/%u", w->dir, i);
	w->state = 0;
	assert_int_equal(pthread_create(&w->thread, NULL, daemons, w), 0);
	order(w, 1, NODES);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	order(w, 2, 0);
	w->want = 3;
	pthread_join(w->thread, NULL);
	nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

static struct sd_cluster *client(struct world *w, unsigned i)
{
	struct sd_cluster *c;
	char addr[64];

	assert_true(w->port[i] != 0);
	snprintf(addr, sizeof(addr), "127.0.0.1:%u", w->port[i]);
	assert_int_equal(sd_cluster_open(addr, &c), 0);
	sd_cluster_set_timeout(c, 20000);
	return c;
}

static void format(struct world *w)
{
	struct sd_cluster *c = client(w, 0);
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER,
			     .opcode = SD_OP_MAKE_FS,
			     .flags = SD_FLAG_WRITE,
			     .data_length = 6};
	struct sd_rsp rsp;

	req.cluster.copies = 3;
	req.cluster.flags = SD_CLUSTER_AUTO_VNODES;
	assert_int_equal(sd_request(c, &req, "plain", NULL, NULL, &rsp), 0);
	assert_int_equal(rsp.result, SD_RES_SUCCESS);
	sd_cluster_close(c);
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static void expect_block(struct sd_vdi *v, uint64_t off, unsigned seed)
{
	static uint8_t want[BLOCK], got[BLOCK];

	fill(want, BLOCK, seed);
	assert_int_equal(sd_read(v, got, BLOCK, off), 0);
	assert_memory_equal(want, got, BLOCK);
}

static void test_write_through_each(void **state)
{
	struct world *w = *state;
	static uint8_t buf[BLOCK];
	struct sd_cluster *c[NODES];
	struct sd_vdi *v;

	format(w);
	c[0] = client(w, 0);
	assert_int_equal(sd_vdi_create(c[0], "v", 64 << 20, NULL, NULL), 0);
	for (unsigned i = 1; i < NODES; i++)
		c[i] = client(w, i);
	for (unsigned i = 0; i < NODES; i++) {
		assert_int_equal(sd_vdi_open(c[i], "v", 0, &v), 0);
		for (unsigned k = 0; k < 8; k++) {
			fill(buf, BLOCK, i * 8 + k);
			assert_int_equal(
				sd_write(v, buf, BLOCK, ((uint64_t)k * 5 << 20) + i * BLOCK), 0);
		}
		assert_int_equal(sd_flush(v), 0);
		assert_int_equal(sd_vdi_close(v), 0);
	}
	for (unsigned i = 0; i < NODES; i++) {
		assert_int_equal(sd_vdi_open(c[i], "v", SD_OPEN_RDONLY, &v), 0);
		for (unsigned j = 0; j < NODES; j++)
			for (unsigned k = 0; k < 8; k++)
				expect_block(v, ((uint64_t)k * 5 << 20) + j * BLOCK, j * 8 + k);
		assert_int_equal(sd_vdi_close(v), 0);
		sd_cluster_close(c[i]);
	}
	/* What one process keeps apart: each node has its own log position, view and store. */
	for (unsigned i = 0; i < NODES; i++) {
		assert_int_equal(cluster_epoch(w->node[i].sh.cluster), 1);
		assert_int_equal(cluster_view(w->node[i].sh.cluster)->nr, NODES);
		assert_true(store_nr_objects(w->node[i].sh.store) >= 9);
	}

	/* All stop and come back on the same stores; what was written is there. */
	order(w, 2, 0);
	order(w, 1, NODES);
	c[0] = client(w, 2);
	assert_int_equal(sd_vdi_open(c[0], "v", 0, &v), 0);
	for (unsigned j = 0; j < NODES; j++)
		for (unsigned k = 0; k < 8; k++)
			expect_block(v, ((uint64_t)k * 5 << 20) + j * BLOCK, j * 8 + k);
	assert_int_equal(sd_vdi_close(v), 0);
	assert_int_equal(sd_vdi_delete(c[0], "v"), 0);
	sd_cluster_close(c[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_write_through_each, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
