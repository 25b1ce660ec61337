/* lib/co on a little env of its own with virtual time: order, waits, wakes, limits, pooled stacks.
 */
#include "config.h"

#include "lib/co/co.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define MS 1000000ull

struct tenv {
	struct env env;
	uint64_t now;
	struct cds_list_head defers;
	struct env_timer *timers[4096];
	unsigned nr_timers;
	struct env_io *ios[16];
	unsigned nr_ios;
};

static uint64_t t_now(struct env *e)
{
	return ((struct tenv *)e)->now;
}

static void t_timer_del(struct env *e, struct env_timer *t)
{
	struct tenv *te = (struct tenv *)e;

	for (unsigned i = 0; i < te->nr_timers; i++)
		if (te->timers[i] == t)
			te->timers[i--] = te->timers[--te->nr_timers];
}

static void t_timer_set(struct env *e, struct env_timer *t, uint64_t at)
{
	struct tenv *te = (struct tenv *)e;

	t_timer_del(e, t);
	t->at_ns = at;
	assert_true(te->nr_timers < 4096);
	te->timers[te->nr_timers++] = t;
}

static void t_defer(struct env *e, struct env_defer *d)
{
	if (d->queued)
		return;
	d->queued = true;
	cds_list_add_tail(&d->node, &((struct tenv *)e)->defers);
}

static void t_defer_del(struct env *e, struct env_defer *d)
{
	if (d->queued)
		cds_list_del(&d->node);
	d->queued = false;
}

static void t_io_submit(struct env *e, struct env_io *io)
{
	struct tenv *te = (struct tenv *)e;

	te->ios[te->nr_ios++] = io;
}

static const struct env_ops t_ops = {.now = t_now,
				     .timer_set = t_timer_set,
				     .timer_del = t_timer_del,
				     .defer = t_defer,
				     .defer_del = t_defer_del,
				     .io_submit = t_io_submit};

static void t_init(struct tenv *te)
{
	memset(te, 0, sizeof(*te));
	te->env.ops = &t_ops;
	CDS_INIT_LIST_HEAD(&te->defers);
}

/* Run until nothing is left to do. */
static void t_run(struct tenv *te)
{
	for (;;) {
		if (!cds_list_empty(&te->defers)) {
			struct env_defer *d =
				cds_list_first_entry(&te->defers, struct env_defer, node);
			t_defer_del(&te->env, d);
			d->fn(d);
		} else if (te->nr_ios) {
			struct env_io *io = te->ios[--te->nr_ios];
			io->result = 42;
			io->done(io);
		} else if (te->nr_timers) {
			struct env_timer *t = te->timers[0];
			for (unsigned i = 1; i < te->nr_timers; i++)
				if (te->timers[i]->at_ns < t->at_ns)
					t = te->timers[i];
			t_timer_del(&te->env, t);
			if (t->at_ns > te->now)
				te->now = t->at_ns;
			t->fn(t);
		} else {
			return;
		}
	}
}

struct story {
	char text[4096];
	size_t len;
	struct co_sched *s;
	struct tenv *te;
	struct co *co[8];
	struct co_event ev;
	struct co_cond cond;
	struct co_mutex mutex;
	struct co_ranges ranges;
	struct co_group group;
	struct co_sem sem;
	int result;
};

static void say(struct story *st, const char *what)
{
	int n = snprintf(st->text + st->len, sizeof(st->text) - st->len, "%s ", what);
	st->len += (size_t)n;
	assert_true(st->len < sizeof(st->text));
}

static void story_init(struct story *st, struct tenv *te, unsigned max)
{
	t_init(te);
	memset(st, 0, sizeof(*st));
	st->te = te;
	st->s = co_sched_new(&te->env, max);
	assert_non_null(st->s);
	co_event_init(&st->ev);
	co_cond_init(&st->cond);
	co_mutex_init(&st->mutex);
	co_ranges_init(&st->ranges);
	co_group_init(&st->group);
}

static void inner(void *arg)
{
	struct story *st = arg;

	say(st, "in1");
	co_yield ();
	say(st, "in2");
}

