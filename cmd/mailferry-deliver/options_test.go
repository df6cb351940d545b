package main

import (
	"strings"
	"testing"
	"time"

	"mailferry/internal/deliver"
)

func env(pairs ...string) environment {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if value, ok := strings.CutPrefix(p, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

func TestEachMTACallsInItsWay(t *testing.T) {
	postfix := []string{"USER=alice", "LOGNAME=alice", "HOME=/home/alice", "SHELL=/bin/sh", "LOCAL=alice+lists", "EXTENSION=lists", "DOMAIN=example.org",
		"SENDER=bob@example.org", "RECIPIENT=alice+lists@example.org", "ORIGINAL_RECIPIENT=al@example.net", "MAIL_CONFIG=/etc/postfix", "LANG=C"}
	for name, tt := range map[string]struct {
		args []string
		env  []string
		want deliver.Envelope
	}{
		"Postfix mailbox_command": {nil, postfix,
			deliver.Envelope{User: "alice", Sender: "bob@example.org", HasSender: true, Censored: true, Recipient: "alice+lists@example.org", Extension: "lists"}},
		"Postfix, a bounce": {nil, []string{"USER=alice", "LOGNAME=alice", "SENDER=", "RECIPIENT=alice@example.org"},
			deliver.Envelope{User: "alice", HasSender: true, Censored: true, Recipient: "alice@example.org"}},
		"Postfix, as procmail is called": {[]string{"-a", "lists"}, postfix,
			deliver.Envelope{User: "alice", Sender: "bob@example.org", HasSender: true, Censored: true, Recipient: "alice+lists@example.org", Extension: "lists"}},
		"Postfix pipe(8), as maildrop is called": {[]string{"-d", "alice", "-f", "bob@example.org"}, nil,
			deliver.Envelope{User: "alice", Sender: "bob@example.org", HasSender: true}},
		"Exim pipe": {nil, []string{"LOCAL_PART=alice", "LOCAL_PART_SUFFIX=+lists", "LOGNAME=alice", "USER=alice", "HOME=/home/alice", "DOMAIN=example.org",
			"RECIPIENT=alice+lists@example.org", "SENDER=bob@example.org", "MESSAGE_ID=1abcde-000001-AB", "PATH=/bin:/usr/bin"},
			deliver.Envelope{User: "alice", Sender: "bob@example.org", HasSender: true, Censored: true, Recipient: "alice+lists@example.org", Extension: "lists"}},
		"Exim, as procmail is called": {[]string{"-d", "alice"}, []string{"LOGNAME=mail", "SENDER="},
			deliver.Envelope{User: "alice", HasSender: true, Censored: true}},
		"Sendmail local_procmail": {[]string{"-Y", "-a", "", "-d", "alice"}, []string{"AGENT=sendmail"},
			deliver.Envelope{User: "alice"}},
		"Sendmail, with -f": {[]string{"-t", "-Y", "-a", "lists", "-f", "<bob@example.org>", "-d", "alice"}, nil,
			deliver.Envelope{User: "alice", Sender: "bob@example.org", HasSender: true, Extension: "lists"}},
		"mail.local": {[]string{"-r", "<>", "-d", "alice"}, nil,
			deliver.Envelope{User: "alice", HasSender: true}},
		"values attached": {[]string{"-dalice", "-fbob@example.org", "-alists"}, nil,
			deliver.Envelope{User: "alice", Sender: "bob@example.org", HasSender: true, Extension: "lists"}},
		"procmail's last step": {nil, []string{"LOGNAME=alice", "HOME=/home/alice"},
			deliver.Envelope{User: "alice"}},
		"a user like an option": {[]string{"-d", "-f"}, nil, deliver.Envelope{User: "-f"}},
		"the command line counts more": {[]string{"-d", "carol", "-f", "dave@example.org"}, postfix,
			deliver.Envelope{User: "carol", Sender: "dave@example.org", HasSender: true, Recipient: "alice+lists@example.org", Extension: "lists"}},
		"a recipient that is no address": {nil, []string{"USER=alice", "RECIPIENT=alice"}, deliver.Envelope{User: "alice"}},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(tt.args)
			if err != nil {
				t.Fatal(err)
			}
			got, err := o.envelope(env(tt.env...))
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestOurOwnOptions(t *testing.T) {
	o, err := parse([]string{"--config=/etc/m.toml", "--wait", "90s", "--extension-folders"})
	if err != nil || o.config != "/etc/m.toml" || o.wait != 90*time.Second || !o.extensionFolders {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = parse(nil); err != nil || o.wait != 5*time.Second || o.extensionFolders {
		t.Errorf("%+v, %v", o, err)
	}
}

// The server parses its own.
func TestOptionsOfTheServerReachIt(t *testing.T) {
	if o, err := parse([]string{"--lmtp", "socket", "--recipient-delimiter", "-+"}); err != nil || o.lmtp != "socket" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestAWrongCallSaysWhatIsWrong(t *testing.T) {
	for call, want := range map[string]string{
		"-x":                     `"-x" is unknown`,
		"alice":                  `"alice" is unknown`,
		"--":                     `"--" is unknown`,
		"-":                      `"-" is unknown`,
		"-d":                     "-d needs a value",
		"-d alice -d carol":      "one user at a time",
		"--wait soon":            "--wait: ",
		"--wait -1s":             "not between",
		"--wait 1h":              "not between",
		"--config=":              "no file",
		"--extension-folders=no": "takes no value",
		"-tx":                    "takes no value",
		"--help=x":               "takes no value",
		"-hx":                    "takes no value",

		"--recipient-delimiter - -d alice": "is for --lmtp",
	} {
		if _, err := parse(strings.Fields(call)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", call, err, want)
		}
	}
	if _, err := (options{}).envelope(env()); err == nil || !strings.Contains(err.Error(), "no user") {
		t.Error(err)
	}
}

func TestTheHelpHasEveryOption(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--lmtp", "socket", "--help"}} {
		if o, err := parse(args); err != nil || !o.help {
			t.Errorf("%q: %+v, %v", args, o, err)
		}
	}
	for name, f := range flags {
		with := name
		if f.value {
			with += " "
		}
		if !strings.Contains(help, " "+with) {
			t.Errorf("%s is not in the help", name)
		}
	}
	if line := len("mailferry-deliver: ") + len(usage); line > 450 || !strings.Contains(usage, "--recipient-delimiter") {
		t.Errorf("a complaint with the usage has %d characters, and is cut off", line)
	}
}

func TestAComplaintIsOnePlainLine(t *testing.T) {
	for text, want := range map[string]string{
		"one":                     "one",
		"one\ntwo\n":              "one; two",
		"\x1b[2J\x07\u202eäx\x7f": "?[2J???x?",
		strings.Repeat("x", 600):  strings.Repeat("x", 500) + "...",
	} {
		var b strings.Builder
		complain(&b, &textError{text})
		if b.String() != "mailferry-deliver: "+want+"\n" {
			t.Errorf("%q is told as %q", text, b.String())
		}
	}
}

type textError struct{ text string }

func (e *textError) Error() string { return e.text }
