package livemail

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// pop3 is a POP3 client.
type pop3 struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialPOP3(d *Dovecot, u *User) (*pop3, error) {
	conn, err := net.Dial("tcp", d.POP3)
	if err != nil {
		return nil, err
	}
	c := &pop3{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	_, err = c.answer("greeting")
	for _, command := range []string{"USER " + u.Name, "PASS " + password} {
		if err == nil {
			_, err = c.do("%s", command)
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return c, nil
}

func (c *pop3) do(format string, args ...any) (string, error) {
	command := fmt.Sprintf(format, args...)
	c.conn.SetDeadline(time.Now().Add(silence))
	if _, err := io.WriteString(c.conn, command+"\r\n"); err != nil {
		return "", err
	}
	return c.answer(command)
}

func (c *pop3) answer(command string) (string, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	if line = strings.TrimSpace(line); !strings.HasPrefix(line, "+OK") {
		return "", &refusal{command, line}
	}
	return line, nil
}

// text does a command that is answered by lines, up to a dot.
func (c *pop3) text(format string, args ...any) ([]byte, error) {
	if _, err := c.do(format, args...); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for {
		line, err := c.in.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if string(line) == ".\r\n" {
			return b.Bytes(), nil
		}
		b.Write(bytes.TrimPrefix(line, []byte(".")))
	}
}
