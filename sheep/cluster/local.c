/* local.c - cluster driver for daemons of one host: an ordered log in one file.
 *
 * Used by: sheep/member.c through struct bus_driver.  Runs on the reactor.
 *
 * The file: a header page with the committed end of the log (`tail`), the members' read positions,
 * then records.  Byte-range locks beyond the end of the file (they end with the process, whatever
 * happens to it) say who may append and who lives.
 *  L1 Records are written beyond the tail, under the append lock; then the tail moves by one store.
 *     A death before that store leaves nothing; after it everything.
 *  L2 A member is alive as long as the lock of its slot is held, by the open file description that
 *     it keeps: exact knowledge of death (DESIGN 4.1 B5).  A pidfd only makes us look earlier.
 *  L3 Every record names the newest VIEW record, each VIEW the whole membership: a sender that is
 *     not in it does not append (B3), a joiner needs nothing else.
 *  L4 Nobody ever waits for the append lock: a stopped process that holds it stalls the bus, not
 *     the reactors of the others.  The operator is told, once in a stall.
 *  L5 A header of another boot, or with no living member, starts anew: no leftover matters.
 */
#include "config.h"

#include "include/sheepdog/limits.h"
#include "lib/base/util.h"
#include "lib/env/linux.h"
#include "sheep/cluster/driver.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOCAL_PATH    "/tmp/sheepdog_shm" /* cli.md 1.4 */
#define LOCAL_MAGIC   0x3153554253504853ull
#define LOCAL_VERSION 1u
#define REC_MAGIC     0x72656372u
#define HEADER_SIZE   16384u
#define LOCK_APPEND   (1ull << 62)
#define LOCK_SLOTS    ((1ull << 62) + 1)
#define POLL_NS	      (200ull * 1000 * 1000) /* look for deaths, missed wake-ups */
#define POLL_BLIND_NS (10ull * 1000 * 1000)  /* the same, when inotify is not to be had */
#define RETRY_NS      (1000ull * 1000)	     /* somebody has the append lock */
#define JOIN_TRIES    5000u		     /* of RETRY_NS */
#define CLOSE_TRIES   200u
#define STALL_NS      (1000ull * 1000 * 1000) /* nothing can be appended: the operator is told */
#define TURN_RECORDS  256u		      /* delivered before other events get a turn */
#define PUNCH_BYTES   (64ull << 20)	      /* read by all: given back to the file system */
#define LAG_BYTES     (256ull << 20)	      /* nobody is left behind further than that */
#define REVIEW_BYTES  (16ull << 20) /* a VIEW at least every so often, so that they can be */

enum rec_type { REC_VIEW = 1, REC_MSG };

struct local_header {
	_Atomic uint64_t magic;
	uint32_t version, pad;
	uint8_t boot_id[16];
	_Atomic uint64_t tail;
	uint64_t punched; /* under the append lock */
	uint8_t pad2[4096 - 48];
	_Atomic uint64_t pos[SD_MEMBERS_MAX]; /* by slot: what its member has read */
};
_Static_assert(sizeof(struct local_header) <= HEADER_SIZE, "the log begins behind it");

struct rec { /* payload follows, padded to 8, then u64: the length of all of it */
	uint32_t magic, type;
	uint64_t len;
	struct incarnation from;
	uint64_t view_off;
};

struct local_member {
	struct incarnation inc;
	uint32_t slot, pid;
};
_Static_assert(sizeof(struct local_member) == 32, "record of a view");

struct local_view {
	unsigned nr;
	struct local_member m[SD_MEMBERS_MAX];
};

struct msg {
	struct cds_list_head node;
	size_t len;
	uint8_t data[];
};

struct watch {
	struct bus *b;
	struct env_watch *w;
	int fd;
	uint32_t slot, pid;
};

