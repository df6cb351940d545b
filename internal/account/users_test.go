package account

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fakeGetent puts a getent first into PATH that runs a shell script.
func fakeGetent(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "getent"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// directory is a name service that lists alice, bob and root, and knows carol
// and "1000" only when asked.
const directory = `
case "$*" in
passwd) cat <<END
root:x:0:0:root:/root:/bin/sh
bob:x:1001:100:Bob:/home/bob:/bin/sh
alice:x:1000:100:Alice,,,:/home/alice:
nobody:x:65534:65534:::
END
;;
passwd\ --\ *)
	shift 2
	code=0
	for name; do
		case $name in
		carol) echo "carol:x:200003:200003:Carol:/home/carol:/bin/sh" ;;
		1000) echo "alice:x:1000:100:Alice,,,:/home/alice:" ;;
		*) code=2 ;;
		esac
	done
	exit $code ;;
initgroups\ --\ *)
	shift 2
	for name; do
		case $name in
		bob) echo "bob                   8 100 27" ;;
		*) echo "$name       " ;;
		esac
	done ;;
*) exit 1 ;;
esac
`

func TestPickFromTheNameService(t *testing.T) {
	fakeGetent(t, directory)
	users, err := Load(context.Background(), "passwd")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range users.All() {
		names = append(names, u.Name)
	}
	if want := []string{"root", "bob", "alice", "nobody"}; !reflect.DeepEqual(names, want) {
		t.Errorf("All: %q, want %q", names, want)
	}
	if got, want := users.Names(1000), []string{"bob", "alice"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Names(1000): %q, want %q", got, want)
	}
	if got := users.Names(0); !reflect.DeepEqual(got, []string{"bob", "alice"}) {
		t.Errorf("Names(0): %q, with uid 0 or nobody", got)
	}
	got, err := users.Pick(context.Background(), []string{"carol", "dave", "bob", "1000", "a/b", "-x", "bob", "root"})
	if err != nil {
		t.Fatal(err)
	}
	unknown := func(name string) User { return User{Name: name, UID: -1, GID: -1, Problem: ErrUnknown} }
	want := []User{
		{Name: "carol", UID: 200003, GID: 200003, Home: "/home/carol"},
		unknown("dave"),
		{Name: "bob", UID: 1001, GID: 100, Home: "/home/bob", Groups: []int{8, 27}},
		unknown("1000"), // a uid to getent, but nobody's name
		unknown("a/b"), unknown("-x"),
		{Name: "root", UID: 0, GID: 0, Home: "/root"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestBrokenNameService(t *testing.T) {
	line := `echo "alice:x:1000:100:Alice:/home/alice:/bin/sh"; `
	for name, c := range map[string]struct{ script, want string }{
		"fails at once":                {`echo oops >&2; exit 1`, `getent passwd: exit status 1: "oops"`},
		"fails halfway":                {line + `exit 3`, "exit status 3"},
		"is killed halfway":            {line + `kill -9 $$`, "signal: killed"},
		"knows no users at all":        {`exit 0`, "no users at all"},
		"says not found to a listing":  {line + `exit 2`, "exit status 2"},
		"ends in the middle of a line": {line + `printf "bob:x:1001:100:Bob:/home"`, "the last line has no end"},
		"loses a field":                {line + `echo "bob:x:1001:100:/home/bob:/bin/sh"`, `line 2: "bob:x:1001:100:/home/bob:/bin/sh" has 6 fields, not 7`},
		"has an empty line":            {`echo; ` + line, "line 1"},
		"has a uid that is no number":  {`echo "bob:x:0x10:100::/home/bob:"`, `user "bob": uid "0x10": not a number`},
		"has a negative uid":           {`echo "bob:x:-1:100::/home/bob:"`, `uid "-1"`},
		"has the uid that is none":     {`echo "bob:x:4294967295:100::/home/bob:"`, `uid "4294967295"`},
		"has the gid that is none":     {`echo "bob:x:1000:4294967295::/home/bob:"`, `gid "4294967295"`},
		"has an empty uid":             {`echo "bob:x::100::/home/bob:"`, `uid ""`},
	} {
		t.Run(name, func(t *testing.T) {
			fakeGetent(t, c.script)
			users, err := Load(context.Background(), "passwd")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if users != nil {
				t.Errorf("a short list came with the error: %v", users.All())
			}
		})
	}
}

func TestBrokenLookups(t *testing.T) {
	list := `[ "$*" = passwd ] && { echo "alice:x:1000:100:Alice:/home/alice:"; exit; }; `
	for name, c := range map[string]struct{ script, want string }{
		"by name, failing":                     {list + `[ $1 = passwd ] && exit 1`, "getent passwd: exit status 1"},
		"by name, fewer than asked for":        {list + `[ $1 = passwd ] && exit 0`, "0 lines for 1 names, and said to be all"},
		"by name, malformed":                   {list + `[ $1 = passwd ] && { echo "bob:x:1"; exit 2; }`, "has 3 fields"},
		"of groups, failing":                   {list + `[ $1 = passwd ] && exit 2; exit 1`, "getent initgroups: exit status 1"},
		"of groups, short":                     {list + `[ $1 = passwd ] && exit 2; exit 0`, "0 lines for 1 names"},
		"of groups, of somebody else":          {list + `[ $1 = passwd ] && exit 2; echo "bob 4"`, `"bob 4" is no line of user "alice"`},
		"of groups, with what is no gid":       {list + `[ $1 = passwd ] && exit 2; echo "alice adm"`, `gid "adm"`},
		"of groups, with the gid that is none": {list + `[ $1 = passwd ] && exit 2; echo "alice 4294967295"`, `gid "4294967295"`},
		"of groups, ending in a line's middle": {list + `[ $1 = passwd ] && exit 2; printf "alice 4"`, "the last line has no end"},
	} {
		t.Run(name, func(t *testing.T) {
			fakeGetent(t, c.script)
			users, err := Load(context.Background(), "passwd")
			if err != nil {
				t.Fatal(err)
			}
			got, err := users.Pick(context.Background(), []string{"alice", "bob"})
			if err == nil || !strings.Contains(err.Error(), c.want) || got != nil {
				t.Errorf("%+v, error %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestPickStopsWithItsContext(t *testing.T) {
	fakeGetent(t, `sleep 10; true`)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := Load(ctx, "passwd"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 8*time.Second {
		t.Errorf("error %v after %s", err, time.Since(began))
	}
}

func TestPickThousandsInBatches(t *testing.T) {
	fakeGetent(t, `
case "$*" in
passwd) i=0; while [ $i -lt 1300 ]; do echo "u$i:x:$((i+1000)):100::/home/u$i:"; i=$((i+1)); done ;;
passwd*) shift 2; for n; do echo "$n:x:${n#x}:100::/home/$n:"; done ;;
initgroups*) shift 2; for n; do echo "$n 100 ${n#?}"; done ;;
esac`)
	users, err := Load(context.Background(), "passwd")
	if err != nil {
		t.Fatal(err)
	}
	var want []User
	var names []string
	for i := range 1300 {
		listed, unlisted := fmt.Sprintf("u%d", i), fmt.Sprintf("x%d", i+5000)
		names = append(names, listed, unlisted)
		want = append(want,
			User{Name: listed, UID: i + 1000, GID: 100, Home: "/home/" + listed, Groups: without([]int{i}, 100)},
			User{Name: unlisted, UID: i + 5000, GID: 100, Home: "/home/" + unlisted, Groups: []int{i + 5000}})
	}
	got, err := users.Pick(context.Background(), names)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("user %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// TestRealGetent compares what getent of this host says with its
// /etc/passwd and /etc/group, which a name service lists in any case.
func TestRealGetent(t *testing.T) {
	users, err := Load(context.Background(), "passwd")
	if err != nil {
		t.Fatal(err)
	}
	picked, err := users.Pick(context.Background(), []string{"root", "no-such-user-here"})
	if err != nil {
		t.Fatal(err)
	}
	if root := picked[0]; root.UID != 0 || root.GID != 0 || root.Home != "/root" || root.Problem != nil {
		t.Errorf("root: %+v", root)
	}
	if picked[1].Problem != ErrUnknown {
		t.Errorf("no-such-user-here: %+v", picked[1])
	}
	all, err := users.Pick(context.Background(), users.Names(1))
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		for line := range strings.Lines(string(groups)) {
			part := strings.Split(strings.TrimSpace(line), ":")
			gid, err := parseID("gid", part[2])
			if err != nil {
				t.Fatal(err)
			}
			member := fmt.Sprintf(",%s,", part[3])
			want := strings.Contains(member, ","+u.Name+",") && gid != u.GID
			if got := len(without(u.Groups, gid)) < len(u.Groups); u.Problem == nil && got != want {
				t.Errorf("%s in group %s: %v, want %v", u.Name, part[0], got, want)
			}
		}
	}
}

func TestDoubleNames(t *testing.T) {
	fakeGetent(t, `[ $1 = passwd ] || { shift 2; for n; do echo "$n"; done; exit; }
cat <<END
alice:x:1000:100:of files:/home/alice:/bin/sh
bob:x:1001:100::/home/bob:
alice:x:1000:100:of LDAP:/home/alice:/bin/bash
bob:x:1001:100::/srv/bob:
END`)
	users, err := Load(context.Background(), "passwd")
	if err != nil {
		t.Fatal(err)
	}
	got, err := users.Pick(context.Background(), []string{"alice", "bob"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (User{Name: "alice", UID: 1000, GID: 100, Home: "/home/alice"}); !reflect.DeepEqual(got[0], want) {
		t.Errorf("one entry from two sources: %+v", got[0])
	}
	if p := got[1].Problem; p == nil || !strings.Contains(p.Error(), `twice: uid 1001, gid 100, home "/home/bob", and uid 1001, gid 100, home "/srv/bob"`) {
		t.Errorf("two entries that differ: %v", p)
	}
}

func TestOddUsersAreListedWithTheirProblem(t *testing.T) {
	for line, want := range map[string]string{
		"a/b:1000:100:/home/a":                                  "no user name",
		":1000:100:/home/a":                                     "no user name",
		"..:1000:100:/home/a":                                   "no user name",
		"-x:1000:100:/home/a":                                   "no user name",
		"alice:1000:100:":                                       "names no home",
		"alice:1000:100:home/alice":                             "no absolute path",
		"alice:1000:100:/":                                      `home directory is "/"`,
		"alice:1000:100://./":                                   `home directory is "/"`,
		"alice:1000:100:/home/../etc":                           `component ".."`,
		"alice:1000:100:/home/a\x00b":                           "NUL",
		"alice:1000:100:/nonexistent":                           "",
		"alice:1000:100:/home/a:b":                              "",
		"toor:0:0:/root":                                        "",
		"big:4294967294:4294967294:/home/big":                   "",
		"nobody:65534:65534:/nonexistent":                       "",
		"mueller:1000:100:/home/m\u00fcller with blank\t/x#y\r": "",
	} {
		list, err := ReadUsers(strings.NewReader(line+"\n"), "users")
		if err != nil || len(list) != 1 {
			t.Fatalf("%q: %v, error %v", line, list, err)
		}
		if p := list[0].Problem; want == "" && p != nil || want != "" && (p == nil || !strings.Contains(p.Error(), want)) {
			t.Errorf("%q: problem %v, want %q", line, p, want)
		}
	}
}

func TestUsersFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	content := "\uFEFF# name:uid:gid:home\n\nbob:1001:100:/home/bob\r\n#alice:1:1:/\nalice:1000:100:/home/alice"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	fakeGetent(t, `exit 1`) // is not asked
	users, err := Load(context.Background(), "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := users.Pick(context.Background(), []string{"alice", "carol", "bob"})
	want := []User{{Name: "alice", UID: 1000, GID: 100, Home: "/home/alice"}, {Name: "carol", UID: -1, GID: -1, Problem: ErrUnknown}, {Name: "bob", UID: 1001, GID: 100, Home: "/home/bob"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
	if got, want := users.Names(1000), []string{"bob", "alice"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Names: %q, want %q", got, want)
	}

	for content, want := range map[string]string{
		"alice:1000:100\n": `users:1: "alice:1000:100" is no line user:uid:gid:home`,
		"# x\nalice\n":     "users:2: ",
		"a:1:1:/home/a\nalice:many:100:/home/alice":    `users:2: user "alice": uid "many"`,
		"alice:1000::/home/alice":                      `users:1: user "alice": gid ""`,
		"alice:1000:+1:/home/alice":                    `gid "+1"`,
		"a:1:1:/home/a\n" + strings.Repeat("x", 20000): "users:2: a line of more than 16384 bytes",
	} {
		list, err := ReadUsers(strings.NewReader(content), "users")
		if err == nil || !strings.Contains(err.Error(), want) || list != nil {
			t.Errorf("%.40q: %v, error %v, want %q", content, list, err, want)
		}
	}
	if _, err := Load(context.Background(), "file:"+path+".absent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if _, err := Load(context.Background(), "file:"+filepath.Dir(path)); err == nil {
		t.Error("a directory was read as a file")
	}
	for _, spec := range []string{"", "file:", "file:users", "ldap", "Passwd"} {
		if _, err := Load(context.Background(), spec); err == nil {
			t.Errorf("Load(%q): no error", spec)
		}
	}
}

func TestListsOfNames(t *testing.T) {
	content := "\uFEFF# first wave\nbob\r\n\n  alice  # pickier\ncarol#1\nbob # again\n\tdave\t#x"
	names, repeated, err := ReadNames(strings.NewReader(content), "wave1")
	if want := []string{"bob", "alice", "carol#1", "dave"}; err != nil || !reflect.DeepEqual(names, want) {
		t.Errorf("names %q, error %v, want %q", names, err, want)
	}
	if want := []Repeat{{"bob", 6, 2}}; !reflect.DeepEqual(repeated, want) {
		t.Errorf("repeated %v, want %v", repeated, want)
	}
	if names, _, err := ReadNames(strings.NewReader("alice\nbob carol\n"), "wave1"); err == nil || err.Error() != `wave1:2: "bob carol" is not one name` || names != nil {
		t.Errorf("two names in a line: %q, error %v", names, err)
	}
}
