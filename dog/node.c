/* node.c - dog node list|info|kill|stat|log (cli.md 2.5). */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dog/dog.h"

static int node_list(struct dog *d)
{
	char a[64];
	int r = dog_nodes(d);
	if (r)
		return r;
	if (d->json) {
		json_t *rows = json_array();
		for (unsigned i = 0; i < d->nr_nodes; i++) {
			const struct sd_node *n = &d->nodes[i];
			json_array_append_new(rows,
					      json_pack("{s:i, s:s, s:i, s:I}", "id", i, "address",
							node_addr(n, a), "vnodes", n->nr_vnodes,
							"zone", (json_int_t)n->zone));
		}
		return print_json(rows);
	}
	if (!d->raw)
		printf("  Id   Host:Port         V-Nodes       Zone\n");
	for (unsigned i = 0; i < d->nr_nodes; i++) {
		const struct sd_node *n = &d->nodes[i];
		printf(d->raw ? "%u %s %u %u\n" : "%4u   %-20s\t%2u%11u\n", i, node_addr(n, a),
		       n->nr_vnodes, n->zone);
	}
	return EXIT_OK;
}

struct usage {
	uint64_t size, used, avail;
};

static unsigned percent(const struct usage *u)
{
	return u->size ? (unsigned)((double)u->used * 100 / (double)u->size) : 0;
}

static void print_usage_row(struct dog *d, const char *id, const struct usage *u)
{
	char s[32], us[32], av[32];
	format_size(u->size, d->raw, s, sizeof(s));
	format_size(u->used, d->raw, us, sizeof(us));
	format_size(u->avail, d->raw, av, sizeof(av));
	if (d->raw)
		printf("%s %s %s %s %u%%\n", id, s, us, av, percent(u));
	else
		printf("%s\t%s\t%s\t%s\t%3u%%\n", id, s, us, av, percent(u));
}

static json_t *usage_json(const char *id, const struct usage *u)
{
	return json_pack("{s:s, s:I, s:I, s:I}", "id", id, "size", (json_int_t)u->size, "used",
			 (json_int_t)u->used, "available", (json_int_t)u->avail);
}

static int add_size(struct dog *d, struct vdi_entry *e, void *arg)
{
	if (!e->h.snap_ctime)
		*(uint64_t *)arg += e->h.vdi_size;
	return EXIT_OK;
}

static int node_usage(struct dog *d, unsigned i, struct usage *u)
{
	struct sd_req req = {.opcode = SD_OP_STAT_SHEEP};
	struct sd_rsp rsp;
	char b[32], a[64];
	if (dog_req_to(d, &d->nodes[i], &req, NULL, NULL, &rsp) < 0)
		return -1;
	if (rsp.result) {
		dog_err("Failed to get the usage of %s: %s", node_addr(&d->nodes[i], a),
			reason(rsp.result, b));
		return -1;
	}
	*u = (struct usage){rsp.node.store_size, rsp.node.store_size - rsp.node.store_free,
			    rsp.node.store_free};
	return 0;
}

static void print_total(struct dog *d, const struct usage *t, uint64_t vsize)
{
	char s[32], us[32], av[32], v[32];
	format_size(t->size, d->raw, s, sizeof(s));
	format_size(t->used, d->raw, us, sizeof(us));
	format_size(t->avail, d->raw, av, sizeof(av));
	format_size(vsize, d->raw, v, sizeof(v));
	if (d->raw)
		printf("Total %s %s %s %u%% %s\n", s, us, av, percent(t), v);
	else
		printf("Total\t%s\t%s\t%s\t%3u%%\n\nTotal virtual image size\t%s\n", s, us, av,
		       percent(t), v);
}

