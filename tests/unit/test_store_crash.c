/* test_store_crash.c - power cuts between any two I/Os of the store.
 *
 * For every sequence of up to two operations (STORE_CRASH_OPS=3: three), each waited for or all in
 * flight together, the store runs on a fake disk.  For every place in the disk's log where the
 * power may go, and several choices of what the disk keeps of the unsynced writes, the store is
 * opened again and the contract of store.h is checked: S1 what was answered is there, S2 what was
 * not is there whole, not at all, or torn and known to be, S3 the contents are those of the
 * version, S4 in order, S5 no wrong bytes.  A torn object is settled, and each of its sectors must
 * then be old or new: no older than what was answered, and nothing from before its creation.  Some
 * of the recoveries are cut in their turn.  Longer sequences that matter are in a list.
 */
#include "config.h"

#include "tests/unit/store_help.h"

#include <malloc.h>

#include "lib/base/map.h"
#include "sheep/mark.h"
#include "sheep/plant.h"
#include "tests/unit/fake_disk.h"

#define SIZE	160000u
#define NBLK	((SIZE + BLK - 1) / BLK)
#define OID	0x0000004200000001ull
#define VER0	10u /* version of the state before the first operation */
#define SETTLED 60u
#define JSIZE	(512u << 10)
#define SECT	512u

enum kind {
	SMALL_C,
	SMALL_D,
	LARGE_C,
	LARGE_D,
	CREATE_S,
	CREATE_L,
	COPY, /* on write: the object as the gateway makes it from its parent, whole */
	REMOVE,
	FLUSH,
	REPLACE,
	NR_KINDS,
	ROUND = NR_KINDS, /* the background work begins, whatever comes next */
};
static const char *const kind_names[] = {"small",    "SMALL",	 "large",  "LARGE",
					 "create-s", "CREATE-L", "copy",   "remove",
					 "flush",    "replace",	 "(round)"};

enum {
	OPS_ALL = 3,
	OPS_MAX = 5,
	LIST_SEEDS = 2,
	APART_SEEDS = 16,
	NOTE_DURABLE = 0x100,
	NOTE_KERNEL = 0x200
};

struct state {
	bool exists;
	unsigned ver;
	uint8_t img[NBLK * BLK];
	/* blocks that the operation that led here may leave torn */
	unsigned torn_from, torn_to;
	bool reset; /* it does not build on what was before */
};

struct seq {
	enum kind k[OPS_MAX];
	unsigned n;
	bool together; /* all in flight at once */
	bool apart;    /* a flush goes on while the next ones begin */
	bool present;  /* the object is there at first */
	uint64_t seed;
	struct state s[OPS_MAX + 1];
};

struct run {
	struct disk *d;
	struct co_sched *s;
	struct buf_pool *pool;
	struct store *st;
	struct seq *q;
	void (*fn)(struct run *r);
	bool done;
	/* checking */
	unsigned lo;
	unsigned settled; /* the state that was torn when this or an earlier start settled it */
	bool may_fail;
	unsigned flush; /* number of the operation */
	char why[160];
};

#ifdef __SANITIZE_ADDRESS__
#define SLOW 10
#else
#define SLOW 1
#endif

/* One sequence in so many is run: all of them, unless a tool makes each slow, and of those with a
 * round in them.  STORE_CRASH_SHARE=1: really all. */
static unsigned share(unsigned normal)
{
	const char *s = getenv("STORE_CRASH_SHARE");
	return s ? (unsigned)atoi(s) : normal * (RUNNING_ON_VALGRIND ? 150 : SLOW);
}

static struct {
	unsigned long cuts, torn, settled, second, fails;
} count;

/* ---- running ---- */

static void body(void *arg)
{
	struct run *r = arg;
	r->fn(r);
	r->done = true;
}

