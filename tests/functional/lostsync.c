/* lostsync.so - what lostfs cannot see by itself; preloaded into the daemons by power.sh.
 *  - FUSE does not pass syncfs() on: it is told to lostfs by an extended attribute.
 *  - The kernel forgets RWF_DSYNC of an asynchronous direct write on FUSE (its completion does not
 * sync): without a libaio context the daemon's workers write instead, and their syncs arrive. */
#include <dlfcn.h>
#include <errno.h>
#include <libaio.h>
#include <sys/xattr.h>
#include <unistd.h>

int syncfs(int fd)
{
	int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "syncfs");
	int r = next(fd);

	if (r == 0 && fsetxattr(fd, "user.lostfs.sync", "1", 1, 0) < 0 && errno != ENOTSUP)
		return -1;
	return r;
}

int io_setup(int maxevents, io_context_t *ctx)
{
	(void)maxevents, (void)ctx;
	return -EAGAIN;
}
