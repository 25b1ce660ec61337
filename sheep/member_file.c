/* member_file.c - the state of the cluster on this node's disk: see member_int.h (E1, E2). */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/crc.h"
#include "lib/base/util.h"
#include "sheep/member_int.h"
#include "sheep/mark.h"

#define SNAP_MAGIC  0x50414e5350454853ull /* "SHEPSNAP" */
#define SNAP_HEADER 32u
#define GROUP_MAGIC 0x50524753u
#define GROUP_HEAD  24u
#define GROUP_ALIGN 8u

/* ---- files ---- */

static int64_t es_io(struct epoch_store *es, struct env_io *io)
{
	int64_t r = co_io(es->sched, io); /* ~ */

	return r;
}

static int es_open_file(struct epoch_store *es, struct env_file *dir, const char *name, int flags,
			struct env_file **ret)
{
	struct env_io io = {.op = ENV_IO_OPEN,
			    .file = dir,
			    .name = name,
			    .flags = (unsigned)(flags | O_CLOEXEC),
			    .mode = 0600};
	int r = (int)es_io(es, &io); /* ~ */

	*ret = r < 0 ? NULL : io.result_file;
	return r < 0 ? r : 0;
}

static int es_close_file(struct epoch_store *es, struct env_file *f)
{
	struct env_io io = {.op = ENV_IO_CLOSE, .file = f};

	return f ? (int)es_io(es, &io) : 0; /* ~ */
}

static int es_fsync(struct epoch_store *es, struct env_file *f)
{
	struct env_io io = {.op = ENV_IO_FSYNC, .file = f};
	int r = (int)es_io(es, &io); /* ~ */

	return r < 0 ? r : 0;
}

static int es_write(struct epoch_store *es, struct env_file *f, const void *p, size_t len,
		    uint64_t off, unsigned flags)
{
	struct iovec iov = {(void *)p, len};
	struct env_io io = {.op = ENV_IO_WRITE,
			    .file = f,
			    .iov = &iov,
			    .iovcnt = 1,
			    .off = off,
			    .flags = flags};
	int64_t r = es_io(es, &io); /* ~ */

	return r < 0 ? (int)r : (size_t)r == len ? 0 : -EIO;
}

static void es_unlink(struct epoch_store *es, const char *name)
{
	struct env_io io = {.op = ENV_IO_UNLINK, .file = es->dir, .name = name};

	es_io(es, &io); /* ~ what is left over is harmless */
}

/* The whole file, malloc'ed. */
static int es_read_all(struct epoch_store *es, const char *name, uint8_t **ret, size_t *len)
{
	struct env_file *f;
	int r = es_open_file(es, es->dir, name, O_RDONLY, &f); /* ~ */

	*ret = NULL;
	*len = 0;
	if (r < 0)
		return r;
	struct env_io st = {.op = ENV_IO_STAT, .file = f};
	r = (int)es_io(es, &st); /* ~ */
	if (r >= 0 && st.stat_size > CLUSTER_STATE_MAX)
		r = -EFBIG;
	if (r >= 0) {
		*ret = malloc(st.stat_size + 1);
		r = *ret ? 0 : -ENOMEM;
	}
	while (r == 0 && *len < st.stat_size) {
		struct iovec iov = {*ret + *len, st.stat_size - *len};
		struct env_io io = {
			.op = ENV_IO_READ, .file = f, .iov = &iov, .iovcnt = 1, .off = *len};
		int64_t n = es_io(es, &io); /* ~ */
		if (n < 0)
			r = (int)n;
		if (n <= 0)
			break;
		*len += (size_t)n;
	}
	es_close_file(es, f); /* ~ */
	if (r < 0) {
		free(*ret);
		*ret = NULL;
	}
	return r;
}

static void log_name(uint64_t nr, char buf[32])
{
	snprintf(buf, 32, "log.%" PRIu64, nr);
}

/* ---- records ---- */

void es_rec_view(struct enc *e, const struct incarnation *present, unsigned nr, unsigned nr_silent)
{
	enc_u8(e, REC_VIEW);
	enc_u32(e, nr);
	enc_u32(e, nr_silent);
	for (unsigned i = 0; i < nr + nr_silent; i++)
		enc_inc(e, &present[i]);
}

