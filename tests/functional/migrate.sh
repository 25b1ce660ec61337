#!/bin/bash
# A volume moves between gateways while a client of each has it open: every acknowledged write is read through the other
# one at once, whether it was forwarded or the ownership was handed over; also while a replica is killed and comes back.
. "$(dirname "$0")/lib.sh"
requires_qemu
rounds=${ROUNDS:-20}
cluster_start 3 --copies 3
dog vdi create -P V 64M || fail "create"
vid=$(printf %06x 0x"$(dog vdi list -r V | cut -d' ' -f8)")
gw() { echo "127.0.0.1:$(port "$1")"; }
owner_of() { # node index of V's owner: the newest claim in all logs
	local i
	for i in 0 1 2; do grep -h "this node is owner of VDI $vid, generation" "$T/s$i/sheep.log" | sed "s/^.*generation \([0-9]*\).*$/\1 $i/"; done |
		sort -n | tail -1 | cut -d' ' -f2
}
owner_is() { [ "$(owner_of)" = "$1" ]; }
at_rest() { nodes_are 3 && ! in_recovery; }

# Two clients that stay: qemu-io on gateway 0 and on gateway 1; holder I COMMAND waits for its answer.
declare -A said=([0]=0 [1]=0)
for i in 0 1; do
	mkfifo "$T/in$i"
	qemu-io -f raw -t none "sheepdog:$(gw $i):V" <"$T/in$i" >"$T/out-io$i" 2>&1 &
	holder[$i]=$!
done
exec 5>"$T/in0" 6>"$T/in1"
answers() { grep -c ' ops; ' "$T/out-io$1"; }
answered() { [ "$(answers "$1")" -ge "${said[$1]}" ]; }
holder() {
	echo "$2" >&$((5 + $1))
	said[$1]=$((said[$1] + 1))
	wait_for 20 answered "$1"
	! grep -iE 'error|fail|mismatch|verif' "$T/out-io$1" >&2 || fail "round $round: client $1: $2"
}
cleanup_test() { kill -9 "${holder[@]}" 2>/dev/null; }

# The blocks of ackwriter are 4 KiB at every multiple of 128 KiB; those of the two clients lie between them.
moves=0 kills=0
for ((round = 1; round <= rounds; round++)); do
	g=$((round % 2)) other=$(((round + 1) % 2))
	long=$((round % 5 == 3)) seconds=1
	[ $long -eq 0 ] || seconds=12 # an idle client that is still there is waited for: GW_HANDOVER_IDLE_NS
	ackwriter write "$(gw $g)" V "$T/state" -s "$seconds" -d 8 >"$T/w" 2>&1 &
	w=$!
	if [ $((round % 5)) -eq 2 ] || [ $round -eq 13 ]; then
		sleep 0.3
		kill_node 2
		kills=$((kills + 1))
	fi
	if [ $long -eq 1 ]; then
		wait_for 11 owner_is $g
		moves=$((moves + 1))
		kill -0 $w || fail "round $round: the writer has ended"
		kill -9 $w
		wait $w 2>/dev/null
	else
		wait $w || { cat "$T/w" >&2; fail "round $round: the writer failed"; }
	fi
	ackwriter verify "$(gw $other)" V "$T/state" >"$T/v" 2>&1 || { cat "$T/v" >&2; fail "round $round: through node $other"; }
	holder $g "write -P $round 65536 4096"
	holder $other "read -P $round 65536 4096"
	holder $other "write -P $((round + 100)) 65536 512"
	holder $g "read -P $((round + 100)) 65536 512"
	[ -n "$(pid_of 2)" ] && kill -0 "$(pid_of 2)" 2>/dev/null || start_node 2 || fail "round $round: node 2 does not come back"
done
for i in 0 1; do
	echo quit >&$((5 + i))
	wait "${holder[$i]}" || fail "client $i: $(tail -3 "$T/out-io$i")"
done
exec 5>&- 6>&-
wait_for 60 at_rest
for i in 0 1 2; do ackwriter verify "$(gw $i)" V "$T/state" >"$T/v" 2>&1 || { cat "$T/v" >&2; fail "at the end, through node $i"; }; done
echo "$rounds rounds, handed over $moves times, a replica killed $kills times; $(cat "$T/v")"
dog cluster shutdown || fail "shutdown"
for i in 0 1 2; do wait_gone "$(pid_of $i)"; done
for i in 0 1 2; do storedump "$T/s$i" >"$T/dump$i" || fail "dump of node $i"; done
cmp "$T/dump0" "$T/dump1" && cmp "$T/dump0" "$T/dump2" || fail "replicas differ"
