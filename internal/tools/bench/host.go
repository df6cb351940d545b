package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mailferry/docs/routing"
)

// mailHost is a mail server on a fresh image, as far as files go: its own /etc
// and /var/lib in memory, and on the image /var/mail, the users' homes, the
// delivery agents and Postfix's queue. The bench's mount namespace is its.
type mailHost struct {
	*image
	over  string // where the filesystem in memory is mounted
	users []string
}

const hostSize = 1 << 30 // of the image, in octets

// newHost makes a mail server with users of these names, all of semaphore state.
func (l *lab) newHost(state string, users ...string) (h *mailHost, err error) {
	im, err := newImage(l.scratch, hostSize, 65536, 0)
	if err != nil {
		return nil, err
	}
	h = &mailHost{image: im, over: filepath.Join(l.scratch, "over"), users: users}
	for _, step := range []func() error{h.mount, func() error { return h.installAgents(l.config) }, func() error { return h.makeUsers(state) }} {
		if err := step(); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	unix.Sync()
	return h, nil
}

// hidden are the directories that the bench sees otherwise as long as it has a
// mail server.
var hidden = []string{"/etc", "/var/lib", "/var/mail"}

func (h *mailHost) mount() error {
	if err := os.MkdirAll(h.over, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("none", h.over, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	for _, dir := range hidden[:2] {
		upper, work := filepath.Join(h.over, dir), filepath.Join(h.over, "work", dir)
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)); err != nil {
			return fmt.Errorf("overlay on %s: %w", dir, err)
		}
	}
	mail := h.path("mail")
	return errors.Join(mkdirFor(mail, 0, mailGID, 0o2775), unix.Mount(mail, "/var/mail", "", unix.MS_BIND, ""))
}

func (h *mailHost) path(name string) string { return filepath.Join(h.dir, name) }
func (h *mailHost) home(user string) string { return h.path("home/" + user) }

// mailDirs are the directories that have mail, by all of their names.
func (h *mailHost) mailDirs() []string { return []string{"/var/mail", h.path("mail"), h.path("home")} }

func (h *mailHost) agent() string { return h.path("bin/mailferry-deliver") }

// installAgents puts the agents beside each other, as docs/routing/postfix.md says.
func (h *mailHost) installAgents(c config) error {
	if err := os.Mkdir(h.path("bin"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"mailferry-deliver", "mailferry-lmtp"} {
		if err := copyFile(h.path("bin/"+name), filepath.Join(c.agents, name), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(os.Chown(h.agent(), 0, mailGID), os.Chmod(h.agent(), 0o755|os.ModeSetgid))
}

// makeUsers makes homes with an empty Maildir, lines of passwd(5), and semaphores.
func (h *mailHost) makeUsers(state string) error {
	semaphores := "/var/lib/mailferry/semaphores"
	if err := errors.Join(os.MkdirAll(semaphores, 0o755), os.Mkdir(h.path("home"), 0o755)); err != nil {
		return err
	}
	var passwd, group strings.Builder
	for i, name := range h.users {
		id := firstUID + i
		fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:/bin/sh\n", name, id, id, h.home(name))
		fmt.Fprintf(&group, "%s:x:%d:\n", name, id)
		for _, dir := range []string{"", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"} {
			if err := mkdirFor(filepath.Join(h.home(name), dir), id, id, 0o700); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(semaphores, name), []byte("MAILSTATE="+state+"\n"), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(appendTo("/etc/passwd", passwd.String()), appendTo("/etc/group", group.String()))
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// close takes all of it away.
func (h *mailHost) close() (err error) {
	for i := len(hidden) - 1; i >= 0; i-- {
		err = errors.Join(err, unmounted(hidden[i]))
	}
	return errors.Join(err, unmounted(h.over), h.image.close())
}

func unmounted(dir string) error {
	// A daemon that is just ending may still have a file open there.
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// settle syncs the image, so that nobody pays for what another has left.
func (h *mailHost) settle() error {
	dir, err := os.Open(h.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
}

// install writes files of recipes of docs/routing: document, path, document, path.
func install(of ...string) error {
	for i := 0; i < len(of); i += 2 {
		text, err := recipe(of[i], of[i+1])
		if err == nil {
			err = os.WriteFile(of[i+1], []byte(text), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recipe is what a document says of a file.
func recipe(document, path string) (string, error) {
	list, err := routing.Snippets(document)
	for _, s := range list {
		if s.File == path {
			return s.Text, nil
		}
	}
	return "", errors.Join(err, fmt.Errorf("%s has no %s", document, path))
}
