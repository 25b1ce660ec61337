#!/bin/bash
# Man pages and --help say the same: every option and subcommand of one is in the other.
. "$(dirname "$0")/lib.sh"
page() { MANWIDTH=1000 man -l --no-hyphenation --nj "$src/man/$1" 2>/dev/null | col -bx; }
page dog.8 >"$T/dog"
dog help | awk '/^  [a-z]+ [a-z]+ /{print $1, $2}' >"$T/subs"
[ "$(wc -l <"$T/subs")" -ge 15 ] || fail "dog help lists too little"
while read -r c s; do
	grep -q "dog $c $s" "$T/dog" || fail "man/dog.8 lacks: dog $c $s"
	dog "$c" "$s" --help >"$T/help" || fail "dog $c $s --help"
	head -1 "$T/help" | grep -q "^Usage: dog $c $s" || fail "usage line of dog $c $s"
	for o in $(grep -oE -- '--[a-z_-]+' "$T/help" | sort -u); do
		grep -q -- "$o" "$T/dog" || fail "man/dog.8 lacks $o (dog $c $s)"
	done
done <"$T/subs"
for o in $(grep -oE -- '--[a-z_-]+' "$T/dog" | sort -u); do
	found=
	while read -r c s; do dog "$c" "$s" --help | grep -q -- "$o" && found=1 && break; done <"$T/subs"
	[ -n "$found" ] || fail "man/dog.8 has $o, which no subcommand knows"
done
page sheep.8 >"$T/sheep"
sheep --help >"$T/help" || fail "sheep --help"
for o in $(grep -oE '^  (-., )?--[a-z-]+' "$T/help" | grep -oE -- '--[a-z-]+'); do
	grep -q -- "$o" "$T/sheep" || fail "man/sheep.8 lacks $o"
done
for o in $(grep -oE -- '--[a-z-]+' "$T/sheep" | sort -u); do
	grep -q -- "$o" "$T/help" || fail "man/sheep.8 has $o, which sheep does not know"
done
if [ -x "$build/qemu/sheepdog-qemu" ]; then
	page sheepdog-qemu.1 >"$T/qemu"
	sheepdog-qemu --help >"$T/help" || fail "sheepdog-qemu --help"
	for o in $(grep -oE '^  (-., )?--[a-z-]+' "$T/help" | grep -oE -- '--[a-z-]+'); do
		grep -q -- "$o" "$T/qemu" || fail "man/sheepdog-qemu.1 lacks $o"
	done
	for o in $(sed -n '/^OPTIONS/,/^IMAGE NAMES/p' "$T/qemu" | grep -oE -- '--[a-z-]+' | sort -u); do
		grep -q -- "$o" "$T/help" || fail "man/sheepdog-qemu.1 has $o, which sheepdog-qemu does not know"
	done
	# The driver's create options, and the wrappers there are.
	qemu-img create -o help sheepdog:X | grep -oE '^  [a-z_]+=' | tr -d ' =' >"$T/create"
	[ "$(wc -l <"$T/create")" -ge 6 ] || fail "qemu-img lists too few create options"
	for o in $(cat "$T/create") $(cd "$build/qemu" && ls -d qemu-[imns]*[a-z0-9] | grep -v patch); do
		grep -q -- "$o" "$T/qemu" || fail "man/sheepdog-qemu.1 lacks $o"
	done
fi
