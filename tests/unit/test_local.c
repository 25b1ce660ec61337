/* The local driver: order, views, deaths by kill -9 at any instruction, leftovers. */
#include "config.h"

#include "include/sheepdog/limits.h"
#include "lib/base/util.h"
#include "lib/env/linux.h"
#include "sheep/cluster/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#define KIDS	4
#define KILLS	40
#define WAIT_MS 10000

extern const struct bus_driver bus_local;

struct rig {
	char path[64];
	struct env *env;
};

struct listener {
	struct bus *bus;
	uint64_t hash; /* of everything delivered since `from_view` */
	unsigned nr_views, nr_messages, nr_members;
	struct incarnation members[64];
	uint64_t last[64]; /* newest number of members[i] */
	bool out, bad, last_joined;
	char reason[256];
	char text[256]; /* last message */
	size_t len;
	struct bus *close_in_message;
	int lock_fd; /* another description of the bus file */
	unsigned nr_warns;
	char warning[512];
	bool was_alive; /* some member was, as the others see it, when we were told to be out */
};

static void fold(struct listener *l, const void *p, size_t len)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++)
		l->hash = (l->hash ^ b[i]) * 0x100000001b3ull;
}

static int find(struct listener *l, const struct incarnation *inc)
{
	for (unsigned i = 0; i < l->nr_members; i++)
		if (!memcmp(&l->members[i], inc, sizeof(*inc)))
			return (int)i;
	return -1;
}

static void on_view(void *arg, const struct bus_member *m, unsigned nr,
		    const struct bus_member *left, unsigned nr_left)
{
	struct listener *l = arg;
	struct incarnation members[64];
	uint64_t last[64];

	assert_true(nr <= 64);
	for (unsigned i = 0; i < nr; i++) {
		int k = find(l, &m[i].inc);
		members[i] = m[i].inc;
		last[i] = k >= 0 ? l->last[k] : 0;
		fold(l, &m[i].inc, sizeof(m[i].inc));
	}
	for (unsigned i = 0; i < nr_left; i++) {
		l->bad |= find(l, &left[i].inc) < 0 || left[i].silent;
		for (unsigned k = 0; k < nr; k++)
			l->bad |= !memcmp(&m[k].inc, &left[i].inc, sizeof(left[i].inc));
	}
	memcpy(l->members, members, sizeof(members));
	memcpy(l->last, last, sizeof(last));
	l->nr_members = nr;
	l->nr_views++;
}

static void on_message(void *arg, const struct incarnation *from, const void *msg, size_t len)
{
	struct listener *l = arg;
	int k = find(l, from);
	uint64_t n = 0;

	l->bad |= k < 0; /* B3 */
	if (len == sizeof(n) && k >= 0) {
		memcpy(&n, msg, sizeof(n));
		l->bad |= l->last[k] && n != l->last[k] + 1; /* nothing lost, nothing twice */
		l->last[k] = n;
	}
	fold(l, from, sizeof(*from));
	fold(l, msg, len);
	l->len = len;
	snprintf(l->text, sizeof(l->text), "%.*s", len < 200 ? (int)len : 200, (const char *)msg);
	l->nr_messages++;
	if (l->close_in_message) {
		bus_local.close(l->close_in_message);
		l->close_in_message = l->bus = NULL;
	}
}

/* As the driver does it: beyond the end of the file one byte for each member that is alive. */
static bool anyone_alive(int fd)
{
	struct flock fl = {.l_type = F_WRLCK,
			   .l_whence = SEEK_SET,
			   .l_start = (off_t)((1ull << 62) + 1),
			   .l_len = SD_MEMBERS_MAX};

	assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
	return fl.l_type != F_UNLCK;
}

static void on_out(void *arg, const char *reason)
{
	struct listener *l = arg;

	l->was_alive = l->lock_fd && anyone_alive(l->lock_fd);
	l->out = true;
	snprintf(l->reason, sizeof(l->reason), "%s", reason);
}

static void on_warn(void *arg, const char *text)
{
	struct listener *l = arg;

	l->nr_warns++;
	snprintf(l->warning, sizeof(l->warning), "%s", text);
}

