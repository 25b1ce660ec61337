/* proto.h - the client wire protocol (protocol.md 1, 2, 4, 5): constants and structures, no code.
 *
 * All integers are little-endian; the structures overlay the wire bytes (configure refuses
 * big-endian hosts).  Offsets are asserted below; tests/unit/test_proto.c checks the worked
 * exchanges of section 12.
 */
#ifndef SHEEPDOG_PROTO_H
#define SHEEPDOG_PROTO_H

#include <stddef.h>
#include <stdint.h>

#include "sheepdog/limits.h"
#include "sheepdog/result.h"

#define SD_PROTO_VER	      2u    /* public operations: 0, 1, 2 are accepted */
#define SD_INTERNAL_PROTO_VER 0x0au /* operations >= 0x80 */
#define SD_LISTEN_PORT	      7000u

/* X(opcode, name) */
/* clang-format off */
#define SD_OPS(X) \
	X(0x01, CREATE_AND_WRITE_OBJ) \
	X(0x02, READ_OBJ) \
	X(0x03, WRITE_OBJ) \
	X(0x04, REMOVE_OBJ) \
	X(0x05, DISCARD_OBJ) \
	X(0x11, NEW_VDI) \
	X(0x12, LOCK_VDI) \
	X(0x13, RELEASE_VDI) \
	X(0x14, GET_VDI_INFO) \
	X(0x15, READ_VDIS) \
	X(0x16, FLUSH_VDI) \
	X(0x17, DEL_VDI) \
	X(0x18, GET_CLUSTER_DEFAULT) \
	X(0x82, GET_NODE_LIST) \
	X(0x84, MAKE_FS) \
	X(0x85, SHUTDOWN) \
	X(0x86, STAT_SHEEP) \
	X(0x87, STAT_CLUSTER) \
	X(0x89, GET_VDI_ATTR) \
	X(0x8a, FORCE_RECOVER) \
	X(0x90, GET_STORE_LIST) \
	X(0x94, CLEANUP) \
	X(0x95, TRACE_ENABLE) \
	X(0x96, TRACE_DISABLE) \
	X(0x97, STAT_RECOVERY) \
	X(0x98, FLUSH_DEL_CACHE) \
	X(0x99, NOTIFY_VDI_DEL) \
	X(0x9a, KILL_NODE) \
	X(0x9b, TRACE_STATUS) \
	X(0x9c, TRACE_READ_BUF) \
	X(0xa1, GET_OBJ_LIST) \
	X(0xa2, GET_EPOCH) \
	X(0xa3, CREATE_AND_WRITE_PEER) \
	X(0xa4, READ_PEER) \
	X(0xa5, WRITE_PEER) \
	X(0xa6, REMOVE_PEER) \
	X(0xa8, ENABLE_RECOVER) \
	X(0xa9, DISABLE_RECOVER) \
	X(0xab, GET_VDI_COPIES) \
	X(0xac, COMPLETE_RECOVERY) \
	X(0xaf, NOTIFY_VDI_ADD) \
	X(0xb0, DELETE_CACHE) \
	X(0xb1, MD_INFO) \
	X(0xb2, MD_PLUG) \
	X(0xb3, MD_UNPLUG) \
	X(0xb4, GET_HASH) \
	X(0xb5, REWEIGHT) \
	X(0xb8, STAT) \
	X(0xb9, GET_LOGLEVEL) \
	X(0xba, SET_LOGLEVEL) \
	X(0xbb, NFS_CREATE) \
	X(0xbc, NFS_DELETE) \
	X(0xbd, EXIST) \
	X(0xbe, CLUSTER_INFO) \
	X(0xbf, ALTER_CLUSTER_COPY) \
	X(0xc0, ALTER_VDI_COPY) \
	X(0xc1, DECREF_OBJ) \
	X(0xc2, DECREF_PEER) \
	X(0xc5, REPAIR_REPLICA) \
	X(0xc6, OIDS_EXIST) \
	X(0xc7, VDI_STATE_CHECKPOINT_CTL) \
	X(0xc8, INODE_COHERENCE) \
	X(0xc9, READ_DEL_VDIS) \
	X(0xca, GET_RECOVERY) \
	X(0xcb, SET_RECOVERY) \
	X(0xcc, SET_VNODES) \
	X(0xcd, GET_VNODES)
/* clang-format on */

enum sd_op {
#define SD_OP_ENUM_(code, name) SD_OP_##name = code,
	SD_OPS(SD_OP_ENUM_)
#undef SD_OP_ENUM_
};

enum sd_flag {
	SD_FLAG_WRITE = 0x01,
	SD_FLAG_COW = 0x02,
	SD_FLAG_CACHE = 0x04,
	SD_FLAG_DIRECT = 0x08,
	SD_FLAG_PIGGYBACK = 0x10,
	SD_FLAG_TGT = 0x20,
	SD_FLAG_FWD = 0x40,
	SD_FLAG_RECOVERY = 0x80,
	SD_FLAG_CREAT = 0x100, /* attributes; READ_PEER: wildcard */
	SD_FLAG_EXCL = 0x200,
	SD_FLAG_DEL = 0x400,
};