struct bus {
	/* fixed */
	struct env *env;
	struct bus_cb cb;
	void *arg;
	struct incarnation self;
	uint32_t slot;
	char *path;
	int fd, inotify_fd;
	struct env_watch *inotify;
	struct local_header *h;
	/* moving */
	struct local_view view; /* at our place in the order */
	struct watch *watches;	/* one for each member of the view, by its index */
	unsigned nr_watches;
	uint64_t pos;
	struct cds_list_head out; /* to be appended */
	uint8_t *buf;
	size_t buf_cap;
	struct env_defer work;
	struct env_timer poll, retry;
	uint64_t stalled_at; /* since then nothing could be appended; 0: it can */
	uint32_t lags_pid;   /* because this member reads nothing; 0: of the append lock */
	bool stall_told;
	char *out_reason; /* to be told from local_work() */
	unsigned depth;	  /* inside callbacks */
	bool is_out, told, closing;
};

static bool same(const struct incarnation *a, const struct incarnation *b)
{
	return a->start == b->start && !memcmp(a->uuid, b->uuid, sizeof(a->uuid));
}

/* ---- locks ---- */

static int lock_try(int fd, uint64_t off, short type)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)off, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

static bool slot_alive(struct bus *b, uint32_t slot)
{
	struct flock fl = {.l_type = F_WRLCK,
			   .l_whence = SEEK_SET,
			   .l_start = (off_t)(LOCK_SLOTS + slot),
			   .l_len = 1};

	if (slot == b->slot)
		return true;
	return fcntl(b->fd, F_OFD_GETLK, &fl) < 0 || fl.l_type != F_UNLCK;
}

static void pause_ns(long ns)
{
	struct timespec ts = {.tv_nsec = ns};

	nanosleep(&ts, NULL);
}

/* ---- the log ---- */

