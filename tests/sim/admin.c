/* admin.c - the administrator: formats the cluster, creates the volumes, shuts the cluster down. */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "include/sheepdog/sheepdog.h"
#include "lib/client/client.h"
#include "tests/sim/run.h"

#include <assert.h>

#define ADMIN_IP 40u

static void admin_wait(void *arg)
{
	co_sleep(100 * US);
}

/* Clients that share a volume do not see what the others allocate: all of it is there before. */
static int allocate(struct run *r, struct sd_cluster *c, const struct volume *v)
{
	static const uint8_t zeros[SECTOR];
	struct sd_vdi *vdi;
	int e = sd_vdi_open(c, v->name, 0, &vdi);

	if (e)
		return e;
	for (unsigned i = 0; i < v->nr_objects && !e; i++)
		e = sd_write(vdi, zeros, sizeof(zeros), (uint64_t)i << r->shape.shift);
	int e2 = sd_vdi_close(vdi);
	return e ? e : e2;
}

static void admin_co(void *arg)
{
	struct run *r = arg;
	struct sd_create_opts opts = {.copies = (uint8_t)r->shape.copies,
				      .object_shift = (uint8_t)r->shape.shift};
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER,
			     .opcode = SD_OP_MAKE_FS,
			     .flags = SD_FLAG_WRITE,
			     .data_length = 6};
	struct sd_cluster *c;
	struct sd_rsp rsp;

	assert(client_open_on(&r->admin->env, admin_wait, r, r->gateways, &c) == 0);
	sd_cluster_set_connect_timeout(c, 0);
	req.cluster.copies = (uint8_t)r->shape.copies;
	req.cluster.flags = SD_CLUSTER_AUTO_VNODES;
	int e = sd_request(c, &req, "plain", NULL, NULL, &rsp);
	if (e || rsp.result)
		world_fail(&r->w, "format: %d, %x", e, rsp.result);
	for (unsigned i = 0; i < r->nr_volumes && !r->w.failed; i++) {
		const struct volume *v = &r->volume[i];
		e = sd_vdi_create(c, v->name, (uint64_t)v->nr_objects << r->shape.shift, &opts,
				  NULL);
		if (!e && v->shared)
			e = allocate(r, c, v);
		if (e)
			world_fail(&r->w, "create: %s", sd_strerror(e));
	}
	sd_cluster_close(c);
	r->admin_done = true;
}

/* `dog cluster shutdown`; whoever asks may not get an answer. */
static void shutdown_co(void *arg)
{
	struct run *r = arg;
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER, .opcode = SD_OP_SHUTDOWN};
	struct sd_cluster *c;
	struct sd_rsp rsp;

	assert(client_open_on(&r->admin->env, admin_wait, r, r->admin_to, &c) == 0);
	sd_cluster_set_connect_timeout(c, 1);
	sd_request_to(c, r->admin_to, &req, NULL, NULL, NULL, &rsp);
	sd_cluster_close(c);
	r->admin_done = true;
}

static void admin_main(void *arg)
{
	struct run *r = arg;

	r->admin_sched = co_sched_new(&r->admin->env, 10);
	assert(co_start(r->admin_sched, r->admin_to[0] ? shutdown_co : admin_co, r, "admin"));
}

void admin_start(struct run *r)
{
	r->admin_done = false;
	r->admin = proc_new(&r->w, "admin", ADMIN_IP, NULL);
	proc_call(r->admin, admin_main, r);
}

void admin_shutdown(struct run *r, const struct node *n)
{
	admin_end(r);
	snprintf(r->admin_to, sizeof(r->admin_to), "10.0.0.%u:7000", n->ip);
	admin_start(r);
}

bool admin_ready(struct run *r)
{
	return r->admin_done && !co_sched_nr(r->admin_sched);
}

static void admin_free(void *arg)
{
	struct run *r = arg;

	co_sched_free(r->admin_sched);
}

void admin_end(struct run *r)
{
	if (!r->admin)
		return;
	if (admin_ready(r)) {
		proc_call(r->admin, admin_free, r);
		proc_exit(r->admin);
	} else {
		co_sched_drop(r->admin_sched);
		proc_kill(r->admin);
	}
	r->admin = NULL;
}
