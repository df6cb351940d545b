package convert

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"mailferry/mbox"
)

// options are those of a conversion in a test.
func options(t testing.TB, src, profile string) Options {
	t.Helper()
	p, err := mbox.ProfileByName(profile)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Source: src, Dest: filepath.Join(t.TempDir(), "Maildir"), Jobs: 2,
		Scan:     mbox.Options{Profile: p},
		Progress: func(int64) {}, Total: func(int64) {},
	}
}

// mustConvert converts, and verifies what it made.
func mustConvert(t testing.TB, o Options) *Report {
	t.Helper()
	r, err := Convert(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Verify(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range v.Differences {
		t.Error("verify:", d)
	}
	if v.Messages != r.Messages || v.Bytes != r.Bytes {
		t.Errorf("verify saw %d messages of %d bytes, convert wrote %d of %d", v.Messages, v.Bytes, r.Messages, r.Bytes)
	}
	return r
}

func writeFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// A mailbox of a tree that grows after it was read, while others still are.
func TestATreeThatChangesMeanwhileIsNotPublished(t *testing.T) {
	const mail = "From a@b Mon Jan  2 03:04:05 2023\nSubject: x\n\nbody\n"
	src := t.TempDir()
	first := writeFile(t, filepath.Join(src, "a"), mail)
	writeFile(t, filepath.Join(src, "b"), mail+"\n"+mail)
	o := options(t, src, "careful")
	o.Jobs = 1
	seen := 0
	o.Progress = func(int64) {
		if seen++; seen == 3 { // the last message of the last mailbox
			writeFile(t, first, mail+"\n"+mail)
		}
	}
	_, err := Convert(context.Background(), o)
	var busy *Busy
	if !errors.As(err, &busy) || busy.Path != first {
		t.Errorf("got %v, want Busy about %s", err, first)
	}
	if _, err := os.Stat(o.Dest); !os.IsNotExist(err) {
		t.Errorf("DST: %v, want none", err)
	}
}
