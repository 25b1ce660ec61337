/* store_int.h - shared by the files of sheep/store only.
 *
 * How the pieces fit.  A change becomes a record in the journal's queue and, at once, part of the
 * object's current *layer* (what the journal holds and the object file does not have yet).  The
 * journal writes the queue in groups.  A background *round* freezes all current layers, makes sure
 * that their records are durable, and writes them to the object files through the page cache; a
 * *full* round then syncs the files and gives the journal's space back.  A large write (intent)
 * goes to its object file as soon as its record is durable.
 *
 *  J1 A record reaches an object file only after it is durable in the journal.
 *  J2 Journal space is given back only after every file that its records touched was synced.
 *  J3 Replay is idempotent, and looks ahead: a block whose newest record is an intent is not
 * written. J4 Only the holder of live.io changes an object file, its chunks, and the frozen layer.
 *  J5 A block that is in no layer is not being written to: whoever holds the object's lock may read
 *     it from the file.
 *  J6 An intent that a later create or removal overtook is never written; it is complete when that
 *     later record is durable.
 *  J7 Object file header, checksum sectors: 512 bytes each, self-contained, so a torn write leaves
 *     each old or new; both are mended by replay.
 */
#ifndef SHEEP_STORE_STORE_INT_H
#define SHEEP_STORE_STORE_INT_H

#include <urcu/list.h>

#include "lib/base/map.h"
#include "sheep/store/disk.h"
#include "sheep/store/store.h"

enum {
	WRITE_BLKS = STORE_INTENT_MIN / SD_BLOCK_SIZE + 1, /* most blocks of a journalled write */
	GROUP_PAGES_MAX = 256, /* of one journal write, unless one record alone needs more */
	GROUP_IOV_MAX = 512,
	LIVE_MAX = 1024,   /* objects with file handle and checksums in memory at rest */
	TOUCHED_MAX = 512, /* objects that wait for their sync */
	INTENT_WORKERS = 8,
	APPLY_WORKERS = 4,
	SCAN_WORKERS = 8,
	CHUNKS_WHOLE = 64,    /* up to here all checksum sectors of an object are read at once */
	READ_BLKS_MAX = 1024, /* one file read */
	POOL_KEEP_NR = 32768, /* free records and entries kept */
};
#define CHUNK_BYTES_MAX	    (32u << 20)	   /* checksums in memory at rest */
#define MEM_ROUND	    (16u << 20)	   /* journalled data in memory that starts a round */
#define MEM_MAX		    (64u << 20)	   /* ... that makes writers wait */
#define INTENT_BYTES_MAX    (512ull << 20) /* written in place and not synced: replay must read it */
#define AGE_NS		    5000000000ull  /* what is not in its file for so long starts a round */
#define STORE_POOL_KEEP	    (4u << 20)
#define STORE_JOURNAL_FLOOR (512u << 10)
_Static_assert(MEM_ROUND < MEM_MAX, "a round begins before writers wait");
_Static_assert(TOUCHED_MAX <= LIVE_MAX, "what waits for its sync keeps its handle");

/* ---- layers ---- */

enum base {
	BASE_THROUGH, /* what is below shows through */
	BASE_ZERO,    /* created: zeros */
	BASE_ABSENT,  /* removed */
	BASE_VOID,    /* frozen only: overtaken by the creation in the layer above */
};

enum ent_flag {
	ENT_INPLACE = 1, /* the data is not in the journal (intent) */
	ENT_DONE = 2,	 /* replay: the intent finished */
	ENT_FRESH = 4,	 /* replay: of an intent that created an object that was absent before */
};

/* The newest data of one block. */
struct ent {
	struct buf *buf;
	const uint8_t *data;
	uint64_t ticket;
	uint64_t jpos; /* replay: byte in the journal file */
	uint32_t crc;
	uint32_t flags;
	struct ent *below; /* replay: what an intent that may be torn was to replace */
};

struct ovl {
	unsigned nr;
	struct ent *e[CHUNK_BLKS];
};

struct layer {
	enum base base;
	uint64_t base_ticket;
	struct ovl **ovl; /* by chunk; NULL when there is none */
	uint32_t nr_ovl;  /* length of that array */
	uint32_t nr;	  /* entries */
	uint64_t size;
	struct obj_ver ver;
	uint8_t copies;
};

