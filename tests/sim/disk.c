/* disk.c - a simulated disk with one file system: what the kernel shows (live), what survives a
 * power cut (durable), and between them the unsynced writes and names, each of which a cut keeps,
 * drops or tears. */
#include "config.h"

#include "lib/base/map.h"
#include "tests/sim/world.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define PAGE   4096u
#define SECTOR 512u

struct inode;

struct entry {
	struct entry *next; /* sorted by name */
	struct inode *inode;
	char name[];
};

enum change { CH_WRITE, CH_ZERO, CH_SIZE };

struct unsynced {
	struct cds_list_head node;
	enum change kind;
	uint64_t nr, off, len; /* nr: the disk's count of changes when it was made */
	uint8_t *data;
};

struct image {
	struct map pages;
	uint64_t size;
};

struct inode {
	uint64_t id;
	unsigned refs; /* entries, handles, names not yet durable, I/Os */
	bool dir;
	struct entry *live, *durable; /* directories */
	struct image img, old;	      /* files: live and durable */
	struct cds_list_head unsynced;
	struct env_file *locker;
};

struct name_op { /* a change of names that is not durable yet */
	struct cds_list_head node;
	struct inode *dir, *dir2, *inode; /* dir2: a rename's target */
	char *name, *name2;
	bool add; /* else a removal, or a rename */
	uint64_t nr;
};

struct env_file {
	struct env *env; /* first: env.h */
	struct cds_list_head node;
	struct proc *p;
	struct sim_disk *disk;
	struct inode *inode;
};

struct pending {
	struct pevent pe;
	struct cds_list_head node;
	struct sim_disk *disk;
	struct env_io *io;
	struct inode *inode;
	uint64_t nr, off; /* nr: changes made before it was submitted */
	uint8_t *data;
	size_t len;
	bool lost;
};

struct sim_disk {
	struct world *w;
	char name[24];
	struct inode *root;
	uint64_t size, used_pages, nr_changes, next_id, stall_until;
	unsigned errors_per_million, lose_writes;
	bool full;
	struct cds_list_head name_ops, files, pending;
	/* disk_rot() */
	struct inode *rotten;
	uint64_t rotten_key;
	unsigned rotten_at;
	uint8_t rotten_bit, rotten_page[PAGE];
};

/* ---- images ---- */

static void image_done(struct image *im)
{
	size_t pos = 0;
	void *page;

	while ((page = map_next(&im->pages, &pos, NULL)))
		free(page);
	map_done(&im->pages);
	map_init(&im->pages);
}

static uint8_t *image_page(struct image *im, uint64_t nr, bool make)
{
	uint8_t *page = map_get(&im->pages, nr + 1);

	if (!page && make) {
		page = calloc(1, PAGE);
		assert(page && map_set(&im->pages, nr + 1, page) == 0);
	}
	return page;
}

/* @data NULL: zeros. */
static void image_write(struct image *im, uint64_t off, const uint8_t *data, uint64_t len)
{
	if (data && off + len > im->size)
		im->size = off + len;
	while (len) {
		uint64_t in = off % PAGE, n = PAGE - in < len ? PAGE - in : len;
		uint8_t *page = image_page(im, off / PAGE, data != NULL);
		if (page && data)
			memcpy(page + in, data, n);
		else if (page)
			memset(page + in, 0, n);
		off += n;
		len -= n;
		if (data)
			data += n;
	}
}

static void image_read(struct image *im, uint64_t off, uint8_t *buf, uint64_t len)
{
	while (len) {
		uint64_t in = off % PAGE, n = PAGE - in < len ? PAGE - in : len;
		const uint8_t *page = image_page(im, off / PAGE, false);
		if (page)
			memcpy(buf, page + in, n);
		else
			memset(buf, 0, n);
		off += n;
		len -= n;
		buf += n;
	}
}

static void image_resize(struct image *im, uint64_t size)
{
	if (size < im->size) {
		uint64_t first = (size + PAGE - 1) / PAGE, last = (im->size + PAGE - 1) / PAGE;
		image_write(im, size, NULL, first * PAGE - size);
		for (uint64_t nr = first; nr < last; nr++)
			free(map_del(&im->pages, nr + 1));
	}
	im->size = size;
}

