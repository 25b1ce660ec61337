/* log.h - logging on libqb (cli.md 1.7).  libqb's state is per process, so this is the one allowed
 * global: each struct log is a tag in it, and lines are routed by that tag. */
#ifndef LIB_BASE_LOG_H
#define LIB_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_L_EMERG,
	LOG_L_ALERT,
	LOG_L_CRIT,
	LOG_L_ERR,
	LOG_L_WARNING,
	LOG_L_NOTICE,
	LOG_L_INFO,
	LOG_L_DEBUG
};
enum log_format { LOG_F_SERVER, LOG_F_DEFAULT, LOG_F_JSON };
enum log_dst { LOG_D_FILE, LOG_D_STDOUT, LOG_D_SYSLOG };

struct log;
struct log_conf {
	const char *program; /* "sheep" */
	enum log_dst dst;
	enum log_format format;
	enum log_level level;
	const char *path;     /* LOG_D_FILE: file to append to */
	const char *blackbox; /* file that a crash dumps libqb's blackbox to; NULL: none */
	uint16_t port;	      /* for the json format */
};

int log_open(const struct log_conf *conf, struct log **ret);
void log_close(struct log *l); /* NULL is fine */
void log_set_level(struct log *l, enum log_level level);
enum log_level log_get_level(const struct log *l);
/* Rotate to <path>.YYYY-MM-DD-HH-MM now (SIGHUP); also by itself at 500 MB. */
int log_rotate(struct log *l);
/* Write libqb's blackbox and, from a crash handler, a backtrace: async-signal-safe enough to be
 * tried. */
void log_crash_dump(struct log *l, int signo);
const char *log_level_name(enum log_level level); /* "emerg" ... "debug" */
int log_level_parse(const char *name);		  /* -EINVAL */

void log_write(struct log *l, enum log_level level, const char *func, int line, const char *fmt,
	       ...) __attribute__((format(printf, 5, 6)));

/* A NULL log is fine: nothing is written.  A level that is off costs one compare. */
#define log_at(l, lv, ...)                                                                         \
	do {                                                                                       \
		struct log *log_l_ = (l);                                                          \
		if (log_l_ && log_get_level(log_l_) >= (lv))                                       \
			log_write(log_l_, (lv), __func__, __LINE__, __VA_ARGS__);                  \
	} while (0)
#define log_err(l, ...)	   log_at(l, LOG_L_ERR, __VA_ARGS__)
#define log_warn(l, ...)   log_at(l, LOG_L_WARNING, __VA_ARGS__)
#define log_notice(l, ...) log_at(l, LOG_L_NOTICE, __VA_ARGS__)
#define log_info(l, ...)   log_at(l, LOG_L_INFO, __VA_ARGS__)
#define log_debug(l, ...)  log_at(l, LOG_L_DEBUG, __VA_ARGS__)

#endif
