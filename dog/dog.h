/* dog.h - what the commands of dog share: options, exit codes, requests, tables. */
#ifndef DOG_DOG_H
#define DOG_DOG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/base/util.h"
#include "sheepdog/proto.h"
#include "sheepdog/sheepdog.h"

#include <jansson.h>

enum exit_code { /* cli.md 2.2 */
		 EXIT_OK = 0,
		 EXIT_FAILED = 1,
		 EXIT_SYSTEM = 2,
		 EXIT_EXISTS = 3,
		 EXIT_MISSING = 5,
		 EXIT_USAGE_ERR = 64,
};

/* What the command line said, and the connection. */
struct dog {
	const char *cmd, *sub;
	const char *host;
	uint16_t port;
	bool raw, verbose, time, json, force;
	/* options of single commands */
	bool prealloc, lock, strict, fixed_vnodes, diff, local, watch;
	uint8_t copies, copy_policy, shift;
	const char *store, *snapshot, *index, *unsupported;
	int argc; /* arguments that are no options */
	char **argv;
	struct sd_cluster *c;
	/* dog_nodes() */
	struct sd_node *nodes;
	unsigned nr_nodes;
};

struct nested {
	const char *name, *help;
	int (*fn)(struct dog *d);
};

struct subcommand {
	const char *name;
	const char *args; /* for the usage line, "" for none */
	const char *help;
	const char *opts; /* short options besides -h, in the order of the usage */
	bool listing;	  /* takes --json */
	int min_args, max_args;
	const struct nested *nested; /* sub-subcommands; argv[0] is one of their names */
	int (*fn)(struct dog *d);
};

struct command {
	const char *name;
	const struct subcommand *subs;
};

extern const struct command cluster_command, node_command, vdi_command;

/* Message on stderr, one line. */
void dog_err(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Print the usage of the running subcommand; returns EXIT_USAGE_ERR. */
int dog_usage(struct dog *d);
/* "Success" ... or "Invalid error code <hex>" in @buf. */
const char *reason(uint32_t result, char buf[32]);
/* Text for a libsheepdog error, results of the cluster as their reason text. */
const char *reason_err(int err, char buf[32]);

/* One request to the contacted node.  0: answered; else the failure was printed. */
int dog_req(struct dog *d, struct sd_req *req, const void *out, void *in, size_t *in_len,
	    struct sd_rsp *rsp);
/* As above, to node @n. */
int dog_req_to(struct dog *d, const struct sd_node *n, struct sd_req *req, void *in, size_t *in_len,
	       struct sd_rsp *rsp);
/* Fill d->nodes; EXIT_OK, or EXIT_SYSTEM after "Failed to get node list". */
int dog_nodes(struct dog *d);
/* HOST:PORT of a node, IPv6 in brackets. */
const char *node_addr(const struct sd_node *n, char buf[64]);

/* Ask on stdout; true when the answer begins with "yes" in any case. */
bool confirm(const char *explanation, bool with_dog);
/* Progress bar on a terminal, nothing elsewhere; @human: sizes. */
void progress(uint64_t done, uint64_t total, bool human);
/* "N" or "d:p". */
const char *redundancy_text(uint8_t copies, uint8_t policy, char buf[16]);
/* Parse -c: N (1..31) or d:p; false: printed. */
bool parse_copies(const char *s, uint8_t *copies, uint8_t *policy);
/* Print @j on stdout and free it. */
int print_json(json_t *j);
/* A string of at most @max bytes that somebody else made: what is no UTF-8 is taken for Latin-1. */
json_t *json_bytes(const char *s, size_t max);

/* ---- volumes (vdi.c) ---- */
struct vdi_entry {
	struct sd_inode_header h;
	char name[SD_NAME_LEN + 1], tag[SD_NAME_LEN + 1];
	uint64_t own, shared; /* index entries */
};
/* Call @fn for every volume in ascending vid; stops at a result other than EXIT_OK and returns it.
 */
int for_each_vdi(struct dog *d, bool with_index,
		 int (*fn)(struct dog *d, struct vdi_entry *e, void *arg), void *arg);
/* Index entries in use. */
uint64_t nr_objects(const struct sd_inode_header *h);
/* Look @name up (with d->snapshot); prints the failure. */
int lookup_vdi(struct dog *d, const char *name, struct vdi_entry *ret);
/* Read @len bytes of @oid at @off; prints the failure. */
int read_obj(struct dog *d, uint64_t oid, void *buf, size_t len, uint32_t off);

int parse_vdi_size(const char *s, uint64_t *size);
/* Can a volume be called so?  false: printed. */
bool good_name(const char *name);
int vdi_read(struct dog *d), vdi_write(struct dog *d), vdi_create(struct dog *d);
int vdi_object_location(struct dog *d), vdi_object_map(struct dog *d),
	vdi_object_dump(struct dog *d);

#endif