static void image_copy(struct image *to, const struct image *from)
{
	size_t pos = 0;
	uint64_t key;
	void *page;

	image_done(to);
	while ((page = map_next(&from->pages, &pos, &key))) {
		void *copy = malloc(PAGE);
		assert(copy);
		memcpy(copy, page, PAGE);
		assert(map_set(&to->pages, key, copy) == 0);
	}
	to->size = from->size;
}

/* ---- inodes and names ---- */

static void unsynced_free(struct unsynced *u)
{
	cds_list_del(&u->node);
	free(u->data);
	free(u);
}

static struct inode *inode_new(struct sim_disk *d, bool dir)
{
	struct inode *n = calloc(1, sizeof(*n));

	assert(n);
	n->id = ++d->next_id;
	n->dir = dir;
	map_init(&n->img.pages);
	map_init(&n->old.pages);
	CDS_INIT_LIST_HEAD(&n->unsynced);
	return n;
}

static void entries_free(struct entry **list);

static void inode_put(struct inode *n)
{
	assert(n->refs);
	if (--n->refs)
		return;
	entries_free(&n->live);
	entries_free(&n->durable);
	while (!cds_list_empty(&n->unsynced))
		unsynced_free(cds_list_first_entry(&n->unsynced, struct unsynced, node));
	image_done(&n->img);
	image_done(&n->old);
	free(n);
}

static struct entry **entry_at(struct entry **list, const char *name)
{
	while (*list && strcmp((*list)->name, name) < 0)
		list = &(*list)->next;
	return list;
}

static struct inode *entry_find(struct entry **list, const char *name)
{
	struct entry **at = entry_at(list, name);

	return *at && !strcmp((*at)->name, name) ? (*at)->inode : NULL;
}

static void entry_del(struct entry **list, const char *name)
{
	struct entry **at = entry_at(list, name), *e = *at;

	if (!e || strcmp(e->name, name))
		return;
	*at = e->next;
	inode_put(e->inode);
	free(e);
}

static void entry_set(struct entry **list, const char *name, struct inode *n)
{
	struct entry *e = malloc(sizeof(*e) + strlen(name) + 1), **at;

	assert(e);
	n->refs++;
	entry_del(list, name);
	at = entry_at(list, name);
	strcpy(e->name, name);
	e->inode = n;
	e->next = *at;
	*at = e;
}

static void entries_free(struct entry **list)
{
	while (*list)
		entry_del(list, (*list)->name);
}

static void name_op_apply(struct name_op *op)
{
	if (op->add) {
		entry_set(&op->dir->durable, op->name, op->inode);
	} else if (op->dir2) {
		entry_set(&op->dir2->durable, op->name2, op->inode);
		if (op->dir != op->dir2 || strcmp(op->name, op->name2))
			entry_del(&op->dir->durable, op->name);
	} else {
		entry_del(&op->dir->durable, op->name);
	}
}

static void name_op_free(struct name_op *op)
{
	cds_list_del(&op->node);
	inode_put(op->dir);
	inode_put(op->inode);
	if (op->dir2)
		inode_put(op->dir2);
	free(op->name);
	free(op->name2);
	free(op);
}

static void name_op_new(struct sim_disk *d, struct inode *dir, const char *name, struct inode *dir2,
			const char *name2, struct inode *n, bool add)
{
	struct name_op *op = calloc(1, sizeof(*op));

	assert(op);
	*op = (struct name_op){
		.dir = dir, .dir2 = dir2, .inode = n, .add = add, .nr = ++d->nr_changes};
	op->name = strdup(name);
	op->name2 = name2 ? strdup(name2) : NULL;
	dir->refs++;
	n->refs++;
	if (dir2)
		dir2->refs++;
	cds_list_add_tail(&op->node, &d->name_ops);
}

/* Names change in one order (a file system's journal): all up to the newest one of @dir (NULL: of
 * any). */
