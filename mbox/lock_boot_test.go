package mbox

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// After a power loss nobody who made a lock on this host lives, whatever is left
// of what he wrote, and whoever has his pid now.
func TestLocksOlderThanTheBootAreStaleAtOnce(t *testing.T) {
	was := sinceBoot
	defer func() { sinceBoot = was }()
	host, _ := os.Hostname()
	live := fmt.Sprint(os.Getppid())
	for _, tt := range []struct {
		name, content string
		taken         bool
	}{
		{"empty", "", true},
		{"procmail's 0", "0", true},
		{"a pid that somebody has now", live + ":" + host, true},
		{"a pid without a host", live, true},
		{"of another host", live + ":elsewhere", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLockSpool(t)
			s.write(s.dotlock, tt.content)
			s.must(os.Chown(s.dotlock, lockNobody, -1))
			opts := LockOptions{Dotlock: true, Path: "/var/mail/alice"}
			sinceBoot = was
			_, err := s.lock(opts)
			s.wantFault(err, LockBusy, KindDotlock, "")
			// As if the host had been started just now, the lock being older.
			sinceBoot = func() time.Duration { return -2 * time.Second }
			held, err := s.lock(opts)
			if !tt.taken {
				s.wantFault(err, LockBusy, KindDotlock, "on elsewhere")
				return
			}
			s.must(err)
			s.must(held.Release())
		})
	}
}

// Package semaphore has its copy, since it imports nothing of ours.
func TestGateAndLocksAgeAlike(t *testing.T) {
	var code [2]string
	for i, path := range []string{"lock_boot.go", "../semaphore/boot.go"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, code[i], _ = strings.Cut(string(text), "\n\n") // behind the package clause
	}
	if code[0] == "" || code[0] != code[1] {
		t.Error("what lock_boot.go and semaphore/boot.go say of the age of locks is not the same")
	}
}
