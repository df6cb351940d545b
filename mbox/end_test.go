package mbox

import (
	"strings"
	"testing"
)

// What is appended behind the missing LFs is a message to the profile, and as few as can
// be are put there: none of them changes the last message where a smaller number would not.
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
			for k := range 3 {
				now := scanned(t, box+strings.Repeat("\n", k)+more, p)
				splits := len(now) == 2
				same := splits && now[0].content == was[0].content
				if k == n && !splits || k < n && same {
					t.Errorf("%s: behind %q %d LFs are missing; with %d of them there are %d messages, and the first is as it was: %t", p.Name, end, n, k, len(now), same)
				}
			}
		}
	}
}

func TestAnEmptyMboxMissesNothing(t *testing.T) {
	if n, err := MissingLFs(strings.NewReader(""), 0); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
