/* ops_cluster.c - operations that go over the bus (protocol.md section 2, classes Cb and Cn). */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/util.h"
#include "sheep/op.h"

/* 0: the machine answered cmd->result; else what to answer. */
static uint32_t cluster_cmd(struct request *rq, struct cmd *cmd)
{
	cmd->time = env_wall(rq->sh->env);
	cmd->random = env_random64(rq->sh->env);
	int r = cluster_do(rq->sh->cluster, cmd); /* ~ */
	if (r == 0)
		return cmd->result;
	if (r == -ENOTCONN || r == -ECANCELED) {
		rq->no_answer = true; /* this node is out: the connection ends */
		return SD_RES_CLUSTER_ERROR;
	}
	return r == -ENOMEM ? SD_RES_NO_MEM : SD_RES_SYSTEM_ERROR;
}

/* ---- VDIs ---- */

static uint32_t names_valid(const struct cmd *cmd)
{
	if (!cmd->name[0] || !memchr(cmd->name, '\0', sizeof(cmd->name)))
		return SD_RES_INVALID_PARMS; /* 4.4 [REC] */
	return SD_RES_SUCCESS;
}

/* Payload of lookups: name[256], or name[256] and tag[256]. */
static uint32_t names_get(const struct request *rq, struct cmd *cmd)
{
	uint32_t len = rq->req.data_length;

	if (!(rq->req.flags & SD_FLAG_WRITE) || (len != SD_NAME_LEN && len != 2 * SD_NAME_LEN))
		return SD_RES_INVALID_PARMS;
	memcpy(cmd->name, rq->data->data, SD_NAME_LEN);
	if (len == 2 * SD_NAME_LEN)
		memcpy(cmd->tag, (char *)rq->data->data + SD_NAME_LEN, SD_NAME_LEN);
	cmd->snapid = rq->req.vdi.snapid;
	return names_valid(cmd);
}

static void reply_vdi(struct request *rq, const struct vdi *v)
{
	rq->rsp.vdi.vdi_id = v->vid;
	rq->rsp.vdi.copies = v->copies;
	rq->rsp.vdi.block_size_shift = v->shift;
}

static uint32_t create_valid(const struct sheep *sh, struct cmd *cmd)
{
	const struct cluster_params *p = cluster_params(sh->cluster);

	if (cmd->snapid || cmd->base_vid || cmd->store_policy || cmd->copy_policy)
		return SD_RES_NO_SUPPORT; /* snapshots, clones, B-trees, erasure coding */
	if (cmd->copies > SD_COPIES_MAX)
		return SD_RES_INVALID_PARMS;
	uint8_t shift = cmd->shift ? cmd->shift : p->shift;
	if (shift < SD_OBJ_SHIFT_MIN || shift > SD_OBJ_SHIFT_MAX ||
	    cmd->size > ((uint64_t)SD_NR_OBJS_MAX << shift))
		return SD_RES_INVALID_PARMS; /* 5.3 [REC] */
	return SD_RES_SUCCESS;
}

uint32_t op_new_vdi(struct request *rq)
{
	const struct sd_req *req = &rq->req;
	struct cmd cmd = {.type = CMD_VDI_CREATE,
			  .snapid = req->vdi.snapid,
			  .base_vid = req->vdi.base_vdi_id,
			  .size = req->vdi.vdi_size,
			  .copies = req->vdi.copies,
			  /* 6.2: copies 0 means both from the cluster's default */
			  .copy_policy = req->vdi.copies ? req->vdi.copy_policy : 0,
			  .store_policy = req->vdi.store_policy,
			  .shift = req->vdi.block_size_shift};

	if (!(req->flags & SD_FLAG_WRITE) || req->data_length != SD_NAME_LEN)
		return SD_RES_INVALID_PARMS;
	memcpy(cmd.name, rq->data->data, SD_NAME_LEN);
	uint32_t res = names_valid(&cmd);
	if (res == SD_RES_SUCCESS)
		res = create_valid(rq->sh, &cmd);
	if (res != SD_RES_SUCCESS)
		return res;
	cmd.time = env_wall(rq->sh->env);
	cmd.random = env_random64(rq->sh->env);
	res = gateway_vdi_create(rq->sh, &cmd); /* ~ */
	if (res == SD_RES_SUCCESS) {
		rq->rsp.vdi.vdi_id = cmd.ret_vid;
		rq->rsp.vdi.copies = cmd.ret_copies;
		rq->rsp.vdi.block_size_shift = cmd.ret_shift;
	}
	return res;
}

