/* common.c - requests, texts, prompts and progress shared by the commands. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "dog/dog.h"

#define NODE_LIST_BUFFER 491520u /* what every dog sends: 6144 nodes (protocol.md 2.3) */

const char *reason(uint32_t result, char buf[32])
{
	const char *t = sd_result_text(result);
	if (t)
		return t;
	snprintf(buf, 32, "Invalid error code %x", result);
	return buf;
}

const char *reason_err(int err, char buf[32])
{
	return SD_ERR_RESULT(err) ? reason((uint32_t)SD_ERR_RESULT(err), buf) : sd_strerror(err);
}

static void stamp(struct sd_req *req)
{
	req->proto_ver = req->opcode < 0x80 ? SD_PROTO_VER : SD_INTERNAL_PROTO_VER;
}

int dog_req(struct dog *d, struct sd_req *req, const void *out, void *in, size_t *in_len,
	    struct sd_rsp *rsp)
{
	stamp(req);
	int r = sd_request(d->c, req, out, in, in_len, rsp);
	if (r < 0) {
		const char *why = sd_last_error(d->c);
		if (*why)
			dog_err("failed to %s", why);
		else
			dog_err("failed to connect to %s:%u: %s", d->host, d->port, sd_strerror(r));
	}
	return r;
}

const char *node_addr(const struct sd_node *n, char buf[64])
{
	char ip[INET6_ADDRSTRLEN];
	static const uint8_t zero[12];
	uint16_t port = n->port;
	if (memcmp(n->addr, zero, 12)) {
		inet_ntop(AF_INET6, n->addr, ip, sizeof(ip));
		snprintf(buf, 64, "[%s]:%u", ip, port);
	} else {
		inet_ntop(AF_INET, n->addr + 12, ip, sizeof(ip));
		snprintf(buf, 64, "%s:%u", ip, port);
	}
	return buf;
}

int dog_req_to(struct dog *d, const struct sd_node *n, struct sd_req *req, void *in, size_t *in_len,
	       struct sd_rsp *rsp)
{
	char a[64];
	stamp(req);
	int r = sd_request_to(d->c, node_addr(n, a), req, NULL, in, in_len, rsp);
	if (r < 0)
		dog_err("failed to connect to %s: %s", a, sd_strerror(r));
	return r;
}

int dog_nodes(struct dog *d)
{
	struct sd_req req = {.opcode = SD_OP_GET_NODE_LIST, .data_length = NODE_LIST_BUFFER};
	struct sd_rsp rsp;
	size_t len = NODE_LIST_BUFFER;
	free(d->nodes);
	d->nodes = malloc(len);
	if (!d->nodes) {
		dog_err("Out of memory");
		return EXIT_SYSTEM;
	}
	int r = dog_req(d, &req, NULL, d->nodes, &len, &rsp);
	if (r < 0 || rsp.result != SD_RES_SUCCESS) {
		char b[32];
		if (r >= 0)
			dog_err("Failed to get node list: %s", reason(rsp.result, b));
		else
			dog_err("Failed to get node list");
		return EXIT_SYSTEM;
	}
	d->nr_nodes = (unsigned)(len / sizeof(struct sd_node));
	if (rsp.node.nr_nodes < d->nr_nodes)
		d->nr_nodes = rsp.node.nr_nodes;
	if (!d->nr_nodes) {
		dog_err("There are no active sheep daemons");
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

bool confirm(const char *explanation, bool with_dog)
{
	char answer[16] = "";
	if (with_dog)
		printf("    / \\__\n"
		       "   (    @\\___\n"
		       "   /         O\n"
		       "  /   (_____/\n"
		       " /_____/   U\n");
	printf("%s\nAre you sure you want to continue? [yes/no]: ", explanation);
	fflush(stdout);
	if (!fgets(answer, sizeof(answer), stdin))
		return false;
	return !strncasecmp(answer, "yes", 3);
}

void progress(uint64_t done, uint64_t total, bool human)
{
	struct winsize ws = {0};
	char a[32], b[32], line[512];
	if (!isatty(STDOUT_FILENO) || !total)
		return;
	int cols = ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col ? ws.ws_col : 80;
	int width = cols - 30, fill;
	if (width < 5)
		width = 5;
	if (width > 300)
		width = 300;
	fill = (int)((double)done / (double)total * width);
	if (human) {
		format_size(done, false, a, sizeof(a));
		format_size(total, false, b, sizeof(b));
	} else {
		snprintf(a, sizeof(a), "%llu", (unsigned long long)done);
		snprintf(b, sizeof(b), "%llu", (unsigned long long)total);
	}
	char bar[302] = "";
	for (int i = 0; i < width; i++)
		bar[i] = i < fill ? '=' : i == fill ? '>' : ' ';
	snprintf(line, sizeof(line), "%5.1f %% [%s] %s / %s", (double)done * 100 / (double)total,
		 bar, a, b);
	printf("\r%-*s", cols - 1, line);
	if (done >= total)
		printf("\n");
	fflush(stdout);
}

const char *redundancy_text(uint8_t copies, uint8_t policy, char buf[16])
{
	if (policy)
		snprintf(buf, 16, "%u:%u", (policy >> 4) * 2, policy & 0xf);
	else
		snprintf(buf, 16, "%u", copies);
	return buf;
}

bool parse_copies(const char *s, uint8_t *copies, uint8_t *policy)
{
	const char *colon = strchr(s, ':');
	uint64_t n, p;
	if (!colon) {
		if (parse_u64(s, 1, SD_COPIES_MAX, &n) < 0) {
			dog_err("Invalid redundancy '%s': give the number of copies, 1 to %u", s,
				SD_COPIES_MAX);
			return false;
		}
		*copies = (uint8_t)n;
		*policy = 0;
		return true;
	}
	char *left = strndup(s, (size_t)(colon - s));
	bool ok = left && !parse_u64(left, 2, 16, &n) && (n == 2 || n == 4 || n == 8 || n == 16) &&
		  !parse_u64(colon + 1, 1, 15, &p);
	free(left);
	if (!ok) {
		dog_err("Invalid redundancy '%s': d:p needs d of 2, 4, 8 or 16 and p from 1 to 15",
			s);
		return false;
	}
	*copies = (uint8_t)(n + p);
	*policy = (uint8_t)(n / 2 << 4 | p);
	return true;
}

json_t *json_bytes(const char *s, size_t max)
{
	size_t len = strnlen(s, max), n = 0;
	json_t *j = json_stringn(s, len);
	char wide[2 * 256 + 1];

	if (j)
		return j;
	for (size_t i = 0; i < len && n < sizeof(wide) - 2; i++) {
		unsigned char c = (unsigned char)s[i];
		if (c >= 0x80)
			wide[n++] = (char)(0xc0 | c >> 6);
		wide[n++] = (char)(c < 0x80 ? c : 0x80 | (c & 0x3f));
	}
	return json_stringn(wide, n);
}

int print_json(json_t *j)
{
	if (!j || json_dumpf(j, stdout, JSON_INDENT(2) | JSON_SORT_KEYS) < 0) {
		dog_err("Failed to write JSON");
		json_decref(j);
		return EXIT_FAILED;
	}
	putchar('\n');
	json_decref(j);
	return EXIT_OK;
}
