/* contents.c - what the stores hold at rest (DESIGN 5.8): every object is in sync on all of its
 * ring and nowhere else (I5, I7), and its copies are equal in version and bytes (I3, I6). */
#include "config.h"

#include "lib/proto/ring.h"
#include "sheep/peer.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PIECE	  (256u << 10)
#define LIST_PART 64u

struct row { /* one copy of one object */
	uint64_t oid, hash, size;
	struct obj_ver ver;
	unsigned node;
	uint8_t copies;
	bool in_sync, marked;
	int error;
};

struct contents {
	struct world *w;
	struct row *rows;
	size_t nr, cap;
	unsigned left;
};

struct reader {
	struct contents *c;
	struct node *n;
};

static struct row *row_add(struct contents *c, const struct row *row)
{
	struct proc *before = c->w->running;

	c->w->running = NULL; /* it outlives the daemon */
	if (c->nr == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 256;
		c->rows = realloc(c->rows, c->cap * sizeof(*c->rows));
		assert(c->rows);
	}
	c->rows[c->nr] = *row;
	c->w->running = before;
	return &c->rows[c->nr++];
}

static uint64_t hash_piece(uint64_t h, uint64_t off, const uint8_t *p, uint64_t len)
{
	for (uint64_t i = 0; i < len; i += 8) {
		uint64_t v;
		memcpy(&v, p + i, 8);
		if (!v)
			continue; /* a hole and zeros are the same */
		h = (h ^ v ^ (off + i) << 20) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	return h;
}

static int read_object(struct sheep *sh, struct store_obj *o, struct row *row)
{
	struct buf *b = buf_new(sh->pool, PIECE);
	uint64_t off = 0, len, bad;
	int r = 0;

	assert(b);
	while (r == 0 && store_next_data(o, off, &off, &len)) { /* ~ */
		if (len > PIECE)
			len = PIECE;
		r = store_read(o, off, len, b, 0, &bad); /* ~ */
		if (r == 0)
			row->hash = hash_piece(row->hash, off, b->data, len & ~7ull);
		off += len;
	}
	buf_put(b);
	return r;
}

static void reader_co(void *arg)
{
	struct reader *rd = arg;
	struct sheep *sh = rd->n->sh;
	struct obj_info info[LIST_PART];
	uint64_t h = 0, oid = 0;
	struct sync *marks = marks_load(rd->n); /* ~ */
	bool cont = false;
	unsigned n;

	while ((n = store_list(sh->store, 0, UINT64_MAX, cont, h, oid, info, LIST_PART))) {
		for (unsigned i = 0; i < n; i++) {
			struct store_obj *o = store_get(sh->store, info[i].oid, false); /* ~ */
			struct row row = {.oid = info[i].oid,
					  .node = rd->n->idx,
					  .ver = info[i].ver,
					  .size = info[i].size,
					  .copies = info[i].copies};
			row.in_sync = sync_is(sh, sync_epoch(sh), row.oid, row.copies);
			row.marked = marks_have(marks, row.oid, row.copies, sync_epoch(sh));
			row.error = read_object(sh, o, &row); /* ~ */
			store_put(o);
			row_add(rd->c, &row);
		}
		h = info[n - 1].hash;
		oid = info[n - 1].oid;
		cont = true;
	}
	marks_free(marks);
	rd->c->left--;
}

static void reader_main(void *arg)
{
	struct reader *rd = arg;

	assert(co_start(rd->n->sh->sched, reader_co, rd, "contents"));
}

static int cmp_row(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->oid != y->oid)
		return x->oid < y->oid ? -1 : 1;
	return x->node < y->node ? -1 : x->node > y->node;
}

static void differ(struct contents *c, struct node *nodes, const struct row *a, const struct row *b,
		   const char *what)
{
	world_fail(c->w,
		   "contents: object %016" PRIx64 ": %s: %s has version %" PRIu64 ".%" PRIu64
		   " (%016" PRIx64 "), %s version %" PRIu64 ".%" PRIu64 " (%016" PRIx64 ")",
		   a->oid, what, nodes[a->node].name, a->ver.gen, a->ver.seq, a->hash,
		   nodes[b->node].name, b->ver.gen, b->ver.seq, b->hash);
}