static void drive(struct run *r, struct disk *d, void (*fn)(struct run *r))
{
	r->d = d;
	r->fn = fn;
	r->done = false;
	r->s = co_sched_new(disk_env(d), 64);
	r->pool = buf_pool_new(1 << 20);
	assert_non_null(co_start(r->s, body, r, "test"));
	while (!r->done)
		if (!disk_turn(d))
			fail_msg("everybody waits, for nothing");
	while (disk_turn(d))
		;
	assert_int_equal(co_sched_nr(r->s), 0);
	co_sched_free(r->s);
	buf_pool_free(r->pool);
}

static int open_store(struct run *r)
{
	struct store_conf c = {.dir = "store", .journal_size = JSIZE};
	char *err = NULL;
	int e = store_open(r->s, disk_env(r->d), &c, &r->st, &err);
	if (e < 0)
		snprintf(r->why, sizeof(r->why), "open: %d %s", e, err ? err : "");
	free(err);
	return e;
}

/* ---- operations, and what they should do ---- */

static uint64_t op_off(enum kind k, unsigned j)
{
	switch (k) {
	case SMALL_C:
	case SMALL_D: return 5000 + j * 3000;
	case LARGE_C:
	case LARGE_D: return 3000 + j * 7000;
	case CREATE_L: return 8192;
	default: return 0;
	}
}

static uint64_t op_len(enum kind k)
{
	switch (k) {
	case SMALL_C:
	case SMALL_D: return 6000;
	case LARGE_C:
	case LARGE_D: return 70000;
	case CREATE_L: return 90000;
	case COPY: return SIZE;
	default: return 3000;
	}
}

static bool is_durable(enum kind k)
{
	return k == SMALL_D || k == LARGE_D || k == CREATE_L || k == FLUSH || k == REPLACE;
}

static bool is_create(enum kind k)
{
	return k == CREATE_S || k == CREATE_L || k == COPY;
}

/* State @j + 1 from state @j.  False: it makes no sense there. */
static bool op_model(struct seq *q, unsigned j)
{
	enum kind k = q->k[j];
	const struct state *was = &q->s[j];
	struct state *s = &q->s[j + 1];
	*s = *was;
	s->torn_from = s->torn_to = 0;
	s->reset = false;
	if (k == FLUSH || k == ROUND)
		return true;
	s->ver = VER0 + 1 + j;
	if (k == REMOVE) {
		s->exists = false;
		s->reset = true;
		return was->exists;
	}
	if (is_create(k) || k == REPLACE) {
		memset(s->img, 0, sizeof(s->img));
		s->reset = true;
	} else if (!was->exists) {
		return false;
	}
	s->exists = true;
	uint64_t off = op_off(k, j), len = op_len(k);
	pat_fill(s->img + off, s->ver, off, len);
	if (k == LARGE_C || k == LARGE_D || ((k == CREATE_L || k == COPY) && was->exists)) {
		s->torn_from = (unsigned)((off + BLK - 1) / BLK);
		s->torn_to = (unsigned)((off + len) / BLK);
	}
	return true;
}

static void noted(struct run *r, unsigned j, bool durable)
{
	disk_note(r->d, NOTE_KERNEL | (j + 1));
	if (durable)
		disk_note(r->d, NOTE_DURABLE | (j + 1));
}

/* A pull of the state after operation @j. */
static int do_replace(struct run *r, unsigned j)
{
	struct store_obj *o = store_get(r->st, OID, true);
	const struct state *s = &r->q->s[j + 1];
	struct store_replace *p;
	int e = store_replace_begin(o, SIZE, 3, &p);
	if (e == 0) {
		struct buf *b = buf_new(r->pool, BLK);
		memcpy(b->data, s->img, BLK);
		e = store_replace_data(p, 0, b, 0, BLK);
		buf_put(b);
		if (e == 0)
			e = store_replace_commit(p, (struct obj_ver){1, s->ver});
		else
			store_replace_abort(p);
	}
	store_put(o);
	return e;
}

