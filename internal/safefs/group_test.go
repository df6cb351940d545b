package safefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWithGroupTakesTheGroupOfTheSpoolAndNoOther(t *testing.T) {
	if !asRoot(t) {
		return
	}
	const mail = 8
	spool := give(t, place(t), "spool", 0, mail, 0o775|fs.ModeSetgid)
	lock := filepath.Join(spool, "alice.lock")
	dotlock := func() error { return os.WriteFile(lock, nil, 0o600) }
	granted := Identity{UID: alice.UID, GID: alice.GID, Groups: []int{team}, Spool: mail}
	failure := errors.New("failure")
	for _, tt := range []struct {
		name string
		id   Identity
		work func() error
		want error
	}{
		{"without it the spool is closed", granted, dotlock, unix.EACCES},
		{"with it a dotlock is made", granted, func() error { return WithGroup(mail, dotlock) }, nil},
		{"and is given back", granted, func() error { return errors.Join(WithGroup(mail, dotlock), dotlock()) }, nil},
		{"twice", granted, func() error {
			return errors.Join(WithGroup(mail, dotlock), os.Remove(lock))
		}, unix.EACCES},
		{"nested", granted, func() error {
			return WithGroup(mail, func() error { return WithGroup(mail, dotlock) })
		}, nil},
		{"the error is passed on", granted, func() error { return WithGroup(mail, func() error { return failure }) }, failure},
		{"the own group needs nothing", alice, func() error { return WithGroup(alice.GID, dotlock) }, unix.EACCES},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer os.Remove(lock)
			var after map[string]string
			err := AsUser(tt.id, func() (err error) {
				err = tt.work()
				after, _ = credentials("thread-self")
				return err
			})
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			want := fmt.Sprintf("0 %d %d %d", tt.id.GID, tt.id.Spool, tt.id.GID)
			if after["Gid"] != want || after["CapEff"] != "0000000000000000" {
				t.Errorf("afterwards gids are %q, want %q; capabilities %s", after["Gid"], want, after["CapEff"])
			}
		})
	}
	for _, gid := range []int{0, 9, team, bob.GID} {
		err := AsUser(granted, func() error { return WithGroup(gid, func() error { t.Errorf("group %d: runs", gid); return nil }) })
		if err == nil || !strings.Contains(err.Error(), "not granted") {
			t.Errorf("group %d: %v", gid, err)
		}
	}
	err := AsUser(alice, func() error { return WithGroup(0, dotlock) })
	if err == nil || !strings.Contains(err.Error(), "not granted") {
		t.Errorf("group 0 of root's saved gid: %v", err)
	}
}

func TestWithGroupIsGivenBackAfterAPanic(t *testing.T) {
	if !asRoot(t) {
		return
	}
	id := Identity{UID: alice.UID, GID: alice.GID, Spool: 8}
	must(t, AsUser(id, func() error {
		func() {
			defer func() { _ = recover() }()
			_ = WithGroup(8, func() error { panic("inside") })
		}()
		if _, egid, sgid := unix.Getresgid(); egid != id.GID || sgid != 8 {
			return fmt.Errorf("gids are %d and %d", egid, sgid)
		}
		return nil
	}))
}

func TestRootNeedsNoGroup(t *testing.T) {
	must(t, WithGroup(8, func() error {
		if egid := unix.Getegid(); egid != os.Getegid() {
			return fmt.Errorf("gid %d", egid)
		}
		return nil
	}))
}
