package deliver

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"mailferry/internal/account"
)

// host is a user database of passwd, group, nsswitch.conf and what getent says.
func host(t *testing.T, files map[string]string, getent string) Users {
	t.Helper()
	u := Users{Spec: account.Passwd, MinUID: 1000, etc: t.TempDir()}
	u.getent = filepath.Join(u.etc, "getent")
	files["getent"] = "#!/bin/sh\n" + getent
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(u.etc, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

const passwd = "root:x:0:0::/root:/bin/sh\nalice:x:2001:2001:Alice,,,:/home/alice:/bin/sh\nlow:x:500:500::/home/low:\nbad:x:y:1::/:\nhomeless:x:2002:2002:::\n"

func TestAUserOfThisHostIsFoundWithoutAProgram(t *testing.T) {
	u := host(t, map[string]string{"passwd": passwd, "group": "mail:x:8:bob,alice\nalice:x:2001:alice\nbroken\nbob:x:9:bob\n"}, "exit 9")
	got, err := u.Find(t.Context(), "alice")
	want := account.User{Name: "alice", UID: 2001, GID: 2001, Groups: []int{8}, Home: "/home/alice"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, says := range map[string]string{"root": "min-uid", "low": "min-uid", "bad": "uid", "homeless": "home", "carol": "exit status 9", "../x": "begins", "": "no user name"} {
		if _, err := u.Find(t.Context(), name); err == nil || errors.Is(err, ErrNoUser) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", name, err, says)
		}
	}
}

func TestAUserFromElsewhereIsAskedFor(t *testing.T) {
	u := host(t, map[string]string{"passwd": passwd},
		`case "$*" in "passwd -- carol") echo "carol:*:3001:3001::/home/carol:";; "initgroups -- carol") echo "carol 3001 8 20";; "passwd -- 3001") echo "carol:*:3001:3001::/home/carol:";; *) exit 1;; esac`)
	got, err := u.Find(t.Context(), "carol")
	want := account.User{Name: "carol", UID: 3001, GID: 3001, Groups: []int{8, 20}, Home: "/home/carol"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := u.Find(t.Context(), "3001"); err == nil || errors.Is(err, ErrNoUser) {
		t.Errorf("a uid for a name: %v", err)
	}
}

// Who calls a setgid program chooses its environment.
func TestTheEnvironmentDoesNotChooseWhoIsAsked(t *testing.T) {
	u := host(t, map[string]string{"passwd": passwd, "nsswitch.conf": "passwd: files\n"}, "echo mallory:x:2001:2001::/home/mallory:/bin/sh")
	t.Setenv("PATH", u.etc)
	u.getent = ""
	if user, err := u.Find(t.Context(), "mallory"); !errors.Is(err, ErrNoUser) {
		t.Errorf("%+v, %v", user, err)
	}
	for _, variable := range []string{"LD_PRELOAD", "LC_ALL", "LANG", "RES_OPTIONS", "HOME"} {
		t.Setenv(variable, u.etc)
	}
	u = host(t, map[string]string{"passwd": passwd}, `echo "carol:*:3001:3001::/$(env | sort | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | tr '\n:' ' ,'):"`)
	user, err := u.lookUp(t.Context(), "carol")
	if err == nil || user.Home != "/LC_ALL=C PATH=/usr/bin,/bin " {
		t.Errorf("getent has %q, %v", user.Home, err)
	}
}

// A list may be read while it is written.
func TestAListThatMayBeHalfWrittenProvesNobodyAbsent(t *testing.T) {
	const whole = "# a comment\n\nalice:2001:2001:/home/alice\nlow:1:1:/\nhomeless:5:5:\n"
	for name, tt := range map[string]struct {
		list   string
		proved bool // that carol is absent
	}{
		"whole":                    {whole, true},
		"with a byte order mark":   {"\ufeff" + whole, true},
		"empty":                    {"", false},
		"comments alone":           {"# a comment\n", true},
		"without its last end":     {strings.TrimSuffix(whole, "\n"), false},
		"half a line":              {whole + "car", false},
		"half a name of his":       {whole + "carol:20", false},
		"half another's home":      {whole + "bob:2002:2002:/home/bo", false},
		"a line of two fields":     {whole + "bob:2003\n", false},
		"a uid that is no number":  {whole + "bob:x:2003:/home/bob\n", false},
		"a gid that is no number":  {whole + "bob:2003::/home/bob\n", false},
		"a uid that is no uid":     {whole + "bob:4294967295:2003:/home/bob\n", false},
		"NULs":                     {whole + strings.Repeat("\x00", 512), false},
		"NULs, and an end":         {strings.Repeat("\x00", 512) + "\n" + whole, false},
		"a very long line":         {strings.Repeat("x", 100<<10) + ":1:1:/\n", false},
		"passwd(5)":                {passwd, false},
		"something else":           {"<html>\n", false},
		"two in one line":          {"alice:2001:2001:/home/alice bob:2001\n", true}, // a home may look like that
		"blanks":                   {" \t\n" + whole, true},
		"lines that end in CR, LF": {strings.ReplaceAll(whole, "\n", "\r\n"), true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users")
			if err := os.WriteFile(path, []byte(tt.list), 0o600); err != nil {
				t.Fatal(err)
			}
			u := Users{Spec: "file:" + path, MinUID: 1000}
			if _, err := u.Find(t.Context(), "carol"); err == nil || errors.Is(err, ErrNoUser) != tt.proved {
				t.Errorf("carol: %v", err)
			}
			if !strings.Contains(tt.list, "alice:2001:2001:/home/alice\n") {
				return
			}
			user, err := u.Find(t.Context(), "alice")
			if want := (account.User{Name: "alice", UID: 2001, GID: 2001, Home: "/home/alice"}); err != nil || !reflect.DeepEqual(user, want) {
				t.Errorf("alice: %+v, %v", user, err)
			}
		})
	}
}

// mailferry reads such a list, and moves all of them.
func TestTheLastLineOfAListNeedsNoEnd(t *testing.T) {
	for _, list := range []string{"alice:2001:2001:/home/alice\nbob:2002:2002:/home/bob", "bob:2002:2002:/home/bob", "\ufeffbob:2002:2002:/home/bob", "bob:2002:2002:/home/bob\r"} {
		path := filepath.Join(t.TempDir(), "users")
		if err := os.WriteFile(path, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		user, err := Users{Spec: "file:" + path, MinUID: 1000}.Find(t.Context(), "bob")
		if want := (account.User{Name: "bob", UID: 2002, GID: 2002, Home: "/home/bob"}); err != nil || !reflect.DeepEqual(user, want) {
			t.Errorf("%q: %+v, %v", list, user, err)
		}
	}
}

func TestACommentIsNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("#bob:2002:2002:/home/bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if user, err := (Users{Spec: "file:" + path, MinUID: 1000}).Find(t.Context(), "#bob"); !errors.Is(err, ErrNoUser) {
		t.Errorf("%+v, %v", user, err)
	}
}

func TestAbsenceHasToBeProved(t *testing.T) {
	for nsswitch, proved := range map[string]bool{
		"passwd: files\n": true,
		"passwd:   files systemd\ngroup: files sss\n": true,
		"passwd: files sss\n":                         false,
		"passwd: files ldap [NOTFOUND=return]\n":      false,
		"passwd: compat\n":                            false,
		"group: files\n":                              false,
		"":                                            false,
		"missing":                                     false,
	} {
		files := map[string]string{"passwd": passwd, "nsswitch.conf": nsswitch}
		if nsswitch == "missing" {
			delete(files, "nsswitch.conf")
		}
		_, err := host(t, files, "exit 2").Find(t.Context(), "carol")
		if err == nil || errors.Is(err, ErrNoUser) != proved {
			t.Errorf("%q: %v", nsswitch, err)
		}
	}
	for name, getent := range map[string]string{"fails": "exit 1", "dies": "kill -9 $$", "says nothing": "exit 0", "says half a line": "printf carol:x:1", "says too much": "echo a; echo b"} {
		if _, err := host(t, map[string]string{"passwd": passwd, "nsswitch.conf": "passwd: files\n"}, getent).Find(t.Context(), "carol"); err == nil || errors.Is(err, ErrNoUser) {
			t.Errorf("getent %s: %v", name, err)
		}
	}
	if _, err := host(t, map[string]string{"passwd": "", "nsswitch.conf": "passwd: files\n"}, "exit 2").Find(t.Context(), "carol"); err == nil || errors.Is(err, ErrNoUser) {
		t.Errorf("an empty passwd: %v", err)
	}
}