/* Queue operation @j; one that has its own wait inside is over on return. */
static int do_queue(struct run *r, unsigned j, struct twrite *t)
{
	enum kind k = r->q->k[j];
	uint64_t len = op_len(k);
	tw_init(t, r->pool, VER0 + 1 + j, op_off(k, j), len, 0);
	t->w.durable = is_durable(k);
	t->w.create = is_create(k);
	t->w.size = SIZE;
	t->w.copies = 3;
	struct store_obj *o = store_get(r->st, OID, true);
	int e;
	if (k == REMOVE) {
		e = store_queue_remove(o, &t->w);
	} else {
		e = store_prepare(o, &t->w);
		if (e == 0)
			e = store_queue(o, &t->w);
	}
	store_put(o);
	return e;
}

static int wait_all(struct run *r, struct twrite *t, unsigned *first, unsigned upto)
{
	int e = 0;
	for (; e == 0 && *first < upto; (*first)++)
		if (t[*first].w.ticket) {
			e = store_wait(r->st, &t[*first].w);
			if (e == 0)
				noted(r, *first, is_durable(r->q->k[*first]));
		}
	return e;
}

/* The public call that makes a full round. */
static void round_body(void *arg)
{
	static const uint8_t name[8];
	struct run *r = arg;
	int e = store_mark_clean(r->st, 0, name);
	if (e < 0)
		assert_true(r->may_fail);
}

static void flush_body(void *arg)
{
	struct run *r = arg;
	unsigned j = r->flush;
	if (store_flush(r->st) == 0)
		noted(r, j, true);
	else
		assert_true(r->may_fail);
}

/* In flight together, but not always begun in the same moment. */
static void pause_some(struct run *r, unsigned j)
{
	uint64_t x = (r->q->seed + 1) * 0x9e3779b97f4a7c15ull >> (8 * j);
	for (unsigned n = x % 24; n; n--)
		co_yield ();
}

static void run_ops(struct run *r, struct twrite *t, struct co_group *rounds)
{
	struct seq *q = r->q;
	unsigned waited = 0;
	int e = 0;
	for (unsigned j = 0; e == 0 && j < q->n; j++) {
		if (q->together)
			pause_some(r, j);
		if (q->k[j] == ROUND) {
			e = co_group_start(r->s, rounds, round_body, r, "round");
		} else if (q->k[j] == FLUSH && q->apart) {
			e = wait_all(r, t, &waited, j);
			r->flush = j;
			if (e == 0)
				e = co_group_start(r->s, rounds, flush_body, r, "flush");
		} else if (q->k[j] == FLUSH || q->k[j] == REPLACE) {
			if (!q->together)
				e = wait_all(r, t, &waited, j);
			if (e == 0)
				e = q->k[j] == FLUSH ? store_flush(r->st) : do_replace(r, j);
			if (e == 0)
				noted(r, j, true);
		} else {
			e = do_queue(r, j, &t[j]);
			if (e == 0 && !q->together)
				e = wait_all(r, t, &waited, j + 1);
		}
	}
	if (e == 0)
		e = wait_all(r, t, &waited, q->n);
	if (e < 0 && !r->may_fail)
		fail_msg("operation failed: %d", e);
}

static void run_seq(struct run *r)
{
	struct seq *q = r->q;
	struct twrite t[OPS_MAX] = {0};
	struct co_group rounds;
	if (open_store(r) < 0) {
		assert_true(r->may_fail);
		return;
	}
	co_group_init(&rounds);
	run_ops(r, t, &rounds);
	co_group_wait(&rounds);
	for (unsigned j = 0; j < q->n; j++)
		tw_done(&t[j]);
	store_close(r->st);
}

/* ---- checking a recovered store ---- */

static void say(struct run *r, const char *what, unsigned blk, unsigned ver)
{
	snprintf(r->why, sizeof(r->why), "%s (block %u, version %u)", what, blk, ver);
}

