/* cluster.c - dog cluster info|format|shutdown|recover (cli.md 2.4). */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dog/dog.h"

/* The answer to STAT_CLUSTER: @nr records with room for @nodes nodes each. */
struct epochs {
	uint8_t *buf;
	unsigned nr, nodes;
	size_t stride;
	uint32_t status, epoch;
};

static const struct sd_epoch_record *epoch_at(const struct epochs *e, unsigned i)
{
	return (const void *)(e->buf + i * e->stride);
}

static const struct sd_node *epoch_nodes(const struct epochs *e, unsigned i)
{
	return (const void *)(e->buf + i * e->stride + sizeof(struct sd_epoch_record));
}

/* Read all epochs: more room for nodes, then for epochs, until everything fits. */
static int get_epochs(struct dog *d, struct epochs *e)
{
	unsigned want = 64;
	for (e->nodes = 64;;) {
		e->stride = sizeof(struct sd_epoch_record) + sizeof(struct sd_node) * e->nodes;
		size_t len = e->stride * want;
		struct sd_req req = {.opcode = SD_OP_STAT_CLUSTER,
				     .data_length = (uint32_t)len,
				     .cluster.nodes_nr = e->nodes};
		struct sd_rsp rsp;
		free(e->buf);
		e->buf = calloc(1, len);
		if (!e->buf || dog_req(d, &req, NULL, e->buf, &len, &rsp) < 0)
			return EXIT_SYSTEM;
		e->status = rsp.result;
		e->epoch = rsp.epoch;
		if (rsp.result == SD_RES_BUFFER_SMALL && e->nodes < SD_CLUSTER_INFO_NODES) {
			e->nodes *= 2;
			continue;
		}
		e->nr = (unsigned)(len / e->stride);
		if (e->nr < want || want >= 1u << 14)
			return EXIT_OK;
		want *= 4;
	}
}

static const char *status_text(const struct epochs *e, char buf[64])
{
	char b[32];
	if (e->status != SD_RES_SUCCESS)
		return strcpy(buf, reason(e->status, b));
	bool off = e->nr && epoch_at(e, 0)->disable_recovery;
	return strcpy(buf,
		      off ? "running, auto-recovery disabled" : "running, auto-recovery enabled");
}

static bool has_node(const struct sd_node *nodes, unsigned nr, const struct sd_node *n)
{
	for (unsigned i = 0; i < nr; i++)
		if (!memcmp(nodes[i].addr, n->addr, 16) && nodes[i].port == n->port)
			return true;
	return false;
}

static unsigned rec_nodes(const struct epochs *e, unsigned i)
{
	unsigned n = epoch_at(e, i)->nr_nodes;
	return n < e->nodes ? n : e->nodes;
}

/* "+A:P, -A:P" against the epoch before, "formated" for the first. */
static void print_diff(const struct epochs *e, unsigned i)
{
	char a[64];
	bool first = true;
	if (i + 1 >= e->nr) {
		printf("formated");
		return;
	}
	const struct sd_node *now = epoch_nodes(e, i), *was = epoch_nodes(e, i + 1);
	unsigned n = rec_nodes(e, i), w = rec_nodes(e, i + 1);
	for (unsigned k = 0; k < n; k++)
		if (!has_node(was, w, &now[k])) {
			printf("%s+%s", first ? "" : ", ", node_addr(&now[k], a));
			first = false;
		}
	for (unsigned k = 0; k < w; k++)
		if (!has_node(now, n, &was[k])) {
			printf("%s-%s", first ? "" : ", ", node_addr(&was[k], a));
			first = false;
		}
}

static void print_epoch(struct dog *d, const struct epochs *e, unsigned i)
{
	const struct sd_epoch_record *r = epoch_at(e, i);
	const struct sd_node *n = epoch_nodes(e, i);
	time_t t = (time_t)r->time;
	struct tm tm;
	char when[64], a[64];
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
	if (d->raw)
		printf("%llu %u [", (unsigned long long)r->time, r->epoch);
	else
		printf("%s %6u [", when, r->epoch);
	if (d->diff)
		print_diff(e, i);
	else
		for (unsigned k = 0; k < rec_nodes(e, i); k++)
			printf("%s%s:%u", k ? ", " : "", node_addr(&n[k], a), n[k].nr_vnodes);
	printf("]\n");
}

static json_t *epoch_json(const struct epochs *e, unsigned i)
{
	json_t *nodes = json_array();
	char a[64];
	for (unsigned k = 0; k < rec_nodes(e, i); k++) {
		const struct sd_node *n = &epoch_nodes(e, i)[k];
		json_array_append_new(nodes, json_pack("{s:s, s:i, s:I}", "address",
						       node_addr(n, a), "vnodes", n->nr_vnodes,
						       "zone", (json_int_t)n->zone));
	}
	return json_pack("{s:I, s:I, s:o}", "epoch", (json_int_t)epoch_at(e, i)->epoch, "time",
			 (json_int_t)epoch_at(e, i)->time, "nodes", nodes);
}