enum sd_cluster_flag {
	SD_CLUSTER_STRICT = 0x01,
	SD_CLUSTER_DISKMODE = 0x02,
	SD_CLUSTER_AUTO_VNODES = 0x04,
	SD_CLUSTER_USE_LOCK = 0x08,
	SD_CLUSTER_RECYCLE_VID = 0x10,
	SD_CLUSTER_AVOID_DISKFULL = 0x20,
};

struct sd_req {
	uint8_t proto_ver, opcode;
	uint16_t flags;
	uint32_t epoch, id, data_length;
	union {
		struct {
			uint64_t oid, cow_oid;
			uint8_t copies, copy_policy, ec_index, reserved;
			uint32_t tgt_epoch, offset, pad;
		} obj;
		struct {
			uint64_t vdi_size;
			uint32_t base_vdi_id;
			uint8_t copies, copy_policy, store_policy, block_size_shift;
			uint32_t snapid, type, pad[2];
		} vdi;
		struct {
			uint64_t oid, ctime;
			uint8_t copies, copy_policy;
			uint16_t flags;
			uint32_t tag, nodes_nr;
			uint8_t block_size_shift, pad[3];
		} cluster;
		struct {
			uint32_t old_vid, new_vid;
			uint8_t copies, set_bitmap, copy_policy, block_size_shift;
			uint32_t pad[5];
		} vdi_state;
		struct {
			uint64_t oid;
			uint8_t addr[16];
			uint16_t port, pad[3];
		} forw;
		uint32_t u[8];
	};
};

struct sd_rsp {
	uint8_t proto_ver, opcode;
	uint16_t flags;
	uint32_t epoch, id, data_length;
	union {
		uint32_t result;
		struct {
			uint32_t result_, copies_pad; /* copies in the low byte */
			uint64_t offset, pad[2];
		} obj;
		struct {
			uint32_t result_, pad, vdi_id, attr_id;
			uint8_t copies, block_size_shift;
			uint8_t reserved[14];
		} vdi;
		struct {
			uint32_t result_, nr_nodes;
			uint64_t pad;
			uint64_t store_size, store_free;
		} node;
		struct {
			uint32_t result_, pad;
			uint8_t digest[20];
			uint32_t pad2;
		} hash;
		struct {
			uint32_t result_;
			uint8_t nr_copies, copy_policy, block_size_shift;
			uint8_t pad[25];
		} cluster_default;
		uint32_t u[8];
	};
};

_Static_assert(sizeof(struct sd_req) == 48 && sizeof(struct sd_rsp) == 48, "protocol.md 1.2, 1.3");
_Static_assert(offsetof(struct sd_req, obj.tgt_epoch) == 36, "obj");
_Static_assert(offsetof(struct sd_req, obj.offset) == 40, "obj");
_Static_assert(offsetof(struct sd_req, vdi.base_vdi_id) == 24, "vdi");
_Static_assert(offsetof(struct sd_req, vdi.snapid) == 32, "vdi");
_Static_assert(offsetof(struct sd_req, cluster.flags) == 34, "cluster");
_Static_assert(offsetof(struct sd_req, cluster.nodes_nr) == 40, "cluster");
_Static_assert(offsetof(struct sd_req, cluster.block_size_shift) == 44, "cluster");
_Static_assert(offsetof(struct sd_req, vdi_state.copies) == 24, "vdi_state");
_Static_assert(offsetof(struct sd_req, forw.port) == 40, "forw");
_Static_assert(offsetof(struct sd_rsp, vdi.vdi_id) == 24, "vdi");
_Static_assert(offsetof(struct sd_rsp, vdi.copies) == 32, "vdi");
_Static_assert(offsetof(struct sd_rsp, node.nr_nodes) == 20, "node");
_Static_assert(offsetof(struct sd_rsp, node.store_size) == 32, "node");
_Static_assert(offsetof(struct sd_rsp, hash.digest) == 24, "hash");
_Static_assert(offsetof(struct sd_rsp, cluster_default.nr_copies) == 20, "cluster_default");
_Static_assert(offsetof(struct sd_rsp, obj.offset) == 24, "obj");

/* 80 bytes in node lists and epoch records (2.4) */
struct sd_node {
	uint8_t unused[24];
	uint8_t addr[16]; /* IPv4 in bytes 12..15 */
	uint16_t port;
	uint8_t io_addr[16];
	uint16_t io_port;
	uint32_t pad;
	uint16_t nr_vnodes, pad2;
	uint32_t zone;
	uint64_t space;
} __attribute__((packed));
_Static_assert(sizeof(struct sd_node) == 80, "protocol.md 2.4");
_Static_assert(offsetof(struct sd_node, nr_vnodes) == 64 && offsetof(struct sd_node, zone) == 68,
	       "2.4");

