package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/semaphore"
)

// newcomers is a house in which nobody is enrolled, not even a directory is there.
func newcomers(t *testing.T) *house {
	h := newHouse(t)
	h.remove(h.path("semaphores"))
	return h
}

func (h *house) enroll(list ...account.Account) []Enrollment {
	h.Helper()
	got, err := h.site.Enroll(h.Context(), list, func() {})
	h.check(err)
	return got
}

// wantFile checks a file's content, owner and mode.
func (h *house) wantFile(path, content string, uid int, mode fs.FileMode) {
	h.Helper()
	got, err := os.ReadFile(path)
	h.check(err)
	info, err := os.Lstat(path)
	h.check(err)
	if string(got) != content || ownerOf(info) != uid || info.Mode() != mode {
		h.Errorf("%s: %q, uid %d, mode %v; want %q, %d, %v", path, got, ownerOf(info), info.Mode(), content, uid, mode)
	}
}

// says reads the authority.
func (h *house) says(want string) {
	h.Helper()
	if got := standingOf(h.a, time.Now()); got.State != want || got.Problem != "" {
		h.Errorf("the semaphore says %+v, want %q", got, want)
	}
}

func TestEnrollWritesAuthorityAndMirror(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	h := newcomers(t)
	h.a.Semaphore = h.path("var/lib/semaphores/alice")
	for _, want := range []Enrollment{
		{User: "alice", Outcome: Enrolled, Mirrored: true},
		{User: "alice", Outcome: Already},
	} {
		if got := h.enroll(h.a)[0]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		h.wantFile(h.a.Semaphore, "MAILSTATE=mbox\n", 0, 0o644)
		h.wantFile(h.a.Mirror, "MAILSTATE=mbox\n", aliceID, 0o644)
	}
	for path, want := range map[string]fs.FileMode{"var": 0o711, "var/lib": 0o711, "var/lib/semaphores": 0o755} {
		if info, err := os.Stat(h.path(path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if s := standingOf(h.a, time.Now()); s.Epoch != 1 || s.Run != "" {
		t.Errorf("meta %+v", s)
	}
}

func TestEnrollWithoutMirror(t *testing.T) {
	h := newcomers(t)
	h.remove(h.a.Mirror)
	mirror := h.a.Mirror
	h.a.Mirror = ""
	if got := h.enroll(h.a)[0]; got.Outcome != Enrolled || got.Mirrored {
		t.Errorf("got %+v", got)
	}
	if _, err := os.Lstat(mirror); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mirror: %v", err)
	}
}

func TestEnrollSkipsWhoIsNotFit(t *testing.T) {
	for _, tt := range []struct {
		code, name string
		spoil      func(*house)
	}{
		{"no-user", "unknown", func(h *house) {
			h.a = account.Account{User: account.User{Name: "alice", Problem: account.ErrUnknown}}
		}},
		{"user-invalid", "no home in the user database", func(h *house) {
			h.a = account.Account{User: account.User{Name: "alice", Problem: errors.New("no home")}}
		}},
		{"system-user", "below min-uid", func(h *house) { h.site.MinUID = aliceID + 1 }},
		{"system-user", "root's uid", func(h *house) { h.a.UID = 0 }},
		{"collision", "another writes the mirror", func(h *house) { h.collide("mirror", h.a.Mirror) }},
		{"home-missing", "not there", func(h *house) { h.remove(h.a.Home) }},
		{"home-owner", "another's", func(h *house) { h.chown(h.a.Home, malloID) }},
		{"home-untrusted", "below another's directory", func(h *house) { h.chown(h.path("home"), malloID) }},
	} {
		t.Run(tt.code+" "+tt.name, func(t *testing.T) {
			h := newcomers(t)
			h.mkdir(h.path("semaphores"), 0o755, 0)
			semaphorePath := h.a.Semaphore
			tt.spoil(h)
			before := h.snapshot()
			got := h.enroll(h.a)[0]
			if got.Outcome != journal.Skipped || got.Reason != tt.code || len(got.Findings) == 0 {
				t.Errorf("got %+v", got)
			}
			h.unchanged(before)
			if _, err := os.Lstat(semaphorePath); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a semaphore: %v", err)
			}
		})
	}
}

// They can't be moved as they are, but their mail must not wait for that.
func TestEnrollTakesWhoMerelyCannotBeMoved(t *testing.T) {
	for name, spoil := range map[string]func(*house){
		"shared uid":       func(h *house) { h.collide("uid", "61001") },
		"shared spool":     func(h *house) { h.collide("spool", h.a.Spool) },
		"writable home":    func(h *house) { h.chmod(h.a.Home, 0o777) },
		"a foreign spool":  func(h *house) { h.chown(h.a.Spool, malloID) },
		"foreign Maildir":  func(h *house) { h.mkdir(h.a.Maildir, 0o700, malloID) },
		"a mirror of lies": func(h *house) { h.mirror("hello\n") },
		"a mirror of hold": func(h *house) { h.mirror("MAILSTATE=hold\n") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newcomers(t)
			spoil(h)
			if got := h.enroll(h.a)[0]; got.Outcome != Enrolled || got.Reason != "" {
				t.Errorf("got %+v", got)
			}
			h.wantFile(h.a.Mirror, "MAILSTATE=mbox\n", aliceID, 0o644)
		})
	}
}

