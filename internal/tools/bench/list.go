package main

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// entry is one file of the finished Maildir.
type entry struct {
	name  string // within cur
	size  int
	mtime int64 // Unix seconds
}

// listMaildir reads what is in dir/cur, in the order of the directory as it is
// written: by name.
func listMaildir(dir string) ([]entry, error) {
	files, err := os.ReadDir(filepath.Join(dir, "cur"))
	if err != nil {
		return nil, err
	}
	list := make([]entry, 0, len(files))
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return nil, err
		}
		list = append(list, entry{f.Name(), int(info.Size()), info.ModTime().Unix()})
	}
	return list, nil
}

// writeList writes one "size mtime name" a line.
func writeList(path string, list []entry) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for _, e := range list {
		fmt.Fprintf(w, "%d %d %s\n", e.size, e.mtime, e.name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

func readList(path string) ([]entry, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []entry
	for line := range strings.Lines(string(text)) {
		size, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		mtime, name, _ := strings.Cut(rest, " ")
		e := entry{name: name}
		if e.size, err = strconv.Atoi(size); err != nil {
			return nil, err
		}
		if e.mtime, err = strconv.ParseInt(mtime, 10, 64); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// countMessages counts the files below cur and new of dir, without its folders.
func countMessages(dir string) (int, error) {
	n := 0
	for _, sub := range []string{"cur", "new"} {
		d, err := os.Open(filepath.Join(dir, sub))
		if err != nil {
			return 0, err
		}
		names, err := d.Readdirnames(-1)
		d.Close()
		if err != nil {
			return 0, err
		}
		for _, name := range names {
			if fs.ValidPath(name) && !strings.HasPrefix(name, "dovecot") {
				n++
			}
		}
	}
	return n, nil
}
