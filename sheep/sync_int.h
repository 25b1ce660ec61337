/* sync_int.h - shared by replica.c, sync*.c, recover*.c and pull.c only: this node's side of the
 * data path (DESIGN 5.2 to 5.6; each rule has its reason in the model: see WHY, cited by name).
 *
 * Invariants:
 *  Y1 An object is in sync here exactly when: it is mine in the epoch that is served, and its
 *     `synced` is that epoch, and it is not torn.  `synced` becomes that epoch in two ways only: it
 *     was in sync in the epoch before, as a member of both (sync_view), or its state was taken by
 *     the rules of 5.5 and the mark is durable (sync_mark).
 *  Y2 The file `sync` never says more than the store: a state is durable before its mark.  It never
 *     says less than what was served: the map of an epoch is durable before any I/O in it.
 *  Y3 A new view never shortens todo (WHY B1e plan-replaced).
 *  Y4 Requests of an epoch older than s->refuse are refused, of one newer than s->epoch held; both
 *     are compared without a yield before the entry in the journal's queue (WHY B3 no-recheck).
 *  Y5 What is brought in sync belongs to one epoch (struct job): after each wait job_over() is
 * asked before anything is taken from an answer (WHY B1g pull-notag). Y6 A call to a peer never
 * refers to a stack: who stops waiting drops it, its done() frees it.
 *  Y7 `lost` is never lower than the newest epoch that was in sync here when the power was lost:
 * what has a synced up to it may lack cached writes; what is brought in sync later has a newer one.
 */
#ifndef SHEEP_SYNC_INT_H
#define SHEEP_SYNC_INT_H

#include <errno.h>

#include "lib/base/map.h"
#include "lib/base/util.h"
#include "sheep/plant.h"
#include "sheep/peer.h"
#include "sheep/sheep.h"

#define SYNC_LIST_MAX	    512u	 /* rows of one SYNC_LIST answer */
#define SYNC_SCAN_MAX	    8192u	 /* objects looked at for one VID_LIST answer */
#define SYNC_DEMAND_WORKERS 32u		 /* objects that requests wait for, at the same time */
#define SYNC_BULK_PULLS	    4u		 /* objects of the bulk pull, at the same time */
#define SYNC_SERVED_PULLS   16u		 /* pulls that other nodes have from us at a time */
#define SYNC_PULL_CHUNK	    (256u << 10) /* one frame of a pull */
#define SYNC_PULL_AHEAD	    32u		 /* frames read before the object's lock is let go */
#define SYNC_REPAIRS	    4u		 /* objects with bad blocks being repaired at a time */
#define SYNC_APPEND_MAX	    65536u	 /* marks appended to the file before it is rewritten */
#define SYNC_HISTORY	    64u		 /* views of older epochs kept at hand */
#define SYNC_AWAITED	    16u		 /* absent nodes named in the log, of one epoch */
#define SYNC_RETRY_NS	    20000000ull	 /* look again at what will change soon */
#define SYNC_PASS_NS	    200000000ull /* between two passes of recovery */
#define SYNC_READ_MAX	    (8u << 20)	 /* one PEER_READ */

#define RANK_NONE SD_COPIES_MAX /* mine for no number of copies */

_Static_assert(SYNC_LIST_MAX * sizeof(struct peer_obj) <= SYNC_READ_MAX, "a list fits in a reply");

/* ---- sync_map.c: what was in sync when, by place on the ring and number of copies ---- */

/* Objects with `copies` copies in this arc are mine when rank < copies; s[copies - 1] is the newest
 * epoch in which I had them all in sync, but for the objects' own marks.  0: never. */
struct sync_seg {
	uint32_t rank;
	uint32_t s[SD_COPIES_MAX];
};
/* Arcs (end[i-1], end[i]] in the order of hashes; the last one ends at UINT64_MAX. */
struct sync_map {
	unsigned nr, cap;
	uint64_t *end;
	struct sync_seg *seg;
};
/* A rectangle of it: hashes from..to and numbers of copies clo..chi, all inclusive. */
struct sync_box {
	uint64_t from, to;
	uint8_t clo, chi;
};

