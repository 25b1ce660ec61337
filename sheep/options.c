/* options.c - see options.h.  Texts and exit statuses: cli.md 1.1 and 8. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/sheepdog/proto.h"
#include "lib/base/util.h"
#include "sheep/options.h"

struct opt_def {
	int ch;
	const char *name, *arg, *help, *long_help;
	bool supported;
};

static const struct opt_def opt_defs[] = {
#define OPT_DEF_(ch, id, name, arg, help, long_help, supported)                                    \
	{ch, name, arg, help, long_help, supported},
	SHEEP_OPTIONS(OPT_DEF_)
#undef OPT_DEF_
};
#define OPT_NR ARRAY_SIZE(opt_defs)

enum opt_char {
#define OPT_ENUM_(ch, id, name, arg, help, long_help, supported) OPT_##id = ch,
	SHEEP_OPTIONS(OPT_ENUM_)
#undef OPT_ENUM_
};

struct opt_ctx {
	FILE *out, *err;
	const char *prog;
	struct sheep_options *o;
};

static const struct opt_def *opt_find(int ch)
{
	for (unsigned i = 0; i < OPT_NR; i++)
		if (opt_defs[i].ch == ch)
			return &opt_defs[i];
	return NULL;
}

static int opt_help(struct opt_ctx *x)
{
	fprintf(x->out, "Sheepdog daemon (version %s)\n", PACKAGE_VERSION);
	fprintf(x->out, "Usage: %s [OPTION]... [PATH]\n\nOptions:\n", x->prog);
	for (unsigned i = 0; i < OPT_NR; i++)
		fprintf(x->out, "  -%c, --%-21s%s\n", opt_defs[i].ch, opt_defs[i].name,
			opt_defs[i].help);
	fprintf(x->out,
		"\nPATH is the directory of the store (default: /tmp).  An option without its\n"
		"argument explains itself.\n");
	return 0;
}

static int opt_version(struct opt_ctx *x)
{
	fprintf(x->out,
		"Sheepdog daemon version %s\n\nSupported features:\n\tCluster "
		"drivers:",
		PACKAGE_VERSION);
	for (unsigned i = 0; bus_drivers[i]; i++)
		fprintf(x->out, " %s", bus_drivers[i]->name);
	fprintf(x->out, "\n\tMiscellaneous: none\n");
	return 0;
}

/* getopt_long has already complained on stderr. */
static int opt_bad(struct opt_ctx *x, int ch)
{
	const struct opt_def *d = ch ? opt_find(ch) : NULL;

	if (d && d->arg && d->long_help)
		fputs(d->long_help, x->out);
	else
		fprintf(x->err, "Try '%s --help' for more information.\n", x->prog);
	return 1;
}

/* Absolute without resolving links, so that a path that does not exist yet is fine. */
static char *opt_abspath(const char *path)
{
	if (path[0] == '/')
		return strdup(path);
	CLEANUP(freep) char *cwd = getcwd(NULL, 0);
	return cwd ? str_printf("%s/%s", cwd, path) : NULL;
}

static int opt_set_path(struct opt_ctx *x, char **field, const char *path)
{
	if (!path[0]) {
		fprintf(x->err, "An empty path is not a path\n");
		return 1;
	}
	free(*field);
	*field = opt_abspath(path);
	if (!*field) {
		fprintf(x->err, "Cannot make '%s' an absolute path: %m\n", path);
		return 1;
	}
	return -1;
}

static bool opt_parse_ip(const char *s, struct net_addr *a)
{
	memset(a, 0, sizeof(*a));
	if (inet_pton(AF_INET, s, a->ip + 12) == 1) {
		a->family = AF_INET;
		return true;
	}
	memset(a->ip, 0, sizeof(a->ip));
	if (inet_pton(AF_INET6, s, a->ip) == 1) {
		a->family = AF_INET6;
		return true;
	}
	return false;
}

static int opt_bind(struct opt_ctx *x, const char *arg)
{
	if (opt_parse_ip(arg, &x->o->conf.bind))
		return -1;
	fprintf(x->err, "Bad address '%s': must be an IPv4 or IPv6 address\n", arg);
	return 1;
}

