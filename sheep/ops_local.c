/* ops_local.c - operations that this node answers by itself (protocol.md section 2, class L), and
 * the way of object requests into the gateway. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "sheep/op.h"
#include "sheep/server_int.h"

#define BITMAP_LEN (SD_NR_VDIS / 8)

uint32_t op_no_support(struct request *rq)
{
	return SD_RES_NO_SUPPORT;
}

/* Of builds that the original has options for: there it answers this. */
uint32_t op_invalid(struct request *rq)
{
	return SD_RES_INVALID_PARMS;
}

/* Caches that we do not have. */
uint32_t op_nothing(struct request *rq)
{
	return SD_RES_SUCCESS;
}

/* ---- object requests ---- */

static void op_count(struct sheep_stat *st, const struct sd_req *req)
{
	st->gway_active++;
	st->gway_total++;
	switch (req->opcode) {
	case SD_OP_READ_OBJ: st->gway_read++; break;
	case SD_OP_CREATE_AND_WRITE_OBJ:
	case SD_OP_WRITE_OBJ:
		st->gway_write++;
		st->gway_rx += req->data_length;
		break;
	case SD_OP_FLUSH_VDI: st->gway_flush++; break;
	default: st->gway_remove++;
	}
}

uint32_t op_object(struct request *rq)
{
	struct gw_request g = {.req = rq->req, .client = rq->cl->gw, .payload = rq->data};

	op_count(&rq->sh->stat, &rq->req);
	gateway_handle(rq->sh, &g); /* ~ */
	rq->sh->stat.gway_active--;
	rq->sh->stat.gway_tx += g.reply_len;
	rq->no_answer = g.error != 0;
	rq->rsp = g.rsp;
	rq->reply = g.reply;
	rq->reply_len = g.reply_len;
	return g.rsp.result;
}

/* Our own clients say who they are (DESIGN 5.1). */
uint32_t op_client_hello(struct request *rq)
{
	struct client_hello h;

	if (!(rq->req.flags & SD_FLAG_WRITE) || rq->req.data_length != sizeof(h))
		return SD_RES_INVALID_PARMS;
	memcpy(&h, rq->data->data, sizeof(h));
	if (h.version != 1)
		return SD_RES_VER_MISMATCH;
	if (!h.client_id)
		return SD_RES_INVALID_PARMS;
	rq->cl->gw.client_id = h.client_id;
	rq->cl->gw.session = h.session;
	return SD_RES_SUCCESS;
}

/* ---- VDI table ---- */

static uint32_t op_bitmap(struct request *rq, bool deleted)
{
	const struct vdi *v = NULL;

	if (rq->req.data_length != BITMAP_LEN)
		return SD_RES_INVALID_PARMS;
	uint8_t *map = request_reply(rq, BITMAP_LEN);
	if (!map)
		return SD_RES_NO_MEM;
	while ((v = cluster_vdi_next(rq->sh->cluster, v ? v->vid : 0)))
		if (!v->creating && (v->deleted || !deleted))
			map[v->vid / 8] |= 1u << (v->vid % 8);
	return SD_RES_SUCCESS;
}

uint32_t op_read_vdis(struct request *rq)
{
	return op_bitmap(rq, false);
}

uint32_t op_read_del_vdis(struct request *rq)
{
	return op_bitmap(rq, true);
}

static void fill_node_id(struct sd_node_id *id, const struct net_addr *a)
{
	memcpy(id->addr, a->ip, sizeof(id->addr));
	id->port = a->port;
}

static void fill_vdi_state(struct sd_vdi_state *s, const struct vdi *v)
{
	s->vid = v->vid;
	s->copies = v->copies;
	s->snapshot = v->snap_ctime != 0;
	s->deleted = v->deleted;
	s->copy_policy = v->copy_policy;
	s->shift = v->shift;
	s->parent_vid = v->parent_vid;
	s->lock_state = v->lock_state ? v->lock_state : 1;
	if (v->lock_state == 2 && v->lock_nr)
		fill_node_id(&s->owner, &v->lock_addr[0]);
	if (v->lock_state != 3)
		return;
	s->nr_participants = v->lock_nr;
	for (unsigned i = 0; i < v->lock_nr; i++) {
		s->state[i] = 2; /* shared: nobody's index is stale, all writes go to the owner */
		fill_node_id(&s->participants[i], &v->lock_addr[i]);
	}
}