static int node_info(struct dog *d)
{
	struct usage total = {0};
	unsigned answered = 0;
	uint64_t vsize = 0;
	json_t *rows = d->json ? json_array() : NULL;
	int r = dog_nodes(d);
	if (r) {
		json_decref(rows);
		return r;
	}
	if (!d->raw && !d->json)
		printf("Id\tSize\tUsed\tAvail\tUse%%\n");
	for (unsigned i = 0; i < d->nr_nodes; i++) {
		struct usage u;
		char id[16];
		if (node_usage(d, i, &u) < 0)
			continue;
		answered++;
		total.size += u.size;
		total.used += u.used;
		total.avail += u.avail;
		snprintf(id, sizeof(id), d->raw || d->json ? "%u" : "%2u", i);
		if (d->json)
			json_array_append_new(rows, usage_json(id, &u));
		else
			print_usage_row(d, id, &u);
	}
	if (!answered) {
		json_decref(rows);
		return EXIT_SYSTEM;
	}
	r = for_each_vdi(d, false, add_size, &vsize);
	if (d->json)
		return print_json(json_pack("{s:o, s:o, s:I}", "nodes", rows, "total",
					    usage_json("Total", &total), "virtual_size",
					    (json_int_t)vsize));
	print_total(d, &total, vsize);
	return r;
}

static int node_kill(struct dog *d)
{
	struct sd_req req = {.opcode = SD_OP_KILL_NODE};
	struct sd_rsp rsp;
	uint64_t id;
	char b[32];
	int r;
	if ((d->argc == 1) == d->local) {
		dog_err(d->local ? "Give a node id or -l, not both"
				 : "Please specify the node id, or -l");
		return dog_usage(d);
	}
	if (d->local) {
		r = dog_req(d, &req, NULL, NULL, NULL, &rsp);
	} else {
		if (dog_nodes(d))
			return EXIT_SYSTEM;
		if (parse_u64(d->argv[0], 0, d->nr_nodes - 1, &id) < 0) {
			dog_err("Invalid node id '%s': see dog node list", d->argv[0]);
			return EXIT_USAGE_ERR;
		}
		r = dog_req_to(d, &d->nodes[id], &req, NULL, NULL, &rsp);
	}
	if (r < 0 || rsp.result) {
		if (r >= 0)
			dog_err("Failed to execute request: %s", reason(rsp.result, b));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

/* Order of the counters: protocol.md 2.2, STAT */
struct stat15 {
	uint64_t gway_active, peer_active, gway_total, peer_total, gway_rx, gway_tx, peer_rx,
		peer_tx, gway_remove, gway_read, gway_write, gway_flush, peer_remove, peer_read,
		peer_write;
};

struct stat_row {
	const char *name;
	uint64_t active, total, write, read, remove, flush, rx, tx;
};

static void stat_rows(const struct stat15 *s, struct stat_row row[2])
{
	row[0] = (struct stat_row){"Client",	  s->gway_active, s->gway_total,
				   s->gway_write, s->gway_read,	  s->gway_remove,
				   s->gway_flush, s->gway_rx,	  s->gway_tx};
	row[1] = (struct stat_row){
		"Peer", s->peer_active, s->peer_total, s->peer_write, s->peer_read, s->peer_remove,
		0,	s->peer_rx,	s->peer_tx};
}

static void print_stat_row(struct dog *d, const struct stat_row *r, const struct stat_row *was)
{
	char w[32], rd[32], wb[32], rb[32];
	format_size(r->rx, d->raw, w, sizeof(w));
	format_size(r->tx, d->raw, rd, sizeof(rd));
	printf("%s%s%llu\t%llu\t%llu\t%llu\t%llu\t%llu\t%s\t%s", d->raw ? "" : r->name,
	       d->raw ? "" : "\t", (unsigned long long)r->active, (unsigned long long)r->total,
	       (unsigned long long)r->write, (unsigned long long)r->read,
	       (unsigned long long)r->remove, (unsigned long long)r->flush, w, rd);
	if (d->watch)
		printf("\t%s\t%s\t%llu",
		       format_size(was ? r->rx - was->rx : 0, d->raw, wb, sizeof(wb)),
		       format_size(was ? r->tx - was->tx : 0, d->raw, rb, sizeof(rb)),
		       (unsigned long long)(was ? r->total - was->total : 0));
	printf("\n");
}

static json_t *stat_json(const struct stat_row *r)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "active",
			 (json_int_t)r->active, "total", (json_int_t)r->total, "write",
			 (json_int_t)r->write, "read", (json_int_t)r->read, "remove",
			 (json_int_t)r->remove, "flush", (json_int_t)r->flush, "bytes_written",
			 (json_int_t)r->rx, "bytes_read", (json_int_t)r->tx);
}