static int opt_myaddr(struct opt_ctx *x, const char *arg)
{
	struct net_addr *a = &x->o->conf.myaddr;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;

	if (opt_parse_ip(arg, a))
		return -1;
	int r = getaddrinfo(arg, NULL, &hints, &ai);
	if (r) {
		fprintf(x->err, "Bad address '%s': %s\n", arg, gai_strerror(r));
		return 1;
	}
	if (ai->ai_family == AF_INET) {
		a->family = AF_INET;
		memcpy(a->ip + 12, &((struct sockaddr_in *)ai->ai_addr)->sin_addr, 4);
	} else if (ai->ai_family == AF_INET6) {
		a->family = AF_INET6;
		memcpy(a->ip, &((struct sockaddr_in6 *)ai->ai_addr)->sin6_addr, 16);
	}
	freeaddrinfo(ai);
	if (a->family)
		return -1;
	fprintf(x->err, "Bad address '%s': neither IPv4 nor IPv6\n", arg);
	return 1;
}

static const struct bus_driver *opt_driver(const char *name, size_t len)
{
	for (unsigned i = 0; bus_drivers[i]; i++)
		if (strlen(bus_drivers[i]->name) == len && !memcmp(bus_drivers[i]->name, name, len))
			return bus_drivers[i];
	return NULL;
}

/* The original's, not built yet. */
static bool opt_driver_known(const char *name, size_t len)
{
	static const char *const known[] = {"corosync", "zookeeper", "shepherd"};

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (strlen(known[i]) == len && !memcmp(known[i], name, len))
			return true;
	return false;
}

static int opt_cluster(struct opt_ctx *x, const char *arg)
{
	size_t len = strcspn(arg, ":");

	x->o->conf.driver = opt_driver(arg, len);
	if (!x->o->conf.driver) {
		const char *why =
			opt_driver_known(arg, len) ? "is not supported yet" : "is unknown";
		fprintf(x->err, "Invalid cluster driver '%.*s': it %s\n", (int)len, arg, why);
		fprintf(x->out, "Supported drivers:");
		for (unsigned i = 0; bus_drivers[i]; i++)
			fprintf(x->out, " %s", bus_drivers[i]->name);
		fprintf(x->out, "\n");
		return 1;
	}
	free(TAKE(x->o->driver_param, NULL));
	if (!arg[len])
		return -1;
	/* A daemon that comes back has changed its directory meanwhile. */
	if (x->o->conf.driver->param_path && arg[len + 1])
		return opt_set_path(x, &x->o->driver_param, arg + len + 1);
	x->o->driver_param = strdup(arg + len + 1);
	return -1;
}

/* Value of the piece if it begins with "key=", else NULL. */
static const char *opt_value(const char *piece, const char *key)
{
	size_t len = strlen(key);

	return !strncmp(piece, key, len) && piece[len] == '=' ? piece + len + 1 : NULL;
}

static int opt_invalid(struct opt_ctx *x, const char *piece)
{
	fprintf(x->err, "invalid option '%s'\n", piece);
	return 1;
}

/* Calls fn for each comma separated piece; -1 when all went well. */
static int opt_pieces(struct opt_ctx *x, const char *arg,
		      int (*fn)(struct opt_ctx *x, const char *piece))
{
	CLEANUP(freep) char *copy = strdup(arg);
	char *save = NULL;

	if (!copy)
		return 1;
	if (!copy[0])
		return opt_invalid(x, copy);
	for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		int r = fn(x, p);
		if (r >= 0)
			return r;
	}
	return -1;
}

static int opt_journal_piece(struct opt_ctx *x, const char *piece)
{
	struct store_conf *st = &x->o->conf.store;
	const char *v;

	if ((v = opt_value(piece, "size"))) {
		if (parse_size(v, &st->journal_size) < 0) {
			fprintf(x->err, "Invalid size '%s'\n", v);
			return 1;
		}
		if (st->journal_size < STORE_JOURNAL_SIZE_MIN) {
			fprintf(x->err, "The journal size must be at least 64M\n");
			return 1;
		}
		return -1;
	}
	if ((v = opt_value(piece, "dir")))
		return opt_set_path(x, &x->o->journal_dir, v);
	if (!strcmp(piece, "skip")) {
		st->journal_skip = true;
		return -1;
	}
	return opt_invalid(x, piece);
}

