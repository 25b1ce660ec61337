/* config.c - the store's config file and lock, and whose store it is.
 *
 * The config is written beside and renamed, so it is always whole.  A directory without one is new
 * only if it has no objects.
 */
#include "config.h"

#include "sheep/store/store_int.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "lib/base/crc.h"

enum { OLD_CONFIG_LEN = 40, OLD_FORMAT_OFF = 30, OLD_FORMAT_MAX = 64 };

static uint32_t config_sum(struct disk_config *c)
{
	uint32_t had = c->sum;

	c->sum = 0;
	uint32_t sum = crc32c(c, sizeof(*c));
	c->sum = had;
	return sum;
}

co_fn int config_lock(struct store *st, char **err)
{
	int r = st_open_at(st, st->dir, "lock", O_RDWR | O_CREAT, &st->lock); /* ~ */

	if (r == 0) {
		struct env_io io = {.op = ENV_IO_LOCK, .file = st->lock};
		r = (int)co_io(st->s, &io); /* ~ */
	}
	if (r == -EBUSY)
		st_says(err, "Another daemon is using %s: stop it first, or give another directory",
			st->conf.dir);
	else if (r < 0)
		st_says(err, "Cannot lock %s/lock: %s", st->conf.dir, strerror(-r));
	return r;
}

static int refuse(struct store *st, const uint8_t *p, uint64_t len, char **err)
{
	uint16_t format = 0;

	if (len == OLD_CONFIG_LEN)
		memcpy(&format, p + OLD_FORMAT_OFF, sizeof(format));
	if (format && format <= OLD_FORMAT_MAX)
		st_says(err,
			"%s is a store of the original Sheepdog (format %u), which this daemon "
			"cannot use: export the volumes with the old cluster's 'dog vdi read', and "
			"give an empty directory here",
			st->conf.dir, format);
	else
		st_says(err,
			"%s/config is not that of a store, or is damaged: give an empty directory; "
			"the data will come from the other nodes",
			st->conf.dir);
	return -EPROTO;
}

static int config_take(struct store *st, struct disk_config *c, char **err)
{
	if (c->magic != CONFIG_MAGIC || (c->format == STORE_FORMAT && c->sum != config_sum(c)))
		return refuse(st, (uint8_t *)c, sizeof(*c), err);
	if (c->format != STORE_FORMAT) {
		st_says(err,
			"%s has store format %u, this daemon knows format %u: start the daemon it "
			"belongs to, or give an empty directory",
			st->conf.dir, c->format, STORE_FORMAT);
		return -EPROTO;
	}
	struct store_ident *id = &st->ident;
	memcpy(id->uuid, c->uuid, sizeof(id->uuid));
	memcpy(id->boot_id, c->boot_id, sizeof(id->boot_id));
	memcpy(id->clean_name, c->clean_name, sizeof(id->clean_name));
	id->start = c->start;
	id->clean_epoch = c->clean_epoch;
	id->space = c->space;
	st->journal_id = c->journal_id;
	st->journal_prev = c->journal_prev;
	st->max_gen = c->max_gen;
	return 1;
}

static bool is_object_name(const char *s)
{
	return strlen(s) == 16 && strspn(s, "0123456789abcdef") == 16;
}

/* No config: a new directory, or one whose config was lost? */
static co_fn int config_none(struct store *st, char **err)
{
	struct env_file *obj;
	char **names = NULL;
	int r = st_open_at(st, st->dir, "obj", O_RDONLY | O_DIRECTORY, &obj); /* ~ */

	if (r == -ENOENT)
		return 0;
	if (r == 0) {
		r = st_list(st, obj, &names); /* ~ */
		st_close_file(st, obj);	      /* ~ */
	}
	for (unsigned i = 0; r == 0 && names[i]; i++)
		if (is_object_name(names[i]))
			r = -EPROTO;
	st_free_names(names);
	if (r == -EPROTO)
		st_says(err,
			"%s has objects but no config: put its config back, or give an empty "
			"directory",
			st->conf.dir);
	return r;
}

co_fn int config_read(struct store *st, char **err)
{
	struct disk_config c = {0};
	struct env_file *f;
	int r = st_open_at(st, st->dir, "config", O_RDONLY, &f); /* ~ */

	if (r == -ENOENT)
		return config_none(st, err); /* ~ */
	if (r < 0) {
		st_says(err, "Cannot open %s/config: %s", st->conf.dir, strerror(-r));
		return r;
	}
	struct iovec v = {.iov_base = &c, .iov_len = sizeof(c)};
	struct env_io io = {.op = ENV_IO_READ, .file = f, .iov = &v, .iovcnt = 1};
	int64_t n = co_io(st->s, &io); /* ~ */
	st_close_file(st, f);	       /* ~ */
	if (n < 0) {
		st_says(err, "Cannot read %s/config: %s", st->conf.dir, strerror((int)-n));
		return (int)n;
	}
	if (n < (int64_t)sizeof(c))
		return refuse(st, (uint8_t *)&c, (uint64_t)n, err);
	return config_take(st, &c, err);
}

co_fn int config_write(struct store *st)
{
	const struct store_ident *id = &st->ident;
	struct disk_config c = {
		.magic = CONFIG_MAGIC,
		.format = STORE_FORMAT,
		.start = id->start,
		.clean_epoch = id->clean_epoch,
		.space = id->space,
		.journal_id = st->journal_id,
		.journal_prev = st->journal_prev,
		.max_gen = st->max_gen,
	};
	struct env_file *f;

	memcpy(c.uuid, id->uuid, sizeof(c.uuid));
	memcpy(c.boot_id, id->boot_id, sizeof(c.boot_id));
	memcpy(c.clean_name, id->clean_name, sizeof(c.clean_name));
	c.sum = config_sum(&c);
	int r = st_open_at(st, st->dir, "config.tmp", O_RDWR | O_CREAT | O_TRUNC, &f); /* ~ */
	if (r < 0)
		return r;
	r = st_rw(st, ENV_IO_WRITE, f, &c, sizeof(c), 0, 0); /* ~ */
	if (r == 0 && !st->conf.nosync)
		r = st_sync_file(st, f, ENV_IO_FSYNC); /* ~ */
	st_close_file(st, f);			       /* ~ */
	if (r == 0)
		r = st_name_op(st, ENV_IO_RENAME, st->dir, "config.tmp", NULL, "config"); /* ~ */
	if (r == 0 && !st->conf.nosync)
		r = st_sync_file(st, st->dir, ENV_IO_FSYNC); /* ~ */
	return r;
}
