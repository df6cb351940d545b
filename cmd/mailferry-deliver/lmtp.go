package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// becomeServer runs mailferry-lmtp, from this program's directory, in our
// place: with a server and its library linked, each single delivery would start
// later.
func becomeServer(args []string) error {
	own, err := os.Executable()
	if err != nil {
		return err
	}
	server := filepath.Join(filepath.Dir(own), "mailferry-lmtp")
	return fmt.Errorf("%s: %w", server, syscall.Exec(server, append([]string{server}, args...), os.Environ()))
}
