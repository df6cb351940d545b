package deliver

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mailferry/internal/account"
)

// Users finds a single user without reading all of them into memory, or running
// a program if he is in the host's own files.
type Users struct {
	Spec   string // see account.Load
	MinUID int    // users with a lower uid get no mail from us; uid 0 never does

	etc    string // directory of passwd, group and nsswitch.conf; "" is /etc
	getent string // program; "" is /usr/bin/getent
}

// Find returns a user, with his supplementary groups. ErrNoUser is returned
// only if nobody can know him: the file has no such line, and is a list to its
// end; or /etc/passwd has none, getent finds none, and nsswitch.conf names no
// source that may be out of reach at the moment.
func (u Users) Find(ctx context.Context, name string) (account.User, error) {
	if err := account.CheckName(name); err != nil {
		return account.User{}, err
	}
	user, err := u.lookUp(ctx, name)
	switch {
	case err != nil:
		return user, err
	case user.Problem != nil:
		return user, user.Problem
	case user.UID < max(u.MinUID, 1):
		return user, fmt.Errorf("uid %d is below min-uid %d", user.UID, u.MinUID)
	case user.Name != name:
		return user, fmt.Errorf("the user database answers with %q", user.Name)
	}
	return user, nil
}

func (u Users) lookUp(ctx context.Context, name string) (account.User, error) {
	if path, ok := strings.CutPrefix(u.Spec, "file:"); ok {
		lines, err := inList(path, name)
		if err != nil {
			return account.User{}, err
		}
		return oneOf(lines)
	}
	lines, err := linesOf(u.file("passwd"), name)
	if err != nil {
		return account.User{}, err
	}
	if len(lines) > 0 {
		user, err := parsePasswd(lines[0]) // the first one counts, getpwnam(3)
		if err == nil && user.Problem == nil {
			user.Groups, err = localGroups(u.file("group"), user)
		}
		return user, err
	}
	return u.ask(ctx, name)
}

func (u Users) file(name string) string { return filepath.Join(cmp.Or(u.etc, "/etc"), name) }

// linesOf returns the lines of a file that begin with a name and a colon. A
// file without any line proves nothing.
func linesOf(path, name string) (lines []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	empty := true
	s := bufio.NewScanner(f)
	for s.Scan() {
		empty = false
		if strings.HasPrefix(s.Text(), name) && strings.HasPrefix(s.Text()[len(name):], ":") {
			lines = append(lines, s.Text())
		}
	}
	if s.Err() == nil && empty {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return lines, s.Err()
}

// inList returns the lines user:uid:gid:home of a name; the last needs no end, as
// for package account. Only a list of which each line is whole can be without
// any: others may be caught while they are written.
func inList(path, name string) (lines []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	doubt := fmt.Errorf("%s is empty", path)
	r := bufio.NewReaderSize(f, bufio.MaxScanTokenSize)
	for n := 1; ; n++ {
		text, err := r.ReadSlice('\n')
		if err == io.EOF && len(text) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		line := strings.TrimSuffix(string(text), "\n")
		if n == 1 {
			line, doubt = strings.TrimPrefix(line, "\uFEFF"), nil // as package account does
		}
		if of, _, _ := strings.Cut(line, ":"); of == name && !isComment(line) {
			lines = append(lines, line)
		}
		if doubt == nil && !isComment(line) && !isEntry(line) {
			doubt = fmt.Errorf("%s:%d: no line user:uid:gid:home", path, n)
		}
		if err == io.EOF {
			doubt = fmt.Errorf("%s:%d: a line without end", path, n)
			break
		}
	}
	if len(lines) == 0 {
		return nil, doubt
	}
	return lines, nil
}

func isComment(line string) bool {
	return strings.HasPrefix(line, "#") || strings.TrimSpace(line) == ""
}

// isEntry knows what package account takes for an entry of a list: all of them
// are to be looked at, without memory for each.
func isEntry(line string) bool {
	part := strings.SplitN(line, ":", 4)
	return len(part) == 4 && isID(part[1]) && isID(part[2])
}

func isID(text string) bool {
	id, err := strconv.ParseUint(text, 10, 32)
	return err == nil && id < math.MaxUint32
}

// oneOf takes the lines user:uid:gid:home of one name for one user.
func oneOf(lines []string) (account.User, error) {
	if len(lines) == 0 {
		return account.User{}, ErrNoUser
	}
	list, err := account.ReadUsers(strings.NewReader(strings.Join(lines, "\n")), "user database")
	if err != nil {
		return account.User{}, err
	}
	for _, other := range list[1:] {
		if other.UID != list[0].UID || other.GID != list[0].GID || other.Home != list[0].Home {
			return account.User{}, errors.New("the user database has him twice")
		}
	}
	return list[0], nil
}

// parsePasswd reads a line of passwd(5).
func parsePasswd(line string) (account.User, error) {
	part := strings.Split(line, ":")
	if len(part) != 7 {
		return account.User{}, fmt.Errorf("passwd: a line of %d fields, not 7", len(part))
	}
	return oneOf([]string{strings.Join([]string{part[0], part[2], part[3], part[5]}, ":")})
}

// localGroups finds the groups of group(5) that a user is in besides his own.
// Without the file there are none.
func localGroups(path string, user account.User) (groups []int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20) // a group has many members
	for s.Scan() {
		part := strings.Split(s.Text(), ":")
		if len(part) != 4 || !slices.Contains(strings.Split(part[3], ","), user.Name) {
			continue
		}
		gid, err := strconv.ParseUint(part[2], 10, 32)
		if err == nil && int(gid) != user.GID {
			groups = append(groups, int(gid))
		}
	}
	return groups, s.Err()
}

