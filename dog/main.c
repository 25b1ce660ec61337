/* main.c - dog: the administration tool.  Command line, help, exit codes (cli.md 2). */
#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "dog/dog.h"

/* Commands of the original that are not built yet. */
static const struct {
	const char *cmd, *subs;
} not_built[] = {
	{"vdi",
	 " alter-copy backup check clone getattr graph lock restore rollback setattr snapshot "
	 "track tree "},
	{"node", " format md vnodes "},
	{"cluster", " alter-copy check reweight snapshot "},
	{"upgrade", NULL},
	{"benchmark", NULL},
};

static const struct command *const commands[] = {&vdi_command, &node_command, &cluster_command,
						 NULL};

/* X(short, long, takes an argument, help): every option that some subcommand lists in .opts */
#define OPTIONS(X)                                                                                 \
	X('a', "address", true, "specify the daemon address (default: 127.0.0.1)")                 \
	X('p', "port", true, "specify the daemon port (default: 7000)")                            \
	X('r', "raw", false, "raw output mode: no headings, single-space fields, sizes in bytes")  \
	X('v', "verbose", false, "print more information than default")                            \
	X('T', "time", false, "show elapsed time")                                                 \
	X('h', "help", false, "display this help and exit")                                        \
	X('J', "json", false, "print JSON instead of a table")                                     \
	X('b', "store", true, "specify backend store: plain")                                      \
	X('c', "copies", true, "specify the number of data copies (1..31)")                        \
	X('l', "lock", false, "enforce VDI locking")                                               \
	X('L', "local", false, "the contacted node itself")                                        \
	X('t', "strict", false, "refuse writes when there are fewer zones than copies")            \
	X('z', "block_size_shift", true, "object size is 2^shift bytes (20..31, default: 22)")     \
	X('V', "fixedvnodes", false, "fixed vnode strategy: all sheep were started with -V")       \
	X('R', "recyclevid", false, "VID recycling (not supported yet)")                           \
	X('F', "avoid-diskfull", false,                                                            \
	  "skip recovery that would overfill a node (not supported yet)")                          \
	X('f', "force", false, "do not prompt for confirmation")                                   \
	X('d', "diff", false, "show what changed from epoch to epoch")                             \
	X('w', "watch", false, "repeat every second")                                              \
	X('P', "prealloc", false, "write all objects of the new VDI")                              \
	X('y', "hyper", false, "hypervolume (not supported yet)")                                  \
	X('s', "snapshot", true, "snapshot id or tag")                                             \
	X('i', "index", true, "index of the object, decimal or 0x...")                             \
	X('o', "oid", true, "list the VDIs that refer to this data object")                        \
	X('W', "writeback", false, "obsolete, ignored: writes are safe when dog returns")          \
	X('B', "batch", true, "batch size of the deletion (not supported yet)")                    \
	X('I', "interval", true, "pause between batches (not supported yet)")                      \
	X('m', "max", true, "reclaim at most this many objects (not supported yet)")

struct opt {
	char c;
	const char *name;
	bool arg;
	const char *help;
};
static const struct opt options[] = {
#define OPT_(c, name, arg, help) {c, name, arg, help},
	OPTIONS(OPT_)
#undef OPT_
};

static const struct opt *opt_find(char c)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (options[i].c == c)
			return &options[i];
	return NULL;
}

/* Options that exist only in long form, or whose short letter differs from our key. */
static char short_of(const struct dog *d, char key)
{
	if (key == 'J')
		return 0;
	if (key == 'L')
		return 'l';
	if (key == 'W')
		return 'w';
	return key;
}

static bool known_not_built(char key)
{
	return strchr("RFyBImo", key) != NULL;
}