static void names_sync(struct sim_disk *d, struct inode *dir, uint64_t upto)
{
	struct name_op *op, *next;
	uint64_t last = 0;

	cds_list_for_each_entry (op, &d->name_ops, node)
		if (op->nr <= upto && (!dir || op->dir == dir || op->dir2 == dir))
			last = op->nr;
	cds_list_for_each_entry_safe (op, next, &d->name_ops, node)
		if (op->nr <= last) {
			name_op_apply(op);
			name_op_free(op);
		}
}

/* ---- file contents ---- */

static void change_apply(struct image *im, const struct unsynced *u)
{
	switch (u->kind) {
	case CH_WRITE: image_write(im, u->off, u->data, u->len); break;
	case CH_ZERO: image_write(im, u->off, NULL, u->len); break;
	case CH_SIZE: image_resize(im, u->off); break;
	}
}

static void change(struct sim_disk *d, struct inode *n, enum change kind, uint64_t off,
		   const uint8_t *data, uint64_t len)
{
	struct unsynced *u = calloc(1, sizeof(*u));

	assert(u);
	*u = (struct unsynced){.kind = kind, .off = off, .len = len, .nr = ++d->nr_changes};
	if (data) {
		u->data = malloc(len ? len : 1);
		assert(u->data);
		memcpy(u->data, data, len);
	}
	cds_list_add_tail(&u->node, &n->unsynced);
	d->used_pages -= n->img.pages.nr;
	change_apply(&n->img, u);
	d->used_pages += n->img.pages.nr;
}

static void file_sync(struct inode *n, uint64_t upto)
{
	struct unsynced *u, *next;

	cds_list_for_each_entry_safe (u, next, &n->unsynced, node)
		if (u->nr <= upto) {
			change_apply(&n->old, u);
			unsynced_free(u);
		}
}

static void tree_sync(struct inode *n, uint64_t upto)
{
	if (!n->dir)
		file_sync(n, upto);
	for (struct entry *e = n->live; e; e = e->next)
		tree_sync(e->inode, upto);
}

/* ---- carrying out one I/O, at its completion ---- */

/* The directory that @name's last part is in, and that part. */
static struct inode *walk(struct sim_disk *d, struct env_file *dir, const char *name,
			  const char **last)
{
	struct inode *n = dir ? dir->inode : d->root;
	char part[256];

	for (;;) {
		while (*name == '/')
			name++;
		size_t len = strcspn(name, "/");
		if (!n->dir || len >= sizeof(part))
			return NULL;
		if (!name[len]) {
			*last = name;
			return n;
		}
		memcpy(part, name, len);
		part[len] = '\0';
		n = entry_find(&n->live, part);
		if (!n)
			return NULL;
		name += len;
	}
}

static struct env_file *handle_new(struct proc *p, struct sim_disk *d, struct inode *n)
{
	struct env_file *f = calloc(1, sizeof(*f));

	assert(f);
	*f = (struct env_file){.env = &p->env, .p = p, .disk = d, .inode = n};
	n->refs++;
	p->nr_files++;
	cds_list_add_tail(&f->node, &d->files);
	return f;
}

static void handle_close(struct env_file *f)
{
	if (f->inode->locker == f)
		f->inode->locker = NULL;
	f->p->nr_files--;
	cds_list_del(&f->node);
	inode_put(f->inode);
	free(f);
}

static int64_t do_open(struct pending *q, struct sim_disk *d)
{
	struct env_io *io = q->io;
	const char *last;
	struct inode *dir = walk(d, io->file, io->name, &last), *n;

	if (!dir)
		return -ENOENT;
	n = *last && strcmp(last, ".") ? entry_find(&dir->live, last) : dir;
	if (!n) {
		if (!(io->flags & O_CREAT))
			return -ENOENT;
		n = inode_new(d, false);
		entry_set(&dir->live, last, n);
		name_op_new(d, dir, last, NULL, NULL, n, true);
	} else if ((io->flags & O_CREAT) && (io->flags & O_EXCL)) {
		return -EEXIST;
	} else if ((io->flags & O_DIRECTORY) && !n->dir) {
		return -ENOTDIR;
	} else if (n->dir && (io->flags & O_ACCMODE) != O_RDONLY) {
		return -EISDIR;
	} else if ((io->flags & O_TRUNC) && n->img.size) {
		change(d, n, CH_SIZE, 0, NULL, 0);
	}
	io->result_file = handle_new(q->pe.p, d, n);
	return 0;
}

