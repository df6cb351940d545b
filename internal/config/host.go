package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Doubts looks at what the configuration names on this host, without touching
// mail: files that only root may decide about, executables that must be there.
// One sentence each.
func (c *Config) Doubts() []error {
	var problems []error
	note := func(where string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", where, err))
		}
	}
	if c.Path != "" {
		note(c.Path, checkTrusted(c.Path))
	}
	if path, ok := strings.CutPrefix(c.Users, "file:"); ok {
		note(c.from("users")+": users", checkTrusted(path))
	}
	for _, path := range c.waveFiles() {
		note(path, checkTrusted(path))
	}
	note(c.from("state")+": state", checkDirectory(c.State))
	if dir := filepath.Dir(fixedPart(c.Semaphore)); filepath.Dir(dir) != c.State {
		note(c.from("semaphore")+": semaphore", checkDirectory(dir))
	} else if _, err := os.Stat(c.State); err == nil {
		note(c.from("semaphore")+": semaphore", checkDirectory(dir))
	}
	for _, h := range c.hooks() {
		if h.path != "" {
			note(c.from(h.key)+": "+h.key, checkExecutable(h.path))
		}
	}
	return problems
}

// waveFiles are the files of waves and the lists that they name.
func (c *Config) waveFiles() []string {
	var paths []string
	for _, w := range c.Waves {
		paths = append(paths, w.file)
		if w.From != "" {
			paths = append(paths, w.From)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// hooks are the executables that root runs, by their keys.
func (c *Config) hooks() []named {
	return []named{
		{"doveadm", c.Doveadm}, {"postqueue", c.Postqueue},
		{"hooks.before-hold", c.Hooks.BeforeHold}, {"hooks.drain", c.Hooks.Drain},
		{"hooks.after-flip", c.Hooks.AfterFlip}, {"hooks.after-abort", c.Hooks.AfterAbort},
	}
}

// fixedPart is the part of a template in front of its first word, as a path
// of something in the directory that all users have in common.
func fixedPart(template string) string {
	for i := range len(template) {
		if template[i] == '{' {
			return template[:i] + "x"
		}
	}
	return template
}

// checkExecutable checks a file that root runs.
func checkExecutable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%q is no regular file", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%q is not executable (mode %04o)", path, info.Mode().Perm())
	}
	return checkTrusted(path)
}

// checkDirectory checks a directory that is ours to make: it or the one above
// it is there and is only root's to change.
func checkDirectory(path string) error {
	info, err := os.Stat(path)
	if os.IsNotExist(err) {
		parent := filepath.Dir(path)
		if info, err = os.Stat(parent); err != nil {
			return fmt.Errorf("%q can't be made: %w", path, err)
		}
		path = parent
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%q is no directory", path)
	}
	return checkTrusted(path)
}

// checkTrusted checks that only root, or who runs this process, can change a
// file or put another in its place: it and all directories above, symlinks
// resolved, are theirs and not writable by others. A directory with the sticky
// bit may be.
func checkTrusted(path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if err := trusted(path, info); err != nil {
			return err
		}
		if path == filepath.Dir(path) {
			return nil
		}
		path = filepath.Dir(path)
	}
}

func trusted(path string, info fs.FileInfo) error {
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
	switch {
	case uid != 0 && uid != os.Geteuid():
		return fmt.Errorf("%q belongs to uid %d, who could change what root does here: chown root it", path, uid)
	case info.Mode()&0o022 != 0 && !sticky:
		return fmt.Errorf("%q can be written by others than its owner (mode %04o): chmod go-w it", path, info.Mode().Perm())
	}
	return nil
}
