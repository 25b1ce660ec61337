/* options.h - the command line of sheep (cli.md 1.1): one table feeds parser, --help and man page.
 *
 * Used by: main.c, the man page generator, tests.  Nothing here does I/O but printing and name
 * resolution of -y.
 */
#ifndef SHEEP_OPTIONS_H
#define SHEEP_OPTIONS_H

#include <stdio.h>

#include "sheep/sheep.h"

/* clang-format off */
/* X(short, id, long name, argument name or NULL, one line for --help, long help or NULL,
 *   supported)
 * The long help is what an option prints when its argument is missing. */
#define SHEEP_OPTIONS(X)                                                                           \
	X('b', BIND, "bindaddr", "ADDR", "specify IP address of interface to listen on",           \
	  OPT_HELP_BIND, true)                                                                     \
	X('c', CLUSTER, "cluster", "DRIVER[:PARAM]",                                               \
	  "specify the cluster driver (default: corosync if built, else local)", OPT_HELP_CLUSTER, \
	  true)                                                                                    \
	X('D', DIRECTIO, "directio", NULL, "use direct I/O for the object files where aligned",    \
	  NULL, true)                                                                              \
	X('f', FOREGROUND, "foreground", NULL, "make the program run in foreground", NULL, true)   \
	X('g', GATEWAY, "gateway", NULL, "make the program run as a gateway: stores no objects",   \
	  NULL, true)                                                                              \
	X('h', HELP, "help", NULL, "display this help and exit", NULL, true)                       \
	X('i', IOADDR, "ioaddr", "host=IP[,port=N]",                                               \
	  "use a separate address for traffic between daemons (not supported yet)",                \
	  OPT_HELP_IOADDR, false)                                                                  \
	X('j', JOURNAL, "journal", "size=SIZE[,dir=PATH][,skip]",                                  \
	  "size and place of the journal (default: 256M in PATH)", OPT_HELP_JOURNAL, true)         \
	X('l', LOG, "log", "[dir=PATH][,level=L][,format=F][,dst=D]",                              \
	  "specify the log level, its format and its destination", OPT_HELP_LOG, true)             \
	X('n', NOSYNC, "nosync", NULL, "never sync: a power cut may lose acknowledged writes",     \
	  NULL, true)                                                                              \
	X('p', PORT, "port", "PORT", "specify the TCP port on which to listen (default: 7000)",    \
	  NULL, true)                                                                              \
	X('P', PIDFILE, "pidfile", "PATH", "create a pid file", NULL, true)                        \
	X('r', HTTP, "http", "PARAMS", "enable the HTTP service (not supported yet)",              \
	  OPT_HELP_HTTP, false)                                                                    \
	X('R', RECOVERY, "recovery", "max=N,interval=MS",                                          \
	  "specify the recovery speed throttling (not supported yet)", OPT_HELP_RECOVERY, false)   \
	X('u', UPGRADE, "upgrade", NULL, "upgrade the data layout (not supported yet)", NULL,      \
	  false)                                                                                   \
	X('v', VERSION, "version", NULL, "show the version", NULL, true)                           \
	X('V', VNODES, "vnodes", "NUMBER", "set number of vnodes (default: from capacity)",        \
	  OPT_HELP_VNODES, true)                                                                   \
	X('w', WQ_THREADS, "wq-threads", "KEY=N[,KEY=N...]",                                       \
	  "specify a number of threads for work queues (not supported yet)", NULL, false)          \
	X('W', WILDCARD, "wildcard-recovery", NULL,                                                \
	  "look for objects on all nodes at the first start (not supported yet)", NULL, false)                 \
	X('x', MAX_THREADS, "max-dynamic-threads", "N",                                            \
	  "specify the maximum number of threads (not supported yet)", NULL, false)                \
	X('y', MYADDR, "myaddr", "ADDR", "specify the address advertised to other sheep",          \
	  OPT_HELP_MYADDR, true)                                                                   \
	X('z', ZONE, "zone", "ZONE", "specify the zone id (default: from the address)",            \
	  OPT_HELP_ZONE, true)
/* clang-format on */

#define OPT_HELP_BIND                                                                              \
	"Available arguments:\n"                                                                   \
	"\tADDR: an IPv4 or IPv6 address of this host\n"                                           \
	"Without this option sheep listens on all of them, 0.0.0.0 and [::].\n"                    \
	"Example:\n\t$ sheep -b 192.168.1.1 ...\n"
#define OPT_HELP_CLUSTER                                                                           \
	"Available arguments:\n"                                                                   \
	"\tlocal[:FILE]: all daemons on this host; FILE names the cluster\n"                       \
	"Example:\n\t$ sheep -c local ...\n"
#define OPT_HELP_IOADDR                                                                            \
	"Available arguments:\n"                                                                   \
	"\thost=IP: address for traffic between daemons\n"                                         \
	"\tport=N: its port (default: 7000)\n"                                                     \
	"This option is not supported yet.\n"
#define OPT_HELP_JOURNAL                                                                           \
	"Available arguments:\n"                                                                   \
	"\tsize=SIZE: size of the journal, at least 64M (mandatory)\n"                             \
	"\tdir=PATH: directory of the journal (default: the store's)\n"                            \
	"\tskip: do not replay what is in the journal\n"                                           \
	"Example:\n\t$ sheep -j size=1G,dir=/fast ...\n"
#define OPT_HELP_LOG                                                                               \
	"Available arguments:\n"                                                                   \
	"\tdir=PATH: directory of sheep.log (default: the store's)\n"                              \
	"\tlevel=LEVEL: emerg, alert, crit, err, warning, notice, info (default) or debug\n"       \
	"\tformat=FORMAT: server (default), default or json\n"                                     \
	"\tdst=DESTINATION: default (sheep.log), stdout or syslog\n"                               \
	"Example:\n\t$ sheep -l dir=/var/log,level=debug,format=server ...\n"
#define OPT_HELP_HTTP "Available arguments: none, this option is not supported yet.\n"
#define OPT_HELP_RECOVERY                                                                          \
	"Available arguments:\n"                                                                   \
	"\tmax=N: number of objects recovered per interval\n"                                      \
	"\tinterval=MS: interval in milliseconds\n"                                                \
	"This option is not supported yet.\n"
#define OPT_HELP_VNODES                                                                            \
	"Available arguments:\n"                                                                   \
	"\tNUMBER: 1 to 65535; all data nodes and the format of the cluster must use it\n"         \
	"Example:\n\t$ sheep -V 50 ...\n"
#define OPT_HELP_MYADDR                                                                            \
	"Available arguments:\n"                                                                   \
	"\tADDR: address or host name that the other daemons reach this one by\n"                  \
	"Example:\n\t$ sheep -y 192.168.1.1 ...\n"
#define OPT_HELP_ZONE                                                                              \
	"Available arguments:\n"                                                                   \
	"\tZONE: 0 to 4294967295; at most one copy of an object is kept in a zone\n"               \
	"Example:\n\t$ sheep -z 2 ...\n"

struct sheep_options {
	struct sheep_conf conf; /* what the daemon takes */
	struct log_conf log;
	char *dir, *journal_dir, *log_dir, *pidfile, *driver_param; /* malloc'ed, absolute */
	char *log_path, *blackbox;
	bool vnodes_set;
};

/* Parse.  -1: run; else the exit status (everything was printed).  Uses getopt_long and therefore
 * its globals: one call at a time.  Relative paths are made absolute here. */
int options_parse(int argc, char **argv, FILE *out, FILE *err, struct sheep_options *ret);
void options_done(struct sheep_options *o);

#endif
