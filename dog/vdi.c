/* vdi.c - dog vdi create|list|delete|resize and the reading of inodes (cli.md 2.6). */
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

static uint64_t nr_objects(const struct sd_inode_header *h)
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

static int read_header(struct dog *d, uint32_t vid, struct sd_inode_header *h)
{
	int r = read_obj(d, SD_INODE_OID(vid), h, sizeof(*h), 0);
	if (r)
		dog_err("Failed to read inode header");
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
		r = read_header(d, vid, &e.h);
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

int lookup_vdi(struct dog *d, const char *name, struct vdi_entry *ret)
{
	char buf[512], b[32];
	struct sd_req req = {.opcode = SD_OP_GET_VDI_INFO,
			     .flags = SD_FLAG_WRITE,
			     .data_length = sizeof(buf)};
	struct sd_rsp rsp;
	fill_name(d, name, buf, &req.vdi.snapid);
	uint32_t snapid = req.vdi.snapid;
	if (dog_req(d, &req, buf, NULL, NULL, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result) {
		dog_err("Failed to open VDI %s (snapshot id: %u snapshot tag: %s): %s", name,
			snapid, buf + 256, reason(rsp.result, b));
		return EXIT_FAILED;
	}
	*ret = (struct vdi_entry){0};
	return read_header(d, rsp.vdi.vdi_id, &ret->h);
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
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:i, s:b, s:b}", "name",
			 h->name, "id", (json_int_t)(h->snap_ctime ? h->snap_id : 0), "size",
			 (json_int_t)h->vdi_size, "used", (json_int_t)own, "shared",
			 (json_int_t)shared, "created", (json_int_t)(h->create_time >> 32), "vid",
			 (json_int_t)h->vdi_id, "copies", red, "tag", h->snap_ctime ? h->tag : "",
			 "block_size_shift", h->block_size_shift, "snapshot", h->snap_ctime != 0,
			 "clone", !h->snap_ctime && h->parent_vdi_id != 0);
}

