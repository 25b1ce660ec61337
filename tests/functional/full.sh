#!/bin/bash
# Disks with little room: below the reserve only what needs more is refused; what is there can be written to, also when
# another program has filled the disk; nothing is lost, and with room all goes on by itself.
. "$(dirname "$0")/lib.sh"
cleanup_test() { umount -l "$T"/s? 2>/dev/null; }
for i in 0 1 2; do
	mkdir -p "$T/s$i" "$T/log$i"
	mount -t tmpfs -o size=192m none "$T/s$i" || skip "no tmpfs can be mounted here"
done
start_small() { start_node "$1" -j size=64M -l dir="$T/log$1"; }
for i in 0 1 2; do start_small $i || fail "start of node $i"; done
dog cluster format --copies 3 || fail "format"
dog vdi create Alice 256M && dog vdi create Bob 64M || fail "create"
pattern 1 $((32 << 20)) >"$T/bob"
dog vdi write Bob 0 <"$T/bob" || fail "Bob"

# to the reserve: an error, and what was there stays
expect 1 dog vdi write Alice 0 < <(pattern 2 $((160 << 20)))
grep -q 'no space' "$T/expect.err" || fail "text: $(cat "$T/expect.err")"
dog vdi read Bob 0 32M | cmp - "$T/bob" || fail "Bob, below the reserve"
filled=$(dog vdi list -r Alice | cut -d' ' -f5)
[ "$filled" -ge $((32 << 20)) ] || fail "only $filled bytes of Alice"
dog vdi read Alice 0 16M | cmp - <(pattern 2 $((16 << 20))) || fail "Alice"

# over what is there: through any gateway; beside it: not
for i in 0 1 2; do
	pattern $((3 + i)) $((16 << 20)) >"$T/new"
	dog vdi write Alice 0 -p "$(port $i)" <"$T/new" || fail "over what is there, through node $i"
	dog vdi write Bob 4096 -p "$(port $i)" < <(head -c 100000 "$T/new") || fail "a little"
	expect 1 dog vdi write Alice 240M -p "$(port $i)" < <(pattern 9 4096)
done
dog vdi read Alice 0 16M | cmp - "$T/new" || fail "Alice, written over"
dd if="$T/new" of="$T/bob" bs=4096 seek=1 count=1 conv=notrunc status=none
head -c 100000 "$T/new" | dd of="$T/bob" bs=4096 seek=1 conv=notrunc status=none

# another program takes nearly all that is left
for i in 0 1 2; do
	left=$(df -B1 --output=avail "$T/s$i" | tail -1)
	fallocate -l $((left - (1 << 20))) "$T/s$i/other" || fail "fallocate"
done
sleep 0.3
pattern 7 $((8 << 20)) >"$T/newer"
dog vdi write Alice 0 <"$T/newer" || fail "over what is there, on a full disk"
expect 1 dog vdi write Alice 240M < <(pattern 9 4096)
sleep 2.5
expect 1 dog vdi write Alice 240M < <(pattern 9 4096)
nodes_are 3 || fail "a node has left"
cat "$T/newer" <(tail -c $((8 << 20)) "$T/new") >"$T/alice"
dog vdi read Alice 0 16M | cmp - "$T/alice" || fail "Alice, on a full disk"
dog vdi read Bob 0 32M | cmp - "$T/bob" || fail "Bob, on a full disk"

# room: deletion makes some although the disk is full, and all goes on by itself
dog vdi delete Bob || fail "delete"
rm "$T"/s?/other
goes() { dog vdi write Alice 240M < <(pattern 9 $((1 << 20))); }
wait_for 10 goes
dog vdi read Alice 240M 1M | cmp - <(pattern 9 $((1 << 20))) || fail "Alice, with room"
dog vdi read Alice 0 16M | cmp - "$T/alice" || fail "Alice, with room"
dog cluster shutdown || fail "shutdown"
for i in 0 1 2; do wait_gone "$(pid_of $i)"; done
for i in 0 1 2; do storedump "$T/s$i" >"$T/dump$i" || fail "dump of node $i"; done
cmp "$T/dump0" "$T/dump1" && cmp "$T/dump0" "$T/dump2" || fail "replicas differ"
