package replicator_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsNameTests: what the documents name as a proof is there.
func TestDocumentsNameTests(t *testing.T) {
	there := map[string]bool{}
	set := token.NewFileSet()
	for _, name := range goFiles(t) {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				there[f.Name.Name] = true
			}
		}
	}
	named := regexp.MustCompile("`((Test|Benchmark|Fuzz)[A-Za-z0-9]+)(\\*?)`")
	for _, doc := range []string{"README.md", "DESIGN.md", "BENCHMARKS.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			if name, family := m[1], m[3] != ""; !there[name] && !(family && startsOne(there, name)) {
				t.Errorf("%s names %s, which does not exist", doc, name)
			}
		}
	}
}

func startsOne(names map[string]bool, prefix string) bool {
	for name := range names {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
