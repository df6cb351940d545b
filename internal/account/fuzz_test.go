package account

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func FuzzUsersFile(f *testing.F) {
	f.Add("alice:1000:100:/home/alice\n# x\n\nbob:0:0:/")
	f.Add("\uFEFFa:4294967294:0:/x:y\r\n")
	f.Add("a/b:1:1:relative\n..:1:1:/../..")
	f.Add("a:1:1:/h\na:2:2:/h\na:1:1:/h")
	f.Fuzz(func(t *testing.T, content string) {
		list, err := ReadUsers(strings.NewReader(content), "users")
		if err != nil {
			if list != nil || !strings.HasPrefix(err.Error(), "users:") {
				t.Fatalf("%v with error %v", list, err)
			}
			return
		}
		users := newUsers(list, false)
		for _, a := range accountsOf(standard, users.All()...) {
			checkSound(t, a)
		}
		Collisions(accountsOf(standard, list...))
		again := &strings.Builder{}
		for _, u := range list {
			fmt.Fprintf(again, "%s:%d:%d:%s\n", u.Name, u.UID, u.GID, u.Home)
		}
		for _, u := range list {
			if strings.HasPrefix(u.Name, "#") || strings.HasPrefix(u.Name, "\uFEFF") || strings.HasSuffix(u.Home, "\r") || strings.TrimSpace(u.Name) != u.Name {
				return // only another line could have said so
			}
		}
		back, err := ReadUsers(strings.NewReader(again.String()), "users")
		if err != nil || fmt.Sprintf("%+v", back) != fmt.Sprintf("%+v", list) {
			t.Fatalf("written and read again: %+v, error %v, want %+v", back, err, list)
		}
	})
}

// checkSound fails unless an account's paths are clean, absolute and its own,
// or it has a problem and no paths.
func checkSound(t *testing.T, a Account) {
	paths := append([]string{a.Spool, a.Maildir, a.Semaphore, a.Mirror, a.Gate}, a.Folders...)
	for _, p := range paths {
		if a.Problem != nil && p != "" || a.Problem == nil && (p != filepath.Clean(p) || p[0] != '/') {
			t.Fatalf("user %q, home %q, problem %v: path %q", a.Name, a.Home, a.Problem, p)
		}
	}
	if a.Problem == nil && (filepath.Dir(a.Spool) != "/var/mail" || filepath.Base(a.Semaphore) != a.Name || a.UID < 0 || a.UID > maxID) {
		t.Fatalf("user %q, uid %d: spool %q, semaphore %q", a.Name, a.UID, a.Spool, a.Semaphore)
	}
}

func FuzzNames(f *testing.F) {
	f.Add("alice\nbob # x\n#\nalice\r\n")
	f.Add("\uFEFFa\n b\t\n")
	f.Add("a b")
	f.Fuzz(func(t *testing.T, content string) {
		names, repeated, err := ReadNames(strings.NewReader(content), "list")
		if err != nil {
			if names != nil || !strings.HasPrefix(err.Error(), "list:") {
				t.Fatalf("%q with error %v", names, err)
			}
			return
		}
		if len(once(names)) != len(names) {
			t.Fatalf("names twice: %q", names)
		}
		for _, r := range repeated {
			if r.First >= r.Line || !strings.Contains(strings.Join(names, "\n"), r.Name) {
				t.Fatalf("repeated %v of %q", r, names)
			}
		}
		back, again, err := ReadNames(strings.NewReader(strings.Join(names, "\n")), "list")
		if err != nil || len(again) > 0 || !reflect.DeepEqual(back, names) {
			if !strings.HasPrefix(strings.Join(names, ""), "\uFEFF") {
				t.Fatalf("written and read again: %q, %v, error %v, want %q", back, again, err, names)
			}
		}
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add("{home}/Maildir", "alice", "/home/alice")
	f.Add("/var/mail/{user}", "{home}", "/{user}")
	f.Add("{home}{home}", "a", "/h")
	f.Fuzz(func(t *testing.T, template, name, home string) {
		u, err := entry(name, "1000", "100", home)
		if err != nil {
			t.Fatal(err)
		}
		if CheckTemplate(template, "{user}") != nil || u.Problem != nil {
			return
		}
		a := Places{Spool: template}.Account(u)
		if !filepath.IsAbs(a.Spool) || hasDots(a.Spool) || strings.ContainsRune(a.Spool, 0) || !strings.Contains(a.Spool, name) {
			t.Fatalf("%q of %q at %q is %q", template, name, home, a.Spool)
		}
		if strings.HasPrefix(template, "{home}") && !within(a.Spool, filepath.Clean(home)) {
			t.Fatalf("%q of %q at %q is %q, not in the home", template, name, home, a.Spool)
		}
	})
}
