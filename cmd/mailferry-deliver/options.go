package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailferry/internal/deliver"
)

// options are what the command line says. MTAs write them as they do for
// procmail, maildrop, mail.local and dovecot-lda: -f a@b, -fa@b.
type options struct {
	user, extension  string
	sender           *string
	config           string
	wait             time.Duration // for a hold
	lockWait         time.Duration // for the gate, and then for the mbox's locks
	extensionFolders bool
	version, help    bool
	lmtp             string // socket
	delimiter        string // for the server
}

// How long is waited: most cutovers take less than the first, and no delivery
// holds a lock for the second.
const (
	defaultWait     = 5 * time.Second
	defaultLockWait = 15 * time.Second
)

// usage is what a wrong call is told, in one line.
const usage = "usage: mailferry-deliver [-d USER] [-f SENDER] [-a EXTENSION] [--config FILE] [--wait 5s] [--lock-wait 15s] [--extension-folders] [--version] [--help]; or mailferry-deliver --lmtp SOCKET [--recipient-delimiter +] [...]"

const help = `usage: mailferry-deliver [-d USER] [-f SENDER] [-a EXTENSION] [OPTION]...
       mailferry-deliver --lmtp SOCKET [OPTION]...

Delivers the message on standard input to where its user's semaphore says; or
serves LMTP at a socket, with mailferry-lmtp from the same directory.

  -d USER                   the recipient; else LOGNAME, or USER, says it
  -f SENDER, -r SENDER      of the envelope; else SENDER says it
  -a EXTENSION              of the address; else EXTENSION says it
  -t, -Y                    are taken, as procmail does, and change nothing
  --config FILE             configuration
  --wait 5s                 how long a hold is waited for
  --lock-wait 15s           how long the gate is waited for, and then the mbox's locks
  --extension-folders       put mail for USER+NAME into the folder NAME, if there is one
  --lmtp SOCKET             serve at this path
  --recipient-delimiter +   with --lmtp: the characters that begin an address extension
  --version                 print the version
  --help, -h                print this

Exit codes: 0 the message is on the disk; 67 the user is proved absent; 75 all
else, and --version and --help where a message may wait: the MTA keeps it.
`

// flags are the options, by their names with dashes.
var flags = map[string]struct {
	value bool // takes one
	set   func(o *options, text string) error
}{
	"-d": {true, func(o *options, text string) error {
		if o.user != "" {
			return errors.New("one user at a time: one exit code can't tell of two")
		}
		o.user = text
		if text == "" {
			return errors.New("no user")
		}
		return nil
	}},
	"-f": {true, setSender},
	"-r": {true, setSender},
	"-a": {true, func(o *options, text string) error { o.extension = text; return nil }},
	"-t": {false, ignore}, // procmail's: tempfail, which we always do
	"-Y": {false, ignore}, // procmail's: no Content-Length
	"--config": {true, func(o *options, text string) error {
		if o.config = text; text == "" {
			return errors.New("no file")
		}
		return nil
	}},
	"--wait":              {true, func(o *options, text string) error { return setWait(&o.wait, text) }},
	"--lock-wait":         {true, func(o *options, text string) error { return setWait(&o.lockWait, text) }},
	"--extension-folders": {false, func(o *options, _ string) error { o.extensionFolders = true; return nil }},
	"--lmtp": {true, func(o *options, text string) error {
		if o.lmtp = text; text == "" {
			return errors.New("no socket")
		}
		return nil
	}},
	"--recipient-delimiter": {true, func(o *options, text string) error { o.delimiter = text; return nil }},
	"--version":             {false, func(o *options, _ string) error { o.version = true; return nil }},
	"--help":                {false, setHelp},
	"-h":                    {false, setHelp},
}

// maxWait keeps all waiting far below Postfix's command_time_limit, 1000 s,
// after which it bounces.
const maxWait = 5 * time.Minute

func setWait(d *time.Duration, text string) (err error) {
	if *d, err = time.ParseDuration(text); err == nil && (*d < 0 || *d > maxWait) {
		err = fmt.Errorf("%s is not between 0s and %s", text, maxWait)
	}
	return err
}

func ignore(*options, string) error { return nil }

func setHelp(o *options, _ string) error { o.help = true; return nil }

func setSender(o *options, text string) error {
	text = strings.TrimSuffix(strings.TrimPrefix(text, "<"), ">")
	o.sender = &text
	return nil
}

// parse reads the command line.
func parse(args []string) (o options, err error) {
	o.wait, o.lockWait = defaultWait, defaultLockWait
	for len(args) > 0 {
		name, text, attached := split(args[0])
		args = args[1:]
		f, known := flags[name]
		switch {
		case !known:
			return o, fmt.Errorf("%q is unknown; %s", name, usage)
		case !f.value && attached:
			return o, fmt.Errorf("%s takes no value; %s", name, usage)
		case f.value && !attached:
			if len(args) == 0 {
				return o, fmt.Errorf("%s needs a value; %s", name, usage)
			}
			text, args = args[0], args[1:]
		}
		if err := f.set(&o, text); err != nil {
			return o, fmt.Errorf("%s: %w", name, err)
		}
	}
	if o.delimiter != "" && o.lmtp == "" {
		return o, errors.New("--recipient-delimiter is for --lmtp; " + usage)
	}
	return o, nil
}

// split takes --name=value and -nvalue apart.
func split(arg string) (name, value string, attached bool) {
	if strings.HasPrefix(arg, "--") {
		return strings.Cut(arg, "=")
	}
	if len(arg) > 2 && arg[0] == '-' {
		return arg[:2], arg[2:], true
	}
	return arg, "", false
}

// envelope adds what the MTA says in the environment, where the command line
// says nothing: Postfix local(8) LOGNAME, SENDER, RECIPIENT, EXTENSION; Exim's
// pipe transport the same but LOCAL_PART_SUFFIX, with its separator.
func (o options) envelope(env environment) (e deliver.Envelope, err error) {
	e = deliver.Envelope{User: o.user, Extension: o.extension}
	if e.User == "" {
		e.User = cmp.Or(env.get("LOGNAME"), env.get("USER"))
	}
	if e.User == "" {
		return e, errors.New("no user: neither -d nor LOGNAME nor USER name one; " + usage)
	}
	if e.Extension == "" {
		e.Extension = cmp.Or(env.get("EXTENSION"), strings.TrimLeft(env.get("LOCAL_PART_SUFFIX"), "+-"))
	}
	if o.sender != nil {
		e.Sender, e.HasSender = *o.sender, true
	} else {
		e.Sender, e.HasSender = env("SENDER")
		e.Censored = e.HasSender
	}
	if to := env.get("RECIPIENT"); strings.Contains(to, "@") {
		e.Recipient = to
	}
	return e, nil
}

// environment is os.LookupEnv, or a test's.
type environment func(name string) (value string, set bool)

func (e environment) get(name string) string {
	value, _ := e(name)
	return value
}