int smap_init(struct sync_map *m); /* one arc, nothing of it mine or in sync; -ENOMEM */
void smap_done(struct sync_map *m);
unsigned smap_find(const struct sync_map *m, uint64_t hash);
static inline uint64_t smap_start(const struct sync_map *m, unsigned i)
{
	return i ? m->end[i - 1] + 1 : 0;
}
int smap_push(struct sync_map *m, uint64_t end, const struct sync_seg *seg);
/* The box has been in sync in @epoch (0: is not known here any more).  -ENOMEM. */
int smap_set(struct sync_map *m, const struct sync_box *b, uint32_t epoch);
/* The map of @epoch made from that of the epoch before: see sync_map.c. */
int smap_view(const struct sync_map *old, const struct ring *ring, int self, uint32_t from_epoch,
	      uint32_t epoch, uint32_t unused, struct sync_map *ret);
/* Nothing counts as of later than @epoch. */
void smap_cap(struct sync_map *m, uint32_t epoch);
/* The end of the arc of @r in which @hash lies. */
uint64_t ring_arc_end(const struct ring *r, uint64_t hash);
uint32_t smap_max(const struct sync_map *m);
/* The first box at or after @cursor that is mine, has objects of @copies copies, and is not in sync
 * in @epoch; false: none. */
bool smap_todo(const struct sync_map *m, uint32_t epoch, uint8_t copies, uint64_t cursor,
	       struct sync_box *ret);
/* Cut @b to the part around (b->from, b->chi) that has one status; returns its synced. */
uint32_t smap_uniform(const struct sync_map *m, uint32_t epoch, struct sync_box *b, bool *in_sync);

/* ---- the module ---- */

/* An object brought in sync alone, in an arc that is not (yet). */
struct sync_mark {
	uint64_t oid;
	uint32_t epoch;
	uint8_t copies;
};

/* One piece of work in one epoch; on its coroutine's stack. */
struct job {
	struct cds_list_head node; /* sync.jobs */
	struct sync *s;
	uint32_t epoch;
	struct view *view;
	struct co_cond cond; /* an answer came, or the epoch is over */
};

/* An object that requests wait for. */
/* What may be done with an object that is torn on every replica, as its owner says (DESIGN 6). */
struct settle_by {
	uint64_t gen;	    /* it asks for the version, nothing of it is in flight; or 0 */
	struct obj_ver ver; /* what lies there is to have this version; or 0.0 */
};

struct want {
	struct cds_list_head node; /* sync.queue, when no worker has it */
	uint64_t oid;
	struct settle_by by;
	bool torn; /* on every replica, and its owner lives: it must name a version */
	uint8_t copies;
	uint32_t epoch;
	unsigned refs;
	bool queued, over;
	struct co_cond cond;
};

enum mark_type { MARK_OBJECT = 1, MARK_BOX };
struct mark_rec {
	enum mark_type type;
	uint64_t oid;	     /* MARK_OBJECT; its copies are box.chi */
	struct sync_box box; /* MARK_BOX */
	uint32_t epoch;	     /* MARK_BOX: 0 when dropped */
};

struct mark_req { /* on the waiter's stack */
	struct cds_list_head node;
	struct mark_rec rec;
	uint32_t job_epoch;
	bool done;
	int result;
	struct co *co;
};

struct sync {
	struct sheep *sh;
	/* moved by sync_view() only */
	struct view *view;
	uint32_t epoch;	 /* served; 0: none (yet) */
	uint32_t refuse; /* what is older is refused */
	struct sync_map map;
	struct map marks; /* oid -> struct sync_mark; also moved by the writer of marks */
	struct map torn;  /* oid -> non-NULL: torn, in an arc that began in sync */
	uint32_t map_epoch;
	uint8_t map_name[8];
	uint8_t boot[16];    /* the machine's boot id; after a load: when the file was written */
	uint32_t lost;	     /* Y7; 0: power was never lost */
	bool branch;	     /* from a given-up branch, not at rest since: files go to .stale/ */
	bool keep_stale;     /* .stale/ has files of a given-up branch: the operator's */
	bool purge;	     /* .stale/ may have files to remove */
	uint32_t have;	     /* bit c: there may be objects of c copies in the store */
	uint32_t dropped;    /* bit c: one was dropped, and that need not be durable yet */
	uint32_t rest_epoch; /* everything is done in this epoch */
	/* the file */
	struct co_mutex file_lock;
	struct env_file *file;
	uint64_t file_size;
	unsigned nr_appended;
	struct cds_list_head pending; /* mark_req */
	bool writing;
	/* work */
	bool stopping;
	unsigned nr_inside; /* coroutines in here */
	struct co_cond left;
	struct cds_list_head jobs;
	struct map wants;
	struct cds_list_head queue;
	unsigned nr_workers, nr_demand;
	struct map pulling; /* oid -> struct job: its lock is held, or awaited, for a pull */
	uint32_t covered[SD_COPIES_MAX]; /* by copies - 1: sync_covered() in this epoch */
	uint32_t covering;		 /* bit copies - 1: a coroutine looks */
	struct map repairing;
	struct co_sem served;	/* SYNC_SERVED_PULLS */
	struct co_cond changed; /* the recovery looks around */
	struct map
		told; /* vid -> non-NULL: the cluster knows in this epoch that it is cache lost */
	struct view *history[SYNC_HISTORY];
	uint8_t awaited[SYNC_AWAITED][16];
	unsigned nr_awaited;
};

