/* test_store.c - the contract of sheep/store/store.h on real files. */
#include "config.h"

#include "tests/unit/store_world.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/env/linux.h"
#include "lib/proto/ring.h"

/* ---- tests ---- */

static void t_ident(struct world *w)
{
	static const uint8_t name[8] = "abcdefg", none[16];
	struct store_ident a;
	up(w);
	a = *store_ident(w->st);
	assert_int_equal(a.start, 1);
	assert_memory_not_equal(a.uuid, none, 16);
	assert_memory_not_equal(a.boot_id, none, 16);
	assert_int_equal(a.clean_epoch, 0);
	assert_true(a.space > 0);
	assert_int_equal(store_mark_clean(w->st, 7, name), 0);
	again(w);
	const struct store_ident *b = store_ident(w->st);
	assert_memory_equal(b->uuid, a.uuid, 16);
	assert_memory_equal(b->prev_boot_id, a.boot_id, 16);
	assert_int_equal(b->start, 2);
	assert_int_equal(b->clean_epoch, 7);
	assert_memory_equal(b->clean_name, name, 8);
	assert_int_equal(b->space, a.space);
	again(w);
	assert_int_equal(store_ident(w->st)->start, 3);
	assert_int_equal(store_ident(w->st)->clean_epoch, 0);
	down(w);
}

static void t_lock(struct world *w)
{
	struct store *second = NULL;
	char *err = NULL;
	up(w);
	assert_int_equal(store_open(w->s, w->env, &w->conf, &second, &err), -EBUSY);
	assert_non_null(strstr(err, "Another daemon"));
	free(err);
	down(w);
	up(w);
	down(w);
}

static void put_file(struct world *w, const char *name, const void *p, size_t len)
{
	char path[160];
	snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, len, f), len);
	fclose(f);
}

static void t_foreign(struct world *w)
{
	uint8_t old[40] = {0};
	old[30] = 6;
	assert_int_equal(mkdir(w->dir, 0755), 0);
	put_file(w, "config", old, sizeof(old));
	assert_int_equal(try_open(w), -EPROTO);
	assert_non_null(strstr(w->err, "original Sheepdog"));
	put_file(w, "config", "hello", 5);
	assert_int_equal(try_open(w), -EPROTO);
	struct disk_config c = {.magic = CONFIG_MAGIC, .format = STORE_FORMAT + 1};
	put_file(w, "config", &c, sizeof(c));
	assert_int_equal(try_open(w), -EPROTO);
	assert_non_null(strstr(w->err, "store format 2"));
	c.format = STORE_FORMAT; /* checksum wrong */
	put_file(w, "config", &c, sizeof(c));
	assert_int_equal(try_open(w), -EPROTO);
	put_file(w, "config.tmp", "x", 1);
	char path[160];
	snprintf(path, sizeof(path), "%s/config", w->dir);
	unlink(path);
	up(w);
	down(w);
	unlink(path);
	up(w); /* no objects yet: as good as new */
	struct img m = img_new(8192);
	wr(w, &m, OID, 1, 0, 4096, CREATE | DURABLE);
	down(w);
	unlink(path);
	assert_int_equal(try_open(w), -EPROTO);
	assert_non_null(strstr(w->err, "no config"));
	free(m.p);
}

/* Writes of all shapes, over a model; every few steps a reopen. */
static void t_model_size(struct world *w, uint64_t size, unsigned steps)
{
	struct img m = img_new(size);
	uint64_t seed = size, n = 1;
	up(w);
	wr(w, &m, OID, n, 0, size < 4096 ? size : 4096, CREATE);
	for (unsigned i = 0; i < steps; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		uint64_t kind = seed >> 60, r1 = (seed >> 20) % size, r2 = seed >> 33;
		uint64_t off = r1, len = 1 + r2 % 20000;
		if (kind < 4) {
			off = r1 / 4096 * 4096;
			len = 4096;
		} else if (kind < 6) {
			off = r1 / 4096 * 4096;
			len = (16 + r2 % 64) * 4096;
		} else if (kind == 6) {
			len = 65536 + r2 % 200000;
		} else if (kind == 7) {
			len = 4;
		}
		if (len > size - off)
			len = size - off;
		n++;
		if (kind == 15) {
			wr(w, &m, OID, n, off, len, CREATE | (r2 & DURABLE));
		} else {
			size_t mis = kind == 8 ? 512 : 0;
			unsigned f = (unsigned)(r2 >> 4) & (DURABLE | NOWAIT);
			assert_int_equal(wr_at(w, OID, n, off, len, f, 0, mis), 0);
			pat_fill(m.p + off, n, off, len);
		}
		if (i % 7 == 3)
			check_part(w, &m, OID, off, len);
		if (i % 29 == 13)
			settle(w);
		if (i % 61 == 60) {
			check(w, &m, OID, n);
			again(w);
			check(w, &m, OID, n);
		}
		if (i % 41 == 40)
			assert_int_equal(store_flush(w->st), 0);
	}
	check(w, &m, OID, n);
	again(w);
	check(w, &m, OID, n);
	down(w);
	free(m.p);
}

