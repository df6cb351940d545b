package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// place is a directory of a host with a configuration of it.
type place struct {
	t   *testing.T
	dir string
}

func (p place) path(name string) string { return filepath.Join(p.dir, name) }

func (p place) file(name string, mode fs.FileMode) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), nil, mode); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(p.path(name), mode); err != nil { // whatever the umask
		p.t.Fatal(err)
	}
}

func (p place) mkdir(name string, mode fs.FileMode) {
	p.t.Helper()
	if err := os.Mkdir(p.path(name), mode); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(p.path(name), mode); err != nil {
		p.t.Fatal(err)
	}
}

func TestDoubts(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(p place)
		want    []string // in this order, each in one doubt; DIR is the place's
	}{
		"none": {func(place) {}, nil},
		"none when the state directory is yet to be made": {func(p place) {
			p.fill("state = \"DIR/new\"\nsemaphore = \"DIR/new/semaphores/{user}\"\n")
		}, nil},
		"nowhere to make the state directory": {func(p place) {
			p.fill("state = \"DIR/a/b\"\nsemaphore = \"DIR/a/b/s/{user}\"\n")
		}, []string{`DIR/mailferry.toml:1: state: "DIR/a/b" can't be made: stat DIR/a: no such file or directory`}},
		"the state directory is a file": {func(p place) {
			p.file("f", 0o600)
			p.fill("state = \"DIR/f\"\nsemaphore = \"DIR/{user}.s\"\n")
		}, []string{`DIR/mailferry.toml:1: state: "DIR/f" is no directory`}},
		"a state directory that others can write": {func(p place) {
			p.mkdir("w", 0o777)
			p.fill("state = \"DIR/w\"\nsemaphore = \"DIR/{user}.s\"\n")
		}, []string{`DIR/mailferry.toml:1: state: "DIR/w" can be written by others than its owner (mode 0777): chmod go-w it`}},
		"semaphores that others can write": {func(p place) {
			p.mkdir("s", 0o775)
			p.fill("semaphore = \"DIR/s/{user}\"\nstate = \"DIR\"\n")
		}, []string{`DIR/mailferry.toml:1: semaphore: "DIR/s" can be written by others than its owner (mode 0775)`}},
		"semaphores where nothing can be made": {func(p place) {
			p.fill("semaphore = \"DIR/x/y/{user}.s\"\nstate = \"DIR\"\n")
		}, []string{`DIR/mailferry.toml:1: semaphore: "DIR/x/y" can't be made: `}},
		"files that others can write": {func(p place) {
			p.mkdir("conf.d", 0o700)
			p.file("list", 0o620)
			p.file("users", 0o602)
			p.fill("users = \"file:DIR/users\"\nstate = \"DIR\"\nsemaphore = \"DIR/{user}.s\"\n")
			p.write("conf.d/w.toml", "[wave.a]\nfrom = \"DIR/list\"\n[wave.b]\nfrom = \"DIR/list\"\n")
			p.chmod("conf.d/w.toml", 0o666)
			p.chmod("mailferry.toml", 0o666)
		}, []string{
			`DIR/mailferry.toml: "DIR/mailferry.toml" can be written by others than its owner (mode 0666)`,
			`DIR/mailferry.toml:1: users: "DIR/users" can be written by others than its owner (mode 0602)`,
			`DIR/conf.d/w.toml: "DIR/conf.d/w.toml" can be written by others than its owner (mode 0666)`,
			`DIR/list: "DIR/list" can be written by others than its owner (mode 0620)`,
		}},
		"files that are not there": {func(p place) {
			p.mkdir("conf.d", 0o700)
			p.fill("users = \"file:DIR/users\"\nstate = \"DIR\"\nsemaphore = \"DIR/{user}.s\"\n")
			p.write("conf.d/w.toml", "[wave.a]\nfrom = \"DIR/list\"\n")
		}, []string{
			`DIR/mailferry.toml:1: users: lstat DIR/users: no such file or directory`,
			`DIR/list: lstat DIR/list: no such file or directory`,
		}},
		"hooks": {func(p place) {
			p.file("good", 0o700)
			p.file("plain", 0o600)
			p.file("shared", 0o770)
			p.mkdir("dir", 0o700)
			p.mkdir("open", 0o770)
			p.file("open/x", 0o700)
			p.write("mailferry.toml", "state = \"DIR\"\nsemaphore = \"DIR/{user}.s\"\n[hooks]\nbefore-hold = \"DIR/plain\"\ndrain = \"DIR/shared\"\nafter-flip = \"DIR/dir\"\nafter-abort = \"DIR/open/x\"\n")
		}, []string{
			`DIR/mailferry.toml:4: hooks.before-hold: "DIR/plain" is not executable (mode 0600)`,
			`DIR/mailferry.toml:5: hooks.drain: "DIR/shared" can be written by others than its owner (mode 0770)`,
			`DIR/mailferry.toml:6: hooks.after-flip: "DIR/dir" is no regular file`,
			`DIR/mailferry.toml:7: hooks.after-abort: "DIR/open" can be written by others than its owner (mode 0770)`,
		}},
		"a hook behind a symlink": {func(p place) {
			p.mkdir("open", 0o770)
			p.file("open/x", 0o700)
			if err := os.Symlink("open/x", p.path("link")); err != nil {
				p.t.Fatal(err)
			}
			p.write("mailferry.toml", "state = \"DIR\"\nsemaphore = \"DIR/{user}.s\"\n[hooks]\ndrain = \"DIR/link\"\nafter-flip = \"DIR/absent\"\n")
		}, []string{
			`DIR/mailferry.toml:4: hooks.drain: "DIR/open" can be written by others than its owner (mode 0770)`,
			`DIR/mailferry.toml:5: hooks.after-flip: stat DIR/absent: no such file or directory`,
		}},
		"a directory with the sticky bit may be anybody's to write": {func(p place) {
			p.mkdir("t", 0o777|fs.ModeSticky)
			p.file("t/x", 0o755)
			p.write("mailferry.toml", "state = \"DIR\"\nsemaphore = \"DIR/{user}.s\"\n[hooks]\ndrain = \"DIR/t/x\"\n")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := place{t, t.TempDir()}
			p.fill("state = \"DIR\"\nsemaphore = \"DIR/{user}.s\"\n")
			c.prepare(p)
			config, err := Load(Options{Path: p.path("mailferry.toml")})
			if err != nil {
				t.Fatal(err)
			}
			got := config.Doubts()
			if len(got) != len(c.want) {
				t.Fatalf("doubts %v, want %q", got, c.want)
			}
			for i, want := range c.want {
				if want = strings.ReplaceAll(want, "DIR", p.dir); !strings.HasPrefix(got[i].Error(), want) {
					t.Errorf("doubt %v\nwant %s", got[i], want)
				}
			}
		})
	}
}

