/* gateway_int.h - shared by gateway.c, session.c, vdi.c, owner_io.c, inode.c, reclaim.c,
 * sweep.c only.
 *
 * Invariants:
 *  G1 A version is taken and its write is put into the object's list without a yield, and only by
 *     the owner: after CLAIM was persisted here (cluster_do) and in an epoch not older than the
 *     claim (WHY B15, DESIGN 4.2, 5.6).
 *  G2 A write that was sent is never given up: its coroutine leaves early only when this daemon
 *     stops or the VDI is no longer ours (format, loss of ownership) (DESIGN 5.2, WHY B14), or when
 *     all of ring(e) have said in e that it cannot be applied and was not (a bad block, full
 * disks). G3 Answers of two epochs never mix: a write is complete when all of ring(e) have answered
 * in e and e is the owner's own epoch, and of the cluster's newest view, at that moment (WHY B2).
 *  G4 Calls of one object go out in the order of versions; a new round (view change, retry) begins
 *     when every call of the older round has come back.
 *  G5 A call in flight never refers to a coroutine's stack but through gw_call.fan, which the
 *     coroutine cuts when it leaves: so waits can end while calls are out.
 *  G6 Locks are taken in the order inode object, data object; the base of a copy is read before any
 *     lock is taken.
 *  G7 Nothing that this node says of itself (as the owner, or from the table) leaves it without its
 *     lease, asked for when all of the answer is there; a claim serves nothing before the leases of
 *     all that fell silent are over (DESIGN 4.4, WHY B7).
 *  G8 A request is forwarded with vdi.opens of a moment when its client's connection was there.
 * When the VDI has been opened since, the owner does nothing of it that is not out yet; the sender
 *     comes again, if the client is there still.  So what a client that was gone when another one
 *     opened the VDI had asked for comes before all that is served of that one, or never.
 * Return values: negative -ECANCELED (send no answer) or -EAGAIN (not the owner any more, or the
 * view moved: look again); else SD_RES_*.
 */
#ifndef SHEEP_GATEWAY_INT_H
#define SHEEP_GATEWAY_INT_H

#include "lib/base/map.h"
#include "lib/base/util.h"
#include "sheep/gateway.h"

#define GW_OBJS_IDLE_MAX 32768u	       /* object states kept for objects without requests */
#define GW_SESSIONS_MAX	 65536u	       /* clients whose newest session is remembered */
#define GW_CHUNKS_MAX	 2048u	       /* pieces of inode indexes in memory, 16 KiB each */
#define GW_SPARE_MAX	 1024u	       /* calls, and writes, kept for reuse */
#define GW_READ_MAX	 (4u << 20)    /* one PEER_READ */
#define GW_REMOVERS	 8u	       /* objects of one request removed at the same time */
#define GW_LOOK_NS	 20000000ull   /* something will change soon: look again at the latest */
#define GW_PARK_NS	 1000000000ull /* parked requests look around that often, whatever happens */
#define GW_RETRY_NS	 50000000ull   /* a replica could not do a write: send it again */
#define GW_STUCK_MAX	 3u	       /* such rounds until its replicas are compared */
#define GW_ROOM_NS	 200000000ull  /* how long a replica's word about its space is believed */
#define GW_ROOM_ASK                                                                                \
	(16u << 20) /* room that a replica must have above its reserve; below, each write asks */
#define GW_LEASE_LOOK_NS 25000000ull /* without a lease: look again */
/* Handover (DESIGN 5.1): so long only one other gateway's clients have used a VDI */
#define GW_HANDOVER_NS	     1500000000ull
#define GW_HANDOVER_IDLE_NS  5000000000ull  /* and a client of ours that is still there has not */
#define GW_HANDOVER_MAX_NS   60000000000ull /* after handovers that failed */
#define GW_HANDOVER_DRAIN_NS 300000000ull   /* for what is in work to end, while others wait */

#define IDX_CHUNK     4096u /* index entries in one chunk */
#define IDX_CHUNKS    (SD_NR_OBJS_MAX / IDX_CHUNK)
#define IDX_OFF	      ((uint64_t)SD_INODE_HEADER_SIZE)
#define GW_WORDS      (SD_MEMBERS_MAX / 64)
#define GW_CRC_INLINE 8u

struct gw_write;
struct gw_fan;