/* Checksums of CHUNK_BLKS blocks as the object file has them. */
struct chunk {
	uint64_t data[2], bad[2]; /* bit: written at some time; checksum unknown */
	bool dirty;
	uint32_t crc[CHUNK_BLKS];
};

/* ---- objects ---- */

/* The index entry. */
struct store_obj {
	struct store *st;
	uint64_t oid, hash;
	struct obj_ver ver; /* newest queued */
	uint64_t size;
	struct store_obj *left, *right; /* treap by (hash, oid); objects that exist */
	struct live *live;
	uint32_t torn_blk, torn_nr; /* 0: whole */
	uint8_t copies;
	bool exists;
	bool no_header; /* start only: its file has no readable header */
};

/* An open object file; it can be closed without waiting. */
struct ofile {
	struct env_file *f;
	struct store *st;
	struct env_io io;
};

/* What an object has while it is locked, has records in the journal, or was used lately. */
struct live {
	struct store_obj *o;
	struct store *st;
	/* the lock */
	unsigned readers;
	bool excl;
	struct cds_list_head waiters;
	unsigned pins;
	/* the file, under io */
	struct co_mutex io;
	struct ofile *file, *dfile;
	bool file_exists;
	uint64_t fsize; /* logical size it was made with */
	uint32_t nr_chunk;
	struct chunk **chunk;
	struct obj_ver fver;
	uint8_t fcopies;
	uint32_t torn_blk, torn_nr;
	uint64_t dir_need; /* value of st->dir_changes that made its name */
	/* layers */
	struct layer cur, frz;
	/* intents, oldest first */
	struct cds_list_head intents;
	struct co_cond icond;
	uint64_t unsynced_first, unsynced_last; /* tickets of in-place writes not synced; 0: none */
	uint32_t over_from, over_to;		/* blocks of those of them that are over */
	uint64_t synced_upto;	    /* ticket: intents up to it are in the file, synced */
	uint64_t stated, stated_at; /* ... says a statement in the journal, and its ticket */
	uint64_t stacked; /* newest intent that lies over one not synced when it came; 0: none */
	struct co_mutex sync;
	/* lists of the store; dirty: cur, frozen: frz, touched: the file needs a sync */
	bool dirty, frozen, touched, in_unsynced, in_lru;
	struct cds_list_head dirty_node, frozen_node, touched_node, unsynced_node, lru_node;
	struct cds_list_head stacked_node;
};

/* ---- journal ---- */

struct seg {
	struct buf *buf;
	const uint8_t *data;
	uint32_t nr; /* blocks */
};

struct rec {
	struct cds_list_head node;  /* queue, in flight */
	struct cds_list_head onode; /* live->intents */
	struct cds_list_head gnode; /* all intents of the store */
	struct cds_list_head rnode; /* iwait, ready */
	struct live *lv;	    /* intents */
	uint64_t ticket, ref, oid, size;
	struct obj_ver ver;
	uint32_t blk, nr, resv;
	uint8_t kind, copies, flags;
	bool durable, head, tail; /* head, tail: an intent's first, last block is journalled */
	bool in_queue;
	struct seg seg[2];
	uint32_t *crc, crc_in[WRITE_BLKS + 1];
	struct rec *next; /* pool */
};

struct waiter {
	struct cds_list_head node;
	uint64_t ticket;
	struct co *co;
	bool done;
};

struct journal {
	/* fixed at open */
	struct env_file *dir, *file;
	bool own_dir, clean; /* clean: closed in order, nothing to replay */
	uint64_t area;	     /* pages for groups */
	uint64_t id, inc;
	uint32_t group_max;
	/* moved by the writer and the rounds */
	uint64_t sb_gen;
	uint64_t vhead, vtail; /* pages ever used; place in the area: modulo */
	uint64_t gseq, synced_gseq;
	uint64_t resv; /* pages promised to prepared and queued writes */
	struct cds_list_head queue, lazy, inflight;
	uint64_t queued, written, durable, want; /* tickets */
	uint64_t cut, cut_vhead, cut_gseq;	 /* a group ends with the ticket cut */
	struct co *writer;
	bool idle;
	struct cds_list_head wait_written, wait_durable;
	struct buf *hdr;
	struct iovec iov[GROUP_IOV_MAX];
	int iovcnt;
};

struct pool {
	void *free;
	unsigned nr;
};