static bool may_be_torn(const struct seq *q, unsigned lo, unsigned i, unsigned blk)
{
	for (unsigned j = i; j > lo; j--) {
		const struct state *s = &q->s[j];
		if (s->torn_to && (s->reset || (blk >= s->torn_from && blk < s->torn_to)))
			return true;
		if (s->reset)
			break;
	}
	return false;
}

/* Old or new, and old is no older than what was durable (@lo), nor than the object's creation. */
static bool some_state_has(const struct seq *q, unsigned lo, unsigned i, uint64_t off,
			   const uint8_t *p, size_t len)
{
	static const uint8_t zeros[BLK]; /* below a creation */
	unsigned from = i;
	while (from > lo && !q->s[from].reset)
		from--;
	for (unsigned j = from; j <= i; j++) {
		if (j > lo && q->s[j].reset && !memcmp(zeros, p, len))
			return true;
		if (q->s[j].exists && !memcmp(q->s[j].img + off, p, len))
			return true;
	}
	return false;
}

/* Is [p, p + n) at byte @off what state @i may have there? */
static bool contents_ok(const struct run *r, unsigned i, bool torn, uint64_t off, const uint8_t *p,
			size_t n)
{
	return !memcmp(p, r->q->s[i].img + off, n) ||
	       (torn && may_be_torn(r->q, r->lo, i, (unsigned)(off / BLK)) &&
		some_state_has(r->q, r->lo, i, off, p, n));
}

static void check_block(struct run *r, unsigned i, bool torn, unsigned blk, struct buf *b)
{
	const struct state *s = &r->q->s[i];
	uint32_t len = blk == NBLK - 1 ? SIZE - blk * BLK : BLK;
	uint32_t step = r->settled ? SECT : BLK; /* settling it may have been cut off */
	struct store_obj *o = store_get(r->st, OID, false);
	memset(b->data, 0, BLK);
	int e = store_read(o, (uint64_t)blk * BLK, len, b, 0, NULL);
	store_put(o);
	if (e == -EILSEQ && torn && may_be_torn(r->q, r->lo, i, blk))
		return;
	if (e < 0)
		say(r, "read fails", blk, s->ver);
	for (unsigned at = 0; e == 0 && at < BLK; at += step)
		if (!contents_ok(r, i, torn, (uint64_t)blk * BLK + at, (uint8_t *)b->data + at,
				 step))
			say(r, "wrong contents", blk, s->ver);
}

/* Each sector is old or new. */
static void check_settled(struct run *r, unsigned i)
{
	const struct state *s = &r->q->s[i];
	struct buf *b = buf_new(r->pool, NBLK * BLK);
	struct store_obj *o = store_get(r->st, OID, false);
	struct obj_info x;
	int e = store_read(o, 0, SIZE, b, 0, NULL);
	store_put(o);
	if (e < 0 || !store_lookup(r->st, OID, &x) || x.torn || x.ver.seq != SETTLED)
		say(r, "not settled", 0, s->ver);
	for (unsigned at = 0; !r->why[0] && at < SIZE; at += SECT) {
		const uint8_t *p = (uint8_t *)b->data + at;
		unsigned n = SIZE - at < SECT ? SIZE - at : SECT;
		if (memcmp(p, s->img + at, n) && !(may_be_torn(r->q, r->lo, i, at / BLK) &&
						   some_state_has(r->q, r->lo, i, at, p, n)))
			say(r, "wrong contents once settled", at / BLK, s->ver);
	}
	buf_put(b);
}

/* The torn object as the owner settles it when every replica is torn. */
static void settle(struct run *r, unsigned i)
{
	struct store_obj *o = store_get(r->st, OID, true);
	int e = store_settle(o, (struct obj_ver){1, SETTLED});
	store_put(o);
	if (e < 0)
		say(r, "cannot be settled", 0, r->q->s[i].ver);
	else
		check_settled(r, i);
	r->settled = i;
	count.settled++;
}