/* One request inside the gateway, from admission to its answer; on its coroutine's stack. */
struct gw_op {
	struct cds_list_head node; /* gateway.ops */
	struct gateway *gw;
	struct gw_client client; /* zero for our own work */
	struct peer_call *call;	 /* it was forwarded to us; else NULL */
	struct incarnation from; /* by whom */
	struct peer_call *fwd;	 /* it is forwarded by us, in this call; else NULL */
	uint64_t opens;		 /* forwarded to us: vdi.opens when its client was there (G8) */
	struct gw_session *ses;
	struct cds_list_head ses_node; /* its ops */
	uint32_t vid;
	bool internal; /* our own work: no session, no table checks */
	bool changes;  /* not a read */
	bool sent;     /* something of it is out: it must be waited for */
	bool closed;   /* nobody waits for the answer: not to be sent (again) */
	bool asked;    /* the table was brought up to date for it (CMD_BARRIER) */
	bool final;    /* the answer may leave: another node's, or given with the lease */
	bool said;     /* its session is known on the bus */
};

/* A client with sessions, as this owner knows it (DESIGN 5.1, WHY B6). */
struct gw_session {
	struct cds_list_head idle_node, ops;
	uint64_t client_id, newest;
	uint64_t clear; /* nothing older than this session is left here */
	uint64_t said;	/* by us on the bus (CMD_SESSION) */
	uint64_t owned; /* gateway.nr_owned when the bus was last asked for its newest session */
	bool idle;	/* on idle_sessions */
	bool saying;	/* CMD_SESSION is under way */
	struct co_cond ended;
};

enum gv_state { GV_NONE, GV_CLAIMING, GV_OWNED, GV_RELEASING };

/* A VDI that requests came for.  Once `gone` it is out of the map and never comes back. */
struct gw_vdi {
	struct gateway *gw;
	uint32_t vid;
	unsigned refs; /* ops, objects, and one while it is not GV_NONE */
	enum gv_state state;
	bool gone;
	/* GV_OWNED */
	uint64_t gen, seq;
	bool dirty;	    /* the generation began dirty: takeover object by object */
	bool sweeping;	    /* and all of them in the background */
	uint32_t min_epoch; /* no I/O of this generation in an older epoch */
	uint8_t copies, shift;
	unsigned nr_ops; /* being served as owner */
	struct co_cond idle;
	/* who uses it, for handing it over */
	bool own_used;	   /* a client of ours, since the last look */
	bool handing;	   /* its coroutine is there */
	uint64_t own_conn; /* connection of ours that used it last, while it is there; 0: none */
	uint64_t own_last; /* when it was last seen that a client of ours had used it */
	struct incarnation peer; /* the other gateway whose clients use it, */
	uint64_t peer_since;	 /* and nobody else's since then; 0: nobody's */
	uint64_t handover_ns;	 /* how long that must be */
	struct cds_list_head objs;
	/* flush (DESIGN 5.4) */
	bool flush_all, flushing, index_cached;
	bool suspect; /* what is not flushed may be lost: of a dead owner, or the members changed */
	bool lost;    /* a member says that it is cache lost; */
	bool telling; /* a client is being told */
	bool cached, caching; /* CMD_CACHED was applied; is under way */
	uint64_t flush_want, flush_done;
	struct co_cond flushed;
	uint64_t unflushed[GW_WORDS]; /* members of gateway.view with answered cached writes */
	struct idx_chunk **chunks;    /* IDX_CHUNKS, or NULL: none yet */
};

enum obj_state { OBJ_UNKNOWN, OBJ_LOADING, OBJ_KNOWN };

/* What the owner knows about one object in its generation. */
struct gw_obj {
	uint64_t oid;
	struct gw_vdi *v;
	unsigned refs;
	struct cds_list_head v_node, idle_node;
	enum obj_state state;
	bool exists, drop;     /* drop: do not keep it when idle */
	bool ask_all, healing; /* a replica in sync was found to differ */
	struct obj_ver ver;    /* of the newest write sent: the next one's `previous` */
	uint64_t size;
	struct co_ranges ranges;
	struct co_cond loaded;
	/* writes in flight, in the order of versions */
	struct cds_list_head writes, busy_node;
	unsigned calls_out;
	bool resend;	/* a new round is due, */
	bool hold;	/* but only when the retry timer or a view says so */
	bool unstick;	/* but only when the replicas were made equal */
	bool torn;	/* on every replica: a version of ours is given to what lies there */
	unsigned stuck; /* rounds in which one said that it lacks what comes before */
	uint32_t ring_epoch;
	unsigned nr_ring;
	uint32_t ring[SD_COPIES_MAX]; /* indexes into gateway.view */
};