static void t_model(struct world *w)
{
	static const uint64_t sizes[] = {4096, 66320, 1 << 20, 4 << 20, SD_INODE_SIZE};
	char base[96];
	memcpy(base, w->dir, sizeof(base));
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(w->dir, sizeof(w->dir), "%.80s-%u", base, i);
		t_model_size(w, sizes[i], RUNNING_ON_VALGRIND ? 70 : 180);
	}
}

static void t_index_(struct world *w)
{
	enum { N = 300 };
	struct obj_info got[N + 1], i;
	struct img m = img_new(4096);
	up(w);
	for (unsigned k = 1; k <= N; k++)
		wr(w, &m, k * 77777ull, k, 0, 4096, CREATE);
	for (unsigned k = 3; k <= N; k += 3)
		assert_int_equal(rm(w, k * 77777ull, N + k, false), 0);
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(store_nr_objects(w->st), N / 3 * 2);
		assert_int_equal(store_max_gen(w->st), 1);
		assert_false(store_lookup(w->st, 3 * 77777ull, &i));
		assert_int_equal(i.ver.gen, 0);
		assert_int_equal(store_list(w->st, 0, UINT64_MAX, false, 0, 0, got, N + 1),
				 N / 3 * 2);
		for (unsigned k = 0; k < N / 3 * 2; k++) {
			assert_true(got[k].hash == sd_hash_oid(got[k].oid));
			assert_true(!k || got[k - 1].hash < got[k].hash);
		}
		struct obj_info part[7];
		unsigned at = 20, to = 150;
		uint64_t h = 0, o = 0;
		bool cont = false;
		for (unsigned n;
		     (n = store_list(w->st, got[20].hash, got[to].hash, cont, h, o, part, 7));) {
			for (unsigned k = 0; k < n; k++)
				assert_true(part[k].oid == got[at++].oid);
			h = part[n - 1].hash;
			o = part[n - 1].oid;
			cont = true;
		}
		assert_int_equal(at, to + 1);
		again(w);
	}
	assert_int_equal(rm(w, 12345, 1, true), -ENOENT);
	down(w);
	free(m.p);
}

static void t_absent(struct world *w)
{
	uint8_t p[4096];
	up(w);
	assert_int_equal(rd(w, OID, 0, 4096, p, NULL), -ENOENT);
	assert_int_equal(wr_at(w, OID, 1, 0, 4096, 0, 0, 0), -ENOENT);
	assert_int_equal(wr_at(w, OID, 1, 4096, 4096, CREATE, 4096, 0), -EINVAL);
	assert_int_equal(wr_at(w, OID, 1, 0, 4096, CREATE, 8192, 0), 0);
	assert_int_equal(wr_at(w, OID, 2, 8192, 1, 0, 0, 0), -EINVAL);
	memset(p, 7, sizeof(p));
	assert_int_equal(rd(w, OID, 8000, 4096, p, NULL), 0); /* beyond the end: zeros */
	for (unsigned i = 0; i < sizeof(p); i++)
		assert_int_equal(p[i], 0);
	down(w);
}

