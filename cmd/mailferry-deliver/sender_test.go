package main

import (
	"strings"
	"testing"
)

// Postfix puts "_" into SENDER for what a shell could misread; its Return-Path has the
// address as it is. A Return-Path that came with the message is never the sender's.
func TestPostfixKeepsItsReturnPath(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	p := startPostfix(g, recipe(t, "postfix.md"))
	for _, tt := range []struct{ sender, returnPath, from string }{
		{"o'brien@example.org", "o'brien@example.org", "o'brien@example.org"},
		{"o_brien@example.org", "o_brien@example.org", "o_brien@example.org"},
		{"x$y`z|w@example.org", "x$y`z|w@example.org", "x$y`z|w@example.org"},
		{`"a b"@example.org`, `"a b"@example.org`, "a_b@example.org"},
		{`"a\"b"@example.org`, `"a\"b"@example.org`, `a"b@example.org`},
		{"üser@example.org", "üser@example.org", "üser@example.org"},
		{"a+b=c@example.org", "a+b=c@example.org", "a+b=c@example.org"},
		{"", "", "MAILER-DAEMON"},
	} {
		cmd := p.command("sendmail", "-f", tt.sender, "--", "alice")
		cmd.Stdin = strings.NewReader("Return-Path: <o'brien@example.org>\nSubject: " + tt.sender + "\n\ntext\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		path := "/var/mail/alice"
		g.until("mail from "+tt.sender, func() bool { return strings.Contains(g.read(path), "\ntext\n\n") }, p.log)
		text := g.read(path)
		if !strings.HasPrefix(text, "From "+tt.from+"  ") || !strings.Contains(text, "\nReturn-Path: <"+tt.returnPath+">\n") || strings.Count(text, "Return-Path: ") != 1 {
			t.Errorf("from %q:\n%s", tt.sender, text)
		}
		g.write(path, "")
	}
}
