/* object.c - dog vdi object location|map|dump-inode (cli.md 2.6). */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dog/dog.h"
#include "lib/proto/ring.h"

/* Where the placement ring says @oid belongs: indices into d->nodes. */
static unsigned placement(struct dog *d, uint64_t oid, unsigned copies, uint32_t *where)
{
	CLEANUP(freep) struct ring_node *rn = calloc(d->nr_nodes, sizeof(*rn));
	for (unsigned i = 0; rn && i < d->nr_nodes; i++) {
		memcpy(rn[i].ip, d->nodes[i].addr, 16);
		rn[i].port = d->nodes[i].port;
		rn[i].nr_vnodes = d->nodes[i].nr_vnodes;
		rn[i].zone = d->nodes[i].zone;
	}
	struct ring *r = rn ? ring_new(rn, d->nr_nodes) : NULL;
	unsigned n = r ? ring_lookup(r, sd_hash_oid(oid), copies, where) : 0;
	ring_free(r);
	return n;
}

static json_t *locate(struct dog *d, uint64_t oid, unsigned copies)
{
	uint32_t where[SD_COPIES_MAX];
	char a[64], b[32];
	json_t *has = json_array(), *should = json_array();
	for (unsigned i = 0; i < d->nr_nodes; i++) {
		struct sd_req req = {.opcode = SD_OP_EXIST};
		struct sd_rsp rsp;
		req.obj.oid = oid;
		if (dog_req_to(d, &d->nodes[i], &req, NULL, NULL, &rsp) < 0)
			continue;
		node_addr(&d->nodes[i], a);
		if (rsp.result == SD_RES_SUCCESS)
			json_array_append_new(has, json_string(a));
		if (d->json)
			continue;
		if (rsp.result == SD_RES_SUCCESS)
			printf("%s has the object\n", a);
		else if (rsp.result == SD_RES_NO_OBJ)
			printf("%s doesn't have the object\n", a);
		else
			printf("%s hit an unexpected error (%s)\n", a, reason(rsp.result, b));
	}
	unsigned n = placement(d, oid, copies, where);
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(should, json_string(node_addr(&d->nodes[where[i]], a)));
	return json_pack("{s:s, s:o, s:o}", "oid", "", "has", has, "should", should);
}

static void print_should(struct dog *d, json_t *loc, unsigned copies)
{
	size_t i;
	json_t *v;
	if (d->nr_nodes < copies) {
		printf("\nThere are fewer nodes than copies: the object should be located at every "
		       "node.\n");
		return;
	}
	printf("\nAccording to sheepdog algorithm, the object should be located at:\n");
	json_array_foreach(json_object_get(loc, "should"), i, v)
		printf("%s%s", i ? " " : "", json_string_value(v));
	printf("\n");
}

static int show_location(struct dog *d, uint64_t oid, unsigned copies)
{
	char hex[32];
	json_t *loc = locate(d, oid, copies);
	snprintf(hex, sizeof(hex), "%016llx", (unsigned long long)oid);
	json_object_set_new(loc, "oid", json_string(hex));
	if (d->json)
		return print_json(loc);
	print_should(d, loc, copies);
	json_decref(loc);
	return EXIT_OK;
}

int vdi_object_location(struct dog *d)
{
	struct vdi_entry e;
	uint64_t idx;
	uint32_t vid;
	int r = lookup_vdi(d, d->argv[0], &e);
	if (!r)
		r = dog_nodes(d);
	if (r)
		return r;
	if (!d->index) {
		if (!d->json)
			printf("Looking for the inode object 0x%x with %u nodes\n\n", e.h.vdi_id,
			       d->nr_nodes);
		return show_location(d, SD_INODE_OID(e.h.vdi_id), e.h.nr_copies);
	}
	if (parse_u64(d->index, 0, SD_NR_OBJS_MAX - 1, &idx) < 0) {
		dog_err("Invalid index '%s': 0 to %u", d->index, SD_NR_OBJS_MAX - 1);
		return EXIT_FAILED;
	}
	r = read_obj(d, SD_INODE_OID(e.h.vdi_id), &vid, 4,
		     (uint32_t)(SD_INODE_HEADER_SIZE + 4 * idx));
	if (r)
		return r;
	if (!vid && d->json)
		return print_json(json_pack("{s:n, s:[], s:[]}", "oid", "has", "should"));
	if (!vid) {
		printf("The inode object 0x%x idx %llu is not allocated\n", e.h.vdi_id,
		       (unsigned long long)idx);
		return EXIT_OK;
	}
	if (!d->json)
		printf("Looking for the object %016llx (vid 0x%x idx %llu, %u copies) with %u "
		       "nodes\n\n",
		       (unsigned long long)SD_DATA_OID(vid, idx), e.h.vdi_id,
		       (unsigned long long)idx, e.h.nr_copies, d->nr_nodes);
	return show_location(d, SD_DATA_OID(vid, idx), e.h.nr_copies);
}

