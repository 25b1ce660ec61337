/* vdi_data.c - dog vdi create|read|write: what moves or makes data (cli.md 2.6). */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dog/dog.h"

/* ---- create ---- */

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
		dog_err("Failed to create VDI %s: %s", d->argv[0],
			reason(rsp.result ? rsp.result : SD_RES_WAIT_FOR_FORMAT, b));
		return EXIT_FAILED;
	}
	*shift = ci->block_size_shift;
	if (*shift >= SD_OBJ_SHIFT_MIN && *shift <= SD_OBJ_SHIFT_MAX)
		return EXIT_OK;
	dog_err("Failed to create VDI %s: the cluster's object size is 2^%u", d->argv[0], *shift);
	return EXIT_FAILED;
}

#define PREALLOC_BATCH 64u /* objects between two index writes, which are safe wherever it ends */

static int write_failed(uint64_t oid, uint32_t result)
{
	char b[32];
	dog_err("Failed to write object %016llx: %s", (unsigned long long)oid, reason(result, b));
	return EXIT_FAILED;
}

/* -P: every object is made, in order, before the index entries that refer to it. */
static int preallocate(struct dog *d, uint32_t vid, uint64_t size, uint8_t shift)
{
	uint64_t n = DIV_ROUND_UP(size, 1ull << shift), first = 0;
	uint32_t entries[PREALLOC_BATCH];
	struct sd_rsp rsp;

	for (unsigned i = 0; i < PREALLOC_BATCH; i++)
		entries[i] = vid;
	for (uint64_t i = 0; i < n; i++) {
		struct sd_req mk = {.opcode = SD_OP_CREATE_AND_WRITE_OBJ,
				    .flags = SD_FLAG_WRITE | SD_FLAG_DIRECT};
		struct sd_req ix = {.opcode = SD_OP_WRITE_OBJ,
				    .flags = SD_FLAG_WRITE | SD_FLAG_DIRECT};
		mk.obj.oid = SD_DATA_OID(vid, i);
		if (dog_req(d, &mk, NULL, NULL, NULL, &rsp) < 0)
			return EXIT_SYSTEM;
		if (rsp.result)
			return write_failed(mk.obj.oid, rsp.result);
		progress((i + 1) << shift, n << shift, true);
		if (i + 1 < n && i + 1 - first < PREALLOC_BATCH)
			continue;
		ix.obj.oid = SD_INODE_OID(vid);
		ix.obj.offset = (uint32_t)(SD_INODE_HEADER_SIZE + 4 * first);
		ix.data_length = (uint32_t)(4 * (i + 1 - first));
		if (dog_req(d, &ix, entries, NULL, NULL, &rsp) < 0)
			return EXIT_SYSTEM;
		if (rsp.result)
			return write_failed(ix.obj.oid, rsp.result);
		first = i + 1;
	}
	return EXIT_OK;
}

int vdi_create(struct dog *d)
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
		return SD_ERR_RESULT(r) ? EXIT_FAILED : EXIT_SYSTEM;
	}
	if (d->prealloc && (r = preallocate(d, vid, size, shift)))
		return r;
	if (d->verbose)
		printf(d->raw ? "%x\n" : "VDI ID of newly created VDI: %x\n", vid);
	return EXIT_OK;
}

/* ---- read, write: a ring of chunks, each within one object, several in flight ---- */

enum { COPY_CHUNK = 1 << 20, COPY_DEPTH = 8 };

struct chunk {
	uint8_t *buf;
	struct iovec iov;
	uint64_t off;
	bool busy;
	int err;
};

struct copy {
	struct dog *d;
	struct sd_vdi *v;
	struct sd_vdi_info info;
	uint64_t off, left;   /* not yet in a chunk */
	uint64_t first, next; /* chunks in use: [first, next) modulo COPY_DEPTH */
	struct chunk chunk[COPY_DEPTH];
};

static void on_chunk(void *arg, int err)
{
	struct chunk *k = arg;
	k->busy = false;
	k->err = err;
}

/* The next chunk of the range: where, and how much. */
static struct chunk *chunk_next(struct copy *c)
{
	struct chunk *k = &c->chunk[c->next % COPY_DEPTH];
	uint64_t obj = 1ull << c->info.object_shift, n = obj - c->off % obj;

	if (!c->left || c->next - c->first == COPY_DEPTH)
		return NULL;
	if (n > COPY_CHUNK)
		n = COPY_CHUNK;
	if (n > c->left)
		n = c->left;
	k->off = c->off;
	k->iov = (struct iovec){k->buf, n};
	k->err = 0;
	k->busy = true;
	c->next++;
	c->off += n;
	c->left -= n;
	return k;
}

