/* crc.h - CRC-32C (Castagnoli) by ISA-L: standard initial value and final inversion, so that the
 * check value of "123456789" is 0xe3069283 (RFC 3720 B.4). */
#ifndef LIB_BASE_CRC_H
#define LIB_BASE_CRC_H

#include <isa-l/crc.h>
#include <stddef.h>
#include <stdint.h>

/* CRC-32C of @len bytes, continued from @crc (0 to begin).  Any thread. */
static inline uint32_t crc32c_more(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;
	while (len > (1u << 30)) { /* ISA-L takes an int */
		crc = ~crc32_iscsi((unsigned char *)p, 1 << 30, ~crc);
		p += 1u << 30;
		len -= 1u << 30;
	}
	return ~crc32_iscsi((unsigned char *)p, (int)len, ~crc);
}

static inline uint32_t crc32c(const void *buf, size_t len)
{
	return crc32c_more(0, buf, len);
}

#endif
