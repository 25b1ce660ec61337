/* store.h - one node's objects on its disk: journalled, checksummed, versioned.  DESIGN section 6.
 *
 * Used by: sheep (replica, recovery).  Runs on the reactor; co_fn functions yield.
 * Promises (S1..S5):
 *  S1 after store_wait(durable) the write is there after a power cut, whole, with its version.
 *  S2 a write that was not durable is there whole or not at all; a large one (>= STORE_INTENT_MIN)
 * may be torn inside its own range only, and then obj_info.torn says so after the restart. S3 an
 * object's version never says more than its data. S4 a write becomes durable only together with all
 * earlier ones of its object; removals are journalled. S5 a block whose checksum is wrong is never
 * returned as data (-EILSEQ).
 */
#ifndef SHEEP_STORE_STORE_H
#define SHEEP_STORE_STORE_H

#include "include/sheepdog/limits.h"
#include "lib/base/buf.h"
#include "lib/co/co.h"

struct store;
struct store_obj;

/* (generation, sequence), compared lexicographically.  {0,0}: absent. */
struct obj_ver {
	uint64_t gen, seq;
};
static inline int obj_ver_cmp(struct obj_ver a, struct obj_ver b)
{
	if (a.gen != b.gen)
		return a.gen < b.gen ? -1 : 1;
	return a.seq < b.seq ? -1 : a.seq > b.seq;
}

struct obj_info {
	uint64_t oid;
	uint64_t hash;	    /* sd_hash_oid(oid): its place on the ring */
	struct obj_ver ver; /* of the newest queued write; {0,0}: absent */
	uint64_t size;	    /* logical size in bytes */
	uint8_t copies;	    /* redundancy it was written with */
	bool torn;	    /* an intent never finished: ranks below the same version whole */
};

struct store_conf {
	const char *dir; /* the store directory (meta store); created if its parent exists */
	const char *journal_dir; /* NULL: dir */
	uint64_t journal_size;	 /* bytes; 0: STORE_JOURNAL_SIZE_DEFAULT */
	bool journal_skip;	 /* do not replay: the operator gave up what is in it */
	bool nosync;		 /* -n: no fdatasync anywhere */
	bool directio;		 /* -D: O_DIRECT reads and writes of object files where aligned */
	bool gateway;		 /* no objects: only the lock, config and the like */
	uint64_t reserve;	 /* bytes that client writes must leave free; 0: default rule */
};

/* What the `config` file keeps. */
struct store_ident {
	uint8_t uuid[16];    /* made with the store */
	uint64_t start;	     /* counted up durably at each start */
	uint8_t boot_id[16]; /* of this start */
	uint8_t prev_boot_id[16];
	uint32_t clean_epoch;  /* clean shutdown mark: the epoch, 0 when none; cleared on disk at
				  start */
	uint8_t clean_name[8]; /* that epoch's random name */
	uint64_t space;	       /* capacity in bytes recorded at the first start */
};

/* Open (make if new), lock, sync, replay, build the index.  On failure *err (if not NULL) is a
 * malloc'ed sentence for the operator that says what to do.  -EBUSY: another daemon has it.
 * -EPROTO: another format, or the original Sheepdog's. */
co_fn int store_open(struct co_sched *s, struct env *env, const struct store_conf *conf,
		     struct store **ret, char **err);
/* Drain, sync, close.  Asserts that no object is held. */
co_fn void store_close(struct store *st);
const struct store_ident *store_ident(const struct store *st);
struct env_file *
store_dir(const struct store *st); /* directory handle for the other modules' files */
/* Write the clean mark durably (called last at an orderly cluster shutdown). */
co_fn int store_mark_clean(struct store *st, uint32_t epoch, const uint8_t name[8]);
/* MAKE_FS: remove every object and stale file, reset the journal; uuid and start stay. */
co_fn int store_format(struct store *st);

/* ---- the in-memory index: no yield ---- */

/* Newest state including queued writes; false: absent (info->ver is {0,0}). */
bool store_lookup(struct store *st, uint64_t oid, struct obj_info *ret);
/* Objects with from <= hash <= to in (hash, oid) order, after cursor (hash, oid) = (*h, *o)
 * exclusive when
 * @cont; fills at most @n; returns how many. */
unsigned store_list(struct store *st, uint64_t from, uint64_t to, bool cont, uint64_t h, uint64_t o,
		    struct obj_info *ret, unsigned n);
uint64_t store_nr_objects(const struct store *st);
uint64_t store_max_gen(const struct store *st); /* largest generation of any version in the store */
/* Is there room for an allocating client write of @len bytes above the reserve? (cached statfs,
 * refreshed in the background, plus what is queued) */
bool store_has_room(struct store *st, uint64_t len);
/* The same, for a write that will come: after a yes it counts as taken until the next look at the
 * disk or two. */