static void t_remove_(struct world *w)
{
	struct obj_info i;
	struct img m = img_new(1 << 20);
	up(w);
	wr(w, &m, OID, 1, 0, 1 << 20, CREATE | DURABLE);
	settle(w);
	assert_true(exists(w, "obj/0000123400000007"));
	wr(w, &m, OID, 2, 4096, 4096, 0);
	assert_int_equal(rm(w, OID, 3, true), 0);
	assert_false(store_lookup(w->st, OID, &i));
	again(w);
	assert_false(store_lookup(w->st, OID, &i));
	assert_false(exists(w, "obj/0000123400000007"));
	wr(w, &m, OID, 4, 0, 4096, CREATE);
	assert_int_equal(rm(w, OID, 5, false), 0);
	wr(w, &m, OID, 6, 65536, 512, CREATE);
	check(w, &m, OID, 6);
	again(w);
	check(w, &m, OID, 6);
	/* create, remove, create again with all of it in the journal, and another size */
	struct img s = img_new(300000);
	assert_int_equal(rm(w, OID, 7, false), 0);
	wr(w, &s, OID, 8, 1000, 200000, CREATE);
	check(w, &s, OID, 8);
	wr(w, &s, OID, 9, 0, 100, 0);
	wr(w, &m, OID, 10, 0, 100, CREATE);
	check(w, &m, OID, 10);
	again(w);
	check(w, &m, OID, 10);
	down(w);
	free(m.p);
	free(s.p);
}

static void t_eilseq(struct world *w)
{
	const char *f = "obj/0000123400000007";
	struct img m = img_new(1 << 20);
	uint8_t *p = malloc(1 << 20);
	uint64_t bad = 0;
	up(w);
	wr(w, &m, OID, 1, 0, 1 << 20, CREATE | DURABLE);
	again(w);
	flip(w, f, 3 * 4096 + 100);
	assert_int_equal(rd(w, OID, 0, 1 << 20, p, &bad), -EILSEQ);
	assert_int_equal(bad, 3 * 4096);
	check_part(w, &m, OID, 4 * 4096, 4096 * 10);
	assert_int_equal(wr_at(w, OID, 2, 3 * 4096 + 1, 10, 0, 0, 0), -EILSEQ);
	/* the peer's block, at another version, then at this one */
	struct buf *b = buf_new(w->pool, 8192);
	memcpy(b->data, m.p + 3 * 4096, 8192);
	struct store_obj *o = store_get(w->st, OID, true);
	assert_int_equal(store_repair(o, (struct obj_ver){1, 9}, 3 * 4096, b, 0, 8192), -ESTALE);
	assert_int_equal(store_repair(o, (struct obj_ver){1, 1}, 3 * 4096 + 1, b, 0, 4096),
			 -EINVAL);
	assert_int_equal(store_repair(o, (struct obj_ver){1, 1}, 3 * 4096, b, 0, 8192), 0);
	store_put(o);
	buf_put(b);
	check(w, &m, OID, 1);
	again(w);
	check(w, &m, OID, 1);
	/* a write over a bad block mends it */
	flip(w, f, 3 * 4096 + 100);
	wr(w, &m, OID, 2, 3 * 4096, 4096, 0);
	check(w, &m, OID, 2);
	again(w);
	/* a checksum sector: its blocks are bad, until written */
	flip(w, f, (off_t)sector_off(1 << 20, 1) + 200);
	again(w);
	assert_int_equal(rd(w, OID, 0, 1 << 20, p, &bad), -EILSEQ);
	assert_int_equal(bad, CHUNK_BLKS * 4096);
	check_part(w, &m, OID, 0, CHUNK_BLKS * 4096);
	wr(w, &m, OID, 3, CHUNK_BLKS * 4096, 4096, 0);
	again(w);
	check_part(w, &m, OID, 0, (CHUNK_BLKS + 1) * 4096);
	assert_int_equal(rd(w, OID, 0, 1 << 20, p, &bad), -EILSEQ);
	assert_int_equal(bad, (CHUNK_BLKS + 1) * 4096);
	/* the header: an object of unknown version */
	down(w);
	flip(w, f, (off_t)size_file(1 << 20) - 400);
	up(w);
	struct obj_info i;
	assert_true(store_lookup(w->st, OID, &i));
	assert_true(i.torn);
	assert_int_equal(i.ver.gen, 0);
	assert_int_equal(i.ver.seq, 1);
	down(w);
	free(m.p);
	free(p);
}

