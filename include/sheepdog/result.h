/* result.h - result codes of the wire protocol: {code, name, text} in one table (protocol.md 3.1,
 * cli.md 8). */
#ifndef SHEEPDOG_RESULT_H
#define SHEEPDOG_RESULT_H

/* X(code, name, text) */
/* clang-format off */
#define SD_RESULTS(X) \
	X(0x00, SUCCESS, "Success") \
	X(0x01, UNKNOWN, "Unknown error") \
	X(0x02, NO_OBJ, "No object found") \
	X(0x03, EIO, "I/O error") \
	X(0x04, VDI_EXIST, "VDI exists already") \
	X(0x05, INVALID_PARMS, "Invalid parameters") \
	X(0x06, SYSTEM_ERROR, "System error") \
	X(0x07, VDI_LOCKED, "VDI is already locked") \
	X(0x08, NO_VDI, "No VDI found") \
	X(0x09, NO_BASE_VDI, "No base VDI found") \
	X(0x0a, VDI_READ, "Failed to read from requested VDI") \
	X(0x0b, VDI_WRITE, "Failed to write to requested VDI") \
	X(0x0c, BASE_VDI_READ, "Failed to read from base VDI") \
	X(0x0d, BASE_VDI_WRITE, "Failed to write to base VDI") \
	X(0x0e, NO_TAG, "Failed to find requested tag") \
	X(0x0f, STARTUP, "System is still booting") \
	X(0x10, VDI_NOT_LOCKED, "VDI is not locked") \
	X(0x11, SHUTDOWN, "System is shutting down") \
	X(0x12, NO_MEM, "Out of memory on server") \
	X(0x13, FULL_VDI, "Maximum number of VDIs reached") \
	X(0x14, VER_MISMATCH, "Protocol version mismatch") \
	X(0x15, NO_SPACE, "Server has no space for new objects") \
	X(0x16, WAIT_FOR_FORMAT, "Waiting for cluster to be formatted") \
	X(0x17, WAIT_FOR_JOIN, "Waiting for other nodes to join cluster") \
	X(0x18, JOIN_FAILED, "Node has failed to join cluster") \
	X(0x19, HALT, "IO has halted as there are not enough living nodes") \
	X(0x1a, READONLY, "Object is read-only") \
	X(0x1d, INODE_INVALIDATED, "Inode object is invalidated") \
	X(0x81, OLD_NODE_VER, "Request has an old epoch") \
	X(0x82, NEW_NODE_VER, "Request has a new epoch") \
	X(0x83, NOT_FORMATTED, "Cluster has not been formatted") \
	X(0x84, INVALID_CTIME, "Creation times differ") \
	X(0x85, INVALID_EPOCH, "Invalid epoch") \
	X(0x86, NETWORK_ERROR, "Network error between sheep") \
	X(0x87, NO_CACHE, "No cache object found") \
	X(0x88, BUFFER_SMALL, "The buffer is too small") \
	X(0x89, FORCE_RECOVER, "Cluster is running, cannot be force recovered") \
	X(0x8a, NO_STORE, "Targeted backend store is not found") \
	X(0x8b, NO_SUPPORT, "Operation is not supported") \
	X(0x8c, NODE_IN_RECOVERY, "Targeted node is in recovery") \
	X(0x8d, KILLED, "Node is killed") \
	X(0x8e, OID_EXIST, "Object ID exists already") \
	X(0x8f, AGAIN, "Ask to try again") \
	X(0x90, STALE_OBJ, "Object may be stale") \
	X(0x91, CLUSTER_ERROR, "Cluster driver error") \
	X(0x92, VDI_NOT_EMPTY, "VDI is not empty") \
	X(0x93, NOT_FOUND, "Not found") \
	X(0x94, INCOMPLETE, "Object (in object storage) is incompletely uploaded") \
	X(0x95, COLLECTING_CINFO, "Sheep is collecting cluster wide status, not ready for operation") \
	X(0x97, GATEWAY_MODE, "Target node is gateway mode") \
	X(0x98, INVALID_VNODES_STRATEGY, "Invalid vnodes strategy") \
	X(0x99, NO_CHECKPOINT_ENTRY, "No checkpoint entry")
/* clang-format on */

enum sd_result {
#define SD_RESULT_ENUM_(code, name, text) SD_RES_##name = code,
	SD_RESULTS(SD_RESULT_ENUM_)
#undef SD_RESULT_ENUM_
};

#endif
