/* disk.h - inside of the simulated disk: image.c (contents of files), disk.c (names, I/O),
 * disk_fault.c (deaths and faults). */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "lib/base/map.h"
#include "tests/sim/world.h"

#define PAGE   4096u
#define SECTOR 512u

/* ---- images (image.c): the contents of a file, in pages.  A page may be in several images (the
 * live and the durable one, mostly); who writes to it then gets one of its own.  Pages of zeros
 * take no memory, but count. ---- */

struct image {
	struct map pages; /* page number + 1: the page */
	uint64_t size;
};

void image_init(struct image *im);
void image_done(struct image *im); /* empty again */
/* @data NULL: zeros.  Extends the image. */
void image_write(struct image *im, uint64_t off, const uint8_t *data, uint64_t len);
/* A hole. */
void image_punch(struct image *im, uint64_t off, uint64_t len);
void image_read(const struct image *im, uint64_t off, uint8_t *buf, uint64_t len);
void image_resize(struct image *im, uint64_t size);
/* @to is as @from is: all of it, or the pages in which [@off, @off + @len) lies (and the size). */
void image_copy(struct image *to, const struct image *from);
void image_copy_range(struct image *to, const struct image *from, uint64_t off, uint64_t len);
/* The page with @key (of map_next()), NULL: none.  To write to it: image_own(). */
const uint8_t *image_page(const struct image *im, uint64_t key);
uint8_t *image_own(struct image *im, uint64_t key);

/* ---- files and names ---- */

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
	uint8_t *data;	       /* NULL: zeros */
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
	uint8_t *data;	  /* of a write; NULL: zeros */
	size_t len;
	bool lost;
};

struct sim_disk {
	struct world *w;
	char name[24];
	struct inode *root;
	uint64_t size, used_pages, nr_changes, next_id, stall_until;
	unsigned read_errors, write_errors, lose_writes; /* per million */
	bool full;
	struct cds_list_head name_ops, files, pending;
	/* disk_rot() */
	struct inode *rotten;
	uint64_t rotten_key;
	unsigned rotten_at;
	uint8_t rotten_bit, rotten_sector[SECTOR];
};

/* ---- disk.c, for disk_fault.c ---- */

void inode_put(struct inode *n);
void entries_free(struct entry **list);
void entry_set(struct entry **list, const char *name, struct inode *n);
void name_op_apply(struct name_op *op);
void name_op_free(struct name_op *op);
void unsynced_free(struct unsynced *u);
/* @data (malloc'ed; NULL: zeros) is taken over. */
void change(struct sim_disk *d, struct inode *n, enum change kind, uint64_t off, uint8_t *data,
	    uint64_t len);
void change_apply(struct image *im, const struct unsynced *u);
void handle_close(struct env_file *f);
void pending_free(struct pending *q);
/* What is overwritten takes no room. */
bool no_room(const struct sim_disk *d, const struct inode *n, uint64_t off, uint64_t len);
struct inode *inode_new(struct sim_disk *d, bool dir);

#endif
