package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

const head = `# Configuration of mailferry. Every key with its default; take away the # in
# front of a key to change it.
#
# A flag counts more than its environment variable, that more than this file.
# In flags and variables, the items of a list are separated by commas; a
# variable that is empty counts as unset. A command has the flags that matter
# to it; variables count for all commands.
#
# template  a path with {user}, {home}, {uid} as the user database has them
# path      an absolute path
# duration  "90s", "5m", "1h30m"
# size      bytes: 1000000, or "512K", "100M", "10G", "2T" (powers of 1024)
# window    "01:00-05:30", or "22:00-05:30" over midnight
#
# Waves stand in conf.d/*.toml beside this file, each with one of
#
#   [wave.NAME]
#   users = ["alice", "bob"]
#   from = "/etc/mailferry/wave-NAME"      # names, one a line
`

// Describe writes all keys as a configuration file that changes nothing.
func Describe(w io.Writer) error {
	b := &strings.Builder{}
	b.WriteString(head)
	table := ""
	for _, k := range keys {
		name := k.Name
		if in, inner, ok := strings.Cut(name, "."); ok {
			if in != table {
				fmt.Fprintf(b, "\n#[%s]\n", in)
			}
			table, name = in, inner
		}
		fmt.Fprintf(b, "\n# %s\n# (%s; --%s, %s)\n#%s = %s\n", k.Help, k.Type, k.Flag(), k.Env(), name, k.toml())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// toml is the default as the file has it.
func (k Key) toml() string {
	switch k.Type {
	case Integer, Boolean:
		return k.Default
	case List:
		list := items(k.Default)
		for i := range list {
			list[i] = strconv.Quote(list[i])
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	return strconv.Quote(k.Default)
}
