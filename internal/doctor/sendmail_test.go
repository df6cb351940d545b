package doctor

import (
	"strings"
	"testing"
)

// What m4 makes of FEATURE(local_procmail) and of the default, sendmail 8.17.
const (
	mlocalProcmail = "Mlocal,\t\tP=/usr/bin/procmail, F=lsDFMAw5:/|@qSPfhn9, S=EnvFromL/HdrFromL, R=EnvToL/HdrToL,\n\t\tT=DNS/RFC822/X-Unix,\n\t\tA=procmail -Y -a $h -d $u\n"
	mlocalMail     = "Mlocal,\t\tP=/usr/lib/sm.bin/mail.local, F=lsDFMAw5:/|@qPSXmnz9, S=EnvFromSMTP/HdrFromL, R=EnvToL/HdrToL,\n\t\tT=DNS/RFC822/SMTP,\n\t\tA=mail.local -l\n"
)

func TestWhatSendmailNeeds(t *testing.T) {
	for name, c := range map[string]struct {
		cf    string
		finds []string
	}{
		"procmail":          {mlocalProcmail, []string{"procmail: do: rules-missing"}},
		"mail.local":        {mlocalMail, []string{"do: no-semaphore: Mlocal, /usr/lib/sm.bin/mail.local -l"}},
		"mailferry-deliver": {strings.ReplaceAll(mlocalProcmail, "/usr/bin/procmail", "/usr/local/bin/mailferry-deliver"), nil},
		"something":         {"Mlocal, P=[IPC], A=FILE /run/lmtp\n", []string{"unknown: strange-agent: Mlocal, [IPC] /run/lmtp"}},
		"no Mlocal":         {"Msmtp, P=[IPC]\n", []string{"unknown: strange-agent: /etc/mail/sendmail.cf has no mailer local"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, "procmail")
			h.write(sendmailCf, "V10/Berkeley\n"+c.cf+"Mprog, P=/bin/sh, A=sh -c $u\n")
			r := h.finds(c.finds...)
			if printed := len(r.Snippets) == 1 && r.Snippets[0].Recipe == "sendmail.md"; printed != (name == "mail.local") {
				t.Errorf("snippets %+v", r.Snippets)
			}
		})
	}
}

func FuzzSendmail(f *testing.F) {
	f.Add(mlocalProcmail + mlocalMail)
	f.Add("Mlocal,\nMlocal,,,=,A=,P")
	f.Fuzz(func(t *testing.T, text string) {
		if c, ok := localMailer(text); ok != (len(c.words) > 0) {
			t.Errorf("%+v, %t", c, ok)
		}
	})
}
