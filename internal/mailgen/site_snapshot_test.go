package mailgen

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDiffNamesEveryChange(t *testing.T) {
	old := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for name, tt := range map[string]struct {
		change func(dir string) error
		want   []string // beginnings of the lines
	}{
		"nothing":       {func(string) error { return nil }, nil},
		"reading":       {func(dir string) error { _, err := os.ReadFile(dir + "/file"); return err }, nil},
		"mode":          {func(dir string) error { return os.Chmod(dir+"/file", 0o640) }, []string{`"file": mode -rw-r-----, was -rw-------`}},
		"owner":         {func(dir string) error { return os.Chown(dir+"/file", 7, 8) }, []string{`"file": uid 7, was 0; gid 8, was 0`}},
		"time":          {func(dir string) error { return os.Chtimes(dir+"/sub", old, old) }, []string{`"sub": mtime 2026-01-02 03:04:05.000000006`}},
		"content alone": {func(dir string) error { return rewriteSilently(dir + "/file") }, []string{`"file": other content`}},
		"link target": {func(dir string) error {
			return os.Rename(dir+"/sub/other", dir+"/sub/link")
		}, []string{`"sub": mtime`, `"sub/link": `, `"sub/other": gone`}},
		"second name": {func(dir string) error { return os.Link(dir+"/file", dir+"/again") },
			[]string{`".": mtime`, `"again": new, -rw-------`, `"file": links 2, was 1`}},
		"removal": {func(dir string) error { return os.Remove(dir + "/fifo") }, []string{`".": mtime`, `"fifo": gone`}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var h hands
			h.write(dir+"/file", "text", 0o600, 0, 0)
			h.mkdir(dir+"/sub", 0o700, 0, 0)
			h.symlink("nowhere", dir+"/sub/link", 0, 0)
			h.symlink("elsewhere", dir+"/sub/other", 0, 0)
			h.node(dir+"/fifo", unix.S_IFIFO, 0, 0)
			before, err := Snapshot(dir)
			if h.err != nil || err != nil {
				t.Fatal(h.err, err)
			}
			time.Sleep(5 * time.Millisecond) // more than a tick of the file system's clock
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			after, err := Snapshot(dir)
			if err != nil {
				t.Fatal(err)
			}
			got := before.Diff(after)
			if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if name == "link target" && !strings.HasSuffix(got[1], "target elsewhere, was nowhere") {
				t.Errorf("got %q", got[1])
			}
		})
	}
}

// rewriteSilently changes a byte and sets the times back.
func rewriteSilently(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte("tExt"), 0); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}

func TestSnapshotOfNothingIsEmpty(t *testing.T) {
	tree, err := Snapshot(filepath.Join(t.TempDir(), "nothing"))
	if err != nil || len(tree) != 0 {
		t.Errorf("got %v, %v", tree, err)
	}
	if tree, err := (SiteUser{Name: "nobody"}).Snapshot(); err != nil || len(tree) != 0 {
		t.Errorf("a name without a home: got %v, %v", tree, err)
	}
}

func TestUserSnapshotHasAllThatIsHisAndNothingElse(t *testing.T) {
	sum := newTestSite(t, SiteOptions{Users: 100, Seed: 12, Problems: 0.01})
	for code, want := range map[string]string{
		"parked-left": "spool/%s.mailferry-20260101T000000Z", "qpopper-temp": "spool/.%s.pop", "dotlock-stale": "spool/%s.lock",
		"mbox-symlink": "home/old-inbox", "maildir-irregular": "home/elsewhere", "mbox-irregular": "spool/%s", "no-mail": "home",
	} {
		i := slices.IndexFunc(sum.Users, func(u SiteUser) bool { return u.Code == code })
		u := sum.Users[i]
		tree, err := u.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tree[strings.ReplaceAll(want, "%s", u.Name)]; !ok || e.UID != u.UID {
			t.Errorf("%s: %s, uid %d, is not in %v", code, want, u.UID, tree)
		}
		for path := range tree {
			rest := strings.TrimPrefix(strings.TrimPrefix(path, "spool/"), ".")
			if strings.HasPrefix(path, "spool/") && rest != u.Name && !strings.HasPrefix(rest, u.Name+".") {
				t.Errorf("%s: %s is another's", u.Name, path)
			}
		}
		if code == "mbox-symlink" && tree["spool/"+u.Name].Mode.Type() != fs.ModeSymlink {
			t.Errorf("the snapshot followed a symlink: %v", tree["spool/"+u.Name])
		}
	}
}
