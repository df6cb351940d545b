package convert

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The list in docs/findings.md is that of the source, word for word.
func TestFindingsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/findings.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]code{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		name, ok := strings.CutPrefix(cells[0], "| `")
		if !ok || len(cells) != 4 {
			continue
		}
		name = strings.TrimSuffix(name, "`")
		if _, double := documented[name]; double {
			t.Errorf("%s stands there twice", name)
		}
		var c code
		if err := c.severity.UnmarshalText([]byte(cells[1])); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.meaning, c.advice = cells[2], strings.TrimSuffix(cells[3], " |")
		documented[name] = c
	}
	for name, c := range codes {
		if documented[name] != c {
			t.Errorf("%s: the source has\n%+v\ndocs/findings.md has\n%+v", name, c, documented[name])
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s is documented and not in the source", name)
	}
}

// Every code that the source uses is in the list, and every one in the list is
// used and made by a test.
func TestCodesAreThoseOfTheList(t *testing.T) {
	used := usedCodes(t)
	for name := range codes {
		if !slices.Contains(used, name) {
			t.Errorf("nothing brings up %s", name)
		}
	}
	for _, name := range used {
		switch name {
		case "subscription": // a line that a round leaves out of a list: in its report, and no finding
			continue
		case "no-maildir", "stray", "folder-collides", "maildir-odd": // why a rollback leaves a user alone: see TestWhoCanNotGoBackIsNamedAndLeftAlone
			continue
		case "stray-irregular", "stray-format", "stray-hole", "aside-mail": // why a sweep leaves late mail where it is: see TestLateMailWaitsForAnMboxThatIsOne, sparse_test.go, TestMailThatIsInTheMboxIsNotSweptIntoItAgain
			continue
		}
		if _, known := codes[name]; !known {
			t.Errorf("%s is in no list", name)
		}
	}
	tested := []string{"reading-differs", "mbox-changing"} // in tests of the plan
	for _, trouble := range troubles {
		tested = append(tested, trouble.code)
	}
	for name := range codes {
		if !slices.Contains(tested, name) {
			t.Errorf("no test makes %s", name)
		}
	}
}

// usedCodes are the codes that stand in the source as strings: arguments of
// add, skipAs and reached, fields of Skip and Unfit, and what is assigned to a
// variable called code.
func usedCodes(t *testing.T) (used []string) {
	t.Helper()
	take := func(list ...ast.Expr) {
		for _, e := range list {
			if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && isCode(s) {
					used = append(used, s)
				}
			}
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "inspect_codes.go" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				switch called(n) {
				case "add", "skipAs":
					take(n.Args[:1]...)
				case "reached":
					take(n.Args...)
				}
			case *ast.CompositeLit:
				if id, ok := n.Type.(*ast.Ident); ok {
					if at := map[string]int{"Skip": 2, "Unfit": 1}[id.Name]; at > 0 && at < len(n.Elts) {
						take(n.Elts[at])
					}
				}
			case *ast.AssignStmt:
				if id, ok := n.Lhs[0].(*ast.Ident); ok && id.Name == "code" {
					take(n.Rhs...)
				}
			}
			return true
		})
	}
	return used
}

func called(c *ast.CallExpr) string {
	if s, ok := c.Fun.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}

// isCode reports whether a string has the shape of a code.
func isCode(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == ""
}
