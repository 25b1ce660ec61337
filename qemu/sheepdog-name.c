/* sheepdog-name.c - what names a volume for QEMU: image names, options, the list of gateways.
 *
 * Names are those of protocol.md 9a.  Snapshots are refused in one place, read_target().
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qmp/qdict.h"
#include "qemu/cutils.h"
#include "qemu/option.h"
#include "qemu/uri.h"

#include <sheepdog/limits.h>

#include "sheepdog-name.h"

#define SHEEPDOG_PORT "7000"

void sheepdog_target_done(struct sheepdog_target *t)
{
	g_free(t->vdi);
	g_free(t->host);
	g_free(t->port);
	g_free(t->path);
	g_free(t->extra);
	g_free(t->gateways);
	memset(t, 0, sizeof(*t));
}

/* A number is a snapshot id, anything else a tag. */
static bool put_snapshot(QDict *options, const char *s, Error **errp)
{
	unsigned id;

	if (!*s) {
		error_setg(errp, "empty snapshot id or tag in the image name");
		return false;
	}
	if (strspn(s, "0123456789") == strlen(s)) {
		if (qemu_strtoui(s, NULL, 10, &id) < 0 || !id) {
			error_setg(errp, "'%s' is not a valid snapshot id", s);
			return false;
		}
		qdict_put_str(options, "snap-id", s);
		return true;
	}
	qdict_put_str(options, "tag", s);
	return true;
}

static void put_inet(QDict *options, const char *host, const char *port)
{
	qdict_put_str(options, "server.type", "inet");
	qdict_put_str(options, "server.host", host);
	qdict_put_str(options, "server.port", port);
}

/* NAME, NAME:ID, NAME:TAG, HOST:PORT:NAME, HOST:PORT:NAME:ID or :TAG; HOST may be [IPV6]. */
static void parse_legacy(const char *s, QDict *options, Error **errp)
{
	g_autofree char *v6 = NULL;
	g_auto(GStrv) f = NULL;
	const char *end;
	unsigned nr, name = 0;

	if (*s == '[' && (end = strstr(s, "]:"))) {
		v6 = g_strndup(s + 1, end - s - 1);
		s = end + 2;
	}
	f = g_strsplit(s, ":", -1);
	nr = g_strv_length(f);
	if (v6) {
		if (nr != 2 && nr != 3) {
			error_setg(errp,
				   "image name must be sheepdog:[IPV6]:PORT:NAME[:ID or :TAG]");
			return;
		}
		put_inet(options, v6, f[0]);
		name = 1;
	} else if (nr > 4) {
		error_setg(errp, "too many colons in the image name; the URL form "
				 "(sheepdog://HOST:PORT/NAME) takes any name");
		return;
	} else if (nr > 2) {
		put_inet(options, f[0], f[1]);
		name = 2;
	}
	qdict_put_str(options, "vdi", nr ? f[name] : "");
	if (name + 1 < nr)
		put_snapshot(options, f[name + 1], errp);
}

static bool parse_unix_query(URI *uri, QDict *options, Error **errp)
{
	QueryParams *qp = query_params_parse(uri->query ?: "");
	bool ok = !uri->server || !*uri->server;

	if (!ok)
		error_setg(errp, "a sheepdog+unix URL has no host");
	else if (qp->n != 1 || strcmp(qp->p[0].name, "socket") || !qp->p[0].value ||
		 !*qp->p[0].value) {
		ok = false;
		error_setg(errp, "a sheepdog+unix URL needs exactly one query field, socket=PATH");
	} else {
		qdict_put_str(options, "server.type", "unix");
		qdict_put_str(options, "server.path", qp->p[0].value);
	}
	query_params_free(qp);
	return ok;
}

static bool parse_inet_url(URI *uri, QDict *options, Error **errp)
{
	g_autofree char *host = NULL, *port = NULL;
	size_t n;

	if (uri->query && *uri->query) {
		error_setg(errp, "a sheepdog URL over TCP has no query");
		return false;
	}
	if (!uri->server || !*uri->server) {
		if (uri->port > 0) {
			error_setg(errp, "the URL has a port but no host");
			return false;
		}
		return true;
	}
	n = strlen(uri->server);
	host = *uri->server == '[' && n > 2 ? g_strndup(uri->server + 1, n - 2)
					    : g_strdup(uri->server);
	port = uri->port > 0 ? g_strdup_printf("%d", uri->port) : g_strdup(SHEEPDOG_PORT);
	put_inet(options, host, port);
	return true;
}

