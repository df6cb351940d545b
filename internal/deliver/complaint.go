package deliver

import (
	"strconv"
	"strings"
)

// maxLine bounds what an MTA gets to put into its log and, in the end, into a
// bounce.
const maxLine = 500

// Complaint is an error in one line of printable ASCII. Much of it may come from
// strangers.
func Complaint(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	line := strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) && r < 0x7f {
			return r
		}
		return '?'
	}, text)
	if len(line) > maxLine {
		line = line[:maxLine] + "..."
	}
	return line
}
