/* journal_file.c - the journal's file: making, finding, superblocks.
 *
 * The config names the journal by a random id (and, while a journal is being replaced, the id of
 * the one before), so a leftover of another store, or an older one of this, is never replayed.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "lib/base/crc.h"
#include "lib/base/util.h"

#define ZERO_STEP (1u << 20)

static uint32_t super_sum(struct journal_super *s)
{
	uint32_t had = s->sum;

	s->sum = 0;
	uint32_t sum = crc32c(s, sizeof(*s));
	s->sum = had;
	return sum;
}

/* Say durably where replay begins. */
co_fn int journal_super(struct store *st, uint64_t vtail, uint64_t gseq, bool empty)
{
	struct journal *jr = &st->jr;
	struct buf *b = buf_new(st->pool, BLK);

	if (!b)
		return -ENOMEM;
	struct journal_super *s = b->data;
	*s = (struct journal_super){
		.magic = SUPER_MAGIC,
		.format = STORE_FORMAT,
		.id = jr->id,
		.gen = ++jr->sb_gen,
		.inc = jr->inc,
		.pages = jr->area,
		.tail = vtail % jr->area,
		.tail_gseq = gseq,
		.empty = empty,
	};
	s->sum = super_sum(s);
	int r = st_rw(st, ENV_IO_WRITE, jr->file, s, BLK, s->gen % JOURNAL_SUPERS * BLK,
		      ENV_IO_DIRECT | (st->conf.nosync ? 0 : ENV_IO_DSYNC)); /* ~ */
	buf_put(b);
	return r;
}

/* Void everything that is in the file. */
co_fn int journal_reset(struct store *st)
{
	struct journal *jr = &st->jr;

	jr->inc = env_random64(st->env);
	jr->vhead = jr->vtail = 0;
	jr->gseq = 1;
	jr->synced_gseq = 0;
	return journal_super(st, 0, 1, false); /* ~ */
}

static void set_area(struct journal *jr, uint64_t pages)
{
	jr->area = pages;
	jr->group_max = GROUP_PAGES_MAX;
	if (jr->group_max > jr->area / 16)
		jr->group_max = (uint32_t)(jr->area / 16);
}

/* Zeros, not holes: a write to a preallocated but unwritten extent costs a metadata commit. */
static co_fn int zero_fill(struct store *st, struct env_file *f, uint64_t size)
{
	struct buf *b = buf_new(st->pool, ZERO_STEP);
	int r = b ? 0 : -ENOMEM;

	if (b)
		memset(b->data, 0, ZERO_STEP);
	for (uint64_t off = 0; r == 0 && off < size; off += ZERO_STEP) {
		size_t n = size - off < ZERO_STEP ? size - off : ZERO_STEP;
		r = st_rw(st, ENV_IO_WRITE, f, b->data, n, off, ENV_IO_DIRECT); /* ~ */
	}
	buf_put(b);
	return r;
}

static co_fn int make_file(struct store *st, struct env_file **ret)
{
	struct journal *jr = &st->jr;
	uint64_t size = st->conf.journal_size ? st->conf.journal_size : STORE_JOURNAL_SIZE_DEFAULT;
	struct env_file *f;

	size = ROUND_DOWN(size, BLK);
	if (size < STORE_JOURNAL_FLOOR)
		return -EINVAL;
	st_name_op(st, ENV_IO_UNLINK, jr->dir, "journal.new", NULL, NULL);		 /* ~ */
	int r = st_open_at(st, jr->dir, "journal.new", O_RDWR | O_CREAT | O_DIRECT, &f); /* ~ */
	if (r == 0)
		r = zero_fill(st, f, size); /* ~ */
	if (r < 0) {
		st_close_file(st, f); /* ~ */
		return r;
	}
	set_area(jr, size / BLK - JOURNAL_SUPERS);
	*ret = f;
	return 0;
}

/* A new journal in the place of what is there.  @fresh: the store has no config yet. */
static co_fn int make(struct store *st, bool fresh, char **err)
{
	struct journal *jr = &st->jr;
	struct env_file *f = NULL;
	int r = make_file(st, &f); /* ~ */

	if (r == 0) {
		st_close_file(st, jr->file); /* ~ */
		jr->file = f;
		st->journal_prev = st->journal_id;
		jr->id = st->journal_id = env_random64(st->env) | 1;
		r = journal_reset(st); /* ~ */
	}
	if (r == 0 && !fresh)
		r = config_write(st); /* ~ accepts the old and the new one */
	if (r == 0 && !st->conf.nosync)
		r = st_sync_file(st, jr->file, ENV_IO_FSYNC); /* ~ */
	if (r == 0)
		r = st_name_op(st, ENV_IO_RENAME, jr->dir, "journal.new", NULL, "journal"); /* ~ */
	if (r == 0 && !st->conf.nosync)
		r = st_sync_file(st, jr->dir, ENV_IO_FSYNC); /* ~ */
	if (r == -ENOSPC && MARKED(st_journal_space))
		st_says(err,
			"No space for the journal of %s: free some, or ask for a smaller one "
			"with -j size=",
			st->conf.dir);
	else if (r < 0 && MARKED(st_journal_make))
		st_says(err, "Cannot make the journal of %s: %s", st->conf.dir, strerror(-r));
	return r;
}

