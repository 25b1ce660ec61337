/* disk_fault.c - what happens to a simulated disk: its process dies, the power goes, faults. */
#include "config.h"

#include "sheep/store/disk.h"
#include "tests/sim/disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

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
		if (q->len && !q->lost && !no_room(d, q->inode, q->off, q->len) &&
		    prng_chance(&d->w->rnd_disk, 1, 2)) {
			change(d, q->inode, CH_WRITE, q->off, q->data, q->len);
			q->data = NULL;
		}
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
			image_write(&n->old, u->off + at, u->data ? u->data + at : NULL, k);
	}
}

static void file_cut(struct sim_disk *d, struct inode *n)
{
	struct prng *r = &d->w->rnd_disk;
	struct unsynced *u, *next;

	cds_list_for_each_entry (u, &n->unsynced, node) {
		unsigned fate = (unsigned)prng_in(r, 0, 9);
		if (fate < 4) {
			change_apply(&n->old, u);
		} else if (fate < 6 && u->kind == CH_WRITE) {
			world_fault(d->w, FAULT_TORN);
			tear(d, n, u);
		}
	}
	cds_list_for_each_entry_safe (u, next, &n->unsynced, node) {
		if (u->kind == CH_SIZE) /* it may have cut off what was written before */
			image_copy(&n->img, &n->old);
		else
			image_copy_range(&n->img, &n->old, u->off, u->len);
		unsynced_free(u);
	}
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

void disk_set_errors(struct sim_disk *d, unsigned reads_per_million, unsigned writes_per_million)
{
	d->read_errors = reads_per_million;
	d->write_errors = writes_per_million;
}

void disk_set_full(struct sim_disk *d, bool full)
{
	d->full = full;
}

void disk_wipe(struct sim_disk *d)
{
	struct name_op *op, *next;

	assert(cds_list_empty(&d->files) && cds_list_empty(&d->pending));
	disk_unrot(d);
	cds_list_for_each_entry_safe (op, next, &d->name_ops, node)
		name_op_free(op);
	inode_put(d->root);
	d->root = inode_new(d, true);
	d->root->refs = 1;
	d->used_pages = 0;
}

/* Files named like objects (16 hex digits) rot; the journal and the rest have checksums of their
 * own kind.  @name: that one only. */
static void rot_candidates(struct inode *n, const char *name, struct inode **list, unsigned *nr,
			   unsigned max)
{
	for (struct entry *e = n->live; e; e = e->next) {
		if (e->inode->dir)
			rot_candidates(e->inode, name, list, nr, max);
		else if (strlen(e->name) == 16 && strspn(e->name, "0123456789abcdef") == 16 &&
			 (!name || !strcmp(name, e->name)) && cds_list_empty(&e->inode->unsynced) &&
			 e->inode->img.pages.nr && *nr < max)
			list[(*nr)++] = e->inode;
	}
}

/* Some page of data; or the last page: it ends with the header.  Checksums do not rot: those of a
 * hundred blocks lie together, and each is found bad, and is repaired, when it is used: nobody
 * would know when the copy is good again. */
static uint64_t rot_page(const struct inode *n, struct prng *r, bool header)
{
	uint64_t key = 0, blks = n->img.size / BLK;
	size_t pos = 0;

	if (header)
		return n->img.size / PAGE;
	for (uint64_t skip = prng_in(r, 0, n->img.pages.nr - 1); skip; skip--)
		map_next(&n->img.pages, &pos, &key);
	if (!map_next(&n->img.pages, &pos, &key))
		return 0;
	while (blks && size_file(blks * BLK) > n->img.size)
		blks--;
	return key <= blks ? key : 0;
}

static void rot_bit(struct sim_disk *d, struct inode *n, uint64_t key, unsigned at, unsigned bit)
{
	uint8_t *page = image_own(&n->img, key), *old = image_own(&n->old, key);

	page[at] ^= (uint8_t)bit;
	old[at] ^= (uint8_t)bit;
	n->refs++;
	d->rotten = n;
	d->rotten_key = key;
	d->rotten_at = at;
	d->rotten_bit = (uint8_t)bit;
	memcpy(d->rotten_sector, page + at / SECTOR * SECTOR, SECTOR);
}

bool disk_rot(struct sim_disk *d, struct prng *r, bool header)
{
	struct inode *list[256];
	unsigned nr = 0;

	if (d->rotten)
		return false;
	rot_candidates(d->root, NULL, list, &nr, 256);
	if (!nr)
		return false;
	struct inode *n = list[prng_in(r, 0, nr - 1)];
	uint64_t key = rot_page(n, r, header);
	if (!key || !image_page(&n->img, key) || !image_page(&n->old, key))
		return false;
	unsigned at = (unsigned)prng_in(r, header ? PAGE - SECTOR : 0, PAGE - 1),
		 bit = 1u << prng_in(r, 0, 7);
	rot_bit(d, n, key, at, bit);
	return true;
}

bool disk_rot_object(struct sim_disk *d, const char *name)
{
	struct inode *n;
	unsigned nr = 0;

	if (d->rotten)
		return false;
	rot_candidates(d->root, name, &n, &nr, 1);
	if (!nr || !image_page(&n->img, 1) || !image_page(&n->old, 1))
		return false;
	rot_bit(d, n, 1, 0, 1);
	return true;
}

static void unrot(struct image *im, const struct sim_disk *d)
{
	const uint8_t *page = image_page(im, d->rotten_key);
	unsigned sector = d->rotten_at / SECTOR * SECTOR;

	if (page && !memcmp(page + sector, d->rotten_sector, SECTOR))
		image_own(im, d->rotten_key)[d->rotten_at] ^= d->rotten_bit;
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