/* Copy one object over another as a pull does. */
static void pull(struct world *w, uint64_t from, uint64_t to, uint64_t size, uint64_t n)
{
	struct store_replace *r;
	uint64_t at = 0, start, len;
	struct store_obj *s = store_get(w->st, from, false), *d = store_get(w->st, to, true);
	assert_int_equal(store_replace_begin(d, size, 3, &r), 0);
	while (store_next_data(s, at, &start, &len)) {
		assert_true(start >= at && len && start + len <= size);
		if (len > 65536)
			len = 65536;
		struct buf *b = buf_new(w->pool, len);
		assert_int_equal(store_read(s, start, len, b, 0, NULL), 0);
		assert_int_equal(store_replace_data(r, start, b, 0, len), 0);
		buf_put(b);
		at = start + len;
	}
	assert_int_equal(store_replace_commit(r, (struct obj_ver){1, n}), 0);
	store_put(d);
	store_put(s);
}

static void t_replace(struct world *w)
{
	struct img m = img_new(300000), old = img_new(1 << 20);
	struct store_replace *r;
	up(w);
	wr(w, &m, OID, 1, 8192, 4096, CREATE);
	wr(w, &m, OID, 2, 100000, 100000, 0);
	wr(w, &m, OID, 3, 299990, 10, 0);
	pull(w, OID, OID2, 300000, 3);
	check(w, &m, OID2, 3);
	again(w);
	check(w, &m, OID2, 3);
	wr(w, &old, OID2, 4, 0, 1 << 20, CREATE);
	wr(w, &old, OID2, 5, 4096, 100, 0);
	pull(w, OID, OID2, 300000, 3); /* an older version replaces, too */
	check(w, &m, OID2, 3);
	wr(w, &m, OID2, 4, 0, 4096, DURABLE);
	check(w, &m, OID2, 4);
	again(w);
	check(w, &m, OID2, 4);
	/* given up: nothing has changed, nothing is left */
	struct store_obj *o = store_get(w->st, OID2, true);
	assert_int_equal(store_replace_begin(o, 4096, 3, &r), 0);
	assert_true(exists(w, "obj/0000123400000008.tmp"));
	store_replace_abort(r);
	assert_false(exists(w, "obj/0000123400000008.tmp"));
	store_put(o);
	check(w, &m, OID2, 4);
	put_file(w, "obj/0000123400000008.tmp", "x", 1);
	again(w);
	assert_false(exists(w, "obj/0000123400000008.tmp"));
	down(w);
	free(m.p);
	free(old.p);
}

static void t_stale(struct world *w)
{
	struct img m = img_new(100000);
	struct obj_info i;
	up(w);
	wr(w, &m, OID, 1, 0, 5000, CREATE);
	struct store_obj *o = store_get(w->st, OID, true);
	assert_int_equal(store_stale(o, 12), 0);
	assert_int_equal(store_stale(o, 12), -ENOENT);
	store_put(o);
	assert_false(store_lookup(w->st, OID, &i));
	assert_true(exists(w, "obj/.stale/0000123400000007.12"));
	wr(w, &m, OID, 2, 0, 100, CREATE);
	again(w);
	check(w, &m, OID, 2);
	assert_true(exists(w, "obj/.stale/0000123400000007.12"));
	assert_int_equal(store_purge_stale(w->st), 0);
	assert_false(exists(w, "obj/.stale/0000123400000007.12"));
	check(w, &m, OID, 2);
	/* format: objects go, who we are stays */
	struct store_ident id = *store_ident(w->st);
	put_file(w, "sync", "other modules' file", 19);
	assert_int_equal(store_format(w->st), 0);
	assert_int_equal(store_nr_objects(w->st), 0);
	assert_false(exists(w, "obj/0000123400000007"));
	assert_true(exists(w, "sync"));
	wr(w, &m, OID, 1, 0, 100, CREATE);
	again(w);
	check(w, &m, OID, 1);
	assert_memory_equal(store_ident(w->st)->uuid, id.uuid, 16);
	assert_int_equal(store_ident(w->st)->start, id.start + 1);
	down(w);
	free(m.p);
}