static const struct bus_cb cb = {on_view, on_message, on_out, on_warn};

static struct incarnation inc(int id, uint64_t start)
{
	return (struct incarnation){.uuid = {1, (uint8_t)id}, .start = start};
}

static void join(struct rig *r, struct listener *l, int id, uint64_t start)
{
	struct incarnation self = inc(id, start);
	char *err = NULL;

	memset(l, 0, sizeof(*l));
	int e = bus_local.open(r->env, r->path, &self, &cb, l, &l->bus, &err);
	if (e < 0)
		fail_msg("%s", err);
}

static void turn_until(struct rig *r, bool (*fn)(void *), void *arg)
{
	uint64_t end = env_now(r->env) + WAIT_MS * 1000000ull;

	while (!fn(arg)) {
		if (env_now(r->env) > end)
			fail_msg("waited in vain");
		env_linux_turn(r->env, 20);
	}
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct env_linux_conf conf = {0};

	snprintf(r->path, sizeof(r->path), "/tmp/test_local.XXXXXX");
	int fd = mkstemp(r->path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(env_linux_new(&conf, &r->env), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	env_linux_free(r->env);
	unlink(r->path);
	free(r);
	return 0;
}

struct want {
	struct listener *l[3];
	unsigned nr, members, messages;
};

static bool reached(void *arg)
{
	struct want *w = arg;

	for (unsigned i = 0; i < w->nr; i++)
		if (w->l[i]->nr_members != w->members || w->l[i]->nr_messages < w->messages)
			return false;
	return true;
}

static void test_order_and_leave(void **state)
{
	struct rig *r = *state;
	struct listener a, b, c;
	char *big = malloc(1 << 20);

	assert_non_null(big);
	join(r, &a, 1, 1);
	join(r, &b, 2, 1);
	join(r, &c, 3, 1);
	turn_until(r, reached, &(struct want){{&a, &b, &c}, 3, 3, 0});
	a.hash = b.hash = c.hash = 0;
	for (uint64_t i = 1; i <= 100; i++) {
		assert_int_equal(bus_local.send(a.bus, &i, 8), 0);
		assert_int_equal(bus_local.send(b.bus, &i, 8), 0);
		assert_int_equal(bus_local.send(c.bus, &i, 8), 0);
	}
	assert_int_equal(a.nr_messages, 0); /* never from inside send */
	memset(big, 'x', 1 << 20);
	assert_int_equal(bus_local.send(b.bus, big, 1 << 20), 0);
	assert_int_equal(bus_local.send(b.bus, "", 0), 0);
	assert_int_equal(bus_local.send(b.bus, big, (size_t)BUS_MSG_MAX + 1), -EMSGSIZE);
	turn_until(r, reached, &(struct want){{&a, &b, &c}, 3, 3, 302});
	assert_true(a.hash == b.hash && b.hash == c.hash);
	assert_false(a.bad || b.bad || c.bad);

	assert_int_equal(bus_local.send(b.bus, "bye", 3), 0);
	bus_local.close(b.bus); /* what was sent before is delivered */
	turn_until(r, reached, &(struct want){{&a, &c}, 2, 2, 303});
	assert_string_equal(a.text, "bye");
	c.close_in_message = c.bus;
	assert_int_equal(bus_local.send(a.bus, "close", 5), 0);
	turn_until(r, reached, &(struct want){{&a}, 1, 1, 304});
	assert_int_equal(c.nr_messages, 304);
	bus_local.close(a.bus);
	free(big);
}

static bool is_out(void *arg)
{
	return ((struct listener *)arg)->out;
}

static void test_file_removed(void **state)
{
	struct rig *r = *state;
	struct listener a;

	join(r, &a, 1, 1);
	turn_until(r, reached, &(struct want){{&a}, 1, 1, 0});
	a.lock_fd = open(r->path, O_RDWR);
	assert_true(a.lock_fd > 0 && anyone_alive(a.lock_fd));
	unlink(r->path);
	turn_until(r, is_out, &a);
	assert_non_null(strstr(a.reason, "removed"));
	/* Who finds it dead does not wait for its lease: it must have ended it by then. */
	assert_true(a.was_alive);
	assert_false(anyone_alive(a.lock_fd));
	close(a.lock_fd);
	assert_int_equal(bus_local.send(a.bus, "x", 1), -ENOTCONN);
	bus_local.close(a.bus);
}

static void write_file(const char *path, const void *data, size_t len, off_t off)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, data, len, off), (ssize_t)len);
	close(fd);
}