/* All copies of one object. */
static void check_object(struct contents *c, struct node *nodes, const struct row *row, size_t nr,
			 bool clean)
{
	const struct view *v = cluster_view(nodes[row->node].sh->cluster);
	uint32_t idx[SD_COPIES_MAX];
	unsigned k = ring_lookup(v->ring, sd_hash_oid(row->oid), row->copies, idx);

	for (size_t i = 0; i < nr; i++) {
		if (!row[i].in_sync)
			world_fail(c->w, "contents: object %016" PRIx64 " is not in sync on %s",
				   row->oid, nodes[row[i].node].name);
		else if (!row[i].marked)
			world_fail(c->w,
				   "contents: object %016" PRIx64 " is in sync on %s, and its disk "
				   "does not say so (I5)",
				   row->oid, nodes[row[i].node].name);
		if (row[i].error)
			world_fail(c->w, "contents: object %016" PRIx64 " cannot be read on %s: %s",
				   row->oid, nodes[row[i].node].name, strerror(-row[i].error));
		if (obj_ver_cmp(row[i].ver, row->ver)) {
			if (clean)
				differ(c, nodes, row, &row[i], "versions differ");
		} else if (row[i].hash != row->hash || row[i].size != row->size)
			differ(c, nodes, row, &row[i], "bytes differ");
		bool mine = false;
		for (unsigned j = 0; j < k; j++)
			mine |= v->members[idx[j]].addr.ip[15] == nodes[row[i].node].ip;
		if (!mine)
			world_fail(c->w, "contents: object %016" PRIx64 " is left on %s", row->oid,
				   nodes[row[i].node].name);
	}
	if (nr != k && clean)
		world_fail(c->w, "contents: object %016" PRIx64 " has %zu of %u copies", row->oid,
			   nr, k);
}

/* A death between a removal's steps, or a creation's, leaves an orphan (DESIGN 8). */
static bool anything_went_wrong(const struct world *w)
{
	for (unsigned i = 0; i < FAULT_NR; i++)
		if (w->faults[i])
			return true;
	return false;
}

/* Nobody ends by itself at rest. */
static void all_there(struct world *w, const struct node *nodes, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		if (!nodes[i].p || !nodes[i].sh || nodes[i].sh->exiting)
			world_fail(w, "contents: %s ended by itself", nodes[i].name);
}

bool contents_check(struct world *w, struct node *nodes, unsigned nr, bool (*step)(void *arg),
		    enum object_is (*is)(void *arg, uint64_t oid), void *arg)
{
	struct contents c = {.w = w, .left = nr};
	struct reader rd[NODES_MAX];
	unsigned orphans = 0;

	for (unsigned i = 0; i < nr; i++) {
		rd[i] = (struct reader){&c, &nodes[i]};
		proc_call(nodes[i].p, reader_main, &rd[i]);
	}
	while (c.left && step(arg))
		all_there(w, nodes, nr);
	if (c.left || w->failed) {
		free(c.rows);
		return false;
	}
	qsort(c.rows, c.nr, sizeof(*c.rows), cmp_row);
	for (size_t i = 0, end; i < c.nr && !w->failed; i = end) {
		for (end = i; end < c.nr && c.rows[end].oid == c.rows[i].oid; end++)
			;
		enum object_is what = is(arg, c.rows[i].oid);
		if (what == OBJECT_DELETED)
			world_fail(w,
				   "contents: object %016" PRIx64 " of a deleted volume is on %s",
				   c.rows[i].oid, nodes[c.rows[i].node].name);
		else if (what == OBJECT_LEFT)
			orphans++;
		check_object(&c, nodes, &c.rows[i], end - i, what != OBJECT_LOOSE);
	}
	if (orphans && !anything_went_wrong(w))
		world_fail(w, "contents: %u objects are not in their volume's index", orphans);
	story(w, "all > %zu copies of objects compared; %u orphans", c.nr, orphans);
	free(c.rows);
	return !w->failed;
}
