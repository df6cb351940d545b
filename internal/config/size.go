package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// units are what stands behind the number of a size, each 1024 times the one before.
var units = [][]string{{"", "B"}, {"K", "KB", "KiB"}, {"M", "MB", "MiB"}, {"G", "GB", "GiB"}, {"T", "TB", "TiB"}}

// ParseSize reads a number of bytes: 512, 64K, 100M, 10G, 2T, as powers of
// 1024; B, or iB behind a letter, changes nothing.
func ParseSize(text string) (int64, error) {
	// Without a regular expression, since delivery agents start with this, too.
	digits := strings.TrimRight(text, "BiKMGT")
	power := slices.IndexFunc(units, func(forms []string) bool { return slices.Contains(forms, text[len(digits):]) })
	n, err := strconv.ParseUint(digits, 10, 64)
	if power < 0 || errors.Is(err, strconv.ErrSyntax) {
		return 0, fmt.Errorf("%q is no size such as 512K, 100M or 10G", text)
	}
	if err != nil || n > math.MaxInt64>>(10*power) {
		return 0, fmt.Errorf("%q is more than fits", text)
	}
	return int64(n) << (10 * power), nil
}
