package safefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// workVariable makes this program work as a user at a path: "UID GID PATH".
const workVariable = "SAFEFS_TEST_WORK"

func TestMain(m *testing.M) {
	if order := os.Getenv(workVariable); order != "" {
		if err := workAt(order); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func workAt(order string) error {
	var id Identity
	var path string
	if _, err := fmt.Sscan(order, &id.UID, &id.GID, &path); err != nil {
		return err
	}
	return AsUser(id, func() error {
		d, err := OpenFor(path, id.UID)
		if err != nil {
			return err
		}
		defer d.Close()
		return WithGroup(8, func() error {
			f, err := d.Create("new", 0o600)
			if err != nil {
				return err
			}
			return errors.Join(f.Close(), d.Unlink("new"))
		})
	})
}

// asProcess runs workAt in a process of a user.
func asProcess(user Identity, ambient []uintptr, id Identity, path string) (said string, err error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), workVariable+"="+strconv.Itoa(id.UID)+" "+strconv.Itoa(id.GID)+" "+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: uint32(user.UID), Gid: uint32(user.GID)},
		AmbientCaps: ambient,
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestAProcessThatIsNotRootWorksForItselfAlone(t *testing.T) {
	if !asRoot(t) {
		return
	}
	dir := place(t)
	hers := give(t, dir, "alice", alice.UID, alice.GID, 0o700)
	shared := give(t, dir, "bob", bob.UID, bob.GID, 0o777)
	root := Identity{}
	for _, tt := range []struct {
		name    string
		process Identity
		ambient []uintptr
		user    Identity
		path    string
		want    string // "" for success
	}{
		{"itself", alice, nil, alice, hers, ""},
		{"its other group", Identity{UID: alice.UID, GID: team}, nil, alice, hers, ""},
		{"another user", alice, nil, bob, shared, "working as uid 40002: this process is uid 40001 and not root"},
		{"another's directory", alice, nil, alice, shared, `/bob" belongs to uid 40002, neither to root nor to uid 40001`},
		{"root", alice, nil, root, hers, "working as uid 0, gid 0: refused"},
		{"root for root", root, nil, root, hers, "working as uid 0, gid 0: refused"},
		{"itself with a capability", alice, []uintptr{unix.CAP_DAC_OVERRIDE}, alice, hers, "still has capabilities"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said, err := asProcess(tt.process, tt.ambient, tt.user, tt.path)
			if tt.want == "" && err != nil || !strings.Contains(said, tt.want) || (err == nil) != (tt.want == "") {
				t.Errorf("%q, %v; want %q", said, err, tt.want)
			}
		})
	}
}

// Where the kernel is told to leave capabilities alone (capabilities(7),
// SECBIT_NO_SETUID_FIXUP), a user's thread would keep root's.
func TestAThreadThatKeepsItsPowerEndsTheProcess(t *testing.T) {
	if !asRoot(t) {
		return
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("setpriv", "--securebits", "+no_setuid_fixup", self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d /", workVariable, alice.UID, alice.GID))
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "panic: the thread still has capabilities") {
		t.Errorf("%v: %s", err, out)
	}
}
