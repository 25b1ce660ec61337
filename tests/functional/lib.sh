# lib.sh - what the functional tests share.  Sourced by each tests/functional/*.sh, which is one feature, runs
# alone or in parallel, exits 0 (passed), 77 (skipped, the reason was printed) or anything else (failed).
#
# Environment: SHEEP_BUILD (the build directory; default: the current one), SHEEP_TEST_DIR (where stores go;
# default /tmp), KEEP=1 (leave everything in place).
set -u
src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${SHEEP_BUILD:-$PWD}
[ -x "$build/sheep/sheep" ] || { echo "no sheep in $build: run make there, or set SHEEP_BUILD" >&2; exit 99; }
export PATH="$build/sheep:$build/dog:$build/qemu:$build/tests/functional:$PATH"
export LD_LIBRARY_PATH="$build/.libs:$build/lib/client/.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=1} UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
T=$(mktemp -d "${SHEEP_TEST_DIR:-/tmp}/sheep-$(basename "$0" .sh).XXXXXX")
BUS=local:$T/bus
# 16 ports below the ephemeral range that nobody listens on; script/test gives tests that run at the same time a start
# of their own.
base=${SHEEP_TEST_PORT:-$((10000 + ($$ * 16) % 20000))}
ports_taken() {
	awk -v from="$base" '$4 == "0A" { split($2, a, ":"); p = 0
		for (i = 1; i <= 4; i++) p = p * 16 + index("0123456789ABCDEF", substr(a[length(a)], i, 1)) - 1
		if (p >= from && p < from + 16) found = 1 } END { exit !found }' /proc/net/tcp /proc/net/tcp6
}
while ports_taken; do base=$((10000 + (base - 10000 + 2720) % 20000)); done
export SHEEPDOG_DOG_PORT=$base

fail() {
	echo "FAIL: $*" >&2
	exit 1
}
skip() {
	echo "SKIP: $*"
	exit 77
}

requires_qemu() {
	[ -x "$build/qemu/qemu-img" ] || fail "no QEMU driver in $build: configure it --with-qemu-headers=DIR"
}

port() { echo $((base + $1)); }
pid_of() { cat "$T/pid$1" 2>/dev/null; }

# start_node I [OPTION...]: zone I, store $T/sI; returns when the daemon was accepted.
start_node() {
	local i=$1
	shift
	sheep -c "$BUS" -z "$i" -p "$(port "$i")" -y 127.0.0.1 -P "$T/pid$i" "$@" "$T/s$i" >>"$T/out$i" 2>&1 || {
		cat "$T/out$i" >&2
		return 1
	}
}
# kill_node I [SIGNAL]: and wait until it is gone.
kill_node() {
	local p
	p=$(pid_of "$1")
	[ -n "$p" ] || fail "node $1 has no pid file"
	kill -"${2:-KILL}" "$p" 2>/dev/null
	wait_gone "$p"
}
wait_gone() {
	local n=0
	while kill -0 "$1" 2>/dev/null; do
		n=$((n + 1))
		[ $n -lt 3000 ] || fail "process $1 does not end"
		sleep 0.01
	done
}
# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { "$@"; fail "waited in vain for: $*"; }
		sleep 0.1
	done
}
# cluster_start N [FORMAT-OPTION...]: N nodes, formatted.
cluster_start() {
	local n=$1 i
	shift
	for ((i = 0; i < n; i++)); do start_node "$i" || fail "node $i does not start"; done
	dog cluster format "$@" </dev/null || fail "format"
}
nr_nodes() { dog node list -r | wc -l; }
nodes_are() { [ "$(nr_nodes)" -eq "$1" ]; }
in_recovery() { dog node recovery -r 2>/dev/null | grep -q .; }
# pattern SEED BYTES: reproducible data.
pattern() { openssl enc -aes-128-ctr -K "$(printf %032x "$1")" -iv 0 -in /dev/zero 2>/dev/null | head -c "$2"; }
# expect EXIT COMMAND...
expect() {
	local want=$1 got
	shift
	"$@" >"$T/expect.out" 2>"$T/expect.err"
	got=$?
	[ "$got" -eq "$want" ] || { cat "$T/expect.out" "$T/expect.err" >&2; fail "exit $got, expected $want: $*"; }
}

cleanup() {
	local status=$? f p
	trap - EXIT
	for f in "$T"/pid*; do
		p=$(cat "$f" 2>/dev/null) && [ -n "$p" ] && kill -9 "$p" 2>/dev/null
	done
	type cleanup_test >/dev/null 2>&1 && cleanup_test
	if grep -l -E 'ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error:' "$T"/out* "$T"/s*/sheep.log >/dev/null 2>&1; then
		echo "a sanitizer spoke:" >&2
		grep -h -A 30 -E 'ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error:' "$T"/out* "$T"/s*/sheep.log | head -60 >&2
		[ $status -ne 0 ] || status=1
	fi
	if [ $status -ne 0 ] && [ $status -ne 77 ]; then
		for f in "$T"/out* "$T"/s*/sheep.log; do
			[ -s "$f" ] && { echo "--- $f"; tail -25 "$f"; } >&2
		done
	fi
	[ -n "${KEEP:-}" ] || rm -rf "$T"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM
