#!/bin/bash
# kill -9 of all three daemons at once, restart in any order: every acknowledged write is read back.
# ROUNDS (default 20, with sanitizers 4).  Direct writes, cached ones with flushes (their death loses nothing
# either: the kernel has them), small and large blocks.
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-$([ -n "${SHEEP_SANITIZED:-}" ] && echo 4 || echo 20)}
cluster_start 3 --copies 3
dog vdi create small 64M || fail "create"
dog vdi create large 128M || fail "create"
all="127.0.0.1:$(port 0),127.0.0.1:$(port 1),127.0.0.1:$(port 2)"
running() { [ "$(nr_nodes)" -eq 3 ] && dog cluster info -r | grep -q '^running'; }
orders=("0 1 2" "2 1 0" "1 0 2" "1 2 0" "2 0 1" "0 2 1")
for ((round = 0; round < rounds; round++)); do
	cached=
	[ $((round % 4)) -ne 3 ] || cached=-c
	ackwriter write "$all" small "$T/small.state" -s 60 -d 16 $cached >"$T/w1" 2>&1 &
	w1=$!
	ackwriter write "$all" large "$T/large.state" -s 60 -d 4 -z 131072 >"$T/w2" 2>&1 &
	w2=$!
	sleep 0.$((RANDOM % 6 + 3))
	for i in 0 1 2; do kill -STOP "$(pid_of $i)"; done # at once
	for i in 0 1 2; do kill -9 "$(pid_of $i)"; done
	kill -0 $w1 2>/dev/null && kill -0 $w2 2>/dev/null || { cat "$T/w1" "$T/w2" >&2; fail "round $round: a writer ended by itself"; }
	kill -9 $w1 $w2
	wait $w1 $w2 2>/dev/null
	for i in 0 1 2; do wait_gone "$(pid_of $i)"; done
	for i in ${orders[$((round % 6))]}; do start_node "$i" || fail "round $round: restart of node $i"; done
	wait_for 30 running
	ackwriter verify "127.0.0.1:$(port $((round % 3)))" small "$T/small.state" >"$T/v" || fail "round $round"
	ackwriter verify "127.0.0.1:$(port $(((round + 1) % 3)))" large "$T/large.state" -z 131072 >>"$T/v" || fail "round $round"
done
cat "$T/v"