/* A call to another node, and who waits for it. */
struct gw_call {
	struct peer_call c;
	struct gateway *gw;
	struct gw_fan *fan;	   /* NULL: nobody */
	struct cds_list_head node; /* fan.calls */
	struct gw_write *w;
	struct gw_call *next; /* spare */
	struct buf *reply;    /* reference to c.reply_buf */
	unsigned member;
	uint32_t epoch;
	bool finished;
};

/* Calls that one coroutine waits for; on its stack. */
struct gw_fan {
	struct cds_list_head node; /* gateway.fans */
	struct cds_list_head calls;
	struct gateway *gw;
	struct gw_vdi *v; /* NULL, or whose loss ends the wait */
	uint32_t epoch;
	unsigned left, nr, nr_ok;
	struct co *waiter;
};

/* A write or removal in flight; outlives its coroutine when that must leave. */
struct gw_write {
	struct cds_list_head node; /* gw_obj.writes */
	struct gw_obj *o;
	struct co *waiter; /* NULL: it has left */
	struct gw_write *next;
	bool linked, complete, again;
	bool refused; /* no replica can apply it (write_refused) */
	bool full;    /* one that could not has no room */
	uint16_t op, flags;
	struct obj_ver ver, prev;
	uint64_t off, len;
	struct buf *data;
	size_t data_off;
	uint32_t *crc, crc_small[GW_CRC_INLINE];
	unsigned crc_nr;
	uint32_t epoch; /* of this round */
	unsigned nr_need, nr_ok, nr_refused, calls_out;
#ifdef SIM_PLANTS
	uint32_t plant_answered; /* by machine of the simulator */
#endif
};

/* What owner_write() is to do. */
struct gw_io {
	uint16_t op; /* PEER_WRITE or PEER_REMOVE */
	bool create, durable;
	uint64_t off, len;
	struct buf *data;
	size_t data_off;
};

struct idx_chunk {
	struct cds_list_head lru; /* gateway.chunks when not pinned */
	struct gw_vdi *v;
	unsigned nr, pins;
	bool loaded, loading;
	struct co_cond ready;
	struct buf *buf; /* IDX_CHUNK entries */
};

struct gw_room {
	uint64_t asked_at;
	bool asking, full;
};

struct gateway {
	struct sheep *sh;
	struct view *view; /* the owner's own epoch: from gateway_view() */
	struct map vdis, objs, sessions;
	struct cds_list_head ops, fans, busy; /* busy: objects with writes in flight */
	unsigned nr_ops, nr_closed;
	unsigned nr_sweeps;	/* of nr_ops */
	struct co_cond changed; /* view, table, ownership, the end */
	struct co_cond idle;	/* a request left */
	struct cds_list_head idle_objs, idle_sessions, chunks;
	unsigned nr_idle_objs, nr_sessions, nr_chunks;
	struct gw_call *spare_calls;
	struct gw_write *spare_writes;
	unsigned nr_spare_calls, nr_spare_writes;
	unsigned nr_calls, nr_writes, nr_objs, nr_vdis; /* alive */
	struct gw_room *room;				/* by member of @view */
	struct env_timer retry;
	bool retry_armed;
	uint64_t nr_owned;     /* generations that began here */
	struct co_cond leased; /* the lease is back, or the end */
	struct env_timer lease;
	bool draining;	/* no background work */
	bool releasing; /* no claims, nothing new is served as owner */
	bool stopping;
	bool released; /* all that could be handed out is */
	uint64_t drain_until;
	bool reclaiming;    /* its coroutine is there */
	bool reclaim_again; /* something to look at came meanwhile */
};

static inline bool inc_eq(const struct incarnation *a, const struct incarnation *b)
{
	return a->start == b->start && !__builtin_memcmp(a->uuid, b->uuid, sizeof(a->uuid));
}

/* ---- gateway.c ---- */