/* Of a state in transfer only the fact is kept. */
static size_t logged_len(const void *msg, size_t len)
{
	struct dec d = {.p = msg, .end = (const uint8_t *)msg + len};
	struct msg_head h;

	if (msg_decode(&d, &h) && h.version == CLUSTER_MSG_VERSION && h.type == CMD_STATE)
		return CLUSTER_MSG_HEADER + CLUSTER_STATE_HEADER;
	return len;
}

void es_rec_message(struct enc *e, const struct incarnation *from, const void *msg, size_t len)
{
	len = logged_len(msg, len);
	enc_u8(e, REC_MSG);
	enc_inc(e, from);
	enc_u32(e, (uint32_t)len);
	enc_bytes(e, msg, len);
}

void es_rec_flags(struct enc *e, unsigned flags)
{
	enc_u8(e, REC_FLAGS);
	enc_u8(e, (uint8_t)flags);
}

static int replay_view(struct dec *d, struct cs *s, struct cs_out *out)
{
	uint32_t nr = dec_u32(d);
	uint32_t silent = dec_u32(d);

	if (d->failed || nr > CLUSTER_LOBBY_MAX || silent > CLUSTER_LOBBY_MAX)
		return -EBADMSG;
	struct incarnation *present = calloc(nr + silent + 1, sizeof(*present));
	if (!present)
		return -ENOMEM;
	for (uint32_t i = 0; i < nr + silent; i++)
		dec_inc(d, &present[i]);
	int r = d->failed ? -EBADMSG : cs_view(s, present, nr, present + nr, silent, out);
	free(present);
	return r;
}

static int replay_message(struct dec *d, struct cs *s, struct cs_out *out)
{
	struct incarnation from;
	struct cmd reply;

	dec_inc(d, &from);
	uint32_t len = dec_u32(d);
	if (d->failed || len > dec_left(d))
		return -EBADMSG;
	int r = cs_message(s, &from, d->p, len, &reply, out);
	d->p += len;
	return r;
}

/* Apply the records of one group. */
static int replay_group(const uint8_t *p, size_t len, struct cs *s, unsigned *flags)
{
	struct dec d = {.p = p, .end = p + len};
	int r = 0;

	while (dec_left(&d) && r == 0) {
		struct cs_out out = {0};
		switch (dec_u8(&d)) {
		case REC_VIEW: r = replay_view(&d, s, &out); break;
		case REC_MSG: r = replay_message(&d, s, &out); break;
		case REC_FLAGS: *flags = dec_u8(&d); break;
		default: r = -EBADMSG;
		}
		if (out.format)
			*flags |= ES_WIPE;
		cs_out_done(&out);
	}
	return r;
}

/* ---- the log ---- */

struct group {
	uint64_t index;
	size_t len;
	const uint8_t *data;
};

static bool group_at(const uint8_t *p, size_t left, struct group *g)
{
	struct dec d = {.p = p, .end = p + left};

	uint32_t magic = dec_u32(&d);
	uint32_t len = dec_u32(&d);
	g->index = dec_u64(&d);
	uint32_t crc = dec_u32(&d);
	dec_u32(&d);
	if (d.failed || magic != GROUP_MAGIC || len > dec_left(&d))
		return false;
	g->len = len;
	g->data = d.p;
	return crc32c_more(crc32c(p, 16), d.p, len) == crc;
}

/* A group that is bad must be the last one (E2): a good one behind it means that the disk lost
 * something we had acted on. */
static bool log_is_torn_only(const uint8_t *p, size_t left, uint64_t next)
{
	struct group g;

	for (size_t off = 0; off + GROUP_HEAD <= left; off += GROUP_ALIGN)
		if (group_at(p + off, left - off, &g) && g.index > next)
			return false;
	return true;
}

