package convert

import (
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
	want := map[string]bool{".": true}
	for _, s := range found.sources {
		if dir, err := o.Folders.Dir(s.parts); err == nil {
			want[dir] = true
		}
	}
	var diffs []Difference
	folders, err := listFolders(o.Dest)
	for _, dir := range folders {
		if !want[dir] {
			diffs = append(diffs, Difference{Mailbox: dir, Offset: -1, File: filepath.Join(o.Dest, dir), Field: "folder", Want: "absent", Got: "present"})
		}
	}
	if err != nil || !found.hasList {
		return diffs, err
	}
	got, err := readSubscribed(o)
	if err != nil {
		return diffs, err
	}
	for _, parts := range found.subscribed {
		if _, err := o.Folders.Dir(parts); err == nil && !slices.ContainsFunc(got, func(g []string) bool { return slices.Equal(g, parts) }) {
			diffs = append(diffs, Difference{Mailbox: folderName(parts), Offset: -1, File: filepath.Join(o.Dest, "subscriptions"), Field: "subscription", Want: "present", Got: "absent"})
		}
	}
	return diffs, nil
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
