#!/bin/bash
# The QEMU block driver in the distribution's programs: names, create options, I/O, discard, growth, block status, cache
# modes, formats on top, several gateways; what is refused, and that other programs and other QEMUs are left alone.
. "$(dirname "$0")/lib.sh"
requires_qemu
g=127.0.0.1:$(port 0)
vol() { echo "sheepdog:$g:$1"; }
# refused TEXT COMMAND...: exit 1, TEXT on stderr.
refused() {
	local text=$1
	shift
	expect 1 "$@"
	grep -qF -- "$text" "$T/expect.err" || { cat "$T/expect.err" >&2; fail "'$text' expected from: $*"; }
}
# io VOLUME COMMAND...: qemu-io commands, each must succeed and every pattern match.
io() {
	local v=$1 c args=()
	shift
	for c in "$@"; do args+=(-c "$c"); done
	qemu-io -f raw "${args[@]}" "$v" >"$T/io" 2>&1 || { cat "$T/io" >&2; fail "qemu-io $v: $*"; }
	! grep -qiE 'failed|error|mismatch' "$T/io" || { cat "$T/io" >&2; fail "qemu-io $v: $*"; }
}
# extents VOLUME: "start length data" of each extent.
extents() {
	qemu-img map -f raw --output=json "$1" | python3 -c '
import json, sys
for e in json.load(sys.stdin):
    assert e["data"] != e["zero"], e
    print(e["start"], e["length"], int(e["data"]))'
}
objects() { dog vdi object map "$1" | tail -n +2 | wc -l; }

# ---- other programs ----
out=$(sheepdog-qemu true 2>&1) && [ -z "$out" ] || fail "true: $out"
out=$(sheepdog-qemu timeout 20 true 2>&1) && [ -z "$out" ] || fail "timeout: $out"
out=$(sheepdog-qemu sh -c 'echo hi; exit 3' 2>&1)
[ "$? $out" = "3 hi" ] || fail "sh: $out"
maps=$(sheepdog-qemu cat /proc/self/maps) || fail "cat"
[[ "$maps" == *libsheepdog-qemu.so* ]] || fail "the shim is not there"
[[ "$maps" != *sheepdog-block.so* && "$maps" != *libsheepdog.so* ]] || fail "the driver is in a program that is not QEMU"
sheepdog-qemu timeout 20 qemu-img --version | grep -q '^qemu-img version 7\.2' || fail "qemu-img under timeout"
expect 127 sheepdog-qemu no-such-program
expect 64 sheepdog-qemu
sheepdog-qemu --version | grep -q '^sheepdog-qemu [0-9]' || fail "version"
# Wrappers find neither themselves nor each other.
mkdir "$T/bin" "$T/fakes"
cp "$build/qemu/qemu-img" "$T/bin/"
expect 127 env PATH="$build/qemu:$T/bin" "$T/bin/qemu-img" --version
grep -q 'qemu-img: not found in PATH' "$T/expect.err" || fail "text of a missing program"
PATH="$T/bin:$build/qemu:$T/bin:$PATH" qemu-img --version >"$T/v" 2>&1 || fail "two wrappers in PATH: $(cat "$T/v")"
sheepdog-qemu "$T/bin/qemu-img" --version >"$T/v" 2>&1 || fail "a wrapper as a path"

# ---- other versions: a program that looks like a QEMU ----
cat >"$T/fake.c" <<'C'
#include <stdio.h>
int registered;
void register_module_init(void (*fn)(void), int type) { registered++; }
void bdrv_register(void *driver) { registered++; }
#ifdef VERSION
const char creator[] = "QEMU v" VERSION;
#else
const char creator[] = "nothing";
#endif
int main(void) { printf("ran %d %s\n", registered, creator); return 0; }
C
fake() { # fake NAME [VERSION]
	gcc -O0 -rdynamic ${2:+-DVERSION="\"$2\""} -o "$T/fakes/$1" "$T/fake.c" || fail "gcc"
	out=$(sheepdog-qemu "$T/fakes/$1" 2>"$T/fake.err") || fail "$1 does not run"
	[[ "$out" == "ran 0 "* ]] || fail "$1: $out"
}
for v in 7.1.0 7.2.50 8.0.0 8.2.2 10.0.3; do
	fake "qemu-$v" $v
	grep -qF "is QEMU $v; the sheepdog block driver is made for and tested with 7.2.x: not loaded" "$T/fake.err" ||
		fail "text for $v: $(cat "$T/fake.err")"
done
fake qemu-unknown
grep -q 'cannot tell the version of qemu-unknown' "$T/fake.err" || fail "text for no version"
# In the range it is loaded, which fails here: the fake has nothing else of QEMU.
fake qemu-7.2.0 7.2.0
grep -q 'cannot load the block driver: .*undefined symbol' "$T/fake.err" || fail "text for 7.2.0: $(cat "$T/fake.err")"

