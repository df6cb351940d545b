package doctor

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestALimitOfTimeIsLongerThanTheAgentWaits(t *testing.T) {
	t.Parallel()
	const agent = "mailbox_command = /usr/local/bin/mailferry-deliver"
	for name, c := range map[string]struct {
		mainCf string
		finds  []string
	}{
		"the default":                {agent + "\n", nil},
		"enough":                     {agent + "\ncommand_time_limit = 95s\n", nil},
		"too short":                  {agent + "\ncommand_time_limit = 94\n", []string{"do: time-limit: command_time_limit = 94: a delivery may take 1m35s"}},
		"too short by what it calls": {agent + " --wait=10m --lock-wait 3m\n", []string{"do: time-limit: command_time_limit = 1000s: a delivery may take 17m0s"}},
		"by what it refers to":       {agent + "\nx = 1\ncommand_time_limit = ${x}m\n", []string{"do: time-limit"}},
		"of another agent":           {"mailbox_command = /usr/bin/strange\ncommand_time_limit = 1s\n", []string{"unknown: strange-agent"}},
		"of a pipe":                  {"mailbox_transport = ours:\nours_time_limit = 1m\n", []string{"unknown: pipe", "do: time-limit: ours_time_limit = 1m"}},
		"of a pipe, by default":      {"mailbox_transport = ours:\ncommand_time_limit = 1m\n", []string{"unknown: pipe", "do: time-limit: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName)
			h.add("/etc/postfix/main.cf", c.mainCf)
			h.add("/etc/postfix/master.cf", "ours unix - n n - - pipe user=x argv=/usr/local/bin/mailferry-deliver -d ${user}\n")
			h.finds(c.finds...)
		})
	}
}