static int64_t do_mkdir(struct env_io *io, struct sim_disk *d)
{
	const char *last;
	struct inode *dir = walk(d, io->file, io->name, &last);

	if (!dir)
		return -ENOENT;
	if (entry_find(&dir->live, last))
		return -EEXIST;
	struct inode *n = inode_new(d, true);
	entry_set(&dir->live, last, n);
	name_op_new(d, dir, last, NULL, NULL, n, true);
	return 0;
}

static int64_t do_unlink(struct env_io *io, struct sim_disk *d)
{
	const char *last;
	struct inode *dir = walk(d, io->file, io->name, &last), *n;

	n = dir ? entry_find(&dir->live, last) : NULL;
	if (!n)
		return -ENOENT;
	name_op_new(d, dir, last, NULL, NULL, n, false);
	entry_del(&dir->live, last);
	return 0;
}

static int64_t do_rename(struct env_io *io, struct sim_disk *d)
{
	const char *last, *last2;
	struct inode *dir = walk(d, io->file, io->name, &last), *n;
	struct inode *dir2 = walk(d, io->file2 ? io->file2 : io->file, io->name2, &last2);

	n = dir ? entry_find(&dir->live, last) : NULL;
	if (!n || !dir2)
		return -ENOENT;
	name_op_new(d, dir, last, dir2, last2, n, false);
	n->refs++;
	entry_set(&dir2->live, last2, n);
	if (dir != dir2 || strcmp(last, last2))
		entry_del(&dir->live, last);
	inode_put(n);
	return 0;
}

/* For the process: its memory. */
static int64_t do_list(struct pending *q)
{
	struct env_io *io = q->io;
	struct world *w = q->disk->w;
	size_t n = 0;

	if (!q->inode->dir)
		return -ENOTDIR;
	for (struct entry *e = q->inode->live; e; e = e->next)
		n++;
	w->running = q->pe.p;
	io->names = calloc(n + 1, sizeof(*io->names));
	n = 0;
	for (struct entry *e = q->inode->live; e; e = e->next)
		io->names[n++] = strdup(e->name);
	w->running = NULL;
	return (int64_t)n;
}

static int64_t do_stat(struct env_io *io, struct sim_disk *d, struct inode *n)
{
	const char *last;

	if (io->name) {
		struct inode *dir = walk(d, io->file, io->name, &last);
		n = dir ? (*last ? entry_find(&dir->live, last) : dir) : NULL;
		if (!n)
			return -ENOENT;
	}
	io->stat_size = n->img.size;
	io->stat_blocks = n->img.pages.nr * (PAGE / SECTOR);
	io->stat_mtime_ns = 0;
	io->stat_isdir = n->dir;
	return 0;
}

static bool no_room(struct sim_disk *d, uint64_t len)
{
	return d->full || d->used_pages * PAGE + len > d->size;
}

static int64_t do_write(struct pending *q)
{
	struct sim_disk *d = q->disk;
	struct env_io *io = q->io;

	if (no_room(d, q->len))
		return -ENOSPC;
	if (!q->lost)
		change(d, q->inode, CH_WRITE, io->off, q->data, q->len);
	if (io->flags & ENV_IO_DSYNC)
		file_sync(q->inode, d->nr_changes);
	return (int64_t)q->len;
}

static int64_t do_read(struct env_io *io, struct inode *n)
{
	uint64_t off = io->off, left = n->img.size > off ? n->img.size - off : 0, got = 0;

	for (int i = 0; i < io->iovcnt && left; i++) {
		uint64_t k = io->iov[i].iov_len < left ? io->iov[i].iov_len : left;
		image_read(&n->img, off, io->iov[i].iov_base, k);
		off += k;
		left -= k;
		got += k;
	}
	return (int64_t)got;
}

