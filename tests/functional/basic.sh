#!/bin/bash
# Three daemons: format, create, write, read through every gateway, lists, resize, delete, clean shutdown and restart.
. "$(dirname "$0")/lib.sh"
cluster_start 3 --copies 3
nodes_are 3 || fail "three nodes expected"
dog cluster info | grep -q '^Cluster status: running, auto-recovery enabled$' || fail "status"

dog vdi create Alice 64M || fail "create"
expect 1 dog vdi create Alice 64M
grep -q '^Failed to create VDI Alice: VDI exists already$' "$T/expect.err" || fail "text"
expect 64 dog vdi create Huge 5T
pattern 7 9000000 >"$T/p"
dog vdi write Alice 1000 <"$T/p" || fail "write"
for i in 0 1 2; do
	dog vdi read Alice 1000 9000000 -p "$(port $i)" | cmp - "$T/p" || fail "read through node $i"
done
dog vdi read Alice 32M 1M | cmp - <(head -c 1M /dev/zero) || fail "hole"
[ "$(dog vdi list -r | wc -l)" -eq 1 ] || fail "one volume expected"
dog vdi list -r Alice | grep -Eq '^= Alice 0 67108864 12582912 0 [0-9]+ [0-9a-f]+ 3  22$' || fail "list row: $(dog vdi list -r)"
[ "$(dog vdi object map Alice | wc -l)" -eq 4 ] || fail "three objects expected"
dog vdi object location Alice -i 0 >"$T/loc"
[ "$(grep -c ' has the object$' "$T/loc")" -eq 3 ] || fail "three replicas expected"
dog vdi resize Alice 128M || fail "resize"
expect 64 dog vdi resize Alice 1M
[ "$(dog vdi list -r Alice | cut -d' ' -f4)" -eq $((128 << 20)) ] || fail "size after resize"

dog cluster shutdown || fail "shutdown"
for i in 0 1 2; do p=$(pid_of $i); [ -z "$p" ] || wait_gone "$p"; done
for i in 2 0 1; do start_node $i || fail "restart of node $i"; done
wait_for 10 dog vdi read Alice 0 1
[ "$(dog cluster info -r | sed -n 3p | cut -d' ' -f2)" -eq 1 ] || fail "a clean restart keeps the epoch"
dog vdi read Alice 1000 9000000 -p "$(port 2)" | cmp - "$T/p" || fail "read after restart"
dog vdi delete Alice || fail "delete"
expect 1 dog vdi read Alice
objects_gone() { ! ls "$T"/s*/obj/* 2>/dev/null | grep -vq '/80'; }
wait_for 20 objects_gone
for i in 0 1 2; do kill_node $i TERM; done
