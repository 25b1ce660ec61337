/* fake_disk.c - see fake_disk.h. */
#include "config.h"

#include "tests/unit/fake_disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc.h"

#define SECT	   512u
#define ROOT	   1u
#define FILES_MAX  64
#define NAMES_MAX  64
#define TIMERS_MAX 64
#define IOS_MAX	   256

enum op_kind { OP_WRITE, OP_TRUNC, OP_PUNCH, OP_NAME, OP_DONE, OP_SYNC, OP_SYNCALL, OP_NOTE };

struct op {
	enum op_kind kind;
	unsigned ino;  /* file, or directory of OP_NAME and OP_SYNC */
	unsigned ref;  /* OP_DONE: which; OP_SYNC: submitted at; OP_NOTE: what */
	unsigned done; /* place where it was done; 0: not */
	uint64_t off, len;
	uint8_t *data;
	char name[40]; /* OP_NAME: gets inode @to (0: goes away) */
	unsigned to;
	char name2[40]; /* OP_NAME, a rename: goes away from directory @from */
	unsigned from;
};

struct inode {
	uint8_t *data; /* NULL: free slot */
	uint64_t size, cap;
	bool dir;
};

struct name {
	unsigned dir, ino; /* dir 0: free */
	char name[40];
};

struct image {
	struct inode f[FILES_MAX]; /* by inode number */
	struct name n[NAMES_MAX];
};

struct env_file {
	struct env *env;
	unsigned ino;
};

struct disk {
	struct env env;
	struct image base, now; /* where the log begins; as the daemon sees it */
	struct op *log;
	unsigned nr_log, cap_log;
	uint64_t rnd, clock;
	struct cds_list_head defers;
	struct env_timer *timers[TIMERS_MAX];
	unsigned nr_timers;
	struct env_io *ios[IOS_MAX];
	unsigned io_at[IOS_MAX]; /* log entry, or place of submission */
	unsigned nr_ios, nr_io_total, fail_at;
	unsigned nr_open;
};

