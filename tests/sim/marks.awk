# marks.list as C: MARKS(X) of the marks, MARKS_FAULTS(X) of the faults
BEGIN { FS = " *[|] *"; nf = 0 }
/^#/ || !NF { next }
NF != 4 || ($3 !~ /^(hit|rare [0-9]+|seldom: .+|cannot: .+)$/) {
	print "marks.list:" FNR ": want NAME | SECTION | hit, rare N, seldom: WHY or cannot: WHY | CLAUSE" >"/dev/stderr"
	exit bad = 1
}
{ for (i = 1; i <= 4; i++) gsub(/["\\]/, "\\\\&", $i) }
$2 == "fault" { fault[nf++] = "X(\"" $1 "\", \"" $3 "\")"; next }
!n++ { printf "/* made of tests/sim/marks.list */\n#define MARKS(X)" }
{ printf " \\\n\tX(%s, \"%s\", \"%s\", \"%s\")", $1, $2, $3, $4 }
END {
	if (bad) exit 1
	printf "\n#define MARKS_FAULTS(X)"
	for (i = 0; i < nf; i++) printf " \\\n\t%s", fault[i]
	print ""
}