static int log_replay(const uint8_t *p, size_t len, struct cs *s, unsigned *flags)
{
	size_t off = 0;
	uint64_t next = 0;
	struct group g;

	while (off + GROUP_HEAD <= len && group_at(p + off, len - off, &g) && g.index == next) {
		int r = replay_group(g.data, g.len, s, flags);
		if (r < 0)
			return r;
		off += ROUND_UP(GROUP_HEAD + g.len, GROUP_ALIGN);
		next++;
	}
	if (off < len)
		MARK(es_torn);
	if (off < len && !log_is_torn_only(p + off, len - off, next) && MARKED(es_lost))
		return -EBADMSG;
	return 0;
}

int es_append(struct epoch_store *es, const struct enc *recs)
{
	static const uint8_t zero[GROUP_ALIGN];
	struct enc e = {0};

	if (recs->failed)
		return -ENOMEM;
	enc_u32(&e, GROUP_MAGIC);
	enc_u32(&e, (uint32_t)recs->len);
	enc_u64(&e, es->groups);
	uint32_t crc = e.failed ? 0 : crc32c_more(crc32c(e.p, 16), recs->p, recs->len);
	enc_u32(&e, crc);
	enc_u32(&e, 0);
	enc_bytes(&e, recs->p, recs->len);
	enc_bytes(&e, zero, ROUND_UP(e.len, GROUP_ALIGN) - e.len);
	int r = e.failed ? -ENOMEM
			 : es_write(es, es->log, e.p, e.len, es->log_off, ENV_IO_DSYNC); /* ~ */
	if (r == 0) {
		es->groups++;
		es->log_off += e.len;
	}
	free(e.p);
	return r;
}

/* ---- the snapshot ---- */

static int snap_encode(const struct cs *s, unsigned flags, uint64_t nr, struct enc *e)
{
	struct enc body = {0};

	enc_u8(&body, (uint8_t)flags);
	cs_encode(s, &body);
	enc_u64(e, SNAP_MAGIC);
	enc_u64(e, nr);
	enc_u64(e, body.len);
	uint32_t crc =
		e->failed || body.failed ? 0 : crc32c_more(crc32c(e->p, 24), body.p, body.len);
	enc_u32(e, crc);
	enc_u32(e, 0);
	enc_bytes(e, body.p, body.len);
	bool failed = e->failed || body.failed;
	free(body.p);
	return failed ? -ENOMEM : 0;
}

static int snap_decode(const uint8_t *p, size_t len, uint64_t *nr, struct cs **ret, unsigned *flags)
{
	struct dec d = {.p = p, .end = p + len};

	uint64_t magic = dec_u64(&d);
	*nr = dec_u64(&d);
	uint64_t body = dec_u64(&d);
	uint32_t crc = dec_u32(&d);
	dec_u32(&d);
	if ((d.failed || magic != SNAP_MAGIC || body != dec_left(&d) || !body ||
	     crc32c_more(crc32c(p, 24), d.p, body) != crc) &&
	    MARKED(es_snap_damaged))
		return -EBADMSG;
	*flags = dec_u8(&d);
	return cs_decode(d.p, dec_left(&d), ret);
}

/* Write @e to a file of its own and move it to `snapshot`. */
static int snap_replace(struct epoch_store *es, const struct enc *e)
{
	struct env_file *f;
	int r = es_open_file(es, es->dir, "snapshot.tmp", O_CREAT | O_TRUNC | O_RDWR, &f); /* ~ */

	if (r < 0)
		return r;
	r = es_write(es, f, e->p, e->len, 0, 0); /* ~ */
	if (r == 0)
		r = es_fsync(es, f);  /* ~ */
	int k = es_close_file(es, f); /* ~ */
	if (r == 0 && k < 0)
		r = k;
	if (r < 0)
		return r;
	r = es_fsync(es, es->dir); /* ~ the new log is there before the snapshot names it */
	if (r < 0)
		return r;
	struct env_io mv = {
		.op = ENV_IO_RENAME, .file = es->dir, .name = "snapshot.tmp", .name2 = "snapshot"};
	r = (int)es_io(es, &mv);		  /* ~ */
	return r < 0 ? r : es_fsync(es, es->dir); /* ~ */
}

