/* disk.c - a simulated disk with one file system: what the kernel shows (live), what survives a
 * power cut (durable), and between them the unsynced writes and names, each of which a cut keeps,
 * drops or tears. */
#include "config.h"

#include "tests/sim/disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* ---- inodes and names ---- */

void unsynced_free(struct unsynced *u)
{
	cds_list_del(&u->node);
	free(u->data);
	free(u);
}

struct inode *inode_new(struct sim_disk *d, bool dir)
{
	struct inode *n = calloc(1, sizeof(*n));

	assert(n);
	n->id = ++d->next_id;
	n->dir = dir;
	image_init(&n->img);
	image_init(&n->old);
	CDS_INIT_LIST_HEAD(&n->unsynced);
	return n;
}

void inode_put(struct inode *n)
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

void entry_set(struct entry **list, const char *name, struct inode *n)
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

void entries_free(struct entry **list)
{
	while (*list)
		entry_del(list, (*list)->name);
}

void name_op_apply(struct name_op *op)
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

void name_op_free(struct name_op *op)
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

void change_apply(struct image *im, const struct unsynced *u)
{
	switch (u->kind) {
	case CH_WRITE: image_write(im, u->off, u->data, u->len); break;
	case CH_ZERO: image_punch(im, u->off, u->len); break;
	case CH_SIZE: image_resize(im, u->off); break;
	}
}

void change(struct sim_disk *d, struct inode *n, enum change kind, uint64_t off, uint8_t *data,
	    uint64_t len)
{
	struct unsynced *u = malloc(sizeof(*u));

	assert(u);
	*u = (struct unsynced){
		.kind = kind, .off = off, .len = len, .nr = ++d->nr_changes, .data = data};
	cds_list_add_tail(&u->node, &n->unsynced);
	d->used_pages -= n->img.pages.nr;
	change_apply(&n->img, u);
	d->used_pages += n->img.pages.nr;
}

/* The pages that @u changed become durable as they are now: nothing is copied. */
static void change_share(struct inode *n, const struct unsynced *u)
{
	if (u->kind == CH_SIZE) {
		image_resize(&n->old, u->off);
		image_copy_range(&n->old, &n->img, u->off, 1);
	} else {
		image_copy_range(&n->old, &n->img, u->off, u->len);
	}
}

static void file_sync(struct inode *n, uint64_t upto)
{
	struct unsynced *u, *next;

	if (cds_list_empty(&n->unsynced))
		return;
	bool all = cds_list_entry(n->unsynced.prev, struct unsynced, node)->nr <= upto;
	cds_list_for_each_entry_safe (u, next, &n->unsynced, node)
		if (u->nr <= upto) {
			if (all)
				change_share(n, u);
			else
				change_apply(&n->old, u);
			unsynced_free(u);
		}
	if (all)
		n->old.size = n->img.size;
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

void handle_close(struct env_file *f)
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

bool no_room(const struct sim_disk *d, const struct inode *n, uint64_t off, uint64_t len)
{
	uint64_t need = 0;

	for (uint64_t key = off / PAGE + 1; len && key <= (off + len - 1) / PAGE + 1; key++)
		need += !image_page(&n->img, key);
	return need && (d->full || (d->used_pages + need) * PAGE > d->size);
}

static int64_t do_write(struct pending *q)
{
	struct sim_disk *d = q->disk;
	struct env_io *io = q->io;

	if (no_room(d, q->inode, io->off, q->len))
		return -ENOSPC;
	if (!q->lost) {
		change(d, q->inode, CH_WRITE, io->off, q->data, q->len);
		q->data = NULL;
	}
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
		if (d->full)
			return -ENOSPC;
		if (io->off + io->len > n->img.size)
			change(d, n, CH_SIZE, io->off + io->len, NULL, 0);
		return 0;
	case ENV_IO_STAT: return do_stat(io, d, n);
	case ENV_IO_STATFS:
		io->fs_total = d->size;
		io->fs_free = d->full ? 0 : d->size - d->used_pages * PAGE;
		return 0;
	case ENV_IO_LOCK: return do_lock(io);
	case ENV_IO_JOB: break; /* runs as code of the process: completed() */
	}
	return -ENOSYS;
}

void pending_free(struct pending *q)
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
	uint8_t head[64] = {0}; /* of what is written, for the trace */

	w->running = NULL; /* the disk's own memory */
	if (q->data)
		memcpy(head, q->data, q->len < sizeof(head) ? q->len : sizeof(head));
	unsigned bad = io->op == ENV_IO_READ	? d->read_errors
		       : io->op == ENV_IO_WRITE ? d->write_errors
						: 0;
	if (bad && prng_chance(&w->rnd_disk, bad, 1000000)) {
		w->faults[FAULT_IO_ERROR]++;
		io->result = -EIO;
	} else if (io->op != ENV_IO_JOB) {
		io->result = carry_out(q);
	}
	fold(w, &io->result, sizeof(io->result));
	if (io->op == ENV_IO_WRITE)
		fold(w, head, q->len < sizeof(head) ? q->len : sizeof(head));
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

static size_t iov_len(const struct env_io *io)
{
	size_t len = 0;

	for (int i = 0; i < io->iovcnt; i++)
		len += io->iov[i].iov_len;
	return len;
}

/* A copy of what is written, NULL when it is zeros (a new journal is megabytes of them). */
static uint8_t *iov_data(const struct env_io *io, size_t len)
{
	bool zeros = true;

	for (int i = 0; zeros && i < io->iovcnt; i++) {
		const uint8_t *p = io->iov[i].iov_base;
		size_t n = io->iov[i].iov_len;
		zeros = !n || (!*p && !memcmp(p, p + 1, n - 1));
	}
	if (zeros)
		return NULL;
	uint8_t *data = malloc(len);
	assert(data);
	for (size_t i = 0, at = 0; i < (size_t)io->iovcnt; at += io->iov[i++].iov_len)
		memcpy(data + at, io->iov[i].iov_base, io->iov[i].iov_len);
	return data;
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
		q->len = iov_len(io);
		q->data = iov_data(io, q->len);
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

/* ---- birth and end ---- */

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
