#!/bin/bash
# The histories of real clients, under real faults, fit one order (I1, I2), and the replicas are equal at rest (I3).
#   SEED=7 RUN_SECONDS=1800 bash tests/functional/history.sh
# Three clients (history_client.c: the real libsheepdog) over three gateways, each with a volume of its own and one that
# all share, work on few places while daemons and clients are killed, stopped, added and restarted as SEED says (what
# meets what is up to the machine).  After each round of faults all heals; then the checker of the simulator
# (tests/sim/check.h) judges what they saw, and the stores are compared byte by byte.
# RUN_SECONDS: default 60, with sanitizers 30.  A failure leaves everything in place, and says where.
. "$(dirname "$0")/lib.sh"
seconds=${RUN_SECONDS:-$([ -n "${SHEEP_SANITIZED:-}" ] && echo 30 || echo 60)}
seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
round_ms=$((seconds >= 300 ? 25000 : 12000))
limit_ms=30000 # of an operation, whatever happens meanwhile
copies=3 nodes="0 1 2 3" extra=4
echo "history: SEED=$seed RUN_SECONDS=$seconds"

# ---- the dice: rnd N sets R to 0..N-1 ----
dice=$((seed * 2654435761 % 2147483647 + 1))
rnd() {
	dice=$((dice * 48271 % 2147483647))
	R=$((dice / 7 % $1))
}
pick() { # pick WORD...: one of them, in P
	rnd $#
	shift $R
	P=$1
}
shuffle() { # in P
	local list=("$@") i t
	for ((i = $# - 1; i > 0; i--)); do
		rnd $((i + 1))
		t=${list[$i]} list[$i]=${list[$R]} list[$R]=$t
	done
	P="${list[*]}"
}
sleep_ms() {
	local s
	printf -v s '%d.%03d' $(($1 / 1000)) $(($1 % 1000))
	sleep "$s"
}
sleep_up_to() {
	rnd "$1"
	sleep_ms $R
}

# ---- what happens is written down ----
declare -A faults=() figures=()
note() { echo "$(historian now) $*" >>"$R_DIR/events"; }
begin() { # KIND WHAT...
	faults[$1]=$((${faults[$1]:-0} + 1))
	note begin "$@"
}

# ---- nodes ----
up=
is_up() { [[ " $up " == *" $1 "* ]]; }
start() {
	start_node "$1" -j size=64M || fail "node $1 does not start"
	is_up "$1" || up="$up $1"
}
down() {
	local i new=
	for i in $up; do [ "$i" = "$1" ] || new="$new $i"; done
	up=$new
}
signal() { kill -"$2" "$(pid_of "$1")" 2>/dev/null || fail "node $1 is gone (signal $2)"; }
nr_up() { echo $up | wc -w; }
running() { dog cluster info -r -p "$(port "${up:1:1}")" | grep -q '^running'; }
at_rest() {
	local n
	n=$(dog node list -r -p "$(port "${up:1:1}")" | wc -l)
	[ "$n" -eq "$(nr_up)" ] && running && ! dog node recovery -r -p "$(port "${up:1:1}")" 2>/dev/null | grep -q .
}
quiet() { # no node has a request of anybody
	local i
	for i in $up; do dog node stat -r -p "$(port "$i")" | awk '$1 != 0 { exit 1 }' || return 1; done
}
kill_all() {
	local i
	for i in $up; do signal "$i" STOP; done # at once
	for i in $up; do kill -9 "$(pid_of "$i")"; done
	for i in $up; do wait_gone "$(pid_of "$i")"; done
}
start_all() { # those that were up, in any order
	local i
	shuffle $up
	for i in $P; do start "$i"; done
}

# ---- clients ----
number=0 clients="0 1 2"
volumes=("own0:d" "own1:c:d" "own2:d" "shared")
client() { # I: a new incarnation
	local g="" i
	for i in 0 1 2 3; do g="$g,127.0.0.1:$(port $((($1 + i) % 4)))"; done
	number=$((number + 1))
	local shared=shared
	[ "$1" -ne 2 ] || shared=shared:c
	historian client "${g:1}" "$R_DIR/h.$number" $number "$seed" "${volumes[$1]}" $shared >>"$R_DIR/out.$1" 2>&1 &
	c_pid[$1]=$!
	c_file[$1]=$R_DIR/h.$number
}
clients_are_well() {
	local i
	for i in $clients; do
		kill -0 "${c_pid[$i]}" 2>/dev/null || fail "client $i ended by itself: $(cat "$R_DIR/out.$i")"
	done
}
cleanup_test() {
	local i
	for i in $clients; do kill -9 "${c_pid[$i]:-}" 2>/dev/null; done
	[ "$status" -eq 0 ] || [ -n "${KEEP:-}" ] || KEEP=1
	[ "$status" -eq 0 ] || echo "history: SEED=$seed failed; histories, events, stories, stores and logs are in $T" >&2
}

# ---- faults ----
f_kill() {
	pick $up; local i=$P
	begin kill "node $i"
	kill_node "$i"
	sleep_up_to 1500
	start "$i"
	note end kill
}
f_two() { # one after the other, or nearly at once
	shuffle $up; local v=($P)
	begin two "nodes ${v[0]} ${v[1]}"
	kill_node "${v[0]}"
	rnd 2; [ $R -eq 0 ] || sleep_up_to 300
	kill_node "${v[1]}"
	sleep_up_to 1000
	shuffle "${v[0]}" "${v[1]}"; v=($P)
	start "${v[0]}"
	sleep_up_to 300
	start "${v[1]}"
	note end two
}
f_all() {
	begin all "nodes $up"
	kill_all
	sleep_up_to 800
	start_all
	wait_for 30 running
	note end all
}
f_orderly() {
	pick $up; local i=$P
	begin orderly "node $i"
	kill_node "$i" TERM
	sleep_up_to 1000
	start "$i"
	note end orderly
}
f_stop() { # shorter than a lease
	pick $up; local i=$P
	begin stop "node $i"
	signal "$i" STOP
	sleep_up_to 600
	signal "$i" CONT
	note end stop
}
f_hang() { # longer: the others expel it, and it comes back
	pick $up; local i=$P
	begin hang "node $i"
	signal "$i" STOP
	rnd 4000; sleep_ms $((2500 + R))
	signal "$i" CONT
	note end hang
}
f_stopkill() { # one is stopped while another dies
	shuffle $up; local v=($P)
	begin stopkill "node ${v[0]} stopped, ${v[1]} killed"
	signal "${v[0]}" STOP
	sleep_up_to 300
	kill_node "${v[1]}"
	sleep_up_to 1500
	signal "${v[0]}" CONT
	sleep_up_to 300
	start "${v[1]}"
	note end stopkill
}
f_node() { # the fifth node comes, or goes once nobody needs it
	begin node "$extra ($up )"
	if ! is_up $extra; then
		start $extra
	else
		wait_for 60 at_rest
		pick KILL TERM
		kill_node $extra "$P"
		down $extra
	fi
	note end node
}
f_client() {
	pick $clients; local i=$P
	begin client "$i"
	kill -9 "${c_pid[$i]}"
	wait "${c_pid[$i]}" 2>/dev/null
	rnd 2; [ $R -eq 0 ] || sleep_up_to 300
	client "$i"
	note end client
}
f_pause() {
	pick $clients; local i=$P
	begin pause "client $i"
	kill -STOP "${c_pid[$i]}"
	sleep_up_to 3000
	kill -CONT "${c_pid[$i]}"
	note end pause
}
one_fault() {
	pick kill kill kill kill two two all all orderly stop stop stop hang stopkill stopkill node client client pause
	f_$P
}

# ---- the end of a round ----
idle() {
	local i
	for i in $clients; do [ -e "${c_file[$i]}.idle" ] || return 1; done
}
in_place() { # every object on as many of the nodes that run as it has copies
	(for i in $up; do ls "$T/s$i/obj" 2>/dev/null; done) | sort | uniq -c | awk -v n=$copies '$1 != n { exit 1 }'
}
end_clients() {
	local i
	for i in $clients; do kill -TERM "${c_pid[$i]}"; done
	wait_for 60 idle
	wait_for 60 quiet
	note rest
	for i in $clients; do kill -USR1 "${c_pid[$i]}"; done
	for i in $clients; do wait "${c_pid[$i]}" || fail "client $i: $(cat "$R_DIR/out.$i")"; done
}
compare() {
	local i
	for i in $up; do
		cp -a --sparse=always "$T/s$i" "$T/copy"
		storedump "$T/copy" >"$R_DIR/dump$i" || fail "the store of node $i cannot be read"
		rm -rf "$T/copy"
	done
	cat "$R_DIR"/dump? | sort | uniq -c | awk -v n=$copies '$1 != n { print; bad = 1 } END { exit bad }' >"$R_DIR/differ" ||
		fail "replicas differ at rest: $(cat "$R_DIR/differ")"
	objects=$(sort -u "$R_DIR"/dump? | wc -l)
}
add_figures() {
	local name n
	while read -r name n; do
		case $name in
		longest-began) ;;
		longest*) [ "$n" -le "${figures[$name]:-0}" ] || figures[$name]=$n ;;
		*) figures[$name]=$((${figures[$name]:-0} + n)) ;;
		esac
	done <"$R_DIR/figures"
}
one_round() {
	local end i
	R_DIR=$T/round$round
	mkdir -p "$R_DIR" "$T/state"
	: >"$R_DIR/events"
	for i in $clients; do client "$i"; done
	end=$((SECONDS * 1000 + round_ms))
	while [ $((SECONDS * 1000)) -lt $end ]; do
		sleep_up_to 1200
		one_fault
		clients_are_well
	done
	wait_for 60 at_rest
	sleep 0.5
	end_clients
	wait_for 60 in_place
	rnd 2
	if [ $R -eq 0 ]; then
		kill_all
	else
		dog cluster shutdown -p "$(port "${up:1:1}")" || fail "shutdown"
		for i in $up; do wait_gone "$(pid_of "$i")"; done
	fi
	compare
	historian check $([ $round -gt 0 ] || echo -t) "$R_DIR/events" "$T/state" "$R_DIR/figures" "$R_DIR"/h.* ||
		fail "round $round: the history does not fit"
	add_figures
	echo "round $round: $(awk '/^operations/ { o = $2 } /^longest-ms / { l = $2 } END { print o " operations, longest " l " ms" }' "$R_DIR/figures"), $objects objects on nodes$up; so far$(for i in "${!faults[@]}"; do echo -n " $i ${faults[$i]}"; done)"
	[ "${figures[longest-ms]}" -le $limit_ms ] || fail "an operation took ${figures[longest-ms]} ms"
	rm -rf "$R_DIR"
}

for i in $nodes; do start "$i"; done
dog cluster format --copies=$copies -z 20 </dev/null || fail "format"
for i in $clients; do dog vdi create "own$i" 4M || fail "create"; done
# A client may not see what another one allocated after it has opened the volume (sheepdog.h).
dog vdi create -P shared 3M || fail "create"
begun=$SECONDS
for ((round = 0; SECONDS - begun < seconds || round < 2; round++)); do
	[ $round -eq 0 ] || start_all
	wait_for 60 at_rest
	one_round
done
for i in operations reads writes zeros flushes never-answered clients-killed; do echo "$i ${figures[$i]}"; done
for i in "${!figures[@]}"; do [[ $i != longest* ]] || echo "$i ${figures[$i]}"; done | sort
echo "history: SEED=$seed passed, $round rounds; faults:$(for i in "${!faults[@]}"; do echo -n " $i ${faults[$i]}"; done)"