struct sd_node_id {
	uint8_t addr[16];
	uint16_t port;
	uint8_t io_addr[16];
	uint16_t io_port;
	uint32_t pad;
} __attribute__((packed));
_Static_assert(sizeof(struct sd_node_id) == 40, "protocol.md 2.4");

struct sd_epoch_record { /* followed by the caller's number of struct sd_node */
	uint64_t ctime, time;
	uint32_t epoch, nr_nodes;
	uint8_t disable_recovery, nr_copies, copy_policy, pad[3];
	uint16_t cluster_flags;
	char store[16];
};
_Static_assert(sizeof(struct sd_epoch_record) == 48, "protocol.md 2.4");
_Static_assert(offsetof(struct sd_epoch_record, cluster_flags) == 30, "protocol.md 2.4");

#define SD_CLUSTER_INFO_NODES 6144u
struct sd_cluster_info { /* followed by up to SD_CLUSTER_INFO_NODES struct sd_node */
	uint8_t proto_ver, disable_recovery;
	int16_t nr_nodes;
	uint32_t epoch;
	uint64_t ctime;
	uint16_t flags;
	uint8_t nr_copies, copy_policy, status, block_size_shift;
	uint8_t pad[3];
	char store[16];
	uint8_t pad2[7];
};
_Static_assert(sizeof(struct sd_cluster_info) == 48, "protocol.md 2.4");
_Static_assert(offsetof(struct sd_cluster_info, store) == 25, "protocol.md 2.4");

struct sd_vdi_state {
	uint32_t vid;
	uint8_t copies, snapshot, deleted, copy_policy, shift, pad[3];
	uint32_t parent_vid, lock_state;
	struct sd_node_id owner;
	uint32_t nr_participants;
	uint32_t state[31];
	struct sd_node_id participants[31];
};
_Static_assert(sizeof(struct sd_vdi_state) == 1428, "protocol.md 2.4");

struct sd_md { /* one of 64 in MD_INFO */
	int32_t idx, pad;
	uint64_t free, used;
	char path[4096];
};
struct sd_md_info {
	struct sd_md disk[64];
	int32_t nr, pad;
};
_Static_assert(sizeof(struct sd_md_info) == 263688, "protocol.md 2.2");

struct sd_recovery_state {
	uint8_t in_recovery, pad[3];
	uint32_t state;
	uint64_t done, total;
};
_Static_assert(sizeof(struct sd_recovery_state) == 24, "protocol.md 2.2");

/* Header of the inode object (5.1); the index follows at 4664 */
struct sd_inode_header {
	char name[256], tag[256];
	uint64_t create_time, snap_ctime, vm_clock_nsec, vdi_size, vm_state_size;
	uint8_t copy_policy, store_policy, nr_copies, block_size_shift;
	uint32_t snap_id, vdi_id, parent_vdi_id, btree_counter;
	uint8_t unused[4092];
};
_Static_assert(sizeof(struct sd_inode_header) == SD_INODE_HEADER_SIZE, "protocol.md 5.1");
_Static_assert(offsetof(struct sd_inode_header, vdi_size) == 536, "protocol.md 5.1");
_Static_assert(offsetof(struct sd_inode_header, vdi_id) == 560, "protocol.md 5.1");

/* oids (4.1) */
#define SD_OID_INODE_BIT	 (1ull << 63)
#define SD_OID_VMSTATE_BIT	 (1ull << 62)
#define SD_OID_ATTR_BIT		 (1ull << 61)
#define SD_OID_BTREE_BIT	 (1ull << 60)
#define SD_OID_LEDGER_BIT	 (1ull << 59)
#define SD_OID_TYPE_MASK	 (0x1full << 59)
#define SD_OID_VID(oid)		 ((uint32_t)(((oid) >> 32) & 0xffffff))
#define SD_OID_IDX(oid)		 ((uint32_t)(oid))
#define SD_OID_IS_DATA(oid)	 (((oid)&SD_OID_TYPE_MASK) == 0)
#define SD_OID_IS_INODE(oid)	 (((oid)&SD_OID_TYPE_MASK) == SD_OID_INODE_BIT)
#define SD_OID_IS_VMSTATE(oid)	 (((oid)&SD_OID_TYPE_MASK) == SD_OID_VMSTATE_BIT)
#define SD_OID_IS_ATTR(oid)	 (((oid)&SD_OID_TYPE_MASK) == SD_OID_ATTR_BIT)
#define SD_DATA_OID(vid, idx)	 (((uint64_t)(vid) << 32) | (uint32_t)(idx))
#define SD_INODE_OID(vid)	 (SD_OID_INODE_BIT | ((uint64_t)(vid) << 32))
#define SD_VMSTATE_OID(vid, idx) (SD_OID_VMSTATE_BIT | ((uint64_t)(vid) << 32) | (uint32_t)(idx))

#endif