/* After it all the store must be one that works. */
static void use_it(struct run *r)
{
	struct twrite t;
	struct obj_info x;
	tw_init(&t, r->pool, 77, 100, 9000, 0);
	t.w.create = true;
	t.w.durable = true;
	t.w.size = SIZE;
	struct store_obj *o = store_get(r->st, OID + 1, true);
	int e = store_prepare(o, &t.w);
	if (e == 0)
		e = store_queue(o, &t.w);
	store_put(o);
	if (e == 0)
		e = store_wait(r->st, &t.w);
	tw_done(&t);
	store_close(r->st);
	if (e == 0)
		e = open_store(r);
	if (e < 0) {
		say(r, "does not work afterwards", 0, 0);
		r->st = NULL;
	} else if (!store_lookup(r->st, OID + 1, &x) || x.ver.seq != 77) {
		say(r, "lost a write after recovery", 0, 0);
	}
}

static void check_object(struct run *r)
{
	struct seq *q = r->q;
	struct obj_info x;
	unsigned i = q->n;
	bool there = store_lookup(r->st, OID, &x);
	if (there && (x.size != SIZE || x.copies != 3 || x.ver.gen != 1)) {
		say(r, "size, copies or generation", 0, (unsigned)x.ver.seq);
		return;
	}
	if (there && x.ver.seq == SETTLED && r->settled) {
		check_settled(r, r->settled);
		return;
	}
	for (;; i--) {
		if (q->s[i].exists == there && (!there || q->s[i].ver == x.ver.seq))
			break;
		if (i == r->lo) {
			say(r, there ? "a version from before" : "it is not there", 0,
			    (unsigned)x.ver.seq);
			return;
		}
	}
	if (!there)
		return;
	if (x.torn) {
		bool may = false;
		for (unsigned b = 0; b < NBLK; b++)
			may = may || may_be_torn(q, r->lo, i, b);
		if (!may)
			say(r, "torn without a reason", 0, (unsigned)x.ver.seq);
		count.torn++;
	}
	struct buf *b = buf_new(r->pool, BLK);
	for (unsigned blk = 0; blk < NBLK && !r->why[0]; blk++)
		check_block(r, i, x.torn, blk, b);
	buf_put(b);
	if (x.torn && !r->why[0])
		settle(r, i);
}

static void run_check(struct run *r)
{
	if (open_store(r) < 0)
		return;
	check_object(r);
	if (!r->why[0] && r->lo == 0)
		use_it(r);
	if (r->st)
		store_close(r->st);
}

static void explain(const struct run *r, const struct disk *d, unsigned at, enum cut_mode mode,
		    uint64_t seed, const char *level)
{
	const struct seq *q = r->q;
	print_message("%s cut %u of %u, mode %d, seed %llu, answered %u:", level, at, disk_log(d),
		      mode, (unsigned long long)seed, r->lo);
	for (unsigned j = 0; j < q->n; j++)
		print_message(" %s", kind_names[q->k[j]]);
	print_message("%s%s\n", q->together ? " (together)" : "", q->present ? "" : " (new)");
	fail_msg("%s", r->why);
}

/* ---- all cuts ---- */

static unsigned answered(const struct disk *d, unsigned at, enum cut_mode mode)
{
	unsigned n = disk_noted(d, at, NOTE_DURABLE) & 0xff;
	unsigned k = disk_noted(d, at, NOTE_KERNEL) & 0xff;
	return mode == CUT_KEEP && k > n ? k : n;
}

/* Cut the recovery that has just run on @d, too. */
static void cut_again(struct run *r, const struct disk *d, uint64_t seed)
{
	for (unsigned at = 0; at <= disk_log(d); at++)
		for (unsigned m = 0; m < 2; m++) {
			enum cut_mode mode = m ? CUT_TEAR : CUT_DROP;
			struct disk *c = disk_cut(d, at, mode, seed + at);
			drive(r, c, run_check);
			count.second++;
			if (r->why[0])
				explain(r, d, at, mode, seed + at, "second");
			disk_free(c);
		}
}