static int read_at(struct bus *b, void *buf, size_t len, uint64_t off)
{
	ssize_t n = pread(b->fd, buf, len, (off_t)off);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

static int write_at(struct bus *b, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = pwrite(b->fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

static int read_rec(struct bus *b, uint64_t off, struct rec *r)
{
	int ret = read_at(b, r, sizeof(*r), off);

	if (ret < 0)
		return ret;
	if (r->magic != REC_MAGIC || r->len > BUS_MSG_MAX)
		return -EBADMSG;
	if (r->type == REC_VIEW && (r->len % sizeof(struct local_member) ||
				    r->len > sizeof(struct local_member) * SD_MEMBERS_MAX))
		return -EBADMSG;
	return 0;
}

/* The membership at the end of the log.  Under the append lock. */
static int last_view(struct bus *b, uint64_t tail, struct local_view *v, uint64_t *ret_off)
{
	uint64_t len;
	struct rec r;
	int ret;

	v->nr = 0;
	*ret_off = 0;
	if (tail == HEADER_SIZE)
		return 0;
	ret = read_at(b, &len, sizeof(len), tail - sizeof(len));
	if (ret == 0 && (len > tail - HEADER_SIZE || len < sizeof(r)))
		ret = -EBADMSG;
	if (ret == 0)
		ret = read_rec(b, tail - len, &r);
	if (ret < 0)
		return ret;
	*ret_off = r.view_off;
	ret = read_rec(b, r.view_off, &r);
	if (ret == 0 && r.type != REC_VIEW)
		ret = -EBADMSG;
	if (ret < 0)
		return ret;
	v->nr = (unsigned)(r.len / sizeof(v->m[0]));
	return read_at(b, v->m, r.len, *ret_off + sizeof(r));
}

/* Write one record beyond *@tail and move *@tail (not yet the shared one: L1). */
static int put_rec(struct bus *b, uint64_t *tail, enum rec_type type, uint64_t view_off,
		   const void *data, size_t len)
{
	struct rec r = {.magic = REC_MAGIC,
			.type = type,
			.len = len,
			.from = b->self,
			.view_off = type == REC_VIEW ? *tail : view_off};
	uint64_t pad = ROUND_UP(len, 8) - len, zero = 0;
	uint64_t total = sizeof(r) + len + pad + sizeof(total);
	struct iovec iov[4] = {{&r, sizeof(r)},
			       {(void *)data, len},
			       {&zero, (size_t)pad},
			       {&total, sizeof(total)}};
	ssize_t n = pwritev(b->fd, iov, 4, (off_t)*tail);
	int ret = 0;

	if (n < 0)
		return -errno;
	if ((uint64_t)n != total) { /* short: piece by piece */
		ret = write_at(b, &r, sizeof(r), *tail);
		if (ret == 0)
			ret = write_at(b, data, len, *tail + sizeof(r));
		if (ret == 0)
			ret = write_at(b, &zero, pad, *tail + sizeof(r) + len);
		if (ret == 0)
			ret = write_at(b, &total, sizeof(total), *tail + total - sizeof(total));
	}
	if (ret == 0)
		*tail += total;
	return ret;
}

static int put_view(struct bus *b, uint64_t *tail, const struct local_view *v)
{
	return put_rec(b, tail, REC_VIEW, 0, v->m, v->nr * sizeof(v->m[0]));
}

/* Move the shared tail and wake the members. */
static void commit(struct bus *b, uint64_t tail)
{
	atomic_store_explicit(&b->h->tail, tail, memory_order_release);
	futimens(b->fd, NULL); /* IN_ATTRIB at every member */
}

/* What every member has read.  *@last: pid of who has read least, 0: all have read all. */
static uint64_t read_by_all(struct bus *b, const struct local_view *v, uint64_t tail,
			    uint32_t *last)
{
	uint64_t least = tail;

	*last = 0;
	for (unsigned i = 0; i < v->nr; i++) {
		uint64_t pos = atomic_load(&b->h->pos[v->m[i].slot % SD_MEMBERS_MAX]);
		if (pos < least) {
			least = pos;
			*last = v->m[i].pid;
		}
	}
	return least;
}

/* Give it back.  Under the append lock. */
static void punch(struct bus *b, const struct local_view *v, uint64_t view_off, uint64_t tail)
{
	uint64_t from = b->h->punched, to;
	uint32_t last;

	if (tail - from < PUNCH_BYTES)
		return;
	to = read_by_all(b, v, tail, &last);
	to = ROUND_DOWN(to < view_off ? to : view_off, 4096);
	if (to > from && fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
				   (off_t)(to - from)) == 0)
		b->h->punched = to;
}

/* ---- membership ---- */

static int find_member(const struct local_view *v, const struct incarnation *inc)
{
	for (unsigned i = 0; i < v->nr; i++)
		if (same(&v->m[i].inc, inc))
			return (int)i;
	return -1;
}

/* Take the dead out; true: there were some. */
static bool bury(struct bus *b, struct local_view *v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < v->nr; i++)
		if (v->m[i].slot < SD_MEMBERS_MAX && slot_alive(b, v->m[i].slot))
			v->m[n++] = v->m[i];
	bool any = n != v->nr;
	v->nr = n;
	return any;
}

/* ---- out ---- */

static void go_out(struct bus *b, const char *reason)
{
	if (b->is_out || b->closing)
		return;
	b->is_out = true;
	env_timer_del(b->env, &b->poll);
	env_timer_del(b->env, &b->retry);
	b->out_reason = str_printf("%s", reason);
	env_defer(b->env, &b->work);
}

static void go_out_err(struct bus *b, const char *what, int err)
{
	char reason[PATH_MAX + 128];

	snprintf(reason, sizeof(reason), "%s %s: %s", what, b->path, strerror(-err));
	go_out(b, reason);
}

/* ---- appending ---- */

/* All of b->out, and a new VIEW when somebody has died or @leave.  -EAGAIN: the lock is taken. */
static int append(struct bus *b, bool look_for_deaths, bool leave)
{
	CLEANUP(freep) struct local_view *v = malloc(sizeof(*v));
	uint64_t tail, view_off;
	struct msg *m;
	uint32_t last;
	int r;

	if (!v)
		return -ENOMEM;
	b->lags_pid = 0;
	r = lock_try(b->fd, LOCK_APPEND, F_WRLCK);
	if (r < 0)
		return r == -EACCES ? -EAGAIN : r;
	uint64_t start = tail = atomic_load(&b->h->tail);
	r = last_view(b, tail, v, &view_off);
	if (r == 0 && find_member(v, &b->self) < 0)
		r = -ENOTCONN; /* L3: whoever took us out, we find out when we read it */
	bool renew = tail - view_off > REVIEW_BYTES;
	if (r == 0 && ((look_for_deaths && bury(b, v)) || renew)) {
		view_off = tail;
		r = put_view(b, &tail, v);
	}
	if (r == 0)
		punch(b, v, view_off, tail);
	bool full = r == 0 && tail - read_by_all(b, v, tail, &last) > LAG_BYTES;
	cds_list_for_each_entry (m, &b->out, node)
		if (r == 0 && !full)
			r = put_rec(b, &tail, REC_MSG, view_off, m->data, m->len);
	if (r == 0 && leave) {
		v->m[find_member(v, &b->self)] = v->m[v->nr - 1];
		v->nr--;
		r = put_view(b, &tail, v);
	}
	if (r == 0 && tail != start)
		commit(b, tail);
	lock_try(b->fd, LOCK_APPEND, F_UNLCK);
	if (r == 0 && full) {
		b->lags_pid = last;
		r = -EAGAIN;
	}
	if (r < 0)
		return r;
	while (!cds_list_empty(&b->out)) {
		m = cds_list_first_entry(&b->out, struct msg, node);
		cds_list_del(&m->node);
		free(m);
	}
	return 0;
}

static bool somebody_died(struct bus *b)
{
	for (unsigned i = 0; i < b->view.nr; i++)
		if (!slot_alive(b, b->view.m[i].slot))
			return true;
	return false;
}

/* The state of a process that a signal or a debugger has stopped (proc(5)). */
static bool is_stopped(uint32_t pid)
{
	char path[32], buf[256];

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[n < 0 ? 0 : n] = 0;
	const char *p = strrchr(buf, ')'); /* behind the name */
	return p && (!strncmp(p, ") T", 3) || !strncmp(p, ") t", 3));
}

/* Who holds the lock of an open file description the kernel does not say (l_pid is -1): who of the
 * members is stopped is as good as that. */
static char *stall_text(struct bus *b)
{
	char pids[128] = "";
	size_t n = 0;

	if (b->lags_pid)
		return str_printf("process %u has read nothing of the last %u MB of the bus file "
				  "%s: until it does (is it stopped by SIGSTOP?) or is killed, "
				  "nothing can be sent to the cluster",
				  b->lags_pid, (unsigned)(LAG_BYTES >> 20), b->path);
	for (unsigned i = 0; i < b->view.nr && n + 12 < sizeof(pids); i++)
		if (is_stopped(b->view.m[i].pid))
			n += (size_t)snprintf(pids + n, sizeof(pids) - n, " %u", b->view.m[i].pid);
	return str_printf("the bus file %s is locked by another process for %u ms: until it lets "
			  "go or is killed, nothing can be sent to the cluster (%s%s)",
			  b->path, (unsigned)((env_now(b->env) - b->stalled_at) / 1000000),
			  n ? "stopped by SIGSTOP:" : "is a daemon stopped by SIGSTOP?", pids);
}

static void stalled(struct bus *b)
{
	uint64_t now = env_now(b->env);

	if (!b->stalled_at)
		b->stalled_at = now;
	if (b->stall_told || now - b->stalled_at < STALL_NS)
		return;
	b->stall_told = true;
	char *text = stall_text(b);
	if (text)
		b->cb.warn(b->arg, text);
	free(text);
}

static void not_stalled(struct bus *b)
{
	if (b->stall_told) {
		char *text =
			str_printf("the bus file %s can be written again, after %u ms", b->path,
				   (unsigned)((env_now(b->env) - b->stalled_at) / 1000000));
		if (text)
			b->cb.warn(b->arg, text);
		free(text);
	}
	b->stall_told = false;
	b->stalled_at = 0;
}

static void try_append(struct bus *b, bool look_for_deaths)
{
	int r = append(b, look_for_deaths, false);

	if (r == -EAGAIN)
		stalled(b);
	else
		not_stalled(b);
	if (r == -EAGAIN)
		env_timer_set(b->env, &b->retry, env_now(b->env) + RETRY_NS); /* L4 */
	else if (r < 0 && r != -ENOTCONN)
		go_out_err(b, "cannot write the bus file", r);
	else
		env_defer(b->env, &b->work);
}

/* ---- delivering ---- */

static void unwatch_all(struct bus *b)
{
	for (unsigned i = 0; i < b->nr_watches; i++) {
		if (b->watches[i].w)
			env_linux_unwatch(b->watches[i].w);
		if (b->watches[i].fd >= 0)
			close(b->watches[i].fd);
	}
	free(b->watches);
	b->watches = NULL;
	b->nr_watches = 0;
}

static void on_death(int fd, void *arg)
{
	struct watch *w = arg;
	struct bus *b = w->b;

	env_linux_unwatch(w->w);
	w->w = NULL;
	if (!b->is_out)
		try_append(b, true);
}

/* A pidfd for each other process of the view: a hint, the lock decides (L2). */
static void watch_members(struct bus *b)
{
	unwatch_all(b);
	b->watches = calloc(b->view.nr ? b->view.nr : 1, sizeof(*b->watches));
	if (!b->watches)
		return; /* the poll finds deaths too */
	for (unsigned i = 0; i < b->view.nr; i++) {
		struct watch *w = &b->watches[b->nr_watches++];
		*w = (struct watch){.b = b, .fd = -1, .slot = b->view.m[i].slot};
		if (b->view.m[i].pid == (uint32_t)getpid())
			continue;
		w->fd = (int)syscall(SYS_pidfd_open, (pid_t)b->view.m[i].pid, 0);
		if (w->fd >= 0)
			w->w = env_linux_watch(b->env, w->fd, on_death, w);
	}
}

static void deliver_view(struct bus *b, const struct local_view *v)
{
	CLEANUP(freep)
	struct bus_member *list = calloc(v->nr + b->view.nr + 1, sizeof(*list));
	unsigned nr_left = 0;
	bool joined = false;

	if (!list) {
		go_out_err(b, "no memory for a view of", -ENOMEM);
		return;
	}
	for (unsigned i = 0; i < v->nr; i++) {
		list[i].inc = v->m[i].inc;
		joined |= find_member(&b->view, &v->m[i].inc) < 0;
	}
	for (unsigned i = 0; i < b->view.nr; i++)
		if (find_member(v, &b->view.m[i].inc) < 0)
			list[v->nr + nr_left++].inc = b->view.m[i].inc;
	if (!joined && !nr_left)
		return; /* repeated for the log's sake */
	b->view = *v;
	if (find_member(v, &b->self) < 0) {
		go_out(b, "another daemon found this one dead");
		return;
	}
	watch_members(b);
	b->cb.view(b->arg, list, v->nr, list + v->nr, nr_left);
}

static int deliver_one(struct bus *b)
{
	struct rec r;
	int ret = read_rec(b, b->pos, &r);

	if (ret < 0)
		return ret;
	if (r.len + 1 > b->buf_cap) {
		uint8_t *p = realloc(b->buf, ROUND_UP(r.len + 1, 4096));
		if (!p)
			return -ENOMEM;
		b->buf = p;
		b->buf_cap = ROUND_UP(r.len + 1, 4096);
	}
	ret = read_at(b, b->buf, r.len, b->pos + sizeof(r));
	if (ret < 0)
		return ret;
	b->pos += sizeof(r) + ROUND_UP(r.len, 8) + sizeof(uint64_t);
	atomic_store(&b->h->pos[b->slot], b->pos);
	if (r.type == REC_MSG) {
		b->cb.message(b->arg, &r.from, b->buf, r.len);
		return 0;
	}
	CLEANUP(freep) struct local_view *v = malloc(sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->nr = (unsigned)(r.len / sizeof(v->m[0]));
	memcpy(v->m, b->buf, r.len);
	deliver_view(b, v);
	return 0;
}

static void bus_free(struct bus *b);

static void deliver_all(struct bus *b)
{
	int r = 0;

	for (unsigned n = 0; r == 0 && !b->is_out && !b->closing; n++) {
		if (b->pos >= atomic_load_explicit(&b->h->tail, memory_order_acquire))
			return;
		if (n == TURN_RECORDS) {
			env_defer(b->env, &b->work);
			return;
		}
		r = deliver_one(b);
	}
	if (r < 0)
		go_out_err(b, "cannot read the bus file", r);
}

static void local_work(struct env_defer *d)
{
	struct bus *b = caa_container_of(d, struct bus, work);

	b->depth++;
	if (!cds_list_empty(&b->out) && !b->is_out && !b->retry.heap_idx)
		try_append(b, false);
	deliver_all(b);
	if (b->is_out && !b->closing && !b->told) {
		b->told = true;
		b->cb.out(b->arg, b->out_reason ? b->out_reason : "out of memory");
		/* Only now: a death that the others see ends our lease for them at once (B5, 4.4),
		 * so here it must have ended before. */
		lock_try(b->fd, LOCK_SLOTS + b->slot, F_UNLCK);
	}
	b->depth--;
	if (b->closing)
		bus_free(b);
}

static void local_retry(struct env_timer *t)
{
	struct bus *b = caa_container_of(t, struct bus, retry);

	try_append(b, true);
}

/* Deaths that no pidfd told of, wake-ups that were lost with their sender, a file that is gone. */
static void local_poll(struct env_timer *t)
{
	struct bus *b = caa_container_of(t, struct bus, poll);
	struct stat mine, there;

	env_timer_set(b->env, t, env_now(b->env) + (b->inotify ? POLL_NS : POLL_BLIND_NS));
	if (fstat(b->fd, &mine) < 0 || stat(b->path, &there) < 0 || mine.st_ino != there.st_ino ||
	    mine.st_dev != there.st_dev) {
		go_out(b, "the bus file was removed or replaced while it was in use");
		return;
	}
	if (somebody_died(b))
		try_append(b, true);
	else if (atomic_load(&b->h->tail) != b->pos || !cds_list_empty(&b->out))
		env_defer(b->env, &b->work);
}

static void on_inotify(int fd, void *arg)
{
	struct bus *b = arg;
	char buf[4096];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	if (!b->is_out && atomic_load(&b->h->tail) != b->pos)
		env_defer(b->env, &b->work);
}

/* ---- joining ---- */

/* Under the append lock: a header of this boot (L5). */
static int prepare_file(struct bus *b, char **err)
{
	uint8_t boot_id[16];
	struct stat st;

	env_boot_id(b->env, boot_id);
	if (fstat(b->fd, &st) < 0)
		return -errno;
	uint64_t magic = 0;
	if (st.st_size >= (off_t)sizeof(magic) && pread(b->fd, &magic, sizeof(magic), 0) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (magic && magic != LOCAL_MAGIC)) {
		*err = str_printf(
			"%s is not a bus file of this program: remove it, or name another "
			"one with -c local:PATH",
			b->path);
		return -EPROTO;
	}
	if (st.st_size < HEADER_SIZE && ftruncate(b->fd, HEADER_SIZE) < 0)
		return -errno;
	b->h = mmap(NULL, HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
	if (b->h == MAP_FAILED) {
		b->h = NULL;
		return -errno;
	}
	if (magic && b->h->version != LOCAL_VERSION) {
		*err = str_printf("%s was made by another version: stop all daemons of this host, "
				  "then remove it",
				  b->path);
		return -EPROTO;
	}
	if (magic && !memcmp(b->h->boot_id, boot_id, sizeof(boot_id)))
		return 0;
	b->h->version = LOCAL_VERSION;
	memcpy(b->h->boot_id, boot_id, sizeof(boot_id));
	b->h->punched = HEADER_SIZE;
	atomic_store(&b->h->tail, HEADER_SIZE);
	atomic_store(&b->h->magic, LOCAL_MAGIC);
	return 0;
}

static bool anyone_alive(struct bus *b)
{
	struct flock fl = {.l_type = F_WRLCK,
			   .l_whence = SEEK_SET,
			   .l_start = (off_t)LOCK_SLOTS,
			   .l_len = SD_MEMBERS_MAX};

	return fcntl(b->fd, F_OFD_GETLK, &fl) < 0 || fl.l_type != F_UNLCK;
}

static bool slot_used(const struct local_view *v, uint32_t slot)
{
	for (unsigned i = 0; i < v->nr; i++)
		if (v->m[i].slot == slot)
			return true;
	return false;
}

/* Under the append lock: a slot, and a VIEW with us in it. */
static int enter(struct bus *b, struct local_view *v, char **err)
{
	uint64_t tail = atomic_load(&b->h->tail), view_off;
	int r = last_view(b, tail, v, &view_off);

	if (r < 0) {
		if (anyone_alive(b)) {
			*err = str_printf("%s is damaged: stop all daemons of this host, then "
					  "start them again",
					  b->path);
			return r;
		}
		v->nr = 0; /* a log that nobody can read is nobody's */
	}
	bury(b, v);
	if (v->nr == 0) {
		tail = HEADER_SIZE;
		b->h->punched = HEADER_SIZE;
		if (ftruncate(b->fd, HEADER_SIZE) < 0)
			return -errno;
		atomic_store(&b->h->tail, tail);
	}
	if (v->nr == SD_MEMBERS_MAX) {
		*err = str_printf("%s has %u members: there can be no more", b->path, v->nr);
		return -EMFILE;
	}
	for (b->slot = 0; b->slot < SD_MEMBERS_MAX; b->slot++)
		if (!slot_used(v, b->slot) && lock_try(b->fd, LOCK_SLOTS + b->slot, F_WRLCK) == 0)
			break;
	if (b->slot == SD_MEMBERS_MAX)
		return -EMFILE;
	v->m[v->nr++] =
		(struct local_member){.inc = b->self, .slot = b->slot, .pid = (uint32_t)getpid()};
	b->pos = tail;
	atomic_store(&b->h->pos[b->slot], b->pos);
	r = put_view(b, &tail, v);
	if (r == 0)
		commit(b, tail);
	return r;
}

static int join(struct bus *b, char **err)
{
	CLEANUP(freep) struct local_view *v = malloc(sizeof(*v));
	int r = -EAGAIN;

	if (!v)
		return -ENOMEM;
	for (unsigned n = 0; n < JOIN_TRIES; n++) { /* before the reactor has anything to do */
		r = lock_try(b->fd, LOCK_APPEND, F_WRLCK);
		if (r != -EAGAIN && r != -EACCES)
			break;
		pause_ns(RETRY_NS);
	}
	if (r < 0) {
		*err = str_printf("%s is locked by another process for %u seconds (is a daemon "
				  "stopped by SIGSTOP?)",
				  b->path, (unsigned)(JOIN_TRIES * RETRY_NS / 1000000000ull));
		return r;
	}
	r = prepare_file(b, err);
	if (r == 0)
		r = enter(b, v, err);
	lock_try(b->fd, LOCK_APPEND, F_UNLCK);
	return r;
}

static void watch_file(struct bus *b)
{
	char name[64];

	b->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (b->inotify_fd < 0)
		return; /* then we poll */
	snprintf(name, sizeof(name), "/proc/self/fd/%d", b->fd);
	if (inotify_add_watch(b->inotify_fd, name, IN_ATTRIB) >= 0)
		b->inotify = env_linux_watch(b->env, b->inotify_fd, on_inotify, b);
}

/* The daemon changes its directory later. */
static char *absolute(const char *path)
{
	char cwd[PATH_MAX];

	if (path[0] == '/')
		return str_printf("%s", path);
	return getcwd(cwd, sizeof(cwd)) ? str_printf("%s/%s", cwd, path) : NULL;
}

static int local_open(struct env *env, const char *param, const struct incarnation *self,
		      const struct bus_cb *cb, void *arg, struct bus **ret, char **err)
{
	const char *path = param && *param ? param : LOCAL_PATH;
	struct bus *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	*b = (struct bus){.env = env,
			  .cb = *cb,
			  .arg = arg,
			  .self = *self,
			  .fd = -1,
			  .inotify_fd = -1,
			  .slot = SD_MEMBERS_MAX};
	CDS_INIT_LIST_HEAD(&b->out);
	b->work.fn = local_work;
	b->poll.fn = local_poll;
	b->retry.fn = local_retry;
	b->path = absolute(path);
	b->fd = b->path ? open(b->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	r = !b->path ? -ENOMEM : b->fd < 0 ? -errno : 0;
	if (r == 0) {
		watch_file(b);
		r = join(b, err);
	}
	if (r < 0) {
		if (!*err)
			*err = str_printf("Cannot use the bus file %s: %s", path, strerror(-r));
		bus_free(b);
		return r;
	}
	env_timer_set(env, &b->poll, env_now(env) + POLL_NS);
	env_defer(env, &b->work);
	*ret = b;
	return 0;
}

/* ---- leaving ---- */

static void bus_free(struct bus *b)
{
	struct msg *m, *next;

	env_timer_del(b->env, &b->poll);
	env_timer_del(b->env, &b->retry);
	env_defer_del(b->env, &b->work);
	unwatch_all(b);
	if (b->inotify)
		env_linux_unwatch(b->inotify);
	if (b->inotify_fd >= 0)
		close(b->inotify_fd);
	if (b->h)
		munmap(b->h, HEADER_SIZE);
	if (b->fd >= 0)
		close(b->fd); /* and with it the lock of our slot */
	cds_list_for_each_entry_safe (m, next, &b->out, node)
		free(m);
	free(b->buf);
	free(b->out_reason);
	free(b->path);
	free(b);
}

static void local_close(struct bus *b)
{
	int r = b->is_out ? 0 : -EAGAIN;

	for (unsigned n = 0; r == -EAGAIN && n < CLOSE_TRIES; n++) {
		r = append(b, false, true);
		if (r == -EAGAIN)
			pause_ns(RETRY_NS); /* else the others find our lock gone */
	}
	b->closing = true;
	if (!b->depth)
		bus_free(b);
}

static int local_send(struct bus *b, const void *msg, size_t len)
{
	struct msg *m;

	if (b->is_out)
		return -ENOTCONN;
	if (len > BUS_MSG_MAX)
		return -EMSGSIZE;
	m = malloc(sizeof(*m) + len);
	if (!m)
		return -ENOMEM;
	m->len = len;
	memcpy(m->data, msg, len);
	cds_list_add_tail(&m->node, &b->out);
	env_defer(b->env, &b->work);
	return 0;
}

static int local_my_address(struct bus *b, uint8_t ip[16])
{
	static const uint8_t loopback[16] = {[12] = 127, [15] = 1};

	memcpy(ip, loopback, sizeof(loopback));
	return 0;
}

extern const struct bus_driver bus_local;
const struct bus_driver bus_local = {
	.name = "local",
	.help = "[:FILE]  all daemons on this host; FILE names the cluster (default " LOCAL_PATH
		")",
	.param_path = true,
	.open = local_open,
	.close = local_close,
	.send = local_send,
	.my_address = local_my_address,
};
