package host

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestAskedProgramsTellLines(t *testing.T) {
	path := script(t, `echo "a $1"; echo b >&2; echo; echo "$PATH$HOME"; test "$1" != fail`)
	want := []string{"a x y", "", searchPath}
	if got, err := Ask(t.Context(), path, "x y"); !slices.Equal(got, want) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Banner(t.Context(), path, "x"); !slices.Equal(got, []string{"a x", "b", "", searchPath}) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_, err := Ask(t.Context(), path, "fail")
	if f := (*Failed)(nil); !errors.As(err, &f) || f.Exit != 1 || f.Said != "b" {
		t.Errorf("%v", err)
	}
	if _, err := Ask(t.Context(), script(t, "yes | head -c 9000000")); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
}