static void outer(void *arg)
{
	struct story *st = arg;

	assert_ptr_equal(co_self_sched(), st->s);
	say(st, "out1");
	assert_non_null(co_enter(st->s, inner, st, "inner"));
	say(st, "out2");
	co_yield ();
	say(st, "out3");
}

static void test_enter_nests(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 10);
	assert_non_null(co_enter(st.s, outer, &st, "outer"));
	say(&st, "main");
	t_run(&te);
	assert_string_equal(st.text, "out1 in1 out2 main in2 out3 ");
	assert_int_equal(co_sched_nr(st.s), 0);
	co_sched_free(st.s);
}

static void parker(void *arg)
{
	struct story *st = arg;

	co_wake(co_self()); /* remembered, once */
	co_wake(co_self());
	co_park("a");
	say(st, "woken");
	co_park("b");
	say(st, "again");
}

static void print_line(void *arg, const char *line)
{
	say(arg, line);
}

static void test_wake_is_remembered_once(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 10);
	struct co *co = co_start(st.s, parker, &st, "parker");
	assert_int_equal(st.len, 0); /* not now */
	t_run(&te);
	assert_string_equal(st.text, "woken ");
	co_sched_dump(st.s, print_line, &st);
	assert_string_equal(st.text, "woken parker: waits b ");
	co_wake(co);
	co_wake(co); /* queued already: no more than one */
	t_run(&te);
	assert_string_equal(st.text, "woken parker: waits b again ");
	co_sched_free(st.s);
}

static void test_limit(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 2);
	assert_non_null(co_start(st.s, inner, &st, "1"));
	assert_non_null(co_start(st.s, inner, &st, "2"));
	assert_null(co_start(st.s, inner, &st, "3"));
	assert_null(co_enter(st.s, inner, &st, "3"));
	assert_int_equal(co_group_start(st.s, &st.group, inner, &st, "3"), -ENOMEM);
	t_run(&te);
	assert_string_equal(st.text, "in1 in1 in2 in2 ");
	co_sched_free(st.s);
}

static void deep(void *arg)
{
	volatile char frame[24 << 10];

	memset((void *)frame, 7, sizeof(frame));
	co_yield ();
	for (size_t i = 0; i < sizeof(frame); i++)
		assert_int_equal(frame[i], 7);
}

static void test_many_with_deep_stacks(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 2000);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 1000; i++)
			assert_non_null(co_start(st.s, deep, &st, "deep"));
		t_run(&te);
		assert_int_equal(co_sched_nr(st.s), 0);
	}
	co_sched_free(st.s);
}

static void sleeper(void *arg)
{
	struct story *st = arg;
	struct env_io io = {.op = ENV_IO_SYNC};

	co_sleep(5 * MS);
	assert_int_equal(st->te->now, 5 * MS);
	assert_int_equal(co_io(st->s, &io), 42);
	st->result = co_event_wait_until(&st->ev, 8 * MS);
	assert_int_equal(st->te->now, 8 * MS);
	assert_int_equal(st->result, -ETIMEDOUT);
	st->result = co_cond_wait_until(&st->cond, 9 * MS, "c");
	assert_int_equal(st->result, -ETIMEDOUT);
	co_event_set(&st->ev);
	assert_int_equal(co_event_wait_until(&st->ev, 10 * MS), 0);
	assert_int_equal(st->te->now, 9 * MS);
	say(st, "done");
}

static void test_time(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 10);
	co_start(st.s, sleeper, &st, "sleeper");
	t_run(&te);
	assert_string_equal(st.text, "done ");
	assert_int_equal(te.nr_timers, 0);
	co_sched_free(st.s);
}

static void cond_waiter(void *arg)
{
	struct story *st = arg;

	assert_int_equal(co_cond_wait_until(&st->cond, 100 * MS, "c"), 0);
	say(st, "c");
	co_event_wait(&st->ev);
	say(st, "e");
}

static void cond_waker(void *arg)
{
	struct story *st = arg;

	co_cond_signal(&st->cond);
	co_yield ();
	say(st, "|");
	co_cond_broadcast(&st->cond);
	co_sleep(MS);
	say(st, "|");
	co_event_set(&st->ev);
}