int vdi_object_map(struct dog *d)
{
	struct vdi_entry e;
	json_t *rows = NULL;
	int r = lookup_vdi(d, d->argv[0], &e);
	if (r)
		return r;
	uint64_t n = nr_objects(&e.h);
	CLEANUP(freep) uint32_t *idx = calloc(n + 1, 4);
	if (!idx)
		return EXIT_SYSTEM;
	if (n && (r = read_obj(d, SD_INODE_OID(e.h.vdi_id), idx, n * 4, SD_INODE_HEADER_SIZE)))
		return r;
	if (d->json)
		rows = json_array();
	else
		printf("Index       VID\n");
	for (uint64_t i = 0; i < n; i++) {
		if (!idx[i])
			continue;
		if (d->json)
			json_array_append_new(rows, json_pack("{s:I, s:I}", "index", (json_int_t)i,
							      "vid", (json_int_t)idx[i]));
		else
			printf("%08llu %8x\n", (unsigned long long)i, idx[i]);
	}
	return d->json ? print_json(rows) : EXIT_OK;
}

static json_t *header_json(const struct sd_inode_header *h)
{
	json_t *j = json_object();
	const struct {
		const char *name;
		uint64_t value;
	} num[] = {
		{"create_time", h->create_time},
		{"snap_ctime", h->snap_ctime},
		{"vm_clock_nsec", h->vm_clock_nsec},
		{"vdi_size", h->vdi_size},
		{"vm_state_size", h->vm_state_size},
		{"copy_policy", h->copy_policy},
		{"store_policy", h->store_policy},
		{"nr_copies", h->nr_copies},
		{"block_size_shift", h->block_size_shift},
		{"snap_id", h->snap_id},
		{"vdi_id", h->vdi_id},
		{"parent_vdi_id", h->parent_vdi_id},
		{"btree_counter", h->btree_counter},
	};
	json_object_set_new(j, "name", json_bytes(h->name, sizeof(h->name)));
	json_object_set_new(j, "tag", json_bytes(h->tag, sizeof(h->tag)));
	for (size_t i = 0; i < ARRAY_SIZE(num); i++)
		json_object_set_new(j, num[i].name, json_integer((json_int_t)num[i].value));
	return j;
}

static void dump_header(const struct sd_inode_header *h)
{
	printf("name: %.256s\ntag: %.256s\n", h->name, h->tag);
	printf("create_time: %llx\nsnap_ctime: %llx\nvm_clock_nsec: %llx\n",
	       (unsigned long long)h->create_time, (unsigned long long)h->snap_ctime,
	       (unsigned long long)h->vm_clock_nsec);
	printf("vdi_size: %llu\nvm_state_size: %llu\n", (unsigned long long)h->vdi_size,
	       (unsigned long long)h->vm_state_size);
	printf("copy_policy: %u\nstore_policy: %u\nnr_copies: %u\nblock_size_shift: %u\n",
	       h->copy_policy, h->store_policy, h->nr_copies, h->block_size_shift);
	printf("snap_id: %u\nvdi_id: %x\nparent_vdi_id: %x\nbtree_counter: %u\n", h->snap_id,
	       h->vdi_id, h->parent_vdi_id, h->btree_counter);
}

/* The entries of the index, then of the reference counts, as far as the file goes. */
static void dump_tables(FILE *f, json_t *j)
{
	json_t *ids = j ? json_object() : NULL, *refs = j ? json_object() : NULL;
	char key[16];
	uint32_t v;
	struct {
		int32_t generation, count;
	} g;

	if (!j)
		printf("data_vdi_id:\n");
	for (unsigned i = 0; i < SD_NR_OBJS_MAX && fread(&v, 1, 4, f) == 4; i++) {
		snprintf(key, sizeof(key), "%u", i);
		if (v && j)
			json_object_set_new(ids, key, json_integer(v));
		else if (v)
			printf("%s: %x\n", key, v);
	}
	if (!j)
		printf("gref:\n");
	for (unsigned i = 0; i < SD_NR_OBJS_MAX && fread(&g, 1, 8, f) == 8; i++) {
		snprintf(key, sizeof(key), "%u", i);
		if ((g.generation || g.count) && j)
			json_object_set_new(refs, key,
					    json_pack("{s:i, s:i}", "generation", g.generation,
						      "count", g.count));
		else if (g.generation || g.count)
			printf("%s: generation %d count %d\n", key, g.generation, g.count);
	}
	if (j) {
		json_object_set_new(j, "data_vdi_id", ids);
		json_object_set_new(j, "gref", refs);
	}
}

int vdi_object_dump(struct dog *d)
{
	struct sd_inode_header h;
	json_t *j = NULL;
	FILE *f = fopen(d->argv[0], "rb");
	if (!f) {
		dog_err("Failed to open %s: %s", d->argv[0], strerror(errno));
		return EXIT_FAILED;
	}
	if (fread(&h, 1, sizeof(h), f) != sizeof(h)) {
		dog_err("%s is too short to be an inode object", d->argv[0]);
		fclose(f);
		return EXIT_FAILED;
	}
	if (d->json)
		j = header_json(&h);
	else
		dump_header(&h);
	dump_tables(f, j);
	fclose(f);
	return j ? print_json(j) : EXIT_OK;
}
