package doctor

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// told is what a real Exim said: of the recipe's transport, and of Debian's
// mail_spool beside it.
func told(t testing.TB, kind string) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/exim-4.96-" + kind + "s.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestWhatEximSaysIsRead(t *testing.T) {
	transports := parseDrivers(told(t, "transport"), "transport")
	var names []string
	for _, d := range transports {
		names = append(names, d.name)
	}
	if want := []string{"mailferry", "mail_spool", "address_file"}; !slices.Equal(names, want) {
		t.Fatalf("%q, want %q", names, want)
	}
	ours, spool := transports[0], transports[1]
	if ours.values["command"] != "/usr/local/bin/mailferry-deliver" || ours.values["temp_errors"] != "*" || !ours.is("freeze_signal") || ours.is("use_shell") || ours.values["message_prefix"] != "" {
		t.Errorf("%v", ours.values)
	}
	if got := eximLocks(spool); !slices.Equal(got, []string{dotlock, fcntl}) || spool.values["file"] != "/var/mail/$local_part_data" || spool.values["message_suffix"] != `\n` {
		t.Errorf("%q, %v", got, spool.values)
	}
	if r := parseDrivers(told(t, "router"), "router"); len(r) != 3 || r[0].values["transport"] != "mailferry" || !r[0].is("check_local_user") || r[2].values["file_transport"] != "address_file" {
		t.Errorf("%+v", r)
	}
}

func TestWhatEximNeeds(t *testing.T) {
	router := func(transport string) driver {
		return driver{"users", map[string]string{"driver": "accept", "transport": transport}}
	}
	set := func(name, value string) func(d map[string]string) {
		return func(d map[string]string) { d[name] = value }
	}
	none := func(map[string]string) {}
	for name, c := range map[string]struct {
		transport string
		change    func(of map[string]string) // the transport
		finds     []string
		tells     string
	}{
		"the recipe":                {"mailferry", none, nil, "Exim: fine: gate: router users, transport mailferry"},
		"with bounces":              {"mailferry", set("temp_errors", "75 : 73"), []string{"do: bounces"}, ""},
		"with a From_ line":         {"mailferry", set("message_prefix", "From x"), []string{"do: bounces"}, ""},
		"with an end":               {"mailferry", set("timeout_defer", "false"), []string{"do: bounces"}, ""},
		"in a shell":                {"mailferry", set("use_shell", "true"), []string{"do: bounces"}, ""},
		"procmail in a pipe":        {"mailferry", set("command", "/usr/bin/procmail -t"), []string{"procmail: do: rules-missing"}, "procmail delivers, by its rules"},
		"a strange one in a pipe":   {"mailferry", set("command", "/usr/bin/strange"), []string{"unknown: strange-agent"}, ""},
		"one that is not there":     {"mailferry", set("command", "/opt/mailferry-deliver"), []string{"do: agent-missing"}, ""},
		"appendfile":                {"mail_spool", none, []string{"do: no-semaphore: router users, transport mail_spool"}, ""},
		"appendfile elsewhere":      {"mail_spool", set("file", "/srv/mail/$local_part"), []string{"do: no-semaphore", "Exim: do: spool-other: its mboxes are /srv/mail/{user}"}, ""},
		"appendfile somewhere":      {"mail_spool", set("file", "${lookup{x}}"), []string{"do: no-semaphore", "unknown: spool-other"}, ""},
		"LMTP to a socket":          {"mail_spool", set("driver", "lmtp"), []string{"unknown: strange-agent"}, ""},
		"only away":                 {"mail_spool", set("driver", "smtp"), nil, "Exim: note: no-mailboxes"},
		"looked up":                 {"${if exists{/x}{a}{b}}", none, []string{"unknown: transport: router users: transport = ${if exists"}, ""},
		"a transport not there":     {"nowhere", none, []string{"unknown: transport"}, ""},
		"only users' .forward file": {"", none, nil, "Exim: note: no-mailboxes"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, "procmail")
			e := &examination{ctx: t.Context(), system: h.system, config: h.load()}
			transports := parseDrivers(told(t, "transport"), "transport")
			for _, d := range transports {
				if d.name == c.transport {
					c.change(d.values)
				}
			}
			e.checkExim([]driver{router(c.transport)}, transports)
			e.checkRules()
			e.checkLocks()
			got := lines(&e.Report, false)
			if len(got) != len(c.finds) {
				t.Errorf("found %q, want %q", got, c.finds)
			}
			h.tells(&e.Report, append(c.finds, c.tells)...)
		})
	}
}

func FuzzExim(f *testing.F) {
	f.Add(strings.Join(told(f, "transport")[:60], "\n"))
	f.Add(strings.Join(told(f, "router")[:60], "\n"))
	f.Add("x transport:\nno_\n =\n transport:\na b transport:\nno_x = y\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []string{"transport", "router"} {
			for _, d := range parseDrivers(strings.Split(text, "\n"), kind) {
				if d.name == "" || !strings.Contains(text, d.name+" "+kind+":") {
					t.Errorf("%+v", d)
				}
				eximLocks(d)
			}
		}
	})
}