static void t_torn(struct world *w)
{
	/* a header that says so, as replay leaves it (test_store_crash.c makes real ones) */
	struct img m = img_new(1 << 20);
	struct obj_info i;
	uint8_t p[4096];
	up(w);
	wr(w, &m, OID, 1, 0, 1 << 20, CREATE | DURABLE);
	down(w);
	struct obj_header h = {.magic = OBJ_MAGIC,
			       .format = STORE_FORMAT,
			       .oid = OID,
			       .gen = 1,
			       .seq = 1,
			       .size = 1 << 20,
			       .copies = 3,
			       .torn_blk = 2,
			       .torn_nr = 3};
	h.sum = crc32c(&h, sizeof(h));
	char path[160];
	snprintf(path, sizeof(path), "%s/obj/0000123400000007", w->dir);
	int fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, &h, sizeof(h), (off_t)size_file(1 << 20) - 512), 512);
	close(fd);
	flip(w, "obj/0000123400000007", 3 * 4096 + 5);
	flip(w, "obj/0000123400000007", 9 * 4096 + 5);
	up(w);
	assert_true(store_lookup(w->st, OID, &i));
	assert_true(i.torn);
	assert_int_equal(rd(w, OID, 3 * 4096, 4096, p, NULL), -EILSEQ);
	struct store_obj *o = store_get(w->st, OID, true);
	assert_int_equal(store_settle(o, (struct obj_ver){2, 1}), 0);
	store_put(o);
	for (unsigned k = 0; k < 2; k++) {
		assert_true(store_lookup(w->st, OID, &i));
		assert_false(i.torn);
		assert_int_equal(i.ver.gen, 2);
		assert_int_equal(rd(w, OID, 3 * 4096, 4096, p, NULL), 0);
		assert_int_equal(p[5], m.p[3 * 4096 + 5] ^ 0x40);
		assert_int_equal(rd(w, OID, 9 * 4096, 4096, p, NULL), -EILSEQ); /* not torn: rot */
		again(w);
	}
	down(w);
	free(m.p);
}

static void t_journal_moves(struct world *w)
{
	char other[96], path[160];
	struct img m = img_new(1 << 20);
	snprintf(other, sizeof(other), "%s/j", w->base);
	assert_int_equal(mkdir(other, 0755), 0);
	up(w);
	wr(w, &m, OID, 1, 0, 4096, CREATE | DURABLE);
	down(w);
	w->conf.journal_dir = other; /* into another directory */
	w->conf.journal_size = 2 << 20;
	up(w);
	assert_false(exists(w, "journal"));
	check(w, &m, OID, 1);
	wr(w, &m, OID, 2, 4096, 4096, DURABLE);
	down(w);
	w->conf.journal_size = 3 << 20; /* another size */
	up(w);
	check(w, &m, OID, 2);
	down(w);
	struct stat sb;
	snprintf(path, sizeof(path), "%s/journal", other);
	assert_int_equal(stat(path, &sb), 0);
	assert_int_equal(sb.st_size, 3 << 20);
	w->conf.journal_dir = NULL;
	assert_int_equal(try_open(w), -EILSEQ);
	assert_non_null(strstr(w->err, "-j size=SIZE,dir=DIR"));
	w->conf.journal_skip = true;
	up(w);
	check(w, &m, OID, 2);
	down(w);
	w->conf.journal_skip = false;
	w->conf.journal_dir = other; /* the one left behind is not ours any more */
	assert_int_equal(try_open(w), -EILSEQ);
	w->conf.journal_dir = NULL;
	up(w);
	check(w, &m, OID, 2);
	down(w);
	free(m.p);
}

static void t_room(struct world *w)
{
	uint64_t total, avail;
	struct statvfs v;
	/* a file system that nobody else uses or frees meanwhile */
	assert_int_equal(mkdir(w->dir, 0755), 0);
	bool own = mount("none", w->dir, "tmpfs", 0, "size=256m") == 0;
	up(w);
	store_space(w->st, &total, &avail);
	assert_int_equal(statvfs(w->dir, &v), 0);
	assert_true(avail <= total && avail > 0);
	assert_true(store_has_room(w->st, 1 << 20));
	assert_false(store_has_room(w->st, 1ull << 60));
	down(w);
	w->conf.reserve = (uint64_t)v.f_bavail * v.f_frsize - (64u << 20);
	up(w);
	assert_true(store_has_room(w->st, 1 << 20));
	assert_false(store_has_room(w->st, 1u << 30));
	/* what is queued counts before the disk knows */
	struct img m = img_new(48 << 20);
	wr(w, &m, OID, 1, 0, 48 << 20, CREATE);
	assert_false(store_has_room(w->st, 32 << 20));
	down(w);
	w->conf.reserve = 1ull << 60;
	up(w);
	assert_false(store_has_room(w->st, 1));
	/* repair and removal may use what clients may not */
	wr(w, &m, OID, 2, 0, 4096, DURABLE);
	assert_int_equal(rm(w, OID, 3, true), 0);
	down(w);
	if (own)
		assert_int_equal(umount(w->dir), 0);
	free(m.p);
}

