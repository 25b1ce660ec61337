/* sync_file.c - the file `sync` of the store directory: what was in sync when, durable.
 *
 * A snapshot (one checksum over all of it), written beside the old file and renamed over it with
 * each view, and behind it marks appended since, each with a checksum of its own.
 *  F1 A batch of marks begins where the last whole one ended, and is waited for before the next:
 * what follows a mark whose checksum is wrong was never counted. F2 A snapshot that is there but
 * wrong is an error, never taken for "nothing was in sync": an older synced than the truth would
 * let an older copy win (WHY B1h mark-volatile).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc.h"
#include "sheep/sync_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

#define FILE_NAME     "sync"
#define FILE_NEW      "sync.new"
#define FILE_MAGIC    0x636e7973u
#define FILE_VERSION  2u
#define REC_MAGIC     0x6b72616du
#define FILE_SIZE_MAX (1ull << 30)
#define IO_MAX	      (1u << 20)

enum file_flag { FILE_BRANCH = 1, FILE_KEEP_STALE = 2 };

struct file_head {
	uint32_t magic, version;
	uint64_t len; /* of the snapshot, this included */
	uint32_t epoch, flags;
	uint8_t name[8];
	uint32_t nr_segs, nr_marks;
	uint32_t crc;  /* of the snapshot with crc 0 */
	uint32_t lost; /* Y7 */
	uint8_t boot[16];
};
_Static_assert(sizeof(struct file_head) == 64, "disk format");

/* An arc: its end, then nr_steps of them: from this number of copies on, this epoch. */
struct file_seg {
	uint64_t end;
	uint32_t nr_steps, pad;
};
struct file_step {
	uint32_t copies, epoch;
};
struct file_mark {
	uint64_t oid;
	uint32_t epoch, copies;
};
struct file_rec {
	uint32_t magic, crc; /* crc: of what follows it */
	uint32_t epoch;
	uint8_t type, clo, chi, pad;
	uint64_t from, to; /* MARK_OBJECT: from is the oid */
};
_Static_assert(sizeof(struct file_rec) == 32, "disk format");

/* ---- encode ---- */

static unsigned seg_steps(const struct sync_seg *seg, struct file_step *steps)
{
	unsigned nr = 0;

	for (unsigned c = 1; c <= SD_COPIES_MAX; c++)
		if (c == 1 || seg->s[c - 1] != seg->s[c - 2])
			steps[nr++] = (struct file_step){c, seg->s[c - 1]};
	return nr;
}

static uint8_t *put(uint8_t *p, const void *src, size_t len)
{
	memcpy(p, src, len);
	return p + len;
}

/* Not in the arcs' own numbers already. */
static bool mark_counts(const struct sync_map *map, const struct sync_mark *m)
{
	unsigned i = smap_find(map, sd_hash_oid(m->oid));

	return m->epoch > map->seg[i].s[m->copies - 1];
}

static uint8_t *encode(struct sync *s, uint32_t epoch, const uint8_t name[8],
		       const struct sync_map *map, const struct map *marks, size_t *len)
{
	struct file_head h = {.magic = FILE_MAGIC, .version = FILE_VERSION, .epoch = epoch};
	struct file_step steps[SD_COPIES_MAX];
	const struct sync_mark *m;
	size_t pos = 0;

	memcpy(h.name, name, sizeof(h.name));
	memcpy(h.boot, s->boot, sizeof(h.boot));
	h.lost = s->lost;
	h.flags = (s->branch ? FILE_BRANCH : 0) | (s->keep_stale ? FILE_KEEP_STALE : 0);
	h.nr_segs = map->nr;
	h.len = sizeof(h) + marks->nr * sizeof(struct file_mark);
	for (unsigned i = 0; i < map->nr; i++)
		h.len += sizeof(struct file_seg) +
			 seg_steps(&map->seg[i], steps) * sizeof(struct file_step);
	if (h.len > FILE_SIZE_MAX)
		return NULL;
	uint8_t *buf = calloc(1, h.len), *p = buf + sizeof(h);
	if (!buf)
		return NULL;
	for (unsigned i = 0; i < map->nr; i++) {
		struct file_seg seg = {.end = map->end[i]};
		seg.nr_steps = seg_steps(&map->seg[i], steps);
		p = put(p, &seg, sizeof(seg));
		p = put(p, steps, seg.nr_steps * sizeof(*steps));
	}
	while ((m = map_next(marks, &pos, NULL))) {
		struct file_mark fm = {m->oid, m->epoch, m->copies};
		if (!mark_counts(map, m))
			continue;
		p = put(p, &fm, sizeof(fm));
		h.nr_marks++;
	}
	h.len = (uint64_t)(p - buf);
	memcpy(buf, &h, sizeof(h));
	h.crc = crc32c(buf, h.len);
	memcpy(buf, &h, sizeof(h));
	*len = h.len;
	return buf;
}

/* ---- I/O ---- */

