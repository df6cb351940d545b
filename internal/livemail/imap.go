package livemail

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// silence is how long a server may take for an answer. Dovecot itself waits for
// up to 2 minutes for a lock.
const silence = 150 * time.Second

// errRefused is the answer to a login while the user is held.
var errRefused = errors.New("the login was refused for now")

// imap is an IMAP client.
type imap struct {
	conn net.Conn
	in   *bufio.Reader
	tag  int
}

// response is an untagged response, its literals taken out.
type response struct {
	line     string
	literals [][]byte
}

// refusal is a tagged NO or BAD.
type refusal struct{ command, answer string }

func (r *refusal) Error() string { return r.command + ": " + r.answer }

func dialIMAP(d *Dovecot, u *User) (*imap, error) {
	conn, err := net.Dial("tcp", d.IMAP)
	if err != nil {
		return nil, err
	}
	c := &imap{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	if _, err = c.response(); err == nil {
		_, err = c.do("LOGIN %s %s", u.Name, password)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return c, nil
}

// do sends a command and returns the untagged responses. The error is a
// *refusal, or the end of the connection.
func (c *imap) do(format string, args ...any) ([]response, error) {
	c.tag++
	tag := fmt.Sprintf("t%d ", c.tag)
	command := fmt.Sprintf(format, args...)
	c.conn.SetDeadline(time.Now().Add(silence))
	if _, err := io.WriteString(c.conn, tag+command+"\r\n"); err != nil {
		return nil, err
	}
	command, _, _ = strings.Cut(command, "\r\n")
	var list []response
	for {
		r, err := c.response()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", command, err)
		}
		answer, ok := strings.CutPrefix(r.line, tag)
		if !ok {
			list = append(list, r)
			continue
		}
		if !strings.HasPrefix(answer, "OK") {
			return list, &refusal{command, answer}
		}
		return list, nil
	}
}

var literalSize = regexp.MustCompile(`\{([0-9]+)\}$`)

func (c *imap) response() (r response, err error) {
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return r, err
		}
		r.line += strings.TrimRight(line, "\r\n")
		m := literalSize.FindStringSubmatch(r.line)
		if m == nil {
			return r, nil
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return r, err
		}
		text := make([]byte, n)
		if _, err := io.ReadFull(c.in, text); err != nil {
			return r, err
		}
		r.literals = append(r.literals, text)
		r.line = strings.TrimSuffix(r.line, m[0])
	}
}

func (c *imap) logout() error {
	_, err := c.do("LOGOUT")
	return errors.Join(err, c.conn.Close())
}

// shown is a message as a client sees it.
type shown struct {
	id    string
	uid   uint32
	flags string
	raw   []byte // header fields, or all of it
}

var (
	uidOf      = regexp.MustCompile(`UID ([0-9]+)`)
	flagsOf    = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
	validityOf = regexp.MustCompile(`\[UIDVALIDITY ([0-9]+)\]`)
)

// selectBox opens a mailbox and returns its UIDVALIDITY.
func (c *imap) selectBox(name string) (uint32, error) {
	list, err := c.do("SELECT %s", name)
	if err != nil {
		return 0, err
	}
	for _, r := range list {
		if m := validityOf.FindStringSubmatch(r.line); m != nil {
			n, err := strconv.ParseUint(m[1], 10, 32)
			return uint32(n), err
		}
	}
	return 0, errors.New("SELECT shows no UIDVALIDITY")
}

// fetch returns messages with one item, such as BODY.PEEK[].
func (c *imap) fetch(uids, item string) (all []shown, err error) {
	list, err := c.do("UID FETCH %s (UID FLAGS %s)", uids, item)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		uid, flags := uidOf.FindStringSubmatch(r.line), flagsOf.FindStringSubmatch(r.line)
		if uid == nil || flags == nil || len(r.literals) != 1 {
			continue // flags that others have changed
		}
		n, err := strconv.ParseUint(uid[1], 10, 32)
		if err != nil {
			return nil, err
		}
		id, _ := Identify(r.literals[0])
		all = append(all, shown{id: id, uid: uint32(n), flags: joined(strings.Fields(flags[1])), raw: r.literals[0]})
	}
	return all, nil
}

// header is the item that names a message.
const header = "BODY.PEEK[HEADER.FIELDS (" + idField + ")]"

// errIgnored is about a command that the server said OK to, and did nothing: as
// it does when a message is not there for it at that moment, which Dovecot's
// mbox shows now and then while others write (RFC 3501 6.4.8).
var errIgnored = errors.New("OK, and nothing was done")

// store sets the flags of a message; the server has to show that it did.
func (c *imap) store(uid uint32, flags string) error {
	list, err := c.do("UID STORE %d FLAGS (%s)", uid, flags)
	if err != nil {
		return err
	}
	for _, r := range list {
		shown, now := uidOf.FindStringSubmatch(r.line), flagsOf.FindStringSubmatch(r.line)
		if shown != nil && now != nil && shown[1] == fmt.Sprint(uid) && joined(strings.Fields(now[1])) == flags {
			return nil
		}
	}
	return errIgnored
}

// expunge removes a message that is marked as deleted; the server has to show
// that one went.
func (c *imap) expunge(uid uint32) error {
	list, err := c.do("UID EXPUNGE %d", uid)
	if err != nil {
		return err
	}
	for _, r := range list {
		if strings.HasSuffix(r.line, " EXPUNGE") {
			return nil
		}
	}
	return errIgnored
}