static void t_modes(struct world *w)
{
	struct img m = img_new(4 << 20);
	char base[96];
	memcpy(base, w->dir, sizeof(base));
	w->conf.nosync = true;
	snprintf(w->dir, sizeof(w->dir), "%.80s-n", base);
	t_model_size(w, 1 << 20, 60);
	w->conf.nosync = false;
	w->conf.directio = true;
	snprintf(w->dir, sizeof(w->dir), "%.80s-d", base);
	t_model_size(w, 4 << 20, 60);
	w->conf.gateway = true;
	snprintf(w->dir, sizeof(w->dir), "%.80s-g", base);
	up(w);
	struct obj_info i;
	assert_false(store_lookup(w->st, OID, &i));
	assert_int_equal(store_flush(w->st), 0);
	assert_int_equal(store_format(w->st), 0);
	assert_false(exists(w, "journal"));
	assert_int_equal(store_ident(w->st)->space, 0);
	again(w);
	assert_int_equal(store_ident(w->st)->start, 2);
	down(w);
	w->conf.gateway = false; /* from now on it stores */
	up(w);
	assert_true(store_ident(w->st)->space > 0);
	wr(w, &m, OID, 1, 0, 4096, CREATE);
	again(w);
	check(w, &m, OID, 1);
	down(w);
	free(m.p);
}

/* Objects that are gone are not objects that never were. */
static void t_obj_gone(struct world *w)
{
	char from[160], to[160];
	struct img m = img_new(8192);
	up(w);
	wr(w, &m, OID, 1, 0, 4096, CREATE);
	down(w);
	snprintf(from, sizeof(from), "%s/obj", w->dir);
	snprintf(to, sizeof(to), "%s/elsewhere", w->dir);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(try_open(w), -ENOENT);
	assert_non_null(strstr(w->err, "mounted"));
	assert_int_equal(rename(to, from), 0);
	up(w);
	check(w, &m, OID, 1);
	down(w);
	free(m.p);
}

/* What needs room: blocks never written to. */
static void t_allocates(struct world *w)
{
	struct img m = img_new(8 << 20);

	up(w);
	wr(w, &m, OID, 1, 1 << 20, 6000, CREATE | DURABLE);
	wr(w, &m, OID, 2, 4 << 20, 128 << 10, DURABLE); /* in place */
	for (unsigned again_ = 0; again_ < 2; again_++) {
		struct store_obj *o = store_get(w->st, OID, false);
		assert_false(store_allocates(o, 1 << 20, 6000));
		assert_false(store_allocates(o, (1 << 20) + 7000, 100)); /* the rest of its block */
		assert_true(store_allocates(o, (1 << 20) + 4096, 4097));
		assert_true(store_allocates(o, (1 << 20) - 1, 2));
		assert_true(store_allocates(o, 0, 8 << 20));
		assert_false(store_allocates(o, 4 << 20, 128 << 10));
		assert_true(store_allocates(o, 4 << 20, (128 << 10) + 1));
		assert_false(store_allocates(o, 0, 0));
		assert_false(store_allocates(o, 8 << 20, 4096)); /* behind the end */
		store_put(o);
		o = store_get(w->st, OID + 1, false);
		assert_false(store_allocates(o, 0, 4096)); /* absent */
		store_put(o);
		again(w); /* from the file */
	}
	down(w);
	free(m.p);
}