static void test_leftovers(void **state)
{
	struct rig *r = *state;
	struct listener a;
	struct incarnation self = inc(1, 1);
	uint64_t junk = 0x1234;
	char *err = NULL;

	/* Somebody else's file is not touched. */
	write_file(r->path, "hello, world", 12, 0);
	assert_int_equal(bus_local.open(r->env, r->path, &self, &cb, &a, &a.bus, &err), -EPROTO);
	assert_non_null(strstr(err, "remove it"));
	free(err);
	err = NULL;
	assert_int_equal(truncate(r->path, 0), 0);
	/* A path that cannot be is said so. */
	assert_int_equal(bus_local.open(r->env, "/nowhere/at/all", &self, &cb, &a, &a.bus, &err),
			 -ENOENT);
	free(err);

	join(r, &a, 1, 1);
	bus_local.send(a.bus, "x", 1);
	turn_until(r, reached, &(struct want){{&a}, 1, 1, 1});
	bus_local.close(a.bus);
	/* An unreadable log of nobody is no obstacle: the tail points to nowhere. */
	write_file(r->path, &junk, 8, 32);
	join(r, &a, 1, 2);
	turn_until(r, reached, &(struct want){{&a}, 1, 1, 0});
	bus_local.close(a.bus);
	/* Another boot: starts anew. */
	write_file(r->path, "another boot's..", 16, 16);
	join(r, &a, 1, 3);
	turn_until(r, reached, &(struct want){{&a}, 1, 1, 0});
	bus_local.close(a.bus);
}

/* ---- kill -9 ---- */

struct kid {
	pid_t pid;
	uint64_t start;
};

static void kid_main(const char *path, int id, uint64_t start)
{
	struct env_linux_conf conf = {0};
	struct incarnation self = inc(id, start);
	struct listener l = {0};
	struct env *env;
	char *err = NULL;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when the test fails */
	if (env_linux_new(&conf, &env) < 0 ||
	    bus_local.open(env, path, &self, &cb, &l, &l.bus, &err) < 0) {
		fprintf(stderr, "member %d.%d: %s\n", id, (int)start, err ? err : "no env");
		_exit(3);
	}
	for (uint64_t n = 1; !l.out && !l.bad;) {
		int k = find(&l, &self);
		if (k >= 0 && n < l.last[k] + 8) { /* eight on their way */
			bus_local.send(l.bus, &n, sizeof(n));
			n++;
			env_linux_turn(env, 0);
		} else {
			env_linux_turn(env, 10);
		}
	}
	fprintf(stderr, "member %d.%d: %s\n", id, (int)start, l.bad ? "bad" : l.reason);
	_exit(4);
}

static void kid_start(struct rig *r, struct kid *k, int id)
{
	k->start++;
	k->pid = fork();
	assert_true(k->pid >= 0);
	if (!k->pid)
		kid_main(r->path, 10 + id, k->start);
}

struct seen {
	struct listener *l;
	struct incarnation inc;
	bool in;
	uint64_t number;
};

static bool seen(void *arg)
{
	struct seen *s = arg;
	int k = find(s->l, &s->inc);

	return s->in ? k >= 0 && s->l->last[k] >= s->number : k < 0;
}