static int64_t file_rw(struct sync *s, enum env_io_op op, struct env_file *f, void *buf, size_t len,
		       uint64_t off, unsigned flags)
{
	size_t done = 0;

	while (done < len) {
		size_t n = len - done < IO_MAX ? len - done : IO_MAX;
		struct iovec iov = {(uint8_t *)buf + done, n};
		struct env_io io = {.op = op, .file = f, .iov = &iov, .iovcnt = 1};
		io.off = off + done;
		io.flags = flags;
		int64_t r = co_io(s->sh->sched, &io); /* ~ */
		if (r < 0)
			return r;
		if ((size_t)r < n && MARKED(syncf_short))
			return -EIO;
		done += n;
	}
	return 0;
}

static bool nosync(const struct sync *s)
{
	return s->sh->conf->store.nosync;
}

static int file_sync(struct sync *s, enum env_io_op op, struct env_file *f)
{
	struct env_io io = {.op = op, .file = f};

	return nosync(s) ? 0 : (int)co_io(s->sh->sched, &io); /* ~ */
}

static int file_open(struct sync *s, const char *name, int flags, struct env_file **ret)
{
	struct env_io io = {
		.op = ENV_IO_OPEN, .file = store_dir(s->sh->store), .name = name, .mode = 0640};

	io.flags = (unsigned)flags;
	int64_t r = co_io(s->sh->sched, &io); /* ~ */
	if (r < 0)
		return (int)r;
	*ret = io.result_file;
	return 0;
}

static void file_close(struct sync *s, struct env_file *f)
{
	struct env_io io = {.op = ENV_IO_CLOSE, .file = f};

	if (f)
		co_io(s->sh->sched, &io); /* ~ */
}

void sync_file_close(struct sync *s)
{
	file_close(s, TAKE(s->file, NULL)); /* ~ */
}

static int file_replace(struct sync *s, void *buf, size_t len, struct env_file **ret)
{
	struct env_file *dir = store_dir(s->sh->store), *f;
	struct env_io mv = {.op = ENV_IO_RENAME, .file = dir, .name = FILE_NEW, .name2 = FILE_NAME};
	int r = file_open(s, FILE_NEW, O_RDWR | O_CREAT | O_TRUNC, &f); /* ~ */

	if (r < 0)
		return r;
	r = (int)file_rw(s, ENV_IO_WRITE, f, buf, len, 0, 0); /* ~ */
	if (r == 0)
		r = file_sync(s, ENV_IO_FSYNC, f); /* ~ */
	if (r == 0)
		r = (int)co_io(s->sh->sched, &mv); /* ~ */
	if (r == 0)
		r = file_sync(s, ENV_IO_FSYNC, dir); /* ~ */
	if (r < 0) {
		file_close(s, f); /* ~ */
		return r;
	}
	*ret = f;
	return 0;
}

int sync_file_write(struct sync *s, uint32_t epoch, const uint8_t name[8],
		    const struct sync_map *map, const struct map *marks)
{
	struct env_file *f = NULL;
	size_t len;
	uint8_t *buf = encode(s, epoch, name, map, marks, &len);

	if (!buf)
		return -ENOMEM;
	int r = file_replace(s, buf, len, &f); /* ~ */
	free(buf);
	if (r < 0)
		MARK(syncf_write_io);
	/* On an error too: it may have lost its name, and what is appended to it would be lost. */
	sync_file_close(s); /* ~ */
	if (r < 0)
		return r;
	s->file = f;
	s->file_size = len;
	s->nr_appended = 0;
	return 0;
}

static struct file_rec rec_encode(const struct mark_rec *m)
{
	struct file_rec r = {.magic = REC_MAGIC, .epoch = m->epoch, .type = m->type};

	r.clo = m->box.clo;
	r.chi = m->box.chi;
	r.from = m->type == MARK_OBJECT ? m->oid : m->box.from;
	r.to = m->box.to;
	r.crc = crc32c(&r.epoch, sizeof(r) - offsetof(struct file_rec, epoch));
	return r;
}

int sync_file_append(struct sync *s, const struct mark_rec *rec, unsigned nr)
{
	struct file_rec *buf = malloc(nr * sizeof(*buf));

	if (PLANTED(mark_volatile))
		nr = 0;
	if (!buf)
		return -ENOMEM;
	for (unsigned i = 0; i < nr; i++)
		buf[i] = rec_encode(&rec[i]);
	int r = (int)file_rw(s, ENV_IO_WRITE, s->file, buf, nr * sizeof(*buf), s->file_size,
			     nosync(s) ? 0 : ENV_IO_DSYNC); /* ~ */
	free(buf);
	if (r == 0) {
		s->file_size += nr * sizeof(*buf);
		s->nr_appended += nr;
	}
	return r;
}

/* ---- load ---- */

struct cursor {
	const uint8_t *p, *end;
};

