package dovecottest

import (
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	list := func(e ...token) token { return token{list: append([]token{}, e...)} }
	word := func(s string) token { return token{text: s} }
	for _, tt := range []struct {
		name, in string
		want     []token
	}{
		{"nothing", "", []token{}},
		{"atoms", "* 2 FETCH", []token{word("*"), word("2"), word("FETCH")}},
		{"list", `(\Seen $Label1) x`, []token{list(word(`\Seen`), word("$Label1")), word("x")}},
		{"empty list", "() ()", []token{list(), list()}},
		{"nested lists", "(a (b) c)", []token{list(word("a"), list(word("b")), word("c"))}},
		{"quoted string", `"two words" "q\"uo\\te" ""`, []token{word("two words"), word(`q"uo\te`), word("")}},
		{"literal", "{5}\r\na b)\n x", []token{word("a b)\n"), word("x")}},
		{"section with blanks", "(BODY[HEADER.FIELDS (A B)] {1}\r\nx)", []token{list(word("BODY[HEADER.FIELDS (A B)]"), word("x"))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tokens(tt.in)
			equal(t, "error", err, nil)
			equal(t, tt.in, got, tt.want)
		})
	}
}

func TestTokensRefuses(t *testing.T) {
	for _, in := range []string{
		"(a", "a)", `"a`, `"a\`, `"a\"`, "{3}\r\nab", "{3}", "{x}\r\nabc", "{-1}\r\n", "{99999999999999999999}\r\n",
		strings.Repeat("(", maxDepth+1) + strings.Repeat(")", maxDepth+1),
	} {
		if got, err := tokens(in); err == nil {
			t.Errorf("%q: got %v", in, got)
		}
	}
}

func FuzzTokens(f *testing.F) {
	for _, s := range []string{
		`* LIST (\NoInferiors) "/" "q\"uo\\te"`, "* 1 FETCH (UID 1 BODY[] {2}\r\nab)", "(((", `"\`, "{9}\r\n", "a[(b)]c)", "]",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = tokens(s)
	})
}

func FuzzQuoteIsReadBack(f *testing.F) {
	for _, s := range []string{"INBOX", "two words", `q"uo\te`, "", "NIL", "per%cent*", "a\r\nb", "\xe4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// A client marks its literals as not to be waited for, a server does not.
		got, err := tokens(strings.Replace(Quote(s), "+}\r\n", "}\r\n", 1))
		if err != nil || len(got) != 1 || got[0].text != s {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	})
}
