/* linux_fs.c - the blocking calls of the disk door, as the workers make them.
 *
 * Runs on a worker thread: touches the env_io and its file handles, nothing else of the env.
 */
#include "config.h"

#include "lib/env/linux_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define NSEC 1000000000ull

static int err(int r)
{
	return r < 0 ? -errno : r;
}

static int dir_fd(const struct env_file *f)
{
	return f ? f->fd : AT_FDCWD;
}

/* Older kernels have no O_DIRECT on tmpfs, and say so after the file was created. */
static int open_fd(struct env_io *io, bool *direct)
{
	int flags = (int)io->flags | O_CLOEXEC;
	int fd = openat(dir_fd(io->file), io->name, flags, io->mode);
	*direct = flags & O_DIRECT;
	if (fd < 0 && errno == EINVAL && (flags & O_DIRECT)) {
		*direct = false;
		fd = openat(dir_fd(io->file), io->name, flags & ~(O_DIRECT | O_EXCL), io->mode);
	}
	return err(fd);
}

static int fs_open(struct env_io *io)
{
	struct env_file *f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	int fd;
	do
		fd = open_fd(io, &f->direct);
	while (fd == -EINTR);
	if (fd < 0) {
		free(f);
		return fd;
	}
	struct statfs sf;
	f->fd = fd;
	f->mem = fstatfs(fd, &sf) == 0 && (sf.f_type == TMPFS_MAGIC || sf.f_type == RAMFS_MAGIC);
	io->result_file = f;
	return 0;
}

/* Linux lets go of the descriptor whatever close() says. */
static int fs_close(struct env_io *io)
{
	int r = err(close(io->file->fd));
	free(io->file);
	io->file = NULL;
	return r == -EINTR ? 0 : r;
}

static int fs_rename(struct env_io *io)
{
	struct env_file *to = io->file2 ? io->file2 : io->file;
	return err(renameat(dir_fd(io->file), io->name, dir_fd(to), io->name2));
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* The names into *@ret, NULL terminated; how many there are. */
static int64_t read_names(DIR *d, char ***ret)
{
	size_t n = 0, cap = 64;
	char **names = malloc(cap * sizeof(*names));
	int r = names ? 0 : -ENOMEM;
	struct dirent *de;
	while (r == 0 && (errno = 0, de = readdir(d))) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (n + 1 == cap) {
			char **more = realloc(names, 2 * cap * sizeof(*names));
			if (!more) {
				r = -ENOMEM;
				break;
			}
			names = more;
			cap *= 2;
		}
		names[n] = strdup(de->d_name);
		if (!names[n])
			r = -ENOMEM;
		else
			n++;
	}
	if (r == 0)
		r = -errno;
	if (r < 0) {
		free_names(names, n);
		return r;
	}
	qsort(names, n, sizeof(*names), by_bytes);
	names[n] = NULL;
	*ret = names;
	return (int64_t)n;
}

static int64_t fs_list(struct env_io *io)
{
	/* of its own: a duplicate would share the position */
	int fd = openat(io->file->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	DIR *d = fdopendir(fd);
	if (!d) {
		int r = -errno;
		close(fd);
		return r;
	}
	int64_t r = read_names(d, &io->names);
	closedir(d);
	return r;
}

static int fs_stat(struct env_io *io)
{
	struct stat st;
	int r = io->name ? fstatat(dir_fd(io->file), io->name, &st, 0) : fstat(io->file->fd, &st);
	if (r < 0)
		return -errno;
	io->stat_size = (uint64_t)st.st_size;
	io->stat_blocks = (uint64_t)st.st_blocks;
	io->stat_mtime_ns = (uint64_t)st.st_mtim.tv_sec * NSEC + (uint64_t)st.st_mtim.tv_nsec;
	io->stat_isdir = S_ISDIR(st.st_mode);
	return 0;
}

static int fs_statfs(struct env_io *io)
{
	struct statfs sf;
	int r;
	do
		r = fstatfs(io->file->fd, &sf);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	uint64_t unit = (uint64_t)(sf.f_frsize ? sf.f_frsize : sf.f_bsize);
	io->fs_total = sf.f_blocks * unit;
	io->fs_free = sf.f_bavail * unit;
	return 0;
}

static int fs_allocate(struct env_io *io, int mode)
{
	int r;
	do
		r = fallocate(io->file->fd, mode, (off_t)io->off, (off_t)io->len);
	while (r < 0 && errno == EINTR);
	return err(r);
}

/* An open file description's lock: other handles of this process are shut out too. */
static int fs_lock(struct env_io *io)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int r = err(fcntl(io->file->fd, F_OFD_SETLK, &fl));
	return r == -EAGAIN || r == -EACCES ? -EBUSY : r;
}

static int fs_truncate(struct env_io *io)
{
	int r;
	do
		r = ftruncate(io->file->fd, (off_t)io->off);
	while (r < 0 && errno == EINTR);
	return err(r);
}

static int64_t fs_call(struct env_io *io)
{
	switch (io->op) {
	case ENV_IO_SYNC: return err(fdatasync(io->file->fd));
	case ENV_IO_FSYNC: return err(fsync(io->file->fd));
	case ENV_IO_SYNCFS: return err(syncfs(io->file->fd));
	case ENV_IO_OPEN: return fs_open(io);
	case ENV_IO_CLOSE: return fs_close(io);
	case ENV_IO_UNLINK: return err(unlinkat(dir_fd(io->file), io->name, 0));
	case ENV_IO_RENAME: return fs_rename(io);
	case ENV_IO_MKDIR: return err(mkdirat(dir_fd(io->file), io->name, io->mode));
	case ENV_IO_LIST: return fs_list(io);
	case ENV_IO_TRUNCATE: return fs_truncate(io);
	case ENV_IO_PUNCH: return fs_allocate(io, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	case ENV_IO_ALLOC: return fs_allocate(io, 0);
	case ENV_IO_STAT: return fs_stat(io);
	case ENV_IO_STATFS: return fs_statfs(io);
	case ENV_IO_LOCK: return fs_lock(io);
	case ENV_IO_JOB: return io->job(io);
	case ENV_IO_READ:
	case ENV_IO_WRITE: break; /* io_rw's */
	}
	return -EINVAL;
}

void io_blocking(struct env_io *io)
{
	if (io->op == ENV_IO_READ || io->op == ENV_IO_WRITE)
		io_rw(io);
	else
		io->result = fs_call(io);
}

int env_linux_file_fd(struct env_file *f)
{
	return f ? f->fd : -1;
}