int es_snapshot(struct epoch_store *es, const struct cs *s, unsigned flags)
{
	struct env_file *log = NULL;
	struct enc e = {0};
	char name[32], old[32];
	int r = snap_encode(s, flags, es->nr + 1, &e);

	log_name(es->nr + 1, name);
	log_name(es->nr, old);
	if (r == 0)
		r = es_open_file(es, es->dir, name, O_CREAT | O_TRUNC | O_RDWR, &log); /* ~ */
	if (r == 0)
		r = es_fsync(es, log); /* ~ */
	if (r == 0)
		r = snap_replace(es, &e); /* ~ */
	es->snap_len = e.len;
	free(e.p);
	if (r < 0 && MARKED(es_snap_io)) {
		es_close_file(es, log); /* ~ */
		return r;
	}
	es_close_file(es, es->log); /* ~ */
	es->log = log;
	es->nr++;
	es->groups = es->log_off = 0;
	es_unlink(es, old); /* ~ */
	return 0;
}

/* ---- opening ---- */

/* Logs of other snapshots: left over by a crash. */
static void drop_old_logs(struct epoch_store *es)
{
	struct env_io io = {.op = ENV_IO_LIST, .file = es->dir};
	char keep[32];

	log_name(es->nr, keep);
	if (es_io(es, &io) < 0) /* ~ */
		return;
	for (char **n = io.names; n && *n; n++) {
		if (!strncmp(*n, "log.", 4) && strcmp(*n, keep) && MARKED(es_old_log))
			es_unlink(es, *n); /* ~ */
		free(*n);
	}
	free(io.names);
}

static int es_load(struct epoch_store *es, struct cs **ret, unsigned *flags)
{
	uint8_t *p;
	size_t len;
	char name[32];
	int r = es_read_all(es, "snapshot", &p, &len); /* ~ */

	if (r == -ENOENT) { /* a new store */
		MARK(es_new);
		*ret = cs_new();
		return *ret ? 0 : -ENOMEM;
	}
	if (r < 0)
		return r;
	r = snap_decode(p, len, &es->nr, ret, flags);
	free(p);
	if (r < 0)
		return r;
	log_name(es->nr, name);
	r = es_read_all(es, name, &p, &len); /* ~ */
	if (r == 0) {
		r = log_replay(p, len, *ret, flags);
		free(p);
	} else if (r == -ENOENT && MARKED(es_log_gone)) {
		r = -EBADMSG;
	}
	if (r < 0) {
		cs_free(*ret);
		*ret = NULL;
	}
	return r;
}

static int es_open_dir(struct epoch_store *es, struct env_file *store)
{
	struct env_io mk = {.op = ENV_IO_MKDIR, .file = store, .name = "epoch", .mode = 0770};
	int r = (int)es_io(es, &mk); /* ~ */

	if (r < 0 && r != -EEXIST)
		return r;
	r = es_fsync(es, store); /* ~ */
	if (r < 0)
		return r;
	return es_open_file(es, store, "epoch", O_RDONLY | O_DIRECTORY, &es->dir); /* ~ */
}

int es_open(struct epoch_store *es, struct co_sched *sched, struct env_file *store, struct cs **ret,
	    unsigned *flags, char **err)
{
	*es = (struct epoch_store){.sched = sched};
	*ret = NULL;
	*flags = 0;
	int r = es_open_dir(es, store); /* ~ */
	if (r == 0)
		r = es_load(es, ret, flags); /* ~ */
	if (r == 0) {
		drop_old_logs(es); /* ~ */
		return 0;
	}
	if (r == -EBADMSG)
		*err = str_printf("The cluster's state in the directory 'epoch' of the store is "
				  "damaged.  If other nodes have the data, start this node with "
				  "an empty directory instead");
	else if (r == -EPROTO)
		*err = str_printf("The cluster's state in the directory 'epoch' of the store was "
				  "written by another version of sheep: run that version, or "
				  "start this node with an empty directory if other nodes have "
				  "the data");
	else
		*err = str_printf("Cannot read the directory 'epoch' of the store: %s",
				  strerror(-r));
	es_close(es); /* ~ */
	return r;
}

void es_close(struct epoch_store *es)
{
	es_close_file(es, es->log); /* ~ */
	es_close_file(es, es->dir); /* ~ */
	es->log = es->dir = NULL;
}
