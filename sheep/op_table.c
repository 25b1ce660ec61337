/* op_table.c - every operation of protocol.md section 2, in one table. */
#include "config.h"

#include "sheep/op.h"

#define CTRL SD_CTRL_LEN_MAX
#define DATA SD_DATA_LEN_MAX
#define OIDS (8u << 20) /* OIDS_EXIST: a million oids */

/* clang-format off */
/* X(name, class, F, logged, largest payload of the request, handler) */
#define OPS(X)                                                                                     \
	X(CREATE_AND_WRITE_OBJ, OP_GATEWAY, 0, 0, DATA, op_object)                                 \
	X(READ_OBJ, OP_GATEWAY, 0, 0, CTRL, op_object)                                             \
	X(WRITE_OBJ, OP_GATEWAY, 0, 0, DATA, op_object)                                            \
	X(REMOVE_OBJ, OP_GATEWAY, 0, 0, CTRL, op_object)                                           \
	X(DISCARD_OBJ, OP_GATEWAY, 0, 0, CTRL, op_object)                                          \
	X(NEW_VDI, OP_CLUSTER, 0, 1, CTRL, op_new_vdi)                                             \
	X(LOCK_VDI, OP_CLUSTER, 0, 0, CTRL, op_lock_vdi)                                           \
	X(RELEASE_VDI, OP_CLUSTER, 0, 0, CTRL, op_release_vdi)                                     \
	X(GET_VDI_INFO, OP_CLUSTER, 0, 0, CTRL, op_get_vdi_info)                                   \
	X(READ_VDIS, OP_LOCAL, 1, 0, CTRL, op_read_vdis)                                           \
	X(FLUSH_VDI, OP_GATEWAY, 0, 0, CTRL, op_object)                                            \
	X(DEL_VDI, OP_CLUSTER, 0, 1, CTRL, op_del_vdi)                                             \
	X(GET_CLUSTER_DEFAULT, OP_LOCAL, 1, 0, CTRL, op_get_cluster_default)                       \
	X(GET_NODE_LIST, OP_LOCAL, 1, 0, CTRL, op_get_node_list)                                   \
	X(MAKE_FS, OP_CLUSTER, 1, 1, CTRL, op_make_fs)                                             \
	X(SHUTDOWN, OP_CLUSTER, 1, 1, CTRL, op_shutdown)                                           \
	X(STAT_SHEEP, OP_LOCAL, 0, 0, CTRL, op_stat_sheep)                                         \
	X(STAT_CLUSTER, OP_LOCAL, 1, 0, CTRL, op_stat_cluster)                                     \
	X(GET_VDI_ATTR, OP_CLUSTER, 0, 0, CTRL, op_no_support)                                     \
	X(FORCE_RECOVER, OP_CLUSTER, 1, 1, CTRL, op_force_recover)                                 \
	X(GET_STORE_LIST, OP_LOCAL, 1, 0, CTRL, op_get_store_list)                                 \
	X(CLEANUP, OP_LOCAL, 1, 1, CTRL, op_cleanup)                                               \
	X(TRACE_ENABLE, OP_LOCAL, 1, 0, CTRL, op_no_support)                                       \
	X(TRACE_DISABLE, OP_LOCAL, 1, 0, CTRL, op_no_support)                                      \
	X(STAT_RECOVERY, OP_LOCAL, 0, 0, CTRL, op_stat_recovery)                                   \
	X(FLUSH_DEL_CACHE, OP_LOCAL, 0, 0, CTRL, op_nothing)                                       \
	X(NOTIFY_VDI_DEL, OP_CLUSTER, 1, 0, CTRL, op_no_support)                                   \
	X(KILL_NODE, OP_LOCAL, 1, 1, CTRL, op_kill_node)                                           \
	X(TRACE_STATUS, OP_LOCAL, 1, 0, CTRL, op_no_support)                                       \
	X(TRACE_READ_BUF, OP_LOCAL, 1, 0, CTRL, op_no_support)                                     \
	X(GET_OBJ_LIST, OP_LOCAL, 0, 0, CTRL, op_get_obj_list)                                     \
	X(GET_EPOCH, OP_LOCAL, 0, 0, CTRL, op_get_epoch)                                           \
	X(CREATE_AND_WRITE_PEER, OP_LOCAL, 0, 0, CTRL, op_no_support)                              \
	X(READ_PEER, OP_LOCAL, 0, 0, CTRL, op_no_support)                                          \
	X(WRITE_PEER, OP_LOCAL, 0, 0, CTRL, op_no_support)                                         \
	X(REMOVE_PEER, OP_LOCAL, 0, 0, CTRL, op_no_support)                                        \
	X(ENABLE_RECOVER, OP_CLUSTER, 0, 1, CTRL, op_enable_recover)                               \
	X(DISABLE_RECOVER, OP_CLUSTER, 0, 1, CTRL, op_disable_recover)                             \
	X(GET_VDI_COPIES, OP_LOCAL, 1, 0, CTRL, op_get_vdi_copies)                                 \
	X(COMPLETE_RECOVERY, OP_CLUSTER, 1, 0, CTRL, op_no_support)                                \
	X(NOTIFY_VDI_ADD, OP_CLUSTER, 1, 0, CTRL, op_no_support)                                   \
	X(DELETE_CACHE, OP_CLUSTER, 0, 0, CTRL, op_nothing)                                        \
	X(MD_INFO, OP_LOCAL, 0, 0, CTRL, op_md_info)                                               \
	X(MD_PLUG, OP_LOCAL, 0, 1, CTRL, op_no_support)                                            \
	X(MD_UNPLUG, OP_LOCAL, 0, 1, CTRL, op_no_support)                                          \
	X(GET_HASH, OP_LOCAL, 0, 0, CTRL, op_no_support)                                           \
	X(REWEIGHT, OP_CLUSTER, 0, 1, CTRL, op_no_support)                                         \
	X(STAT, OP_LOCAL, 0, 0, CTRL, op_stat)                                                     \
	X(GET_LOGLEVEL, OP_LOCAL, 1, 0, CTRL, op_get_loglevel)                                     \
	X(SET_LOGLEVEL, OP_LOCAL, 1, 1, CTRL, op_set_loglevel)                                     \
	X(NFS_CREATE, OP_LOCAL, 1, 0, CTRL, op_invalid)                                            \
	X(NFS_DELETE, OP_LOCAL, 1, 0, CTRL, op_invalid)                                            \
	X(EXIST, OP_LOCAL, 1, 0, CTRL, op_exist)                                                   \
	X(CLUSTER_INFO, OP_LOCAL, 1, 0, CTRL, op_cluster_info)                                     \
	X(ALTER_CLUSTER_COPY, OP_CLUSTER, 0, 1, CTRL, op_no_support)                               \
	X(ALTER_VDI_COPY, OP_CLUSTER, 0, 1, CTRL, op_no_support)                                   \
	X(DECREF_OBJ, OP_LOCAL, 0, 0, CTRL, op_no_support)                                         \
	X(DECREF_PEER, OP_LOCAL, 0, 0, CTRL, op_no_support)                                        \
	X(REPAIR_REPLICA, OP_LOCAL, 0, 0, CTRL, op_no_support)                                     \
	X(OIDS_EXIST, OP_LOCAL, 1, 0, OIDS, op_oids_exist)                                         \
	X(VDI_STATE_CHECKPOINT_CTL, OP_LOCAL, 0, 0, CTRL, op_no_support)                           \
	X(INODE_COHERENCE, OP_CLUSTER, 0, 0, CTRL, op_no_support)                                  \
	X(READ_DEL_VDIS, OP_LOCAL, 1, 0, CTRL, op_read_del_vdis)                                   \
	X(GET_RECOVERY, OP_LOCAL, 1, 0, CTRL, op_no_support)                                       \
	X(SET_RECOVERY, OP_LOCAL, 1, 1, CTRL, op_no_support)                                       \
	X(GET_VNODES, OP_LOCAL, 0, 0, CTRL, op_no_support)                                         \
	X(SET_VNODES, OP_LOCAL, 0, 1, CTRL, op_no_support)
