package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// units are the letters of sizes, each 1024 times the one before.
const units = "KMGT"

var sizePattern = regexp.MustCompile(`^([0-9]+)(?:B|([` + units + `])(?:i?B)?)?$`)

// ParseSize reads a number of bytes: 512, 64K, 100M, 10G, 2T, as powers of
// 1024; B, or iB behind a letter, changes nothing.
func ParseSize(text string) (int64, error) {
	part := sizePattern.FindStringSubmatch(text)
	if part == nil {
		return 0, fmt.Errorf("%q is no size such as 512K, 100M or 10G", text)
	}
	power := 0
	if part[2] != "" {
		power = strings.Index(units, part[2]) + 1
	}
	n, err := strconv.ParseInt(part[1], 10, 64)
	if err != nil || n > math.MaxInt64>>(10*power) {
		return 0, fmt.Errorf("%q is more than fits", text)
	}
	return n << (10 * power), nil
}
