/* env_common.h - what the tests of the env share: an env made and freed around each test. */
#ifndef TESTS_UNIT_ENV_COMMON_H
#define TESTS_UNIT_ENV_COMMON_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <poll.h>

#include "lib/env/linux.h"

#define MSEC 1000000ull

static struct env *env;

static inline int setup(void **state)
{
	struct env_linux_conf conf = {.nr_workers = 2, .aio_depth = 16};
	return env_linux_new(&conf, &env);
}

static inline int teardown(void **state)
{
	env_linux_free(env); /* asserts that nothing is left */
	env = NULL;
	return 0;
}

static inline bool turn_until(const bool *flag, unsigned ms)
{
	uint64_t end = env_now(env) + ms * MSEC;
	while (!*flag && env_now(env) < end)
		env_linux_turn(env, 10);
	return *flag;
}

static inline void turns(unsigned ms)
{
	bool never = false;
	turn_until(&never, ms);
}

static inline bool readable(int ms)
{
	struct pollfd p = {.fd = env_linux_fd(env), .events = POLLIN};
	return poll(&p, 1, ms) == 1;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
