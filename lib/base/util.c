/* util.c - see util.h. */
#include "lib/base/util.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sheepdog/proto.h"

void freep(void *p)
{
	free(*(void **)p);
}

const char *sd_result_text(uint32_t result)
{
	switch (result) {
#define TEXT_(code, name, text)                                                                    \
	case code: return text;
		SD_RESULTS(TEXT_)
#undef TEXT_
	}
	return NULL;
}

const char *sd_op_name(uint8_t opcode)
{
	switch (opcode) {
#define NAME_(code, name)                                                                          \
	case code: return #name;
		SD_OPS(NAME_)
#undef NAME_
	}
	return NULL;
}

static int size_shift(char suffix)
{
	static const char order[] = "BKMGTP";
	const char *p = suffix ? strchr(order, toupper((unsigned char)suffix)) : NULL;
	return p ? (int)(p - order) * 10 : -1;
}

int parse_size(const char *s, uint64_t *ret)
{
	unsigned __int128 whole = 0, frac = 0, scale = 1;
	const char *p = s;
	for (; isdigit((unsigned char)*p); p++) {
		whole = whole * 10 + (unsigned)(*p - '0');
		if (whole >> 63)
			return -ERANGE;
	}
	bool any = p != s;
	if (*p == '.') {
		for (p++; isdigit((unsigned char)*p); p++) {
			any = true;
			if (scale < 1000000000000ull) { /* finer digits than 1e-12 cannot matter */
				scale *= 10;
				frac = frac * 10 + (unsigned)(*p - '0');
			}
		}
	}
	if (!any)
		return -EINVAL;
	int shift = 0;
	if (*p && ((shift = size_shift(*p++)) < 0 || *p))
		return -EINVAL;
	unsigned __int128 v = (whole << shift) + (frac << shift) / scale;
	if (v >> 63)
		return -ERANGE;
	*ret = (uint64_t)v;
	return 0;
}

int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	char *end;
	if (!isdigit((unsigned char)s[0]))
		return -EINVAL;
	int base = s[0] == '0' && (s[1] == 'x' || s[1] == 'X') ? 16 : 10;
	errno = 0;
	unsigned long long v = strtoull(s, &end, base);
	if (errno || *end || (base == 16 && !s[2]) || v < min || v > max)
		return -EINVAL;
	*ret = v;
	return 0;
}

char *format_size(uint64_t size, bool raw, char *buf, size_t len)
{
	static const char *const units[] = {"MB", "GB", "TB", "PB", "EB"};
	if (raw) {
		snprintf(buf, len, "%llu", (unsigned long long)size);
		return buf;
	}
	double v = (double)size / (1 << 20);
	unsigned i = 0;
	while (v >= 1024 && i + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		i++;
	}
	snprintf(buf, len, v < 10 ? "%.1f %s" : "%.0f %s", v, units[i]);
	return buf;
}

char *str_printf(const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;
	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		s = NULL;
	va_end(ap);
	return s;
}
