/* peer_tests.h - the tests of peer_load.c, run by test_peer.c */
#ifndef TESTS_UNIT_PEER_TESTS_H
#define TESTS_UNIT_PEER_TESTS_H

void test_pull(void **state);
void test_big(void **state);
void test_bounds(void **state);
void test_few_coroutines(void **state);
void test_turns(void **state);
void test_slow_reader(void **state);
void test_garbage(void **state);
void test_liar(void **state);
void test_stop(void **state);
void test_flood(void **state);

#endif