static void test_kill(void **state)
{
	struct rig *r = *state;
	struct listener a, b;
	struct kid kids[KIDS] = {{0}};
	unsigned rnd = 1;

	join(r, &a, 1, 1);
	join(r, &b, 2, 1);
	turn_until(r, reached, &(struct want){{&a, &b}, 2, 2, 0});
	a.hash = b.hash = 0;
	for (int i = 0; i < KIDS; i++)
		kid_start(r, &kids[i], i);
	for (int n = 0; n < KILLS; n++) {
		struct kid *k = &kids[n % KIDS];
		struct seen s = {&a, inc(10 + n % KIDS, k->start), true, 1};
		int status;
		if (n % 3)
			turn_until(r, seen, &s); /* it talks; else it may die while it joins */
		rnd = rnd * 1103515245 + 12345;
		usleep(rnd >> 8 & 1023);
		kill(k->pid, SIGKILL);
		assert_int_equal(waitpid(k->pid, &status, 0), k->pid);
		assert_true(WIFSIGNALED(status)); /* not by itself: it saw nothing bad */
		uint64_t t = env_now(r->env);
		s.in = false;
		turn_until(r, seen, &s);
		assert_true(env_now(r->env) - t < 3000000000ull);
		kid_start(r, k, n % KIDS);
	}
	for (int i = 0; i < KIDS; i++) {
		kill(kids[i].pid, SIGKILL);
		waitpid(kids[i].pid, NULL, 0);
	}
	turn_until(r, reached, &(struct want){{&a, &b}, 2, 2, 0});
	bus_local.send(a.bus, "end", 3);
	for (int i = 0; strcmp(a.text, "end") || strcmp(b.text, "end"); i++) {
		assert_true(i < 1000);
		env_linux_turn(r->env, 20);
	}
	assert_true(a.hash == b.hash); /* B1 */
	assert_int_equal(a.nr_messages, b.nr_messages);
	assert_true(a.nr_messages > 100);
	assert_false(a.bad || b.bad || a.out || b.out);
	bus_local.close(a.bus);
	bus_local.close(b.bus);
}

/* ---- kill -STOP ---- */

static bool warned(void *arg)
{
	return ((struct listener *)arg)->nr_warns > 0;
}

static bool warned_again(void *arg)
{
	return ((struct listener *)arg)->nr_warns > 1;
}

static void turn_for(struct rig *r, uint64_t ms)
{
	uint64_t end = env_now(r->env) + ms * 1000000;

	while (env_now(r->env) < end)
		env_linux_turn(r->env, 5);
}

/* Somebody keeps the append lock, a member is stopped: the operator is told, once, of whom; when
 * it is over all goes on. */
static void test_stall(void **state)
{
	struct flock fl = {.l_type = F_WRLCK,
			   .l_whence = SEEK_SET,
			   .l_start = (off_t)(1ull << 62),
			   .l_len = 1};
	struct rig *r = *state;
	struct listener a;
	struct kid k = {0};
	char text[64];

	join(r, &a, 1, 1);
	kid_start(r, &k, 0);
	struct seen s = {&a, inc(10, 1), true, 1};
	turn_until(r, seen, &s);
	turn_for(r, 300); /* the lock is taken now and then by both: no reason to say anything */
	assert_int_equal(a.nr_warns, 0);
	kill(k.pid, SIGSTOP);
	int fd = open(r->path, O_RDWR);
	fcntl(fd, F_OFD_SETLK, &fl); /* unless the one who was stopped has it */
	assert_int_equal(bus_local.send(a.bus, "late", 4), 0);
	uint64_t t = env_now(r->env);
	turn_until(r, warned, &a);
	assert_true(env_now(r->env) - t > 900000000);
	assert_non_null(strstr(a.warning, r->path));
	snprintf(text, sizeof(text), "stopped by SIGSTOP: %d)", (int)k.pid);
	assert_non_null(strstr(a.warning, text));
	turn_for(r, 1500);
	assert_int_equal(a.nr_warns, 1);
	close(fd);
	kill(k.pid, SIGCONT);
	turn_until(r, warned_again, &a);
	s.number = a.last[find(&a, &s.inc)] + 100;
	turn_until(r, seen, &s);
	assert_int_equal(a.nr_warns, 2);
	assert_non_null(strstr(a.warning, "can be written again"));
	assert_false(a.bad || a.out);
	kill(k.pid, SIGKILL);
	assert_int_equal(waitpid(k.pid, NULL, 0), k.pid);
	bus_local.close(a.bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_order_and_leave, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leftovers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stall, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
