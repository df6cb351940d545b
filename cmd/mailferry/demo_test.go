package main

import "testing"

func TestDemoShowsTheBeginningOfLists(t *testing.T) {
	tour := &tour{users: map[string]bool{"ann": true, "bob": true, "cid": true, "dan": true}}
	for _, tt := range []struct{ name, text, want string }{
		{"short lists are shown", "ann: mbox\nbob: mbox\n2 users\n", "ann: mbox\nbob: mbox\n2 users\n"},
		{"of long ones it says how much is missing", "ann: mbox\nbob: mbox\ncid: mbox\ndan: mbox\n4 users\n",
			"ann: mbox\nbob: mbox\n... and 2 more\n4 users\n"},
		{"a list may be the last thing", "ann: mbox\nbob: mbox\ncid: mbox\n", "ann: mbox\nbob: mbox\n... and 1 more\n"},
		{"a user has one entry", "ann: warn: a\nann: warn: b\nbob: warn: c\n1 user\n", "ann: warn: a\nbob: warn: c\n... and 1 more\n1 user\n"},
		{"an advice goes with its entry", "ann: warn: a\n  mend it\nann: warn: b\n  mend that\nbob: warn: c\n  leave it\n",
			"ann: warn: a\n  mend it\nbob: warn: c\n  leave it\n... and 1 more\n"},
		{"a table is a list, and what follows another", "user  time\nann   1\nbob   2\ncid   3\ntotal 6\nann: info: a\ncid: info: b\n",
			"user  time\nann   1\nbob   2\n... and 1 more\ntotal 6\nann: info: a\ncid: info: b\n"},
		{"who is no user is shown", "eve: mbox\nfay: mbox\ngil: mbox\n", "eve: mbox\nfay: mbox\ngil: mbox\n"},
		{"nothing is nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tour.shorten(tt.text, 2); got != tt.want {
				t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}
