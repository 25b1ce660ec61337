/* space.c - how full the disk is: a cached statfs less what was queued since.
 *
 * The estimate is low rather than high: what was queued while a statfs was under way counts twice.
 * It is refreshed when somebody asks and it is old; an idle store asks for nothing.
 */
#include "config.h"

#include "sheep/store/store_int.h"

#include <errno.h>

#define REFRESH_NS	 1000000000ull
#define REFRESH_TIGHT_NS 100000000ull
#define TIGHT		 (1ull << 30) /* less than this above the reserve: look more often */
#define RESERVE_MIN	 (64ull << 20)
#define RESERVE_MAX	 (8ull << 30)
#define FLOOR		 (4ull << 20) /* so much is left even by repair */

static uint64_t reserve(const struct store *st)
{
	if (st->conf.reserve)
		return st->conf.reserve;
	uint64_t r = st->fs_total / 50;
	if (r < RESERVE_MIN)
		r = RESERVE_MIN < st->fs_total / 8 ? RESERVE_MIN : st->fs_total / 8;
	return r < RESERVE_MAX ? r : RESERVE_MAX;
}

static uint64_t estimate(const struct store *st)
{
	uint64_t took = st->alloc_before + st->alloc_since;

	return st->fs_free > took ? st->fs_free - took : 0;
}

static void statfs_take(struct store *st, const struct env_io *io)
{
	if (io->result >= 0) {
		st->fs_total = io->fs_total;
		st->fs_free = io->fs_free;
		/* what was in layers when it was asked may not have been on the disk yet */
		st->alloc_before = st->mem_asked;
	}
	st->statfs_ns = env_now(st->env);
}

static void statfs_done(struct env_io *io)
{
	struct store *st = io->arg;

	st->statfs_busy = false;
	statfs_take(st, io);
	co_cond_broadcast(&st->scond);
}

static void refresh(struct store *st)
{
	uint64_t free_bytes = estimate(st), r = reserve(st);
	uint64_t every = free_bytes < r + TIGHT ? REFRESH_TIGHT_NS : REFRESH_NS;

	if (st->statfs_busy || env_now(st->env) - st->statfs_ns < every || st->stopping)
		return;
	st->statfs_busy = true;
	st->alloc_before += st->alloc_since; /* the old answer holds until the new one comes */
	st->alloc_since = 0;		     /* from now on */
	st->mem_asked = st->mem;
	st->statfs = (struct env_io){
		.op = ENV_IO_STATFS, .file = st->dir, .done = statfs_done, .arg = st};
	env_io_submit(st->env, &st->statfs);
}

co_fn int space_open(struct store *st)
{
	struct env_io io = {.op = ENV_IO_STATFS, .file = st->dir};
	st->mem_asked = st->mem;
	int64_t r = co_io(st->s, &io); /* ~ */

	statfs_take(st, &io);
	return r < 0 ? (int)r : 0;
}

void space_took(struct store *st, uint64_t len)
{
	st->alloc_since += len;
}

bool space_floor(struct store *st, uint64_t len)
{
	refresh(st);
	return estimate(st) >= len + FLOOR;
}

bool store_has_room(struct store *st, uint64_t len)
{
	refresh(st);
	uint64_t have = estimate(st), keep = reserve(st);
	return have >= keep && have - keep >= len;
}

bool store_take_room(struct store *st, uint64_t len)
{
	bool room = store_has_room(st, len);

	if (room)
		space_took(st, len);
	return room;
}

void store_space(struct store *st, uint64_t *total, uint64_t *free_bytes)
{
	refresh(st);
	uint64_t have = estimate(st);
	*total = st->ident.space;
	*free_bytes = have < st->ident.space ? have : st->ident.space;
}
