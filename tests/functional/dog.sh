#!/bin/bash
# dog: tables, raw forms, exit codes, prompts and texts as other tools know them.
. "$(dirname "$0")/lib.sh"
# out TEXT COMMAND...: the command succeeds and prints exactly TEXT
out() {
	local want=$1 got
	shift
	got=$("$@") || fail "exit $?: $*"
	[ "$got" = "$want" ] || fail "$*: printed '$got', not '$want'"
}
# says EXIT TEXT COMMAND...: it exits so, with TEXT as a line on stderr
says() {
	local code=$1 text=$2
	shift 2
	expect "$code" "$@"
	grep -qxF -e "$text" "$T/expect.err" || { cat "$T/expect.err"; fail "'$text' expected from: $*"; }
}
matches() { # matches REGEX COMMAND...: a line of stdout does
	local re=$1
	shift
	"$@" >"$T/matches" || fail "exit $?: $*"
	grep -qEx -e "$re" "$T/matches" || { cat "$T/matches"; fail "no line like '$re' from: $*"; }
}

# without a daemon
out "$(dog help)" dog
out "$(dog help)" dog -h
dog help | head -1 | grep -q '^Sheepdog administrator utility (version ' || fail "version line"
says 64 "Invalid command 'nope'" dog nope
expect 64 dog vdi
grep -q '^  vdi create  *create an image$' "$T/expect.err" || fail "list of subcommands"
says 64 "Invalid command 'vdi nope'" dog vdi nope
says 1 "The command 'dog vdi snapshot' is not supported yet" dog vdi snapshot x
says 1 "The command 'dog upgrade' is not supported yet" dog upgrade
says 1 "The option --hyper is not supported yet" dog vdi create x 1G -y
says 64 "Invalid port number 'x'..." dog node list -p x
says 64 "Invalid port number '70000'..." env SHEEPDOG_DOG_PORT=70000 dog node list
expect 1 dog node list -a no.such.host.invalid
says 64 "Please specify all arguments" dog vdi create x
says 1 "Invalid redundancy '32': give the number of copies, 1 to 31" dog vdi create x 1G -c 32
expect 1 dog vdi create x 1G -z 19
says 1 "The snapshot id must be larger than zero" dog vdi read x -s 0
expect 2 dog node list
grep -qx "failed to connect to 127.0.0.1:$base: Connection refused" "$T/expect.err" || fail "refused: $(cat "$T/expect.err")"
grep -qx 'Failed to get node list' "$T/expect.err" || fail "node list"
expect 0 dog vdi create --help
grep -q '^Usage: dog vdi create ' "$T/expect.out" || fail "usage on stdout"

# not formatted
for i in 0 1 2; do start_node $i || fail "start"; done
out "Waiting for cluster to be formatted" eval "dog cluster info -r | head -1"
matches 'Cluster status: Waiting for cluster to be formatted' dog cluster info
says 1 "Failed to create VDI t: Waiting for cluster to be formatted" dog vdi create t 10M
says 2 "The store 'tree' is not supported yet" dog cluster format -b tree
says 1 "Can not apply the option of '-V', because there are vnode strategy of sheep is auto in the cluster" \
	dog cluster format -V
# more copies than zones: asked
expect 0 dog cluster format -c 4 </dev/null
grep -q 'Are you sure you want to continue? \[yes/no\]: ' "$T/expect.out" || fail "prompt"
[ "$(dog cluster info -r | head -1)" = "Waiting for cluster to be formatted" ] || fail "formatted without an answer"
out "using backend plain store" dog cluster format --copies 3

# listings
p0=127.0.0.1:$(port 0)
matches 'Cluster store: plain with 3 redundancy policy' dog cluster info -v
matches 'Cluster vnodes strategy: auto' dog cluster info -v
matches 'Cluster vnode mode: node' dog cluster info -v
matches 'Cluster created at [A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} 20[0-9]{2}' dog cluster info
matches 'Epoch Time           Version \[Host:Port:V-Nodes,,,\]' dog cluster info
matches "20[0-9-]{8} [0-9:]{8}      1 \[$p0:[0-9]+, .*\]" dog cluster info
matches '[0-9]{10} 1 \[formated\]' dog cluster info -rd
matches '  Id   Host:Port         V-Nodes       Zone' dog node list
matches "   0   $p0     	[0-9]+          0" dog node list
matches "0 $p0 [0-9]+ 0" dog node list -r
matches 'Id	Size	Used	Avail	Use%' dog node info
matches ' 0	[0-9.]+ [MGT]B	[0-9.]+ [MGT]B	[0-9.]+ [MGT]B	 *[0-9]+%' dog node info
matches 'Total virtual image size	0.0 MB' dog node info
matches 'Total [0-9]+ [0-9]+ [0-9]+ [0-9]+% 0' dog node info -r
matches 'Request	Active	Total	Write	Read	Remove	Flush	All WR	All RD' dog node stat
matches 'Client	[0-9]+	[0-9]+	[0-9]+	[0-9]+	[0-9]+	[0-9]+	[0-9.]+ [MGT]B	[0-9.]+ [MGT]B' dog node stat
says 0 "info (6)" dog node log level get
says 0 "debug	(7)" dog node log level list
says 255 "Invalid log level 'loud'; the levels are:" dog node log level set loud
expect 0 dog node log level set debug
says 0 "debug (7)" dog node log level get
expect 0 dog node log level set info

