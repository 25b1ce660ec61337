/* lostfs MOUNTPOINT IMAGE - a file system that keeps what was synced, and nothing else, over a
 * power cut.
 *
 * IMAGE is a directory tree: what the disk holds.  Mounted, everything works as usual (in copies
 * that are made at the start).  At SIGTERM ("the power goes") IMAGE becomes exactly what was made
 * durable:
 *  - a file's data and size as of its last fsync or fdatasync, write by write: no unsynced byte;
 *  - a directory's entries as of its last fsync (a file that was synced under a name that was not
 * is gone);
 *  - all of it as of the last syncfs() (FUSE does not pass that on: lostsync.so, preloaded into the
 * daemon, does). Single threaded; no page cache (direct_io).  Needs libfuse3. */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <fuse.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PIECE (1u << 20)

struct node;
struct entry {
	char *name;
	struct node *node;
	struct entry *next;
};
struct range {
	off_t from, to;
	struct range *next;
};
struct node {
	unsigned long id;
	mode_t mode;
	unsigned refs; /* entries (live and durable) and open handles */
	struct timespec mtime;
	/* directories */
	struct entry *live, *durable;
	/* files */
	int live_fd, durable_fd;
	struct range *dirty;
};

static struct node *root;
static char scratch[PATH_MAX], image[PATH_MAX];
static unsigned long next_id;

static void die(const char *what)
{
	fprintf(stderr, "lostfs: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int temp_file(void)
{
	int fd = open(scratch, O_TMPFILE | O_RDWR, 0600);

	if (fd < 0)
		die(scratch);
	return fd;
}

static struct node *node_new(mode_t mode)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		die("memory");
	n->id = ++next_id;
	n->mode = mode;
	n->live_fd = n->durable_fd = -1;
	clock_gettime(CLOCK_REALTIME, &n->mtime);
	if (S_ISREG(mode)) {
		n->live_fd = temp_file();
		n->durable_fd = temp_file();
	}
	return n;
}

static void entries_free(struct entry **list);

static void node_put(struct node *n)
{
	if (--n->refs)
		return;
	entries_free(&n->live);
	entries_free(&n->durable);
	while (n->dirty) {
		struct range *r = n->dirty;
		n->dirty = r->next;
		free(r);
	}
	if (n->live_fd >= 0)
		close(n->live_fd);
	if (n->durable_fd >= 0)
		close(n->durable_fd);
	free(n);
}

static void entry_add(struct entry **list, const char *name, struct node *n)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e || !(e->name = strdup(name)))
		die("memory");
	e->node = n;
	n->refs++;
	e->next = *list;
	*list = e;
}

static struct entry **entry_find(struct entry **list, const char *name)
{
	while (*list && strcmp((*list)->name, name))
		list = &(*list)->next;
	return *list ? list : NULL;
}

static void entry_del(struct entry **at)
{
	struct entry *e = *at;

	*at = e->next;
	node_put(e->node);
	free(e->name);
	free(e);
}

static void entries_free(struct entry **list)
{
	while (*list)
		entry_del(list);
}

/* ---- what is durable ---- */

static void copy_range(int from_fd, int to_fd, off_t from, off_t to)
{
	static char buf[PIECE];
	off_t end = lseek(from_fd, 0, SEEK_END);

	if (to > end)
		to = end;
	if (from >= to)
		return;
	fallocate(to_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, to - from);
	while (from < to) {
		off_t data = lseek(from_fd, from, SEEK_DATA);
		if (data < 0 || data >= to)
			return;
		off_t hole = lseek(from_fd, data, SEEK_HOLE);
		if (hole < 0 || hole > to)
			hole = to;
		for (from = data; from < hole;) {
			size_t want = hole - from < (off_t)PIECE ? (size_t)(hole - from) : PIECE;
			ssize_t n = pread(from_fd, buf, want, from);
			if (n <= 0 || pwrite(to_fd, buf, (size_t)n, from) != n)
				die("copy");
			from += n;
		}
	}
}

static void sync_file(struct node *n)
{
	struct stat st;

	if (n->live_fd < 0)
		return;
	if (fstat(n->live_fd, &st) < 0 || ftruncate(n->durable_fd, st.st_size) < 0)
		die("size");
	while (n->dirty) {
		struct range *r = n->dirty;
		copy_range(n->live_fd, n->durable_fd, r->from, r->to);
		n->dirty = r->next;
		free(r);
	}
}

static void dirty(struct node *n, off_t from, off_t to)
{
	struct range *r = n->dirty;

	clock_gettime(CLOCK_REALTIME, &n->mtime);
	if (r && from >= r->from && from <= r->to) { /* goes on where the last one ended */
		if (to > r->to)
			r->to = to;
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r)
		die("memory");
	*r = (struct range){from, to, n->dirty};
	n->dirty = r;
}

static void sync_dir(struct node *n)
{
	struct entry *old = n->durable;

	n->durable = NULL;
	for (struct entry *e = n->live; e; e = e->next)
		entry_add(&n->durable, e->name, e->node);
	entries_free(&old);
}

