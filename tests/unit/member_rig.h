/* member_rig.h - several members in one process, over a bus in memory and real directories. */
#ifndef TESTS_UNIT_MEMBER_RIG_H
#define TESTS_UNIT_MEMBER_RIG_H

#include "lib/base/util.h"
#include "lib/env/linux.h"
#include "sheep/member_int.h"
#include "tests/unit/fakebus.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define OK	SD_RES_SUCCESS
#define NODES	6
#define WAIT_MS 5000

struct node {
	unsigned n;
	char dir[64];
	struct cluster *c;
	struct env_file *dirf;
	uint64_t start;
	/* conf */
	struct member m;
	uint64_t max_gen;
	uint32_t clean_epoch;
	uint8_t clean_name[8];
	const char *param;
	/* start */
	bool up, starting;
	int r;
	char *waiting, *err;
	/* hooks */
	bool block_view, block_format, unblocking;
	int fail_format;	 /* what the hook answers... */
	unsigned fail_format_nr; /* ...when it is called so often; 0: always */
	unsigned nr_view, nr_format, nr_vdi, nr_shutdown, nr_out;
	uint32_t epoch, old_epoch;
	bool clean, given_up;
	uint32_t common;
	char out[200];
};

struct pair {
	unsigned n;
	struct cmd c;
	int r;
	bool done;
};

extern struct env *env;
extern struct co_sched *sched;
extern struct node nodes[NODES + 1]; /* 1 .. NODES */
extern char top[48];

struct node *node_up(unsigned n);
void node_dump(void);
void settle(void);
void node_started(struct node *nd);
void node_down(unsigned n);
struct bus *bus_of(unsigned n);
int do_cmd(unsigned n, struct cmd *cmd);
void format_all(unsigned n);
bool node_running(unsigned n);
bool node_at(unsigned n, uint32_t epoch);
bool node_has(unsigned n);
void cluster_of(unsigned nr);
void down_all(void);
void same_state(void);
uint32_t make_vdi(unsigned n, const char *name, uint64_t *gen);
void do_co(void *arg);
void in_coroutine(void (*fn)(void));

/* Until @cond holds; the test fails when that takes too long. */
#define WAIT(cond)                                                                                 \
	do {                                                                                       \
		unsigned ms_ = 0;                                                                  \
		while (!(cond) && ms_++ < WAIT_MS)                                                 \
			co_sleep(1000000);                                                         \
		if (!(cond)) {                                                                     \
			node_dump();                                                               \
			fail_msg("line %d: never: %s", __LINE__, #cond);                           \
		}                                                                                  \
	} while (0)

#define DO(n, ...)                                                                                 \
	({                                                                                         \
		struct cmd cmd_ = {__VA_ARGS__};                                                   \
		assert_int_equal(do_cmd(n, &cmd_), 0);                                             \
		cmd_.result;                                                                       \
	})

/* member_stop.c */
void test_restart_any_order(void);
void test_missing_node(void);
void test_left_before_stop(void);
void test_newest_wins(void);
void test_force_and_given_up(void);
void test_forced_outranks(void);
void test_persist_before_answer(void);
void test_torn_log(void);
void test_clean_restart(void);
void test_format_cut(void);
void test_format_twice(void);
void test_offer_and_joiner(void);
void test_offer_and_commands(void);
void test_big_state(void);
void test_churn(void);

#endif