/* clang-format on */

static const struct op op_table[256] = {
#define OP_DEF_(op, class, always, admin, payload, fn)                                             \
	[SD_OP_##op] = {#op, class, always, admin, payload, fn},
	OPS(OP_DEF_)
#undef OP_DEF_
		/* our own (lib/proto/peer.h); PEER_HELLO is the server's business */
		[SD_OP_PEER_HELLO] = {"PEER_HELLO", OP_LOCAL, true, false, CTRL, op_no_support},
	[SD_OP_CLIENT_HELLO] = {"CLIENT_HELLO", OP_LOCAL, true, false, CTRL, op_client_hello},
};

/* Every opcode of proto.h is in the table. */
enum {
#define OP_NR_(code, name) +1
	OP_NR_PROTO = 0 SD_OPS(OP_NR_),
#undef OP_NR_
#define OP_NR_(op, class, always, admin, payload, fn) +1
	OP_NR_TABLE = 0 OPS(OP_NR_)
#undef OP_NR_
};
_Static_assert(OP_NR_PROTO == OP_NR_TABLE, "an operation is missing in the table");

const struct op *op_find(uint8_t opcode)
{
	const struct op *op = &op_table[opcode];

	return op->name ? op : NULL;
}

bool op_version_ok(uint8_t opcode, uint8_t ver)
{
	return opcode < 0x80 ? ver <= SD_PROTO_VER : ver == SD_INTERNAL_PROTO_VER;
}

uint32_t op_status(const struct sheep *sh)
{
	switch (cluster_status(sh->cluster)) {
	case CLUSTER_WAIT_FORMAT: return SD_RES_WAIT_FOR_FORMAT;
	case CLUSTER_WAIT_JOIN: return SD_RES_WAIT_FOR_JOIN;
	case CLUSTER_SHUTDOWN: return SD_RES_SHUTDOWN;
	default: return SD_RES_SUCCESS;
	}
}