void dog_err(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static const struct subcommand *find_sub(const struct command *cmd, const char *name)
{
	for (const struct subcommand *s = cmd->subs; s->name; s++)
		if (!strcmp(s->name, name))
			return s;
	return NULL;
}

static const struct command *find_cmd(const char *name)
{
	for (size_t i = 0; commands[i]; i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

/* Every key of @s: its own, then the common ones. */
static void sub_keys(const struct subcommand *s, char *keys)
{
	sprintf(keys, "%s%s", s->opts, s->listing ? "J" : "");
}

static void print_usage(const struct dog *d, const struct command *cmd, const struct subcommand *s,
			FILE *f)
{
	char keys[64];
	sub_keys(s, keys);
	fprintf(f, "Usage: dog %s %s", cmd->name, s->name);
	for (const struct nested *n = s->nested; n && n->name; n++)
		fprintf(f, "%s%s%s", n == s->nested ? " {" : "|", n->name, n[1].name ? "" : "}");
	for (const char *k = keys; *k; k++) {
		const struct opt *o = opt_find(*k);
		char c = short_of(d, *k);
		if (c)
			fprintf(f, " [-%c%s%s]", c, o->arg ? " " : "", o->arg ? o->name : "");
		else
			fprintf(f, " [--%s]", o->name);
	}
	fprintf(f, "%s%s\n", *s->args ? " " : "", s->args);
	if (s->nested) {
		fprintf(f, "Available subcommands:\n");
		for (const struct nested *n = s->nested; n->name; n++)
			fprintf(f, "  %-24s%s\n", n->name, n->help);
	}
	fprintf(f, "Options:\n");
	for (const char *k = keys; *k; k++) {
		const struct opt *o = opt_find(*k);
		char left[32], c = short_of(d, *k);
		if (c)
			snprintf(left, sizeof(left), "-%c, --%s", c, o->name);
		else
			snprintf(left, sizeof(left), "    --%s", o->name);
		fprintf(f, "  %-24s%s\n", left, o->help);
	}
}

int dog_usage(struct dog *d)
{
	const struct command *cmd = find_cmd(d->cmd);
	print_usage(d, cmd, find_sub(cmd, d->sub), stdout);
	return EXIT_USAGE_ERR;
}

static int print_commands(void)
{
	printf("Sheepdog administrator utility (version %s)\n\n"
	       "Usage: dog <command> <subcommand> [options]\n\n"
	       "Available commands:\n",
	       PACKAGE_VERSION);
	for (size_t i = 0; commands[i]; i++)
		for (const struct subcommand *s = commands[i]->subs; s->name; s++) {
			char left[64];
			snprintf(left, sizeof(left), "%s %s", commands[i]->name, s->name);
			printf("  %-24s%s\n", left, s->help);
		}
	printf("\nFor more information, run \"dog <command> <subcommand> --help\".\n");
	return EXIT_OK;
}

static int print_subs(const struct command *cmd)
{
	fprintf(stderr, "Available %s commands:\n", cmd->name);
	for (const struct subcommand *s = cmd->subs; s->name; s++)
		fprintf(stderr, "  %s %-20s%s\n", cmd->name, s->name, s->help);
	return EXIT_USAGE_ERR;
}

static int set_port(struct dog *d, const char *s)
{
	uint64_t v;
	if (parse_u64(s, 1, 65535, &v) < 0) {
		dog_err("Invalid port number '%s'...", s);
		return EXIT_USAGE_ERR;
	}
	d->port = (uint16_t)v;
	return EXIT_OK;
}

/* Only look whether there is such a host: libsheepdog tries all its addresses. */
static int set_host(struct dog *d, const char *s)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;
	if (getaddrinfo(s, NULL, &hints, &ai)) {
		dog_err("Invalid ip address %s: give the address or the host name of a sheep", s);
		return EXIT_FAILED;
	}
	freeaddrinfo(ai);
	d->host = s;
	return EXIT_OK;
}

static int set_shift(struct dog *d, const char *s)
{
	uint64_t v;
	if (parse_u64(s, SD_OBJ_SHIFT_MIN, SD_OBJ_SHIFT_MAX, &v) < 0) {
		dog_err("Invalid block_size_shift '%s': must be an integer between %u and %u", s,
			SD_OBJ_SHIFT_MIN, SD_OBJ_SHIFT_MAX);
		return EXIT_FAILED;
	}
	d->shift = (uint8_t)v;
	return EXIT_OK;
}

static int set_snapshot(struct dog *d, const char *s)
{
	uint64_t v;
	if (*s && !s[strspn(s, "0123456789")] && (parse_u64(s, 1, UINT32_MAX, &v) < 0)) {
		dog_err("The snapshot id must be larger than zero");
		return EXIT_FAILED;
	}
	d->snapshot = s;
	return EXIT_OK;
}

static int set_option(struct dog *d, char key, const char *arg)
{
	if (known_not_built(key)) {
		d->unsupported = opt_find(key)->name;
		return EXIT_OK;
	}
	switch (key) {
	case 'a': return set_host(d, arg);
	case 'p': return set_port(d, arg);
	case 'r': d->raw = true; break;
	case 'v': d->verbose = true; break;
	case 'T': d->time = true; break;
	case 'J': d->json = true; break;
	case 'b': d->store = arg; break;
	case 'c': return parse_copies(arg, &d->copies, &d->copy_policy) ? EXIT_OK : EXIT_FAILED;
	case 'l': d->lock = true; break;
	case 'L': d->local = true; break;
	case 't': d->strict = true; break;
	case 'z': return set_shift(d, arg);
	case 'V': d->fixed_vnodes = true; break;
	case 'f': d->force = true; break;
	case 'd': d->diff = true; break;
	case 'w': d->watch = true; break;
	case 'P': d->prealloc = true; break;
	case 's': return set_snapshot(d, arg);
	case 'i': d->index = arg; break;
	case 'W': break;
	}
	return EXIT_OK;
}

/* Parse argv[3..]; -1: go on. */
static int parse_options(struct dog *d, const struct command *cmd, const struct subcommand *s,
			 int argc, char **argv)
{
	char keys[64], shorts[128] = "", *p = shorts;
	struct option longs[64] = {{0}};
	int n = 0, c;
	sub_keys(s, keys);
	for (const char *k = keys; *k; k++) {
		const struct opt *o = opt_find(*k);
		longs[n++] = (struct option){o->name, o->arg, NULL, *k};
		char sc = short_of(d, *k);
		if (sc)
			p += sprintf(p, "%c%s", sc, o->arg ? ":" : "");
	}
	optind = 3;
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (c == '?') {
			print_usage(d, cmd, s, stdout);
			return EXIT_USAGE_ERR;
		}
		if (c == 'h') {
			print_usage(d, cmd, s, stdout);
			return EXIT_OK;
		}
		char key = (char)c;
		if (!strchr(keys, key))
			key = key == 'l' ? 'L' : 'W';
		int r = set_option(d, key, optarg);
		if (r)
			return r;
	}
	d->argc = argc - optind;
	d->argv = argv + optind;
	return -1;
}

/* SHEEPDOG_DOG_LOG (cli.md 2.1) */
static void log_invocation(int argc, char **argv)
{
	const char *path = getenv("SHEEPDOG_DOG_LOG_PATH");
	char line[1024] = "";
	size_t len = 0;
	if (!getenv("SHEEPDOG_DOG_LOG"))
		return;
	for (int i = 0; i < argc && len < sizeof(line) - 1; i++) {
		int w = snprintf(line + len, sizeof(line) - len, "%s%s", i ? " " : "", argv[i]);
		len += w > 0 ? (size_t)w : 0;
	}
	if (!path) {
		openlog("sheepdog admin operation", LOG_PID, LOG_USER);
		syslog(LOG_INFO, "%s", line);
		return;
	}
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		dog_err("Failed to open %s: %s", path, strerror(errno));
		return;
	}
	char stamp[64];
	time_t now = time(NULL);
	struct tm tm;
	strftime(stamp, sizeof(stamp), "%Y %b %d %H:%M:%S", localtime_r(&now, &tm));
	dprintf(fd, "%s :  %s\n", stamp, line);
	close(fd);
}

