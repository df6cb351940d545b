package config

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/message"
	"mailferry/maildir"
	"mailferry/mbox"
)

// site writes a configuration file and files of conf.d, and returns its path.
func site(t *testing.T, main string, waves ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("mailferry.toml", main)
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, w := range waves {
		write("conf.d/"+string(rune('a'+i))+".toml", w)
	}
	return filepath.Join(dir, "mailferry.toml")
}

func TestDefaults(t *testing.T) {
	c, err := Load(Options{Path: site(t, "")})
	if err != nil {
		t.Fatal(err)
	}
	dovecot, err := mbox.ProfileByName("dovecot")
	if err != nil {
		t.Fatal(err)
	}
	want := account.Places{
		Spool: "/var/mail/{user}", Folders: []string{"{home}/mail"}, Maildir: "{home}/Maildir",
		Semaphore: "/var/lib/mailferry/semaphores/{user}", Mirror: "{home}/.mailstate", Gate: "{home}/.mailstate.lock",
	}
	if got := c.Places(); !reflect.DeepEqual(got, want) {
		t.Errorf("places %+v, want %+v", got, want)
	}
	if c.Profile.Name != dovecot.Name || c.Scan().Profile.Name != "dovecot" || c.Scan().Quoting != message.Keep || c.Scan().EOL != mbox.EOLAuto || c.Scan().CorrectDates {
		t.Errorf("scan %+v", c.Scan())
	}
	if !c.Locks.Dotlock || !c.Locks.Fcntl || c.Locks.Flock || c.Layout != (maildir.Folders{Layout: maildir.MaildirPP}) {
		t.Errorf("locks %+v, layout %+v", c.Locks, c.Layout)
	}
	if c.Users != "passwd" || c.MinUID != 1000 || c.State != "/var/lib/mailferry" || c.Chunk != 100 || c.Jobs != runtime.NumCPU() || c.CutoverJobs != 1 || c.MaxFailures != 0 {
		t.Errorf("%+v", c)
	}
	if c.Window != (Window{}) || c.PauseBetween != 0 || c.HoldLimit != 30*time.Second || c.DrainLimit != 10*time.Second || c.MaxRounds != 3 || c.Retries != 3 || c.Grace != 10*time.Second || c.Doveadm != "" || c.Postqueue != "" || c.Bandwidth != 0 || c.Nice || c.Order != Listed || c.FreeFloor != 1<<30 || c.AllowQuarantine || c.Hooks != (Hooks{}) {
		t.Errorf("%+v", c)
	}
	if s := c.Settings(); s != nil {
		t.Errorf("settings that are no defaults: %v", s)
	}
}

const everyKey = `
spool = "/srv/spool/{uid}/{user}"
folders = ["{home}/Mail", "/srv/more/{user}"]
maildir = "/srv/maildir/{user}/Maildir"
layout = "fs"
semaphore = "/srv/semaphores/{user}"
mirror = ""
gate = "{home}/.gate"
users = "file:/etc/mailferry/users"
min-uid = 500
locks = ["flock"]
profile = "uw"
quoting = "mboxrd"
eol = "keep"
correct-dates = true
state = "/srv/state/"
chunk = 7
jobs = 3
cutover-jobs = 2
max-failures = 5
window = "22:00-05:30"
pause-between = "1m30s"
hold-limit = "10s"
drain-limit = "3s"
max-rounds = 4
retries = 6
grace = "2m"
doveadm = "/usr/bin/doveadm"
postqueue = "/usr/sbin/postqueue"
bwlimit = "100M"
nice = true
order = "size-desc"
free-floor = 1000000
allow-quarantine = true

[hooks]
before-hold = "/usr/local/bin/before"
drain = "/usr/local/bin/drain"
after-flip = "/usr/local/bin/flip"
after-abort = "/usr/local/bin/abort"
`

