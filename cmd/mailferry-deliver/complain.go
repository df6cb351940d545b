package main

import (
	"fmt"
	"io"

	"mailferry/internal/deliver"
)

// complain tells an error in one line.
func complain(log io.Writer, err error) {
	fmt.Fprintf(log, "mailferry-deliver: %s\n", deliver.Complaint(err)) // that nobody hears it does not matter
}
