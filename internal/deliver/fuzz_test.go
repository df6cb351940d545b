package deliver

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"mailferry/internal/message"
	"mailferry/mbox"
)

// A byte 0xfe stands for a long run of text, so that lines come in pieces.
var long = bytes.Repeat([]byte("x"), pieceSize+100)

func FuzzCollect(f *testing.F) {
	for _, seed := range []string{
		"A: b\n\nc\n", "From x\nA: b\r\n\r\nFrom y", "\r\n", "From x", "\n>From \r", "Status: R\n x\n\n",
		"From x Sat Nov 21 18:00:00 2026\r\nA: b\r\n\r\n", "From x Sat Nov 21 18:00:00 2026 \xfe\nA: b\n",
		"A: \xfe\r\n\r\n\xfe\r\nFrom x\r\n", "From \xfe\r\nA: b\r\n\r\n", "\xfe\r", "A: b\n\xfe\xfe\n\n>>From \xfe",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.Count(in, []byte{0xfe}) > 4 || bytes.Contains(bytes.ToLower(in), []byte("return-path")) {
			return
		}
		in = bytes.ReplaceAll(in, []byte{0xfe}, long)
		m, err := collect(t.Context(), bytes.NewReader(in), Envelope{HasSender: true}, tempDir(t))
		if errors.Is(err, ErrEmpty) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		m.close()
		maildir, mbox := both(t, bytes.NewReader(in), Envelope{HasSender: true})
		if want := withoutFrom(in); !strings.HasSuffix(maildir, want) || len(maildir) > len(want)+len("Return-Path: <>\n\n") {
			t.Errorf("%.300q became %.300q, want %.300q", in, maildir, want)
		}
		if half, _ := both(t, iotest.HalfReader(bytes.NewReader(in)), Envelope{HasSender: true}); half != maildir {
			t.Errorf("%.300q is another message in other pieces", in)
		}
		_, rest, _ := strings.Cut(mbox, "\n")
		if isFrom([]byte(rest)) || strings.Contains(rest, "\nFrom ") {
			t.Errorf("%.300q became %.300q: two messages", in, mbox)
		}
	})
}

// withoutFrom is the message as a Maildir has it below our fields, told in
// another way: all of it at once.
func withoutFrom(in []byte) string {
	text := string(in)
	line, rest, _ := strings.Cut(text, "\n")
	_, dated := mbox.FromLine{Raw: []byte(strings.TrimRight(line, "\r"))}.Date(time.Local)
	if strings.HasPrefix(text, "From ") && dated && len(line) < pieceSize && !message.IsHeaderLine([]byte(line)) {
		text = rest
	}
	if first, _, ended := strings.Cut(text, "\n"); ended && strings.HasSuffix(first, "\r") {
		text = strings.ReplaceAll(text, "\r\n", "\n")
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}