static void one_cut(struct run *r, const struct disk *d, unsigned at, enum cut_mode mode,
		    uint64_t seed, struct map *seen)
{
	struct disk *c = disk_cut(d, at, mode, seed);
	r->lo = answered(d, at, mode);
	r->settled = 0;
	uint64_t key = disk_hash(c) * 31 + r->lo;
	if (!map_get(seen, key)) {
		map_set(seen, key, r);
		bool again = ++count.cuts % 128 == 0;
		if (again)
			disk_begin(c);
		drive(r, c, run_check);
		if (r->why[0])
			explain(r, d, at, mode, seed, "first");
		if (again)
			cut_again(r, c, seed);
	}
	disk_free(c);
}

static void all_cuts(struct run *r, const struct disk *d)
{
	struct map seen;
	map_init(&seen);
	for (unsigned at = 0; at <= disk_log(d); at++) {
		one_cut(r, d, at, CUT_DROP, 1, &seen);
		one_cut(r, d, at, CUT_KEEP, 1, &seen);
		one_cut(r, d, at, CUT_TEAR, r->q->seed * 7 + at, &seen);
	}
	map_done(&seen);
}

/* ---- all sequences ---- */

static void make_base(struct run *r)
{
	struct twrite t;
	assert_int_equal(open_store(r), 0);
	if (r->q->present) {
		tw_init(&t, r->pool, VER0, 0, SIZE, 0);
		t.w.create = t.w.durable = true;
		t.w.size = SIZE;
		t.w.copies = 3;
		struct store_obj *o = store_get(r->st, OID, true);
		assert_int_equal(store_prepare(o, &t.w), 0);
		assert_int_equal(store_queue(o, &t.w), 0);
		store_put(o);
		assert_int_equal(store_wait(r->st, &t.w), 0);
		tw_done(&t);
	}
	store_close(r->st);
}

static bool seq_model(struct seq *q)
{
	q->s[0] = (struct state){.exists = q->present, .ver = VER0};
	if (q->present)
		pat_fill(q->s[0].img, VER0, 0, SIZE);
	for (unsigned j = 0; j < q->n; j++)
		if (!op_model(q, j))
			return false;
	return true;
}

typedef void (*seq_fn)(struct run *r, struct disk *base);

/* Number @x of the sequences of @n operations; @round: a round begins after the first. */
static void one_seq(struct disk *base[2], unsigned n, bool round, unsigned x, seq_fn fn)
{
	uint64_t mix = (x + 1) * 0x9e3779b97f4a7c15ull >> 33;
	struct seq *q = calloc(1, sizeof(*q));
	q->n = n;
	q->present = x & 1;
	q->together = round || (x & 2);
	q->seed = x;
	for (unsigned j = 0, y = x / 8; j < n; j++) {
		q->k[j] = (enum kind)(y % NR_KINDS);
		if (round && j == 1)
			q->k[j] = ROUND;
		else
			y /= NR_KINDS;
	}
	struct run r = {.q = q};
	bool mine = mix % share(round && q->k[n - 1] != REPLACE ? 3 : 1) == 0;
	/* bit 4: another seed, where it matters */
	if (mine && (q->together || !(x & 4)) && !(n == 1 && q->together) && seq_model(q))
		fn(&r, base[q->present]);
	free(q);
}

static void each_seq(struct disk *base[2], unsigned n, bool round, seq_fn fn)
{
	unsigned nr = 8;
	for (unsigned j = 0; j < n - round; j++)
		nr *= NR_KINDS;
	for (unsigned x = 0; x < nr; x++)
		one_seq(base, n, round, x, fn);
}

static void cut_seq(struct run *r, struct disk *base)
{
	struct disk *d = disk_copy(base, r->q->seed + 1);
	drive(r, d, run_seq);
	all_cuts(r, d);
	disk_free(d);
}