# ---- names ----
cluster_start 3 --copies 3
qemu-img create "$(vol Alice)" 256G >"$T/out" || fail "create"
[ "$(cat "$T/out")" = "Formatting '$(vol Alice)', fmt=raw size=274877906944" ] || fail "output of create"
[ "$(dog vdi list -r Alice | cut -d' ' -f2-5)" = "Alice 0 274877906944 0" ] || fail "row: $(dog vdi list -r Alice)"
sock=$(ls "$T"/s1/sock)
[ -S "$T/s1/sock" ] || fail "no socket: $sock"
for n in "$(vol Alice)" "sheepdog://$g/Alice" "sheepdog+tcp://$g/Alice" "sheepdog://$g/%41lice" \
	"sheepdog+unix:///Alice?socket=$T/s1/sock" \
	"json:{\"driver\":\"sheepdog\",\"vdi\":\"Alice\",\"server\":{\"type\":\"inet\",\"host\":\"127.0.0.1\",\"port\":\"$(port 2)\"}}" \
	"json:{\"driver\":\"sheepdog\",\"vdi\":\"Alice\",\"gateways\":\"127.0.0.1:1,127.0.0.1:$(port 2)\"}"; do
	qemu-img info "$n" >"$T/out" 2>&1 || fail "info $n: $(cat "$T/out")"
	grep -q '^virtual size: 256 GiB' "$T/out" || fail "size of $n"
done
qemu-img info --image-opts "driver=sheepdog,vdi=Alice,server.host=127.0.0.1,server.port=$(port 1)" >/dev/null || fail "options"
SHEEPDOG_GATEWAYS="127.0.0.1:$(port 1),127.0.0.1:$(port 2)" qemu-img info sheepdog:Alice >"$T/out" || fail "no host, SHEEPDOG_GATEWAYS"
grep -q '^image: sheepdog:Alice$' "$T/out" || fail "name in info"
qemu-img info "$(vol Alice)" | grep -q '^cluster_size: 4194304$' || fail "cluster size"
for n in Alice:1 Alice:tag; do refused "snapshots are not supported yet" qemu-img info "$(vol $n)"; done
refused "snapshots are not supported yet" qemu-img info "sheepdog://$g/Alice#tag"
refused "'0' is not a valid snapshot id" qemu-img info "$(vol Alice:0)"
refused "'4294967296' is not a valid snapshot id" qemu-img info "$(vol Alice:4294967296)"
refused "too many colons" qemu-img info "$(vol Alice:a:b)"
refused "no volume is named" qemu-img info "$(vol "")"
refused "names no volume" qemu-img info "sheepdog://$g/"
refused "has no query" qemu-img info "sheepdog://$g/Alice?a=b"
refused "exactly one query field" qemu-img info "sheepdog+unix:///Alice"
refused "exactly one query field" qemu-img info "sheepdog+unix:///Alice?socket=$T/s1/sock&x=y"
refused "has no host" qemu-img info "sheepdog+unix://host/Alice?socket=$T/s1/sock"
refused "is not a valid address" qemu-img info sheepdog:127.0.0.1:99999:Alice
refused "too long" qemu-img info "$(vol "$(printf 'x%.0s' {1..256})")"
refused "cannot open volume 'Nobody': No VDI found" qemu-img info "$(vol Nobody)"
qemu-io -c "open -o file.vdi=Bob $(vol Alice)" 2>&1 | grep -q "Option vdi cannot be used with an image name" ||
	fail "a volume named twice"
refused "cannot open volume 'Alice'" qemu-img info sheepdog:127.0.0.1:1:Alice
grep -q 'onnection refused' "$T/expect.err" || fail "no reason for a dead gateway: $(cat "$T/expect.err")"

