/* log.c - lib/base/log.h for simulated daemons: their lines are part of the story. */
#include "config.h"

#include "lib/base/log.h"
#include "tests/sim/sim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

struct log {
	struct world *w;
	const char *name;
	enum log_level level;
};

struct log *sim_log_new(struct world *w, const char *name)
{
	struct log *l = calloc(1, sizeof(*l));

	if (l)
		*l = (struct log){w, name, w->story ? LOG_L_DEBUG : LOG_L_INFO};
	return l;
}

void log_close(struct log *l)
{
	free(l);
}

void log_set_level(struct log *l, enum log_level level)
{
	l->level = level;
}

enum log_level log_get_level(const struct log *l)
{
	return l->level;
}

void log_write(struct log *l, enum log_level level, const char *func, int line, const char *fmt,
	       ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (level <= LOG_L_INFO)
		story(l->w, "%s   %s(%d): %s", l->name, func, line, text);
	else
		fprintf(l->w->story, "[%6llu.%06llu] %s     %s(%d): %s\n",
			(unsigned long long)(l->w->now / SEC),
			(unsigned long long)(l->w->now % SEC / US), l->name, func, line, text);
}