static void sync_all(struct node *n)
{
	if (!S_ISDIR(n->mode)) {
		sync_file(n);
		return;
	}
	for (struct entry *e = n->live; e; e = e->next)
		sync_all(e->node);
	sync_dir(n);
}

/* ---- the image ---- */

static void load(struct node *dir, const char *path)
{
	struct stat st;
	char sub[PATH_MAX];
	DIR *d = opendir(path);
	struct dirent *de;

	if (!d)
		die(path);
	while ((de = readdir(d))) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (snprintf(sub, sizeof(sub), "%s/%s", path, de->d_name) >= (int)sizeof(sub) ||
		    lstat(sub, &st) < 0)
			die(sub);
		struct node *n = node_new(st.st_mode);
		entry_add(&dir->live, de->d_name, n);
		if (S_ISDIR(st.st_mode)) {
			load(n, sub);
		} else if (S_ISREG(st.st_mode)) {
			int fd = open(sub, O_RDONLY);
			if (fd < 0 || ftruncate(n->live_fd, st.st_size) < 0)
				die(sub);
			copy_range(fd, n->live_fd, 0, st.st_size);
			close(fd);
			dirty(n, 0, st.st_size);
		}
	}
	closedir(d);
}

static void save(struct node *dir, const char *path)
{
	char sub[PATH_MAX];
	struct stat st;

	if (mkdir(path, 0700) < 0)
		die(path);
	for (struct entry *e = dir->durable; e; e = e->next) {
		if (snprintf(sub, sizeof(sub), "%s/%s", path, e->name) >= (int)sizeof(sub))
			die(sub);
		if (S_ISDIR(e->node->mode)) {
			save(e->node, sub);
		} else if (S_ISREG(e->node->mode)) {
			int fd = open(sub, O_RDWR | O_CREAT | O_EXCL, e->node->mode & 0777);
			if (fd < 0 || fstat(e->node->durable_fd, &st) < 0 ||
			    ftruncate(fd, st.st_size) < 0)
				die(sub);
			copy_range(e->node->durable_fd, fd, 0, st.st_size);
			close(fd);
		}
	}
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	(void)st, (void)flag, (void)f;
	return remove(path);
}

static void save_image(void)
{
	char tmp[PATH_MAX + 8];

	snprintf(tmp, sizeof(tmp), "%s.cut", image);
	nftw(tmp, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	save(root, tmp);
	nftw(image, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	if (rename(tmp, image) < 0)
		die(image);
}

/* ---- paths ---- */

/* The node of @path; with @parent: of the directory that @path's last name is in. */
static struct node *walk(const char *path, bool parent, const char **last)
{
	char name[NAME_MAX + 1];
	struct node *n = root;

	for (;;) {
		while (*path == '/')
			path++;
		size_t len = strcspn(path, "/");
		if (last)
			*last = path;
		if (!len || (parent && !path[len]))
			return n;
		if (len > NAME_MAX || !S_ISDIR(n->mode))
			return NULL;
		memcpy(name, path, len);
		name[len] = '\0';
		struct entry **e = entry_find(&n->live, name);
		if (!e)
			return NULL;
		n = (*e)->node;
		path += len;
	}
}

static struct node *node_of(const char *path, struct fuse_file_info *fi)
{
	return fi && fi->fh ? (struct node *)(uintptr_t)fi->fh : walk(path, false, NULL);
}

/* ---- operations ---- */

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	struct node *n = node_of(path, fi);

	if (!n)
		return -ENOENT;
	memset(st, 0, sizeof(*st));
	if (n->live_fd >= 0 && fstat(n->live_fd, st) < 0)
		return -errno;
	st->st_mode = n->mode;
	st->st_ino = n->id;
	st->st_nlink = 1;
	st->st_uid = getuid();
	st->st_gid = getgid();
	st->st_mtim = n->mtime;
	return 0;
}

static int make(const char *path, mode_t mode, struct node **ret)
{
	const char *name;
	struct node *dir = walk(path, true, &name);

	if (!dir)
		return -ENOENT;
	if (entry_find(&dir->live, name))
		return -EEXIST;
	*ret = node_new(mode);
	entry_add(&dir->live, name, *ret);
	return 0;
}

static int fs_mknod(const char *path, mode_t mode, dev_t dev)
{
	struct node *n;

	(void)dev;
	return make(path, mode, &n);
}

static int fs_mkdir(const char *path, mode_t mode)
{
	struct node *n;

	return make(path, S_IFDIR | (mode & 07777), &n);
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	struct node *n;
	int r = make(path, S_IFREG | (mode & 07777), &n);

	if (r < 0)
		return r;
	n->refs++;
	fi->fh = (uintptr_t)n;
	return 0;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	struct node *n = node_of(path, fi);
	struct stat st;

	if (!n)
		return -ENOENT;
	if (fstat(n->live_fd, &st) < 0 || ftruncate(n->live_fd, size) < 0)
		return -errno;
	if (size < st.st_size)
		dirty(n, size, st.st_size); /* and zeros, should it grow again */
	return 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
	struct node *n = walk(path, false, NULL);

	if (!n)
		return -ENOENT;
	if (fi->flags & O_TRUNC)
		fs_truncate(path, 0, NULL);
	n->refs++;
	fi->fh = (uintptr_t)n;
	return 0;
}

static int fs_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	node_put((struct node *)(uintptr_t)fi->fh);
	return 0;
}

