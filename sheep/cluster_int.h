/* cluster_int.h - inside of the cluster module: the pure state machine, its codec, its files.
 *
 * cluster.c, cluster_join.c, cluster_lease.c, cluster_vdi.c, cluster_codec.c: pure.  Inputs are the
 * events of the bus in their order; outputs a reply and a struct cs_out that says what others must
 * hear of. member.c (events, commands, life), member_xfer.c (state transfer), member_view.c (what
 * is published), member_file.c (epoch/): the side with I/O.
 */
#ifndef SHEEP_CLUSTER_INT_H
#define SHEEP_CLUSTER_INT_H

#include <string.h>

#include "include/sheepdog/proto.h"
#include "sheep/cluster.h"

#define CLUSTER_MSG_VERSION   3u
#define CLUSTER_STATE_VERSION 4u
#define CLUSTER_LOBBY_MAX     (2u * SD_MEMBERS_MAX) /* nodes on the bus, refused ones included */
#define CLUSTER_SESSIONS      4096u		    /* clients whose newest session is known */
#define CLUSTER_SAMPLE	      256u		    /* VDIs, sessions in one hash */
#define CLUSTER_CHUNK	      (256u << 10)	    /* of a state in transfer */
#define CLUSTER_STATE_MAX     (1ull << 30)	    /* encoded state */
#define CLUSTER_MSG_HEADER    10u		    /* version, type, id */
#define CLUSTER_STATE_HEADER  38u		    /* of CMD_STATE, behind that */
_Static_assert(CLUSTER_CHUNK + CLUSTER_MSG_HEADER + CLUSTER_STATE_HEADER < BUS_MSG_MAX,
	       "a chunk fits into a message");

static inline bool inc_same(const struct incarnation *a, const struct incarnation *b)
{
	return a->start == b->start && !memcmp(a->uuid, b->uuid, sizeof(a->uuid));
}

/* ---- encoding: little-endian, field by field ---- */

struct enc { /* zero it; free p */
	uint8_t *p;
	size_t len, cap;
	bool failed; /* out of memory */
};
void enc_bytes(struct enc *e, const void *p, size_t len);
void enc_u8(struct enc *e, uint8_t v);
void enc_u16(struct enc *e, uint16_t v);
void enc_u32(struct enc *e, uint32_t v);
void enc_u64(struct enc *e, uint64_t v);
void enc_inc(struct enc *e, const struct incarnation *i);

struct dec {
	const uint8_t *p, *end;
	bool failed; /* too short, or nonsense */
};
void dec_bytes(struct dec *d, void *p, size_t len);
uint8_t dec_u8(struct dec *d);
uint16_t dec_u16(struct dec *d);
uint32_t dec_u32(struct dec *d);
uint64_t dec_u64(struct dec *d);
void dec_inc(struct dec *d, struct incarnation *i);
static inline size_t dec_left(const struct dec *d)
{
	return (size_t)(d->end - d->p);
}

/* ---- the state ---- */

struct epoch_name {
	uint32_t epoch;
	uint8_t name[8];
};

/* One member in the history, shared by successive epochs in which it was the same. */
struct cs_node {
	unsigned refs;
	struct member m; /* without nr_vnodes */
};

struct hist {
	uint32_t epoch;
	uint8_t name[8];
	uint64_t time;
	bool forced;
	unsigned nr;
	struct hist_member {
		struct cs_node *node;
		uint16_t nr_vnodes;
	} * members;
};

struct start_node { /* of the start set (DESIGN 4.3) */
	uint8_t uuid[16];
	struct net_addr addr; /* where it was, to name it to people */
};

enum refusal {
	REF_NONE,
	REF_VERSION,
	REF_SHUTDOWN,
	REF_UUID,
	REF_ADDR,
	REF_FULL,
	REF_CTIME,
	REF_AUTO,  /* -V, but the cluster computes them */
	REF_FIXED, /* the reverse */
	REF_BRANCH,
	REF_EXPELLED, /* this incarnation was in, and is out for good (DESIGN 5.6) */
	REF_NR
};

/* How new a state is: compared in this order.  (DESIGN 4.3 says epoch and position; a force recover
 * by an operator outranks both.) */
struct cs_key {
	uint32_t forces, epoch;
	uint64_t pos;
};

/* What a joiner says about itself. */
struct join {
	uint64_t attempt;
	struct member m;
	uint64_t ctime;
	struct cs_key key;
	uint64_t max_gen;
	uint32_t clean_epoch;
	uint8_t clean_name[8];
	uint64_t random, time;
	bool given_up; /* it knows of itself that it is, but did not come to act on it */
	uint32_t common_epoch;
	unsigned nr_names;
	struct epoch_name *names; /* its history, oldest first */
};

