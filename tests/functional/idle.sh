#!/bin/bash
# Idle, a daemon uses under 1 % of a core and under 100 MiB.
. "$(dirname "$0")/lib.sh"
# Sanitizers change what a daemon uses: there only a busy loop is looked for.
permille=10 rss_max=102400
[ -z "${SHEEP_SANITIZED:-}" ] || permille=100 rss_max=2000000
cluster_start 3 --copies 3
dog vdi create V 1G || fail "create"
head -c 64M /dev/urandom | dog vdi write V 0 64M || fail "write"
wait_for 20 dog vdi read V 0 1
sleep 6 # what was written is being applied to the objects meanwhile
ticks() { sed 's/^.*) //' "/proc/$(pid_of "$1")/stat" | awk '{ print $12 + $13 }'; }
for i in 0 1 2; do before[$i]=$(ticks $i); done
seconds=10
sleep $seconds
for i in 0 1 2; do
	used=$(($(ticks $i) - before[i]))
	hz=$(getconf CLK_TCK)
	rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$(pid_of $i)/status")
	echo "node $i: $used ticks of $((hz * seconds)), $rss KiB"
	[ $((used * 1000)) -lt $((hz * seconds * permille)) ] || fail "node $i uses $permille/1000 of a core or more"
	[ "$rss" -lt $rss_max ] || fail "node $i has $rss KiB in memory"
done