static uint64_t draw(uint64_t *s)
{
	uint64_t x = (*s += 0x9e3779b97f4a7c15ull);
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* ---- images ---- */

static void image_free(struct image *m)
{
	for (unsigned i = 0; i < FILES_MAX; i++)
		free(m->f[i].data);
	memset(m, 0, sizeof(*m));
}

static void image_copy(struct image *to, const struct image *from)
{
	*to = *from;
	for (unsigned i = 0; i < FILES_MAX; i++)
		if (from->f[i].data) {
			to->f[i].data = malloc(from->f[i].cap);
			memcpy(to->f[i].data, from->f[i].data, from->f[i].cap);
		}
}

static void file_size(struct inode *f, uint64_t size)
{
	if (size > f->cap) {
		uint64_t cap = (size + 65535) / 65536 * 65536;
		f->data = realloc(f->data, cap);
		memset(f->data + f->cap, 0, cap - f->cap);
		f->cap = cap;
	}
	if (size < f->size)
		memset(f->data + size, 0, f->size - size);
	f->size = size;
}

static void file_put(struct inode *f, uint64_t off, const uint8_t *p, uint64_t len)
{
	if (off + len > f->size)
		file_size(f, off + len);
	memcpy(f->data + off, p, len);
}

static void inode_make(struct image *m, unsigned ino, bool dir)
{
	assert(ino < FILES_MAX);
	if (m->f[ino].data)
		return;
	m->f[ino] = (struct inode){.data = calloc(1, 65536), .cap = 65536, .dir = dir};
}

static struct name *name_find(struct image *m, unsigned dir, const char *name)
{
	for (unsigned i = 0; i < NAMES_MAX; i++)
		if (m->n[i].dir == dir && !strcmp(m->n[i].name, name))
			return &m->n[i];
	return NULL;
}

static void name_set(struct image *m, unsigned dir, const char *name, unsigned ino)
{
	struct name *n = name_find(m, dir, name);
	for (unsigned i = 0; !n && ino && i < NAMES_MAX; i++)
		if (!m->n[i].dir)
			n = &m->n[i];
	assert(n || !ino);
	if (!n)
		return;
	*n = (struct name){.dir = ino ? dir : 0, .ino = ino};
	if (ino)
		strncpy(n->name, name, sizeof(n->name) - 1);
}

/* ---- the log ---- */

static unsigned log_add(struct disk *d, struct op op)
{
	if (d->nr_log == d->cap_log) {
		d->cap_log = d->cap_log ? d->cap_log * 2 : 64;
		d->log = realloc(d->log, d->cap_log * sizeof(*d->log));
	}
	d->log[d->nr_log] = op;
	return d->nr_log++;
}

static void log_clear(struct disk *d)
{
	for (unsigned i = 0; i < d->nr_log; i++)
		free(d->log[i].data);
	free(d->log);
	d->log = NULL;
	d->nr_log = d->cap_log = 0;
}

/* Carry @op out on @m; @tear: only the sectors that the seed keeps. */
static void op_apply(struct image *m, const struct op *op, bool tear, uint64_t *seed)
{
	if (op->kind == OP_NAME) {
		name_set(m, op->ino, op->name, op->to);
		if (op->from)
			name_set(m, op->from, op->name2, 0);
		return;
	}
	inode_make(m, op->ino, false);
	struct inode *f = &m->f[op->ino];
	if (op->kind == OP_TRUNC) {
		file_size(f, op->len);
	} else if (op->kind == OP_PUNCH) {
		uint64_t end = op->off + op->len < f->size ? op->off + op->len : f->size;
		if (op->off < end)
			memset(f->data + op->off, 0, end - op->off);
	} else if (!tear) {
		file_put(f, op->off, op->data, op->len);
	} else {
		for (uint64_t at = 0; at < op->len;) {
			uint64_t n = SECT - (op->off + at) % SECT;
			if (n > op->len - at)
				n = op->len - at;
			if (draw(seed) & 1)
				file_put(f, op->off + at, op->data + at, n);
			at += n;
		}
	}
}

/* Is log entry @i durable at a cut before @at? */
static bool op_durable(const struct disk *d, unsigned i, unsigned at)
{
	const struct op *op = &d->log[i];
	if (!op->done || op->done >= at)
		return false;
	if (op->ref) /* DSYNC */
		return true;
	for (unsigned k = op->done; k < at; k++) {
		const struct op *s = &d->log[k];
		bool mine = s->kind == OP_SYNC &&
			    (s->ino == op->ino || (op->from && s->ino == op->from));
		if ((s->kind == OP_SYNCALL || mine) && s->ref > op->done)
			return true;
	}
	return false;
}

/* Unsynced names of a directory are kept up to one point. */
static bool name_kept(const struct disk *d, unsigned dir, unsigned at, enum cut_mode mode,
		      uint64_t seed, unsigned i)
{
	unsigned first = 0, nr = 0, me = 0;
	for (unsigned k = 0; k < at; k++)
		if (d->log[k].kind == OP_NAME && d->log[k].ino == dir && !op_durable(d, k, at)) {
			if (!nr++)
				first = k;
			if (k < i)
				me++;
		}
	uint64_t s = seed ^ (first * 31 + dir);
	return mode == CUT_KEEP || (mode == CUT_TEAR && me < draw(&s) % (nr + 1));
}

struct disk *disk_cut(const struct disk *d, unsigned at, enum cut_mode mode, uint64_t seed)
{
	struct disk *r = disk_new(seed);
	uint64_t s = seed;
	image_free(&r->base);
	image_free(&r->now);
	image_copy(&r->now, &d->base);
	for (unsigned i = 0; i < at; i++) {
		const struct op *op = &d->log[i];
		if (op->kind > OP_NAME)
			continue;
		bool durable = op_durable(d, i, at), tear = false;
		if (op->kind == OP_NAME) {
			durable = durable || name_kept(d, op->ino, at, mode, seed, i);
		} else if (!durable && mode == CUT_TEAR) {
			unsigned how = draw(&s) % 4;
			durable = how != 0;
			tear = how >= 2;
		} else if (mode == CUT_KEEP) {
			durable = true;
		}
		if (durable)
			op_apply(&r->now, op, tear && op->kind == OP_WRITE, &s);
	}
	return r;
}

uint64_t disk_hash(const struct disk *d)
{
	uint32_t a = 0, b = 0;
	for (unsigned i = 0; i < FILES_MAX; i++)
		if (d->now.f[i].data) {
			a = crc32c_more(a, d->now.f[i].data, d->now.f[i].size);
			b = crc32c_more(b, &d->now.f[i].size, sizeof(uint64_t)) + i;
		}
	for (unsigned i = 0; i < NAMES_MAX; i++)
		if (d->now.n[i].dir)
			b ^= crc32c(&d->now.n[i], sizeof(struct name));
	return (uint64_t)a << 32 | b;
}

unsigned disk_log(const struct disk *d)
{
	return d->nr_log;
}

void disk_note(struct disk *d, unsigned what)
{
	log_add(d, (struct op){.kind = OP_NOTE, .ref = what});
}

unsigned disk_noted(const struct disk *d, unsigned at, unsigned mask)
{
	unsigned best = 0;
	for (unsigned i = 0; i < at; i++)
		if (d->log[i].kind == OP_NOTE && (d->log[i].ref & mask) == mask &&
		    d->log[i].ref > best)
			best = d->log[i].ref;
	return best;
}

void disk_begin(struct disk *d)
{
	log_clear(d);
	image_free(&d->base);
	image_copy(&d->base, &d->now);
}

void disk_fail_at(struct disk *d, unsigned n)
{
	d->fail_at = n ? d->nr_io_total + n : 0;
}

void disk_flip(struct disk *d, const char *dir, const char *name, uint64_t off)
{
	struct name *n = name_find(&d->now, ROOT, dir);
	n = n ? name_find(&d->now, n->ino, name) : NULL;
	assert(n && off < d->now.f[n->ino].size);
	d->now.f[n->ino].data[off] ^= 0x10;
}

unsigned disk_ios(const struct disk *d)
{
	return d->nr_io_total;
}

/* ---- the disk door ---- */

static unsigned ino_of(const struct env_file *f)
{
	return f ? f->ino : ROOT;
}

static unsigned ino_new(struct disk *d)
{
	bool used[FILES_MAX] = {true, true};
	for (unsigned i = 0; i < NAMES_MAX; i++) {
		used[d->now.n[i].ino] = true;
		used[d->base.n[i].ino] = true;
	}
	for (unsigned i = 0; i < d->nr_log; i++)
		if (d->log[i].kind <= OP_NAME)
			used[d->log[i].ino] = used[d->log[i].to] = true;
	for (unsigned i = 0; i < FILES_MAX; i++)
		if (!used[i]) {
			free(d->now.f[i].data);
			d->now.f[i] = (struct inode){0};
			free(d->base.f[i].data);
			d->base.f[i] = (struct inode){0};
			return i;
		}
	abort();
}

static unsigned change(struct disk *d, struct op op)
{
	uint64_t none = 0;
	op_apply(&d->now, &op, false, &none);
	return log_add(d, op);
}

static void log_done(struct disk *d, unsigned at)
{
	unsigned done = log_add(d, (struct op){.kind = OP_DONE, .ref = at}); /* moves the log */

	d->log[at].done = done;
}

static unsigned change_name(struct disk *d, unsigned dir, const char *name, unsigned to,
			    unsigned from, const char *name2)
{
	struct op op = {.kind = OP_NAME, .ino = dir, .to = to, .from = from};
	strncpy(op.name, name, sizeof(op.name) - 1);
	if (from)
		strncpy(op.name2, name2, sizeof(op.name2) - 1);
	unsigned at = change(d, op);
	log_done(d, at);
	return at;
}

static int64_t do_open(struct disk *d, struct env_io *io)
{
	unsigned dir = ino_of(io->file);
	struct name *n = name_find(&d->now, dir, io->name);
	if (!n && !(io->flags & O_CREAT))
		return -ENOENT;
	if (!n) {
		unsigned ino = ino_new(d);
		inode_make(&d->now, ino, false);
		change_name(d, dir, io->name, ino, 0, NULL);
		n = name_find(&d->now, dir, io->name);
	}
	if ((io->flags & O_TRUNC) && d->now.f[n->ino].size) {
		unsigned at = change(d, (struct op){.kind = OP_TRUNC, .ino = n->ino});
		log_done(d, at);
	}
	io->result_file = malloc(sizeof(struct env_file));
	*io->result_file = (struct env_file){&d->env, n->ino};
	d->nr_open++;
	return 0;
}

static int cmp_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int64_t do_list(struct disk *d, struct env_io *io)
{
	unsigned n = 0;
	io->names = calloc(NAMES_MAX + 1, sizeof(char *));
	for (unsigned i = 0; i < NAMES_MAX; i++)
		if (d->now.n[i].dir == io->file->ino)
			io->names[n++] = strdup(d->now.n[i].name);
	qsort(io->names, n, sizeof(char *), cmp_names);
	return 0;
}

static int64_t do_read(struct disk *d, struct env_io *io)
{
	const struct inode *f = &d->now.f[io->file->ino];
	uint64_t at = io->off, sum = 0;
	for (int i = 0; i < io->iovcnt; i++) {
		uint64_t n = at < f->size ? f->size - at : 0;
		if (n > io->iov[i].iov_len)
			n = io->iov[i].iov_len;
		memcpy(io->iov[i].iov_base, f->data + at, n);
		at += n;
		sum += n;
	}
	return (int64_t)sum;
}

static int64_t do_rename(struct disk *d, struct env_io *io)
{
	unsigned from = io->file->ino, to = io->file2 ? io->file2->ino : from;
	struct name *n = name_find(&d->now, from, io->name);
	if (!n)
		return -ENOENT;
	change_name(d, to, io->name2, n->ino, from, io->name);
	return 0;
}

static int64_t do_names(struct disk *d, struct env_io *io)
{
	unsigned dir = ino_of(io->file);
	struct name *n = name_find(&d->now, dir, io->name);
	if (io->op == ENV_IO_MKDIR) {
		if (n)
			return -EEXIST;
		unsigned ino = ino_new(d);
		inode_make(&d->now, ino, true);
		change_name(d, dir, io->name, ino, 0, NULL);
		return 0;
	}
	if (!n)
		return -ENOENT;
	change_name(d, dir, io->name, 0, 0, NULL);
	return 0;
}

static int64_t do_stat(struct disk *d, struct env_io *io)
{
	unsigned ino = io->file->ino;
	if (io->name) {
		struct name *n = name_find(&d->now, ino, io->name);
		if (!n)
			return -ENOENT;
		ino = n->ino;
	}
	io->stat_size = d->now.f[ino].size;
	io->stat_isdir = d->now.f[ino].dir;
	return 0;
}

/* What changes bytes takes effect when it is submitted; its place in the log is remembered. */
static unsigned start(struct disk *d, struct env_io *io)
{
	struct op op = {.ino = io->file ? io->file->ino : 0, .off = io->off, .len = io->len};
	if (io->op == ENV_IO_TRUNCATE) {
		op.kind = OP_TRUNC;
		op.len = io->off;
		return change(d, op);
	}
	if (io->op == ENV_IO_PUNCH) {
		op.kind = OP_PUNCH;
		return change(d, op);
	}
	if (io->op != ENV_IO_WRITE)
		return d->nr_log;
	op.kind = OP_WRITE;
	op.len = 0;
	for (int i = 0; i < io->iovcnt; i++)
		op.len += io->iov[i].iov_len;
	op.data = malloc(op.len);
	for (int i = 0, at = 0; i < io->iovcnt; at += (int)io->iov[i++].iov_len)
		memcpy(op.data + at, io->iov[i].iov_base, io->iov[i].iov_len);
	op.ref = !!(io->flags & ENV_IO_DSYNC);
	return change(d, op);
}

static int64_t finish(struct disk *d, struct env_io *io, unsigned at)
{
	switch (io->op) {
	case ENV_IO_READ: return do_read(d, io);
	case ENV_IO_WRITE:
	case ENV_IO_TRUNCATE:
	case ENV_IO_PUNCH:
		log_done(d, at);
		return io->op == ENV_IO_WRITE ? (int64_t)d->log[at].len : 0;
	case ENV_IO_SYNC:
	case ENV_IO_FSYNC:
		log_add(d, (struct op){.kind = OP_SYNC, .ino = io->file->ino, .ref = at});
		return 0;
	case ENV_IO_SYNCFS: log_add(d, (struct op){.kind = OP_SYNCALL, .ref = at}); return 0;
	case ENV_IO_OPEN: return do_open(d, io);
	case ENV_IO_LIST: return do_list(d, io);
	case ENV_IO_RENAME: return do_rename(d, io);
	case ENV_IO_UNLINK:
	case ENV_IO_MKDIR: return do_names(d, io);
	case ENV_IO_STAT: return do_stat(d, io);
	case ENV_IO_STATFS: io->fs_total = io->fs_free = 1ull << 40; return 0;
	default: return 0;
	}
}

static void d_io_submit(struct env *e, struct env_io *io)
{
	struct disk *d = (struct disk *)e;
	assert(d->nr_ios < IOS_MAX);
	io->result_file = NULL;
	io->names = NULL;
	d->nr_io_total++;
	bool fails = d->fail_at && d->nr_io_total >= d->fail_at && io->op != ENV_IO_CLOSE;
	d->io_at[d->nr_ios] = fails ? UINT32_MAX : start(d, io);
	d->ios[d->nr_ios++] = io;
}

static void complete_one(struct disk *d)
{
	unsigned k = draw(&d->rnd) % d->nr_ios, at = d->io_at[k];
	struct env_io *io = d->ios[k];
	d->nr_ios--;
	d->ios[k] = d->ios[d->nr_ios];
	d->io_at[k] = d->io_at[d->nr_ios];
	d->clock += 1000;
	if (io->op == ENV_IO_CLOSE) {
		free(io->file);
		d->nr_open--;
		io->result = 0;
	} else {
		io->result = at == UINT32_MAX ? -EIO : finish(d, io, at);
	}
	io->done(io);
}

/* ---- the other doors ---- */

static uint64_t d_now(struct env *e)
{
	return ((struct disk *)e)->clock;
}

static void d_random(struct env *e, void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = (uint8_t)draw(&((struct disk *)e)->rnd);
}

static void d_timer_del(struct env *e, struct env_timer *t)
{
	struct disk *d = (struct disk *)e;
	for (unsigned i = 0; i < d->nr_timers; i++)
		if (d->timers[i] == t)
			d->timers[i--] = d->timers[--d->nr_timers];
}

static void d_timer_set(struct env *e, struct env_timer *t, uint64_t at)
{
	struct disk *d = (struct disk *)e;
	d_timer_del(e, t);
	assert(d->nr_timers < TIMERS_MAX);
	t->at_ns = at;
	d->timers[d->nr_timers++] = t;
}

static void d_defer(struct env *e, struct env_defer *x)
{
	if (x->queued)
		return;
	x->queued = true;
	cds_list_add_tail(&x->node, &((struct disk *)e)->defers);
}

static void d_defer_del(struct env *e, struct env_defer *x)
{
	if (x->queued)
		cds_list_del(&x->node);
	x->queued = false;
}

static void d_boot_id(struct env *e, uint8_t id[16])
{
	memset(id, 0x11, 16);
}

static const struct env_ops disk_ops = {
	.now = d_now,
	.wall = d_now,
	.random = d_random,
	.timer_set = d_timer_set,
	.timer_del = d_timer_del,
	.defer = d_defer,
	.defer_del = d_defer_del,
	.io_submit = d_io_submit,
	.boot_id = d_boot_id,
};

static void fire_timer(struct disk *d)
{
	unsigned best = 0;
	for (unsigned i = 1; i < d->nr_timers; i++)
		if (d->timers[i]->at_ns < d->timers[best]->at_ns)
			best = i;
	struct env_timer *t = d->timers[best];
	d->timers[best] = d->timers[--d->nr_timers];
	if (t->at_ns > d->clock)
		d->clock = t->at_ns;
	t->fn(t);
}

bool disk_turn(struct disk *d)
{
	if (d->nr_ios && (cds_list_empty(&d->defers) || draw(&d->rnd) % 4 == 0)) {
		complete_one(d);
	} else if (!cds_list_empty(&d->defers)) {
		struct env_defer *x = cds_list_first_entry(&d->defers, struct env_defer, node);
		cds_list_del(&x->node);
		x->queued = false;
		x->fn(x);
	} else if (d->nr_timers) {
		fire_timer(d);
	} else {
		return false;
	}
	return true;
}

struct disk *disk_new(uint64_t seed)
{
	struct disk *d = calloc(1, sizeof(*d));
	d->env.ops = &disk_ops;
	d->rnd = seed;
	CDS_INIT_LIST_HEAD(&d->defers);
	inode_make(&d->now, ROOT, true);
	inode_make(&d->base, ROOT, true);
	return d;
}

struct disk *disk_copy(const struct disk *d, uint64_t seed)
{
	struct disk *r = disk_new(seed);
	image_free(&r->now);
	image_free(&r->base);
	image_copy(&r->now, &d->now);
	image_copy(&r->base, &d->now);
	return r;
}

void disk_free(struct disk *d)
{
	assert(d->nr_open == 0 && d->nr_ios == 0 && d->nr_timers == 0);
	log_clear(d);
	image_free(&d->base);
	image_free(&d->now);
	free(d);
}

struct env *disk_env(struct disk *d)
{
	return &d->env;
}