static int info_json(const struct epochs *e)
{
	const struct sd_epoch_record *r = epoch_at(e, 0);
	char st[64], red[16];
	json_t *rows = json_array();
	for (unsigned i = 0; i < e->nr; i++)
		json_array_append_new(rows, epoch_json(e, i));
	json_t *j = json_pack("{s:s, s:b, s:o}", "status", status_text(e, st), "running",
			      e->status == SD_RES_SUCCESS, "epochs", rows);
	if (e->nr && r->ctime) {
		json_object_set_new(j, "store", json_bytes(r->store, sizeof(r->store)));
		json_object_set_new(j, "redundancy",
				    json_string(
					    redundancy_text(r->nr_copies, r->copy_policy, red)));
		json_object_set_new(
			j, "vnodes_strategy",
			json_string(r->cluster_flags & SD_CLUSTER_AUTO_VNODES ? "auto" : "fixed"));
		json_object_set_new(j, "created", json_integer((json_int_t)(r->ctime >> 32)));
	}
	return print_json(j);
}

static void info_verbose(struct dog *d, const struct epochs *e)
{
	static const struct sd_epoch_record none;
	const struct sd_epoch_record *r = e->nr ? epoch_at(e, 0) : &none;
	char red[16], st[64];
	bool up = e->status == SD_RES_SUCCESS;
	if (!up)
		printf("%s%s\n", d->raw ? "" : "Cluster store: ", status_text(e, st));
	else
		printf("%s%.16s with %s redundancy policy\n",
		       d->raw ? "" : "Cluster store: ", r->store,
		       redundancy_text(r->nr_copies, r->copy_policy, red));
	if (up)
		printf("%s%s\n", d->raw ? "" : "Cluster vnodes strategy: ",
		       r->cluster_flags & SD_CLUSTER_AUTO_VNODES ? "auto" : "fixed");
	printf("%s%s\n", d->raw ? "" : "Cluster vnode mode: ",
	       r->cluster_flags & SD_CLUSTER_DISKMODE ? "disk" : "node");
}

static int cluster_info(struct dog *d)
{
	struct epochs e = {0};
	char st[64], when[64];
	struct tm tm;
	int r = get_epochs(d, &e);
	if (r) {
		free(e.buf);
		return r;
	}
	if (d->json) {
		r = info_json(&e);
		free(e.buf);
		return r;
	}
	printf("%s%s\n", d->raw ? "" : "Cluster status: ", status_text(&e, st));
	if (d->verbose)
		info_verbose(d, &e);
	else
		printf("\n");
	if (e.nr && e.status != SD_RES_WAIT_FOR_FORMAT) {
		time_t ct = (time_t)(epoch_at(&e, 0)->ctime >> 32);
		strftime(when, sizeof(when), "%a %b %e %H:%M:%S %Y", localtime_r(&ct, &tm));
		if (!d->raw)
			printf("Cluster created at %s\n\nEpoch Time           Version "
			       "[Host:Port:V-Nodes,,,]\n",
			       when);
		for (unsigned i = 0; i < e.nr; i++)
			print_epoch(d, &e, i);
	}
	free(e.buf);
	return EXIT_OK;
}

/* Every node must be reachable, and of the vnode strategy that was asked for. */
static int check_nodes(struct dog *d, unsigned *ret_zones)
{
	size_t cap =
		sizeof(struct sd_cluster_info) + sizeof(struct sd_node) * SD_CLUSTER_INFO_NODES;
	CLEANUP(freep) struct sd_cluster_info *ci = malloc(cap);
	unsigned zones = 0;
	for (unsigned i = 0; i < d->nr_nodes; i++) {
		struct sd_req req = {.opcode = SD_OP_CLUSTER_INFO, .data_length = (uint32_t)cap};
		struct sd_rsp rsp;
		size_t len = cap;
		unsigned j = 0;
		if (!ci || dog_req_to(d, &d->nodes[i], &req, ci, &len, &rsp) < 0)
			return EXIT_SYSTEM;
		bool known = rsp.result == SD_RES_SUCCESS && len >= sizeof(*ci);
		bool is_auto = known && ci->flags & SD_CLUSTER_AUTO_VNODES;
		if (known && is_auto == d->fixed_vnodes && d->nodes[i].nr_vnodes) {
			if (is_auto)
				dog_err("Can not apply the option of '-V', because there are vnode "
					"strategy of "
					"sheep is auto in the cluster");
			else
				dog_err("Need to specify the option of '-V', because there are "
					"vnode strategy of "
					"sheep is fixed in the cluster");
			return EXIT_FAILED;
		}
		while (j < i && d->nodes[j].zone != d->nodes[i].zone)
			j++;
		zones += j == i && d->nodes[i].nr_vnodes;
	}
	*ret_zones = zones;
	return EXIT_OK;
}

/* Are there volumes (any bit in the in-use map)? */
static bool cluster_in_use(struct dog *d)
{
	size_t len = SD_NR_VDIS / 8;
	struct sd_req req = {.opcode = SD_OP_READ_VDIS, .data_length = (uint32_t)len};
	struct sd_rsp rsp;
	CLEANUP(freep) uint8_t *map = calloc(1, len);
	if (!map || dog_req(d, &req, NULL, map, &len, &rsp) < 0 || rsp.result)
		return false;
	for (size_t i = 0; i < len; i++)
		if (map[i])
			return true;
	return false;
}