static bool take(struct cursor *c, void *dst, size_t len)
{
	if ((size_t)(c->end - c->p) < len)
		return false;
	memcpy(dst, c->p, len);
	c->p += len;
	return true;
}

static int load_seg(struct sync *s, struct cursor *c)
{
	struct sync_seg seg = {.rank = RANK_NONE};
	struct file_seg fs;
	struct file_step st;

	if (!take(c, &fs, sizeof(fs)) || (s->map.nr && fs.end <= s->map.end[s->map.nr - 1]))
		return -EUCLEAN;
	for (unsigned i = 0; i < fs.nr_steps; i++) {
		if (!take(c, &st, sizeof(st)) || st.copies < 1 || st.copies > SD_COPIES_MAX)
			return -EUCLEAN;
		for (unsigned k = st.copies; k <= SD_COPIES_MAX; k++)
			seg.s[k - 1] = st.epoch;
	}
	return smap_push(&s->map, fs.end, &seg);
}

static int load_mark(struct sync *s, struct cursor *c)
{
	struct file_mark fm;

	if (!take(c, &fm, sizeof(fm)) || fm.copies < 1 || fm.copies > SD_COPIES_MAX)
		return -EUCLEAN;
	struct mark_rec rec = {.type = MARK_OBJECT, .oid = fm.oid, .epoch = fm.epoch};
	rec.box.clo = rec.box.chi = (uint8_t)fm.copies;
	sync_apply(s, &rec);
	return 0;
}

static int load_snapshot(struct sync *s, struct cursor *c, uint8_t *buf, size_t size)
{
	struct file_head h;
	int r = 0;

	if (size < sizeof(h))
		return -EUCLEAN;
	memcpy(&h, buf, sizeof(h));
	uint32_t crc = h.crc;
	h.crc = 0;
	memcpy(buf, &h, sizeof(h));
	if (h.magic != FILE_MAGIC || h.version != FILE_VERSION || h.len < sizeof(h) ||
	    h.len > size || crc32c(buf, h.len) != crc)
		return -EUCLEAN;
	*c = (struct cursor){buf + sizeof(h), buf + h.len};
	smap_done(&s->map);
	for (uint32_t i = 0; i < h.nr_segs && r == 0; i++)
		r = load_seg(s, c);
	if (r == 0 && (!s->map.nr || s->map.end[s->map.nr - 1] != UINT64_MAX))
		r = -EUCLEAN;
	for (uint32_t i = 0; i < h.nr_marks && r == 0; i++)
		r = load_mark(s, c);
	s->map_epoch = h.epoch;
	memcpy(s->map_name, h.name, sizeof(s->map_name));
	memcpy(s->boot, h.boot, sizeof(s->boot));
	s->lost = h.lost;
	s->branch = h.flags & FILE_BRANCH;
	s->keep_stale = h.flags & FILE_KEEP_STALE;
	c->end = buf + size;
	return r;
}

/* F1: up to the first one that is not whole. */
static void load_records(struct sync *s, struct cursor *c)
{
	struct file_rec r;

	while (take(c, &r, sizeof(r))) {
		struct mark_rec rec = {.epoch = r.epoch};

		if (r.magic != REC_MAGIC || r.clo < 1 || r.clo > r.chi || r.chi > SD_COPIES_MAX ||
		    r.crc != crc32c(&r.epoch, sizeof(r) - offsetof(struct file_rec, epoch))) {
			MARK(syncf_cut);
			return;
		}
		rec.type = r.type == MARK_OBJECT ? MARK_OBJECT : MARK_BOX;
		rec.oid = r.from;
		rec.box = (struct sync_box){r.from, r.to, r.clo, r.chi};
		sync_apply(s, &rec);
	}
}

int sync_file_load(struct sync *s)
{
	struct env_io st = {.op = ENV_IO_STAT};
	struct env_file *f;
	struct cursor c;
	uint8_t *buf;
	int r = file_open(s, FILE_NAME, O_RDWR, &f); /* ~ */

	if (r == -ENOENT)
		return 0; /* a new store */
	if (r < 0)
		return r;
	st.file = f;
	r = (int)co_io(s->sh->sched, &st); /* ~ */
	if (r == 0 && st.stat_size > FILE_SIZE_MAX)
		r = -EUCLEAN;
	buf = r < 0 ? NULL : malloc(st.stat_size + 1);
	if (r == 0 && !buf)
		r = -ENOMEM;
	if (r == 0)
		r = (int)file_rw(s, ENV_IO_READ, f, buf, st.stat_size, 0, 0); /* ~ */
	if (r == 0)
		r = load_snapshot(s, &c, buf, st.stat_size);
	if (r == 0)
		load_records(s, &c);
	free(buf);
	file_close(s, f); /* ~ */
	if (r == -EUCLEAN && MARKED(syncf_damaged))
		log_err(s->sh->log, "the file `sync` of the store is damaged: this node cannot say "
				    "what it had in sync (remove the store to join as a new node)");
	return r;
}
