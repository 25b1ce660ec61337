#!/bin/bash
# Start and stop of one daemon: exit statuses, reasons on stderr, pid file, lock, sockets, signals.
. "$(dirname "$0")/lib.sh"
expect 0 sheep --version
grep -q '^Sheepdog daemon version' "$T/expect.out" || fail "version"
expect 1 sheep -p 0 "$T/s0"
grep -q "^Invalid port number '0'" "$T/expect.err" || fail "port text"
expect 1 sheep -p 65536 "$T/s0"
expect 1 sheep -z -1 "$T/s0"
grep -q "^Invalid zone id '-1'" "$T/expect.err" || fail "zone text"
expect 1 sheep -g -V 5 "$T/s0"
grep -q "^Options '-g' and '-V' can not be both specified" "$T/expect.err" || fail "-g -V text"
expect 1 sheep -c nonsense "$T/s0"
expect 1 sheep -c corosync "$T/s0"
grep -q 'not supported yet' "$T/expect.err" || fail "corosync: $(cat "$T/expect.err")"
for o in "-r swift" "-R max=1,interval=1" -u "-w net=1" -W "-x 5" "-i host=127.0.0.1"; do
	expect 1 sheep $o "$T/s0"
	grep -q 'not supported yet' "$T/expect.err" || fail "option $o: $(cat "$T/expect.err")"
done
expect 1 sheep -c "$BUS" -p "$(port 0)" -j size=1M "$T/s0"
expect 1 sheep -c "$BUS" -p "$(port 0)" "/dev/null/x"
[ -s "$T/expect.err" ] || fail "no reason given"

start_node 0 || fail "start"
p=$(pid_of 0)
[ "$(stat -c %a "$T/pid0")" = 600 ] || fail "mode of the pid file"
[ "$(cat "/proc/$p/comm")" = sheep ] || fail "the pid file names another process"
[ -S "$T/s0/sock" ] || fail "no unix socket"
grep -q 'daemon (version .*) started' "$T/s0/sheep.log" || fail "the log does not say that it started"
# The same store, and the same port, are taken: the parent says so with its exit status.
expect 1 sheep -c "$BUS" -p "$(port 5)" "$T/s0"
grep -qi 'another' "$T/expect.err" || fail "store in use: $(cat "$T/expect.err")"
expect 1 sheep -c "$BUS" -p "$(port 0)" -z 1 "$T/s1"
grep -q "$(port 0)" "$T/expect.err" || fail "port in use: $(cat "$T/expect.err")"
# IPv4 and IPv6.
dog node list -a ::1 -r >"$T/v6" || fail "IPv6"
dog node list -a 127.0.0.1 -r | cmp - "$T/v6" || fail "IPv4 and IPv6 differ"
dog node log level set debug && dog node log level get 2>&1 | grep -q 'debug (7)' || fail "log level"
kill -HUP "$p"
rotated() { ls "$T"/s0/sheep.log.* ; }
wait_for 5 rotated
kill_node 0 TERM
[ ! -e "$T/pid0" ] || fail "the pid file is left"
tail -1 "$T/s0/sheep.log" | grep -q stopped || fail "no orderly stop"

# A foreign store is refused; nothing of it is touched.
mkdir -p "$T/old/obj" "$T/old/epoch"
head -c 40 /dev/urandom >"$T/old/config"
sum=$(sha1sum "$T/old/config")
expect 1 sheep -c "$BUS" -p "$(port 1)" "$T/old"
[ -s "$T/expect.err" ] || fail "no reason given for a foreign store"
[ "$sum" = "$(sha1sum "$T/old/config")" ] || fail "a foreign config was changed"

# Foreground: the real exit status; dog node kill is an orderly end.
sheep -f -c "$BUS" -p "$(port 2)" "$T/s2" >"$T/out2" 2>&1 &
p=$!
wait_for 10 dog node list -p "$(port 2)"
dog node kill -l -p "$(port 2)" || fail "kill"
wait $p || fail "exit status $? after dog node kill"
# A crash leaves a trace and does not block the next start.
start_node 3 || fail "start"
p=$(pid_of 3)
kill -SEGV "$p"
wait_gone "$p"
grep -q 'exits unexpectedly' "$T/s3/sheep.log" || fail "no word of the crash"
[ -s "$T/s3/sheep.blackbox" ] || fail "no blackbox"
start_node 3 || fail "restart after a crash"
kill_node 3 TERM
