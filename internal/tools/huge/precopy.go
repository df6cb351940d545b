package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"mailferry/internal/mailgen"
)

// precopied is the giant that is precopied, too.
const precopied = 0

const (
	userID = 20000
	config = `users = "file:%[1]s/passwd"
spool = "%[1]s/spool/{user}"
maildir = "{home}/Maildir"
semaphore = "%[1]s/semaphores/{user}"
state = "%[1]s/state"
`
)

// precopy measures the passes over a site of one user, whose INBOX is src.
func precopy(tool, src, dir, name string) error {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "huge: no precopy: files of users are for root")
		return nil
	}
	defer os.RemoveAll(dir)
	inbox, err := site(src, dir)
	if err != nil {
		return err
	}
	toml := filepath.Join(dir, "mailferry.toml")
	if out, err := exec.Command(tool, "enroll", "--config", toml, "--all").CombinedOutput(); err != nil {
		return fmt.Errorf("enroll: %w: %s", err, out)
	}
	for _, pass := range []struct {
		what   string
		before func() error
	}{
		{"precopy", func() error { return nil }},
		{"precopy, nothing changed", func() error { return nil }},
		{"precopy, 1% appended", func() error { return deliver(inbox) }},
	} {
		if err := pass.before(); err != nil {
			return err
		}
		peak, err := child(name, pass.what, tool, "precopy", "--config", toml, "--all")
		if err != nil {
			return err
		}
		if peak > limit {
			return fmt.Errorf("%s took %d bytes of memory, more than %d", pass.what, peak, limit)
		}
	}
	return nil
}

// site makes a home, and an INBOX of src, which it takes away.
func site(src, dir string) (inbox string, err error) {
	inbox = filepath.Join(dir, "spool/user")
	home := filepath.Join(dir, "home")
	for _, d := range []string{dir, filepath.Dir(inbox), home} {
		err = errors.Join(err, os.Mkdir(d, 0o755))
	}
	return inbox, errors.Join(err,
		os.Chmod(filepath.Dir(dir), 0o711), // users get through
		os.Rename(src, inbox),
		os.Chown(inbox, userID, userID),
		os.Chown(home, userID, userID),
		os.WriteFile(filepath.Join(dir, "passwd"), fmt.Appendf(nil, "user:%d:%d:%s\n", userID, userID, home), 0o644),
		os.WriteFile(filepath.Join(dir, "mailferry.toml"), fmt.Appendf(nil, config, dir), 0o644))
}

// deliver appends 1% to the 10 GiB.
func deliver(inbox string) error {
	f, err := os.OpenFile(inbox, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = mailgen.Fixed(w, 2, 10<<30/(8<<10)/100, 8<<10)
	return errors.Join(err, w.Flush(), f.Close())
}