static void bases(struct disk *base[2])
{
	struct seq *q = calloc(1, sizeof(*q));
	for (unsigned i = 0; i < 2; i++) {
		struct run r = {.q = q};
		q->present = i;
		base[i] = disk_new(5);
		drive(&r, base[i], make_base);
		disk_begin(base[i]);
	}
	free(q);
}

static void cuts(void **state)
{
	const char *more = getenv("STORE_CRASH_OPS");
	unsigned n = more ? (unsigned)atoi(more) : 2;
	struct disk *base[2];
	assert_true(n >= 1 && n <= OPS_ALL);
	bases(base);
	for (unsigned k = 1; k <= n; k++)
		each_seq(base, k, false, cut_seq);
	each_seq(base, 3, true, cut_seq);
	print_message(
		"%lu cuts, %lu of them left a torn object (%lu settled); %lu cuts of recoveries\n",
		count.cuts, count.torn, count.settled, count.second);
	assert_true(count.torn > 0);
	assert_true(count.second > 0);
	disk_free(base[0]);
	disk_free(base[1]);
}

/* ---- the list ---- */

static const struct {
	bool absent, apart;
	enum kind k[OPS_MAX];
	unsigned n;
} listed[] = {
	/* the file has still what was removed when the large write is torn */
	{false, false, {REMOVE, CREATE_S, LARGE_D}, 3},
	{false, false, {LARGE_D, REMOVE, CREATE_S, LARGE_C}, 4},
	{false, false, {LARGE_D, REMOVE, CREATE_S, SMALL_D, LARGE_D}, 5},
	{false, false, {REMOVE, CREATE_S, LARGE_C, LARGE_D}, 4},
	{false, false, {REMOVE, CREATE_S, REMOVE, CREATE_S, LARGE_D}, 5},
	{false, false, {REPLACE, REMOVE, CREATE_S, LARGE_D}, 4},
	{false, false, {REMOVE, CREATE_L, LARGE_D}, 3},
	{false, false, {COPY, SMALL_D, REMOVE, COPY, LARGE_D}, 5},
	/* what a flush made durable is below a torn one, and something older is in the journal */
	{false, false, {SMALL_C, LARGE_C, FLUSH, LARGE_C}, 4},
	{false, false, {SMALL_C, LARGE_C, FLUSH, LARGE_D}, 4},
	{true, false, {CREATE_S, LARGE_C, FLUSH, LARGE_D}, 4},
	{true, false, {CREATE_S, LARGE_D, LARGE_D}, 3},
	{true, false, {CREATE_L, LARGE_C, FLUSH, LARGE_D}, 4},
	/* ... while the flush goes on */
	{false, true, {SMALL_C, LARGE_C, FLUSH, LARGE_C}, 4},
	{false, true, {SMALL_C, LARGE_C, FLUSH, LARGE_D}, 4},
	{true, true, {CREATE_S, LARGE_C, FLUSH, LARGE_D}, 4},
	{true, true, {CREATE_S, LARGE_C, FLUSH, LARGE_C, LARGE_D}, 5},
};

static void list(void **state)
{
	struct disk *base[2];
	struct seq *q = calloc(1, sizeof(*q));
	bases(base);
	for (unsigned x = 0; x < sizeof(listed) / sizeof(listed[0]); x++)
		for (unsigned seed = 0; seed < (listed[x].apart ? APART_SEEDS : LIST_SEEDS);
		     seed++) {
			struct run r = {.q = q};
			*q = (struct seq){.n = listed[x].n,
					  .apart = listed[x].apart,
					  .together = listed[x].apart,
					  .present = !listed[x].absent,
					  .seed = seed};
			memcpy(q->k, listed[x].k, sizeof(q->k));
			assert_true(seq_model(q));
			cut_seq(&r, base[q->present]);
		}
	free(q);
	disk_free(base[0]);
	disk_free(base[1]);
}

/* ---- I/O errors ---- */

