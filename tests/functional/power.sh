#!/bin/bash
# The power of all machines goes at once: what comes back holds only what was synced (tests/functional/lostfs.c),
# and every direct write that was acknowledged and every cached one that a flush covered is read back.
# ROUNDS (default 20, with sanitizers 3).
# What the disks hold is kept in memory: the simulated disks, not this machine's, are what is tested.
[ "$(df -Pk /dev/shm 2>/dev/null | awk 'END { print $4 + 0 }')" -lt 2000000 ] || export SHEEP_TEST_DIR=${SHEEP_TEST_DIR:-/dev/shm}
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-$([ -n "${SHEEP_SANITIZED:-}" ] && echo 3 || echo 20)}
[ -e /dev/fuse ] || skip "no /dev/fuse"
sync_lib=$build/tests/functional/.libs/lostsync.so
[ -f "$sync_lib" ] || fail "no $sync_lib"
mount_all() {
	local i
	for i in 0 1 2; do
		mkdir -p "$T/image$i" "$T/s$i"
		lostfs "$T/s$i" "$T/image$i" &
		fs[$i]=$!
		wait_for 10 mountpoint -q "$T/s$i"
	done
}
cut_all() { # the daemons are dead; the file systems keep what was synced
	local i
	for i in 0 1 2; do
		kill -TERM "${fs[$i]}"
		wait "${fs[$i]}"
		! mountpoint -q "$T/s$i" || fail "$T/s$i is still mounted"
	done
}
cleanup_test() {
	local i
	for i in 0 1 2; do
		[ -n "${fs[$i]:-}" ] && kill -9 "${fs[$i]}" 2>/dev/null
		mountpoint -q "$T/s$i" && umount -l "$T/s$i"
	done
}
# The preloaded part goes to the daemons only.
start_powered() {
	LD_PRELOAD=$sync_lib ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 start_node "$1" -j size=64M -l dir="$T/log$1"
}
fs=()
mount_all
for i in 0 1 2; do mkdir -p "$T/log$i"; start_powered $i || fail "start of node $i"; done
dog cluster format --copies=3 || fail "format"
for v in direct cached large; do dog vdi create $v 64M || fail "create"; done
all="127.0.0.1:$(port 0),127.0.0.1:$(port 1),127.0.0.1:$(port 2)"
running() { [ "$(nr_nodes)" -eq 3 ] && dog cluster info -r | grep -q '^running'; }
for ((round = 0; round < rounds; round++)); do
	ackwriter write "$all" direct "$T/direct.state" -s 60 -d 16 >"$T/w1" 2>&1 &
	w1=$!
	ackwriter write "$all" cached "$T/cached.state" -s 60 -d 16 -c >"$T/w2" 2>&1 &
	w2=$!
	ackwriter write "$all" large "$T/large.state" -s 60 -d 4 -z 131072 >"$T/w3" 2>&1 &
	w3=$!
	sleep 0.$((RANDOM % 6 + 3))
	for i in 0 1 2; do kill -STOP "$(pid_of $i)"; done
	for i in 0 1 2; do kill -9 "$(pid_of $i)"; done
	for w in $w1 $w2 $w3; do kill -0 $w 2>/dev/null || { cat "$T"/w? >&2; fail "round $round: a writer ended by itself"; }; done
	kill -9 $w1 $w2 $w3
	wait $w1 $w2 $w3 2>/dev/null
	for i in 0 1 2; do wait_gone "$(pid_of $i)"; done
	cut_all
	mount_all
	for i in $(shuf -e 0 1 2); do start_powered "$i" || fail "round $round: restart of node $i"; done
	wait_for 30 running
	ackwriter verify "127.0.0.1:$(port $((round % 3)))" direct "$T/direct.state" >"$T/v" || fail "round $round"
	ackwriter verify "127.0.0.1:$(port 0)" cached "$T/cached.state" -c >>"$T/v" || fail "round $round"
	ackwriter verify "127.0.0.1:$(port 1)" large "$T/large.state" -z 131072 >>"$T/v" || fail "round $round"
done
cat "$T/v"
for i in 0 1 2; do kill_node $i TERM; done
cut_all
