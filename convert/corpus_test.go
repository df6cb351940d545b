package convert

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The corpus holds mailboxes that nobody here wrote. Its licences differ, so
// it lies beside the project; where it is not, there is nothing to test with.
const corpus = "../../shared/corpus/real"

type specimen struct {
	name, path string
	messages   int    // by the line rules that a careful reader follows
	dovecot    string // what Dovecot shows, "refused", or a count with * if only of a mended copy
}

// settled are files whose count in the corpus list was looked at byte by byte
// and found to be another; docs/boundaries.md has the reasons.
var settled = map[string]int{
	"pipermail__2006-December.txt": 1228,
}

// refusals are files that no reading takes for a mailbox: their first From_
// line is damaged.
var refusals = map[string]bool{
	"patchwork__codec-null.mbox": true,
	"patchwork__name-len.mbox":   true,
}

func specimens(t *testing.T) []specimen {
	t.Helper()
	f, err := os.Open(filepath.Join(corpus, "SOURCES.tsv"))
	if os.IsNotExist(err) {
		t.Log("no corpus beside the project")
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []specimen
	for lines := bufio.NewScanner(f); lines.Scan(); {
		col := strings.Split(lines.Text(), "\t")
		if strings.HasPrefix(col[0], "#") || strings.HasSuffix(col[0], "/") {
			continue
		}
		n, err := strconv.Atoi(col[6])
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := settled[col[0]]; ok {
			n = m
		}
		list = append(list, specimen{col[0], filepath.Join(corpus, col[0]), n, col[8]})
	}
	return list
}

// copyOf makes a copy that a test may change.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "inbox"), string(b))
}

func TestCorpusIsShownAlikeByDovecot(t *testing.T) {
	for _, s := range specimens(t) {
		t.Run(s.name, func(t *testing.T) {
			r, refused := sameToClients(t, copyOf(t, s.path), "UTC")
			if refused == "" && strconv.Itoa(r.Messages) != s.dovecot {
				t.Logf("%d messages; the corpus list says %s", r.Messages, s.dovecot)
			}
		})
	}
}
