/* test_base.c - buffers, maps, sizes, checksums, texts. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/crc.h"
#include "lib/base/map.h"
#include "lib/base/util.h"
#include "sheepdog/proto.h"

static void sizes(void **state)
{
	uint64_t v = 0;
	assert_int_equal(parse_size("256G", &v), 0);
	assert_true(v == 256ull << 30);
	assert_int_equal(parse_size("1.5k", &v), 0);
	assert_int_equal(v, 1536);
	assert_int_equal(parse_size("0", &v), 0);
	assert_int_equal(v, 0);
	static const char *const bad[] = {"", "10MB", "G", "-1", "1 G", ".", "1x", "+5"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_size(bad[i], &v), -EINVAL);
	assert_int_equal(parse_size("99999999999999999999", &v), -ERANGE);
	assert_int_equal(parse_size("9000P", &v), -ERANGE);
}

static void numbers(void **state)
{
	uint64_t v;
	assert_int_equal(parse_u64("65535", 1, 65535, &v), 0);
	assert_int_equal(parse_u64("65536", 1, 65535, &v), -EINVAL);
	assert_int_equal(parse_u64("0", 1, 65535, &v), -EINVAL);
	assert_int_equal(parse_u64("42a", 0, 100, &v), -EINVAL);
	assert_int_equal(parse_u64("+", 0, 100, &v), -EINVAL);
	assert_int_equal(parse_u64("-1", 0, UINT64_MAX, &v), -EINVAL);
	assert_int_equal(parse_u64("4294967296", 0, UINT32_MAX, &v), -EINVAL);
	assert_int_equal(parse_u64("0x10", 0, 100, &v), 0);
	assert_int_equal(v, 16);
	assert_int_equal(parse_u64("0x", 0, 100, &v), -EINVAL);
}

static void human(void **state)
{
	char b[32];
	assert_string_equal(format_size(4 << 20, false, b, sizeof(b)), "4.0 MB");
	assert_string_equal(format_size(0, false, b, sizeof(b)), "0.0 MB");
	assert_string_equal(format_size(12 << 20, false, b, sizeof(b)), "12 MB");
	assert_string_equal(format_size(256ull << 30, false, b, sizeof(b)), "256 GB");
	assert_string_equal(format_size(5ull << 40, false, b, sizeof(b)), "5.0 TB");
	assert_string_equal(format_size(12345, true, b, sizeof(b)), "12345");
}

static void checksum(void **state)
{
	assert_true(crc32c("123456789", 9) == 0xe3069283u);
	assert_true(crc32c_more(crc32c("1234", 4), "56789", 5) == 0xe3069283u);
}

static void buffers(void **state)
{
	struct buf_pool *p = buf_pool_new(1 << 20);
	struct buf *a = buf_new(p, 1), *b = buf_new(p, 5000), *big = buf_new(p, 20 << 20);
	assert_int_equal(a->cap, 4096);
	assert_int_equal(b->cap, 8192);
	assert_int_equal((uintptr_t)b->data % 4096, 0);
	assert_int_equal(buf_pool_used(p), 4096 + 8192 + (20 << 20));
	buf_get(a);
	buf_put(a);
	void *data = a->data;
	buf_put(a);
	struct buf *c = buf_new(p, 4096);
	assert_ptr_equal(c->data, data); /* reused */
	buf_put(c);
	buf_put(b);
	buf_put(big);
	assert_int_equal(buf_pool_used(p), 0);
	buf_pool_free(p);
}

/* Random sets and deletes against a plain array. */
static void maps(void **state)
{
	static int vals[512];
	bool in[512] = {false};
	struct map m;
	unsigned seed = 1;
	map_init(&m);
	assert_null(map_get(&m, 1));
	for (int n = 0; n < 200000; n++) {
		seed = seed * 1103515245 + 12345;
		unsigned k = (seed >> 8) % 512;
		uint64_t key = (uint64_t)k << 32;
		if (seed & 0x80000000) {
			assert_int_equal(map_set(&m, key, &vals[k]), 0);
			in[k] = true;
		} else {
			assert_ptr_equal(map_del(&m, key), in[k] ? &vals[k] : NULL);
			in[k] = false;
		}
	}
	size_t pos = 0, seen = 0, want = 0;
	uint64_t key;
	for (void *v; (v = map_next(&m, &pos, &key)); seen++)
		assert_ptr_equal(v, &vals[key >> 32]);
	for (unsigned k = 0; k < 512; k++) {
		want += in[k];
		assert_ptr_equal(map_get(&m, (uint64_t)k << 32), in[k] ? &vals[k] : NULL);
	}
	assert_int_equal(seen, want);
	map_done(&m);
}

static void texts(void **state)
{
	assert_string_equal(sd_result_text(SD_RES_NO_VDI), "No VDI found");
	assert_null(sd_result_text(0x7f));
	assert_string_equal(sd_op_name(0x9a), "KILL_NODE");
	assert_null(sd_op_name(0x80));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),    cmocka_unit_test(numbers), cmocka_unit_test(human),
		cmocka_unit_test(checksum), cmocka_unit_test(buffers), cmocka_unit_test(maps),
		cmocka_unit_test(texts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
