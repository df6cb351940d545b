// Package postfixtest has what is common to the configurations of small Postfixes that
// tests and benchmarks start: they take mail for test.invalid, from their sendmail
// command alone, and deliver it by local(8).
package postfixtest

import "strings"

// Main is a main.cf with the settings that are given, a line each. A log file, and
// directories that are not those of the host, are among them: Postfix takes no setting
// twice.
func Main(settings ...string) string {
	return `compatibility_level = 3.6
maillog_file_prefixes = /
inet_interfaces = 127.0.0.1
myhostname = test.invalid
mydestination = test.invalid
alias_database =
biff = no
` + strings.Join(settings, "\n") + "\n"
}

// Master is a master.cf without smtpd(8).
const Master = `pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
local unix - n n - - local
lmtp unix - - n - - lmtp
postlog unix-dgram n - n - 1 postlogd
`