# ---- create options ----
refused "cannot create volume 'Alice': VDI exists already" qemu-img create "$(vol Alice)" 1G
qemu-img create -o redundancy=2,object_size=1M "$(vol Small)" 10M >/dev/null || fail "redundancy, object_size"
dog vdi list -r Small | grep -Eq '^= Small 0 10485760 0 0 [0-9]+ [0-9a-f]+ 2  20$' || fail "row: $(dog vdi list -r Small)"
qemu-img create -o preallocation=full "$(vol Full)" 10M >/dev/null || fail "preallocation"
[ "$(objects Full)" -eq 3 ] || fail "three objects expected, $(objects Full) are there"
[ "$(extents "$(vol Full)")" = "0 10485760 1" ] || fail "extents of a full volume"
io "$(vol Full)" 'read -P 0 0 10M'
qemu-img create -o preallocation=off "$(vol Odd)" 1000 >/dev/null || fail "preallocation=off"
qemu-img info "$(vol Odd)" | grep -q '(1024 bytes)' || fail "sizes are rounded up to 512"
refused "erasure coding is not supported yet" qemu-img create -o redundancy=4:2 "$(vol Bad)" 1G
refused "must be a number of copies" qemu-img create -o redundancy=32 "$(vol Bad)" 1G
refused "must be a number of copies" qemu-img create -o redundancy=x "$(vol Bad)" 1G
refused "power of two" qemu-img create -o object_size=3M "$(vol Bad)" 1G
refused "power of two" qemu-img create -o object_size=4G "$(vol Bad)" 1G
refused "must be off or full" qemu-img create -o preallocation=metadata "$(vol Bad)" 1G
refused "backing files" qemu-img create -b "$(vol Alice)" -F raw "$(vol Bad)" 1G
refused "cannot open volume" qemu-img info "$(vol Bad)"

# ---- convert both ways ----
pattern 3 9000000 >"$T/r.raw"
truncate -s 64M "$T/r.raw"
pattern 4 70000 | dd of="$T/r.raw" bs=1M seek=40 conv=notrunc status=none
qemu-img convert -f raw "$T/r.raw" "$(vol Conv)" || fail "convert to"
[ "$(objects Conv)" -eq 4 ] || fail "four objects expected, $(objects Conv) are there"
qemu-img compare -f raw -F raw "$T/r.raw" "sheepdog:127.0.0.1:$(port 1):Conv" >/dev/null || fail "compare"
qemu-img convert -f raw -O qcow2 "sheepdog:127.0.0.1:$(port 2):Conv" "$T/r.qcow2" || fail "convert from"
qemu-img compare -f raw -F qcow2 "$T/r.raw" "$T/r.qcow2" >/dev/null || fail "compare what came back"
qemu-img convert -n -f raw -O raw "$T/r.raw" "$(vol Full)" 2>/dev/null && fail "converted into a volume that is too small"
qemu-img create "$(vol Conv2)" 64M >/dev/null && io "$(vol Conv2)" 'write -P 9 0 64M'
qemu-img convert -n -f raw -O raw "$T/r.raw" "$(vol Conv2)" || fail "convert over data"
qemu-img compare -f raw -F raw "$T/r.raw" "$(vol Conv2)" >/dev/null || fail "compare over data"

# ---- I/O, block status, discard, zeros ----
qemu-img create "$(vol Io)" 100M >/dev/null
io "$(vol Io)" 'read -P 0 0 100M' 'write -P 5 1M 10M' 'read -P 5 1M 10M' 'read -P 0 0 1M' 'read -P 0 11M 5M' \
	'write -P 6 5000000 1' 'read -P 6 5000000 1' 'read -P 5 4999000 1000' 'read -P 5 5000001 1000' \
	'writev -P 3 60M 4k 512 1k 3k' 'readv -P 3 60M 512 4k 4k' 'write -P 7 99M 1M' 'read -P 7 104856576 1024' \
	'aio_write -P 8 20M 64k' 'aio_write -P 9 21M 3M' 'aio_write -P 10 30M 1M' aio_flush 'read -P 8 20M 64k' 'read -P 9 21M 3M' \
	'read -P 10 30M 1M' 'write -f -P 11 40M 4k' 'read -P 11 40M 4k' flush
expect 1 qemu-io -f raw -c 'read 100M 512' "$(vol Io)"
want="0 12582912 1
12582912 8388608 0
20971520 4194304 1
25165824 4194304 0
29360128 4194304 1
33554432 8388608 0
41943040 4194304 1
46137344 16777216 0
62914560 4194304 1
67108864 33554432 0
100663296 4194304 1"
[ "$(extents "$(vol Io)")" = "$want" ] || fail "extents: $(extents "$(vol Io)")"
before=$(objects Io)
io "$(vol Io)" 'discard 4M 4M' 'read -P 0 4M 4M' 'read -P 5 1M 3M' 'discard 9M 1M' 'read -P 5 9M 1M'
[ "$(objects Io)" -eq $((before - 1)) ] || fail "discard gave no object back"
io "$(vol Io)" 'write -z -u 8M 5M' 'read -P 0 8M 5M' 'write -z -u 1M 2M' 'read -P 0 0M 3M' 'read -P 5 3M 1M'
[ "$(objects Io)" -eq $((before - 2)) ] || fail "zeros with unmap gave no object back"
io "$(vol Io)" 'write -z 20M 10M' 'read -P 0 20M 10M' 'write -P 12 22M 1M' 'read -P 12 22M 1M' 'read -P 0 23M 1M'
[ "$(objects Io)" -eq $((before - 2)) ] || fail "zeros without unmap changed what is allocated"
qemu-img info "$(vol Io)" | grep -q "^disk size: $(((before - 2) * 4)) MiB\$" || fail "disk size: $(qemu-img info "$(vol Io)")"
qemu-io -f raw -r -c 'write 0 4k' "$(vol Io)" 2>&1 | grep -q 'read-only' || fail "written through a read-only node"

