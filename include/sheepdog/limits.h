/* limits.h - every bound of the system in one place, related by _Static_assert.  No code. */
#ifndef SHEEPDOG_LIMITS_H
#define SHEEPDOG_LIMITS_H

#define SD_BLOCK_SIZE	     4096u /* unit of checksums and of journal records */
#define SD_NAME_LEN	     256u  /* VDI name, tag: NUL padded */
#define SD_NR_VDIS	     (1u << 24)
#define SD_OBJ_SHIFT_MIN     20u
#define SD_OBJ_SHIFT_MAX     31u
#define SD_OBJ_SHIFT_DEFAULT 22u
#define SD_NR_OBJS_MAX	     (1u << 20) /* index entries of an inode */
#define SD_INODE_HEADER_SIZE 4664u
#define SD_INODE_INDEX_SIZE  (SD_NR_OBJS_MAX * 4u)
#define SD_INODE_OLD_SIZE    (SD_INODE_HEADER_SIZE + SD_INODE_INDEX_SIZE) /* QEMU's and tgt's */
#define SD_INODE_SIZE	     12587576u
#define SD_ATTR_SIZE	     66320u
#define SD_COPIES_MAX	     31u
#define SD_COPIES_DEFAULT    3u
#define SD_MEMBERS_MAX	     1024u
#define SD_VNODES_DEFAULT    128u
#define SD_VNODES_MAX	     65535u

/* Messages */
#define SD_DATA_LEN_MAX (1u << 31)   /* one READ or WRITE payload */
#define SD_CTRL_LEN_MAX (128u << 10) /* payload of a cluster operation */
#define SD_CLIENTS_MAX	1000u	     /* client connections of one daemon */
#define SD_CONN_INFLIGHT_MAX                                                                       \
	256u /* requests of one connection being worked on; more wait in the socket */
#define SD_CONN_BYTES_MAX                                                                          \
	(64u << 20) /* payload bytes of one connection in memory (a larger single one is taken     \
		       alone) */
#define SD_DAEMON_BYTES_MAX (512u << 20) /* payload bytes of all client connections in memory */
#define SD_REQUESTS_MAX	    4096u	 /* coroutines of one daemon */
#define BUS_MSG_MAX	    (16u << 20)

/* Leases and hung nodes (DESIGN 4.4), in nanoseconds of a node's own clock */
#define SD_HEARTBEAT_NS 250000000ull
#define SD_LEASE_NS	1000000000ull
#define SD_EXPEL_NS	1700000000ull /* so long nothing was heard of a member: it is accused */
#define SD_DRIFT_NS	100000000ull  /* what two clocks may differ by over a lease */
/* Alive on the bus, dead for its peers (DESIGN 5.6): */
#define SD_PEER_QUIET_NS  500000000ull	/* so long no answer to anything: it is asked if it lives */
#define SD_PEER_SILENT_NS 2000000000ull /* that question is not answered either: it is accused */
#define SD_INSIST_NS	  2500000000ull /* two accuse each other for so long: one of them goes */

/* Store */
#define STORE_FORMAT 1u
#define STORE_INTENT_MIN                                                                           \
	(64u << 10) /* writes of this size and more go in place behind an intent                   \
		     */
#define STORE_JOURNAL_SIZE_MIN	   (64u << 20)
#define STORE_JOURNAL_SIZE_DEFAULT (256u << 20)

_Static_assert(SD_EXPEL_NS + SD_LEASE_NS + SD_DRIFT_NS < 3000000000ull,
	       "a hung node holds its clients up for less than 3 s");
_Static_assert(SD_EXPEL_NS < SD_PEER_SILENT_NS, "who hangs as a whole is found by the bus first");
_Static_assert(SD_PEER_SILENT_NS + SD_HEARTBEAT_NS < SD_INSIST_NS,
	       "others have the time to look, and to say that one of the two is the sick one");
_Static_assert(4 * SD_HEARTBEAT_NS <= SD_LEASE_NS, "a lease outlives a late heartbeat");
_Static_assert(SD_INODE_OLD_SIZE == 4198968u, "protocol.md 5.1");
_Static_assert(SD_INODE_SIZE == SD_INODE_OLD_SIZE + 8u * SD_NR_OBJS_MAX, "protocol.md 5.1");
_Static_assert(SD_CONN_BYTES_MAX <= SD_DAEMON_BYTES_MAX,
	       "one connection within the daemon's bound");
_Static_assert(SD_CONN_INFLIGHT_MAX <= SD_REQUESTS_MAX,
	       "one connection cannot ask for more than there is");

#endif