static int get_stat(struct dog *d, struct stat15 *s)
{
	struct sd_req req = {.opcode = SD_OP_STAT, .data_length = sizeof(*s)};
	struct sd_rsp rsp;
	size_t len = sizeof(*s);
	char b[32];
	*s = (struct stat15){0};
	if (dog_req(d, &req, NULL, s, &len, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result) {
		dog_err("Failed to execute request: %s", reason(rsp.result, b));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

static int node_stat(struct dog *d)
{
	struct stat15 s;
	struct stat_row row[2], was[2];
	for (bool first = true;; first = false) {
		int r = get_stat(d, &s);
		if (r)
			return r;
		stat_rows(&s, row);
		if (d->json)
			return print_json(json_pack("{s:o, s:o}", "client", stat_json(&row[0]),
						    "peer", stat_json(&row[1])));
		if (!d->raw)
			printf("Request\tActive\tTotal\tWrite\tRead\tRemove\tFlush\tAll WR\tAll "
			       "RD%s\n",
			       d->watch ? "\tWRBW\tRDBW\tRPS" : "");
		for (unsigned i = 0; i < 2; i++)
			print_stat_row(d, &row[i], first ? NULL : &was[i]);
		if (!d->watch)
			return EXIT_OK;
		fflush(stdout);
		memcpy(was, row, sizeof(was));
		sleep(1);
	}
}

/* ---- recovery ---- */

static int get_recovery(struct dog *d, unsigned i, struct sd_recovery_state *st)
{
	struct sd_req req = {.opcode = SD_OP_STAT_RECOVERY, .data_length = sizeof(*st)};
	struct sd_rsp rsp;
	size_t len = sizeof(*st);
	char b[32], a[64];

	*st = (struct sd_recovery_state){0};
	if (dog_req_to(d, &d->nodes[i], &req, st, &len, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result) {
		dog_err("Failed to get the recovery state of %s: %s", node_addr(&d->nodes[i], a),
			reason(rsp.result, b));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

static void print_recovery(struct dog *d, unsigned i, const struct sd_recovery_state *st)
{
	const struct sd_node *n = &d->nodes[i];
	double part = st->total ? 100.0 * (double)st->done / (double)st->total : 0;
	char a[64];

	if (d->raw)
		printf("%u %s %u %u %llu %llu\n", i, node_addr(n, a), n->nr_vnodes, n->zone,
		       (unsigned long long)st->done, (unsigned long long)st->total);
	else
		printf("%4u   %-20s%5u%11u%11.1f%%\n", i, node_addr(n, a), n->nr_vnodes, n->zone,
		       part);
}

/* Only nodes whose objects are not all in sync are listed. */
static int node_recovery(struct dog *d)
{
	json_t *rows = d->json ? json_array() : NULL;
	struct sd_recovery_state st;
	int r;

	if (d->argc && strcmp(d->argv[0], "info")) {
		dog_err("dog node recovery %s is not supported yet", d->argv[0]);
		return EXIT_FAILED;
	}
	r = dog_nodes(d);
	if (!r && !d->raw && !d->json)
		printf("Nodes In Recovery:\n  Id   Host:Port         V-Nodes       Zone       "
		       "Progress\n");
	for (unsigned i = 0; !r && i < d->nr_nodes; i++) {
		char a[64];
		r = get_recovery(d, i, &st);
		if (r || !st.in_recovery)
			continue;
		if (rows)
			json_array_append_new(rows, json_pack("{s:i, s:s, s:I, s:I}", "id", (int)i,
							      "address", node_addr(&d->nodes[i], a),
							      "done", (json_int_t)st.done, "total",
							      (json_int_t)st.total));
		else
			print_recovery(d, i, &st);
	}
	if (r)
		json_decref(rows);
	return r ? r : rows ? print_json(rows) : EXIT_OK;
}

/* ---- log level ---- */

static const char *const level_names[] = {"emerg",   "alert",  "crit", "err",
					  "warning", "notice", "info", "debug"};

static int log_level_list(struct dog *d)
{
	json_t *rows = d->json ? json_array() : NULL;
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (d->json)
			json_array_append_new(rows, json_pack("{s:s, s:i}", "name", level_names[i],
							      "level", (int)i));
		else
			dog_err("%s\t(%zu)", level_names[i], i);
	}
	return d->json ? print_json(rows) : EXIT_OK;
}

static int log_level_get(struct dog *d)
{
	struct sd_req req = {.opcode = SD_OP_GET_LOGLEVEL, .data_length = sizeof(int32_t)};
	struct sd_rsp rsp;
	int32_t level = -1;
	size_t len = sizeof(level);
	if (dog_req(d, &req, NULL, &level, &len, &rsp) < 0)
		return -1;
	if (rsp.result || level < 0 || level >= (int32_t)ARRAY_SIZE(level_names)) {
		char b[32];
		dog_err("Failed to get the log level: %s", reason(rsp.result, b));
		return -1;
	}
	if (d->json)
		return print_json(
			json_pack("{s:s, s:i}", "name", level_names[level], "level", level));
	dog_err("%s (%d)", level_names[level], level);
	return EXIT_OK;
}

static int log_level_set(struct dog *d, const char *name)
{
	struct sd_req req = {.opcode = SD_OP_SET_LOGLEVEL,
			     .flags = SD_FLAG_WRITE,
			     .data_length = sizeof(int32_t)};
	struct sd_rsp rsp;
	int32_t level = 0;
	char b[32];
	while (level < (int32_t)ARRAY_SIZE(level_names) && strcmp(level_names[level], name))
		level++;
	if (level == (int32_t)ARRAY_SIZE(level_names)) {
		dog_err("Invalid log level '%s'; the levels are:", name);
		d->json = false;
		log_level_list(d);
		return -1;
	}
	if (dog_req(d, &req, &level, NULL, NULL, &rsp) < 0)
		return -1;
	if (rsp.result) {
		dog_err("Failed to set the log level: %s", reason(rsp.result, b));
		return -1;
	}
	return EXIT_OK;
}

static int node_log_level(struct dog *d)
{
	const char *verb = d->argc ? d->argv[0] : "";
	if (!strcmp(verb, "set") && d->argc == 2)
		return log_level_set(d, d->argv[1]);
	if (!strcmp(verb, "get") && d->argc == 1)
		return log_level_get(d);
	if (!strcmp(verb, "list") && d->argc == 1)
		return log_level_list(d);
	dog_err("Please specify set LEVEL, get or list");
	return dog_usage(d);
}

static const struct nested log_nested[] = {
	{"level", "set LEVEL, get or list the log level", node_log_level}, {0}};

static const struct subcommand node_subs[] = {
	{"list", "", "list nodes", "aprhT", true, 0, 0, NULL, node_list},
	{"info", "", "show information about each node", "aprhT", true, 0, 0, NULL, node_info},
	{"kill", "<node id>", "kill node", "aphTL", false, 0, 1, NULL, node_kill},
	{"stat", "", "show stat information about the node", "aprwhT", true, 0, 0, NULL, node_stat},
	{"recovery", "[info]", "show nodes that are not in sync yet", "aprhT", true, 0, 3, NULL,
	 node_recovery},
	{"log", "set LEVEL|get|list", "show or set the log level of the node", "aphT", true, 1, 3,
	 log_nested, NULL},
	{0},
};
const struct command node_command = {"node", node_subs};
