/* sync_store.c - see sync_store.h. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/proto/ring.h"
#include "tests/unit/sync_store.h"

struct store_obj {
	struct disk *disk;
	uint64_t oid, hash;
	struct obj_ver ver;
	uint64_t size;
	uint8_t copies, *data;
	bool exists, torn, *bad;
	struct co_ranges lock;
	unsigned holders;
};

struct disk {
	struct disk *next;
	char dir[200];
	struct store_obj **obj; /* sorted by (hash, oid) */
	unsigned nr, nr_stale;
	uint64_t start;
	struct store *st; /* open */
	bool commit_gate, prepare_gate, full, low;
};

struct store {
	struct disk *disk;
	struct env_file *dir;
	struct co_sched *sched;
	struct store_ident ident;
	bool gate;
	int fail;
	bool failed; /* it has */
	struct co_cond opened;
	unsigned nr_held;
};

struct hold { /* what store_get() returns is the object; its lock record lives here */
	struct co_range range;
	struct store_obj *o;
	struct hold *next;
};

static struct disk *disks;
static struct hold *holds;

static struct disk *disk_get(const char *dir)
{
	struct disk *d;

	for (d = disks; d; d = d->next)
		if (strcmp(d->dir, dir) == 0)
			return d;
	d = calloc(1, sizeof(*d));
	snprintf(d->dir, sizeof(d->dir), "%s", dir);
	d->next = disks;
	disks = d;
	return d;
}

static void obj_clear(struct store_obj *o)
{
	free(o->data);
	free(o->bad);
	o->data = NULL;
	o->bad = NULL;
	o->exists = o->torn = false;
	o->ver = (struct obj_ver){0, 0};
	o->size = 0;
}

static void disk_clear(struct disk *d)
{
	for (unsigned i = 0; i < d->nr; i++) {
		obj_clear(d->obj[i]);
		free(d->obj[i]);
	}
	free(d->obj);
	d->obj = NULL;
	d->nr = 0;
}

void mem_forget_all(void)
{
	while (disks) {
		struct disk *d = disks;
		disks = d->next;
		disk_clear(d);
		free(d);
	}
	assert(!holds);
}

static int obj_order(const struct store_obj *a, uint64_t hash, uint64_t oid)
{
	if (a->hash != hash)
		return a->hash < hash ? -1 : 1;
	return a->oid < oid ? -1 : a->oid > oid;
}

static struct store_obj *obj_of(struct disk *d, uint64_t oid)
{
	uint64_t hash = sd_hash_oid(oid);
	unsigned i = 0;

	while (i < d->nr && obj_order(d->obj[i], hash, oid) < 0)
		i++;
	if (i < d->nr && d->obj[i]->oid == oid)
		return d->obj[i];
	d->obj = realloc(d->obj, (d->nr + 1) * sizeof(*d->obj));
	memmove(d->obj + i + 1, d->obj + i, (d->nr - i) * sizeof(*d->obj));
	d->nr++;
	struct store_obj *o = d->obj[i] = calloc(1, sizeof(*o));
	o->disk = d;
	o->oid = oid;
	o->hash = hash;
	co_ranges_init(&o->lock);
	return o;
}

static void obj_make(struct store_obj *o, uint64_t size, uint8_t copies)
{
	obj_clear(o);
	o->exists = true;
	o->size = size;
	o->copies = copies;
	o->data = calloc(1, size + 1);
	o->bad = calloc(size / SD_BLOCK_SIZE + 2, sizeof(*o->bad));
}

/* ---- life ---- */

int store_open(struct co_sched *s, struct env *env, const struct store_conf *conf,
	       struct store **ret, char **err)
{
	struct store *st = calloc(1, sizeof(*st));
	struct env_io io = {.op = ENV_IO_OPEN, .name = conf->dir, .flags = O_RDONLY | O_DIRECTORY};

	st->sched = s;
	st->disk = disk_get(conf->dir);
	st->ident.start = ++st->disk->start;
	snprintf((char *)st->ident.uuid, sizeof(st->ident.uuid), "%.15s",
		 strlen(conf->dir) > 15 ? conf->dir + strlen(conf->dir) - 15 : conf->dir);
	co_cond_init(&st->opened);
	st->disk->st = st;
	assert(co_io(s, &io) >= 0);
	st->dir = io.result_file;
	*ret = st;
	return 0;
}

void store_close(struct store *st)
{
	struct env_io io = {.op = ENV_IO_CLOSE, .file = st->dir};

	assert(!st->nr_held);
	co_io(st->sched, &io);
	free(st);
}

const struct store_ident *store_ident(const struct store *st)
{
	return &st->ident;
}

struct env_file *store_dir(const struct store *st)
{
	return st->dir;
}

int store_format(struct store *st)
{
	disk_clear(st->disk);
	return 0;
}

/* ---- index ---- */