/* A promise counts, until the disk is looked at. */
static void t_promise(struct world *w)
{
	struct statvfs v;

	assert_int_equal(mkdir(w->dir, 0755), 0);
	assert_int_equal(statvfs(w->dir, &v), 0);
	w->conf.reserve = (uint64_t)v.f_bavail * v.f_frsize - (256u << 20);
	up(w);
	assert_true(store_take_room(w->st, 100 << 20));
	assert_false(store_has_room(w->st, 180 << 20));
	assert_false(store_take_room(w->st, 180 << 20));
	assert_true(store_take_room(w->st, 10 << 20)); /* what was refused took nothing */
	for (unsigned i = 0; !store_has_room(w->st, 180 << 20); i++) {
		assert_true(i < 100);
		co_sleep(50000000);
	}
	down(w);
}

/* A disk that really fills up. */
static void t_full(struct world *w)
{
	uint64_t n = 0, oid = OID, reserve_at = 0;
	int r = 0;
	assert_int_equal(mkdir(w->dir, 0755), 0);
	if (mount("none", w->dir, "tmpfs", 0, "size=48m") < 0) {
		print_message("skipped: cannot mount a tmpfs here\n");
		return;
	}
	/* far from the floor: the estimate is rough while it is being made */
	w->conf.reserve = 16 << 20;
	up(w);
	for (; r == 0 && n < 200; n++) {
		if (!reserve_at && !store_has_room(w->st, 1 << 20))
			reserve_at = n;
		r = wr_at(w, oid + n, 1, 0, 1 << 20, CREATE, 1 << 20, 0);
	}
	assert_int_equal(r, -ENOSPC);
	assert_false(store_failed(w->st));
	assert_true(reserve_at >= 15 && reserve_at < n); /* the reserve is what is left then */
	assert_true(n - reserve_at >= 2);
	assert_int_equal(store_flush(w->st), 0);
	assert_int_equal(wr_at(w, oid + 21, 2, 0, 8192, 0, 0, 0), 0); /* needs no room */
	for (unsigned k = 0; k < 22; k++)
		assert_int_equal(rm(w, oid + k, 3, true), 0);
	settle(w);
	while (!store_has_room(w->st, 1 << 20)) /* the next look at the disk */
		co_sleep(50000000);
	assert_int_equal(wr_at(w, oid, 3, 0, 1 << 20, CREATE, 1 << 20, 0), 0);
	again(w);
	assert_int_equal(store_nr_objects(w->st), n - 1 - 22 + 1);
	down(w);
	assert_int_equal(umount(w->dir), 0);
}

/* ---- many at once ---- */

struct many {
	struct world *w;
	struct co_group g;
	unsigned id, nr;
	int err;
};

static void writer(void *arg)
{
	struct many *m = arg;
	struct world *w = m->w;
	uint64_t oid = OID + m->id % 5;
	for (unsigned k = 0; k < m->nr && m->err == 0; k++) {
		uint64_t blk = (m->id * 131 + k * 17) % 200;
		uint64_t len = (m->id + k) % 11 == 0 ? 80 * 1024 : 4096;
		struct twrite t;
		struct store_obj *o = store_get(w->st, oid, true);
		struct obj_info i;
		bool there = store_lookup(w->st, oid, &i);
		tw_init(&t, w->pool, i.ver.seq + 1, blk * 4096, len, 0);
		t.w.create = !there;
		t.w.size = 1 << 20;
		t.w.copies = 3;
		t.w.durable = k & 1;
		int r = store_prepare(o, &t.w);
		if (r == 0)
			r = store_queue(o, &t.w);
		store_put(o);
		if (r == 0)
			r = store_wait(w->st, &t.w);
		tw_done(&t);
		m->err = r;
	}
}

/* Readers see whole writes: every block is one writer's. */
static void reader(void *arg)
{
	struct many *m = arg;
	uint8_t *p = malloc(1 << 20);
	for (unsigned k = 0; k < m->nr && m->err == 0; k++) {
		m->err = rd(m->w, OID + k % 5, 0, 1 << 20, p, NULL);
		if (m->err == -ENOENT)
			m->err = 0;
		co_yield ();
	}
	free(p);
}

