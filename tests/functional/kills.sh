#!/bin/bash
# kill -9 of owners, gateways and plain replicas while a client writes: no client error, no operation longer
# than 3 s, and at rest all replicas are equal in data and version.
# KILLS (default 204, with sanitizers 21): how many; a third each of owner, gateway, replica.
# Odd rounds run `qemu-img bench -w`, even ones a `qemu-io` loop that verifies what it wrote.
. "$(dirname "$0")/lib.sh"
requires_qemu
kills=${KILLS:-$([ -n "${SHEEP_SANITIZED:-}" ] && echo 21 || echo 204)}
limit_ms=3000
[ -z "${SHEEP_SANITIZED:-}" ] || limit_ms=10000
# 512 MiB = 128 objects of 4 MiB: the check at the end is over more than 100.
cluster_start 3 --copies 3
dog vdi create -P V 512M || fail "create"

owner_of() { # node index of V's owner: the newest claim in all logs
	local i
	for i in 0 1 2; do grep -h "this node is owner of VDI $vid, generation" "$T/s$i/sheep.log" | sed "s/^.*generation \([0-9]*\).*$/\1 $i/"; done |
		sort -n | tail -1 | cut -d' ' -f2
}
active() { dog node stat -r -p "$(port "$1")" 2>/dev/null | head -1 | cut -f1; }
total() { dog node stat -r -p "$(port "$1")" 2>/dev/null | head -1 | cut -f2; }
# Bytes that clients sent to node I and it did not read yet (it is stopped).
unread() {
	local hex
	hex=$(printf ':%04X' "$(port "$1")")
	awk -v p="$hex" '$2 ~ p "$" && $4 == "01" { split($5, q, ":"); if (q[2] != "00000000") n++ } END { print n + 0 }' /proc/net/tcp
}
vid=$(printf %06x 0x"$(dog vdi list -r V | cut -d' ' -f8)")
gw() { echo "127.0.0.1:$(port "$1")"; }

# A verify loop for qemu-io: 4 KiB patterns all over the volume, each read back.
io_script() {
	local n=$1 i off pat
	for ((i = 0; i < n; i++)); do
		off=$(((RANDOM * 32768 + RANDOM) % 131072 * 4096))
		pat=$((RANDOM % 255 + 1))
		echo "write -P $pat $off 4096"
		echo "read -P $pat $off 4096"
	done
	echo quit
}
client() { # client ROUND GATEWAYS
	if [ $(($1 % 2)) -eq 1 ]; then
		SHEEPDOG_GATEWAYS=$2 qemu-img bench -w -c 600 -d 8 -s 4096 -S 409600 -f raw -t none "sheepdog:${2%%,*}:V" >"$T/client" 2>&1
	else
		io_script 80 | SHEEPDOG_GATEWAYS=$2 qemu-io -f raw -t none "sheepdog:${2%%,*}:V" >"$T/client" 2>&1
	fi
}
check_client() {
	[ "$1" -eq 0 ] || { cat "$T/client" >&2; fail "round $round: the client failed with $1"; }
	! grep -qiE 'error|fail|mismatch' "$T/client" || { grep -iE 'error|fail|mismatch' "$T/client" >&2; fail "round $round: the client noticed"; }
	local ms
	ms=$(grep -oE ' ops; [0-9:.]+ sec' "$T/client" | awk '{ n = split($2, t, ":"); s = 0; for (i = 1; i <= n; i++) s = s * 60 + t[i]; if (s > m) m = s } END { print int(m * 1000) }')
	[ "${ms:-0}" -le $limit_ms ] || fail "round $round: an operation took $ms ms"
	[ "${ms:-0}" -le "$longest" ] || longest=$ms
}
at_rest() { [ "$(nr_nodes)" -eq 3 ] && ! in_recovery; }

# One round: victim of ROLE dies while a write that it takes part in is in flight.
declare -A done_by=([owner]=0 [gateway]=0 [replica]=0)
longest=0
dog vdi read V 0 1 -p "$(port 0)" >/dev/null || fail "read"
one_round() {
	local role=$1 o y z victim before tries flight=0 status p
	o=$(owner_of)
	[ -n "$o" ] || fail "nobody owns V"
	y=$(((o + 1 + round % 2) % 3)) # the client's gateway
	z=$((3 - o - y))
	case $role in owner) victim=$o ;; gateway) victim=$y ;; replica) victim=$z ;; esac
	before=$(total $y)
	client "$round" "$(gw $y),$(gw $z),$(gw $o)" &
	p=$!
	for ((tries = 0; tries < 500; tries++)); do
		[ "$(total $y)" -gt $((before + 20)) ] && break
		kill -0 $p 2>/dev/null || break
	done
	kill -STOP "$(pid_of $victim)"
	for ((tries = 0; tries < 100 && flight == 0; tries++)); do
		sleep 0.01
		if [ "$role" = gateway ]; then flight=$(unread $victim); else flight=$(active $y); fi
	done
	kill_node $victim
	wait $p
	status=$?
	check_client $status
	start_node $victim || fail "round $round: node $victim does not come back"
	wait_for 60 at_rest
	if [ "$flight" -gt 0 ]; then
		done_by[$role]=$((done_by[$role] + 1))
	else
		missed=$((missed + 1))
	fi
}
missed=0
want=$(((kills + 2) / 3))
for ((round = 0; round < 2 * kills; round++)); do
	for role in owner gateway replica; do [ ${done_by[$role]} -ge $want ] || break; done
	[ ${done_by[$role]} -lt $want ] || break
	one_round $role
done
for role in owner gateway replica; do
	[ ${done_by[$role]} -ge $want ] || fail "only ${done_by[$role]} kills of $role hit a write in flight"
done
echo "kills that hit a write in flight: owner ${done_by[owner]}, gateway ${done_by[gateway]}, replica ${done_by[replica]}; $missed hit none; longest operation $longest ms"

# Make the replicas differ: one dies, the others take writes to every object, then all die.
kill_node 2
SHEEPDOG_GATEWAYS="$(gw 0),$(gw 1)" qemu-img bench -w -c 256 -d 8 -s 4096 -S 2097152 -f raw -t none "sheepdog:$(gw 0):V" >"$T/client" 2>&1 ||
	fail "bench with two nodes"
kill_node 0
kill_node 1
for i in 0 1 2; do
	cp -a --sparse=always "$T/s$i" "$T/copy$i"
	storedump "$T/copy$i" >"$T/dump$i" || fail "dump of node $i"
	rm -rf "$T/copy$i"
done
differ=$(diff "$T/dump0" "$T/dump2" | grep -c '^>')
[ "$differ" -ge 20 ] || fail "only $differ objects differ before"
for i in 2 0 1; do start_node $i || fail "start of node $i"; done
wait_for 60 at_rest
dog vdi read V 0 1 >/dev/null || fail "read at the end"
wait_for 60 at_rest
dog cluster shutdown
for i in 0 1 2; do wait_gone "$(pid_of $i)"; done
for i in 0 1 2; do storedump "$T/s$i" >"$T/dump$i" || fail "dump of node $i"; done
[ "$(wc -l <"$T/dump0")" -ge 100 ] || fail "only $(wc -l <"$T/dump0") objects"
cmp "$T/dump0" "$T/dump1" && cmp "$T/dump0" "$T/dump2" || fail "replicas differ at rest: $(diff "$T/dump0" "$T/dump1" | head -5) $(diff "$T/dump0" "$T/dump2" | head -5)"
echo "$(wc -l <"$T/dump0") objects are equal in data and version on three nodes; $differ of them differed before"