static void obj_info(const struct store_obj *o, struct obj_info *i)
{
	*i = (struct obj_info){
		.oid = o->oid,
		.hash = o->hash,
		.ver = o->ver,
		.size = o->size,
		.copies = o->copies,
		.torn = o->torn,
	};
}

bool store_lookup(struct store *st, uint64_t oid, struct obj_info *ret)
{
	struct store_obj *o = obj_of(st->disk, oid);

	if (o->exists)
		obj_info(o, ret);
	else
		*ret = (struct obj_info){.oid = oid, .hash = o->hash};
	return o->exists;
}

unsigned store_list(struct store *st, uint64_t from, uint64_t to, bool cont, uint64_t h, uint64_t o,
		    struct obj_info *ret, unsigned n)
{
	struct disk *d = st->disk;
	unsigned nr = 0;

	for (unsigned i = 0; i < d->nr && nr < n; i++) {
		if (!d->obj[i]->exists || d->obj[i]->hash < from || d->obj[i]->hash > to)
			continue;
		if (cont && obj_order(d->obj[i], h, o) <= 0)
			continue;
		obj_info(d->obj[i], &ret[nr++]);
	}
	return nr;
}

uint64_t store_max_gen(const struct store *st)
{
	return 0;
}

bool store_has_room(struct store *st, uint64_t len)
{
	return len < 1ull << 30 && !st->disk->low;
}

bool store_take_room(struct store *st, uint64_t len)
{
	return store_has_room(st, len);
}

/* Zeros take no room. */
bool store_allocates(struct store_obj *o, uint64_t off, uint64_t len)
{
	bool zero = false;

	co_yield ();
	for (uint64_t i = off; o->exists && i < off + len; i++)
		zero |= !o->data[i];
	return zero;
}

bool store_failed(const struct store *st)
{
	return st->failed;
}

/* ---- locks ---- */

struct store_obj *store_get(struct store *st, uint64_t oid, bool excl)
{
	struct hold *h = calloc(1, sizeof(*h));

	h->o = obj_of(st->disk, oid);
	st->nr_held++;
	co_range_lock(&h->o->lock, &h->range, 0, 1, excl);
	h->next = holds;
	holds = h;
	h->o->holders++;
	return h->o;
}

void store_put(struct store_obj *o)
{
	struct hold **p = &holds, *h;

	while ((*p)->o != o || (*p)->range.co != co_self())
		p = &(*p)->next;
	h = *p;
	*p = h->next;
	o->holders--;
	o->disk->st->nr_held--;
	co_range_unlock(&h->range);
	free(h);
}

/* ---- writes ---- */

int store_prepare(struct store_obj *o, struct store_write *w)
{
	co_yield ();
	while (o->disk->prepare_gate)
		co_cond_wait(&o->disk->st->opened, "prepare gate");
	if (o->disk->full)
		return -ENOSPC;
	if (w->create)
		return 0;
	if (!o->exists)
		return -ENOENT;
	uint64_t end = w->off + w->len;
	bool bad = (w->off % SD_BLOCK_SIZE && o->bad[w->off / SD_BLOCK_SIZE]) ||
		   (end % SD_BLOCK_SIZE && o->bad[end / SD_BLOCK_SIZE]);
	return bad ? -EILSEQ : 0;
}

void store_abandon(struct store_write *w)
{
}

int store_queue(struct store_obj *o, struct store_write *w)
{
	if (w->create)
		obj_make(o, w->size, w->copies);
	if (w->len)
		memcpy(o->data + w->off, (uint8_t *)w->data->data + w->data_off, w->len);
	for (uint64_t b = w->off / SD_BLOCK_SIZE; b * SD_BLOCK_SIZE < w->off + w->len; b++)
		o->bad[b] = false;
	o->ver = w->ver;
	return 0;
}

int store_queue_remove(struct store_obj *o, struct store_write *w)
{
	obj_clear(o);
	return 0;
}

int store_wait(struct store *st, struct store_write *w)
{
	co_yield ();
	while (st->gate)
		co_cond_wait(&st->opened, "gate");
	if (st->fail) {
		int r = st->fail;
		st->fail = 0;
		st->failed = true;
		return r;
	}
	return 0;
}

int store_flush(struct store *st)
{
	co_yield ();
	return 0;
}

/* ---- reads ---- */

int store_read(struct store_obj *o, uint64_t off, uint64_t len, struct buf *buf, size_t buf_off,
	       uint64_t *bad_off)
{
	co_yield ();
	if (!o->exists)
		return -ENOENT;
	memset((uint8_t *)buf->data + buf_off, 0, len);
	for (uint64_t i = off; i < off + len && i < o->size; i++) {
		if (o->bad[i / SD_BLOCK_SIZE]) {
			*bad_off = i / SD_BLOCK_SIZE * SD_BLOCK_SIZE;
			return -EILSEQ;
		}
		((uint8_t *)buf->data)[buf_off + i - off] = o->data[i];
	}
	return 0;
}

