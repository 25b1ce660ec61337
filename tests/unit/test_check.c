/* test_check.c - the simulator's history checker: good and bad histories, each kind of violation;
 * and against a search through all orders.
 *
 * Notation: one operation a word, KIND VALUE [@CLIENT] [!] : START - END.  w: write, c: with the
 * cache flag, e: answered with an error, n: failed before anything was done, z: discard, r: read,
 * f: flush, x: flush that said EIO, o: open, k: cut at START; "!": resent; END "*": never answered.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/check.h"

static void op(struct history *h, const char *p)
{
	char kind = *p++, *q;
	uint64_t value = 0, start, end;
	unsigned client = 0;
	bool resent = false;
	size_t i;

	if (*p >= '0' && *p <= '9') {
		value = strtoull(p, &q, 10);
		p = q;
	}
	if (*p == '@') {
		client = (unsigned)strtoul(p + 1, &q, 10);
		p = q;
	}
	if (*p == '!') {
		resent = true;
		p++;
	}
	assert_int_equal(*p, ':');
	start = end = strtoull(p + 1, &q, 10);
	if (*q == '-')
		end = q[1] == '*' ? CHECK_NEVER : strtoull(q + 1, NULL, 10);
	switch (kind) {
	case 'w':
	case 'c':
	case 'e':
	case 'n':
	case 'z':
		i = history_write(h, 0, 1, value, start);
		history_writer(h, i, client, kind == 'c');
		if (resent)
			history_resent(h, i);
		if (kind == 'e')
			history_failed(h, i, end);
		else if (kind == 'n')
			history_forget(h, i);
		else if (end != CHECK_NEVER)
			history_written(h, i, end);
		break;
	case 'r': history_read(h, 0, value, start, end); break;
	case 'f': history_flush(h, start, end, true); break;
	case 'x': history_flush(h, start, end, false); break;
	case 'o': history_open(h, start, end); break;
	case 'k': history_cut(h, 0, 1, start); break;
	default: fail();
	}
}

/* NULL: all is well; else a part of what must be said. */
static void is(const char *text, const char *want)
{
	struct history *h = history_new(2);
	char buf[512], why[512] = "", *save, *word;

	history_strict(h);
	snprintf(buf, sizeof(buf), "%s", text);
	for (word = strtok_r(buf, " ", &save); word; word = strtok_r(NULL, " ", &save))
		op(h, word);
	bool ok = history_check(h, why, sizeof(why));
	history_free(h);
	if (ok != !want || (want && !strstr(why, want)))
		fail_msg("%s: %s (%s), expected %s", text, ok ? "fits" : "does not fit", why,
			 want ? want : "that it fits");
}

static void registers(void **state)
{
	is("r0:1-2 w1:3-5 r1:6-7 w2:8-10 r2:9-11", NULL);
	is("w1:1-10 w2:2-9 r2:11-12 r2:13-14", NULL); /* in flight together: any order */
	is("w1:1-10 w2:2-9 r1:11-12 r1:13-14", NULL);
	is("w1:1-* r0:5-6 r1:7-8 r1:9-10", NULL); /* never answered: later, or not at all */
	is("w1:1-* r0:5-6 r0:100-101", NULL);
	is("w1:1-5 w2:2-6 r1:7-8 r2:9-10", "alternate");
	is("w1:1-2 w2:3-4 r1:5-6", "within the life");
	is("w1:1-2 r1:3-4 w2:5-6 r2:7-8 r1:9-10", "alternate");
	is("w1:1-* r1:5-6 r0:7-8", "zeros after a write"); /* a read went back in time */
	is("w1:1-2 r0:3-4", "zeros after a write");
	is("w1:1-2 r7:3-4", "nobody wrote");
	is("r1:1-2 w1:3-4", "before it was written");
	is("n1:1-2 r1:3-4", "nobody wrote"); /* refused before anything was done */
}

static void errors(void **state)
{
	is("w1:1-2 e2:3-5 r1:6-7", NULL); /* not done */
	is("w1:1-2 e2:3-5 r2:6-7 r2:8-9", NULL);
	is("w1:1-2 e2:3-5 r1:6-7 r2:8-9", "alternate"); /* it was to be done by then */
	is("w1:1-2 w2:3-* r1:6-7 r2:8-9", NULL);
	is("w1:1-2 e2:3-5 w3:6-7 r2:8-9", "within the life");
}

static void zeros(void **state)
{
	is("w1:1-2 z:3-4 r0:5-6 w2:7-8 r2:9-10", NULL);
	is("w1:1-4 z:2-5 r1:6-7", NULL);
	is("w1:1-2 z:3-4 r1:5-6", "within the life"); /* the discard is forgotten */
	is("w1:1-2 z:3-4 w2:5-6 r0:7-8", "zeros after a write");
	is("w1:1-2 z:3-9 r0:4-5 r0:6-7", NULL);
	is("z:1-2 w1:3-9 r1:4-5 r0:6-7", "zeros after a write");
}