static int opt_journal(struct opt_ctx *x, const char *arg)
{
	int r = opt_pieces(x, arg, opt_journal_piece);

	if (r >= 0)
		return r;
	if (!x->o->conf.store.journal_size) {
		fprintf(x->err, "The journal size must be given: -j size=SIZE\n");
		return 1;
	}
	return -1;
}

static int opt_log_level(struct opt_ctx *x, const char *v)
{
	int level = log_level_parse(v);

	if (level < 0) {
		fprintf(x->err, "Invalid log level '%s'\n", v);
		fprintf(x->out, "Available log levels:\n");
		for (int i = LOG_L_EMERG; i <= LOG_L_DEBUG; i++)
			fprintf(x->out, "  %s(%d)\n", log_level_name(i), i);
		return 1;
	}
	x->o->log.level = level;
	return -1;
}

static int opt_log_piece(struct opt_ctx *x, const char *piece)
{
	static const char *const formats[] = {"server", "default", "json"};
	static const char *const dsts[] = {"default", "stdout", "syslog"};
	const char *v;

	if ((v = opt_value(piece, "dir")))
		return opt_set_path(x, &x->o->log_dir, v);
	if ((v = opt_value(piece, "level")))
		return opt_log_level(x, v);
	if ((v = opt_value(piece, "format"))) {
		for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
			if (!strcmp(v, formats[i])) {
				x->o->log.format = (enum log_format)i;
				return -1;
			}
		fprintf(x->err, "Invalid log format '%s': server, default or json\n", v);
		return 1;
	}
	if ((v = opt_value(piece, "dst"))) {
		for (unsigned i = 0; i < ARRAY_SIZE(dsts); i++)
			if (!strcmp(v, dsts[i])) {
				x->o->log.dst = (enum log_dst)i;
				return -1;
			}
		fprintf(x->err, "Invalid log destination '%s': default, stdout or syslog\n", v);
		return 1;
	}
	return opt_invalid(x, piece);
}

static int opt_log(struct opt_ctx *x, const char *arg)
{
	struct stat st;
	int r = opt_pieces(x, arg, opt_log_piece);

	if (r >= 0)
		return r;
	if (x->o->log_dir && x->o->log.dst != LOG_D_FILE) {
		fprintf(x->err, "'dir' is for the log file only, not for stdout or syslog\n");
		return 1;
	}
	if (x->o->log_dir && (stat(x->o->log_dir, &st) < 0 || !S_ISDIR(st.st_mode))) {
		fprintf(x->err, "Log directory '%s' does not exist\n", x->o->log_dir);
		return 1;
	}
	return -1;
}

static int opt_number(struct opt_ctx *x, int ch, const char *arg)
{
	struct sheep_conf *c = &x->o->conf;
	uint64_t n;

	switch (ch) {
	case OPT_PORT:
		if (parse_u64(arg, 1, 65535, &n) < 0 || !strncmp(arg, "0x", 2)) {
			fprintf(x->err, "Invalid port number '%s'...\n", arg);
			return 1;
		}
		c->port = n;
		break;
	case OPT_ZONE:
		if (parse_u64(arg, 0, UINT32_MAX, &n) < 0) {
			fprintf(x->err, "Invalid zone id '%s'...\n", arg);
			return 1;
		}
		c->zone = n;
		c->zone_set = true;
		break;
	default:
		if (parse_u64(arg, 1, SD_VNODES_MAX, &n) < 0) {
			fprintf(x->err,
				"Invalid number of vnodes '%s': must be an integer between 1 and "
				"65535\n",
				arg);
			return 1;
		}
		c->fixed_vnodes = n;
		x->o->vnodes_set = true;
	}
	return -1;
}