static uint64_t chunk_oid(const struct copy *c, const struct chunk *k)
{
	return SD_DATA_OID(c->info.vid, k->off >> c->info.object_shift);
}

/* Wait for the oldest chunk; NULL: none. */
static struct chunk *chunk_wait(struct copy *c)
{
	struct chunk *k = &c->chunk[c->first % COPY_DEPTH];

	if (c->first == c->next)
		return NULL;
	while (k->busy)
		sd_wait(c->d->c, -1);
	c->first++;
	return k;
}

static int io_failed(const struct copy *c, const struct chunk *k, bool write)
{
	char b[32];
	dog_err(write ? "Failed to write object %016llx: %s" : "Failed to read object %016llx %s",
		(unsigned long long)chunk_oid(c, k), reason_err(k->err, b));
	dog_err(write ? "Failed to write VDI" : "Failed to read VDI");
	return EXIT_FAILED;
}

static int copy_out(struct copy *c)
{
	struct chunk *k;
	for (;;) {
		while ((k = chunk_next(c)))
			if ((k->err = sd_readv_async(c->v, &k->iov, 1, k->off, on_chunk, k)))
				k->busy = false;
		k = chunk_wait(c);
		if (!k)
			return EXIT_OK;
		if (k->err)
			return io_failed(c, k, false);
		if (fwrite(k->buf, 1, k->iov.iov_len, stdout) != k->iov.iov_len) {
			dog_err("Failed to write to stdout: %s", strerror(errno));
			return EXIT_FAILED;
		}
	}
}

/* Writes exactly what stdin has, at most the range: nothing is padded. */
static int copy_in(struct copy *c)
{
	struct chunk *k;
	for (;;) {
		while ((k = chunk_next(c))) {
			size_t want = k->iov.iov_len, n = fread(k->buf, 1, want, stdin);
			if (n < want)
				c->left = 0;
			k->iov.iov_len = n;
			k->err = n ? sd_writev_async(c->v, &k->iov, 1, k->off, on_chunk, k) : 0;
			if (!n || k->err)
				k->busy = false;
		}
		k = chunk_wait(c);
		if (!k)
			break;
		if (k->err)
			return io_failed(c, k, true);
	}
	if (!ferror(stdin))
		return EXIT_OK;
	dog_err("Failed to read from stdin: %s", strerror(errno));
	return EXIT_FAILED;
}

static int copy_run(struct copy *c, bool write)
{
	CLEANUP(freep) uint8_t *mem = malloc((size_t)COPY_CHUNK * COPY_DEPTH);
	if (!mem) {
		dog_err("Out of memory");
		return EXIT_SYSTEM;
	}
	for (unsigned i = 0; i < COPY_DEPTH; i++)
		c->chunk[i].buf = mem + (size_t)i * COPY_CHUNK;
	int r = write ? copy_in(c) : copy_out(c);
	while (chunk_wait(c)) /* after an error */
		;
	return r;
}

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

static int vdi_io(struct dog *d, bool write)
{
	struct copy c = {.d = d};
	char b[32];
	if (d->snapshot) {
		dog_err("Reading snapshots is not supported yet");
		return EXIT_FAILED;
	}
	int r = sd_vdi_open(d->c, d->argv[0], write ? 0 : SD_OPEN_RDONLY, &c.v);
	if (r < 0 && !SD_ERR_RESULT(r) && *sd_last_error(d->c))
		dog_err("failed to %s", sd_last_error(d->c));
	if (r < 0) {
		dog_err("Failed to open VDI %s (snapshot id: 0 snapshot tag: ): %s", d->argv[0],
			reason_err(r, b));
		return SD_ERR_RESULT(r) ? EXIT_FAILED : EXIT_SYSTEM;
	}
	sd_vdi_get_info(c.v, &c.info);
	r = parse_range(d, c.info.size, &c.off, &c.left);
	if (!r)
		r = copy_run(&c, write);
	int e = sd_vdi_close(c.v);
	if (e < 0 && !r) {
		dog_err("Failed to close VDI %s: %s", d->argv[0], reason_err(e, b));
		r = EXIT_FAILED;
	}
	return r;
}

int vdi_read(struct dog *d)
{
	return vdi_io(d, false);
}

int vdi_write(struct dog *d)
{
	return vdi_io(d, true);
}