static int64_t do_lock(struct env_io *io)
{
	if (io->file->inode->locker && io->file->inode->locker != io->file)
		return -EBUSY;
	io->file->inode->locker = io->file;
	return 0;
}

static int64_t carry_out(struct pending *q)
{
	struct sim_disk *d = q->disk;
	struct env_io *io = q->io;
	struct inode *n = q->inode;

	switch (io->op) {
	case ENV_IO_READ: return do_read(io, n);
	case ENV_IO_WRITE: return do_write(q);
	case ENV_IO_SYNC:
	case ENV_IO_FSYNC:
		if (n->dir)
			names_sync(d, n, q->nr);
		else
			file_sync(n, q->nr);
		return 0;
	case ENV_IO_SYNCFS:
		tree_sync(d->root, q->nr);
		names_sync(d, NULL, q->nr);
		return 0;
	case ENV_IO_OPEN: return do_open(q, d);
	case ENV_IO_CLOSE: handle_close(io->file); return 0;
	case ENV_IO_UNLINK: return do_unlink(io, d);
	case ENV_IO_RENAME: return do_rename(io, d);
	case ENV_IO_MKDIR: return do_mkdir(io, d);
	case ENV_IO_LIST: return do_list(q);
	case ENV_IO_TRUNCATE: change(d, n, CH_SIZE, io->off, NULL, 0); return 0;
	case ENV_IO_PUNCH: change(d, n, CH_ZERO, io->off, NULL, io->len); return 0;
	case ENV_IO_ALLOC:
		if (no_room(d, 0))
			return -ENOSPC;
		if (io->off + io->len > n->img.size)
			change(d, n, CH_SIZE, io->off + io->len, NULL, 0);
		return 0;
	case ENV_IO_STAT: return do_stat(io, d, n);
	case ENV_IO_STATFS:
		io->fs_total = d->size;
		io->fs_free = no_room(d, 0) ? 0 : d->size - d->used_pages * PAGE;
		return 0;
	case ENV_IO_LOCK: return do_lock(io);
	case ENV_IO_JOB: break; /* runs as code of the process: completed() */
	}
	return -ENOSYS;
}

static void pending_free(struct pending *q)
{
	cds_list_del(&q->node);
	if (q->inode)
		inode_put(q->inode);
	free(q->data);
	free(q);
}

static void completed(struct pevent *pe)
{
	struct pending *q = caa_container_of(pe, struct pending, pe);
	struct sim_disk *d = q->disk;
	struct world *w = d->w;
	struct proc *p = pe->p;
	struct env_io *io = q->io;

	w->running = NULL; /* the disk's own memory */
	if (d->errors_per_million && (io->op == ENV_IO_READ || io->op == ENV_IO_WRITE) &&
	    prng_chance(&w->rnd_disk, d->errors_per_million, 1000000)) {
		world_fault(w, FAULT_IO_ERROR);
		io->result = -EIO;
	} else if (io->op != ENV_IO_JOB) {
		io->result = carry_out(q);
	}
	fold(w, &io->result, sizeof(io->result));
	if (io->op == ENV_IO_WRITE)
		fold(w, q->data, q->len < 64 ? q->len : 64);
	pending_free(q);
	p->nr_ios--;
	w->running = p;
	if (io->op == ENV_IO_JOB)
		io->result = io->job(io);
	io->done(io);
}

static uint64_t duration(struct sim_disk *d, const struct env_io *io)
{
	struct prng *r = &d->w->rnd_disk;

	switch (io->op) {
	case ENV_IO_SYNC:
	case ENV_IO_FSYNC:
	case ENV_IO_SYNCFS: return prng_in(r, 50 * US, prng_chance(r, 1, 20) ? 20 * MS : MS);
	case ENV_IO_READ:
	case ENV_IO_WRITE: return prng_in(r, 10 * US, prng_chance(r, 1, 50) ? 10 * MS : 200 * US);
	default: return prng_in(r, 5 * US, 100 * US);
	}
}

