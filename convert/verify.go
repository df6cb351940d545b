package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// Difference is something that is not the same in the Maildir as in the mbox.
type Difference struct {
	Mailbox string `json:"mailbox"`
	Offset  int64  `json:"offset"` // of the message in its mbox, in bytes; -1 for what is only in the Maildir
	File    string `json:"file"`   // in the Maildir; empty for what is only in the mbox
	Field   string `json:"field"`  // what differs: message, digest, flags, ...
	Want    string `json:"want"`   // by the mbox
	Got     string `json:"got"`    // in the Maildir
}

func (d Difference) String() string {
	where := d.File
	if d.Offset >= 0 {
		where = strings.TrimSuffix(fmt.Sprintf("offset %d, %s", d.Offset, d.File), ", ")
	}
	return fmt.Sprintf("%s: %s: %s is %s, should be %s", d.Mailbox, where, d.Field, d.Got, d.Want)
}

// Verify compares the Maildir o.Dest with what Convert with the same options
// makes of o.Source now. It changes neither.
func Verify(ctx context.Context, o Options) (*Report, error) {
	start := time.Now()
	o.Scan.Digest = true
	found, err := find(o)
	if err != nil {
		return nil, err
	}
	defer found.close()
	o.Total(found.bytes())
	if info, err := os.Stat(o.Dest); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, &fs.PathError{Op: "verify", Path: o.Dest, Err: errors.New("is not a Maildir, but a file")}
	}

	results := make([]result, len(found.sources))
	differences := make([][]Difference, len(found.sources))
	jobs, ctx := errgroup.WithContext(ctx)
	jobs.SetLimit(o.Jobs)
	for i, src := range found.sources {
		jobs.Go(func() (err error) {
			results[i], differences[i], err = verifyMailbox(ctx, src, o)
			return err
		})
	}
	if err := jobs.Wait(); err != nil {
		return nil, err
	}
	report := &Report{Skips: found.skips, Differences: slices.Concat(differences...)}
	if err := report.collect(found, results); err != nil {
		return nil, err
	}
	lists, err := verifyLists(found, report, o)
	report.Differences = append(report.Differences, lists...)
	report.Took = time.Since(start)
	return report, err
}

// verifyLists looks for folders that no mailbox explains, and compares the
// subscriptions.
func verifyLists(found *tree, report *Report, o Options) ([]Difference, error) {
	want := map[string]bool{}
	for _, s := range found.sources {
		if dir, err := o.Folders.Dir(s.parts); err == nil && report.has(s.path) {
			want[dir] = true
		}
	}
	diffs, err := verifyInbox(want, o)
	if err != nil {
		return diffs, err
	}
	folders, err := listFolders(o.Dest)
	for _, dir := range folders {
		if !want[dir] {
			diffs = append(diffs, Difference{Mailbox: dir, Offset: -1, File: filepath.Join(o.Dest, dir), Field: "folder", Want: "absent", Got: "present"})
		}
	}
	if err != nil || !found.hasList {
		return diffs, err
	}
	lists, err := verifySubscriptions(found.subscribed, o)
	return append(diffs, lists...), err
}

// verifyInbox demands an empty INBOX where no mailbox is INBOX.
func verifyInbox(want map[string]bool, o Options) ([]Difference, error) {
	if want["."] {
		return nil, nil
	}
	want["."] = true
	a := &audit{mailbox: "INBOX", dir: o.Dest}
	defer a.close()
	if err := a.loadFiles(); err != nil {
		return a.diffs, err
	}
	err := a.leftovers()
	return a.diffs, err
}

// verifySubscriptions compares the subscriptions that the layout can spell.
func verifySubscriptions(subscribed [][]string, o Options) (diffs []Difference, err error) {
	var list bytes.Buffer
	if _, err := maildir.WriteSubscriptions(&list, subscribed, o.Folders); err != nil {
		return nil, err
	}
	want, err := maildir.ParseSubscriptions(&list, o.Folders)
	if err != nil {
		return nil, err
	}
	got, err := readSubscribed(o)
	missing := func(in, from [][]string, want, got string) {
		for _, parts := range from {
			if !slices.ContainsFunc(in, func(p []string) bool { return slices.Equal(p, parts) }) {
				diffs = append(diffs, Difference{folderName(parts), -1, filepath.Join(o.Dest, "subscriptions"), "subscription", want, got})
			}
		}
	}
	missing(got, want, "present", "absent")
	missing(want, got, "absent", "present")
	return diffs, err
}

// listFolders returns every directory of a Maildir that holds a cur, relative
// to its root.
func listFolders(root string) (dirs []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		switch filepath.Base(path) {
		case "cur":
			rel, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			dirs = append(dirs, rel)
			return fs.SkipDir
		case "new", "tmp":
			return fs.SkipDir
		}
		return nil
	})
	return dirs, err
}

func readSubscribed(o Options) ([][]string, error) {
	dir, err := safefs.OpenDir(o.Dest)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.OpenRegular("subscriptions")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return maildir.ParseSubscriptions(f, o.Folders)
}