func TestTimesAreReadAsPostfixDoes(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "1000s": 1000, "90": 90, "2m": 120, "1h": 3600, "1d": 86400, "2w": 1209600, "0": 0, "s": 0, "x": 0, "-1s": 0, "5ms": 0, "99999999999h": 0,
	} {
		if got := postfixSeconds(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// limitsOf are those of a process as proc(5) has them.
func limitsOf(addresses, data, processes string) string {
	return "Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max data size             " + data + "            unlimited            bytes     \n" +
		"Max processes             " + processes + "                96365                processes \n" +
		"Max address space         " + addresses + "            unlimited            bytes     \n"
}

func TestTheAgentHasRoomToStart(t *testing.T) {
	t.Parallel()
	const v2, v1 = "0::/system.slice/postfix@-.service\n", "9:name=systemd:/x\n8:cpu,pids:/mail\n0::/\n"
	enough := limitsOf("unlimited", "268435456", "100")
	for name, c := range map[string]struct {
		limits, cgroup string
		pids           map[string]string // below /sys/fs/cgroup
		comm           string
		finds          []string
	}{
		"all is enough":      {enough, v2, map[string]string{"system.slice": "max\n", "system.slice/postfix@-.service": "1000\n"}, "master\n", nil},
		"few addresses":      {limitsOf("1073741824", "unlimited", "96365"), v2, nil, "master\n", []string{"Postfix: do: limits: Max address space of process 4711 is 1073741824, and should be 2147483648 bytes"}},
		"little data":        {limitsOf("unlimited", "67108864", "96365"), v2, nil, "master\n", []string{"do: limits: Max data size of process 4711 is 67108864"}},
		"few processes":      {limitsOf("unlimited", "unlimited", "10"), v2, nil, "master\n", []string{"do: limits: Max processes of process 4711 is 10"}},
		"few in its cgroup":  {enough, v2, map[string]string{"system.slice/postfix@-.service": "64\n"}, "master\n", []string{"do: limits: pids.max of process 4711, /sys/fs/cgroup/system.slice/postfix@-.service/pids.max is 64"}},
		"few in one above":   {enough, v2, map[string]string{"system.slice": "64\n"}, "master\n", []string{"do: limits: pids.max of process 4711, /sys/fs/cgroup/system.slice/pids.max"}},
		"few in version 1":   {enough, v1, map[string]string{"pids/mail": "64\n", "x": "1\n"}, "master\n", []string{"do: limits: pids.max of process 4711, /sys/fs/cgroup/pids/mail/pids.max"}},
		"a number's new use": {limitsOf("1", "1", "1"), v2, nil, "cron\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName)
			h.apply("postfix.md")
			h.add("/etc/postfix/main.cf", "queue_directory = /var/spool/postfix\n")
			h.write("/var/spool/postfix/pid/master.pid", "           4711\n")
			h.write("/proc/4711/limits", c.limits)
			h.write("/proc/4711/cgroup", c.cgroup)
			h.write("/proc/4711/comm", c.comm)
			for dir, text := range c.pids {
				h.write("/sys/fs/cgroup/"+dir+"/pids.max", text)
			}
			h.finds(c.finds...)
		})
	}
}

// What the kernel says of this process is what is looked for.
func TestTheKernelTellsTheLimits(t *testing.T) {
	text, err := thisHost().read("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range processLimits {
		if !strings.Contains(text, "\n"+l.name+" ") {
			t.Errorf("%q is not in\n%s", l.name, text)
		}
	}
	if text, err = thisHost().read("/proc/self/cgroup"); err != nil || len(pidsFiles(text)) == 0 {
		t.Errorf("%v: %q", err, text)
	}
}

func TestSomebodyGetsTheMailOfRoot(t *testing.T) {
	t.Parallel()
	const (
		root       = "do: root-mail: root has no alias in "
		postmaster = "do: root-mail: postmaster has no alias in "
	)
	for name, c := range map[string]struct {
		aliases, also string
		finds         []string
	}{
		"both":                {"root: alice\npostmaster: root\n", "", nil},
		"neither":             {"staff: alice\n", "", []string{root, postmaster}},
		"not root":            {"postmaster: root\n", "", []string{root}},
		"in another":          {"root: alice\n", ", hash:%/etc/more", nil},
		"one is not asked":    {"root: alice\n", ", nis:mail.aliases", []string{"unknown: root-mail: nis:mail.aliases is not asked here"}},
		"one can't be opened": {"root: alice\n", ", hash:%/etc/none", []string{"unknown: not-told: an alias could not be looked up"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName)
			h.apply("postfix.md")
			for file, text := range map[string]string{"/etc/aliases": c.aliases, "/etc/more": "postmaster: alice\n"} {
				h.write(file, text)
				if out, err := exec.Command("postalias", "-c", h.path("/etc/postfix"), "hash:"+h.path(file)).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			h.add("/etc/postfix/main.cf", strings.ReplaceAll("alias_maps = proxy:hash:%/etc/aliases"+c.also+"\n", "%", h.root))
			h.finds(c.finds...)
		})
	}
	h := newHouse(t, postfixName)
	h.apply("postfix.md")
	h.tells(h.finds(), "Postfix: note: root-mail: there are no aliases: mail for root, and for all others below min-uid 1000, is deferred")
	h = newHouse(t, postfixName)
	if got := lines(h.finds("do: no-semaphore"), true); slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "root-mail") }) {
		t.Errorf("Postfix delivers to root itself: %q", got)
	}
}

func TestTheServerHasTheDelimitersOfPostfix(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		start, delimiter string
		finds            []string
	}{
		"none":             {"mailferry-deliver", "", nil},
		"a plus":           {"mailferry-deliver", "+", nil},
		"another":          {"mailferry-deliver", "-", []string{`do: delimiter: recipient_delimiter = -, and mailferry-lmtp.service begins extensions with "+" only`}},
		"one more":         {"mailferry-deliver", "+-", []string{"do: delimiter"}},
		"it was told":      {"mailferry-lmtp --recipient-delimiter -", "-", nil},
		"it was told more": {"mailferry-lmtp --recipient-delimiter=-_+", "+-", nil},
		"it was told less": {"mailferry-lmtp --recipient-delimiter \"-\"", "+-", []string{"do: delimiter"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName)
			h.sockets()
			h.apply("postfix-lmtp.md")
			h.add("/etc/postfix/main.cf", "recipient_delimiter = "+c.delimiter+"\n")
			unit, err := os.ReadFile(h.path("/etc/systemd/system/" + lmtpUnit))
			h.must(err)
			h.write("/etc/systemd/system/"+lmtpUnit, strings.Replace(string(unit), "mailferry-deliver", c.start, 1))
			h.finds(c.finds...)
		})
	}
}
