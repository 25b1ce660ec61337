#!/bin/bash
# The life of a cluster: before format, zones, gateways, strict mode, fixed vnodes, waiting for the start set,
# force recover, clean shutdown, several clusters on one host.
. "$(dirname "$0")/lib.sh"
status() { dog cluster info -r "$@" | head -1; }
epoch() { dog cluster info -r "$@" | sed -n 3p | cut -d' ' -f2; }

# Before format.
for i in 0 1 2; do start_node $i || fail "start of node $i"; done
[ "$(status)" = "Waiting for cluster to be formatted" ] || fail "status: $(status)"
expect 1 dog vdi create V 1G
grep -q 'Waiting for cluster to be formatted' "$T/expect.err" || fail "create before format"
expect 1 dog cluster recover force -f
expect 2 dog cluster format -c 2:1
expect 2 dog cluster format -b tree
dog cluster format -c 2 -t || fail "format"
[ "$(epoch)" = 1 ] || fail "epoch after format"

# Another cluster on this host knows nothing of it.
sheep -c "local:$T/bus2" -z 0 -p "$(port 9)" -P "$T/pid9" "$T/s9" || fail "second cluster"
[ "$(dog node list -r -p "$(port 9)" | wc -l)" -eq 1 ] || fail "clusters mix"

# Strict: two zones of three for two copies are enough, one is not.
dog vdi create V 64M || fail "create"
head -c 9M /dev/urandom >"$T/data"
dog vdi write V 0 9M <"$T/data" || fail "write"
kill_node 2
wait_for 10 nodes_are 2
dog vdi write V 0 9M <"$T/data" || fail "write with two zones"
wait_for 30 eval '! in_recovery'
kill_node 1
wait_for 10 nodes_are 1
expect 1 dog vdi write V 0 512 <"$T/data"
grep -q 'IO has halted' "$T/expect.err" || fail "strict: $(cat "$T/expect.err")"
dog vdi read V 0 9M | cmp - "$T/data" || fail "read while halted"
start_node 1 && start_node 2 || fail "restart"
wait_for 30 dog vdi write V 0 512 <"$T/data"

# A gateway stores nothing and serves everything.
start_node 4 -g || fail "gateway"
dog node list -r -p "$(port 4)" | awk '$3 == 0' | grep -q "$(port 4)" || fail "no gateway in the list"
dog vdi read V 0 9M -p "$(port 4)" | cmp - "$T/data" || fail "read through the gateway"
dog vdi create W 64M -p "$(port 4)" && dog vdi write W 0 9M -p "$(port 4)" <"$T/data" || fail "write through the gateway"
[ -z "$(ls "$T/s4/obj" 2>/dev/null)" ] || fail "the gateway has objects"
kill_node 4 TERM
wait_for 30 eval '! in_recovery'

# Full stop without shutdown: waits for the whole start set, unattended.
for i in 0 1 2; do kill_node $i; done
start_node 0 || fail "start"
grep -qi 'wait' "$T/out0" || fail "it does not say that it waits: $(cat "$T/out0")"
[ "$(status)" = "Waiting for other nodes to join cluster" ] || fail "status: $(status)"
expect 1 dog vdi create X 1G
start_node 1 || fail "start"
[ "$(status)" = "Waiting for other nodes to join cluster" ] || fail "two of three are not enough"
start_node 2 || fail "start"
wait_for 20 eval 'status | grep -q ^running'
dog vdi read V 512 8M | cmp - <(tail -c +513 "$T/data" | head -c 8M) || fail "read after a full stop"

# One is lost for good: force recover.
wait_for 30 eval '! in_recovery'
for i in 0 1 2; do kill_node $i; done
start_node 0 && start_node 1 || fail "start"
echo no | dog cluster recover force
[ "$(status)" = "Waiting for other nodes to join cluster" ] || fail "recovered without a yes"
before=$(epoch)
dog cluster recover force -f || fail "force"
wait_for 20 eval 'status | grep -q ^running'
[ "$(epoch)" -gt "$before" ] || fail "epoch after force"
dog vdi read V 512 8M | cmp - <(tail -c +513 "$T/data" | head -c 8M) || fail "read after force"
dog vdi write V 0 9M <"$T/data" || fail "write after force"
start_node 2 || fail "the late one"
wait_for 30 nodes_are 3
wait_for 30 eval '! in_recovery'

# A clean shutdown: the epoch stays.
e=$(epoch)
dog cluster shutdown || fail "shutdown"
for i in 0 1 2; do p=$(pid_of $i); [ -z "$p" ] || wait_gone "$p"; done
# One that is started alone waits, and is stopped again: it was clean and stays so.
start_node 1 || fail "start alone"
kill_node 1 TERM
for i in 1 2 0; do start_node $i || fail "start"; done
wait_for 20 eval 'status | grep -q ^running'
[ "$(epoch)" = "$e" ] || fail "epoch $(epoch) after a clean shutdown in $e"
dog vdi read V 0 9M | cmp - "$T/data" || fail "read at the end"
# A store of another cluster is refused, and says why.
kill_node 9 TERM
sheep -c "local:$T/bus3" -z 0 -p "$(port 9)" -P "$T/pid9" "$T/s9" >"$T/out9" 2>&1 || fail "start of the second cluster"
dog cluster format -c 1 -p "$(port 9)" || fail "format of the second cluster"
kill_node 9 TERM
expect 1 sheep -c "$BUS" -z 7 -p "$(port 9)" -P "$T/pid9" "$T/s9"
[ -s "$T/expect.err" ] || fail "no reason for a store of another cluster"

# Fixed vnodes: must be said by everybody.
for i in 0 1 2; do kill_node $i TERM; done
B=$BUS BUS=local:$T/bus4
for i in 5 6; do start_node $i -V 50 || fail "start with -V"; done
export SHEEPDOG_DOG_PORT=$(port 5)
expect 1 dog cluster format -c 2
grep -q "Need to specify the option of '-V'" "$T/expect.err" || fail "fixed vnodes: $(cat "$T/expect.err")"
dog cluster format -c 2 -V || fail "format -V"
[ "$(dog node list -r | awk '{ print $3 }' | sort -u)" = 50 ] || fail "vnodes: $(dog node list -r)"
expect 1 sheep -c "$BUS" -z 8 -p "$(port 8)" -P "$T/pid8" "$T/s8"
kill_node 5 TERM
kill_node 6 TERM