/* ---- sync.c ---- */

void sync_enter(struct sync *s);
void sync_leave(struct sync *s);
/* May a request of epoch @e be served now?  0, -ESTALE: refuse it, -EAGAIN: hold it. */
static inline int sync_admit(const struct sync *s, uint32_t e)
{
	if (e < s->refuse)
		return -ESTALE;
	return e && e == s->epoch ? 0 : -EAGAIN;
}
bool sync_mine(const struct sync *s, uint64_t hash, uint8_t copies);
uint32_t sync_synced(const struct sync *s, uint64_t oid, uint64_t hash, uint8_t copies);
/* Has power been lost since it was in sync in @synced? */
static inline bool sync_lossy(const struct sync *s, uint32_t synced)
{
	return synced && synced <= s->lost;
}
/* As sync_is(), in the served epoch. */
bool sync_in(const struct sync *s, uint64_t oid, uint64_t hash, uint8_t copies);
/* As sync_ensure().  @by: what the owner that waits allows; NULL: somebody else waits.  -EINVAL:
 * not mine.  -EUCLEAN (with @by): torn on every replica; the owner is to name a version, with none
 * of its writes under way. */
co_fn int sync_wait(struct sync *s, uint32_t epoch, uint64_t oid, uint8_t copies,
		    const struct settle_by *by, const bool *voided);
/* Somebody who waits may have been voided. */
void sync_kick(struct sync *s);
void want_put(struct sync *s, struct want *w);
/* Make a mark durable, then count it.  The state is durable already.  -ESTALE: the view moved on.
 */
co_fn int sync_mark(struct job *j, const struct mark_rec *rec);
void sync_apply(struct sync *s, const struct mark_rec *rec);
/* An object of so many copies is about to be in the store. */
static inline void sync_have(struct sync *s, uint8_t copies)
{
	s->have |= 1u << copies;
}
/* How many copies has @oid?  What is known of it if the request does not say. */
uint8_t sync_copies(struct sync *s, uint64_t oid, uint8_t copies);
/* Of an object in the store, never 0: one that has lost its header does not say. */
uint8_t sync_stored_copies(const struct sync *s, const struct obj_info *info);

void job_begin(struct sync *s, struct job *j);
void job_end(struct job *j);
static inline bool job_over(const struct job *j)
{
	if (PLANTED(pull_notag) && j->epoch)
		return j->s->stopping;
	return j->s->stopping || !j->epoch || j->s->epoch != j->epoch;
}
/* At most @ns; -ETIMEDOUT. */
co_fn int job_wait(struct job *j, uint64_t ns, const char *why);

/* ---- sync_file.c ---- */

co_fn int sync_file_load(struct sync *s);
/* Replace the file by this state; under file_lock.  On an error s->file is NULL: it must be written
 * anew before anything is appended. */
co_fn int sync_file_write(struct sync *s, uint32_t epoch, const uint8_t name[8],
			  const struct sync_map *map, const struct map *marks);
co_fn int sync_file_append(struct sync *s, const struct mark_rec *rec, unsigned nr);
co_fn void sync_file_close(struct sync *s);

/* ---- sync_serve.c: what other nodes' recovery asks ---- */

/* Rows of the box (cut to what is listed and has one status).  *ret: malloc'ed, *nr rows in (hash,
 * oid) order.  No yield. */
int sync_list(struct sync *s, struct sync_box *b, struct peer_obj **ret, unsigned *nr,
	      uint32_t *synced, bool *in_sync);
/* The epoch is served here; all but SYNC_PULL without a yield. */
void serve_query(struct sync *s, struct peer_call *c);
void serve_list(struct sync *s, struct peer_call *c);
void serve_vid_list(struct sync *s, struct peer_call *c);
void serve_drop_check(struct sync *s, struct peer_call *c);
co_fn void serve_torn_as(struct sync *s, struct peer_call *c);
co_fn void serve_pull(struct sync *s, struct peer_call *c);

/* ---- recover.c: on demand ---- */

