package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSessionsAreCountedAndKicked(t *testing.T) {
	d := startDovecot(t)
	for _, user := range []string{"anne", "annex", "1234"} {
		d.account(user, map[string]string{"inbox": ""})
	}
	count := func(user string, want int) {
		t.Helper()
		if n, err := d.Who(t.Context(), user); n != want || err != nil {
			t.Errorf("%s has %d sessions, not %d; %v", user, n, want, err)
		}
	}
	count("anne", 0)
	count("username", 0)
	if err := d.Kick(t.Context(), "anne"); err != nil {
		t.Errorf("nobody to kick: %v", err)
	}
	one, _, other, number := d.login("anne"), d.login("anne"), d.login("annex"), d.login("1234")
	count("anne", 2)
	count("annex", 1)
	count("1234", 1)
	for _, user := range []string{"anne", "1234"} {
		if err := d.Kick(t.Context(), user); err != nil {
			t.Fatal(err)
		}
		d.until("no sessions of "+user, func() bool {
			n, err := d.Who(t.Context(), user)
			return n == 0 && err == nil
		})
	}
	count("annex", 1)
	for _, r := range []*client{one, number} {
		if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "* BYE ") {
			t.Errorf("a kicked client reads %q, %v", line, err)
		}
	}
	if other.Buffered() != 0 {
		t.Error("another user was told something")
	}
}

func TestAuthFlush(t *testing.T) {
	d := startDovecot(t)
	d.account("anne", map[string]string{"inbox": ""})
	d.login("anne")
	for range 2 {
		if err := d.AuthFlush(t.Context(), "anne"); err != nil {
			t.Error(err)
		}
	}
}

func TestADovecotThatIsDownIsAnError(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "dovecot.conf")
	if err := os.WriteFile(conf, []byte("base_dir = "+filepath.Dir(conf)+"\nlog_path = /dev/stderr\nssl = no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := Doveadm{tool(t, "doveadm"), conf}
	_, who := d.Who(t.Context(), "anne")
	for name, err := range map[string]error{
		"who": who, "kick": d.Kick(t.Context(), "anne"),
		"auth": d.AuthFlush(t.Context(), "anne"), "settle": d.Settle(t.Context(), "anne"),
	} {
		var f *Failed
		if !errors.As(err, &f) || f.Exit <= 0 && name != "auth" || f.Said == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Doveadm{Path: "/no/such/doveadm"}).Kick(t.Context(), "anne"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestANameThatDoveadmMistakesIsRefused(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	d := Doveadm{Path: script(t, "touch "+ran)}
	for _, user := range []string{"", "-A", "*", "an?e", "a b", "a\tb", "a\nb", `a\*`, "a\x00b"} {
		_, who := d.Who(t.Context(), user)
		for _, err := range []error{
			who, d.Kick(t.Context(), user), d.AuthFlush(t.Context(), user),
			d.Settle(t.Context(), user), d.SettleEmpty(t.Context(), user),
		} {
			if err == nil || !strings.Contains(err.Error(), "as the name of a user") {
				t.Errorf("%q: %v", user, err)
			}
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("it was run")
	}
}
