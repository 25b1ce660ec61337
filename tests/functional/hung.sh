#!/bin/bash
# A daemon that hangs (SIGSTOP) is expelled by the others: clients go on within seconds, through every other gateway; when
# it wakes up it answers nothing old, comes back by itself as a new incarnation, and the copies become equal again.
# Rounds: the owner, another member; at the end all of them at once.  ROUNDS (default 2, with sanitizers 1).
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-$([ -n "${SHEEP_SANITIZED:-}" ] && echo 1 || echo 2)}
limit_ms=5000 # DESIGN 4.4: expel, lease and drift are under 3 s; the machine may be busy
[ -z "${SHEEP_SANITIZED:-}" ] || limit_ms=15000
cd "$T" && BUS=local:bus || exit 1 # relative: who comes back has changed its directory meanwhile
cluster_start 3 --copies 3
dog vdi create -P V 64M || fail "create"
vid=$(printf %06x 0x"$(dog vdi list -r V | cut -d' ' -f8)")
gw() { echo "127.0.0.1:$(port "$1")"; }
owner_of() {
	local i
	for i in 0 1 2; do grep -h "this node is owner of VDI $vid, generation" "$T/s$i/sheep.log" | sed "s/^.*generation \([0-9]*\).*$/\1 $i/"; done |
		sort -n | tail -1 | cut -d' ' -f2
}
members() { dog node list -r -p "$(port "$1")" 2>/dev/null | wc -l; }
members_are() { [ "$(members "$1")" -eq "$2" ]; }
starts() { grep -c "daemon (version" "$T/s$1/sheep.log"; }
came_back() { [ "$(starts "$1")" -gt "$2" ]; }
at_rest() { [ "$(nr_nodes)" -eq 3 ] && ! in_recovery; }
longest=0
hang() { # hang VICTIM: while clients of both others write
	local victim=$1 a=$((($1 + 1) % 3)) b=$((($1 + 2) % 3)) before p q ms
	before=$(starts "$victim")
	ackwriter write "$(gw $a),$(gw $b)" V "$T/state" -s 6 -d 4 >"$T/writer" 2>&1 &
	p=$!
	sleep 0.5
	q=$(pid_of "$victim")
	kill -STOP "$q"
	wait $p || { cat "$T/writer" >&2; fail "a write failed while node $victim hung"; }
	ms=$(sed -n 's/.*longest[^0-9]*\([0-9]*\).*/\1/p' "$T/writer")
	[ -n "$ms" ] || { cat "$T/writer" >&2; fail "the writer said nothing"; }
	[ "$ms" -le $limit_ms ] || fail "a write took $ms ms while node $victim hung"
	[ "$ms" -le $longest ] || longest=$ms
	wait_for 20 members_are $a 2
	kill -CONT "$q"
	# At once, through the one that slept: never anything old.
	ackwriter verify "$(gw "$victim"),$(gw $a)" V "$T/state" || fail "node $victim answered something old, or nothing"
	wait_for 30 came_back "$victim" "$before"
	[ "$(pid_of "$victim")" = "$q" ] && kill -0 "$q" || fail "node $victim is another process now"
	wait_for 60 at_rest
	ackwriter verify "$(gw "$victim")" V "$T/state" || fail "after the return of node $victim"
}
ackwriter write "$(gw 0)" V "$T/state" -s 1 -d 4 >/dev/null || fail "the first writes"
for ((round = 0; round < rounds; round++)); do
	hang "$(owner_of)"
	hang $((($(owner_of) + 1) % 3))
done
# (Last: who slept itself is patient with others for a while.)
for i in 0 1 2; do kill -STOP "$(pid_of $i)"; done
sleep 4
for i in 0 1 2; do kill -CONT "$(pid_of $i)"; done
ackwriter verify "$(gw 0),$(gw 1),$(gw 2)" V "$T/state" || fail "after all of them slept"
wait_for 60 at_rest
# A daemon between two lives ends on SIGTERM, and one that came back does.
for i in 0 1 2; do kill_node $i TERM; done
echo "PASS: $((2 * rounds)) daemons hung, the longest write took $longest ms"