static int run_sub(struct dog *d, const struct subcommand *s)
{
	int (*fn)(struct dog *) = s->fn;
	int nested = 0;
	if (s->nested) {
		fn = NULL;
		if (!d->argc)
			return dog_usage(d);
		for (const struct nested *n = s->nested; n->name; n++)
			if (!strcmp(n->name, d->argv[0]))
				fn = n->fn;
		if (!fn) {
			dog_err("'%s' is not a valid command", d->argv[0]);
			dog_usage(d);
			return EXIT_FAILED;
		}
		nested = 1;
		d->argc--;
		d->argv++;
	}
	if (d->argc < s->min_args - nested || d->argc > s->max_args - nested) {
		dog_err(d->argc < s->min_args - nested ? "Please specify all arguments"
						       : "Too many arguments");
		return dog_usage(d);
	}
	if (d->unsupported) {
		dog_err("The option --%s is not supported yet", d->unsupported);
		return EXIT_FAILED;
	}
	char gw[512];
	snprintf(gw, sizeof(gw), strchr(d->host, ':') ? "[%s]:%u" : "%s:%u", d->host, d->port);
	int r = sd_cluster_open(gw, &d->c);
	if (r < 0) {
		dog_err("Failed to open a connection to %s: %s", gw, sd_strerror(r));
		return EXIT_SYSTEM;
	}
	sd_cluster_set_connect_timeout(d->c, 3000);
	r = fn(d);
	sd_cluster_close(d->c);
	free(d->nodes);
	return r;
}

