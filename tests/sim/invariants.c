/* invariants.c - DESIGN 5.8 where it can be seen from outside of the daemon.
 *
 *  I4 at each write that a replica enters into its journal (store_queue() is wrapped): it is newer
 *     than what the object has (or a repair, which has the same version), and the object is in sync
 * here (else it is no member of the one sequence of writes that the object here is a prefix of: I3,
 * I5). I5 at rest: what a replica counts as in sync is so in its file `sync`, and that file is
 * durable: loaded anew it says the same. */
#include "config.h"

#include "lib/proto/ring.h"
#include "sheep/store/store_int.h"
#include "sheep/sync_int.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- I4 ---- */

int __real_store_queue(struct store_obj *o, struct store_write *w);
int __wrap_store_queue(struct store_obj *o, struct store_write *w);

static void check_write(struct world *w, struct proc *p, uint64_t oid, const struct store_write *sw)
{
	struct sheep *sh = p->sheep;
	struct obj_info info = {0};

	if (!sh || !sh->sync || !store_lookup(sh->store, oid, &info))
		return;
	if (obj_ver_cmp(sw->ver, info.ver) == 0)
		return; /* store_repair(): the same bytes again */
	if (obj_ver_cmp(sw->ver, info.ver) < 0)
		world_fail(w,
			   "contents: %s applies version %" PRIu64 ".%" PRIu64
			   " of object %016" PRIx64 " after %" PRIu64 ".%" PRIu64 " (I4)",
			   p->name, sw->ver.gen, sw->ver.seq, oid, info.ver.gen, info.ver.seq);
	else if (!sync_in(sh->sync, oid, sd_hash_oid(oid), sync_stored_copies(sh->sync, &info)))
		world_fail(w,
			   "contents: %s applies a write of object %016" PRIx64
			   ", which is not in sync there (I5)",
			   p->name, oid);
}

int __wrap_store_queue(struct store_obj *o, struct store_write *w)
{
	struct proc *p = sim_running();
	uint64_t oid = o->oid;

	if (p && !p->w->failed)
		check_write(p->w, p, oid, w);
	return __real_store_queue(o, w);
}

/* ---- I5 ---- */

struct sync *marks_load(struct node *n)
{
	struct sync *t = calloc(1, sizeof(*t));

	assert(t);
	t->sh = n->sh;
	co_mutex_init(&t->file_lock);
	map_init(&t->marks);
	map_init(&t->torn);
	assert(smap_init(&t->map) == 0);
	int r = sync_file_load(t); /* ~ */
	if (r < 0)
		world_fail(n->w, "contents: the file `sync` of %s: %s (I5)", n->name, strerror(-r));
	if (!disk_durable(n->disk, "sync"))
		world_fail(n->w, "contents: the file `sync` of %s is not durable (I5)", n->name);
	return t;
}

bool marks_have(const struct sync *t, uint64_t oid, uint8_t copies, uint32_t epoch)
{
	return sync_synced(t, oid, sd_hash_oid(oid), copies) == epoch;
}

void marks_free(struct sync *t)
{
	struct sync_mark *m;
	size_t pos = 0;

	while ((m = map_next(&t->marks, &pos, NULL)))
		free(m);
	map_done(&t->marks);
	map_done(&t->torn);
	smap_done(&t->map);
	free(t);
}

/* ---- the disk ---- */

static const struct entry *named(const struct entry *list, const char *name)
{
	while (list && strcmp(list->name, name))
		list = list->next;
	return list;
}

static bool durable_in(const struct inode *dir, const char *name)
{
	const struct entry *e = named(dir->live, name), *d = named(dir->durable, name);

	if (e && (!d || d->inode != e->inode || !cds_list_empty(&e->inode->unsynced)))
		return false;
	for (e = dir->live; e; e = e->next)
		if (e->inode->dir && !durable_in(e->inode, name))
			return false;
	return true;
}

bool disk_durable(const struct sim_disk *d, const char *name)
{
	return durable_in(d->root, name);
}