/* sheepdog[+tcp]://[HOST[:PORT]]/NAME[#ID or #TAG], sheepdog+unix:///NAME?socket=PATH[#...] */
static void parse_url(const char *filename, QDict *options, Error **errp)
{
	URI *uri = uri_parse(filename);
	bool ok;

	if (!uri || !uri->scheme) {
		error_setg(errp, "'%s' is not a valid URL", filename);
		goto out;
	}
	if (!uri->path || uri->path[0] != '/' || !uri->path[1]) {
		error_setg(errp, "the URL names no volume");
		goto out;
	}
	ok = strcmp(uri->scheme, "sheepdog+unix") ? parse_inet_url(uri, options, errp)
						  : parse_unix_query(uri, options, errp);
	if (!ok)
		goto out;
	qdict_put_str(options, "vdi", uri->path + 1);
	if (uri->fragment)
		put_snapshot(options, uri->fragment, errp);
out:
	uri_free(uri);
}

void sheepdog_parse_filename(const char *filename, QDict *options, Error **errp)
{
	static const char *const taken[] = {"vdi",	   "snap-id",	  "tag",
					    "server.type", "server.host", "server.port",
					    "server.path"};
	const char *rest;

	for (unsigned i = 0; i < ARRAY_SIZE(taken); i++)
		if (qdict_haskey(options, taken[i])) {
			error_setg(errp, "Option %s cannot be used with an image name", taken[i]);
			return;
		}
	if (strstart(filename, "sheepdog:", &rest) && !strstart(rest, "//", NULL))
		parse_legacy(rest, options, errp);
	else
		parse_url(filename, options, errp);
}

static QemuOptsList runtime_opts = {
	.name = "sheepdog",
	.head = QTAILQ_HEAD_INITIALIZER(runtime_opts.head),
	.desc =
		{
			{.name = "vdi", .type = QEMU_OPT_STRING},
			{.name = "snap-id", .type = QEMU_OPT_STRING},
			{.name = "tag", .type = QEMU_OPT_STRING},
			{.name = "server.type", .type = QEMU_OPT_STRING},
			{.name = "server.host", .type = QEMU_OPT_STRING},
			{.name = "server.port", .type = QEMU_OPT_STRING},
			{.name = "server.path", .type = QEMU_OPT_STRING},
			{.name = "gateways", .type = QEMU_OPT_STRING},
			{/* end of list */},
		},
};

static bool read_server(QemuOpts *opts, struct sheepdog_target *t, Error **errp)
{
	const char *type = qemu_opt_get(opts, "server.type");
	const char *host = qemu_opt_get(opts, "server.host");
	const char *port = qemu_opt_get(opts, "server.port");
	const char *path = qemu_opt_get(opts, "server.path");
	unsigned n;

	if (type && strcmp(type, "inet") && strcmp(type, "unix")) {
		error_setg(errp, "server.type must be inet or unix, not '%s'", type);
		return false;
	}
	if (type && !strcmp(type, "unix")) {
		if (!path || !*path || host || port || strchr(path, ',')) {
			error_setg(errp, "a unix server has a server.path (without commas) and "
					 "nothing else");
			return false;
		}
		t->path = g_strdup(path);
		return true;
	}
	if (path) {
		error_setg(errp, "server.path needs server.type=unix");
		return false;
	}
	if (!type && !host && !port)
		return true;
	if ((host && (!*host || strpbrk(host, "[],/ "))) ||
	    (port && (qemu_strtoui(port, NULL, 10, &n) < 0 || !n || n > 65535))) {
		error_setg(errp, "'%s:%s' is not a valid address", host ?: "", port ?: "");
		return false;
	}
	t->host = g_strdup(host ?: "localhost");
	t->port = g_strdup(port ?: SHEEPDOG_PORT);
	return true;
}

