#!/bin/bash
# qemu/qemu-7.2.patch: the driver builds inside a QEMU source tree, with QEMU's own warnings.
. "$(dirname "$0")/lib.sh"
requires_qemu
tree=${SHEEP_QEMU_HEADERS:-$(sed -n 's/^QEMU_HEADERS = //p' "$build/Makefile")}
[ -f "$tree/block/meson.build" ] || fail "no QEMU source in '$tree'"
mkdir "$T/qemu" "$T/inst"
(cd "$tree" && tar cf - --exclude=./build .) | tar xf - -C "$T/qemu"
cp "$src"/qemu/sheepdog.c "$src"/qemu/sheepdog-name.[ch] "$T/qemu/block/"
(cd "$T/qemu" && patch -s -p1 --fuzz=0 <"$src/qemu/qemu-7.2.patch") || fail "the patch does not apply"
# libsheepdog as configure looks for it: a library that links is enough here.
echo 'int sd_cluster_open(const char *g, void **c) { return 0; }' >"$T/lib.c"
gcc -shared -fPIC -o "$T/inst/libsheepdog.so" "$T/lib.c" || fail "gcc"
mkdir "$T/qemu/build"
cd "$T/qemu/build" || exit 1
CFLAGS="-I$src/include" LDFLAGS="-L$T/inst" ../configure --without-default-features --disable-system --disable-user \
	--enable-tools --disable-docs --enable-sheepdog >configure.log 2>&1 || { tail -20 configure.log >&2; fail "configure"; }
grep -q 'sheepdog support *: YES' configure.log || fail "configure did not find libsheepdog"
../configure --help | grep -q '^ *sheepdog .*block device support' || fail "configure --help"
ninja libblock.fa.p/block_sheepdog.c.o libblock.fa.p/block_sheepdog-name.c.o >ninja.log 2>&1 ||
	{ tail -30 ninja.log >&2; fail "it does not compile"; }
! grep -q warning: ninja.log || { grep -A5 warning: ninja.log >&2; fail "warnings"; }
