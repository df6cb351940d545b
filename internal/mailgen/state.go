package mailgen

import (
	"fmt"
	"strings"
)

// keywordNames are n keywords as clients set them.
func keywordNames(n int) []string {
	names := []string{"$Forwarded", "NonJunk", "$MDNSent", "Work", "todo", "$label1", "Junk"}
	if n == 0 {
		return names
	}
	for i := len(names); i < n; i++ {
		names = append(names, fmt.Sprintf("project-%02d", i))
	}
	return names[:n]
}

// setState draws UID, flags and keywords and the fields that Dovecot keeps them
// in (mbox-sync-update.c). A fresh message has none and gets the next UID.
func (g *generator) setState(d *draft) {
	if !g.State {
		return
	}
	if d.fresh {
		g.lastUID++
		d.UID = g.lastUID
		return
	}
	g.uid += 1 + g.r.Uint32N(maxUIDStep)
	d.UID = g.uid
	d.Flags = g.flags()
	d.Keywords = g.keywords()
	if g.sum.Messages == 0 && g.Odd&PseudoMessage == 0 {
		d.state = append(d.state, "X-IMAPbase: "+g.imapbase())
	}
	d.state = append(d.state, fmt.Sprintf("X-UID: %d", d.UID))
	d.state = append(d.state, "Status: "+map[bool]string{true: "RO", false: "O"}[strings.Contains(d.Flags, "S")])
	if x := strings.Map(xStatus, d.Flags); x != "" {
		d.state = append(d.state, "X-Status: "+x)
	}
	if words := strings.Join(d.Keywords, " "); words != "" || g.r.IntN(4) == 0 {
		d.state = append(d.state, fmt.Sprintf("X-Keywords: %-80s", words))
	}
}

// xStatus is the letter of X-Status for one of a Maildir name, -1 for none.
func xStatus(flag rune) rune {
	if i := strings.IndexRune("RFDT", flag); i >= 0 {
		return rune("AFTD"[i])
	}
	return -1
}

func (g *generator) flags() string {
	var b strings.Builder
	for _, f := range []struct {
		letter  byte
		percent int
	}{{'D', 2}, {'F', 8}, {'R', 25}, {'S', 85}, {'T', 4}} {
		if g.r.IntN(100) < f.percent {
			b.WriteByte(f.letter)
		}
	}
	return b.String()
}

// keywords draws from all but the last, which no message bears.
func (g *generator) keywords() []string {
	var words []string
	for _, k := range g.sum.Keywords[:len(g.sum.Keywords)-1] {
		if g.r.IntN(2*len(g.sum.Keywords)) == 0 {
			words = append(words, k)
		}
	}
	return words
}

func (g *generator) imapbase() string {
	return fmt.Sprintf("%d %010d %s", g.sum.UIDValidity, g.lastUID, strings.Join(g.sum.Keywords, " "))
}

// pseudo writes the message in which UW keeps the state of a mailbox
// (c-client unix.c). It is no mail: no server shows it.
func (g *generator) pseudo() {
	eol := "\n"
	if g.Odd&CRLFFile != 0 {
		eol = "\r\n"
	}
	date := at(g.clock, 0)
	for _, line := range []string{
		"From MAILER-DAEMON " + date.Format(asctime),
		"Date: " + date.Format("02 Jan 2006 15:04:05 -0700"),
		"From: Mail System Internal Data <MAILER-DAEMON@" + host + ">",
		"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA",
		fmt.Sprintf("Message-ID: <%d@%s>", g.clock, host),
		"X-IMAP: " + g.imapbase(),
		"Status: RO",
		"",
		"This text is part of the internal format of your mail folder, and is not",
		"a real message.  It is created automatically by the mail system software.",
		"If deleted, important folder data will be lost, and it will be re-created",
		"with the data reset to initial values.",
		"",
	} {
		g.out.string(line + eol)
	}
}
