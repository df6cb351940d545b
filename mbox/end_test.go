package mbox

import (
	"strings"
	"testing"
)

// What is appended behind the missing LFs is a message to the profile; and they change
// the last message only where every smaller number would, or be too small.
func TestWhatIsAppendedIsAMessageOfItsOwn(t *testing.T) {
	const head, more = "From a@b Mon Jan  2 03:04:05 2023\nSubject: x\n\n", "From c@d Mon Jan  2 03:04:05 2023\nSubject: y\n\ny\n"
	for _, p := range profiles {
		for _, end := range []string{"text", "text\n", "text\n\n", "text\r\n", "text\r\n\r\n"} {
			box := head + end
			n, err := p.MissingLFs(strings.NewReader(box), int64(len(box)))
			if err != nil {
				t.Fatal(err)
			}
			was := scanned(t, box, p)
			split := func(k int) (splits, same bool) {
				now := scanned(t, box+strings.Repeat("\n", k)+more, p)
				splits = len(now) == 2
				return splits, splits && now[0].content == was[0].content
			}
			splits, same := split(n)
			if !splits {
				t.Errorf("%s: behind %q %d LFs are missing, and with them there are not two messages", p.Name, end, n)
			}
			for k := range n {
				if _, better := split(k); better && !same {
					t.Errorf("%s: behind %q %d LFs are missing; with %d the first message would be as it was", p.Name, end, n, k)
				}
			}
		}
	}
}

// Who is killed may leave half a header. (mailutils takes the empty line for its end.)
func TestWhatIsAppendedBehindHalfAHeaderIsAMessage(t *testing.T) {
	const more = "From c@d Mon Jan  2 03:04:05 2023\nSubject: y\n\ny\n"
	for _, p := range profiles {
		for _, box := range []string{"From a@b Mon Jan  2 03:04:05 2023\nSubject: x\n", "From a@b Mon Jan  2 03:04:05 2023\nSubje"} {
			n, err := p.MissingLFs(strings.NewReader(box), int64(len(box)))
			if err != nil {
				t.Fatal(err)
			}
			if now := scanned(t, box+strings.Repeat("\n", n)+more, p); len(now) != 2 && p.Name != "mailutils" {
				t.Errorf("%s: %q and %d LFs: %d messages", p.Name, box, n, len(now))
			}
		}
	}
}

func TestAnEmptyMboxMissesNothing(t *testing.T) {
	if n, err := MissingLFs(strings.NewReader(""), 0); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
