/* vdi.c - dog vdi list|delete|resize, and the reading of inodes (cli.md 2.6). */
#include "config.h"

#include "dog/dog.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int read_obj(struct dog *d, uint64_t oid, void *buf, size_t len, uint32_t off)
{
	struct sd_req req = {.opcode = SD_OP_READ_OBJ, .data_length = (uint32_t)len};
	struct sd_rsp rsp;
	size_t got = len;
	char b[32];
	req.obj.oid = oid;
	req.obj.offset = off;
	if (dog_req(d, &req, NULL, buf, &got, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result || got != len) {
		dog_err("Failed to read object %016llx %s", (unsigned long long)oid,
			reason(rsp.result ? rsp.result : SD_RES_EIO, b));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

uint64_t nr_objects(const struct sd_inode_header *h)
{
	uint64_t n = DIV_ROUND_UP(h->vdi_size, 1ull << (h->block_size_shift & 63));
	return n < SD_NR_OBJS_MAX ? n : SD_NR_OBJS_MAX;
}

/* Count own and inherited entries of the index. */
static int read_index(struct dog *d, struct vdi_entry *e)
{
	size_t n = nr_objects(&e->h);
	CLEANUP(freep) uint32_t *idx = calloc(n + 1, 4);
	if (!idx)
		return EXIT_SYSTEM;
	if (!n)
		return EXIT_OK;
	int r = read_obj(d, SD_INODE_OID(e->h.vdi_id), idx, n * 4, SD_INODE_HEADER_SIZE);
	for (size_t i = 0; !r && i < n; i++) {
		e->own += idx[i] == e->h.vdi_id;
		e->shared += idx[i] && idx[i] != e->h.vdi_id;
	}
	return r;
}

static int read_header(struct dog *d, uint32_t vid, struct vdi_entry *e)
{
	int r = read_obj(d, SD_INODE_OID(vid), &e->h, sizeof(e->h), 0);
	if (r)
		dog_err("Failed to read inode header");
	memcpy(e->name, e->h.name, SD_NAME_LEN);
	memcpy(e->tag, e->h.tag, SD_NAME_LEN);
	return r;
}

static int read_bitmap(struct dog *d, uint8_t op, uint8_t *map)
{
	size_t len = SD_NR_VDIS / 8;
	struct sd_req req = {.opcode = op, .data_length = (uint32_t)len};
	struct sd_rsp rsp;
	char b[32];
	if (dog_req(d, &req, NULL, map, &len, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result) {
		dog_err("Failed to read the VDI bitmap: %s", reason(rsp.result, b));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

int for_each_vdi(struct dog *d, bool with_index,
		 int (*fn)(struct dog *, struct vdi_entry *, void *), void *arg)
{
	CLEANUP(freep) uint8_t *used = calloc(2, SD_NR_VDIS / 8);
	if (!used)
		return EXIT_SYSTEM;
	uint8_t *deleted = used + SD_NR_VDIS / 8;
	int r = read_bitmap(d, SD_OP_READ_VDIS, used);
	if (!r)
		r = read_bitmap(d, SD_OP_READ_DEL_VDIS, deleted);
	for (uint32_t vid = 0; !r && vid < SD_NR_VDIS; vid++) {
		struct vdi_entry e = {0};
		if (!(used[vid / 8] & ~deleted[vid / 8])) {
			vid |= 7;
			continue;
		}
		if (!(used[vid / 8] >> vid % 8 & 1) || deleted[vid / 8] >> vid % 8 & 1)
			continue;
		r = read_header(d, vid, &e);
		if (r || !e.h.name[0])
			continue;
		if (with_index)
			r = read_index(d, &e);
		if (!r)
			r = fn(d, &e, arg);
	}
	return r;
}

/* name[256] tag[256] and the snapshot id of -s. */
static void fill_name(struct dog *d, const char *name, char buf[512], uint32_t *snapid)
{
	memset(buf, 0, 512);
	strncpy(buf, name, SD_NAME_LEN - 1);
	*snapid = 0;
	if (!d->snapshot || !*d->snapshot)
		return;
	if (!d->snapshot[strspn(d->snapshot, "0123456789")])
		*snapid = (uint32_t)strtoul(d->snapshot, NULL, 10);
	else
		strncpy(buf + SD_NAME_LEN, d->snapshot, SD_NAME_LEN - 1);
}

static int no_such_vdi(const char *name, uint32_t snapid, const char *tag, uint32_t result)
{
	char b[32];
	dog_err("Failed to open VDI %s (snapshot id: %u snapshot tag: %s): %s", name, snapid, tag,
		reason(result, b));
	return EXIT_FAILED;
}

int lookup_vdi(struct dog *d, const char *name, struct vdi_entry *ret)
{
	char buf[512];
	struct sd_req req = {.opcode = SD_OP_GET_VDI_INFO,
			     .flags = SD_FLAG_WRITE,
			     .data_length = sizeof(buf)};
	struct sd_rsp rsp;
	fill_name(d, name, buf, &req.vdi.snapid);
	uint32_t snapid = req.vdi.snapid;
	if (dog_req(d, &req, buf, NULL, NULL, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result)
		return no_such_vdi(name, snapid, buf + SD_NAME_LEN, rsp.result);
	*ret = (struct vdi_entry){0};
	return read_header(d, rsp.vdi.vdi_id, ret);
}

/* ---- list ---- */

struct list_arg {
	const char *name;
	json_t *rows;
};

static void escape_name(const char *s, char *out)
{
	for (; *s; s++) {
		if (isspace((unsigned char)*s) || *s == '\\')
			*out++ = '\\';
		*out++ = *s;
	}
	*out = 0;
}

static json_t *vdi_json(const struct vdi_entry *e, uint64_t own, uint64_t shared, const char *red)
{
	const struct sd_inode_header *h = &e->h;
	return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:i, s:b, s:b}", "name",
			 json_bytes(e->name, SD_NAME_LEN), "id",
			 (json_int_t)(h->snap_ctime ? h->snap_id : 0), "size",
			 (json_int_t)h->vdi_size, "used", (json_int_t)own, "shared",
			 (json_int_t)shared, "created", (json_int_t)(h->create_time >> 32), "vid",
			 (json_int_t)h->vdi_id, "copies", red, "tag",
			 json_bytes(h->snap_ctime ? e->tag : "", SD_NAME_LEN), "block_size_shift",
			 h->block_size_shift, "snapshot", h->snap_ctime != 0, "clone",
			 !h->snap_ctime && h->parent_vdi_id != 0);
}

static int list_one(struct dog *d, struct vdi_entry *e, void *arg)
{
	struct list_arg *l = arg;
	const struct sd_inode_header *h = &e->h;
	char s[32], u[32], sh[32], red[16], when[32], name[2 * SD_NAME_LEN + 1];
	if (l->name && strcmp(l->name, e->name))
		return EXIT_OK;
	bool snap = h->snap_ctime != 0, clone = !snap && h->parent_vdi_id;
	uint64_t obj = 1ull << (h->block_size_shift & 63), own = e->own * obj,
		 shared = e->shared * obj;
	time_t t = (time_t)((snap ? h->snap_ctime : h->create_time) >> 32);
	struct tm tm;
	redundancy_text(h->nr_copies, h->copy_policy, red);
	if (d->json)
		return json_array_append_new(l->rows, vdi_json(e, own, shared, red)) ? EXIT_SYSTEM
										     : EXIT_OK;
	format_size(h->vdi_size, d->raw, s, sizeof(s));
	format_size(own, d->raw, u, sizeof(u));
	format_size(shared, d->raw, sh, sizeof(sh));
	if (d->raw) {
		escape_name(e->name, name);
		printf("%c %s %u %s %s %s %llu %x %s %s %u\n",
		       snap    ? 's'
		       : clone ? 'c'
			       : '=',
		       name, snap ? h->snap_id : 0, s, u, sh, (unsigned long long)t, h->vdi_id, red,
		       snap ? e->tag : "", h->block_size_shift);
		return EXIT_OK;
	}
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M", localtime_r(&t, &tm));
	printf("%c %-8s %5u %7s %7s %7s %s  %7x %6s %13s %3u\n",
	       snap    ? 's'
	       : clone ? 'c'
		       : ' ',
	       e->name, snap ? h->snap_id : 0, s, u, sh, when, h->vdi_id, red, snap ? e->tag : "",
	       h->block_size_shift);
	return EXIT_OK;
}

static int vdi_list(struct dog *d)
{
	struct list_arg l = {d->argc ? d->argv[0] : NULL, d->json ? json_array() : NULL};
	if (!d->raw && !d->json)
		printf("  Name        Id    Size    Used  Shared    Creation time   VDI id  Copies "
		       " Tag   Block "
		       "Size Shift\n");
	int r = for_each_vdi(d, true, list_one, &l);
	if (!d->json)
		return r;
	if (!r)
		return print_json(l.rows);
	json_decref(l.rows);
	return r;
}

/* ---- delete, resize ---- */

bool good_name(const char *name)
{
	if (*name && strlen(name) < SD_NAME_LEN)
		return true;
	dog_err("Invalid VDI name '%s': it needs 1 to %u bytes", name, SD_NAME_LEN - 1);
	return false;
}

int parse_vdi_size(const char *s, uint64_t *size)
{
	if (parse_size(s, size) == 0)
		return EXIT_OK;
	dog_err("Invalid size '%s': a number and one of B K M G T P", s);
	return EXIT_FAILED;
}

static int vdi_delete(struct dog *d)
{
	char buf[512], b[32];
	struct sd_req req = {.opcode = SD_OP_DEL_VDI,
			     .flags = SD_FLAG_WRITE,
			     .data_length = sizeof(buf)};
	struct sd_rsp rsp;
	fill_name(d, d->argv[0], buf, &req.vdi.snapid);
	uint32_t snapid = req.vdi.snapid;
	if (dog_req(d, &req, buf, NULL, NULL, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result == SD_RES_NO_VDI || rsp.result == SD_RES_NO_TAG)
		return no_such_vdi(d->argv[0], snapid, buf + SD_NAME_LEN, rsp.result);
	if (rsp.result) {
		dog_err("Failed to delete VDI %s: %s", d->argv[0], reason(rsp.result, b));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

static int vdi_resize(struct dog *d)
{
	struct vdi_entry e;
	uint64_t size;
	char b[32];
	int r = parse_vdi_size(d->argv[1], &size);
	if (!r)
		r = lookup_vdi(d, d->argv[0], &e);
	if (r)
		return r;
	if (size < e.h.vdi_size) {
		dog_err("Shrinking VDIs is not implemented");
		return EXIT_USAGE_ERR;
	}
	if (size > (uint64_t)SD_NR_OBJS_MAX << e.h.block_size_shift) {
		dog_err("New VDI size is too large");
		return EXIT_USAGE_ERR;
	}
	e.h.vdi_size = ROUND_UP(size, 512);
	struct sd_req req = {.opcode = SD_OP_WRITE_OBJ,
			     .flags = SD_FLAG_WRITE | SD_FLAG_DIRECT,
			     .data_length = SD_INODE_HEADER_SIZE};
	struct sd_rsp rsp;
	req.obj.oid = SD_INODE_OID(e.h.vdi_id);
	if (dog_req(d, &req, &e.h, NULL, NULL, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result) {
		dog_err("Failed to resize VDI %s: %s", d->argv[0], reason(rsp.result, b));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

static const struct nested object_nested[] = {
	{"location", "show where an object is", vdi_object_location},
	{"map", "list the allocated objects", vdi_object_map},
	{"dump-inode", "print an inode object from a local file", vdi_object_dump},
	{0},
};

static const struct subcommand vdi_subs[] = {
	{"create", "<vdiname> <size>", "create an image", "PycaphrvTz", false, 2, 2, NULL,
	 vdi_create},
	{"list", "[vdiname]", "list images", "aprhTo", true, 0, 1, NULL, vdi_list},
	{"delete", "<vdiname>", "delete an image", "saphTBIm", false, 1, 1, NULL, vdi_delete},
	{"read", "<vdiname> [<offset> [<len>]]", "read data from an image", "saphT", false, 1, 3,
	 NULL, vdi_read},
	{"write", "<vdiname> [<offset> [<len>]]", "write data to an image", "aphTW", false, 1, 3,
	 NULL, vdi_write},
	{"resize", "<vdiname> <new size>", "resize an image", "aphT", false, 2, 2, NULL,
	 vdi_resize},
	{"object", "<vdiname>", "show object information in the image", "isaphT", true, 2, 2,
	 object_nested, NULL},
	{0},
};
const struct command vdi_command = {"vdi", vdi_subs};