/* It was forwarded before the VDI was opened once more: its client may have been gone by then (G8).
 */
bool op_fenced(const struct gw_op *op);
/* The request must leave: the daemon stops, or nobody wants it and nothing of it is out yet. */
bool op_over(const struct gw_op *op);
void op_begin_internal(struct gateway *gw, struct gw_op *op, uint32_t vid);
void op_end(struct gw_op *op);
/* Wait for a change (view, table, ownership), at most @ns. */
co_fn void gw_wait(struct gateway *gw, uint64_t ns, const char *why);
/* Is @e the owner's own epoch, and no newer view known here? */
bool gw_epoch_is(const struct gateway *gw, uint32_t e);
/* Look now and then whether the lease is back (gateway.leased). */
void gw_lease_watch(struct gateway *gw);
/* Read through the gateway for ourselves; a new buffer on SD_RES_SUCCESS. */
co_fn int gw_read_object(struct gw_op *op, uint64_t oid, uint32_t len, struct buf **ret);

/* ---- session.c ---- */

/* At the client's gateway, before anything of a reconnected client is served: the bus hears of its
 * session, once.  0, -ECANCELED: the client has gone on elsewhere, SD_RES_NO_MEM. */
co_fn int session_say(struct gw_op *op);
/* At the owner: 0 when @op may go on, or -ECANCELED, or SD_RES_NO_MEM. */
co_fn int session_enter(struct gw_op *op);
void session_leave(struct gw_op *op);
/* Clients without sessions: until nothing of closed connections to this VDI is out.  0 or
 * -ECANCELED. */
co_fn int session_wait_closed(struct gw_op *op);
void session_done(struct gateway *gw);

/* ---- vdi.c ---- */

struct gw_vdi *gv_get(struct gateway *gw, uint32_t vid);  /* NULL: no memory */
struct gw_vdi *gv_find(struct gateway *gw, uint32_t vid); /* borrowed, or NULL */
void gv_put(struct gw_vdi *v);
/* Is generation @gen of it still ours by the table?  After any yield since it was granted. */
bool gv_holds(const struct gw_vdi *v, uint64_t gen);
/* We own it from now on (the answer of CREATE or CLAIM is persisted, gv_holds()). */
void gv_own(struct gw_vdi *v, uint64_t gen, bool dirty);
/* We do not own it any more, or it is forgotten: everything that waits in it ends with -EAGAIN. */
void gv_drop(struct gw_vdi *v);
/* Send CLAIM, once at a time; -EAGAIN: look again. */
co_fn int gv_claim(struct gw_op *op, struct gw_vdi *v);
/* Stop admitting, let what is in work end until @until, flush, RELEASE.  False: RELEASE was not
 * sent; the state is still GV_RELEASING. */
co_fn bool gv_release(struct gw_op *op, struct gw_vdi *v, uint64_t until);
/* A client of this node, or of another gateway, uses @v through @op: whose it is, and should it
 * be handed over?  No yield. */
void gv_used(struct gw_op *op, struct gw_vdi *v);
/* A connection of a client of this node is closed. */
void gv_conn_closed(struct gateway *gw, uint64_t conn_id);
/* Before a cached write of this generation is answered: the machine knows that there are some.  0,
 * -EAGAIN, -ECANCELED. */
co_fn int gv_say_cached(struct gw_op *op, struct gw_vdi *v);
/* May I/O of this generation run now?  0, -EAGAIN. */
static inline bool gv_usable(const struct gw_vdi *v)
{
	const struct view *w = v->gw->view;

	return !v->gone && w && w->self >= 0 && w->epoch >= v->min_epoch;
}
/* A new view: @old's members are found again in gateway.view. */
void gv_view(struct gateway *gw, struct view *old);
void gv_op_begin(struct gw_vdi *v);
void gv_op_end(struct gw_vdi *v);

struct gw_obj *obj_get(struct gw_vdi *v, uint64_t oid); /* NULL: no memory */
void obj_put(struct gw_obj *o);
/* Make o->ring that of the present view; returns its length. */
unsigned obj_ring(struct gw_obj *o);
/* Give what lies on the replicas a version, and the writes in flight new ones; returns it. */
struct obj_ver obj_renumber(struct gw_obj *o);
/* Make the replicas equal before anything more of the object is sent. */
void obj_unstick(struct gw_obj *o);
/* Version and existence are known when this returns 0 (DESIGN 5.6: takeover when dirty). */
co_fn int obj_ready(struct gw_op *op, struct gw_obj *o);
/* Bring all replicas to the highest state that one of them has, which is @ver then.  0, -EAGAIN,
 * -ECANCELED. */
