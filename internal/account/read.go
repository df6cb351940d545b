package account

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// maxLine bounds a line of any list of users: a name of 255 bytes and a home
// of PATH_MAX, and room.
const maxLine = 1 << 14

// maxID is one less than (uid_t)-1, which is no id but "leave as is" to the
// kernel (setresuid(2)).
const maxID = 1<<32 - 2

// readLines calls line for each line with its number from 1, without its
// line end, and wraps errors with the list's name and that number.
func readLines(r io.Reader, name string, line func(n int, text string) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	n := 0
	for s.Scan() {
		n++
		text := s.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\uFEFF")
		}
		if err := line(n, text); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%s:%d: a line of more than %d bytes", name, n+1, maxLine)
	}
	if s.Err() != nil {
		return fmt.Errorf("%s: %w", name, s.Err())
	}
	return nil
}

// withoutComment cuts off a comment, which begins with # at the start of a
// line or behind a blank, and the blanks around what remains.
func withoutComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
			break
		}
	}
	return strings.Trim(line, " \t")
}

// readFile reads a file of lines user:uid:gid:home.
func readFile(path string) ([]User, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadUsers(f, path)
}

// ReadUsers reads lines user:uid:gid:home; empty lines and lines that begin
// with # count for nothing. name is the file's in errors, which name the line.
// Users without supplementary groups, in the order of the lines.
func ReadUsers(r io.Reader, name string) ([]User, error) {
	var list []User
	err := readLines(r, name, func(_ int, line string) error {
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			return nil
		}
		part := strings.SplitN(line, ":", 4)
		if len(part) < 4 {
			return fmt.Errorf("%.200q is no line user:uid:gid:home", line)
		}
		u, err := entry(part[0], part[1], part[2], part[3])
		list = append(list, u)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// entry makes a user of an entry's fields. Ids that are no numbers make it an
// error; a name or home that can't be used are the user's Problem.
func entry(name, uid, gid, home string) (User, error) {
	u := User{Name: name, Home: home}
	var err error
	if u.UID, err = parseID("uid", uid); err != nil {
		return u, fmt.Errorf("user %.260q: %w", name, err)
	}
	if u.GID, err = parseID("gid", gid); err != nil {
		return u, fmt.Errorf("user %.260q: %w", name, err)
	}
	if u.Problem = CheckName(name); u.Problem == nil {
		u.Problem = checkHome(home)
	}
	return u, nil
}

func parseID(what, text string) (int, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id > maxID {
		return 0, fmt.Errorf("%s %.40q: not a number from 0 to %d", what, text, uint64(maxID))
	}
	return int(id), nil
}

// Repeat is a name that a list has more than once.
type Repeat struct {
	Name        string
	Line, First int // numbers of lines, from 1
}

// ReadNames reads a list of user names, one a line, comments behind #, and
// keeps the order. Names that come again are left out and returned as
// repeated. name is the list's in errors, which name the line.
func ReadNames(r io.Reader, name string) (names []string, repeated []Repeat, err error) {
	first := map[string]int{}
	err = readLines(r, name, func(n int, line string) error {
		user := withoutComment(line)
		if user == "" {
			return nil
		}
		if strings.ContainsFunc(user, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			return fmt.Errorf("%.200q is not one name", user)
		}
		if at := first[user]; at > 0 {
			repeated = append(repeated, Repeat{user, n, at})
			return nil
		}
		first[user] = n
		names = append(names, user)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return names, repeated, nil
}