func TestEveryKeyReachesItsField(t *testing.T) {
	path := site(t, everyKey)
	c, err := Load(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Settings() {
		if !strings.HasPrefix(s.From, path+":") {
			t.Errorf("%s is from %q", s.Key, s.From)
		}
	}
	if len(c.Settings()) != len(keys) {
		t.Errorf("settings %v, not all keys", c.Settings())
	}
	if c.Settings()[0].From != path+":2" || c.Settings()[len(keys)-1].From != path+":40" {
		t.Errorf("places %v", c.Settings())
	}
	uw, err := mbox.ProfileByName("uw")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Path: path, Spool: "/srv/spool/{uid}/{user}", Folders: []string{"{home}/Mail", "/srv/more/{user}"},
		Maildir: "/srv/maildir/{user}/Maildir", Semaphore: "/srv/semaphores/{user}", Gate: "{home}/.gate",
		Users: "file:/etc/mailferry/users", MinUID: 500,
		Quoting: message.MboxRD, EOL: mbox.EOLKeep, CorrectDates: true, Layout: maildir.Folders{Layout: maildir.FS},
		Locks: mbox.LockOptions{Flock: true}, State: "/srv/state", Chunk: 7, Jobs: 3, CutoverJobs: 2, MaxFailures: 5,
		Window: Window{22 * time.Hour, 5*time.Hour + 30*time.Minute}, PauseBetween: 90 * time.Second, HoldLimit: 10 * time.Second,
		DrainLimit: 3 * time.Second, MaxRounds: 4, Retries: 6, Grace: 2 * time.Minute, Doveadm: "/usr/bin/doveadm", Postqueue: "/usr/sbin/postqueue",
		Bandwidth: 100 << 20, Nice: true, Order: SizeDesc, FreeFloor: 1000000, AllowQuarantine: true,
		Hooks: Hooks{"/usr/local/bin/before", "/usr/local/bin/drain", "/usr/local/bin/flip", "/usr/local/bin/abort"},
	}
	if c.Profile.Name != uw.Name {
		t.Errorf("profile %s", c.Profile.Name)
	}
	got := *c
	got.Profile, got.Waves, got.settings = want.Profile, want.Waves, want.settings // a profile has functions
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestFlagOverEnvironmentOverFileOverDefault(t *testing.T) {
	path := site(t, "chunk = 2\njobs = 2\nmin-uid = 2\n")
	env := map[string]string{"MAILFERRY_CHUNK": "3", "MAILFERRY_JOBS": "3", "MAILFERRY_LOCKS": "", "MAILFERRY_FOLDERS": "{home}/a, {home}/b", "MAILFERRY_HOOKS_DRAIN": "/bin/x", "MAILFERRY_NICE": "1"}
	c, err := Load(Options{Path: path, Getenv: func(name string) string { return env[name] }, Flags: []Setting{{"chunk", "4", "--chunk"}, {"mirror", "", "--mirror"}}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Chunk != 4 || c.Jobs != 3 || c.MinUID != 2 || c.CutoverJobs != 1 || !c.Locks.Fcntl || c.Hooks.Drain != "/bin/x" || !c.Nice || c.Mirror != "" {
		t.Errorf("%+v", c)
	}
	if want := []string{"{home}/a", "{home}/b"}; !reflect.DeepEqual(c.Folders, want) {
		t.Errorf("folders %q, want %q", c.Folders, want)
	}
	want := []Setting{
		{"folders", "{home}/a, {home}/b", "MAILFERRY_FOLDERS"}, {"mirror", "", "--mirror"}, {"min-uid", "2", path + ":3"}, {"chunk", "4", "--chunk"},
		{"jobs", "3", "MAILFERRY_JOBS"}, {"nice", "1", "MAILFERRY_NICE"}, {"hooks.drain", "/bin/x", "MAILFERRY_HOOKS_DRAIN"},
	}
	if got := c.Settings(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestErrorsNamePlaceAndKey(t *testing.T) {
	for name, c := range map[string]struct{ toml, want string }{
		"unknown key":                     {"\nspol = \"/x/{user}\"", `:2: unknown key "spol"; the nearest is "spool"`},
		"unknown key with underscore":     {"min_uid = 5", `:1: unknown key "min_uid"; the nearest is "min-uid"`},
		"unknown hook":                    {"[hooks]\nbefore_hold = \"/x\"", `:2: unknown key "hooks.before_hold"; the nearest is "hooks.before-hold"`},
		"unknown table":                   {"\n[mail]\nspool = \"/x/{user}\"", `:3: unknown key "mail.spool"; the nearest is "spool"`},
		"empty unknown table":             {"\n[hook]\n", `:2: unknown key "hook"`},
		"key behind a table":              {"[hooks]\nspool = \"/x/{user}\"", `:2: unknown key "hooks.spool"`},
		"waves in the main file":          {"[wave.one]\nusers = [\"a\"]", `:2: unknown key "wave.one.users"`},
		"quoted key":                      {"\"spo.ol\" = 1", `:1: unknown key "spo.ol"`},
		"array of tables":                 {"\n[[hooks]]\ndrain = \"/x\"", `unknown key "hooks"`},
		"syntax":                          {"spool = \"/x/{user}\"\nfolders = [", `:2: `},
		"key given twice":                 {"chunk = 1\nchunk = 2", `:2: `},
		"number for a string":             {"\n\nspool = 5", `:3: spool: a template is expected here, not an integer`},
		"string for a number":             {"chunk = \"5\"", `:1: chunk: an integer is expected here, not a string`},
		"string for a boolean":            {"nice = \"true\"", `:1: nice: a boolean is expected here, not a string`},
		"float for a size":                {"bwlimit = 1.5", `:1: bwlimit: a size is expected here, not a float`},
		"string for a list":               {"folders = \"{home}/mail\"", `:1: folders: a list is expected here, not a string`},
		"list for a string":               {"maildir = [\"{home}/M\"]", `:1: maildir: a template is expected here, not an array`},
		"table for a key":                 {"[locks]\ndotlock = true", `:2: unknown key "locks.dotlock"`},
		"empty table for a key":           {"[locks]", `:1: locks: a list is expected here, not a table`},
		"date for a window":               {"window = 01:00:00", `:1: window: a window is expected here, not a date`},
		"number in a list":                {"folders = [\"{home}/mail\", 5]", `:1: folders: item 2 is an integer, not a string`},
		"comma in a path of a list":       {`folders = ["{home}/a,b"]`, `:1: folders: item 1 has a comma`},
		"list over lines":                 {"\nfolders = [\n\"{home}/a\",\n\"mail\"]", `:2: folders: "mail" is no absolute path`},
		"relative spool":                  {`spool = "mail/{user}"`, `:1: spool: "mail/{user}" is no absolute path`},
		"one spool for all":               {`spool = "/var/mail/all"`, `:1: spool: "/var/mail/all" is one path for all users: it needs {user} or {home} or {uid}`},
		"one maildir for all":             {`maildir = "/var/mail/all"`, `it needs {user} or {home}`},
		"one folder tree for all":         {`folders = ["/srv/mail"]`, `it needs {user} or {home}`},
		"one gate for all":                {`gate = "/run/gate"`, `it needs {user} or {home}`},
		"no gate":                         {`gate = ""`, `:1: gate: "" is no absolute path`},
		"unknown word":                    {`spool = "/var/mail/{name}"`, `:1: spool: "/var/mail/{name}" has {name} in it: known are {user}, {home}, {uid}`},
		"semaphore without user":          {`semaphore = "/var/lib/x/{uid}"`, `:1: semaphore: "/var/lib/x/{uid}" is one path for all users: it needs {user}`},
		"semaphore in the home":           {`semaphore = "{home}/.mailstate/{user}"`, `lies in the home, where the user could forge it`},
		"relative state":                  {`state = "state"`, `:1: state: "state" is no absolute path`},
		"word in state":                   {`state = "/x/{user}"`, `is one path for all users: it can't have {words}`},
		"relative hook":                   {"[hooks]\ndrain = \"drain.sh\"", `:2: hooks.drain: "drain.sh" is no absolute path`},
		"unknown user database":           {`users = "ldap"`, `:1: users: "ldap": choose passwd, or file:`},
		"relative user file":              {`users = "file:users"`, `:1: users: "file:users": "users" is no absolute path`},
		"min-uid 0":                       {`min-uid = 0`, `:1: min-uid: 0: at least 1`},
		"chunk 0":                         {`chunk = 0`, `:1: chunk: 0: at least 1`},
		"negative jobs":                   {`jobs = -1`, `:1: jobs: -1: at least 0`},
		"number too big":                  {`chunk = 9223372036854775807`, `:1: chunk: "9223372036854775807" is no number`},
		"no locks":                        {`locks = []`, `:1: locks: without locks`},
		"unknown lock":                    {`locks = ["lockf"]`, `:1: locks: "lockf": choose from dotlock, fcntl, flock`},
		"lock twice":                      {`locks = ["fcntl", "fcntl"]`, `:1: locks: fcntl stands there twice`},
		"unknown profile":                 {`profile = "cyrus"`, `:1: profile: no profile "cyrus": choose one of careful, dovecot,`},
		"unknown layout":                  {`layout = "flat"`, `:1: layout: "flat": choose one of maildir++, fs, listescape`},
		"unknown order":                   {`order = "random"`, `:1: order: "random": choose one of listed, size, size-desc`},
		"hold without end":                {`hold-limit = "0s"`, `:1: hold-limit: 0s: at least 1s`},
		"duration without unit":           {`pause-between = "5"`, `:1: pause-between: "5" is no duration`},
		"negative duration":               {`pause-between = "-5s"`, `:1: pause-between: -5s: at least 0s`},
		"negative size":                   {`free-floor = -1`, `:1: free-floor: "-1" is no size`},
		"size with another unit":          {`bwlimit = "5 mb/s"`, `:1: bwlimit: "5 mb/s" is no size`},
		"bad window":                      {`window = "1-5"`, `:1: window: "1-5" is no window`},
		"maildir is the folder tree":      {"maildir = \"{home}/mail\"", `default: folders: "{home}/mail" is the path of maildir, too (`},
		"maildir is the spool":            {"\nspool = \"{home}/x\"\nmaildir = \"{home}//x/\"", `:3: maildir: "{home}//x/" is the path of spool, too (`},
		"folder tree in the maildir":      {"folders = [\"{home}/Maildir/mbox\"]", `:1: folders: "{home}/Maildir/mbox" lies in maildir, "{home}/Maildir" (default)`},
		"folder trees in each other":      {"folders = [\"{home}/mail/old\", \"{home}/mail\"]", `:1: folders: "{home}/mail/old" lies in folders, "{home}/mail"`},
		"folder tree twice":               {"folders = [\"{home}/mail\", \"{home}/mail/\"]", `:1: folders: "{home}/mail/" is the path of folders, too`},
		"mirror is the gate":              {"mirror = \"{home}/.s\"\ngate = \"{home}/.s\"", `:2: gate: "{home}/.s" is the path of mirror, too (`},
		"mirror is the authority":         {"mirror = \"/x/{user}\"\nsemaphore = \"/x/{user}\"", `:1: mirror: "/x/{user}" is the path of semaphore, too (`},
		"spool in the maildir":            {"spool = \"{home}/Maildir/inbox\"", `:1: spool: "{home}/Maildir/inbox" lies in maildir`},
		"not UTF-8":                       {"spool = \"/x/\xff{user}\"", `:1: `},
		"spool and folders on one parent": {"spool = \"{home}/mail/inbox\"", ""},
		"maildir among the folders":       {"folders = [\"{home}\"]", ""},
		"a name that begins like another": {"folders = [\"{home}/Maildir-old\"]", ""},
		"byte order mark":                 {"\uFEFFchunk = 5", ""},
		"empty known table":               {"[hooks]", ""},
		"inline table":                    {`hooks = {drain = "/x", after-flip = "/y"}`, ""},
		"CRLF":                            {"chunk = 5\r\n# x\r\n[hooks]\r\n", ""},
	} {
		path := site(t, c.toml)
		got, err := Load(Options{Path: path})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || got != nil):
			t.Errorf("%s: no error", name)
		case c.want != "" && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		case err != nil && !strings.Contains(err.Error(), path+":"):
			t.Errorf("%s: %v does not name the file and line", name, err)
		}
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	path := site(t, "spool = 5\nfrob = 1\n[hooks]\ndrain = \"x\"\n", "[wave.one]\nuser = [\"a\"]\n")
	_, err := Load(Options{Path: path,
		Getenv: func(name string) string { return map[string]string{"MAILFERRY_CHUNK": "x"}[name] },
		Flags:  []Setting{{"jobs", "many", "--jobs"}, {"job", "1", "--job"}}})
	want := []string{
		path + `:1: spool: a template is expected here, not an integer`,
		path + `:2: unknown key "frob"; the nearest is "eol"`,
		path + `:4: hooks.drain: "x" is no absolute path`,
		filepath.Dir(path) + `/conf.d/a.toml:2: wave "one": unknown key "user"; the nearest is "users"`,
		filepath.Dir(path) + `/conf.d/a.toml:2: wave "one" has neither users nor from`,
		`MAILFERRY_CHUNK: "x" is no number`,
		`--jobs: "many" is no number`,
		`--job: unknown key "job"; the nearest is "jobs"`,
	}
	if got := strings.Split(err.Error(), "\n"); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", err, strings.Join(want, "\n"))
	}
}

func TestWhichFile(t *testing.T) {
	t.Run("one that is named must be there", func(t *testing.T) {
		if _, err := Load(Options{Path: filepath.Join(t.TempDir(), "absent.toml")}); !os.IsNotExist(firstOf(err)) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a directory is none", func(t *testing.T) {
		if _, err := Load(Options{Path: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "is no regular file") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("one beyond any measure is none", func(t *testing.T) {
		path := site(t, "# "+strings.Repeat("x", maxFile))
		if _, err := Load(Options{Path: path}); err == nil || !strings.Contains(err.Error(), "has more than 8388608 bytes") {
			t.Errorf("error %v", err)
		}
	})
}

// firstOf unwraps a joined error of one.
func firstOf(err error) error {
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		return firstOf(list.Unwrap()[0])
	}
	return err
}

func TestEveryKeyIsExplainedAndItsDefaultIsGood(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		if k.Help == "" || strings.HasSuffix(k.Help, ".") || seen[k.Name] || seen[k.Env()] {
			t.Errorf("key %+v", k)
		}
		seen[k.Name], seen[k.Env()] = true, true
		if err := k.set(&Config{}, k.Default); err != nil {
			t.Errorf("default of %s: %v", k.Name, err)
		}
	}
	if k, _ := KeyByName("hooks.before-hold"); k.Flag() != "hooks-before-hold" || k.Env() != "MAILFERRY_HOOKS_BEFORE_HOLD" {
		t.Errorf("flag %s, variable %s", k.Flag(), k.Env())
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{
		"spol": "spool", "maildirs": "maildir", "hold_limit": "hold-limit", "holdlimit": "hold-limit", "bw-limit": "bwlimit",
		"conver-jobs": "cutover-jobs", "minuid": "min-uid", strings.Repeat("x", 100000): "semaphore",
	} {
		var names []string
		for _, k := range Keys() {
			names = append(names, k.Name)
		}
		if got := nearest(word, names); got != want && len(word) < 100 {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestOneMoreSetting(t *testing.T) {
	c, err := Load(Options{Path: site(t, "jobs = 3\n")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, key, value, before, wrong string }{
		{"over the file", "jobs", "5", "3", ""},
		{"over the default", "hold-limit", "3s", "30s", ""},
		{"too little", "hold-limit", "0s", "30s", "at least 1s"},
		{"no number", "retries", "many", "3", "no number"},
		{"no key", "retry", "1", "", "unknown key"},
	} {
		next, err := c.With(Setting{tt.key, tt.value, "ctl"})
		if c.Text(tt.key) != tt.before {
			t.Errorf("%s: it was %q, not %q", tt.name, c.Text(tt.key), tt.before)
		}
		if tt.wrong != "" {
			if err == nil || !strings.HasPrefix(err.Error(), "ctl: ") || !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err != nil || next.Text(tt.key) != tt.value {
			t.Errorf("%s: %q, %v", tt.name, next.Text(tt.key), err)
		}
	}
	if next, err := c.With(Setting{"jobs", "5", "ctl"}); err != nil || next.Jobs != 5 || c.Jobs != 3 {
		t.Errorf("jobs %d, before %d, %v", next.Jobs, c.Jobs, err)
	}
}
