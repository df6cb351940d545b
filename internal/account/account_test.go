package account

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"alice": true, "a.b": true, "host$": true, `DOM\bob`: true, "bob@example.org": true, "jürgen": true, ".x": false, "1000": true,
		"": false, ".": false, "..": false, "a/b": false, "-rf": false, "a:b": false, "a b": false, "a\tb": false, "a\nb": false,
		"a\x00b": false, "a\x7fb": false, "a\xffb": false, strings.Repeat("a", 256): false, strings.Repeat("a", 255): true,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

var standard = Places{
	Spool: "/var/mail/{user}", Folders: []string{"{home}/mail"}, Maildir: "{home}/Maildir",
	Semaphore: "/var/lib/mailferry/semaphores/{user}", Mirror: "{home}/.mailstate", Gate: "{home}/.mailstate.lock",
}

func TestPlacesOfAUser(t *testing.T) {
	alice := User{Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice/"}
	want := Account{
		User: alice, Spool: "/var/mail/alice", Folders: []string{"/home/alice/mail"}, Maildir: "/home/alice/Maildir",
		Semaphore: "/var/lib/mailferry/semaphores/alice", Mirror: "/home/alice/.mailstate", Gate: "/home/alice/.mailstate.lock",
	}
	if got := standard.Account(alice); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	t.Run("words in a name or home stay as they are", func(t *testing.T) {
		p := Places{Spool: "/var/mail/{uid}/{user}", Maildir: "{home}/Maildir"}
		a := p.Account(User{Name: "{home}", UID: 7, Home: "/home/{user}"})
		if a.Spool != "/var/mail/7/{home}" || a.Maildir != "/home/{user}/Maildir" {
			t.Errorf("spool %q, maildir %q", a.Spool, a.Maildir)
		}
	})
	t.Run("no mirror stays none", func(t *testing.T) {
		if a := (Places{}).Account(alice); a.Mirror != "" {
			t.Errorf("mirror %q", a.Mirror)
		}
	})
	t.Run("a user with a problem has no paths", func(t *testing.T) {
		a := standard.Account(User{Name: "../x", Home: "/home/x", Problem: CheckName("../x")})
		if a.Spool != "" || a.Maildir != "" || a.Folders != nil || a.Semaphore != "" || a.Mirror != "" || a.Gate != "" {
			t.Errorf("paths: %+v", a)
		}
	})
}

func TestTemplates(t *testing.T) {
	both := []string{"{user}", "{home}"}
	for _, c := range []struct {
		template string
		needs    []string
		want     string // in the error; "" for none
	}{
		{"/var/mail/{user}", both, ""},
		{"{home}/Maildir", both, ""},
		{"{home}", both, ""},
		{"/srv/{uid}/{user}.mbox", both, ""},
		{"/etc/x", nil, ""},
		{"/var/mail/{usr}", both, "has {usr} in it: known are {user}, {home}, {uid}"},
		{"/var/mail/{user", both, "a brace without its other half"},
		{"/var/mail/user}", both, "a brace without its other half"},
		{"/var/mail/{{user}}", both, "has {{user} in it"},
		{"/var/mail/{}", both, "has {} in it"},
		{"/var/mail/{user}}", both, "a brace without its other half"},
		{"mail/{user}", both, "is no absolute path"},
		{"~/Maildir", both, "is no absolute path"},
		{"{user}/Maildir", both, "is no absolute path"},
		{"", both, "is no absolute path"},
		{"/mail{home}", both, "{home} is an absolute path, so it stands first"},
		{"{home}{home}", both, "{home} is an absolute path, so it stands first"},
		{"{home}Maildir", both, "a slash is missing after {home}"},
		{"/var/mail", both, "is one path for all users: it needs {user} or {home}"},
		{"/var/lib/{uid}", []string{"{user}"}, "is one path for all users: it needs {user}"},
		{"/var/../{user}", both, `has a component ".."`},
		{"{home}/..", both, `has a component ".."`},
		{"/", nil, "is the root directory"},
		{"//.", nil, "is the root directory"},
		{"/a\x00{user}", both, "has a NUL in it"},
	} {
		err := CheckTemplate(c.template, c.needs...)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("CheckTemplate(%q) = %v, want %q", c.template, err, c.want)
		}
	}
}

func accountsOf(p Places, users ...User) []Account {
	var list []Account
	for _, u := range users {
		list = append(list, p.Account(u))
	}
	return list
}