uint32_t op_del_vdi(struct request *rq)
{
	struct cmd cmd = {.type = CMD_VDI_DELETE};
	uint32_t res = names_get(rq, &cmd);

	if (res != SD_RES_SUCCESS)
		return res;
	cmd.time = env_wall(rq->sh->env);
	cmd.random = env_random64(rq->sh->env);
	res = gateway_vdi_delete(rq->sh, &cmd); /* ~ */
	if (res == SD_RES_SUCCESS)
		rq->rsp.vdi.vdi_id = cmd.ret_vid;
	return res;
}

uint32_t op_get_vdi_info(struct request *rq)
{
	struct cmd names = {.type = CMD_BARRIER}, barrier = {.type = CMD_BARRIER};
	const struct vdi *v;
	uint32_t res = names_get(rq, &names);

	if (res != SD_RES_SUCCESS)
		return res;
	res = cluster_cmd(rq, &barrier); /* ~ 1.4: lookups are in the total order */
	if (res != SD_RES_SUCCESS)
		return res;
	res = cluster_lookup(rq->sh->cluster, names.name, names.tag, names.snapid, &v);
	if (res == SD_RES_SUCCESS)
		reply_vdi(rq, v);
	return res;
}

static bool uses_locks(const struct sheep *sh)
{
	return cluster_params(sh->cluster)->flags & SD_CLUSTER_USE_LOCK;
}

/* Who opens it now was told nothing that is lost (DESIGN 5.4).  When it does not work out the next
 * flush fails once, which is safe. */
static void cache_forget(struct request *rq)
{
	struct cmd cmd = {.type = CMD_CACHE_LOST, .vid = rq->rsp.vdi.vdi_id, .on = false};
	const struct vdi *v = cluster_vdi(rq->sh->cluster, cmd.vid);

	if (v && v->cache_lost)
		cluster_cmd(rq, &cmd); /* ~ */
}

static uint32_t lock_vdi(struct request *rq)
{
	struct cmd cmd = {.type = CMD_VDI_LOCK, .lock_type = rq->req.vdi.type};

	if (!uses_locks(rq->sh))
		cmd.lock_type = VDI_OPEN;
	else if (rq->req.vdi.type > 1)
		return SD_RES_INVALID_PARMS;
	uint32_t res = names_get(rq, &cmd);
	if (res == SD_RES_SUCCESS)
		res = cluster_cmd(rq, &cmd); /* ~ */
	if (res == SD_RES_SUCCESS) {
		rq->rsp.vdi.vdi_id = cmd.ret_vid;
		rq->rsp.vdi.copies = cmd.ret_copies;
		rq->rsp.vdi.block_size_shift = cmd.ret_shift;
	}
	return res;
}

uint32_t op_lock_vdi(struct request *rq)
{
	uint32_t res = lock_vdi(rq); /* ~ */

	if (res == SD_RES_SUCCESS)
		cache_forget(rq); /* ~ */
	return res;
}

/* Always SUCCESS, also when it was not locked (2.1); any payload is ignored (T4). */
uint32_t op_release_vdi(struct request *rq)
{
	struct cmd cmd = {.type = CMD_VDI_UNLOCK,
			  .vid = rq->req.vdi.base_vdi_id,
			  .lock_type = rq->req.vdi.type};

	if (uses_locks(rq->sh))
		cluster_cmd(rq, &cmd); /* ~ */
	return SD_RES_SUCCESS;
}

/* ---- the cluster ---- */

