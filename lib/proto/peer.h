/* peer.h - messages between daemons: own, versioned opcodes (DESIGN 5.1), no part of the client
 * protocol.
 *
 * A peer connection is opened to the member's client port (or -i address) and begins with one
 * ordinary client request, opcode SD_OP_PEER_HELLO (0xE0, version 0x0a, WRITE), payload struct
 * peer_hello; after its SUCCESS reply both directions carry only: struct peer_hdr (168 bytes,
 * little-endian), then crc_nr u32 checksums, then data_len bytes.  One direction carries requests,
 * the other replies (matched by id, any order), or PEER_PULL's stream of several replies, the last
 * with PEER_F_LAST.
 */
#ifndef LIB_PROTO_PEER_H
#define LIB_PROTO_PEER_H

#include <stdint.h>

#define PEER_PROTO_VERSION 4u
#define SD_OP_CLIENT_HELLO                                                                         \
	0xE1u /* our own clients: payload struct client_hello (DESIGN 5.1, sessions) */
#define SD_OP_PEER_HELLO 0xE0u

struct client_hello {
	uint64_t client_id; /* random, made by the client library when it is opened */
	uint64_t session;   /* counted up at each reconnect */
	uint32_t version;   /* 1 */
	uint32_t pad;
};

struct peer_hello {
	uint32_t version;
	uint32_t conn_nr; /* counted up by the opener: a newer connection voids the older one */
	uint32_t channel; /* enum peer_channel: a peer has one connection for each */
	uint32_t pad;
	uint64_t cluster_ctime;
	uint8_t from_uuid[16];
	uint64_t from_start;
	uint8_t to_uuid[16];
	uint64_t to_start; /* the incarnation that the opener means; another one refuses */
};

/* What waits for what, so that full connections never wait for each other in a circle: a forwarded
 * request waits for writes, a write for an object to come in sync, and the control channel for
 * nothing but the disk and the view. */
enum peer_channel {
	PEER_CH_DATA,	 /* WRITE, REMOVE, READ, VERSION, SETTLE, ROOM: in order */
	PEER_CH_CONTROL, /* SYNC_QUERY, SYNC_LIST, VID_LIST, PULL, FLUSH, DROP_CHECK, PING,
			    TORN, TORN_AS */
	PEER_CH_FORWARD, /* FORWARD */
	PEER_CH_PROBE,	 /* PROBE: waits for nothing */
	PEER_CH_NR
};

enum peer_op {
	PEER_WRITE = 1, /* epoch, oid, ver, prev, off, data; F_CREATE F_DURABLE; obj_size, copies */
	PEER_REMOVE,	/* epoch, oid, ver, prev */
	PEER_READ,	/* epoch, oid, off, len -> data, ver */
	PEER_VERSION,	/* epoch, oid, copies, gen -> ver, obj_size: answered once in sync in epoch
			   (5.6); AGAIN: it is torn on every replica, ask again with ver, a version of
			   yours that no write has, for what lies there (6) */
	PEER_SYNC_QUERY, /* epoch, oid, copies -> synced, F_IN_SYNC F_UNKNOWN F_TORN F_LOSSY, ver,
			    obj_size (5.5) */
	PEER_SYNC_LIST,	 /* epoch, hash range off..len (both inclusive), copies -> array of struct
			    peer_obj, and for what is not in it synced, F_IN_SYNC, F_UNKNOWN; the
			    answer covers off..len of the reply: ask again for the rest (5.5 in
			    bulk) */
	PEER_PULL,	 /* epoch, gen, oid -> stream of data at off; F_LAST: ver, obj_size */
	PEER_FLUSH,	 /* epoch, vid, copies: everything cached here becomes durable.  F_IN_SYNC:
			    AGAIN until each arc that is the replier's has a replica in sync.  Reply:
			    F_LOSSY: the VDI is cache lost (5.4) */
	PEER_FORWARD,	 /* a client's request for the owner: client header in `client`, client_id,
			    session; ver_seq: how often the VDI was opened when the client was known
			    to be there (vdi.opens).  AGAIN: not the owner, or it was opened since */
	PEER_DROP_CHECK, /* epoch, oid: is it in sync there?  (before a surplus copy is dropped) */
	PEER_SETTLE,	 /* epoch, oid, copies, ver: bring this replica to ver by a pull from member
			    uuid     (5.6) */
	PEER_PING,
	PEER_VID_LIST, /* epoch, vid, from hash off on -> array of oids (u64) of that VID in the
			  store, by (hash, oid); the answer covers off..len of the reply (both
			  inclusive): ask again for the rest (5.6) */
	PEER_PROBE,    /* do you live?  Answered at once by whoever receives it (5.6) */
	PEER_ROOM,     /* epoch, oid, copies, off, len, obj_size; F_CREATE: has it room for these
			  bytes?  NO_SPACE: no.  What an object takes already needs none (5.2) */
	PEER_TORN,    /* epoch, oid: to the owner: it is torn on every replica, and waits for you to
			 name a version for what lies there (6) */
	PEER_TORN_AS, /* epoch, oid, ver: yours counts as it lies, in this version (6) */
	PEER_OP_NR
};

enum peer_flag {
	PEER_F_CREATE = 1,
	PEER_F_DURABLE = 2,
	PEER_F_LAST = 4,
	PEER_F_IN_SYNC = 8,
	PEER_F_UNKNOWN = 16,
	PEER_F_TORN = 32,
	PEER_F_LOSSY = 128, /* the replier has lost power since it held this in sync: what was
			       cached may be gone (5.4) */
	PEER_F_BAD = 64,    /* READ: a checksum failed here (result EIO), a repair has begun: read
			       elsewhere */
};

struct peer_hdr {
	uint32_t magic; /* PEER_MAGIC */
	uint16_t op;
	uint16_t flags;
	uint32_t id;
	uint32_t result; /* replies: SD_RES_*; OLD_NODE_VER: the request's epoch is older than mine
			  */
	uint32_t epoch;	 /* request: the sender's; reply: the replier's */
	uint32_t vid;
	uint64_t oid;
	uint64_t ver_gen, ver_seq;
	uint64_t prev_gen, prev_seq;
	uint64_t off, len; /* len: bytes wanted by READ */
	uint64_t obj_size;
	uint32_t synced; /* SYNC_QUERY reply: newest epoch in which it was in sync there */
	uint8_t copies;
	uint8_t pad[3];
	uint64_t client_id, session;
	uint32_t crc_nr;    /* u32 checksums that follow the header */
	uint32_t data_len;  /* bytes that follow them */
	uint8_t client[48]; /* FORWARD: struct sd_req; its reply: struct sd_rsp.  SETTLE: uuid +
			       start of the source */
};
#define PEER_MAGIC 0x70656572u
_Static_assert(sizeof(struct peer_hdr) == 168, "peer wire header");

#define PEER_VID_LIST_MAX 512u /* oids in one answer of VID_LIST */

/* One row of a PEER_SYNC_LIST reply. */
struct peer_obj {
	uint64_t oid;
	uint64_t ver_gen, ver_seq;
	uint64_t size;
	uint32_t synced;
	uint8_t copies;
	uint8_t flags; /* PEER_F_IN_SYNC, PEER_F_TORN, PEER_F_UNKNOWN, PEER_F_LOSSY */
	uint16_t pad;
};
_Static_assert(sizeof(struct peer_obj) == 40, "peer wire record");

#endif