static void several_clients(void **state)
{
	/* In flight together, of two clients, resent: w1, w2, w1 again. */
	is("w1@1!:1-20 w2@2:2-10 r1:3-4 r2:11-12 r1:21-22", NULL);
	is("w1@1!:1-20 w2@2!:2-19 r1:3-4 r2:5-6 r1:7-8 r2:21-22", NULL);
	is("w1@1:1-20 w2@2:2-10 r1:3-4 r2:11-12 r1:21-22", "alternate"); /* no fault */
	is("w1@1!:1-20 w2@1:2-10 r1:3-4 r2:11-12 r1:21-22", NULL);	 /* also of one client */
	is("w1@1!:1-9 w2@2:10-12 r1:13-14", "within the life"); /* not in flight together */
	is("w1@1!:1-9 w2@2!:2-8 w3@3:10-11 r1:12-13", "within the life");
	is("w1@1:1-2 r1:3-4 w2@2!:5-9 r2:6-7 r1:8-10",
	   "within the life"); /* back to what was settled */
	/* the same with zeros */
	is("w1@1!:1-20 w0@2:2-10 r1:3-4 r0:11-12 r1:13-14 r0:15-16", NULL);
	is("w1@1!:1-20 w0@2:2-10 r1:3-4 r0:11-12 r1:13-14 w2@2:21-22 r0:23-24",
	   "zeros after a write");
	is("w1@1:1-20 w0@2:2-10 r1:3-4 r0:11-12 r1:13-14 r0:15-16", "zeros after a write");
	is("w1@1!:1-9 w0@2!:10-12 r0:13-14 r1:15-16 r0:17-18", "zeros after a write");
}

static void cuts(void **state)
{
	is("w1:1-2 k:10 r1:11-12", NULL);
	is("w1:1-2 k:10 r0:11-12", "durable");
	is("w1:1-2 w2:3-4 k:10 r1:11-12", "durable");
	is("c1:1-2 k:10 r0:11-12", NULL); /* not flushed: there or not, */
	is("c1:1-2 k:10 r1:11-12", NULL);
	is("c1:1-2 k:10 r0:11-12 r1:13-14", "zeros after a write"); /* and then it stays so */
	is("c1:1-2 k:10 r1:11-12 r0:13-14", "zeros after a write");
	is("w1:1-2 c2:3-4 c3:5-6 k:10 r2:11-12 r2:13-14", NULL);
	is("w1:1-2 c2:3-4 c3:5-6 k:10 r0:11-12", "durable");
	is("w1:1-2 c2:3-4 c3:5-6 k:10 r2:11-12 r3:13-14", "two values survive");
	is("c1:1-2 r1:3-4 c2:5-6 r2:7-8 k:10 r1:11-12 r1:13-14", NULL);
	is("c1:1-2 f:3-4 k:10 r0:11-12", "durable");	    /* flushed */
	is("c1:1-5 f:3-6 k:10 r0:11-12", NULL);		    /* the flush began before its answer */
	is("c1:1-2 f:3-14 k:10 r0:15-16", "does not tell"); /* it succeeded: after the loss? */
	is("w1:1-2 c2:3-4 f:5-6 c3:7-8 k:10 r2:11-12", NULL);
	is("w1:1-2 c2:3-4 f:5-6 c3:7-8 k:10 r1:11-12", "durable");
	/* two cuts */
	is("c1:1-2 c2:3-4 k:10 r2:11-12 k:20 r2:21-22", NULL);
	is("c1:1-2 c2:3-4 k:10 r2:11-12 k:20 r1:21-22", "comes back");
	is("c1:1-2 c2:3-4 k:10 k:20 r1:21-22", NULL);
	is("c1:1-2 k:10 w3:11-12 k:20 r1:21-22", "durable");
	is("c1:1-2 k:10 r0:11-12 c3:13-14 k:20 r1:21-22", "comes back");
	is("c1:1-2 k:10 c3:13-14 k:20 r3:21-22 r1:23-24", "two values survive");
	/* in flight at the cut */
	is("c1:1-15 k:10 r0:11-12 r1:13-14 r1:16-17", NULL);
	is("c1:1-15 r1:3-4 k:10 r0:11-12 r1:16-17", NULL);
	is("c1:1-15 k:10 r0:16-17", NULL); /* answered before, heard after */
	is("c1:1-15 k:10 f:16-18 r0:19-20", "durable");
	is("w1:1-15 k:10 r0:16-17", "durable");
	is("w1:1-2 w2:3-15 k:10 r1:16-17", "durable");
	is("w1:1-14 w2:3-15 k:10 r1:16-17", NULL);
	is("w1:1-2 w2:3-15 k:10 r1:13-14 r2:16-17", NULL);
	is("w1:1-2 w2:3-* k:10 r1:11-12 r2:13-14 r2:15-16", NULL);
	is("r1:9-11 k:10 w1:12-13", "before it was written");
	is("r5:9-11 k:10", "nobody wrote");
}

