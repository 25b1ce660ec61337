/* op.h - the table of operations: what protocol.md section 2 says about each, and its handler. */
#ifndef SHEEP_OP_H
#define SHEEP_OP_H

#include "sheep/server.h"

enum op_class {
	OP_GATEWAY, /* object I/O: waits where the others are refused (protocol.md T27) */
	OP_LOCAL,   /* answered by this node */
	OP_CLUSTER, /* goes over the bus */
};

struct op {
	const char *name; /* NULL: unassigned */
	enum op_class class;
	bool always;	      /* F: also before format and while waiting for members */
	bool admin;	      /* logged with client, name and result */
	uint32_t payload_max; /* longer payloads are read, dropped and refused */
	/* SD_RES_*.  May set rq->rsp's variant, and a payload by request_reply(). */
	co_fn uint32_t (*fn)(struct request *rq);
};

/* NULL: unassigned.  Never yields. */
const struct op *op_find(uint8_t opcode);
/* Is @ver a version that @opcode is spoken in (protocol.md 1.6)? */
bool op_version_ok(uint8_t opcode, uint8_t ver);

/* SUCCESS, or why the cluster's status refuses everything that is not F. */
uint32_t op_status(const struct sheep *sh);

/* X(function): handlers, in ops_local.c and ops_cluster.c */
uint32_t op_object(struct request *rq);
uint32_t op_no_support(struct request *rq);
uint32_t op_invalid(struct request *rq);
uint32_t op_read_vdis(struct request *rq);
uint32_t op_read_del_vdis(struct request *rq);
uint32_t op_get_cluster_default(struct request *rq);
uint32_t op_get_node_list(struct request *rq);
uint32_t op_stat_sheep(struct request *rq);
uint32_t op_stat_cluster(struct request *rq);
uint32_t op_get_store_list(struct request *rq);
uint32_t op_stat_recovery(struct request *rq);
uint32_t op_nothing(struct request *rq);
uint32_t op_kill_node(struct request *rq);
uint32_t op_get_obj_list(struct request *rq);
uint32_t op_get_epoch(struct request *rq);
uint32_t op_get_vdi_copies(struct request *rq);
uint32_t op_md_info(struct request *rq);
uint32_t op_stat(struct request *rq);
uint32_t op_get_loglevel(struct request *rq);
uint32_t op_set_loglevel(struct request *rq);
uint32_t op_exist(struct request *rq);
uint32_t op_oids_exist(struct request *rq);
uint32_t op_cluster_info(struct request *rq);
uint32_t op_cleanup(struct request *rq);
uint32_t op_client_hello(struct request *rq);
uint32_t op_new_vdi(struct request *rq);
uint32_t op_del_vdi(struct request *rq);
uint32_t op_get_vdi_info(struct request *rq);
uint32_t op_lock_vdi(struct request *rq);
uint32_t op_release_vdi(struct request *rq);
uint32_t op_make_fs(struct request *rq);
uint32_t op_shutdown(struct request *rq);
uint32_t op_force_recover(struct request *rq);
uint32_t op_enable_recover(struct request *rq);
uint32_t op_disable_recover(struct request *rq);

/* ops_local.c: wire record of a member */
void op_fill_node(struct sd_node *n, const struct member *m);

#endif