/* Somebody on the bus who has sent JOIN. */
struct lobby {
	struct join j;
	bool synced;   /* has the state of the group */
	bool admitted; /* in the start set; the epoch with it is not made yet */
	enum refusal refused;
	unsigned nr_acks;
	struct incarnation *acks; /* who made ADMIT of it durable */
	bool accused;		  /* by @accuser; one more expels it */
	struct incarnation accuser;
	/* this node's own: no part of the state */
	bool ack_sent, told;
};

/* A client that has opened more than one session (DESIGN 5.1). */
struct cs_session {
	uint64_t client, session;
	uint64_t pos; /* where: the oldest one is forgotten first */
};

struct cs {
	struct cluster_params params;
	enum cluster_status status;
	bool live; /* it runs: events count (pos) and are logged */
	uint32_t forces;
	uint64_t pos, gen, last_time;
	/* Where a member fell silent or was expelled last; its lease may still run (DESIGN 4.4).
	 * 0: none, or somebody has waited it out. */
	uint64_t silent;
	unsigned nr_hist, nr_members, nr_start, nr_lobby, nr_vdis, cap_vdis;
	struct hist *hist[CLUSTER_HISTORY]; /* oldest first; the last one is the present epoch */
	struct member *members;		    /* of the present epoch, by (addr, port) */
	struct start_node *start;
	struct lobby **lobby;	     /* in order of arrival */
	struct vdi **vdis;	     /* by vid */
	struct cs_session *sessions; /* by client; CLUSTER_SESSIONS, or NULL */
	unsigned nr_sessions;
};

/* What an event has caused, for those who act on it.  Zero it; cs_out_done(). */
struct cs_out {
	bool format, shutdown;
	bool epoch;  /* a new one, or the old one anew: */
	bool clean;  /* after a clean restart */
	bool guess;  /* its time is a guess: CMD_EPOCH_TIME wanted */
	bool silent; /* a member fell silent or was expelled: leases have to be waited for */
	bool expel;  /* @expelled was, by the command that was applied */
	struct incarnation expelled;
	unsigned nr_vids, cap_vids;
	uint32_t *vids; /* changed VDIs */
};
void cs_out_done(struct cs_out *out);
int cs_out_vid(struct cs_out *out, uint32_t vid);

/* cluster.c.  All of them: 0 or -ENOMEM, after which the state is of no use. */
struct cs *cs_new(void);
void cs_free(struct cs *s); /* NULL is fine */
/* The first of a group: its state is what its disk has. */
int cs_found(struct cs *s, const struct join *self, struct cs_out *out);
/* @silent: those of who has left that fell silent: their death is not known (B5). */
int cs_view(struct cs *s, const struct incarnation *present, unsigned nr,
	    const struct incarnation *silent, unsigned nr_silent, struct cs_out *out);
/* A message of the bus.  @reply: the command with its answer (type CMD_NR: it was none). */
int cs_message(struct cs *s, const struct incarnation *from, const void *msg, size_t len,
	       struct cmd *reply, struct cs_out *out);
/* Is it worth a place in the log? */
bool cs_logged(const void *msg, size_t len);
/* The state of the group's best informed node (cs_best) has arrived; frees @better. */
int cs_adopt(struct cs *s, struct cs *better, struct cs_out *out);
/* A state that was read from disk: nobody is there. */
void cs_sleep(struct cs *s);
/* Whose disk knows more than @s: it sends its state, all wait for it.  NULL: nobody. */
const struct lobby *cs_best(const struct cs *s);
int cs_key_cmp(const struct cs_key *a, const struct cs_key *b);
struct cs_key cs_key(const struct cs *s);
struct lobby *cs_lobby(const struct cs *s, const struct incarnation *inc);
static inline bool cs_is_here(const struct cs *s, const struct incarnation *inc)
{
	const struct lobby *l = cs_lobby(s, inc);

	return l && !l->refused;
}
/* Who speaks for the group: the oldest of those that have the state. */
const struct lobby *cs_speaker(const struct cs *s);
int cs_member(const struct cs *s, const struct incarnation *inc); /* index, or -1 */
const struct hist *cs_hist(const struct cs *s, uint32_t epoch);
static inline const struct hist *cs_newest(const struct cs *s)
{
	return s->nr_hist ? s->hist[s->nr_hist - 1] : NULL;
}
void hist_free(struct hist *h);
void cs_forget(struct cs *s); /* all but the lobby */