/* What is stored is honoured; flags of features that are not built are refused. */
static uint32_t format_valid(const struct cmd *cmd)
{
	const uint16_t built = SD_CLUSTER_STRICT | SD_CLUSTER_AUTO_VNODES | SD_CLUSTER_USE_LOCK;

	if (cmd->flags & ~built || cmd->copy_policy)
		return SD_RES_NO_SUPPORT;
	if (cmd->copies > SD_COPIES_MAX || cmd->shift < SD_OBJ_SHIFT_MIN ||
	    cmd->shift > SD_OBJ_SHIFT_MAX)
		return SD_RES_INVALID_PARMS;
	return strcmp(cmd->store, "plain") ? SD_RES_NO_STORE : SD_RES_SUCCESS;
}

/* The answer of FORMAT and FORCE_RECOVER means that the cluster serves (dog goes on at once). */
static void wait_running(struct request *rq)
{
	const uint64_t until = env_now(rq->sh->env) + 10ull * 1000000000;
	struct cluster *c = rq->sh->cluster;

	while (cluster_status(c) != CLUSTER_RUNNING && !rq->sh->stopping)
		if (co_cond_wait_until(cluster_changed(c), until, "ops: running") < 0) /* ~ */
			return;
}

uint32_t op_make_fs(struct request *rq)
{
	const struct sd_req *req = &rq->req;
	struct cmd cmd = {.type = CMD_FORMAT,
			  .ctime = req->cluster.ctime,
			  .copies = req->cluster.copies ? req->cluster.copies : SD_COPIES_DEFAULT,
			  .copy_policy = req->cluster.copy_policy,
			  .flags = req->cluster.flags,
			  .shift = req->cluster.block_size_shift ? req->cluster.block_size_shift
								 : SD_OBJ_SHIFT_DEFAULT,
			  .store = "plain"};
	uint32_t len = req->data_length;

	if ((req->flags & SD_FLAG_WRITE) && len) {
		const char *name = rq->data->data;
		if (!memchr(name, '\0', len) || strlen(name) >= sizeof(cmd.store))
			return SD_RES_NO_STORE;
		snprintf(cmd.store, sizeof(cmd.store), "%s", name);
	}
	if (!cmd.ctime) { /* (seconds << 32) | nanoseconds */
		uint64_t now = env_wall(rq->sh->env);
		cmd.ctime = now / 1000000000 << 32 | now % 1000000000;
	}
	uint32_t res = format_valid(&cmd);
	if (res == SD_RES_SUCCESS)
		res = cluster_cmd(rq, &cmd); /* ~ */
	if (res == SD_RES_SUCCESS)
		wait_running(rq); /* ~ */
	return res;
}

uint32_t op_shutdown(struct request *rq)
{
	struct cmd cmd = {.type = CMD_SHUTDOWN};

	return cluster_cmd(rq, &cmd); /* ~ */
}

uint32_t op_force_recover(struct request *rq)
{
	struct cmd cmd = {.type = CMD_FORCE_RECOVER};
	struct view *v;

	if (cluster_status(rq->sh->cluster) != CLUSTER_WAIT_JOIN)
		return SD_RES_FORCE_RECOVER;
	/* "The node array of the last epoch": a buffer too small is found out before acting. */
	v = cluster_history(rq->sh->cluster, cluster_epoch(rq->sh->cluster));
	struct sd_node *n = request_reply(rq, v ? v->nr * sizeof(*n) : 0);
	for (unsigned i = 0; n && v && i < v->nr; i++)
		op_fill_node(&n[i], &v->members[i]);
	if (n && v)
		rq->rsp.node.nr_nodes = v->nr;
	view_put(v);
	if (!n)
		return SD_RES_BUFFER_SMALL;
	uint32_t res = cluster_cmd(rq, &cmd); /* ~ */
	if (res == SD_RES_SUCCESS) {
		wait_running(rq); /* ~ */
	} else {
		buf_put(TAKE(rq->reply, NULL));
		rq->rsp.node.nr_nodes = 0;
	}
	return res;
}

static uint32_t set_recovery(struct request *rq, bool on)
{
	struct cmd cmd = {.type = CMD_SET_RECOVERY, .on = on};

	return cluster_cmd(rq, &cmd); /* ~ */
}

uint32_t op_enable_recover(struct request *rq)
{
	return set_recovery(rq, true);
}

uint32_t op_disable_recover(struct request *rq)
{
	return set_recovery(rq, false);
}