static void t_many(struct world *w)
{
	enum { N = 24 };
	struct many m[N];
	struct co_group g;
	up(w);
	co_group_init(&g);
	for (unsigned i = 0; i < N; i++) {
		m[i] = (struct many){.w = w, .id = i, .nr = 150};
		assert_int_equal(
			co_group_start(w->s, &g, i % 8 == 7 ? reader : writer, &m[i], "many"), 0);
	}
	co_group_wait(&g);
	uint64_t sum[2] = {0, 0};
	uint8_t *p = malloc(1 << 20);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(m[i].err, 0);
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned i = 0; i < 5; i++) {
			assert_int_equal(rd(w, OID + i, 0, 1 << 20, p, NULL), 0);
			sum[k] = crc32c_more((uint32_t)sum[k], p, 1 << 20);
		}
		again(w);
	}
	assert_true(sum[0] == sum[1]);
	down(w);
	free(p);
}

/* More than the journal holds, in journalled writes, removals, many objects. */
static void t_wrap(struct world *w)
{
	struct img m = img_new(1 << 20);
	w->conf.journal_size = 1 << 20;
	up(w);
	for (unsigned i = 1; i <= 1200; i++)
		wr(w, &m, OID, i, (i * 7 % 256) * 4096, 4096, (i == 1 ? CREATE : 0) | (i & 2));
	check(w, &m, OID, 1200);
	struct img s = img_new(4096);
	for (unsigned i = 1; i <= 700; i++) {
		wr(w, &s, OID2 + i, i, 0, 100, CREATE);
		if (i % 2)
			assert_int_equal(rm(w, OID2 + i, i + 1, true), 0);
	}
	again(w);
	check(w, &m, OID, 1200);
	assert_int_equal(store_nr_objects(w->st), 351);
	assert_int_equal(wr_at(w, OID2, 1, 0, 1u << 30, CREATE, 1u << 30, 0), -EFBIG);
	down(w);
	free(m.p);
	free(s.p);
}

static void t_huge(struct world *w)
{
	uint64_t size = 1ull << 31, start, len;
	uint8_t p[8192];
	struct img m = {.size = size};
	up(w);
	assert_int_equal(wr_at(w, OID, 1, size - 4096, 4096, CREATE, size, 0), 0);
	assert_int_equal(wr_at(w, OID, 2, 1u << 30, 300000, DURABLE, 0, 0), 0);
	settle(w);
	again(w);
	assert_int_equal(rd(w, OID, size - 8192, 8192, p, NULL), 0);
	assert_int_equal(p[0], 0);
	assert_int_equal(p[4096 + 9], pat(1, size - 4096 + 9));
	struct store_obj *o = store_get(w->st, OID, false);
	assert_true(store_next_data(o, 0, &start, &len));
	assert_true(start == 1u << 30 && len == ROUND_UP(300000, 4096));
	assert_true(store_next_data(o, start + len, &start, &len));
	assert_true(start == size - 4096 && len == 4096);
	assert_false(store_next_data(o, start + len, &start, &len));
	store_put(o);
	assert_int_equal(m.size, size);
	down(w);
}

#define TEST(name)                                                                                 \
	static void name(void **state)                                                             \
	{                                                                                          \
		everywhere(t_##name);                                                              \
	}
TEST(ident)
TEST(lock)
TEST(foreign)
TEST(model)
TEST(index_)
TEST(absent)
TEST(remove_)
TEST(eilseq)
TEST(replace)
TEST(stale)
TEST(torn)
TEST(journal_moves)
TEST(room)
TEST(modes)
TEST(many)
TEST(wrap)
TEST(huge)
TEST(obj_gone)
TEST(full)
TEST(allocates)
TEST(promise)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ident),   cmocka_unit_test(lock),
		cmocka_unit_test(foreign), cmocka_unit_test(model),
		cmocka_unit_test(index_),  cmocka_unit_test(absent),
		cmocka_unit_test(remove_), cmocka_unit_test(eilseq),
		cmocka_unit_test(replace), cmocka_unit_test(stale),
		cmocka_unit_test(torn),	   cmocka_unit_test(journal_moves),
		cmocka_unit_test(room),	   cmocka_unit_test(modes),
		cmocka_unit_test(many),	   cmocka_unit_test(wrap),
		cmocka_unit_test(huge),	   cmocka_unit_test(obj_gone),
		cmocka_unit_test(full),	   cmocka_unit_test(allocates),
		cmocka_unit_test(promise),
	};
	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