static int init_from_env(struct dog *d)
{
	const char *addr = getenv("SHEEPDOG_DOG_ADDR"), *port = getenv("SHEEPDOG_DOG_PORT");
	d->host = "127.0.0.1";
	d->port = SD_LISTEN_PORT;
	int r = addr ? set_host(d, addr) : EXIT_OK;
	return r ? r : port ? set_port(d, port) : EXIT_OK;
}

static bool is_not_built(const char *cmd, const char *sub)
{
	char word[64];
	snprintf(word, sizeof(word), " %s ", sub);
	for (size_t i = 0; i < ARRAY_SIZE(not_built); i++)
		if (!strcmp(not_built[i].cmd, cmd))
			return !not_built[i].subs ||
			       (!strchr(sub, ' ') && *sub && strstr(not_built[i].subs, word));
	return false;
}

int main(int argc, char **argv)
{
	struct dog d = {0};
	struct timespec t0, t1;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	log_invocation(argc, argv);
	if (argc < 2 || !strcmp(argv[1], "-h") || !strcmp(argv[1], "--help") ||
	    !strcmp(argv[1], "help"))
		return print_commands();
	const struct command *cmd = find_cmd(argv[1]);
	if (is_not_built(argv[1], argc > 2 ? argv[2] : "")) {
		dog_err("The command 'dog %s%s%s' is not supported yet", argv[1], cmd ? " " : "",
			cmd ? argv[2] : "");
		return EXIT_FAILED;
	}
	if (!cmd) {
		dog_err("Invalid command '%s'\nTry 'dog --help' for more information.", argv[1]);
		return EXIT_USAGE_ERR;
	}
	const struct subcommand *s = argc > 2 ? find_sub(cmd, argv[2]) : NULL;
	if (!s) {
		if (argc > 2 && argv[2][0] != '-')
			dog_err("Invalid command '%s %s'", argv[1], argv[2]);
		return print_subs(cmd);
	}
	d.cmd = cmd->name;
	d.sub = s->name;
	int r = init_from_env(&d);
	if (r)
		return r;
	r = parse_options(&d, cmd, s, argc, argv);
	if (r >= 0)
		return r;
	r = run_sub(&d, s);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	if (d.time)
		printf("\nElapsed time: %.3f seconds\n",
		       (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9);
	if (fflush(stdout) || ferror(stdout)) {
		dog_err("Failed to write the output: %s", strerror(errno));
		return EXIT_FAILED;
	}
	return r;
}
