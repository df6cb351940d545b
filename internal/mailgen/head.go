package mailgen

import (
	"encoding/base64"
	"fmt"
	"strings"
)

const host = "mail.example.org"

// identity is what messages with a shared header have in common.
type identity struct {
	received                           []string
	messageID, date, from, to, subject string
}

// head is the header that every server shows, with the empty line, in LFs.
// Fields that not every message needs take no more than a third of the content.
func (g *generator) head(d *draft) []byte {
	if d.Odd&SharedHeader == 0 {
		g.identity = g.newIdentity(d)
	}
	id := g.identity
	spare := d.size / 3
	optional := func(field string) string {
		if len(field) > spare {
			return ""
		}
		spare -= len(field)
		return field
	}

	var b strings.Builder
	b.WriteString(optional("Return-Path: <" + d.Sender + ">\n"))
	for _, r := range id.received {
		b.WriteString(optional(r))
	}
	if g.r.IntN(3) == 0 {
		b.WriteString(optional(g.signature()))
	}
	b.WriteString(id.date + id.from + id.to)
	if g.r.IntN(5) == 0 {
		b.WriteString(optional(g.folded("Cc: ", ", ", func() string { return g.person(true) })))
	}
	b.WriteString(id.subject + id.messageID)
	if g.r.IntN(3) == 0 {
		b.WriteString(optional(g.folded("References: ", " ", func() string { return "<" + g.token(24) + "@" + g.domain() + ">" })))
	}
	return []byte(b.String() + mimeFields(d) + "\n")
}

func (g *generator) newIdentity(d *draft) identity {
	sent := at(g.clock-g.r.Int64N(300), 0)
	id := identity{
		messageID: "Message-ID: <" + d.ID + "@" + g.domain() + ">\n",
		date:      "Date: " + sent.Format("Mon, 2 Jan 2006 15:04:05 -0700") + "\n",
		from:      "From: " + g.person(d.size >= roomy) + "\n",
		to:        "To: " + d.to + "\n",
		subject:   "Subject: " + g.subject(d.size >= roomy) + "\n",
	}
	for range 1 + g.r.IntN(4) {
		id.received = append(id.received, fmt.Sprintf(
			"Received: from %s (%s [192.0.2.%d])\n\tby %s (Postfix) with ESMTPS id %s\n\tfor <%s>; %s\n",
			g.domain(), g.domain(), g.r.IntN(256), host, g.token(11), d.to,
			sent.Format("Mon, _2 Jan 2006 15:04:05 -0700 (MST)")))
	}
	return id
}

func mimeFields(d *draft) string {
	const version = "MIME-Version: 1.0\n"
	switch d.kind {
	case eightBit:
		return version + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
	case latin1:
		return version + "Content-Type: text/plain;\n charset=\"iso-8859-1\"\nContent-Transfer-Encoding: 8bit\n"
	case quotedPrintable:
		return version + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n"
	case alternative:
		return version + "Content-Type: multipart/alternative;\n\tboundary=\"" + d.bound + "\"\n"
	case mixed:
		return version + "Content-Type: multipart/mixed; boundary=\"" + d.bound + "\"\n"
	}
	return ""
}

// subject is a few words, in each fourth message as RFC 2047 encoded words.
func (g *generator) subject(encoded bool) string {
	if !encoded || g.r.IntN(4) != 0 {
		return g.words(ascii, 2+g.r.IntN(3))
	}
	switch text := g.words(utf8Words, 3); g.r.IntN(3) {
	case 0:
		return "=?UTF-8?B?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?="
	case 1:
		return "=?utf-8?Q?" + qEncode(text) + "?=\n =?iso-8859-1?Q?_=E4=F6=FC?="
	default:
		return "Re: " + text // raw UTF-8, as some clients send it
	}
}

// qEncode is the Q encoding of RFC 2047 4.2.
func qEncode(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == ' ':
			b.WriteByte('_')
		case c > ' ' && c < 0x7f && !strings.ContainsRune("=?_", rune(c)):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// signature is a long folded field, like that of DKIM.
func (g *generator) signature() string {
	lines := []string{"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=" + g.domain() + ";"}
	lines = append(lines, "\ts=mail; h=from:to:subject:date:message-id; bh="+g.token(43)+"=;", "\tb="+g.token(60))
	for range 4 {
		lines = append(lines, "\t "+g.token(64))
	}
	return strings.Join(lines, "\n") + "\n"
}

// folded is a field of several items, one a line.
func (g *generator) folded(name, between string, item func() string) string {
	items := []string{item()}
	for range g.r.IntN(12) {
		items = append(items, item())
	}
	return name + strings.Join(items, strings.TrimRight(between, " ")+"\n ") + "\n"
}
