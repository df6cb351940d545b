package dovecottest

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Session is an IMAP client of its own Dovecot process, logged in, with no mailbox selected.
// Several sessions may be open on one location; one session is for one goroutine.
type Session struct {
	*server
	tag int
}

// Start opens a session. Unless closed, it is killed when the test ends.
func Start(tb testing.TB, loc Location) *Session {
	tb.Helper()
	s := &Session{server: startServer(tb, loc, "imap")}
	s.watch.Reset(s.limit)
	greeting, err := s.line()
	s.watch.Stop()
	if err != nil || !strings.HasPrefix(greeting, "* PREAUTH ") {
		tb.Fatalf("imap: greeting %q: %v", greeting, err)
	}
	return s
}

// Command sends a command, given without its tag, and returns the untagged responses, literals included
// as they came. Any answer but OK fails the test.
func (s *Session) Command(format string, args ...any) []string {
	s.tb.Helper()
	lines, err := s.Try(format, args...)
	if err != nil {
		s.tb.Fatalf("imap: %v", err)
	}
	return lines
}

// Try is Command for commands that may fail.
// The error is the server's answer, a [*Refusal], or says that the server is gone, with its log.
func (s *Session) Try(format string, args ...any) ([]string, error) {
	var lines []string
	err := s.run(fmt.Sprintf(format, args...), s.verbatim, func(line string) error {
		lines = append(lines, line)
		return nil
	})
	return lines, err
}

// Close logs out, which makes Dovecot write what it had kept in memory, and waits for the end of the process.
func (s *Session) Close() {
	s.tb.Helper()
	s.Command("LOGOUT")
	if err := s.wait(); err != nil {
		s.tb.Fatalf("imap: %v", err)
	}
}

// Kill ends the process with SIGKILL, as a crash of the server would.
func (s *Session) Kill() { s.kill() }

// Refusal is a tagged NO or BAD.
type Refusal struct {
	Command string
	Answer  string // without tag and timing: "NO [CANNOT] Mailbox isn't a valid mbox file"
}

func (r *Refusal) Error() string { return r.Command + ": " + r.Answer }

// timing is what Dovecot adds to its tagged answers.
var timing = regexp.MustCompile(` \([0-9.+ ]+ secs\)\.?$`)

// run sends a command and passes each untagged response to each.
// A literal is read by literal; what it returns stands in the literal's place.
// Once each has failed, the remaining responses are read and dropped.
func (s *Session) run(command string, literal func(size int64) (string, error), each func(line string) error) error {
	if s.dead {
		return fmt.Errorf("%s: server gone", command)
	}
	defer s.watch.Stop()
	s.tag++
	tag := fmt.Sprintf("t%d ", s.tag)
	if err := s.send(tag + command); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	var failed error
	for {
		line, err := s.response(literal)
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if answer, ok := strings.CutPrefix(line, tag); ok {
			if !strings.HasPrefix(answer, "OK ") {
				return &Refusal{command, timing.ReplaceAllString(answer, "")}
			}
			return failed
		}
		if failed == nil {
			failed = each(line)
		}
	}
}

// literalSize finds the announcement of a literal at the end of a line (RFC 3501 4.3).
var literalSize = regexp.MustCompile(`^(.*[ (])\{([0-9]+)\}$`)

// response returns one response, which goes on over several lines when it has literals.
func (s *Session) response(literal func(size int64) (string, error)) (string, error) {
	var whole strings.Builder
	for {
		line, err := s.line()
		if err != nil {
			return "", err
		}
		m := literalSize.FindStringSubmatch(line)
		if m == nil || whole.Len() == 0 && isStatus(line) {
			whole.WriteString(line)
			return whole.String(), nil
		}
		size, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return "", err
		}
		text, err := literal(size)
		if err != nil {
			return "", s.died(err)
		}
		whole.WriteString(m[1] + text)
	}
}

// isStatus reports whether line is a status response: its text is for people,
// need not consist of tokens, and may end like a literal.
func isStatus(line string) bool {
	for _, prefix := range []string{"* OK ", "* NO ", "* BAD ", "* BYE ", "* PREAUTH "} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return !strings.HasPrefix(line, "*")
}

// verbatim keeps a literal as it came.
func (s *Session) verbatim(size int64) (string, error) {
	text := make([]byte, size)
	_, err := io.ReadFull(s.out, text)
	return fmt.Sprintf("{%d}\r\n%s", size, text), err
}

// Quote returns a mailbox name, or any other string, as an argument of a command.
func Quote(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return fmt.Sprintf("{%d+}\r\n%s", len(s), s) // LITERAL+, RFC 7888
		}
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
