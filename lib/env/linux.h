/* linux.h - the production side of env.h: epoll, libaio, worker threads, sockets. */
#ifndef LIB_ENV_LINUX_H
#define LIB_ENV_LINUX_H

#include "lib/env/env.h"

struct env_linux_conf {
	unsigned nr_workers; /* threads for blocking file-system calls; 0: none until first used */
	unsigned aio_depth;  /* libaio events; 0: no libaio context (clients) */
};

/* A new env; the calling thread becomes its thread.  -errno. */
int env_linux_new(const struct env_linux_conf *conf, struct env **ret);
/* Frees it.  Every socket, file, timer and I/O must be gone before: asserted. */
void env_linux_free(struct env *e);
/* Run until env_linux_stop().  Sleeps in epoll_wait when idle. */
void env_linux_run(struct env *e);
/* One turn: wait at most @timeout_ms (-1: for ever, 0: do not wait), run what is ready. */
void env_linux_turn(struct env *e, int timeout_ms);
/* Make env_linux_run return after the current turn.  From any callback. */
void env_linux_stop(struct env *e);
/* The epoll fd (readable when a turn has something to do, timers included via a timerfd): for
 * nesting the env in another event loop. */
int env_linux_fd(struct env *e);
/* Watch a foreign fd (a cluster driver's, signalfd): @fn is called level-triggered while it is
 * readable. Returns a handle for env_linux_unwatch, or NULL with errno. */
struct env_watch;
struct env_watch *env_linux_watch(struct env *e, int fd, void (*fn)(int fd, void *arg), void *arg);
void env_linux_unwatch(struct env_watch *w);
/* The fd behind a file handle, for code that must hand it to a library; -1 for none. */
int env_linux_file_fd(struct env_file *f);

#endif