# volumes
out "VDI ID of newly created VDI: 202a3" dog vdi create t 10M -v
says 1 "Failed to create VDI t: VDI exists already" dog vdi create t 10M
out "79bd7f" eval "dog vdi create 'a b' 4M -v -r | sed 's/^[0-9a-f]*\$/79bd7f/'"
matches '  Name        Id    Size    Used  Shared    Creation time   VDI id  Copies  Tag   Block Size Shift' dog vdi list
matches '  t            0   10 MB  0.0 MB  0.0 MB 20[0-9-]{8} [0-9:]{5}    202a3      3                22' dog vdi list
matches '= t 0 10485760 0 0 [0-9]{10} 202a3 3  22' dog vdi list -r
matches '= a\\ b 0 4194304 0 0 [0-9]{10} [0-9a-f]+ 3  22' dog vdi list -r
[ "$(dog vdi list -r nope | wc -l)" -eq 0 ] || fail "list of an unknown name"
matches '    "vid": 131747' dog vdi list --json t
says 1 "Failed to open VDI nope (snapshot id: 0 snapshot tag: ): No VDI found" dog vdi read nope
says 1 "Failed to open VDI nope (snapshot id: 0 snapshot tag: ): No VDI found" dog vdi delete nope
says 64 "Shrinking VDIs is not implemented" dog vdi resize t 1M
expect 64 dog vdi resize t 5T
out "The inode object 0x202a3 idx 1 is not allocated" dog vdi object location t -i 1
matches 'Looking for the inode object 0x202a3 with 3 nodes' dog vdi object location t
pattern 3 5000000 >"$T/p"
dog vdi write t 4M <"$T/p" || fail "write"
dog vdi read t 4M 5000000 | cmp - "$T/p" || fail "read"
[ "$(dog vdi read t 9194304 | tr -d '\0' | wc -c)" -eq 0 ] || fail "more was written than came"
expect 1 dog vdi read t 10M
out "$(printf 'Index       VID\n00000001    202a3\n00000002    202a3')" dog vdi object map t
matches 'Looking for the object 000202a300000001 \(vid 0x202a3 idx 1, 3 copies\) with 3 nodes' \
	dog vdi object location t -i 0x1
matches "$p0 has the object" dog vdi object location t -i 1
matches "According to sheepdog algorithm, the object should be located at:" dog vdi object location t -i 1
out "$(printf 'Index       VID\n00000000 %8s\n' "$(dog vdi create full 4M -P -v -r)")" dog vdi object map full
script -qec "dog vdi create bar 8M -P" /dev/null | tr '\r' '\n' | grep -q '^100.0 % \[=*\] 8.0 MB / 8.0 MB' || fail "progress bar"
expect 64 dog vdi object dump-inode
says 1 "'nope' is not a valid command" dog vdi object nope t

# prompts
dog cluster format </dev/null >"$T/format" || fail "an answer other than yes is no failure"
grep -q '^Caution! The cluster is not empty\.$' "$T/format" || fail "caution"
[ "$(dog vdi list -r | wc -l)" -eq 4 ] || fail "formatted without an answer"
echo Yes | dog cluster format >/dev/null || fail "format"
[ "$(dog vdi list -r | wc -l)" -eq 0 ] || fail "not formatted"
expect 1 dog cluster recover force -f
out "Cluster recovery: disable" dog cluster recover disable
matches 'running, auto-recovery disabled' dog cluster info -r
out "Cluster recovery: enable" dog cluster recover enable
expect 64 dog node kill
expect 0 dog node kill 2
wait_gone "$(pid_of 2)" || true
wait_for 10 nodes_are 2
matches "[0-9]{10} 2 \[-127.0.0.1:$(port 2)\]" dog cluster info -rd
out "" dog cluster shutdown
