#!/bin/bash
# 64 connections that talk nonsense to the gateway of a working client, twice: no daemon dies, none leaks
# descriptors or memory, its memory stays bounded, and the client gets neither an error nor wrong data.
# SECONDS_EACH (default 10).
. "$(dirname "$0")/lib.sh"
each=${SECONDS_EACH:-10}
# the bound of payloads in memory (SD_DAEMON_BYTES_MAX, 512 MiB) and what the daemon has anyway
hwm_max=$(((512 + 200) << 10)) growth_max=$((96 << 10))
[ -z "${SHEEP_SANITIZED:-}" ] || hwm_max=$((hwm_max * 4)) growth_max=$((growth_max * 4))
cluster_start 3 --copies 3
dog vdi create V 64M || fail "create"
gw=127.0.0.1:$(port 0)
field() { awk -v f="$2:" '$1 == f { print $2 }' "/proc/$(pid_of "$1")/status"; }
# The sockets of node 0 that are neither listeners nor connections with another daemon: nodes connect to each other
# as they like and when they like, so their number says nothing.
inodes() { readlink "/proc/$(pid_of "$1")"/fd/* | sed -n "s/^socket:\[\(.*\)]$/$1 \1/p"; }
clients() {
	{ inodes 0; inodes 1; inodes 2; awk '{ print "unix", $7 }' /proc/net/unix; awk '{ print "tcp", $10, $4, $2, $3 }' /proc/net/tcp /proc/net/tcp6; } |
		awk '$1 == 0 { mine[$2] }
			$1 == 1 || $1 == 2 { theirs[$2] }
			$1 == "unix" || $3 == "0A" { delete mine[$2] }
			$1 == "tcp" && $2 in theirs { peer[$5, $4] }
			$1 == "tcp" && $2 in mine { ends[$2] = $4 SUBSEP $5; say[$2] = $0 }
			END { for (i in mine) if (!((ends[i]) in peer)) print i, say[i] }'
}
none_left() { clients; [ -z "$(clients)" ]; }
writer() { ackwriter write "$gw" V "$T/state" -s "$1" -d 8; }
writer 2 || fail "the client before"
wait_for 10 none_left
exec 5<>"/dev/tcp/127.0.0.1/$(port 0)" || fail "connect"
sleep 0.2
[ "$(clients | wc -l)" -eq 1 ] || fail "one client is not seen: $(clients)"
exec 5>&-

for round in 1 2; do
	writer $((each + 1)) >"$T/writer" 2>&1 &
	client=$!
	garbage -s "$each" -r $round "$(port 0)" || fail "garbage, round $round"
	wait "$client" || { cat "$T/writer"; fail "the client has failed in round $round"; }
	cat "$T/writer"
	for i in 0 1 2; do
		kill -0 "$(pid_of $i)" || fail "node $i has died"
	done
	nodes_are 3 || fail "a node has left"
	wait_for 20 none_left
	hwm[round]=$(field 0 VmHWM)
	echo "round $round: ${hwm[round]} KiB at most, $(field 0 VmRSS) KiB now"
	[ "${hwm[round]}" -lt $hwm_max ] || fail "memory of node 0 has no bound"
done
[ $((hwm[2] - hwm[1])) -lt $growth_max ] || fail "memory of node 0 grows: ${hwm[*]} KiB"
ackwriter verify "$gw" V "$T/state" || fail "data"
[ "$(dog vdi list -r | wc -l)" -eq 1 ] || fail "volumes: $(dog vdi list)"
for i in 0 1 2; do kill_node $i TERM; done