/* cluster_epoch.c: what changes the epoch */
int cs_epoch_next(struct cs *s, const struct lobby *const *joiners, unsigned nr_joiners,
		  const struct cmd *cmd, struct cs_out *out);
int cs_try_start(struct cs *s, struct cs_out *out);
uint32_t cs_format(struct cs *s, const struct cmd *cmd, struct cs_out *out, int *err);
uint32_t cs_force(struct cs *s, const struct cmd *cmd, struct cs_out *out, int *err);
int cs_admit(struct cs *s, struct lobby *l);
int cs_admitted(struct cs *s, const struct cmd *cmd, struct cs_out *out);
int cs_start_set(struct cs *s);

/* cluster_lease.c: who hangs, who fell silent, sessions of clients */
void cs_silent(struct cs *s, const struct incarnation *who, unsigned nr, struct cs_out *out);
uint32_t cs_accuse(struct cs *s, const struct incarnation *from, const struct cmd *cmd,
		   struct cs_out *out, int *err);
void cs_acquit_all(struct cs *s);
uint32_t cs_leases_over(struct cs *s, const struct incarnation *from, const struct cmd *cmd);
uint32_t cs_session_open(struct cs *s, struct cmd *cmd, int *err);
uint64_t cs_session(const struct cs *s, uint64_t client);

/* cluster_join.c */
enum refusal cs_join_check(const struct cs *s, const struct lobby *l);
/* malloc'ed sentence for the operator of the refused node */
char *cs_refusal_text(const struct cs *s, const struct lobby *l);
/* Does the branch of @j differ from ours?  *common: the last epoch that both have, 0: none. */
bool cs_given_up(const struct cs *s, const struct join *j, uint32_t *common);
void lobby_free(struct lobby *l);
void join_done(struct join *j);
int join_copy(struct join *to, const struct join *from);
/* "10.0.0.1:7000" */
void net_addr_text(const struct net_addr *a, char *buf, size_t len);
/* malloc'ed sentence: who of the start set is missing */
char *cs_waiting_text(const struct cs *s);

/* cluster_vdi.c */
struct vdi *cs_vdi(const struct cs *s, uint32_t vid);
unsigned cs_vdi_at(const struct cs *s, uint32_t vid); /* index of the first one >= vid */
int cs_vdi_add(struct cs *s, unsigned at, struct vdi *v);
void vdi_free(struct vdi *v);
uint32_t cs_lookup(const struct cs *s, const char *name, const char *tag, uint32_t snapid,
		   struct vdi **ret);
/* Commands on VDIs: fills in the reply. */
int cs_vdi_cmd(struct cs *s, const struct incarnation *from, struct cmd *cmd, struct cs_out *out);
/* Members have left: their unfinished creates become tombstones, their shared locks end. */
int cs_vdi_left(struct cs *s, struct cs_out *out);
void cs_vdi_unlock_all(struct cs *s);
void cs_vdi_free_all(struct cs *s);

/* cluster_codec.c */
void cs_encode(const struct cs *s, struct enc *e);
/* A sample of it for comparing nodes: all but the VDIs, the sessions and the older history, and
 * some of those, others for each @round.  Cheap however large the state is. */
void cs_encode_sample(const struct cs *s, uint64_t round, struct enc *e);
static inline bool cs_sample_is_all(const struct cs *s)
{
	return s->nr_vdis <= CLUSTER_SAMPLE && s->nr_sessions <= CLUSTER_SAMPLE;
}
/* -EBADMSG, -ENOMEM; -EPROTO: of another CLUSTER_STATE_VERSION */
int cs_decode(const void *p, size_t len, struct cs **ret);
void msg_begin(struct enc *e, enum cmd_type type, uint64_t id);
void cmd_encode(struct enc *e, const struct cmd *c);
bool cmd_decode(struct dec *d, struct cmd *c);
void join_encode(struct enc *e, const struct join *j);
int join_decode(struct dec *d, struct join *j); /* -EBADMSG, -ENOMEM */

enum state_kind { STATE_FOR_JOINER = 1, STATE_OFFER, STATE_REFUSAL };
struct state_msg { /* CMD_STATE */
	enum state_kind kind;
	struct incarnation target; /* OFFER: the sender */
	uint64_t attempt;
	uint32_t chunk;
	bool last;
	const uint8_t *data;
	size_t len;
};
void state_msg_encode(struct enc *e, const struct state_msg *m);
bool state_msg_decode(struct dec *d, struct state_msg *m);

/* Header of any message: false: not ours. */
struct msg_head {
	uint8_t version;
	enum cmd_type type;
	uint64_t id;
};
bool msg_decode(struct dec *d, struct msg_head *h);

#endif
