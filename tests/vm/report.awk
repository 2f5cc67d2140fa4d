# report.awk: what a virtual machine printed, as two tables: each variant of each hook with its result (from the test of
# equivalence that forces it), and each group of tests. Variables: `name`, of the kernel; `code`, the machine's exit code.
# Exit code 1: something failed, was not there, or the kernel complained.

function settle(result) {
	if (test ~ /^equivalence::.*_by_.*_yields/) {
		split(substr(test, length("equivalence::") + 1), of, "_by_")
		sub(/_yields.*/, "", of[2])
		variants[++hooks] = sprintf("%-16s %-12s %s", of[1], of[2], result)
	}
	if (result == "FAILED") failures[++failed] = test
	test = ""
}

/^KTRACE-VM-UP / { version = $2 }
/^KTRACE-VM-EXIT / { seconds = int($3) }
/^KTRACE-VM-GROUP / { group = $2; known[group] = 1; order[++groups] = group; since[group] = $3 }
/^KTRACE-VM-GROUP-END / { took[group] = int($2 - since[group]) }
/^KTRACE-VM-KERNEL / { complaints[++complained] = $0 }
/^test [^ ]+ +\.\.\. / { test = $2 }
test && / ok$|^ok$/ { settle("ok") }
test && /FAILED$/ { settle("FAILED") }
test && / ignored/ {
	reason = $0
	sub(/.* ignored \(?/, "", reason)
	sub(/\)$/, "", reason)
	sub(/^[a-z_]+ [a-z_0-9]+: no +/, "", reason)
	settle("not offered: " reason)
}
/^test result:/ { passed[group] += $4; bad[group] += $6; ignored[group] += $8 }

END {
	for (i = 1; i <= hooks; i++) printf "%-11s %-28s %s\n", name, version, variants[i]
	for (i = 1; i <= groups; i++) {
		g = order[i]
		printf "%-11s %-28s %-38s %3d passed %3d failed %3d not offered  %4d s\n",
			name, version, g, passed[g], bad[g], ignored[g], took[g]
		if (passed[g] + bad[g] + ignored[g] == 0) { print "FAIL  " name "  no test of the group " g " was run"; wrong = 1 }
	}
	for (i = 1; i <= failed; i++) print "FAIL  " name "  " failures[i]
	for (i = 1; i <= complained; i++) print "FAIL  " name "  the kernel said: " complaints[i]
	if (code >= 124) print "FAIL  " name "  the machine " (code == 124 ? "did not end in time" : "died")
	if (seconds) printf "%-11s %-28s %d s after the start of its kernel\n", name, version, seconds
	exit code != 0 || wrong || failed || complained
}