static int fs_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	ssize_t n = pread(node_of(path, fi)->live_fd, buf, len, off);

	return n < 0 ? -errno : (int)n;
}

static int fs_write(const char *path, const char *buf, size_t len, off_t off,
		    struct fuse_file_info *fi)
{
	struct node *node = node_of(path, fi);
	ssize_t n = pwrite(node->live_fd, buf, len, off);

	if (n < 0)
		return -errno;
	dirty(node, off, off + n);
	return (int)n;
}

static int fs_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct node *n = node_of(path, fi);

	if (fallocate(n->live_fd, mode, off, len) < 0)
		return -errno;
	dirty(n, off, off + len);
	return 0;
}

static int fs_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	sync_file(node_of(path, fi));
	return 0;
}

static int fs_fsyncdir(const char *path, int datasync, struct fuse_file_info *fi)
{
	struct node *n = node_of(path, fi);

	(void)datasync;
	if (!n)
		return -ENOENT;
	sync_dir(n);
	return 0;
}

static int fs_unlink(const char *path)
{
	const char *name;
	struct node *dir = walk(path, true, &name);
	struct entry **e = dir ? entry_find(&dir->live, name) : NULL;

	if (!e)
		return -ENOENT;
	entry_del(e);
	return 0;
}

static int fs_rmdir(const char *path)
{
	struct node *n = walk(path, false, NULL);

	if (n && n->live)
		return -ENOTEMPTY;
	return fs_unlink(path);
}

static int fs_rename(const char *from, const char *to, unsigned flags)
{
	const char *name, *new_name;
	struct node *dir = walk(from, true, &name), *new_dir = walk(to, true, &new_name);
	struct entry **e = dir ? entry_find(&dir->live, name) : NULL, **there;

	if (!e || !new_dir)
		return -ENOENT;
	if (flags & ~1u) /* RENAME_NOREPLACE is 1 */
		return -EINVAL;
	there = entry_find(&new_dir->live, new_name);
	if (there && flags)
		return -EEXIST;
	struct node *n = (*e)->node;
	n->refs++;
	if (there)
		entry_del(there);
	entry_del(entry_find(&dir->live, name));
	entry_add(&new_dir->live, new_name, n);
	node_put(n);
	return 0;
}

static int fs_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off,
		      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	struct node *n = walk(path, false, NULL);

	(void)off, (void)fi, (void)flags;
	if (!n)
		return -ENOENT;
	fill(buf, ".", NULL, 0, 0);
	fill(buf, "..", NULL, 0, 0);
	for (struct entry *e = n->live; e; e = e->next)
		fill(buf, e->name, NULL, 0, 0);
	return 0;
}

static int fs_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	return statvfs(scratch, st) < 0 ? -errno : 0;
}

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	struct node *n = node_of(path, fi);

	if (!n)
		return -ENOENT;
	n->mode = (n->mode & S_IFMT) | (mode & 07777);
	return 0;
}

static int fs_utimens(const char *path, const struct timespec tv[2], struct fuse_file_info *fi)
{
	struct node *n = node_of(path, fi);

	if (!n)
		return -ENOENT;
	n->mtime = tv[1];
	return 0;
}

/* lostsync.so: a syncfs() */
static int fs_setxattr(const char *path, const char *name, const char *value, size_t len, int flags)
{
	(void)path, (void)value, (void)len, (void)flags;
	if (strcmp(name, "user.lostfs.sync"))
		return -ENOTSUP;
	sync_all(root);
	return 0;
}

static const struct fuse_operations ops = {
	.getattr = fs_getattr,
	.mknod = fs_mknod,
	.mkdir = fs_mkdir,
	.create = fs_create,
	.open = fs_open,
	.release = fs_release,
	.read = fs_read,
	.write = fs_write,
	.fallocate = fs_fallocate,
	.fsync = fs_fsync,
	.fsyncdir = fs_fsyncdir,
	.unlink = fs_unlink,
	.rmdir = fs_rmdir,
	.rename = fs_rename,
	.readdir = fs_readdir,
	.statfs = fs_statfs,
	.chmod = fs_chmod,
	.utimens = fs_utimens,
	.truncate = fs_truncate,
	.setxattr = fs_setxattr,
};

int main(int argc, char **argv)
{
	if (argc != 3 || !realpath(argv[2], image)) {
		fprintf(stderr, "usage: lostfs MOUNTPOINT IMAGE\n");
		return 64;
	}
	if ((size_t)snprintf(scratch, sizeof(scratch), "%s.XXXXXX", image) >= sizeof(scratch) ||
	    !mkdtemp(scratch))
		die(scratch);
	root = node_new(S_IFDIR | 0755);
	root->refs = 1;
	load(root, image);
	sync_all(root);
	char *args[] = {argv[0], "-f", "-s", "-o", "default_permissions", argv[1], NULL};
	int r = fuse_main(6, args, &ops, NULL);
	save_image();
	rmdir(scratch);
	return r;
}
