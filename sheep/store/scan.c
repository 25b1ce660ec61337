/* scan.c - at start: which objects there are, from the headers of their files.
 *
 * A file without a readable header is an object of unknown version, torn as a whole (so it ranks
 * below everything and is replaced), unless the journal has its creation.
 */
#include "config.h"

#include "sheep/store/store_int.h"
#include "sheep/mark.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct scan {
	struct store *st;
	char **names;
	unsigned next;
	int err;
};

static bool parse_oid(const char *s, uint64_t *oid)
{
	uint64_t v = 0;

	if (strlen(s) != 16)
		return false;
	for (; *s; s++) {
		if (*s >= '0' && *s <= '9')
			v = v << 4 | (uint64_t)(*s - '0');
		else if (*s >= 'a' && *s <= 'f')
			v = v << 4 | (uint64_t)(*s - 'a' + 10);
		else
			return false;
	}
	*oid = v;
	return true;
}

static bool is_temporary(const char *s)
{
	size_t n = strlen(s);

	return n > 4 && !strcmp(s + n - 4, ".tmp");
}

/* The largest object whose file is not longer than @len. */
static uint64_t size_of_file(uint64_t len)
{
	uint64_t n = len / BLK;

	if (n > size_blks(OBJ_SIZE_MAX))
		n = size_blks(OBJ_SIZE_MAX);
	while (n > 1 && size_file(n * BLK) > len)
		n--;
	return (n ? n : 1) * BLK;
}

static int take(struct store *st, uint64_t oid, const struct obj_header *h, uint64_t len, bool good)
{
	struct store_obj *o = index_add(st, oid);

	if (!o)
		return -ENOMEM;
	index_set(o, true);
	if (good) {
		o->ver = (struct obj_ver){h->gen, h->seq};
		o->size = h->size;
		o->copies = h->copies;
		o->torn_blk = h->torn_blk;
		o->torn_nr = h->torn_nr;
	} else if (MARKED(st_scan_no_header)) {
		o->ver = (struct obj_ver){0, 1};
		o->size = size_of_file(len);
		o->torn_nr = size_blks(o->size);
		o->no_header = true;
	}
	index_saw(st, o->ver);
	return 0;
}

static co_fn int scan_name(struct store *st, const char *name)
{
	struct obj_header h;
	uint64_t oid, len = 0;

	if (is_temporary(name) && MARKED(st_scan_leftover))
		return st_name_op(st, ENV_IO_UNLINK, st->obj, name, NULL, NULL); /* ~ */
	if (!parse_oid(name, &oid))
		return 0;
	int r = header_read(st, oid, &h, &len); /* ~ */
	if (r == -EIO &&
	    MARKED(st_scan_sector)) /* one bad sector is no reason to give up all others */
		r = -EILSEQ;
	if (r < 0 && r != -EILSEQ)
		return r;
	return take(st, oid, &h, len, r == 0);
}

static co_fn void scan_worker(void *arg)
{
	struct scan *s = arg;

	while (s->err == 0 && s->names[s->next]) {
		int r = scan_name(s->st, s->names[s->next++]); /* ~ */
		if (r < 0 && s->err == 0)
			s->err = r;
	}
}

co_fn int index_scan(struct store *st, char **err)
{
	struct scan s = {.st = st};
	struct co_group g;
	unsigned n = 0;

	s.err = st_list(st, st->obj, &s.names); /* ~ */
	co_group_init(&g);
	while (s.err == 0 && n < SCAN_WORKERS &&
	       co_group_start(st->s, &g, scan_worker, &s, "store scan") == 0)
		n++;
	if (s.err == 0 && !n)
		scan_worker(&s); /* ~ */
	co_group_wait(&g);	 /* ~ */
	st_free_names(s.names);
	if (s.err < 0 && MARKED(st_scan_io))
		st_says(err, "Cannot read the objects of %s: %s", st->conf.dir, strerror(-s.err));
	return s.err;
}
