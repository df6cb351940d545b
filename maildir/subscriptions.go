package maildir

import (
	"bufio"
	"bytes"
	"io"
	"strings"
)

// subscriptionsHeader opens version 2 of the file (dovecot
// subscription-file.c).
const subscriptionsHeader = "V\t2\n\n"

// maxSubscription is the longest line in bytes that Dovecot reads; a longer one
// makes the whole file unreadable to it.
const maxSubscription = 4096

// ParseSubscriptions reads Dovecot's list of subscribed folders, "subscriptions"
// in a Maildir and ".subscriptions" beside mbox folders: version 2, in which TAB
// separates the hierarchy levels, or version 1, in which the separator of the
// layout does (Folders{Layout: FS} for mbox folders). Names come in the order
// of the file, also those of folders that do not exist; INBOX is [INBOX]. An
// error is one of r, or a line beyond 64 KiB.
// Source: dovecot subscription-file.c.
func ParseSubscriptions(r io.Reader, f Folders) ([][]string, error) {
	lines, err := readLines(r)
	if err != nil {
		return nil, err
	}
	v2 := len(lines) >= 2 && lines[0] == "V\t2" && lines[1] == ""
	if v2 {
		lines = lines[2:]
	}
	var names [][]string
	for _, line := range lines {
		if line == "" {
			continue
		}
		var parts []string
		if v2 {
			parts = strings.Split(line, "\t")
		} else {
			parts = strings.Split(line, f.separator())
		}
		for i := range parts {
			if v2 {
				parts[i] = tabUnescape.Replace(parts[i])
			}
			if f.Escape {
				parts[i] = unescape(parts[i])
			}
		}
		names = append(names, parts)
	}
	return names, nil
}

// Dovecot's escapes for what would break a line (str_append_tabescaped).
var (
	tabEscape   = strings.NewReplacer("\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n")
	tabUnescape = strings.NewReplacer("\x011", "\x01", "\x01t", "\t", "\x01r", "\r", "\x01n", "\n", "\x010", "\x00")
)

// ParseMailboxList reads the subscriptions of UW IMAP and Pine, ~/.mailboxlist:
// one name a line with '/' between the levels. Names below prefix, such as
// "mail/", lose it. A '/' at the end, which marks a directory, is dropped.
func ParseMailboxList(r io.Reader, prefix string) ([][]string, error) {
	lines, err := readLines(r)
	if err != nil {
		return nil, err
	}
	var names [][]string
	for _, line := range lines {
		line = strings.TrimSuffix(strings.TrimPrefix(line, prefix), "/")
		if line != "" {
			names = append(names, strings.Split(line, "/"))
		}
	}
	return names, nil
}

func readLines(r io.Reader) ([]string, error) {
	var lines []string
	s := bufio.NewScanner(r)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines, s.Err()
}

// WriteSubscriptions writes version 2 of Dovecot's list for a Maildir with
// folders f. The order stays, and so do names of folders that do not exist: IMAP
// allows them. Names that f can't spell are left out and returned with the
// reason, for written as they are they would mean other folders.
func WriteSubscriptions(w io.Writer, names [][]string, f Folders) (refused []*FolderError, err error) {
	var b bytes.Buffer
	b.WriteString(subscriptionsHeader)
	for _, parts := range names {
		line, reason := f.subscription(parts)
		if reason != "" {
			refused = append(refused, &FolderError{Parts: parts, Reason: "subscription: " + reason})
			continue
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	_, err = w.Write(b.Bytes())
	return refused, err
}

func (f Folders) subscription(parts []string) (line, reason string) {
	if len(parts) == 0 || len(parts) == 1 && strings.EqualFold(parts[0], "INBOX") {
		return "INBOX", ""
	}
	levels := make([]string, len(parts))
	for i, p := range parts {
		disk, reason := f.escapePart(p, i == 0)
		if reason != "" {
			return "", reason
		}
		levels[i] = tabEscape.Replace(disk)
	}
	line = strings.Join(levels, "\t")
	if len(line) > maxSubscription {
		return "", "the name is longer than 4096 bytes"
	}
	return line, ""
}
