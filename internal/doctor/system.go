package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"mailferry/internal/host"
)

// Where programs are looked for. PATH has no say: who set it may not be root.
var (
	postconfPaths  = []string{"/usr/sbin/postconf", "/usr/local/sbin/postconf"}
	postaliasPaths = []string{"/usr/sbin/postalias", "/usr/local/sbin/postalias"}
	doveconfPaths  = []string{"/usr/bin/doveconf", "/usr/local/bin/doveconf"}
	dovecotPaths   = []string{"/usr/sbin/dovecot", "/usr/local/sbin/dovecot"}
	eximPaths      = []string{"/usr/sbin/exim4", "/usr/sbin/exim", "/usr/exim/bin/exim"}
	procmailPaths  = []string{"/usr/bin/procmail", "/usr/local/bin/procmail"}
	maildropPaths  = []string{"/usr/bin/maildrop", "/usr/local/bin/maildrop"}
	agentPaths     = []string{"/usr/local/bin/mailferry-deliver", "/usr/bin/mailferry-deliver", "/usr/local/sbin/mailferry-deliver", "/usr/sbin/mailferry-deliver"}
)

// system is a host as it is looked at: this one, or in tests one whose files
// lie elsewhere and whose programs read other configurations.
type system struct {
	root     string // before each path; "" for this host
	programs func(paths []string) (path string, args []string)
}

func thisHost() system {
	return system{programs: func(paths []string) (string, []string) {
		for _, path := range paths {
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
		return "", nil
	}}
}

// path is a file of the host.
func (s system) path(name string) string { return s.root + name }

// find looks for a program; "" if there is none.
func (s system) find(paths []string) string {
	path, _ := s.programs(paths)
	return path
}

// ask runs the program that was found at one of the paths.
func (e *examination) ask(paths []string, args ...string) ([]string, error) {
	return e.askBy(host.Ask, paths, args)
}

// banner asks it about itself.
func (e *examination) banner(paths []string, args ...string) ([]string, error) {
	return e.askBy(host.Banner, paths, args)
}

func (e *examination) askBy(how func(context.Context, string, ...string) ([]string, error), paths, args []string) ([]string, error) {
	path, before := e.system.programs(paths)
	if err := trusted(path); err != nil {
		return nil, err
	}
	return how(e.ctx, path, append(before, args...)...)
}

// trusted checks that a file is root's, or of who runs this, and that nobody
// else may change it.
func trusted(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%q is no regular file", path)
	case owner != 0 && owner != os.Geteuid():
		return fmt.Errorf("%q belongs to uid %d", path, owner)
	case info.Mode()&0o022 != 0:
		return fmt.Errorf("%q can be written by others than its owner (mode %s)", path, octal(info.Mode()))
	}
	return nil
}

// maxFile is how much is read of a file; configurations are smaller.
const maxFile = 1 << 20 // bytes

// read reads a configuration file; "" and no error if there is none. It waits
// for no FIFO, and reads only what others than its owner can't change.
func (s system) read(name string) (string, error) {
	path := s.path(name)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := trusted(path); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%q has more than %d bytes", name, maxFile)
	}
	return string(text), err
}

// glob lists files; none if there are none.
func (s system) glob(pattern string) (names []string) {
	found, _ := filepath.Glob(s.path(pattern)) // the only error is that of a bad pattern
	for _, path := range found {
		names = append(names, strings.TrimPrefix(path, s.root))
	}
	return names
}

// reason is an error as one line of a finding.
func reason(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