func TestCollisions(t *testing.T) {
	alice := User{Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice"}
	bob := User{Name: "bob", UID: 1001, GID: 1001, Home: "/home/bob"}
	homed := func(name string, uid int, home string) User { return User{Name: name, UID: uid, GID: uid, Home: home} }
	users := func(a, b string) [2]string { return [2]string{a, b} }
	for name, c := range map[string]struct {
		places Places
		users  []User
		want   []Collision
	}{
		"strangers share nothing": {standard, []User{alice, bob, homed("alic", 1002, "/home/alic"), homed("alice2", 1003, "/home/alice.d")}, nil},
		"two names of a uid": {standard, []User{alice, homed("al", 1000, "/home/al"), homed("ali", 1000, "/home/ali")}, []Collision{
			{users("alice", "al"), users("uid", "uid"), "1000"}, {users("al", "alice"), users("uid", "uid"), "1000"},
			{users("ali", "alice"), users("uid", "uid"), "1000"},
		}},
		"two names of a home": {Places{Spool: "/var/mail/{user}", Maildir: "{home}/Maildir"}, []User{alice, homed("bob", 1001, "/home/alice/.")}, []Collision{
			{users("alice", "bob"), users("maildir", "maildir"), "/home/alice/Maildir"}, {users("bob", "alice"), users("maildir", "maildir"), "/home/alice/Maildir"},
		}},
		"a name that is another's dotlock": {Places{Spool: "/var/mail/{user}"}, []User{alice, homed("alice.lock", 1001, "/home/l")}, []Collision{
			{users("alice", "alice.lock"), users("dotlock of the spool", "spool"), "/var/mail/alice.lock"},
			{users("alice.lock", "alice"), users("spool", "dotlock of the spool"), "/var/mail/alice.lock"},
		}},
		"a name that is another's meta": {Places{Spool: "/var/mail/{uid}", Semaphore: "/sem/{user}"}, []User{homed("alice.meta", 1001, "/home/l"), alice}, []Collision{
			{users("alice.meta", "alice"), users("semaphore", "semaphore's meta"), "/sem/alice.meta"},
			{users("alice", "alice.meta"), users("semaphore's meta", "semaphore"), "/sem/alice.meta"},
		}},
		"a home among another's folders stops the other alone": {standard, []User{homed("eve", 1002, "/home/alice/mail/eve"), alice}, []Collision{
			{users("alice", "eve"), users("folders", "mirror"), "/home/alice/mail/eve/.mailstate"},
		}},
		"a sibling whose name sorts between a directory and its content": {
			Places{Spool: "/var/mail/{user}", Folders: []string{"{home}"}},
			[]User{alice, homed("x", 1002, "/home/alice-old"), homed("y", 1003, "/home/alice/y")}, []Collision{
				{users("alice", "y"), users("folders", "folders"), "/home/alice/y"},
			}},
		"one's own spool in one's Maildir": {Places{Spool: "{home}/Maildir/inbox", Maildir: "{home}/Maildir"}, []User{alice}, []Collision{
			{users("alice", "alice"), users("maildir", "spool"), "/home/alice/Maildir/inbox"},
		}},
		"one's own spool, Maildir and gate among one's folders are fine": {
			Places{Spool: "{home}/inbox", Folders: []string{"{home}"}, Maildir: "{home}/Maildir", Mirror: "{home}/.m", Gate: "{home}/.m.lock"}, []User{alice}, nil},
		"one tree of folders in another": {Places{Spool: "/var/mail/{user}", Folders: []string{"/home/{user}/mail", "{home}"}}, []User{alice}, []Collision{
			{users("alice", "alice"), users("folders", "folders"), "/home/alice/mail"},
		}},
		"two templates that meet in one path": {Places{Spool: "/home/{user}/Maildir", Maildir: "{home}/Maildir"}, []User{alice}, []Collision{
			{users("alice", "alice"), users("spool", "maildir"), "/home/alice/Maildir"},
		}},
		"three with one home, each with one collision": {Places{Spool: "/s/{user}", Maildir: "{home}"}, []User{homed("a", 1, "/h"), homed("b", 2, "/h"), homed("c", 3, "/h")}, []Collision{
			{users("a", "b"), users("maildir", "maildir"), "/h"}, {users("b", "a"), users("maildir", "maildir"), "/h"}, {users("c", "a"), users("maildir", "maildir"), "/h"},
		}},
		"a Maildir in the place of a spool, with somebody's home in it": {Places{Spool: "/s/{user}", Maildir: "{home}"},
			[]User{homed("a", 1, "/h"), homed("b", 2, "/s/a"), homed("c", 3, "/s/a/c")}, []Collision{
				{users("a", "b"), users("spool", "maildir"), "/s/a"}, {users("b", "a"), users("maildir", "spool"), "/s/a"},
			}},
		"users with a problem count for nothing": {standard, []User{alice, {Name: "al", UID: 1000, Home: "/home/alice", Problem: ErrUnknown}}, nil},
	} {
		if got := Collisions(accountsOf(c.places, c.users...)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, c.want)
		}
	}
}

func TestCollisionsOfThousandsAreNotMillions(t *testing.T) {
	var users []User
	for i := range 20000 {
		users = append(users, User{Name: fmt.Sprint("u", i), UID: 1000 + i/2, GID: 100, Home: "/nonexistent"})
	}
	list := accountsOf(standard, users...)
	Collide(list, list)
	for _, a := range list {
		what := ""
		for _, c := range a.Collisions {
			what += c.What[0] + " "
		}
		if what != "uid mirror gate maildir folders " {
			t.Fatalf("%s: %q", a.Name, a.Collisions)
		}
	}
}

func TestCollideLooksAtOthersToo(t *testing.T) {
	alice := User{Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice"}
	al := User{Name: "al", UID: 1000, GID: 1000, Home: "/home/al"}
	bob := User{Name: "bob", UID: 1001, GID: 1001, Home: "/home/bob"}
	list := accountsOf(standard, alice, bob)
	Collide(list, accountsOf(standard, bob, al, alice))
	if want := []Collision{{[2]string{"alice", "al"}, [2]string{"uid", "uid"}, "1000"}}; !reflect.DeepEqual(list[0].Collisions, want) {
		t.Errorf("alice: %q, want %q", list[0].Collisions, want)
	}
	if list[1].Collisions != nil {
		t.Errorf("bob: %q", list[1].Collisions)
	}
}
