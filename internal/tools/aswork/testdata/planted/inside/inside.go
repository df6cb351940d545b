// Package inside is one that works as the user, whoever calls it.
package inside

import (
	"fmt"
	"os"
)

// Uncalled uses a path.
func Uncalled() error { return os.Remove("x") }

// Allowed has an exception.
func Allowed() error { _, err := os.ReadFile("/proc/self/status"); return err }

// Print is harmless.
func Print(f *os.File) { fmt.Fprintln(f, "x") }