static bool format_confirmed(struct dog *d, unsigned zones)
{
	char text[256];
	if (!d->force && cluster_in_use(d) &&
	    !confirm("Caution! The cluster is not empty.\nFormatting destroys all its volumes on "
		     "every node.",
		     true))
		return false;
	unsigned copies = d->copies ? d->copies : SD_COPIES_DEFAULT;
	if (copies <= zones)
		return true;
	snprintf(text, sizeof(text),
		 "The number of copies (%u) is larger than the number of zones (%u):\n"
		 "each object will have only %u until more zones join.",
		 copies, zones, zones);
	return confirm(text, false);
}

static int cluster_format(struct dog *d)
{
	unsigned zones = 0;
	const char *store = d->store ? d->store : "plain";
	char b[32];
	struct timespec now;
	if (strcmp(store, "plain")) {
		dog_err("The store '%s' is %s", store,
			strcmp(store, "tree") ? "unknown" : "not supported yet");
		printf("Available stores:\n---------------------------------------\nplain \n");
		return EXIT_SYSTEM;
	}
	int r = dog_nodes(d);
	if (!r)
		r = check_nodes(d, &zones);
	if (r)
		return r;
	if (!format_confirmed(d, zones))
		return EXIT_OK;
	clock_gettime(CLOCK_REALTIME, &now);
	struct sd_req req = {.opcode = SD_OP_MAKE_FS,
			     .flags = SD_FLAG_WRITE,
			     .data_length = (uint32_t)strlen(store) + 1};
	struct sd_rsp rsp;
	req.cluster.copies = d->copies ? d->copies : SD_COPIES_DEFAULT;
	req.cluster.copy_policy = d->copy_policy;
	req.cluster.block_size_shift = d->shift ? d->shift : SD_OBJ_SHIFT_DEFAULT;
	req.cluster.ctime = (uint64_t)now.tv_sec << 32 | (uint64_t)now.tv_nsec;
	req.cluster.flags = (uint16_t)((d->fixed_vnodes ? 0 : SD_CLUSTER_AUTO_VNODES) |
				       (d->strict ? SD_CLUSTER_STRICT : 0) |
				       (d->lock ? SD_CLUSTER_USE_LOCK : 0));
	printf("using backend %s store\n", store);
	if (dog_req(d, &req, store, NULL, NULL, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result) {
		dog_err("Format failed: %s", reason(rsp.result, b));
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

static int simple(struct dog *d, uint8_t op, const char *what, void *in, size_t len)
{
	struct sd_req req = {.opcode = op, .data_length = (uint32_t)len};
	struct sd_rsp rsp;
	char b[32];
	if (dog_req(d, &req, NULL, in, &len, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result) {
		dog_err("Failed to %s: %s", what, reason(rsp.result, b));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

static int cluster_shutdown(struct dog *d)
{
	return simple(d, SD_OP_SHUTDOWN, "shut the cluster down", NULL, 0);
}

static int recover_force(struct dog *d)
{
	size_t len = sizeof(struct sd_node) * SD_CLUSTER_INFO_NODES;
	if (!d->force &&
	    !confirm("The cluster will start with the nodes that are present now. Writes that only "
		     "the\n"
		     "missing nodes hold are given up: when those nodes return, what they have is "
		     "replaced.\n"
		     "Do this only if the missing nodes will not come back; otherwise start them.",
		     false))
		return EXIT_OK;
	CLEANUP(freep) void *nodes = calloc(1, len);
	return nodes ? simple(d, SD_OP_FORCE_RECOVER, "force the recovery", nodes, len)
		     : EXIT_SYSTEM;
}

static int recover_enable(struct dog *d)
{
	int r = simple(d, SD_OP_ENABLE_RECOVER, "enable the recovery", NULL, 0);
	if (!r)
		printf("Cluster recovery: enable\n");
	return r;
}

static int recover_disable(struct dog *d)
{
	int r = simple(d, SD_OP_DISABLE_RECOVER, "disable the recovery", NULL, 0);
	if (!r)
		printf("Cluster recovery: disable\n");
	return r;
}

static const struct nested recover_nested[] = {
	{"force", "start a waiting cluster with the nodes that are present", recover_force},
	{"enable", "enable automatic recovery", recover_enable},
	{"disable", "disable automatic recovery", recover_disable},
	{0},
};

static const struct subcommand cluster_subs[] = {
	{"info", "", "show cluster information", "aprhvTd", true, 0, 0, NULL, cluster_info},
	{"format", "", "create a Sheepdog store", "bcltaphzTVRFf", false, 0, 0, NULL,
	 cluster_format},
	{"shutdown", "", "stop Sheepdog", "aphT", false, 0, 0, NULL, cluster_shutdown},
	{"recover", "", "see 'Available subcommands'", "afphT", false, 1, 1, recover_nested, NULL},
	{0},
};
const struct command cluster_command = {"cluster", cluster_subs};