uint32_t op_get_vdi_copies(struct request *rq)
{
	struct cluster *c = rq->sh->cluster;
	const struct vdi *v = NULL;
	size_t n = 0;

	while ((v = cluster_vdi_next(c, v ? v->vid : 0)))
		n++;
	struct sd_vdi_state *s = request_reply(rq, n * sizeof(*s));
	if (!s)
		return SD_RES_BUFFER_SMALL;
	while ((v = cluster_vdi_next(c, v ? v->vid : 0)))
		fill_vdi_state(s++, v);
	return SD_RES_SUCCESS;
}

/* ---- the cluster as seen from here ---- */

uint32_t op_get_cluster_default(struct request *rq)
{
	const struct cluster_params *p = cluster_params(rq->sh->cluster);

	if (!p->ctime) /* T3: never SUCCESS with a shift of 0 */
		return SD_RES_WAIT_FOR_FORMAT;
	rq->rsp.cluster_default.nr_copies = p->copies;
	rq->rsp.cluster_default.copy_policy = p->copy_policy;
	rq->rsp.cluster_default.block_size_shift = p->shift;
	return SD_RES_SUCCESS;
}

void op_fill_node(struct sd_node *n, const struct member *m)
{
	memset(n, 0, sizeof(*n));
	memcpy(n->addr, m->addr.ip, sizeof(n->addr));
	n->port = m->addr.port;
	if (m->io_addr.family) {
		memcpy(n->io_addr, m->io_addr.ip, sizeof(n->io_addr));
		n->io_port = m->io_addr.port;
	}
	n->nr_vnodes = m->nr_vnodes;
	n->zone = m->zone;
	n->space = m->space;
}

static void fill_nodes(struct sd_node *n, const struct view *v)
{
	for (unsigned i = 0; v && i < v->nr; i++)
		op_fill_node(&n[i], &v->members[i]);
}

/* The view, or who is present when there is none.  view_put() it. */
static struct view *nodes_now(struct sheep *sh)
{
	if (cluster_status(sh->cluster) == CLUSTER_RUNNING)
		return view_get(cluster_view(sh->cluster));
	return cluster_present(sh->cluster);
}

uint32_t op_get_node_list(struct request *rq)
{
	struct view *v = nodes_now(rq->sh);

	if (!v)
		return SD_RES_NO_MEM;
	struct sd_node *n = request_reply(rq, v->nr * sizeof(*n));
	if (n) {
		fill_nodes(n, v);
		rq->rsp.node.nr_nodes = v->nr;
	}
	view_put(v);
	return n ? SD_RES_SUCCESS : SD_RES_BUFFER_SMALL;
}

uint32_t op_cluster_info(struct request *rq)
{
	const struct cluster_params *p = cluster_params(rq->sh->cluster);
	struct view *v = nodes_now(rq->sh);
	static const uint8_t status[] = {[CLUSTER_WAIT_FORMAT] = 2,
					 [CLUSTER_WAIT_JOIN] = 2,
					 [CLUSTER_RUNNING] = 1,
					 [CLUSTER_SHUTDOWN] = 3};

	if (!v)
		return SD_RES_NO_MEM;
	struct sd_cluster_info *info =
		request_reply(rq, sizeof(*info) + v->nr * sizeof(struct sd_node));
	if (info) {
		info->proto_ver = SD_INTERNAL_PROTO_VER;
		info->disable_recovery = p->disable_recovery;
		info->nr_nodes = v->nr;
		info->epoch = cluster_epoch(rq->sh->cluster);
		info->ctime = p->ctime;
		/* Before format: how this node was started is what dog compares its -V with. */
		info->flags = p->ctime			   ? p->flags
			      : rq->sh->conf->fixed_vnodes ? 0
							   : SD_CLUSTER_AUTO_VNODES;
		info->nr_copies = p->copies;
		info->copy_policy = p->copy_policy;
		info->status = status[cluster_status(rq->sh->cluster)];
		info->block_size_shift = p->shift;
		memcpy(info->store, p->store, sizeof(info->store));
		fill_nodes((struct sd_node *)(info + 1), v);
	}
	view_put(v);
	return info ? SD_RES_SUCCESS : SD_RES_BUFFER_SMALL;
}

/* The view of epoch @e: the present one, or from the history.  view_put() it; NULL: not known. */
static struct view *epoch_view(struct sheep *sh, uint32_t e)
{
	struct view *v = cluster_view(sh->cluster);

	return v && v->epoch == e ? view_get(v) : cluster_history(sh->cluster, e);
}