/* The address as the library takes it and as lists are compared: port filled in. */
static char *canonical(const char *address)
{
	g_autofree char *a = g_strstrip(g_strdup(address));
	const char *colon = strrchr(a, ':');
	bool has_port = colon && (a[0] != '[' || (colon > a && colon[-1] == ']'));

	if (!strncmp(a, "unix:", 5))
		return g_strdup(a);
	if (!has_port)
		return g_strdup_printf("%s:" SHEEPDOG_PORT,
				       strcmp(a, "localhost") ? a : "127.0.0.1");
	if (!strncmp(a, "localhost:", 10))
		return g_strdup_printf("127.0.0.1:%s", a + 10);
	return g_strdup(a);
}

static bool in_list(GPtrArray *list, const char *address)
{
	for (unsigned i = 0; i < list->len; i++)
		if (!strcmp(g_ptr_array_index(list, i), address))
			return true;
	return false;
}

static void add_list(GPtrArray *list, const char *addresses)
{
	g_auto(GStrv) f = g_strsplit(addresses, ",", -1);

	for (unsigned i = 0; f[i]; i++) {
		g_autofree char *a = NULL;
		if (!*g_strstrip(f[i]))
			continue;
		a = canonical(f[i]);
		if (!in_list(list, a))
			g_ptr_array_add(list, g_steal_pointer(&a));
	}
}

/* The address named comes first; then the option's; then SHEEPDOG_GATEWAYS when it has the address
 * named, or when none is. */
static char *make_gateways(const struct sheepdog_target *t)
{
	const char *env = getenv("SHEEPDOG_GATEWAYS");
	GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *named = NULL;
	char *r;

	if (t->path)
		named = g_strdup_printf("unix:%s", t->path);
	else if (t->host) {
		g_autofree char *a = g_strdup_printf(strchr(t->host, ':') ? "[%s]:%s" : "%s:%s",
						     t->host, t->port);
		named = canonical(a);
	}
	if (named)
		add_list(list, named);
	if (t->extra)
		add_list(list, t->extra);
	if (env && named) {
		GPtrArray *other = g_ptr_array_new_with_free_func(g_free);
		add_list(other, env);
		if (in_list(other, named))
			add_list(list, env);
		g_ptr_array_free(other, true);
	} else if (env && !t->extra) {
		add_list(list, env);
	}
	if (!list->len)
		add_list(list, "127.0.0.1:" SHEEPDOG_PORT);
	g_ptr_array_add(list, NULL);
	r = g_strjoinv(",", (char **)list->pdata);
	g_ptr_array_free(list, true);
	return r;
}

static bool read_target(QemuOpts *opts, struct sheepdog_target *t, Error **errp)
{
	const char *vdi = qemu_opt_get(opts, "vdi");
	const char *id = qemu_opt_get(opts, "snap-id"), *tag = qemu_opt_get(opts, "tag");
	unsigned n;

	if (!vdi || !*vdi) {
		error_setg(errp, "no volume is named");
		return false;
	}
	if (strlen(vdi) >= SD_NAME_LEN || (tag && strlen(tag) >= SD_NAME_LEN)) {
		error_setg(errp, "the name is too long (%u bytes at most)", SD_NAME_LEN - 1);
		return false;
	}
	if (id && (qemu_strtoui(id, NULL, 10, &n) < 0 || !n)) {
		error_setg(errp, "'%s' is not a valid snapshot id", id);
		return false;
	}
	if (id && tag) {
		error_setg(errp, "snap-id and tag exclude each other");
		return false;
	}
	if (id || tag) {
		error_setg(errp, "snapshots are not supported yet ('%s' of volume '%s')", id ?: tag,
			   vdi);
		return false;
	}
	if (!read_server(opts, t, errp))
		return false;
	t->vdi = g_strdup(vdi);
	t->extra = g_strdup(qemu_opt_get(opts, "gateways"));
	t->gateways = make_gateways(t);
	return true;
}

bool sheepdog_target_init(struct sheepdog_target *t, QDict *options, Error **errp)
{
	QemuOpts *opts = qemu_opts_create(&runtime_opts, NULL, 0, &error_abort);
	bool ok = qemu_opts_absorb_qdict(opts, options, errp) && read_target(opts, t, errp);

	qemu_opts_del(opts);
	if (!ok)
		sheepdog_target_done(t);
	return ok;
}