static void test_cond_event(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 10);
	for (int i = 0; i < 3; i++)
		co_start(st.s, cond_waiter, &st, "w");
	co_start(st.s, cond_waker, &st, "k");
	t_run(&te);
	assert_string_equal(st.text, "c | c c | e e e ");
	assert_int_equal(te.now, MS);
	co_sched_free(st.s);
}

static void mutex_user(void *arg)
{
	struct story *st = arg;

	co_mutex_lock(&st->mutex);
	assert_false(co_mutex_trylock(&st->mutex));
	int mine = ++st->result;
	co_sleep(MS);
	assert_int_equal(st->result, mine);
	co_mutex_unlock(&st->mutex);
}

static void test_mutex(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 10);
	for (int i = 0; i < 5; i++)
		co_start(st.s, mutex_user, &st, "m");
	t_run(&te);
	assert_int_equal(te.now, 5 * MS);
	co_sched_free(st.s);
}

struct range_job {
	struct story *st;
	const char *name;
	uint64_t off, len;
	bool excl;
};

static void range_user(void *arg)
{
	struct range_job *j = arg;
	struct co_range h;

	co_range_lock(&j->st->ranges, &h, j->off, j->len, j->excl);
	say(j->st, j->name);
	co_sleep(MS);
	co_range_unlock(&h);
}

static void test_ranges(void **state)
{
	struct tenv te;
	struct story st;
	struct range_job jobs[] = {
		{&st, "r1", 0, 10, false}, {&st, "r2", 5, 10, false},
		{&st, "w1", 0, 4, true},   {&st, "r3", 0, 1, false} /* behind w1: no starvation */,
		{&st, "w2", 20, 1, true},  {&st, "w3", 14, 7, true},
	};

	story_init(&st, &te, 10);
	for (unsigned i = 0; i < 6; i++)
		co_start(st.s, range_user, &jobs[i], "r");
	t_run(&te);
	assert_string_equal(st.text, "r1 r2 w2 w1 w3 r3 ");
	assert_int_equal(te.now, 3 * MS);
	assert_true(co_ranges_idle(&st.ranges));
	co_sched_free(st.s);
}

static void group_waiter(void *arg)
{
	struct story *st = arg;

	for (int i = 0; i < 3; i++)
		assert_int_equal(co_group_start(st->s, &st->group, inner, st, "child"), 0);
	co_group_add(&st->group);
	say(st, "wait");
	co_group_wait(&st->group);
	say(st, "all");
	co_group_wait(&st->group); /* nothing to wait for */
}

static void group_done_later(void *arg)
{
	struct story *st = arg;

	co_sleep(MS);
	say(st, "last");
	co_group_done(&st->group);
}

static void test_group(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 10);
	co_start(st.s, group_waiter, &st, "g");
	co_start(st.s, group_done_later, &st, "d");
	t_run(&te);
	assert_string_equal(st.text, "in1 in1 in1 wait in2 in2 in2 last all ");
	co_sched_free(st.s);
}

static void sem_big(void *arg)
{
	struct story *st = arg;

	co_sem_take(&st->sem, 3);
	say(st, "big");
	co_sem_give(&st->sem, 3);
}

static void sem_small(void *arg)
{
	struct story *st = arg;

	co_sem_take(&st->sem, 1);
	say(st, "small");
	co_sleep(MS);
	co_sem_give(&st->sem, 1);
}

static void test_sem(void **state)
{
	struct tenv te;
	struct story st;

	story_init(&st, &te, 10);
	co_sem_init(&st.sem, 3);
	co_start(st.s, sem_small, &st, "s");
	co_start(st.s, sem_big, &st, "b");
	co_start(st.s, sem_small, &st, "s"); /* behind the big one: first come first served */
	t_run(&te);
	assert_string_equal(st.text, "small big small ");
	assert_int_equal(st.sem.avail, 3);
	co_sched_free(st.s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enter_nests), cmocka_unit_test(test_wake_is_remembered_once),
		cmocka_unit_test(test_limit),	    cmocka_unit_test(test_many_with_deep_stacks),
		cmocka_unit_test(test_time),	    cmocka_unit_test(test_cond_event),
		cmocka_unit_test(test_mutex),	    cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_group),	    cmocka_unit_test(test_sem),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
