/* storedump DIR: opens the store of a stopped daemon (as a start of the daemon would: lock, replay)
 * and prints one line for each object: oid, version, size, CRC-32C of its contents, and "torn"
 * where it is. Two stores whose lines are equal hold the same data at the same versions. */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "lib/base/crc.h"
#include "lib/base/util.h"
#include "lib/env/linux.h"
#include "sheep/store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE (1u << 20)

struct dump {
	const char *dir;
	struct env *env;
	struct co_sched *sched;
	struct buf_pool *pool;
	struct store *st;
	int status;
};

static int object_crc(struct dump *d, const struct obj_info *info, uint32_t *crc)
{
	struct store_obj *o = store_get(d->st, info->oid, false);
	struct buf *buf = buf_new(d->pool, PIECE);
	uint64_t bad = 0;
	int r = buf ? 0 : -ENOMEM;

	*crc = 0;
	for (uint64_t off = 0; r == 0 && off < info->size; off += PIECE) {
		uint64_t len = info->size - off < PIECE ? info->size - off : PIECE;
		r = store_read(o, off, len, buf, 0, &bad);
		if (r == 0)
			*crc = crc32c_more(*crc, buf->data, len);
	}
	if (r < 0)
		fprintf(stderr, "%s: object %016" PRIx64 " at %" PRIu64 ": %s\n", d->dir, info->oid,
			bad, strerror(-r));
	buf_put(buf);
	store_put(o);
	return r;
}

static void dump_all(struct dump *d)
{
	struct obj_info info = {0}, next;
	bool cont = false;
	uint32_t crc;

	while (store_list(d->st, 0, UINT64_MAX, cont, info.hash, info.oid, &next, 1)) {
		info = next;
		cont = true;
		int r = object_crc(d, &info, &crc);
		if (r < 0 && !info.torn)
			d->status = 1;
		printf("%016" PRIx64 " %" PRIu64 ".%" PRIu64 " %" PRIu64 " %08x%s\n", info.oid,
		       info.ver.gen, info.ver.seq, info.size, crc, info.torn ? " torn" : "");
	}
}

static void dump_co(void *arg)
{
	struct dump *d = arg;
	struct store_conf conf = {.dir = d->dir};
	char *err = NULL;
	int r = store_open(d->sched, d->env, &conf, &d->st, &err);

	if (r < 0) {
		fprintf(stderr, "%s: %s\n", d->dir, err ? err : strerror(-r));
		d->status = 1;
	} else {
		dump_all(d);
		store_close(d->st);
	}
	free(err);
	env_linux_stop(d->env);
}

int main(int argc, char **argv)
{
	struct env_linux_conf conf = {.nr_workers = 1, .aio_depth = 64};
	struct dump d = {.dir = argc == 2 ? argv[1] : NULL};

	if (!d.dir) {
		fprintf(stderr, "usage: storedump DIR\n");
		return 64;
	}
	if (env_linux_new(&conf, &d.env) < 0 || !(d.pool = buf_pool_new(PIECE)) ||
	    !(d.sched = co_sched_new(d.env, 64))) {
		perror("storedump");
		return 1;
	}
	co_start(d.sched, dump_co, &d, "dump");
	env_linux_run(d.env);
	while (co_sched_nr(d.sched))
		env_linux_turn(d.env, 0);
	co_sched_free(d.sched);
	buf_pool_free(d.pool);
	env_linux_free(d.env);
	return d.status;
}