/* The disk fails from I/O number @n on: no hang, no leak, and nothing that was answered is lost. */
static void fail_seq(struct run *r, struct disk *base)
{
	unsigned step = r->q->n == 1 ? 1 : 7;
	for (unsigned n = 1;; n += step) {
		struct disk *d = disk_copy(base, r->q->seed + 1);
		r->may_fail = true;
		disk_fail_at(d, n);
		drive(r, d, run_seq);
		bool over = disk_ios(d) < n;
		disk_fail_at(d, 0);
		r->why[0] = 0;
		r->may_fail = false;
		struct disk *c = disk_cut(d, disk_log(d), CUT_DROP, n);
		r->lo = answered(d, disk_log(d), CUT_DROP);
		drive(r, c, run_check);
		if (r->why[0])
			explain(r, d, n, CUT_DROP, n, "I/O error:");
		disk_free(c);
		disk_free(d);
		count.fails++;
		if (over)
			return;
	}
}

static void errors(void **state)
{
	struct disk *base[2];
	bases(base);
	each_seq(base, 1, false, fail_seq);
	each_seq(base, 2, false, fail_seq);
	each_seq(base, 3, true, fail_seq);
	print_message("%lu runs with a failing disk\n", count.fails);
	assert_true(count.fails > 0);
	disk_free(base[0]);
	disk_free(base[1]);
}

/* ---- a damaged journal ---- */

/* Three durable writes, each in a group of its own; the power goes before anything else. */
static struct disk *three_groups(struct run *r, struct disk *base)
{
	struct disk *d = disk_copy(base, 3), *c = NULL;
	drive(r, d, run_seq);
	for (unsigned at = 0; !c; at++)
		if (answered(d, at, CUT_DROP) == 3)
			c = disk_cut(d, at, CUT_DROP, 1);
	disk_free(d);
	return c;
}

/* Nothing that was durable is lost in silence; what may be the torn end is no reason to stop. */
static void damage(void **state)
{
	static const uint64_t page[] = {2, 5, 9};	   /* where the groups begin */
	static const uint64_t off[] = {10, 100, BLK + 77}; /* header, record, data */
	struct seq *q = calloc(1, sizeof(*q));
	struct run r = {.q = q};
	struct disk *base[2];
	bases(base);
	*q = (struct seq){.k = {SMALL_D, SMALL_D, SMALL_D}, .n = 3, .present = true};
	assert_true(seq_model(q));
	for (unsigned g = 0; g < 4; g++)
		for (unsigned k = 0; k < 3; k++) {
			struct disk *c = three_groups(&r, base[1]);
			if (g < 3)
				disk_flip(c, "store", "journal", page[g] * BLK + off[k]);
			r.lo = g == 3 ? 3 : 2;
			r.why[0] = 0;
			drive(&r, c, run_check);
			if (g < 2)
				assert_non_null(strstr(r.why, "damaged"));
			else
				assert_string_equal(r.why, "");
			disk_free(c);
		}
	disk_free(base[0]);
	disk_free(base[1]);
	free(q);
}

/* ---- a bug on purpose (make sim-mutants): STORE_PLANT=name ---- */

#ifdef SIM_PLANTS
enum plant planted;
#ifdef SIM_MARKS
uint64_t mark_hits[MARK_NR];
#endif

static void plant(void)
{
	static const char *const names[] = {"none",
#define X(name) #name,
					    PLANTS(X)
#undef X
	};
	const char *name = getenv("STORE_PLANT");
	unsigned i = 0;
	while (name && i < PLANT_NR && strcmp(names[i], name))
		i++;
	assert_true(i < PLANT_NR);
	planted = (enum plant)i;
}
#else
static void plant(void)
{
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(list),
		cmocka_unit_test(cuts),
		cmocka_unit_test(errors),
		cmocka_unit_test(damage),
	};
	plant();
	mallopt(M_MMAP_THRESHOLD, 1 << 30); /* many large blocks come and go */
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	return cmocka_run_group_tests_name("store crash", tests, NULL, NULL);
}