void disk_submit(struct proc *p, struct env_io *io)
{
	struct sim_disk *d = p->disk;
	struct world *w = d->w;
	struct pending *q;

	w->running = NULL;
	q = calloc(1, sizeof(*q));
	assert(q);
	q->disk = d;
	q->io = io;
	q->nr = d->nr_changes;
	q->off = io->off;
	q->inode = io->file ? io->file->inode : NULL;
	if (q->inode)
		q->inode->refs++;
	if (io->op == ENV_IO_WRITE) {
		for (int i = 0; i < io->iovcnt; i++)
			q->len += io->iov[i].iov_len;
		q->data = malloc(q->len ? q->len : 1);
		assert(q->data);
		for (size_t i = 0, at = 0; i < (size_t)io->iovcnt; at += io->iov[i++].iov_len)
			memcpy(q->data + at, io->iov[i].iov_base, io->iov[i].iov_len);
		q->lost = d->lose_writes && prng_chance(&w->rnd_disk, d->lose_writes, 1000000);
	}
	cds_list_add_tail(&q->node, &d->pending);
	p->nr_ios++;
	q->pe.fn = completed;
	uint64_t at = w->now + duration(d, io);
	if (at < d->stall_until)
		at = d->stall_until + prng_in(&w->rnd_disk, 0, MS);
	pevent_set(p, &q->pe, at, "disk");
	w->running = p;
}

/* ---- deaths and faults ---- */

/* What a dead process had submitted is still done, or not. */
void disk_proc_died(struct sim_disk *d, struct proc *p)
{
	struct pending *q, *nq;
	struct env_file *f, *nf;

	cds_list_for_each_entry_safe (q, nq, &d->pending, node) {
		if (q->pe.p != p)
			continue;
		pevent_del(&q->pe);
		if (q->data && !q->lost && q->inode && !no_room(d, q->len) &&
		    prng_chance(&d->w->rnd_disk, 1, 2))
			change(d, q->inode, CH_WRITE, q->off, q->data, q->len);
		p->nr_ios--;
		pending_free(q);
	}
	cds_list_for_each_entry_safe (f, nf, &d->files, node)
		if (f->p == p)
			handle_close(f);
}

/* Some sectors of the write are on the disk, some are not. */
static void tear(struct sim_disk *d, struct inode *n, const struct unsynced *u)
{
	for (uint64_t at = 0; at < u->len; at += SECTOR) {
		uint64_t k = u->len - at < SECTOR ? u->len - at : SECTOR;
		if (prng_chance(&d->w->rnd_disk, 1, 2))
			image_write(&n->old, u->off + at, u->data + at, k);
	}
}

static void file_cut(struct sim_disk *d, struct inode *n)
{
	struct prng *r = &d->w->rnd_disk;
	struct unsynced *u, *next;

	cds_list_for_each_entry_safe (u, next, &n->unsynced, node) {
		unsigned fate = (unsigned)prng_in(r, 0, 9);
		if (fate < 4) {
			change_apply(&n->old, u);
		} else if (fate < 6 && u->kind == CH_WRITE) {
			world_fault(d->w, FAULT_TORN);
			tear(d, n, u);
		}
		unsynced_free(u);
	}
	image_copy(&n->img, &n->old);
}

static void tree_cut(struct sim_disk *d, struct inode *n)
{
	if (!n->dir) {
		file_cut(d, n);
		d->used_pages += n->img.pages.nr;
		return;
	}
	entries_free(&n->live);
	for (struct entry *e = n->durable; e; e = e->next)
		entry_set(&n->live, e->name, e->inode);
	for (struct entry *e = n->durable; e; e = e->next)
		tree_cut(d, e->inode);
}