struct answer { /* of one member, about one object */
	bool ok, in_sync, torn, lossy;
	uint32_t synced;
	struct obj_ver ver;
};
enum verdict {
	VERDICT_TAKE, /* src's state is the object; rule1: because it is in sync */
	VERDICT_TORN, /* all that may be taken is torn; src is to settle it */
	VERDICT_WAIT, /* somebody absent may know more */
};
struct decision {
	int src;
	bool rule1;
	bool lost; /* every replica that was in sync last has lost power, with cached writes */
};
co_fn enum verdict sync_decide(struct job *j, uint64_t oid, uint8_t copies, const struct answer *a,
			       struct decision *d);
/* DESIGN 5.4: before anything of it is in sync, the cluster knows that @vid is cache lost.  0,
 * -ESTALE, -ECANCELED. */
co_fn int sync_say_lost(struct job *j, uint32_t vid);
/* Has an absent node been in the ring of an epoch after @e?  Cuts @b to the part around (b->from,
 * b->chi) for which the answer is one. */
co_fn bool sync_absent(struct job *j, uint32_t e, struct sync_box *b);
/* 0: in sync now; -EAGAIN: try again; -EBUSY: it waits for somebody absent; -EUCLEAN: for its
 * owner, who was told, to name a version; -ESTALE, -ECANCELED.  @by: NULL, or what the owner has
 * said. */
co_fn int sync_resolve(struct job *j, uint64_t oid, uint8_t copies, const struct settle_by *by);
/* What is torn here counts as it lies, in version @ver, if that is above its own. */
co_fn int sync_settle_as(struct job *j, uint64_t oid, struct obj_ver ver);
void recover_queue(struct sync *s, struct want *w);
/* If there is something to do and nobody to do it (there were too many coroutines). */
void recover_workers(struct sync *s);
/* No history, no awaited nodes: a new epoch. */
void recover_view(struct sync *s);
int recover_start(struct sync *s);

/* ---- recover_bulk.c ---- */

/* Is somebody in sync in the served epoch in each arc that is mine with so many copies?  Then what
 * was lost there is known (sync_say_lost), and what is cached there is in somebody's store.  False:
 * not yet, it is being looked at. */
bool sync_covered(struct sync *s, uint8_t copies);

co_fn void recover_main(void *arg);

/* ---- pull.c ---- */

struct pull_frame {
	struct cds_list_head node;
	uint64_t off, size;
	uint32_t len;
	uint8_t copies;
	struct buf *buf;
};
/* A call that a job waits for. */
struct ask {
	struct peer_call c;
	struct job *job; /* NULL: nobody any more */
	unsigned member;
	bool finished, lost;
	struct buf *reply;
	struct cds_list_head frames;
};
struct ask *ask_new(struct job *j, enum peer_op op, unsigned member, uint64_t oid, uint8_t copies);
void ask_send(struct ask *a);
void ask_drop(struct ask *a); /* NULL is fine */
/* Answered, in the job's epoch. */
bool ask_ok(const struct ask *a);
co_fn int ask_wait(struct ask *a); /* 0, -ESTALE, -ECANCELED */

enum pull_rule {
	PULL_IN_SYNC, /* whatever version the source has, if it is in sync */
	PULL_EXACT,   /* exactly @ver */
	PULL_AT_LEAST /* @ver or later, if the source is in sync */
};
struct pull {
	uint64_t oid;
	uint8_t copies;
	unsigned src;
	enum pull_rule rule;
	struct obj_ver ver;
	uint64_t gen;				 /* SETTLE's tag */
	bool (*still)(struct job *j, void *arg); /* asked last before it is stored; or NULL */
	void *arg;
};
/* Under the object's exclusive lock, with @oid in s->pulling: replace the object by the source's.
 * 0, -EAGAIN (not what was wanted, or not now), -ESTALE, -ECANCELED, -errno of the store. */
co_fn int pull_locked(struct job *j, struct store_obj *o, const struct pull *p);
/* Lock for it; false: somebody else pulls it. */
co_fn struct store_obj *pull_lock(struct job *j, uint64_t oid);
void pull_unlock(struct job *j, uint64_t oid, struct store_obj *o);
/* In the background: repair the bad blocks of [off, off+len) of an object in sync (DESIGN 5.3). */
void repair_start(struct sync *s, uint64_t oid, uint8_t copies, uint64_t off, uint64_t len);
/* The same, waited for: 0 when nothing bad is left. */
co_fn int repair_range(struct sync *s, uint64_t oid, uint8_t copies, uint64_t off, uint64_t len);

#endif
