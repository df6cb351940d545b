package config

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
)

func TestWaves(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, []byte("dave\nerin # x\ndave\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := site(t, "", "[wave.pilot]\nusers = [\n  \"carol\", \"alice\",\n  \"carol\",\n]\n", "[wave.rest]\nfrom = \""+list+"\"\n[wave.nobody]\nusers = []\n")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "conf.d", "README"), []byte("not TOML"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		names    []string
		repeated []account.Repeat
	}{
		"pilot":  {[]string{"carol", "alice"}, []account.Repeat{{Name: "carol", Line: 3, First: 1}}},
		"rest":   {[]string{"dave", "erin"}, []account.Repeat{{Name: "dave", Line: 3, First: 1}}},
		"nobody": {nil, nil},
	} {
		w, err := c.Wave(name)
		if err != nil {
			t.Fatal(err)
		}
		names, repeated, err := w.Names()
		if err != nil || !reflect.DeepEqual(names, want.names) || !reflect.DeepEqual(repeated, want.repeated) {
			t.Errorf("wave %s: %q, %v, error %v, want %+v", name, names, repeated, err, want)
		}
	}
	if _, err := c.Wave("pilots"); err == nil || err.Error() != `no wave "pilots"; the nearest is "pilot"` {
		t.Errorf("a wave that is not there: %v", err)
	}
	if _, err := (&Config{}).Wave("pilot"); err == nil || err.Error() != `no wave "pilot": there are none in conf.d` {
		t.Errorf("no waves: %v", err)
	}
	os.Remove(list)
	if _, _, err := c.Waves["rest"].Names(); !os.IsNotExist(err) {
		t.Errorf("a list that is not there: %v", err)
	}
}

func TestWavesThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"in two files":            {[]string{"[wave.a]\nusers = []", "\n[wave.a]\nusers = []"}, `b.toml:3: wave "a" stands in `},
		"with both":               {[]string{"[wave.a]\nusers = [\"x\"]\nfrom = \"/x\""}, `a.toml:2: wave "a" has both users and from`},
		"with neither":            {[]string{"\n[wave.a]\n"}, `a.toml:2: wave "a" has neither users nor from`},
		"with another key":        {[]string{"[wave.a]\nusers = []\nform = \"/x\""}, `a.toml:3: wave "a": unknown key "form"; the nearest is "from"`},
		"from a relative path":    {[]string{"[wave.a]\nfrom = \"list\""}, `a.toml:2: wave "a": from: "list" is no absolute path`},
		"from a list":             {[]string{"[wave.a]\nfrom = [\"/x\"]"}, `a.toml:2: wave "a": from: a path is expected here, not an array`},
		"users as a string":       {[]string{"[wave.a]\nusers = \"x\""}, `a.toml:2: wave "a": users: a list is expected here, not a string`},
		"users as numbers":        {[]string{"[wave.a]\nusers = [1000]"}, `a.toml:2: wave "a": users: item 1 is an integer, not a string`},
		"users with a slash":      {[]string{"[wave.a]\nusers = [\"../x\"]"}, `a.toml:2: wave "a": users: "../x" is no user name`},
		"named with a slash":      {[]string{"[wave.\"../a\"]\nusers = []"}, `a.toml:2: a wave's name is like a user's`},
		"that are other settings": {[]string{"spool = \"/var/mail/{user}\""}, `a.toml:1: unknown key "spool": conf.d holds waves only`},
		"without a name":          {[]string{"[wave]\nusers = []"}, `a.toml:2: unknown key "wave.users": conf.d holds waves only`},
		"with tables in them":     {[]string{"[wave.a.b]\nusers = []"}, `a.toml:2: unknown key "wave.a.b.users"`},
		"as a list":               {[]string{"[[wave]]\nusers = []"}, `unknown key "wave"`},
		"of bad syntax":           {[]string{"[wave.a"}, `a.toml:1: `},
	} {
		_, err := Load(Options{Path: site(t, "", c.files...)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
	path := site(t, "")
	if err := os.Mkdir(filepath.Join(filepath.Dir(path), "conf.d", "x.toml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Options{Path: path}); err == nil || !strings.Contains(err.Error(), "x.toml is no regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestWindow(t *testing.T) {
	at := func(clock string) time.Time {
		when, err := time.Parse("2006-01-02 15:04:05", "2026-11-21 "+clock)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, c := range []struct {
		window, now   string
		open          bool
		opens, closes string // "" for not asked
	}{
		{"01:00-05:30", "00:59:59", false, "2026-11-21 01:00", ""},
		{"01:00-05:30", "01:00:00", true, "", "2026-11-21 05:30"},
		{"01:00-05:30", "05:29:59", true, "", "2026-11-21 05:30"},
		{"01:00-05:30", "05:30:00", false, "2026-11-22 01:00", ""},
		{"22:00-05:30", "23:00:00", true, "", "2026-11-22 05:30"},
		{"22:00-05:30", "05:00:00", true, "", "2026-11-21 05:30"},
		{"22:00-05:30", "05:30:00", false, "2026-11-21 22:00", ""},
		{"22:00-05:30", "21:59:59", false, "2026-11-21 22:00", ""},
		{"22:00-24:00", "23:59:59", true, "", "2026-11-22 00:00"},
		{"22:00-00:00", "00:00:00", false, "2026-11-21 22:00", ""},
		{"00:00-24:00", "", true, "", ""},
	} {
		w, err := ParseWindow(c.window)
		if c.now == "" {
			if err == nil {
				t.Errorf("%s: no error", c.window)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		now := at(c.now)
		if w.Open(now) != c.open {
			t.Errorf("%s at %s: open %v", c.window, c.now, !c.open)
		}
		if got := w.Opens(now).Format("2006-01-02 15:04"); c.opens != "" && got != c.opens {
			t.Errorf("%s at %s opens %s, want %s", c.window, c.now, got, c.opens)
		}
		if got := w.Closes(now).Format("2006-01-02 15:04"); c.closes != "" && got != c.closes {
			t.Errorf("%s at %s closes %s, want %s", c.window, c.now, got, c.closes)
		}
	}
	if w := (Window{}); !w.Open(at("12:00:00")) || !w.Closes(at("12:00:00")).IsZero() || !w.Opens(at("12:00:00")).Equal(at("12:00:00")) {
		t.Error("the zero window is not always open")
	}
	for _, bad := range []string{"1:00-5:30", "01:00", "01:00-", "01:00 05:30", "25:00-05:30", "01:60-05:30", "24:01-05:00", "24:00-05:00", "01:00-01:00", "00:00-24:00", "01:00-05:30 ", "0a:00-05:30", "٠1:00-05:3", "-1:00-05:30", "01.00-05.30"} {
		if w, err := ParseWindow(bad); err == nil {
			t.Errorf("ParseWindow(%q) = %v", bad, w)
		}
	}
}

func TestWindowOnTheNightsWhenClocksChange(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		window       string
		month        time.Month
		day          int
		opens, lasts time.Duration // after midnight, after opening
	}{
		{"01:00-05:30", time.November, 21, time.Hour, 4*time.Hour + 30*time.Minute},
		{"01:00-05:30", time.March, 29, time.Hour, 3*time.Hour + 30*time.Minute},
		{"01:00-05:30", time.October, 25, time.Hour, 5*time.Hour + 30*time.Minute},
		{"02:30-05:30", time.March, 29, 2 * time.Hour, 2*time.Hour + 30*time.Minute},
		{"01:00-02:30", time.March, 29, time.Hour, time.Hour},
		{"02:00-03:00", time.March, 29, 25 * time.Hour, time.Hour}, // not at all in that night
		{"02:30-05:30", time.October, 25, 2*time.Hour + 30*time.Minute, 30 * time.Minute},
	} {
		w, err := ParseWindow(c.window)
		if err != nil {
			t.Fatal(err)
		}
		midnight := time.Date(2026, c.month, c.day, 0, 0, 0, 0, berlin)
		opens := w.Opens(midnight)
		if got := opens.Sub(midnight); got != c.opens {
			t.Errorf("%s, %d %s: opens %s after midnight, want %s", c.window, c.day, c.month, got, c.opens)
		}
		if got := w.Closes(opens).Sub(opens); got != c.lasts {
			t.Errorf("%s, %d %s: lasts %s, want %s", c.window, c.day, c.month, got, c.lasts)
		}
	}
}

func FuzzWindow(f *testing.F) {
	f.Add("01:00-05:30", int64(0))
	f.Add("22:00-24:00", int64(1e9))
	f.Add("23:59-00:00", int64(-1))
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		w, err := ParseWindow(text)
		if err != nil {
			return
		}
		if again, err := ParseWindow(w.String()); err != nil || again != w {
			t.Fatalf("%q is %v, read again %v, error %v", text, w, again, err)
		}
		now := time.Unix(unix%(1<<40), 0).UTC()
		opens := w.Opens(now)
		if !w.Open(opens) || opens.Before(now) || opens.Sub(now) > day {
			t.Fatalf("%q at %s opens %s", text, now, opens)
		}
		if w == (Window{}) {
			return
		}
		closes := w.Closes(opens)
		if w.Open(closes) || !w.Open(closes.Add(-time.Second)) || closes.Sub(opens) > day {
			t.Fatalf("%q opens %s, closes %s", text, opens, closes)
		}
	})
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "512B": 512, "64K": 64 << 10, "100M": 100 << 20, "100MB": 100 << 20, "100MiB": 100 << 20,
		"10G": 10 << 30, "2T": 2 << 40, "9223372036854775807": math.MaxInt64, "8388607T": 8388607 << 40,
		"": -1, "M": -1, "1.5G": -1, "-1": -1, "+1": -1, "1 M": -1, "1MM": -1, "1P": -1, "1m": -1, "1i": -1, "1Bi": -1, "1BM": -1, "1iB": -1,
		"8388608T": -1, "9223372036854775808": -1, "0x10": -1, "1_000": -1,
	} {
		got, err := ParseSize(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, text := range []string{"0", "512", "64K", "100MiB", "8388607T", "8388608T", "1.5G", "iB"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseSize(text)
		if err != nil {
			return
		}
		if again, err := ParseSize(fmt.Sprint(n)); n < 0 || err != nil || again != n {
			t.Fatalf("%q is %d, read again %d, error %v", text, n, again, err)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add(everyKey)
	f.Add("[wave.a]\nusers = [\"x\", \"y\"]\n")
	f.Add("spol = 1\n[[hooks]]\n[hooks.drain]\nx = {y = [1, {z = 2}]}\n")
	f.Add("a.b.c = 1979-05-27T07:32:00Z\n\"\" = nan\n")
	f.Add("hooks = {}\nfolders = [\n\"{home}/a\"\n,]\nspool=\"\"\"\n/x/{user}\"\"\"")
	f.Fuzz(func(t *testing.T, content string) {
		d, err := parse("FILE", []byte(content))
		if err != nil {
			if d != nil || !strings.HasPrefix(err.Error(), "FILE:") {
				t.Fatalf("%v with error %v", d, err)
			}
			return
		}
		c := &Config{Path: "FILE", Waves: map[string]Wave{}, settings: map[string]Setting{}}
		waves := map[string]*Wave{}
		lines := strings.Count(content, "\n") + 1
		for _, field := range d.fields {
			if field.line < 1 || field.line > lines {
				t.Fatalf("%s is said to stand in line %d of %d", field.key, field.line, lines)
			}
			d.problem(field, c.applyField(d, field))
			d.problem(field, c.addToWave(d, field, waves))
		}
		for _, s := range c.Settings() {
			again := &Config{settings: map[string]Setting{}}
			if err := again.apply(s); err != nil {
				t.Fatalf("%s = %q was good in the file, and is not as text: %v", s.Key, s.Text, err)
			}
		}
		c.check()
	})
}