void disk_power_cut(struct sim_disk *d)
{
	struct name_op *op, *next;
	bool keep = true;

	assert(cds_list_empty(&d->files) && cds_list_empty(&d->pending));
	cds_list_for_each_entry_safe (op, next, &d->name_ops, node) {
		keep = keep && prng_chance(&d->w->rnd_disk, 2, 3);
		if (keep)
			name_op_apply(op);
		name_op_free(op);
	}
	d->used_pages = 0;
	tree_cut(d, d->root);
}

void disk_set_stall(struct sim_disk *d, uint64_t until)
{
	d->stall_until = until;
}

void disk_set_errors(struct sim_disk *d, unsigned per_million)
{
	d->errors_per_million = per_million;
}

void disk_set_full(struct sim_disk *d, bool full)
{
	d->full = full;
}

/* Files named like objects (16 hex digits) rot; the journal and the rest have checksums of their
 * own kind. */
static void rot_candidates(struct inode *n, struct inode **list, unsigned *nr, unsigned max)
{
	for (struct entry *e = n->live; e; e = e->next) {
		if (e->inode->dir)
			rot_candidates(e->inode, list, nr, max);
		else if (strlen(e->name) == 16 && strspn(e->name, "0123456789abcdef") == 16 &&
			 cds_list_empty(&e->inode->unsynced) && e->inode->img.pages.nr && *nr < max)
			list[(*nr)++] = e->inode;
	}
}

bool disk_rot(struct sim_disk *d, struct prng *r)
{
	struct inode *list[256];
	unsigned nr = 0;
	uint64_t key;
	size_t pos = 0;
	uint8_t *page, *old;

	if (d->rotten)
		return false;
	rot_candidates(d->root, list, &nr, 256);
	if (!nr)
		return false;
	struct inode *n = list[prng_in(r, 0, nr - 1)];
	for (uint64_t skip = prng_in(r, 0, n->img.pages.nr - 1); skip; skip--)
		map_next(&n->img.pages, &pos, &key);
	page = map_next(&n->img.pages, &pos, &key);
	old = page ? map_get(&n->old.pages, key) : NULL;
	if (!old)
		return false;
	unsigned at = (unsigned)prng_in(r, 0, PAGE - 1), bit = 1u << prng_in(r, 0, 7);
	page[at] ^= (uint8_t)bit;
	old[at] ^= (uint8_t)bit;
	n->refs++;
	d->rotten = n;
	d->rotten_key = key;
	d->rotten_at = at;
	d->rotten_bit = (uint8_t)bit;
	memcpy(d->rotten_page, page, PAGE);
	return true;
}

static void unrot(struct image *im, const struct sim_disk *d)
{
	uint8_t *page = map_get(&im->pages, d->rotten_key);

	if (page && !memcmp(page, d->rotten_page, PAGE))
		page[d->rotten_at] ^= d->rotten_bit;
}

/* Nobody may have noticed: what is rotten still is good again, so that it is never the only copy.
 */
void disk_unrot(struct sim_disk *d)
{
	if (!d->rotten)
		return;
	unrot(&d->rotten->img, d);
	unrot(&d->rotten->old, d);
	inode_put(d->rotten);
	d->rotten = NULL;
}

struct sim_disk *disk_new(struct world *w, const char *name, uint64_t size)
{
	struct proc *before = w->running;
	struct sim_disk *d;

	w->running = NULL;
	d = calloc(1, sizeof(*d));
	assert(d);
	d->w = w;
	d->size = size;
	snprintf(d->name, sizeof(d->name), "%s", name);
	CDS_INIT_LIST_HEAD(&d->name_ops);
	CDS_INIT_LIST_HEAD(&d->files);
	CDS_INIT_LIST_HEAD(&d->pending);
	d->root = inode_new(d, true);
	d->root->refs = 1;
	w->running = before;
	return d;
}

void disk_free(struct sim_disk *d)
{
	struct name_op *op, *next;

	assert(cds_list_empty(&d->files) && cds_list_empty(&d->pending));
	cds_list_for_each_entry_safe (op, next, &d->name_ops, node)
		name_op_free(op);
	disk_unrot(d);
	inode_put(d->root);
	free(d);
}
