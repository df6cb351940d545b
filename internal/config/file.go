package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a file of the configuration, in bytes: a wave of 100,000
// users with long names fits.
const maxFile = 8 << 20

// readFile reads the main file.
func (c *Config) readFile() error {
	d, err := parseFile(c.Path)
	if err != nil {
		return err
	}
	for _, f := range d.fields {
		d.problem(f, c.applyField(d, f))
	}
	return errors.Join(d.problems...)
}

func parseFile(path string) (*document, error) {
	content, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	return parse(path, content)
}

// readBounded reads a regular file of no more than maxFile bytes.
func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return content, err
}

// document is a TOML file, taken apart.
type document struct {
	path     string
	fields   []field
	problems []error
}

// field is a key that has a value and is no table.
type field struct {
	key   toml.Key // with the names of its tables
	value any      // string, int64, float64, bool, time.Time, []any, []map[string]any
	line  int
}

// parse takes a TOML file apart, in the order of its lines.
func parse(path string, content []byte) (*document, error) {
	var tables map[string]toml.Primitive
	meta, err := toml.NewDecoder(bytes.NewReader(content)).Decode(&tables)
	if err != nil {
		return nil, located(path, err)
	}
	d := &document{path: path}
	if err := d.walk(meta, nil, tables); err != nil {
		return nil, err
	}
	slices.SortFunc(d.fields, func(a, b field) int {
		return cmp.Or(a.line-b.line, slices.Compare(a.key, b.key))
	})
	return d, nil
}

// walk collects the fields of a table and the tables in it.
func (d *document) walk(meta toml.MetaData, in toml.Key, table map[string]toml.Primitive) error {
	for name, primitive := range table {
		key := append(slices.Clone(in), name)
		var got capture
		var place toml.ParseError
		if err := meta.PrimitiveDecode(primitive, &got); !errors.As(err, &place) {
			return fmt.Errorf("%s: %s: %w", d.path, key, err)
		}
		if _, isTable := got.value.(map[string]any); !isTable {
			d.fields = append(d.fields, field{key, got.value, place.Position.Line})
			continue
		}
		var inner map[string]toml.Primitive
		if err := meta.PrimitiveDecode(primitive, &inner); err != nil {
			return located(d.path, err)
		}
		if len(inner) == 0 {
			d.fields = append(d.fields, field{key, map[string]any{}, place.Position.Line})
		}
		if err := d.walk(meta, key, inner); err != nil {
			return err
		}
	}
	return nil
}

// capture takes a value as it is and fails, since only errors come with the
// line of a key.
type capture struct{ value any }

var errCaptured = errors.New("captured")

func (c *capture) UnmarshalTOML(value any) error {
	c.value = value
	return errCaptured
}

// located is an error of the TOML parser as FILE:LINE: TEXT.
func located(path string, err error) error {
	var syntax toml.ParseError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%s:%d: %s", path, syntax.Position.Line, syntax.Message)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// at is the place of a field.
func (d *document) at(f field) string { return d.path + ":" + strconv.Itoa(f.line) }

// problem notes an error of a field, if there is one.
func (d *document) problem(f field, err error) {
	if err != nil {
		d.problems = append(d.problems, fmt.Errorf("%s: %w", d.at(f), err))
	}
}

// applyField sets the key of a field of the main file.
func (c *Config) applyField(d *document, f field) error {
	name := strings.Join(f.key, ".")
	k, known := KeyByName(name)
	switch {
	case !known && isTable(name) && isEmptyTable(f.value):
		return nil
	case !known:
		return unknownKey(name)
	}
	text, err := k.Type.text(f.value)
	if err == nil {
		err = k.set(c, text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c.settings[name] = Setting{name, text, d.at(f)}
	return nil
}

// text turns a TOML value into the text of a type.
func (t Type) text(value any) (string, error) {
	switch v := value.(type) {
	case string:
		if t != List && t != Integer && t != Boolean {
			return v, nil
		}
	case int64:
		if t == Integer || t == Bytes {
			return strconv.FormatInt(v, 10), nil
		}
	case bool:
		if t == Boolean {
			return strconv.FormatBool(v), nil
		}
	case []any:
		if t == List {
			list, err := texts(v)
			return strings.Join(list, ","), err
		}
	}
	return "", fmt.Errorf("%s is expected here, not %s", t.article(), kindOf(value))
}

// texts checks that an array has nothing but strings.
func texts(array []any) ([]string, error) {
	list := make([]string, len(array))
	for i, item := range array {
		text, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("item %d is %s, not a string", i+1, kindOf(item))
		}
		if strings.Contains(text, ",") {
			return nil, fmt.Errorf("item %d has a comma, which is what separates items elsewhere", i+1)
		}
		list[i] = text
	}
	return list, nil
}

// isEmptyTable knows the one kind of table that is a field.
func isEmptyTable(value any) bool {
	_, ok := value.(map[string]any)
	return ok
}

func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date"
	case map[string]any, []map[string]any:
		return "a table"
	}
	return "an array"
}