static bool super_good(struct store *st, struct journal_super *s)
{
	return s->magic == SUPER_MAGIC && s->sum == super_sum(s) && s->format == STORE_FORMAT &&
	       (s->id == st->journal_id || (st->journal_prev && s->id == st->journal_prev)) &&
	       s->pages >= STORE_JOURNAL_FLOOR / BLK / 2 && s->pages < 1ull << 40 &&
	       s->tail < s->pages;
}

/* 0: *ret is the newer good superblock; -EILSEQ: none is. */
static co_fn int read_supers(struct store *st, struct journal_super *ret)
{
	struct buf *b = buf_new(st->pool, JOURNAL_SUPERS * BLK);

	if (!b)
		return -ENOMEM;
	int r = st_rw(st, ENV_IO_READ, st->jr.file, b->data, JOURNAL_SUPERS * BLK, 0,
		      ENV_IO_DIRECT); /* ~ */
	ret->magic = 0;
	for (unsigned i = 0; r == 0 && i < JOURNAL_SUPERS; i++) {
		struct journal_super *s = (void *)((uint8_t *)b->data + (size_t)i * BLK);
		if (super_good(st, s) && (!ret->magic || s->gen > ret->gen))
			*ret = *s;
	}
	buf_put(b);
	if (r == -EIO)
		return r;
	return r < 0 || !ret->magic ? -EILSEQ : 0;
}

static co_fn int find(struct store *st, char **err)
{
	struct journal *jr = &st->jr;
	struct journal_super s = {0};
	int r = st_open_at(st, jr->dir, "journal", O_RDWR | O_DIRECT, &jr->file); /* ~ */

	if (r == -ENOENT &&
	    jr->own_dir) /* it was in the store until now: journal_settle moves it */
		r = st_open_at(st, st->dir, "journal", O_RDWR | O_DIRECT, &jr->file); /* ~ */
	if (r == 0)
		r = read_supers(st, &s); /* ~ */
	if ((r == -ENOENT || r == -EILSEQ) && MARKED(st_journal_gone))
		st_says(err,
			"The journal of %s is not in %s (or is damaged): give its directory with "
			"-j size=SIZE,dir=DIR, or give up the writes in it with -j size=SIZE,skip",
			st->conf.dir, jr->own_dir ? st->conf.journal_dir : st->conf.dir);
	else if (r < 0 && MARKED(st_journal_read))
		st_says(err, "Cannot read the journal of %s: %s", st->conf.dir, strerror(-r));
	if (r < 0)
		return r == -ENOENT ? -EILSEQ : r;
	jr->id = s.id;
	jr->inc = s.inc;
	jr->sb_gen = s.gen;
	set_area(jr, s.pages);
	jr->vhead = jr->vtail = s.tail;
	jr->gseq = s.tail_gseq;
	jr->clean = s.empty;
	return 0;
}

co_fn int journal_open(struct store *st, bool fresh, char **err)
{
	struct journal *jr = &st->jr;
	int r = 0;

	jr->dir = st->dir;
	jr->own_dir = st->conf.journal_dir && strcmp(st->conf.journal_dir, st->conf.dir);
	if (jr->own_dir)
		r = st_open_at(st, NULL, st->conf.journal_dir, O_RDONLY | O_DIRECTORY,
			       &jr->dir); /* ~ */
	if (r < 0) {
		st_says(err, "Cannot open the journal directory %s: %s", st->conf.journal_dir,
			strerror(-r));
		jr->own_dir = false;
		jr->dir = NULL;
		return r;
	}
	jr->hdr = buf_new(st->pool, 16 * BLK);
	if (!jr->hdr)
		return -ENOMEM;
	if (jr->own_dir && !st->conf.nosync)
		r = st_sync_file(st, jr->dir, ENV_IO_SYNCFS); /* ~ */
	if (r < 0)
		return r;
	if (fresh || st->conf.journal_skip)
		return make(st, fresh, err); /* ~ */
	return find(st, err);		     /* ~ */
}

/* Replay is over: another size, or another place? */
co_fn int journal_settle(struct store *st, char **err)
{
	struct journal *jr = &st->jr;
	uint64_t want = st->conf.journal_size / BLK, have = jr->area + JOURNAL_SUPERS;
	bool moved = false;

	if (jr->own_dir) {
		struct env_io io = {.op = ENV_IO_STAT, .file = jr->dir, .name = "journal"};
		moved = co_io(st->s, &io) == -ENOENT; /* ~ */
	}
	if (!moved && (!want || want == have))
		return journal_reset(st); /* ~ */
	int r = make(st, false, err);	  /* ~ */
	if (r == 0 && moved)
		st_name_op(st, ENV_IO_UNLINK, st->dir, "journal", NULL, NULL); /* ~ */
	return r;
}

co_fn void journal_close(struct store *st)
{
	struct journal *jr = &st->jr;
	struct rec *r, *n;

	cds_list_for_each_entry_safe (r, n, &jr->lazy, node) {
		cds_list_del(&r->node);
		rec_free(st, r);
	}
	st_close_file(st, jr->file); /* ~ */
	if (jr->own_dir)
		st_close_file(st, jr->dir); /* ~ */
	buf_put(jr->hdr);
	jr->file = jr->dir = NULL;
	jr->hdr = NULL;
}