bool store_take_room(struct store *st, uint64_t len);
void store_space(struct store *st, uint64_t *total, uint64_t *free_bytes);

/* ---- one object's lock ---- */

/* Take the lock of @oid (absent objects have one too).  Shared holders read, an exclusive one
 * changes. */
co_fn struct store_obj *store_get(struct store *st, uint64_t oid, bool excl);
void store_put(struct store_obj *o);

/* Would a write to [off, off+len) need room that the object does not take yet?  (Objects are
 * sparse.)  Under a shared or exclusive lock.  An absent object: false. */
co_fn bool store_allocates(struct store_obj *o, uint64_t off, uint64_t len);

/* ---- changing: under the exclusive lock ---- */

struct store_write {
	struct obj_ver ver; /* new version */
	uint64_t off, len;  /* bytes; off + len <= size */
	struct buf *data;   /* payload at buf->data + data_off; the store takes its own reference */
	size_t data_off;
	const uint32_t
		*crc;  /* CRC-32C of each piece of the payload cut at 4 KiB object boundaries */
	bool create;   /* the object becomes zeros with the payload overlaid (replaces an older one)
			*/
	bool durable;  /* direct: store_wait() waits for the sync */
	uint64_t size; /* with create: logical size */
	uint8_t copies;
	/* the store's own: zero at first */
	struct store *st;
	uint64_t ticket, oid;
	struct buf *edge[2];
	uint32_t resv;
	bool no_room;
	int error;
};

/* May yield: reads and verifies the blocks that the write covers in part, so that store_queue need
 * not. Call under the exclusive lock, before the caller's last checks.  -EILSEQ: such a block is
 * bad. -ENOENT: absent and not create.  -ENOSPC: the disk is as good as full and the write needs
 * room, nothing was done.
 * After 0, store_queue or store_abandon must follow. */
co_fn int store_prepare(struct store_obj *o, struct store_write *w);
/* NO YIELD.  Enter the write into the journal's queue; the index has the new version at once.  On
 * an error nothing was entered, and what store_prepare took is given back. */
int store_queue(struct store_obj *o, struct store_write *w);
/* Undo store_prepare without queuing. */
void store_abandon(struct store_write *w);
/* NO YIELD.  Queue a removal; @w carries ver and durable. */
int store_queue_remove(struct store_obj *o, struct store_write *w);
/* Wait until @w is durable (w->durable) or in the kernel.  The lock may have been put before.
 * -EIO, -ENOSPC: the journal could not take it; the store is then failed as a whole (store_failed).
 */
co_fn int store_wait(struct store *st, struct store_write *w);
/* Everything queued or cached so far is durable when this returns 0. */
co_fn int store_flush(struct store *st);
bool store_failed(const struct store *st);

/* ---- reading: any time; waits for nothing but the disk ---- */

/* Read and verify [off, off+len) into @buf at @buf_off, including what is still only in the
 * journal. Under a shared or exclusive lock.  Bytes beyond the end of the object are zeros. -ENOENT
 * absent, -EILSEQ checksum (*bad_off = the block), -EIO. */
co_fn int store_read(struct store_obj *o, uint64_t off, uint64_t len, struct buf *buf,
		     size_t buf_off, uint64_t *bad_off);
/* The next range at or after @off, that may hold something else than zeros; false: none.  For
 * pulls. */
co_fn bool store_next_data(struct store_obj *o, uint64_t off, uint64_t *start, uint64_t *len);

/* ---- whole-object replacement (pull): under the exclusive lock ---- */

struct store_replace;
/* Build a new image of the object beside the old one. */
co_fn int store_replace_begin(struct store_obj *o, uint64_t size, uint8_t copies,
			      struct store_replace **ret);
co_fn int store_replace_data(struct store_replace *r, uint64_t off, struct buf *data,
			     size_t data_off, uint64_t len);
/* Swap it in, durably, with @ver.  Nothing of the old one is left. */
co_fn int store_replace_commit(struct store_replace *r, struct obj_ver ver);
co_fn void store_replace_abort(struct store_replace *r);
/* Repair one range of bad blocks with data read from a peer at @ver; -ESTALE when the object's
 * version is another one now (DESIGN 5.3). */
co_fn int store_repair(struct store_obj *o, struct obj_ver ver, uint64_t off, struct buf *data,
		       size_t data_off, uint64_t len);
/* A torn object whose every replica is torn (DESIGN 6): take the bytes as they are, with new
 * checksums, as version @ver; no longer torn, durable on return.  The others pull it from here. */
co_fn int store_settle(struct store_obj *o, struct obj_ver ver);
/* Move the object to .stale/<oid>.<epoch>; it is absent afterwards (durable on return). */
co_fn int store_stale(struct store_obj *o, uint32_t epoch);
/* Remove everything in .stale/. */
co_fn int store_purge_stale(struct store *st);

#endif