// fill writes the main file.
func (p place) fill(content string) { p.write("mailferry.toml", content) }

// write writes a file, with the place's directory for DIR.
func (p place) write(name, content string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(strings.ReplaceAll(content, "DIR", p.dir)), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p place) chmod(name string, mode fs.FileMode) {
	p.t.Helper()
	if err := os.Chmod(p.path(name), mode); err != nil {
		p.t.Fatal(err)
	}
}

func TestDescriptionIsAFileThatChangesNothing(t *testing.T) {
	b := &strings.Builder{}
	if err := Describe(b); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Options{Path: site(t, b.String())})
	if err != nil || c.Settings() != nil {
		t.Fatalf("as it is: %v, error %v", c, err)
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		if len(lines[i]) > 1 && lines[i][1] != ' ' {
			lines[i] = strings.TrimPrefix(lines[i], "#")
		}
	}
	c, err = Load(Options{Path: site(t, strings.Join(lines, "\n"))})
	if err != nil {
		t.Fatal(err)
	}
	got := c.Settings()
	for i, k := range Keys() {
		if i >= len(got) || got[i].Key != k.Name || got[i].Text != k.Default {
			t.Fatalf("settings %v, not the default of %s", got, k.Name)
		}
		for _, word := range []string{k.Help, "--" + k.Flag(), k.Env(), string(k.Type)} {
			if !strings.Contains(b.String(), word) {
				t.Errorf("%s: %q is not said", k.Name, word)
			}
		}
	}
}