static int list_one(struct dog *d, struct vdi_entry *e, void *arg)
{
	struct list_arg *l = arg;
	const struct sd_inode_header *h = &e->h;
	char s[32], u[32], sh[32], red[16], when[32], name[2 * SD_NAME_LEN];
	if (l->name && strncmp(l->name, h->name, SD_NAME_LEN))
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
		escape_name(h->name, name);
		printf("%c %s %u %s %s %s %llu %x %s %s %u\n",
		       snap    ? 's'
		       : clone ? 'c'
			       : '=',
		       name, snap ? h->snap_id : 0, s, u, sh, (unsigned long long)t, h->vdi_id, red,
		       snap ? h->tag : "", h->block_size_shift);
		return EXIT_OK;
	}
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M", localtime_r(&t, &tm));
	printf("%c %-8s %5u %7s %7s %7s %s  %7x %6s %13s %3u\n",
	       snap    ? 's'
	       : clone ? 'c'
		       : ' ',
	       h->name, snap ? h->snap_id : 0, s, u, sh, when, h->vdi_id, red, snap ? h->tag : "",
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

/* ---- create, delete, resize ---- */

static bool good_name(const char *name)
{
	if (*name && strlen(name) < SD_NAME_LEN)
		return true;
	dog_err("Invalid VDI name '%s': it needs 1 to %u bytes", name, SD_NAME_LEN - 1);
	return false;
}

static int parse_vdi_size(const char *s, uint64_t *size)
{
	if (parse_size(s, size) == 0)
		return EXIT_OK;
	dog_err("Invalid size '%s': a number and one of B K M G T P", s);
	return EXIT_FAILED;
}

/* Object size of new volumes, from the cluster. */
static int default_shift(struct dog *d, uint8_t *shift)
{
	size_t len =
		sizeof(struct sd_cluster_info) + sizeof(struct sd_node) * SD_CLUSTER_INFO_NODES;
	struct sd_req req = {.opcode = SD_OP_CLUSTER_INFO, .data_length = (uint32_t)len};
	struct sd_rsp rsp;
	CLEANUP(freep) struct sd_cluster_info *ci = calloc(1, len);
	char b[32];
	if (!ci || dog_req(d, &req, NULL, ci, &len, &rsp) < 0)
		return EXIT_SYSTEM;
	if (rsp.result || !ci->ctime) {
		dog_err("Failed to create VDI: %s",
			reason(rsp.result ? rsp.result : SD_RES_WAIT_FOR_FORMAT, b));
		return EXIT_FAILED;
	}
	*shift = ci->block_size_shift;
	return EXIT_OK;
}

/* -P: every object is made, in order, each before the index entry that refers to it. */
static int preallocate(struct dog *d, uint32_t vid, uint64_t size, uint8_t shift)
{
	uint64_t n = DIV_ROUND_UP(size, 1ull << shift);
	char b[32];
	for (uint64_t i = 0; i < n; i++) {
		struct sd_req mk = {.opcode = SD_OP_CREATE_AND_WRITE_OBJ,
				    .flags = SD_FLAG_WRITE | SD_FLAG_DIRECT};
		struct sd_req ix = {.opcode = SD_OP_WRITE_OBJ,
				    .flags = SD_FLAG_WRITE | SD_FLAG_DIRECT,
				    .data_length = 4};
		struct sd_rsp rsp;
		mk.obj.oid = SD_DATA_OID(vid, i);
		ix.obj.oid = SD_INODE_OID(vid);
		ix.obj.offset = (uint32_t)(SD_INODE_HEADER_SIZE + 4 * i);
		if (dog_req(d, &mk, NULL, NULL, NULL, &rsp) < 0)
			return EXIT_SYSTEM;
		if (!rsp.result && dog_req(d, &ix, &vid, NULL, NULL, &rsp) < 0)
			return EXIT_SYSTEM;
		if (rsp.result) {
			dog_err("Failed to write object %016llx: %s",
				(unsigned long long)mk.obj.oid, reason(rsp.result, b));
			return EXIT_FAILED;
		}
		progress((i + 1) << shift, n << shift, true);
	}
	return EXIT_OK;
}

static int vdi_create(struct dog *d)
{
	const char *name = d->argv[0];
	uint64_t size;
	uint32_t vid = 0;
	uint8_t shift = d->shift;
	char b[32];
	if (!good_name(name))
		return EXIT_USAGE_ERR;
	int r = parse_vdi_size(d->argv[1], &size);
	if (!r && !shift)
		r = default_shift(d, &shift);
	if (r)
		return r;
	if (size > (uint64_t)SD_NR_OBJS_MAX << shift) {
		dog_err("VDI size is too large: at most %llu bytes with objects of %llu bytes",
			(unsigned long long)SD_NR_OBJS_MAX << shift, 1ull << shift);
		return EXIT_USAGE_ERR;
	}
	struct sd_create_opts o = {d->copies, d->copy_policy, shift};
	r = sd_vdi_create(d->c, name, size, &o, &vid);
	if (r < 0) {
		dog_err("Failed to create VDI %s: %s", name, reason_err(r, b));
		return EXIT_FAILED;
	}
	if (d->prealloc && (r = preallocate(d, vid, size, shift)))
		return r;
	if (d->verbose)
		printf(d->raw ? "%x\n" : "VDI ID of newly created VDI: %x\n", vid);
	return EXIT_OK;
}

static int vdi_delete(struct dog *d)
{
	char buf[512], b[32];
	struct sd_req req = {.opcode = SD_OP_DEL_VDI,
			     .flags = SD_FLAG_WRITE,
			     .data_length = sizeof(buf)};
	struct sd_rsp rsp;
	fill_name(d, d->argv[0], buf, &req.vdi.snapid);
	if (dog_req(d, &req, buf, NULL, NULL, &rsp) < 0)
		return EXIT_SYSTEM;
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

/* ---- read, write ---- */

#define COPY_CHUNK (4u << 20)

static int parse_range(struct dog *d, uint64_t size, uint64_t *off, uint64_t *len)
{
	*off = 0;
	if (d->argc > 1 && parse_size(d->argv[1], off) < 0) {
		dog_err("Invalid offset '%s'", d->argv[1]);
		return EXIT_USAGE_ERR;
	}
	if (*off > size || (*off == size && size)) {
		dog_err("Read/write offset is beyond the end of the VDI");
		return EXIT_FAILED;
	}
	*len = size - *off;
	if (d->argc > 2) {
		uint64_t want;
		if (parse_size(d->argv[2], &want) < 0) {
			dog_err("Invalid length '%s'", d->argv[2]);
			return EXIT_USAGE_ERR;
		}
		if (want < *len)
			*len = want;
	}
	return EXIT_OK;
}

static int vdi_copy_out(struct sd_vdi *v, uint64_t off, uint64_t len)
{
	CLEANUP(freep) char *buf = malloc(COPY_CHUNK);
	char b[32];
	while (buf && len) {
		size_t n = len < COPY_CHUNK ? len : COPY_CHUNK;
		int r = sd_read(v, buf, n, off);
		if (r < 0) {
			dog_err("Failed to read VDI: %s", reason_err(r, b));
			return EXIT_FAILED;
		}
		if (fwrite(buf, 1, n, stdout) != n) {
			dog_err("Failed to write to stdout");
			return EXIT_FAILED;
		}
		off += n;
		len -= n;
	}
	return buf ? EXIT_OK : EXIT_SYSTEM;
}

/* Writes exactly what stdin has, at most @len: nothing is padded. */
static int vdi_copy_in(struct sd_vdi *v, uint64_t off, uint64_t len)
{
	CLEANUP(freep) char *buf = malloc(COPY_CHUNK);
	char b[32];
	while (buf && len) {
		size_t n = fread(buf, 1, len < COPY_CHUNK ? len : COPY_CHUNK, stdin);
		if (!n)
			break;
		int r = sd_write(v, buf, n, off);
		if (r < 0) {
			dog_err("Failed to write VDI: %s", reason_err(r, b));
			return EXIT_FAILED;
		}
		off += n;
		len -= n;
	}
	if (ferror(stdin)) {
		dog_err("Failed to read from stdin");
		return EXIT_FAILED;
	}
	return buf ? EXIT_OK : EXIT_SYSTEM;
}

static int vdi_io(struct dog *d, bool write)
{
	struct sd_vdi_info info;
	struct sd_vdi *v;
	uint64_t off, len;
	char b[32];
	if (d->snapshot) {
		dog_err("Reading snapshots is not supported yet");
		return EXIT_FAILED;
	}
	int r = sd_vdi_open(d->c, d->argv[0], write ? 0 : SD_OPEN_RDONLY, &v);
	if (r < 0) {
		dog_err("Failed to open VDI %s (snapshot id: 0 snapshot tag: ): %s", d->argv[0],
			reason_err(r, b));
		return EXIT_FAILED;
	}
	sd_vdi_get_info(v, &info);
	r = parse_range(d, info.size, &off, &len);
	if (!r)
		r = write ? vdi_copy_in(v, off, len) : vdi_copy_out(v, off, len);
	int c = sd_vdi_close(v);
	if (c < 0 && !r) {
		dog_err("Failed to close VDI %s: %s", d->argv[0], reason_err(c, b));
		r = EXIT_FAILED;
	}
	return r;
}

static int vdi_read(struct dog *d)
{
	return vdi_io(d, false);
}

static int vdi_write(struct dog *d)
{
	return vdi_io(d, true);
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