static int opt_one(struct opt_ctx *x, int ch, const char *arg)
{
	struct sheep_options *o = x->o;
	const struct opt_def *d = opt_find(ch);

	if (!d)
		return opt_bad(x, optopt);
	if (!d->supported) {
		fprintf(x->err, "Option '-%c, --%s' is not supported yet\n", d->ch, d->name);
		return 1;
	}
	switch ((enum opt_char)ch) {
	case OPT_HELP: return opt_help(x);
	case OPT_VERSION: return opt_version(x);
	case OPT_BIND: return opt_bind(x, arg);
	case OPT_CLUSTER: return opt_cluster(x, arg);
	case OPT_JOURNAL: return opt_journal(x, arg);
	case OPT_LOG: return opt_log(x, arg);
	case OPT_MYADDR: return opt_myaddr(x, arg);
	case OPT_PIDFILE: return opt_set_path(x, &o->pidfile, arg);
	case OPT_PORT:
	case OPT_VNODES:
	case OPT_ZONE: return opt_number(x, ch, arg);
	case OPT_DIRECTIO: o->conf.store.directio = true; return -1;
	case OPT_FOREGROUND: o->conf.foreground = true; return -1;
	case OPT_GATEWAY: o->conf.gateway = o->conf.store.gateway = true; return -1;
	case OPT_NOSYNC: o->conf.store.nosync = true; return -1;
	default: return opt_bad(x, 0); /* not reached: all the others are not supported */
	}
}

/* What depends on several options. */
static int opt_finish(struct opt_ctx *x, const char *path)
{
	struct sheep_options *o = x->o;

	if (o->conf.gateway && o->vnodes_set) {
		fprintf(x->err, "Options '-g' and '-V' can not be both specified\n");
		return 1;
	}
	if (strchr(path, ',')) {
		fprintf(x->err, "Several DISKs in '%s' are not supported yet\n", path);
		return 1;
	}
	int r = opt_set_path(x, &o->dir, path);
	if (r >= 0)
		return r;
	if (!o->conf.driver)
		o->conf.driver = opt_driver("corosync", 8);
	if (!o->conf.driver)
		o->conf.driver = opt_driver("local", 5);
	if (!o->conf.driver) {
		fprintf(x->err, "No cluster driver is built in\n");
		return 1;
	}
	if (o->log.dst == LOG_D_STDOUT)
		o->conf.foreground = true;
	o->conf.store.dir = o->dir;
	o->conf.store.journal_dir = o->journal_dir;
	o->conf.driver_param = o->driver_param;
	o->conf.pidfile = o->pidfile;
	if (o->log.dst == LOG_D_FILE) {
		o->log_path = str_printf("%s/sheep.log", o->log_dir ? o->log_dir : o->dir);
		if (!o->log_path)
			return 1;
	}
	o->blackbox = str_printf("%s/sheep.blackbox", o->log_dir ? o->log_dir : o->dir);
	o->log.path = o->log_path;
	o->log.blackbox = o->blackbox;
	o->log.port = o->conf.port;
	return -1;
}

int options_parse(int argc, char **argv, FILE *out, FILE *err, struct sheep_options *ret)
{
	struct option longs[OPT_NR + 1];
	char shorts[2 * OPT_NR + 1], *s = shorts;
	struct opt_ctx x = {.out = out, .err = err, .prog = "sheep", .o = ret};
	int ch, r;

	memset(ret, 0, sizeof(*ret));
	memset(longs, 0, sizeof(longs));
	ret->conf.port = SD_LISTEN_PORT;
	ret->log = (struct log_conf){
		.program = "sheep", .dst = LOG_D_FILE, .format = LOG_F_SERVER, .level = LOG_L_INFO};
	for (unsigned i = 0; i < OPT_NR; i++) {
		longs[i].name = opt_defs[i].name;
		longs[i].has_arg = opt_defs[i].arg ? required_argument : no_argument;
		longs[i].val = opt_defs[i].ch;
		*s++ = opt_defs[i].ch;
		if (opt_defs[i].arg)
			*s++ = ':';
	}
	*s = '\0';
	optind = 0; /* start over: tests parse many command lines */
	while ((ch = getopt_long(argc, argv, shorts, longs, NULL)) >= 0) {
		r = ch == '?' ? opt_bad(&x, optopt) : opt_one(&x, ch, optarg);
		if (r >= 0)
			return r;
	}
	return opt_finish(&x, optind < argc ? argv[optind] : "/tmp");
}

void options_done(struct sheep_options *o)
{
	free(o->dir);
	free(o->journal_dir);
	free(o->log_dir);
	free(o->pidfile);
	free(o->driver_param);
	free(o->log_path);
	free(o->blackbox);
	memset(o, 0, sizeof(*o));
}
