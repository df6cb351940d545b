package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// syncCalls are the calls that make something durable; a file that is opened
// with O_SYNC or O_DSYNC is durable with each write.
const syncCalls = "fsync,fdatasync,sync,syncfs,sync_file_range,open,openat"

// syncs is what of a mailbox a delivery makes durable.
type syncs struct{ file, name bool }

// String is the cell of a table. The name of a message in a Maildir is durable
// only when its directory is; that of an mbox which grows is so already.
func (s syncs) String() string {
	switch {
	case s.file && s.name:
		return "yes: file and directory"
	case s.file:
		return "file"
	case s.name:
		return "directory"
	}
	return "no"
}

// durable reports whether a message that was delivered outlives a power loss.
func (s syncs) durable(maildir bool) bool { return s.file && (s.name || !maildir) }

var syncLine = regexp.MustCompile(`\b(fsync|fdatasync|syncfs|sync_file_range)\(\d+<([^>]*)>`)

// readSyncs reads what strace wrote, of files below the directories mail.
func readSyncs(path string, mail []string) (s syncs, err error) {
	log, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer log.Close()
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		line := lines.Bytes()
		if m := syncLine.FindSubmatch(line); m != nil {
			s.add(string(m[2]), mail)
		} else if bytes.Contains(line, []byte(" sync(")) {
			s = syncs{true, true}
		} else if bytes.Contains(line, []byte("SYNC")) {
			return s, fmt.Errorf("a file that is written synchronously: %s", line)
		}
	}
	return s, lines.Err()
}

// add counts a synced file or directory, if it is of a mailbox and no lock.
func (s *syncs) add(path string, mail []string) {
	inMail := slices.ContainsFunc(mail, func(dir string) bool { return strings.HasPrefix(path, dir+"/") })
	switch base := filepath.Base(path); {
	case !inMail || strings.HasSuffix(base, ".lock"):
	case base == "new" || base == "cur":
		s.name = true
	default:
		s.file = true
	}
}