struct store {
	struct co_sched *s;
	struct env *env;
	struct store_conf conf;
	struct store_ident ident;
	uint64_t journal_id, journal_prev, max_gen;
	struct env_file *dir, *lock, *obj, *stale;
	struct buf_pool *pool;
	int failed, replay_err; /* -errno */
	bool stopping, opened;
	/* index */
	struct map map;
	struct store_obj *root;
	uint64_t nr_objects;
	/* live objects */
	unsigned nr_live, nr_held, nr_lru, nr_closing;
	size_t chunk_bytes;
	struct cds_list_head lru, dirty, frozen, touched, syncing, synced, unsynced, stacked;
	unsigned nr_touched;
	/* memory and room */
	struct pool ents, recs;
	uint64_t mem; /* bytes of block data in layers */
	struct co_cond room;
	/* intents */
	struct cds_list_head intents, iwait, ready; /* all; not durable yet; for the workers */
	uint64_t intent_bytes;
	unsigned nr_intents;
	uint64_t stated_at;	     /* ticket of the newest statement (intent.c) */
	struct co_cond icond, wcond; /* one finished; work for the workers */
	/* rounds */
	struct co_cond rcond, rdone;
	struct env_timer rtimer;
	bool rtimer_armed, aged, room_short;
	uint64_t full_want, full_done; /* numbers of asked-for full rounds */
	uint64_t round_cut;
	unsigned nr_dirty;
	uint64_t dir_changes, dir_synced;
	struct co_mutex dir_mutex;
	struct co_group group; /* background coroutines */
	/* space */
	struct env_io statfs;
	bool statfs_busy;
	uint64_t statfs_ns, fs_total, fs_free, alloc_since, alloc_before, mem_asked;
	struct co_cond scond;
	struct journal jr;
};

/* ---- store.c ---- */
void st_fail(struct store *st, int err);
co_fn int st_open_at(struct store *st, struct env_file *dir, const char *name, int flags,
		     struct env_file **ret);
co_fn void st_close_file(struct store *st, struct env_file *f); /* NULL is fine */
co_fn int st_sync_file(struct store *st, struct env_file *f, enum env_io_op op);
co_fn int st_rw(struct store *st, enum env_io_op op, struct env_file *f, void *data, size_t len,
		uint64_t off, unsigned flags); /* all of it or an error */
co_fn int st_name_op(struct store *st, enum env_io_op op, struct env_file *d, const char *name,
		     struct env_file *d2, const char *name2);