bool store_next_data(struct store_obj *o, uint64_t off, uint64_t *start, uint64_t *len)
{
	if (!o->exists || off >= o->size)
		return false;
	*start = off;
	*len = o->size - off;
	return true;
}

/* ---- replacement ---- */

struct store_replace {
	struct store_obj *o, img;
};

void mem_commit_gate(struct store *st, bool closed)
{
	st->disk->commit_gate = closed;
	if (!closed)
		co_cond_broadcast(&st->opened);
}

static void commit_wait(struct store_obj *o)
{
	while (o->disk->commit_gate)
		co_cond_wait(&o->disk->st->opened, "commit gate");
}

int store_replace_begin(struct store_obj *o, uint64_t size, uint8_t copies,
			struct store_replace **ret)
{
	struct store_replace *r = calloc(1, sizeof(*r));

	r->o = o;
	obj_make(&r->img, size, copies);
	*ret = r;
	return 0;
}

int store_replace_data(struct store_replace *r, uint64_t off, struct buf *data, size_t data_off,
		       uint64_t len)
{
	co_yield ();
	memcpy(r->img.data + off, (uint8_t *)data->data + data_off, len);
	return 0;
}

int store_replace_commit(struct store_replace *r, struct obj_ver ver)
{
	struct store_obj *o = r->o;

	co_yield ();
	commit_wait(o);
	obj_clear(o);
	o->exists = true;
	o->data = r->img.data;
	o->bad = r->img.bad;
	o->size = r->img.size;
	o->copies = r->img.copies;
	o->ver = ver;
	free(r);
	return 0;
}

void store_replace_abort(struct store_replace *r)
{
	obj_clear(&r->img);
	free(r);
}

int store_repair(struct store_obj *o, struct obj_ver ver, uint64_t off, struct buf *data,
		 size_t data_off, uint64_t len)
{
	co_yield ();
	if (!o->exists || obj_ver_cmp(o->ver, ver) != 0)
		return -ESTALE;
	memcpy(o->data + off, (uint8_t *)data->data + data_off, len);
	o->bad[off / SD_BLOCK_SIZE] = false;
	return 0;
}

int store_stale(struct store_obj *o, uint32_t epoch)
{
	co_yield ();
	o->disk->nr_stale++;
	obj_clear(o);
	return 0;
}

int store_purge_stale(struct store *st)
{
	st->disk->nr_stale = 0;
	return 0;
}

int store_settle(struct store_obj *o, struct obj_ver ver)
{
	co_yield ();
	if (!o->exists)
		return -ENOENT;
	memset(o->bad, 0, (o->size / SD_BLOCK_SIZE + 2) * sizeof(*o->bad));
	o->torn = false;
	o->ver = ver;
	return 0;
}

/* ---- faults ---- */

void mem_tear(struct store *st, uint64_t oid)
{
	struct store_obj *o = obj_of(st->disk, oid);

	o->torn = true;
	o->bad[0] = true;
}

void mem_rot(struct store *st, uint64_t oid, uint64_t off)
{
	struct store_obj *o = obj_of(st->disk, oid);

	o->bad[off / SD_BLOCK_SIZE] = true;
	o->data[off] ^= 0x80;
}

bool mem_bad(struct store *st, uint64_t oid)
{
	struct store_obj *o = obj_of(st->disk, oid);

	for (uint64_t b = 0; o->exists && b * SD_BLOCK_SIZE < o->size; b++)
		if (o->bad[b])
			return true;
	return false;
}

unsigned mem_nr_stale(struct store *st)
{
	return st->disk->nr_stale;
}

void mem_gate(struct store *st, bool closed)
{
	st->gate = closed;
	if (!closed)
		co_cond_broadcast(&st->opened);
}

void mem_prepare_gate(struct store *st, bool closed)
{
	st->disk->prepare_gate = closed;
	if (!closed)
		co_cond_broadcast(&st->opened);
}

void mem_fail(struct store *st, int error)
{
	st->fail = error;
}

void mem_low(struct store *st, bool low)
{
	st->disk->low = low;
}

void mem_full(struct store *st, bool full)
{
	st->disk->full = full;
}

void mem_put(struct store *st, uint64_t oid, struct obj_ver ver, uint64_t size, uint8_t copies,
	     uint8_t fill)
{
	struct store_obj *o = obj_of(st->disk, oid);

	obj_make(o, size, copies);
	memset(o->data, fill, size);
	o->ver = ver;
}

uint8_t mem_byte(struct store *st, uint64_t oid, uint64_t off)
{
	struct store_obj *o = obj_of(st->disk, oid);

	return o->exists && off < o->size ? o->data[off] : 0;
}
