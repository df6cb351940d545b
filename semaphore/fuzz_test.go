package semaphore

import (
	"strings"
	"testing"
	"time"
)

func FuzzParse(f *testing.F) {
	for s := range words {
		f.Add([]byte(State(s).Line()))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := Parse(content)
		if err == nil && s.Line() != string(content) {
			t.Errorf("%q was taken for %v", content, s)
		}
		if err != nil && s != Hold {
			t.Errorf("%q is no state, but was taken for %v", content, s)
		}
	})
}

// What is taken for a meta is written and read again as the same, if it is not too long.
func FuzzParseMeta(f *testing.F) {
	for _, seed := range []string{
		`{"epoch":7,"state":"hold","run":"20261121T013000Z-migrate-0f3a","host":"mail","pid":812,"deadline":"2026-11-21T01:30:30Z","time":"2026-11-21T01:30:00.123456789Z"}`,
		`{"epoch":18446744073709551615,"state":"maildir","time":"2026-11-21T01:30:00+01:00"}`,
		`{"epoch":1,"state":"mbox","later":{"a":[1,null]}}`, `{"epoch":1e3}`, `{"epoch":1,"Epoch":0}`, `null`, `{"epoch":1,"pid":-1}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := parseMeta(content)
		if err != nil {
			if m != (Meta{}) {
				t.Errorf("%q is no meta, but was taken for %+v", content, m)
			}
			return
		}
		if m.Epoch == 0 || int(m.State) >= len(words) {
			t.Errorf("%q was taken for %+v", content, m)
		}
		written, err := m.encode()
		if err != nil {
			return // longer than it was, by quoting
		}
		again, err := parseMeta(written)
		if err != nil || !equal(again, m) || !strings.HasSuffix(string(written), "}\n") || len(written) > maxMeta {
			t.Errorf("%+v was written as %q and read as %+v, %v", m, written, again, err)
		}
	})
}

func equal(a, b Meta) bool {
	same := a.Deadline.Equal(b.Deadline) && a.Time.Equal(b.Time)
	a.Deadline, b.Deadline, a.Time, b.Time = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return same && a == b
}

func FuzzParseHolder(f *testing.F) {
	for _, seed := range []string{"812:mail.example.org", "812", "0", "", "812:\x1b", "-1:mail", "812:mail\n", "0812:a:b", "99999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		pid, host := parseHolder(content)
		if pid < 0 || pid == 0 && host != "" || host != "" && !isHostname(host) || !strings.Contains(content, host) {
			t.Errorf("%q was made by pid %d on %q", content, pid, host)
		}
	})
}