static uint32_t fill_epochs(struct request *rq, uint8_t *out, unsigned k, uint32_t max_nodes)
{
	const struct cluster_params *p = cluster_params(rq->sh->cluster);
	uint32_t newest = cluster_epoch(rq->sh->cluster);

	for (unsigned i = 0; i < k; i++) {
		struct sd_epoch_record *rec = (struct sd_epoch_record *)out;
		struct view *v = epoch_view(rq->sh, newest - i);
		out += sizeof(*rec) + max_nodes * sizeof(struct sd_node);
		if (!v) { /* the history begins later */
			rq->reply_len = (uint8_t *)rec - (uint8_t *)rq->reply->data;
			return SD_RES_SUCCESS;
		}
		if (i == 0) {
			rec->ctime = p->ctime;
			rec->disable_recovery = p->disable_recovery;
			rec->nr_copies = p->copies;
			rec->copy_policy = p->copy_policy;
			rec->cluster_flags = p->flags;
			memcpy(rec->store, p->store, sizeof(rec->store));
		}
		rec->time = v->time;
		rec->epoch = v->epoch;
		rec->nr_nodes = v->nr;
		bool fits = v->nr <= max_nodes;
		if (fits)
			fill_nodes((struct sd_node *)(rec + 1), v);
		view_put(v);
		if (!fits && max_nodes) /* 0: only the headers are asked for */
			return SD_RES_BUFFER_SMALL;
	}
	return SD_RES_SUCCESS;
}

uint32_t op_stat_cluster(struct request *rq)
{
	uint32_t max_nodes = rq->req.cluster.nodes_nr;
	uint32_t newest = cluster_epoch(rq->sh->cluster), res;

	if (max_nodes > SD_CLUSTER_INFO_NODES)
		return SD_RES_INVALID_PARMS;
	size_t rec = sizeof(struct sd_epoch_record) + max_nodes * sizeof(struct sd_node);
	size_t k = rq->req.data_length / rec;
	if (k > newest)
		k = newest;
	if (k * rec > SD_CONN_BYTES_MAX)
		k = SD_CONN_BYTES_MAX / rec;
	if (k) {
		uint8_t *out = request_reply(rq, k * rec);
		if (!out)
			return SD_RES_NO_MEM;
		res = fill_epochs(rq, out, k, max_nodes);
		if (res != SD_RES_SUCCESS) {
			buf_put(TAKE(rq->reply, NULL));
			return res;
		}
	}
	return op_status(rq->sh); /* T38: the result is the status, with payload */
}

uint32_t op_get_epoch(struct request *rq)
{
	struct view *v = epoch_view(rq->sh, rq->req.obj.tgt_epoch);

	if (!v)
		return SD_RES_NO_TAG;
	size_t nodes = v->nr * sizeof(struct sd_node);
	uint8_t *out = request_reply(rq, nodes + sizeof(uint64_t));
	if (out) {
		fill_nodes((struct sd_node *)out, v);
		memcpy(out + nodes, &v->time, sizeof(uint64_t));
		rq->rsp.node.nr_nodes = v->nr;
	}
	view_put(v);
	return out ? SD_RES_SUCCESS : SD_RES_BUFFER_SMALL;
}

/* ---- the node ---- */

uint32_t op_get_store_list(struct request *rq)
{
	static const char list[] = "plain ";
	char *out = request_reply(rq, sizeof(list));

	if (!out)
		return SD_RES_BUFFER_SMALL;
	memcpy(out, list, sizeof(list));
	return SD_RES_SUCCESS;
}

uint32_t op_stat_sheep(struct request *rq)
{
	uint64_t total = 0, avail = 0;

	if (!rq->sh->conf->gateway)
		store_space(rq->sh->store, &total, &avail);
	rq->rsp.node.store_size = total;
	rq->rsp.node.store_free = avail;
	return SD_RES_SUCCESS;
}

uint32_t op_md_info(struct request *rq)
{
	uint64_t total, avail;

	if (rq->req.data_length != sizeof(struct sd_md_info))
		return SD_RES_INVALID_PARMS;
	struct sd_md_info *md = request_reply(rq, sizeof(*md));
	if (!md)
		return SD_RES_NO_MEM;
	if (rq->sh->conf->gateway)
		return SD_RES_SUCCESS; /* no disks */
	store_space(rq->sh->store, &total, &avail);
	md->nr = 1;
	md->disk[0].free = avail;
	md->disk[0].used = total - avail;
	snprintf(md->disk[0].path, sizeof(md->disk[0].path), "%s/obj", rq->sh->conf->store.dir);
	return SD_RES_SUCCESS;
}