co_fn int st_truncate(struct store *st, struct env_file *f, uint64_t len);
co_fn int st_list(struct store *st, struct env_file *d, char ***ret);
void st_free_names(char **names);
void st_says(char **err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- config.c ---- */
co_fn int config_lock(struct store *st, char **err);
/* 1: read; 0: a new store. */
co_fn int config_read(struct store *st, char **err);
co_fn int config_write(struct store *st);

/* ---- index.c ---- */
struct store_obj *index_find(struct store *st, uint64_t oid);
struct store_obj *index_add(struct store *st, uint64_t oid); /* absent as yet; NULL: no memory */
void index_set(struct store_obj *o, bool exists);
void index_free_all(struct store *st);
void index_forget(struct store_obj *o); /* absent and not live */
void index_saw(struct store *st, struct obj_ver ver);

/* ---- live.c ---- */
struct live *live_get(struct store_obj *o); /* with a pin; NULL: no memory */
void live_put(struct live *lv);
void live_mark_dirty(struct live *lv);
co_fn void live_drop_all(struct store *st);
bool live_journalled(const struct live *lv); /* the journal has records of it */
void live_trim(struct store *st, unsigned keep);

/* ---- layer.c ---- */
void layer_init(struct layer *l);
void layer_clear(struct store *st, struct layer *l); /* all entries */
int layer_shape(struct layer *l, uint64_t size);
int layer_room(struct layer *l, uint32_t blk, uint32_t nr); /* so that layer_put cannot fail */
void layer_put(struct store *st, struct layer *l, uint32_t blk, struct ent *e);
/* As layer_put, but what was there stays known, as e->below. */
void layer_stack(struct store *st, struct layer *l, uint32_t blk, struct ent *e);
struct ent *layer_get(const struct layer *l, uint32_t blk);
void layer_del(struct store *st, struct layer *l, uint32_t blk);
/* Next entry at or after *blk; NULL: none. */
struct ent *layer_next(const struct layer *l, uint32_t *blk);
enum found { FOUND_ENT, FOUND_ZERO, FOUND_FILE };
enum found layers_find(const struct live *lv, uint32_t blk, struct ent **ret);
int ents_reserve(struct store *st, uint32_t nr);
struct ent *ent_new(struct store *st); /* reserved before */
void ent_free(struct store *st, struct ent *e);
void pools_free(struct store *st);
struct rec *rec_new(struct store *st, uint32_t nr_crc);
void rec_free(struct store *st, struct rec *r);

/* ---- file.c: object file, header, chunks ---- */
co_fn int file_open(struct live *lv);
co_fn int file_make(struct live *lv, uint64_t size, bool keep_data); /* under io */
co_fn int file_unlink(struct live *lv);				     /* under io */
void file_forget(struct live *lv); /* chunks and handles; handles close in the background */
void ofile_close(struct ofile *f); /* NULL is fine */
co_fn int chunks_load(struct live *lv, uint32_t c0, uint32_t c1);
void chunk_set(struct live *lv, uint32_t blk, uint32_t crc);
enum blk_state { BLK_UNKNOWN, BLK_ZERO, BLK_DATA, BLK_BAD };
enum blk_state chunk_state(const struct live *lv, uint32_t blk, uint32_t *crc);
co_fn int meta_write(struct live *lv); /* dirty chunks and header, under io */
co_fn int file_sync(struct live *lv);
co_fn int dir_sync(struct store *st, uint64_t need);
void oid_name(uint64_t oid, char name[OBJ_NAME_LEN]);
co_fn int header_read(struct store *st, uint64_t oid, struct obj_header *h, uint64_t *len);
void header_fill(struct obj_header *h, uint64_t oid, uint64_t size, uint8_t copies,
		 struct obj_ver ver, uint32_t torn_blk, uint32_t torn_nr);
void sector_fill(struct crc_sector *s, uint64_t oid, uint32_t idx, const struct chunk *c);
int chunks_alloc(struct live *lv, uint64_t size);

/* ---- read.c ---- */
co_fn int blocks_read(struct live *lv, uint32_t blk, uint32_t nr, uint8_t *dst, uint64_t *bad_off);

/* ---- write.c ---- */
int queue_repair(struct store_obj *o, struct store_write *w);

/* ---- journal.c ---- */
co_fn int journal_open(struct store *st, bool fresh, char **err); /* finds or makes the file */
co_fn int journal_settle(struct store *st,
			 char **err);	   /* after replay: size and place as asked for */
co_fn int journal_reset(struct store *st); /* a new, empty incarnation */
co_fn int journal_super(struct store *st, uint64_t vtail, uint64_t gseq, bool empty);
co_fn void journal_close(struct store *st);
void journal_main(void *arg);
void journal_kick(struct store *st);
void journal_add(struct store *st, struct rec *r);
void journal_add_done(struct store *st, const struct rec *intent);
int journal_add_upto(struct live *lv); /* a statement: lv->synced_upto */
co_fn int journal_wait(struct store *st, uint64_t ticket, bool durable);
co_fn int journal_sync(struct store *st, uint64_t ticket);
void journal_wake_all(struct store *st);
uint64_t journal_used(const struct store *st);
uint32_t rec_pages(const struct rec *r);

/* ---- replay.c ---- */
co_fn int index_scan(struct store *st, char **err);
co_fn int replay(struct store *st, char **err);
co_fn int replay_apply(struct store *st);

/* ---- apply.c ---- */
void round_main(void *arg);
void round_poke(struct store *st);
co_fn int round_full(struct store *st); /* everything queued so far is in its file, synced */
void round_timer(struct env_timer *t);
co_fn int run_blocks(struct live *lv, const struct layer *l);

/* ---- intent.c ---- */
void intent_main(void *arg);
void intents_ready(struct store *st);
void intent_stack(struct live *lv, const struct rec *r); /* before it is added */
void intents_unstack(struct live *lv, uint64_t upto);
co_fn int intents_state(struct live *lv);
co_fn int intents_settle(struct store *st, uint64_t ticket);

/* ---- space.c ---- */
co_fn int space_open(struct store *st);
void space_took(struct store *st, uint64_t len);
bool space_floor(struct store *st, uint64_t len); /* false: not even repair should try */

#endif
