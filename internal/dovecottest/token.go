package dovecottest

import (
	"fmt"
	"strconv"
	"strings"
)

// token is one element of a response: an atom, a string, or a list (RFC 3501 section 4).
// NIL is an atom; the responses that are read here can't mistake it for a string.
type token struct {
	text string
	list []token // nil in an atom or string, not nil in a list, even an empty one
}

// texts returns the elements of a list of atoms or strings.
func (t token) texts() []string {
	out := make([]string, 0, len(t.list))
	for _, e := range t.list {
		out = append(out, e.text)
	}
	return out
}

// tokens splits a response.
func tokens(s string) ([]token, error) {
	list, rest, err := tokenList(s, 0)
	if err == nil && rest != "" {
		err = fmt.Errorf("unexpected %q", rest)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", s, err)
	}
	return list, nil
}

// tokenList reads tokens up to the end of s or the ")" that closes the list at depth.
func tokenList(s string, depth int) (list []token, rest string, err error) {
	list = []token{}
	for {
		s = strings.TrimLeft(s, " ")
		switch {
		case s == "" && depth > 0:
			return nil, "", fmt.Errorf("list not closed")
		case s == "" || s[0] == ')':
			return list, s, nil
		}
		var t token
		if t, s, err = nextToken(s, depth); err != nil {
			return nil, "", err
		}
		list = append(list, t)
	}
}

// maxDepth bounds the nesting of lists; FETCH without BODYSTRUCTURE needs 2.
const maxDepth = 32

// nextToken reads the token at the start of s, which is neither empty nor at a blank or ")".
func nextToken(s string, depth int) (t token, rest string, err error) {
	switch s[0] {
	case '(':
		if depth == maxDepth {
			return token{}, "", fmt.Errorf("nested too deep")
		}
		t.list, rest, err = tokenList(s[1:], depth+1)
		if err != nil {
			return token{}, "", err
		}
		return t, rest[1:], nil
	case '"':
		t.text, rest, err = quoted(s[1:])
	case '{':
		t.text, rest, err = literal(s[1:])
	default:
		t.text, rest = atom(s)
	}
	return t, rest, err
}

// quoted reads a quoted string behind its opening quote.
func quoted(s string) (text, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", fmt.Errorf("quoted string not closed")
}

// literal reads a literal behind its opening brace.
func literal(s string) (text, rest string, err error) {
	number, rest, ok := strings.Cut(s, "}\r\n")
	size, err := strconv.ParseUint(number, 10, 63)
	if !ok || err != nil || size > uint64(len(rest)) {
		return "", "", fmt.Errorf("bad literal")
	}
	return rest[:size], rest[size:], nil
}

// atom reads up to a blank or parenthesis, except within the brackets of BODY[...].
func atom(s string) (text, rest string) {
	brackets := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '[':
			brackets++
		case c == ']':
			brackets--
		case brackets <= 0 && (c == ' ' || c == '(' || c == ')'):
			return s[:i], s[i:]
		}
	}
	return s, ""
}