// notFound is getent's exit code for a key that was not found (getent(1)).
const notFound = 2

// ask looks a user up in all sources of the name service.
func (u Users) ask(ctx context.Context, name string) (account.User, error) {
	line, err := u.runGetent(ctx, "passwd", name)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == notFound {
		if err := u.provesAbsence(); err != nil {
			return account.User{}, err
		}
		return account.User{}, ErrNoUser
	}
	if err != nil {
		return account.User{}, fmt.Errorf("getent passwd: %w", err)
	}
	user, err := parsePasswd(line)
	if err != nil || user.Problem != nil {
		return user, err
	}
	if line, err = u.runGetent(ctx, "initgroups", name); err != nil {
		return user, fmt.Errorf("getent initgroups: %w", err)
	}
	for _, text := range strings.Fields(line)[1:] {
		gid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return user, fmt.Errorf("getent initgroups: %.40q is no gid", text)
		}
		if int(gid) != user.GID {
			user.Groups = append(user.Groups, int(gid))
		}
	}
	return user, nil
}

// runGetent returns the one line that getent prints. "--" keeps a name from
// being an option. Who calls a setgid program must not choose what is run, nor,
// by LD_PRELOAD and the like, what it answers.
func (u Users) runGetent(ctx context.Context, database, name string) (string, error) {
	cmd := exec.CommandContext(ctx, cmp.Or(u.getent, "/usr/bin/getent"), database, "--", name)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	line, rest, ended := strings.Cut(string(out), "\n")
	if !ended || rest != "" || line == "" {
		return "", fmt.Errorf("not one line, but %.200q", out)
	}
	return line, nil
}

// provesAbsence is an error unless all sources of users are files of this host:
// getent(1) says "not found" of a directory server that is down as well.
func (u Users) provesAbsence() error {
	lines, err := linesOf(u.file("nsswitch.conf"), "passwd")
	if err != nil {
		return err
	}
	for _, line := range lines {
		for _, source := range strings.Fields(strings.TrimPrefix(line, "passwd:")) {
			if source != "files" && source != "systemd" {
				return fmt.Errorf("%w, but %.40q may be out of reach", ErrUnproved, source)
			}
		}
	}
	if len(lines) != 1 {
		return fmt.Errorf("%w, and nsswitch.conf does not tell where everybody is", ErrUnproved)
	}
	return nil
}