static void told(void **state)
{
	is("c1:1-2 k:10 x:11-12 r0:13-14 f:15-16", NULL);
	is("c1:1-2 k:10 r0:13-14 f:15-16", "does not tell");
	is("c1:1-2 k:10 r1:13-14 f:15-16", NULL); /* nothing was lost */
	is("c1:1-2 k:10 o:11-12 r0:13-14 f:15-16", NULL);
	is("c1:1-2 k:10 r0:13-14 f:15-16 o:17-18", "does not tell");
	is("c1:1-2 k:10 r0:13-14 f:15-16 x:17-18", "does not tell");
	is("c1:1-5 f:4-11 k:10 x:12-13 r0:14-15", NULL);
	is("c1:1-2 f:3-4 k:10 x:12-13 r1:14-15", NULL); /* nobody knows that all was flushed */
	is("c1:1-2 x:3-4 r1:14-15", "nothing can be lost");
	is("c1:1-2 k:10 x:11-12 x:13-14", "nothing can be lost"); /* once */
	is("w1:1-2 k:10 x:11-12", "nothing can be lost");
	is("c1:1-2 k:10 x:11-12 c2:13-14 k:20 x:21-22", NULL);
}

/* ---- against all orders ---- */

#define OPS 7u
struct small {
	bool read;
	unsigned value;
	unsigned start, end; /* 1000: never answered */
};

static bool orders(const struct small *o, unsigned nr, unsigned done, unsigned value)
{
	bool all = true;

	for (unsigned i = 0; i < nr; i++)
		all = all && (done & 1u << i || (!o[i].read && o[i].end == 1000));
	if (all)
		return true;
	for (unsigned i = 0; i < nr; i++) {
		bool first = !(done & 1u << i) && (!o[i].read || o[i].value == value);
		for (unsigned k = 0; first && k < nr; k++)
			first = done & 1u << k || o[k].end >= o[i].start;
		if (first && orders(o, nr, done | 1u << i, o[i].read ? value : o[i].value))
			return true;
	}
	return false;
}

static unsigned rnd(uint64_t *x, unsigned n)
{
	*x = *x * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)((*x >> 33) % n);
}

static void all_orders(void **state)
{
	uint64_t x = 1;
	unsigned good = 0, bad = 0;

	for (unsigned n = 0; n < 200000; n++) {
		struct small o[OPS];
		struct history *h = history_new(1);
		unsigned nr = 2 + rnd(&x, OPS - 1), values = 0, used = 0;
		char why[512];
		for (unsigned i = 0; i < nr; i++) {
			unsigned a = 1 + 2 * rnd(&x, 20);
			o[i] = (struct small){.read = rnd(&x, 5) >= 2,
					      .start = a,
					      .end = a + 1 + 2 * rnd(&x, 7)};
			values += !o[i].read;
		}
		for (unsigned i = 0; i < nr; i++) {
			o[i].value = o[i].read ? rnd(&x, values + 1) : ++used;
			if (!o[i].read && rnd(&x, 8) == 0)
				o[i].end = 1000;
			if (o[i].read) {
				history_read(h, 0, o[i].value, o[i].start, o[i].end);
				continue;
			}
			size_t w = history_write(h, 0, 1, o[i].value, o[i].start);
			if (o[i].end != 1000)
				history_written(h, w, o[i].end);
		}
		bool want = orders(o, nr, 0, 0), ok = history_check(h, why, sizeof(why));
		if (want != ok)
			fail_msg("history %u: %s, but %s", n, ok ? "fits" : why,
				 want ? "there is an order" : "there is no order");
		good += want;
		bad += !want;
		history_free(h);
	}
	assert_true(good > 20000 && bad > 20000);
}

/* It is used on histories of tens of thousands of operations. */
static void long_history(void **state)
{
	struct history *h = history_new(8);
	uint64_t t = 1, value = 0;
	char why[512];

	for (unsigned i = 0; i < 100000; i++) {
		history_written(h, history_write(h, 0, 8, ++value, t), t + 5);
		history_read(h, i % 8, value, t + 6, t + 7);
		t += 10;
	}
	assert_true(history_check(h, why, sizeof(why)));
	history_read(h, 3, value - 1, t, t + 1);
	assert_false(history_check(h, why, sizeof(why)));
	assert_int_equal(history_nr_ops(h), 200001);
	history_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers),  cmocka_unit_test(errors),
		cmocka_unit_test(zeros),      cmocka_unit_test(several_clients),
		cmocka_unit_test(cuts),	      cmocka_unit_test(told),
		cmocka_unit_test(all_orders), cmocka_unit_test(long_history),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