co_fn int obj_equalize(struct gw_obj *o, struct obj_ver *ver);
uint64_t obj_size_of(const struct gw_vdi *v, uint64_t oid);
void objs_trim(struct gateway *gw, unsigned keep);

/* ---- owner_io.c ---- */

void fan_init(struct gw_fan *f, struct gateway *gw, struct gw_vdi *v);
/* A call to member @member of the present view, not submitted yet; NULL: no memory. */
struct gw_call *fan_call(struct gw_fan *f, enum peer_op op, unsigned member);
void fan_submit(struct gw_fan *f, struct gw_call *k, const struct incarnation *to);
/* Until all have come back (@first: or one with success).  0, -ECANCELED, -EAGAIN. */
co_fn int fan_wait(struct gw_fan *f, bool first);
void fan_done(struct gw_fan *f);
bool call_ok(const struct gw_call *k);
/* Answers SD_RES_*: 0 done on all replicas of one epoch.  The caller has the range exclusively, and
 * the object is known.  Sets op->sent. */
co_fn int owner_write(struct gw_op *op, struct gw_obj *o, const struct gw_io *io);
/* The caller has the range shared, or knows that nobody writes to it. */
co_fn int owner_read(struct gw_op *op, struct gw_obj *o, uint64_t off, uint64_t len,
		     struct buf *buf, size_t buf_off);
/* Have the replicas room for @io?  The caller has the range exclusively.  SD_RES_SUCCESS,
 * SD_RES_NO_SPACE, SD_RES_NO_MEM, negative. */
co_fn int owner_room(struct gw_op *op, struct gw_obj *o, const struct gw_io *io);
co_fn int owner_flush(struct gw_op *op, struct gw_vdi *v);
/* SD_RES_HALT or SD_RES_SUCCESS (protocol.md 9.5). */
uint32_t gw_halted(const struct gateway *gw, uint8_t copies, bool write);
void owner_init(struct gateway *gw);
void owner_view(struct gateway *gw);
void owner_stop(struct gateway *gw);
void owner_wake(struct gw_vdi *v);
void owner_done(struct gateway *gw);

/* Removal of many objects, GW_REMOVERS at a time. */
struct gw_removal {
	struct gw_op *op;
	struct gw_vdi *v;
	uint64_t base;	     /* oid of index 0 */
	const uint32_t *idx; /* indexes, or NULL: @next..@end themselves */
	uint32_t next, end;
	uint64_t seq; /* what was written after it in this generation stays (T23) */
	bool background;
	int error;
	unsigned nr_removed;
};
co_fn int objs_remove(struct gw_removal *rm);

/* ---- inode.c ---- */

void inode_header(const struct vdi *v, struct sd_inode_header *h);
co_fn int inode_read(struct gw_op *op, struct gw_vdi *v, struct gw_request *r);
/* Composed from the table alone: the header, and zeros (tombstones; reads of the header only). */
int inode_read_table(struct gateway *gw, const struct vdi *v, struct gw_request *r);
co_fn int inode_write(struct gw_op *op, struct gw_vdi *v, struct gw_request *r);
co_fn int inode_discard(struct gw_op *op, struct gw_vdi *v, uint32_t idx);
/* Indexes of own objects at and above @from, at most @max of one chunk; *next: where to go on,
 * SD_NR_OBJS_MAX at the end.  The number, or negative. */
co_fn int inode_own(struct gw_op *op, struct gw_vdi *v, uint32_t from, uint32_t *idx,
		    uint32_t *next);
void inode_forget(struct gw_vdi *v);

/* ---- sweep.c ---- */

/* VDIs that we own and that are dirty: start to bring all of their objects in order, if nobody is
 * at it.  It ends when the VDI is clean or not ours any more, or when we drain. */
void sweep_kick(struct gateway *gw);

/* ---- reclaim.c ---- */

/* Deleted VDIs whose objects we should remove: start, if there are any. */
void reclaim_kick(struct gateway *gw);

#endif
