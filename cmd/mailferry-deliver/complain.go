package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxLine bounds what an MTA gets to put into its log and, in the end, into a
// bounce.
const maxLine = 500

// complain tells an error in one line. Much of it may come from strangers.
func complain(log io.Writer, err error) {
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
	fmt.Fprintf(log, "mailferry-deliver: %s\n", line) // that nobody hears it does not matter
}
