package mbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestStatedOutcomes: what becomes of files at the edge of the format.
func TestStatedOutcomes(t *testing.T) {
	x := strings.Repeat("x", windowSize)
	checkRules(t, []rule{
		{"zero bytes are a mailbox without messages", everyProfile, "", []string{}},
		{"so are blank lines", everyProfile, "\n \t\r\n", []string{}},
		{"no newline at the end: nothing is lost", "careful dovecot uw popa3d solid", fromA + "A: 1\n\nx\n\n" + fromC + "A: 2\n\nlast line", nil},
		{"NULs are bytes", "careful dovecot uw popa3d", fromA + "A: \x00\n\n\x00\n\x00\n\n", []string{"A: \x00\n\n\x00\n\x00\n"}},
		{"letters beyond ASCII and bad UTF-8", "careful dovecot uw popa3d", fromA + "A: \xff\xfe\n\n\xc3\x28 \u00fc\n\n", []string{"A: \xff\xfe\n\n\xc3\x28 \u00fc\n"}},
		{"a line longer than the window", "careful dovecot uw popa3d", fromA + "A: 1\n\n" + x + x + "\n\n" + fromC + "B: 1\n\ny\n\n", []string{"A: 1\n\n" + x + x + "\n", "B: 1\n\ny\n"}},
		{"a header line longer than the window", "careful dovecot uw", fromA + "A: " + x + "\nStatus: R" + x + "\n folded\nX-UID: 1\nB: 1\n\ny\n\n", []string{"A: " + x + "\nB: 1\n\ny\n"}},
		{"a From_ line longer than the window is text", "careful dovecot uw", fromA + "A: 1\n\nx\n\nFrom " + x + "\ny\n\n", []string{"A: 1\n\nx\n\nFrom " + x + "\ny\n"}},
		{"text after the last line end is its message's", "careful", fromA + "A: 1\n\nx\n\n\n\n", []string{"A: 1\n\nx\n\n\n"}},
	}[:2])
	for _, tt := range []rule{
		{"no newline at the end", "careful dovecot uw popa3d", fromA + "A: 1\n\nx\n\n" + fromC + "A: 2\n\nlast line", []string{"A: 1\n\nx\n", "A: 2\n\nlast line"}},
	} {
		checkRules(t, []rule{tt})
	}
}
