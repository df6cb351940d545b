package dovecottest

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// POP3Message is what POP3 shows of a message.
type POP3Message struct {
	Number int
	Size   int64 // of LIST
	UIDL   string
	Digest Digest // of what RETR sends, dots unstuffed; a final CRLF that the message lacks is part of it
}

// DumpPOP3 returns what POP3 shows of INBOX, in order of number.
// Any refusal, such as of an INBOX that is no mbox, fails the test.
// As with [DumpIMAP], the location is opened for writing; \Seen is not set, unlike by a real download.
func DumpPOP3(tb testing.TB, loc Location) []POP3Message {
	tb.Helper()
	p := &pop3{startServer(tb, loc, "pop3")}
	messages, err := p.dump()
	if err == nil {
		_, err = p.command("QUIT")
	}
	if err == nil {
		err = p.wait()
	}
	if err != nil {
		tb.Fatalf("pop3: %v", err)
	}
	return messages
}

// pop3 is a client of its own process, logged in. On a pipe Dovecot sends no greeting;
// when INBOX can't be opened, the answer to the first command is an error that it sent unasked.
type pop3 struct{ *server }

// dump lists and retrieves all messages.
func (p *pop3) dump() ([]POP3Message, error) {
	messages, err := p.list()
	if err == nil {
		err = p.uidl(messages)
	}
	for i := range messages {
		if err != nil {
			break
		}
		messages[i].Digest, err = p.retrieve(messages[i].Number)
	}
	return messages, err
}

// list returns number and size of every message.
func (p *pop3) list() ([]POP3Message, error) {
	var messages []POP3Message
	err := p.multiline("LIST", func(line string) error {
		var m POP3Message
		if _, err := fmt.Sscanf(line, "%d %d", &m.Number, &m.Size); err != nil || m.Number != len(messages)+1 {
			return fmt.Errorf("message %d: %q: %w", len(messages)+1, line, err)
		}
		messages = append(messages, m)
		return nil
	})
	return messages, err
}

// uidl fills in the UIDLs.
func (p *pop3) uidl(messages []POP3Message) error {
	next := 0
	err := p.multiline("UIDL", func(line string) error {
		number, uidl, _ := strings.Cut(line, " ")
		if next == len(messages) || number != fmt.Sprint(messages[next].Number) {
			return fmt.Errorf("message %d of %d: %q", next+1, len(messages), line)
		}
		messages[next].UIDL = uidl
		next++
		return nil
	})
	if err == nil && next < len(messages) {
		err = fmt.Errorf("UIDL: %d of %d messages", next, len(messages))
	}
	return err
}

// retrieve returns the digest of a message.
func (p *pop3) retrieve(number int) (Digest, error) {
	h := sha256.New()
	err := p.multiline(fmt.Sprintf("RETR %d", number), func(line string) error {
		_, _ = h.Write([]byte(line)) // a hash never fails
		_, _ = h.Write([]byte("\r\n"))
		return nil
	})
	return Digest(h.Sum(nil)), err
}

// command sends a command and returns the first line of its answer.
func (p *pop3) command(command string) (string, error) {
	defer p.watch.Stop()
	if err := p.send(command); err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	answer, err := p.line()
	if err == nil && !strings.HasPrefix(answer, "+OK") {
		err = fmt.Errorf("%s\n%s", answer, p.log())
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return answer, nil
}

// multiline sends a command and passes each line of its answer, unstuffed, to each (RFC 1939 3).
func (p *pop3) multiline(command string, each func(line string) error) error {
	if _, err := p.command(command); err != nil {
		return err
	}
	defer p.watch.Stop()
	for {
		line, err := p.line()
		if err == nil && line == "." {
			return nil
		}
		if err == nil {
			err = each(strings.TrimPrefix(line, "."))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
}
