/* util.h - small helpers without I/O: cleanup attributes, sizes, result texts. */
#ifndef LIB_BASE_UTIL_H
#define LIB_BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLEANUP(fn) __attribute__((cleanup(fn), unused))
#define TAKE(v, empty)                                                                             \
	({                                                                                         \
		__typeof__(v) t_ = (v);                                                            \
		(v) = (empty);                                                                     \
		t_;                                                                                \
	})
#define ARRAY_SIZE(a)	   (sizeof(a) / sizeof((a)[0]))
#define DIV_ROUND_UP(n, d) (((n) + (d)-1) / (d))
#define ROUND_UP(n, d)	   (DIV_ROUND_UP(n, d) * (d))
#define ROUND_DOWN(n, d)   ((n) / (d) * (d))

void freep(void *p); /* CLEANUP(freep) char *s */

/* Text of a wire result code (cli.md 8); "Invalid error code <hex>" for unknown ones, from a static
 * table, NULL when unknown. */
const char *sd_result_text(uint32_t result);
/* Name of an opcode ("READ_OBJ") or NULL. */
const char *sd_op_name(uint8_t opcode);

/* Parse a size (cli.md 1.1): decimal number, fractions allowed, optional one-letter suffix B K M G
 * T P in either case, 1024-based.  -EINVAL for anything else, -ERANGE above 2^63. */
int parse_size(const char *s, uint64_t *ret);
/* Parse a whole decimal (or 0x) number in [min, max]; -EINVAL. No sign, no space, no rest. */
int parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
/* As cli.md 2.3: "4.0 MB", "12 MB".  @raw: decimal bytes. */
char *format_size(uint64_t size, bool raw, char *buf, size_t len);
/* malloc'ed printf; NULL when memory is short. */
char *str_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