# ---- cache modes, reopen ----
for m in none directsync writeback writethrough unsafe; do
	qemu-io -f raw -t $m -c 'write -P 13 0 8k' -c 'write -f -P 14 8k 8k' -c flush -c 'read -P 14 8k 8k' "$(vol Io)" >"$T/io" 2>&1 ||
		fail "cache mode $m: $(cat "$T/io")"
done
io "$(vol Io)" 'reopen -o cache.direct=on' 'write -P 15 0 8k' 'reopen -o cache.direct=off' 'write -P 16 8k 8k' 'reopen -r' \
	'read -P 15 0 8k' 'read -P 16 8k 8k' 'reopen -w' 'write -P 17 0 4k' 'read -P 17 0 4k'
io "$(vol Io)" 'read -P 17 0 4k' 'read -P 15 4k 4k' 'read -P 16 8k 8k'

# ---- growth, formats on top ----
qemu-img resize -f raw "$(vol Io)" 120M >/dev/null || fail "resize"
io "$(vol Io)" 'read -P 7 99M 1M' 'read -P 0 100M 20M' 'write -P 18 119M 1M' 'read -P 18 119M 1M'
before=$(objects Io)
qemu-img resize -f raw --preallocation=full "$(vol Io)" 128M >/dev/null || fail "resize with preallocation"
[ "$(objects Io)" -eq $((before + 2)) ] || fail "two objects more expected"
io "$(vol Io)" 'read -P 0 120M 8M'
refused "cannot shrink" qemu-img resize -f raw --shrink "$(vol Io)" 64M
refused "Unsupported preallocation mode 'falloc'" qemu-img resize -f raw --preallocation=falloc "$(vol Io)" 256M
[ "$(dog vdi list -r Io | cut -d' ' -f4)" -eq $((128 << 20)) ] || fail "size after all that"
qemu-img create -f qcow2 "$(vol Q)" 1G >/dev/null || fail "qcow2 on a volume"
qemu-io -f qcow2 -c 'write -P 19 100M 20M' "$(vol Q)" >"$T/io" 2>&1 || fail "qcow2 grows: $(cat "$T/io")"
qemu-io -f qcow2 -c 'read -P 19 100M 20M' -c 'read -P 0 0 100M' "$(vol Q)" >"$T/io" 2>&1 || fail "qcow2 reads"
! grep -q failed "$T/io" || fail "qcow2 reads other data: $(cat "$T/io")"
qemu-img check -q -f qcow2 "$(vol Q)" || fail "qcow2 check"

# ---- as an NBD server ----
qemu-nbd -f raw -r -k "$T/nbd" --pid-file="$T/nbdpid" "$(vol Conv)" >"$T/outnbd" 2>&1 &
nbd=$!
wait_for 10 test -S "$T/nbd"
qemu-img compare -f raw -F raw "$T/r.raw" "nbd+unix:///?socket=$T/nbd" >/dev/null || fail "compare over NBD"
wait $nbd || fail "qemu-nbd: $(cat "$T/outnbd")"

# ---- a gateway dies, the client knows others ----
gateways="$g,127.0.0.1:$(port 1),127.0.0.1:$(port 2)"
SHEEPDOG_GATEWAYS=$gateways qemu-img bench -w -c 6000 -d 16 -s 4096 -f raw -t none "$(vol Conv2)" >"$T/bench" 2>&1 &
client=$!
writes() { [ "$(dog node stat -r | head -1 | cut -f2)" -gt "$1" ]; }
wait_for 10 writes $(($(dog node stat -r | head -1 | cut -f2) + 200))
kill -0 $client 2>/dev/null || fail "the client was done before the kill"
kill_node 0
wait $client || fail "the client noticed: $(cat "$T/bench")"
grep -q 'Run completed' "$T/bench" || fail "bench: $(cat "$T/bench")"
SHEEPDOG_GATEWAYS=$gateways qemu-io -f raw -c 'write -P 20 0 1M' -c 'read -P 20 0 1M' "$(vol Conv2)" >"$T/io" 2>&1 ||
	fail "a dead gateway first in the list: $(cat "$T/io")"
# The list is not for a daemon that is not in it.
SHEEPDOG_GATEWAYS="127.0.0.1:$(port 1)" refused "cannot open volume" qemu-img info "$(vol Conv2)"