uint32_t op_stat(struct request *rq)
{
	struct sheep_stat *st = request_reply(rq, sizeof(*st));

	if (!st)
		return SD_RES_BUFFER_SMALL;
	*st = rq->sh->stat;
	return SD_RES_SUCCESS;
}

uint32_t op_kill_node(struct request *rq)
{
	sheep_exit(rq->sh, 0, "killed by an administrator");
	return SD_RES_SUCCESS;
}

uint32_t op_get_loglevel(struct request *rq)
{
	int32_t level = rq->sh->log ? (int32_t)log_get_level(rq->sh->log) : LOG_L_INFO;
	void *out = request_reply(rq, sizeof(level));

	if (!out)
		return SD_RES_BUFFER_SMALL;
	memcpy(out, &level, sizeof(level));
	return SD_RES_SUCCESS;
}

uint32_t op_set_loglevel(struct request *rq)
{
	int32_t level;

	if (!(rq->req.flags & SD_FLAG_WRITE) || rq->req.data_length < sizeof(level))
		return SD_RES_INVALID_PARMS;
	memcpy(&level, rq->data->data, sizeof(level));
	if (level < LOG_L_EMERG || level > LOG_L_DEBUG)
		return SD_RES_INVALID_PARMS;
	if (rq->sh->log)
		log_set_level(rq->sh->log, level);
	return SD_RES_SUCCESS;
}

/* ---- objects of this node ---- */

uint32_t op_exist(struct request *rq)
{
	struct obj_info info;

	return store_lookup(rq->sh->store, rq->req.obj.oid, &info) ? SD_RES_SUCCESS : SD_RES_NO_OBJ;
}

uint32_t op_oids_exist(struct request *rq)
{
	const uint16_t need = SD_FLAG_WRITE | SD_FLAG_PIGGYBACK;
	size_t n = rq->req.data_length / sizeof(uint64_t), nr_missing = 0;
	struct obj_info info;

	if ((rq->req.flags & need) != need || rq->req.data_length % sizeof(uint64_t))
		return SD_RES_INVALID_PARMS;
	if (!n)
		return SD_RES_SUCCESS;
	const uint64_t *oids = rq->data->data;
	uint64_t *missing = request_reply(rq, rq->req.data_length);
	if (!missing)
		return SD_RES_NO_MEM;
	for (size_t i = 0; i < n; i++)
		if (!store_lookup(rq->sh->store, oids[i], &info))
			missing[nr_missing++] = oids[i];
	rq->reply_len = nr_missing * sizeof(uint64_t);
	if (nr_missing)
		return SD_RES_NO_OBJ;
	buf_put(TAKE(rq->reply, NULL));
	return SD_RES_SUCCESS;
}

static int cmp_oid(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

uint32_t op_get_obj_list(struct request *rq)
{
	uint64_t max = store_nr_objects(rq->sh->store), n = 0, h = 0, o = 0;
	struct obj_info part[64];
	unsigned k;

	uint64_t *oids = request_reply(rq, max * sizeof(*oids));
	if (!oids)
		return SD_RES_BUFFER_SMALL;
	while ((k = store_list(rq->sh->store, 0, UINT64_MAX, n != 0, h, o, part,
			       ARRAY_SIZE(part)))) {
		for (unsigned i = 0; i < k && n < max; i++)
			oids[n++] = part[i].oid;
		h = part[k - 1].hash;
		o = part[k - 1].oid;
	}
	qsort(oids, n, sizeof(*oids), cmp_oid);
	rq->reply_len = n * sizeof(*oids);
	return SD_RES_SUCCESS;
}

uint32_t op_cleanup(struct request *rq)
{
	int r = store_purge_stale(rq->sh->store); /* ~ */

	if (r < 0)
		log_err(rq->sh->log, "cannot remove stale objects: %s", strerror(-r));
	return r < 0 ? SD_RES_EIO : SD_RES_SUCCESS;
}

uint32_t op_stat_recovery(struct request *rq)
{
	struct sd_recovery_state *st = request_reply(rq, sizeof(*st));

	if (!st)
		return SD_RES_BUFFER_SMALL;
	st->in_recovery = !sync_at_rest(rq->sh);
	st->state = st->in_recovery; /* "recovering" */
	return SD_RES_SUCCESS;
}