func TestEnrollPutsTheMirrorRight(t *testing.T) {
	for name, spoil := range map[string]func(*house){
		"missing":   func(h *house) { h.remove(h.a.Mirror) },
		"differing": func(h *house) { h.mirror("MAILSTATE=mbox\n") },
		"a symlink": func(h *house) { h.remove(h.a.Mirror); h.symlink("/etc/passwd", h.a.Mirror) },
		"another's": func(h *house) { h.chown(h.a.Mirror, malloID) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.semaphore(semaphore.Maildir)
			h.mirror("MAILSTATE=maildir\n")
			spoil(h)
			if got := h.enroll(h.a)[0]; got.Outcome != Already || !got.Mirrored {
				t.Errorf("got %+v", got)
			}
			h.wantFile(h.a.Mirror, "MAILSTATE=maildir\n", aliceID, 0o644)
			h.says("maildir")
		})
	}
}

func TestEnrollDoubtsWhoHasLostHisSemaphore(t *testing.T) {
	for name, lose := range map[string]func(*house){
		"the mirror says maildir": func(h *house) {
			h.mirror("MAILSTATE=maildir\n")
			h.remove(h.a.Semaphore + ".meta")
		},
		"the meta says maildir": func(h *house) { h.semaphore(semaphore.Maildir) },
		"the meta says hold":    func(h *house) { h.semaphore(semaphore.Hold) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			lose(h)
			h.remove(h.a.Semaphore)
			got := h.enroll(h.a)[0]
			if got.Outcome != journal.Failed || !strings.Contains(got.Reason, "mailferry semaphore set") {
				t.Errorf("got %+v", got)
			}
			h.says("")
		})
	}
}

func TestEnrollLeavesSemaphoresThatCannotBeRead(t *testing.T) {
	h := newHouse(t)
	h.write(h.a.Semaphore, "MAILSTATE=moved\n", 0)
	if got := h.enroll(h.a)[0]; got.Outcome != journal.Failed || !strings.Contains(got.Reason, "moved") {
		t.Errorf("got %+v", got)
	}
	h.wantFile(h.a.Semaphore, "MAILSTATE=moved\n", 0, 0o644)
}

// The mirror of a user who is being cut over is the cutover's business.
func TestEnrollKeepsOutOfCutovers(t *testing.T) {
	h := newHouse(t)
	defer h.cutover()()
	h.mirror("MAILSTATE=maildir\n")
	if got := h.enroll(h.a)[0]; got.Outcome != Already || got.Mirrored {
		t.Errorf("got %+v", got)
	}
	h.wantFile(h.a.Mirror, "MAILSTATE=maildir\n", aliceID, 0o600)
}

func TestEnrollSaysWhenTheMirrorFails(t *testing.T) {
	h := newcomers(t)
	h.mkdir(h.a.Mirror, 0o700, aliceID)
	got := h.enroll(h.a)[0]
	if got.Outcome != journal.Failed || got.Mirrored || !strings.Contains(got.Reason, "says mbox, but its mirror could not be written") {
		t.Errorf("got %+v", got)
	}
	h.says("mbox")
}

func TestEnrollRefusesADirectoryThatIsNoAuthority(t *testing.T) {
	for name, spoil := range map[string]func(*house){
		"others can write it": func(h *house) { h.chmod(h.path("semaphores"), 0o777|fs.ModeSticky) },
		"another's":           func(h *house) { h.chown(h.path("semaphores"), malloID) },
		"a file":              func(h *house) { h.remove(h.path("semaphores")); h.write(h.path("semaphores"), "", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			spoil(h)
			if got, err := h.site.Enroll(t.Context(), []account.Account{h.a}, func() {}); err == nil || got != nil {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestEnrollEndsWithTheContext(t *testing.T) {
	h := newcomers(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := h.site.Enroll(ctx, []account.Account{h.a}, func() {})
	if !errors.Is(err, context.Canceled) || len(got) != 1 || got[0].Outcome != journal.Untouched {
		t.Errorf("got %+v, %v", got, err)
	}
	h.says("")
}

// many makes further users like alice.
func (h *house) many(n int) (list []account.Account) {
	h.Helper()
	for i := range n {
		name := fmt.Sprintf("user%d", i)
		a := account.Places{
			Spool: h.path("spool/{user}"), Maildir: "{home}/Maildir", Semaphore: h.path("semaphores/{user}"), Mirror: "{home}/.mailstate",
		}.Account(account.User{Name: name, UID: 62000 + i, GID: 62000 + i, Home: h.path("home/" + name)})
		h.mkdir(a.Home, 0o700, a.UID)
		list = append(list, a)
	}
	return list
}

// Several who enroll the same users at once do it once.
func TestEnrollAtOnce(t *testing.T) {
	h := newcomers(t)
	list := h.many(40)
	var mu sync.Mutex
	done, enrolled := 0, map[string]int{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			got, err := h.site.Enroll(t.Context(), list, func() {
				mu.Lock()
				defer mu.Unlock()
				done++
			})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for i, e := range got {
				if e.User != list[i].Name {
					t.Errorf("result %d is of %s, want %s", i, e.User, list[i].Name)
				}
				if e.Outcome == Enrolled {
					enrolled[e.User]++
				}
			}
		})
	}
	all.Wait()
	if done != 4*len(list) {
		t.Errorf("told of %d users, want %d", done, 4*len(list))
	}
	for _, a := range list {
		if enrolled[a.Name] != 1 {
			t.Errorf("%s was enrolled %d times", a.Name, enrolled[a.Name])
		}
		h.wantFile(a.Semaphore, "MAILSTATE=mbox\n", 0, 0o644)
		h.wantFile(a.Mirror, "MAILSTATE=mbox\n", a.UID, 0o644)
	}
}
