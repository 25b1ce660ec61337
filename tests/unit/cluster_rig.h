/* cluster_rig.h - a group of nodes, as one state machine sees it. */
#ifndef TESTS_UNIT_CLUSTER_RIG_H
#define TESTS_UNIT_CLUSTER_RIG_H

#include "sheep/cluster_int.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define OK    SD_RES_SUCCESS
#define CTIME 0x1234567800000001ull

extern struct cs_out out; /* of the last event */

struct incarnation inc(unsigned n, uint64_t start);
struct join join_of(unsigned n, uint64_t start);
void clear_out(void);
struct cs *found(const struct join *j);
void msg(struct cs *s, const struct incarnation *from, struct enc *e, struct cmd *reply);
uint32_t send_cmd(struct cs *s, unsigned n, uint64_t start, struct cmd *cmd);
void send_join(struct cs *s, const struct join *j);
void send_state(struct cs *s, const struct join *j);
void send_ack(struct cs *s, unsigned from, unsigned joiner, uint64_t start);
void view(struct cs *s, const unsigned *n, unsigned nr);
struct cmd format_cmd(void);
struct cs *group(unsigned nr);
uint32_t epoch(const struct cs *s);
uint64_t hash(const struct cs *s);
struct cs *copy(const struct cs *s);
uint32_t create(struct cs *s, unsigned n, const char *name, struct cmd *ret);
uint32_t create_visible(struct cs *s, unsigned n, const char *name, struct cmd *ret);

#define CMD(s, n, ...)                                                                             \
	({                                                                                         \
		struct cmd cmd_ = {__VA_ARGS__};                                                   \
		send_cmd(s, n, 1, &cmd_);                                                          \
	})

#define VIEW(s, ...)                                                                               \
	view(s, (const unsigned[]){__VA_ARGS__},                                                   \
	     sizeof((const unsigned[]){__VA_ARGS__}) / sizeof(unsigned))

/* cluster_members.c */
void test_join(void **state);
void test_joiner_dies(void **state);
void test_acker_dies(void **state);
void test_two_joiners(void **state);
void test_only_joiner_left(void **state);
void test_refusals(void **state);
void test_start_newest(void **state);
void test_start_clean(void **state);
void test_start_set_with_joiner(void **state);
void test_force(void **state);
void test_given_up(void **state);
void test_history_bound(void **state);

/* cluster_expel.c */
void test_expel(void **state);
void test_expel_two(void **state);
void test_expel_mutual(void **state);
void test_accusations_end(void **state);
void test_silent(void **state);
void test_sessions(void **state);
void test_cached(void **state);

#endif
