package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseYAML returns the one mapping that the text must be.
func parseYAML(name string, text []byte) (*yaml.Node, error) {
	fail := func(line int, format string, args ...any) error {
		where := name
		if line > 0 {
			where += ":" + strconv.Itoa(line)
		}
		return mistake{where: where, text: fmt.Sprintf(format, args...)}
	}
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, fail(0, "the file is empty; %s", startFrom)
	}
	if err != nil {
		line, problem := explainYAML(err, text)
		return nil, fail(line, "%s", problem)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fail(0, "holds a second document after ---, want one")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, fail(0, "the file is empty; %s", startFrom)
	}
	if root.Kind != yaml.MappingNode {
		return nil, fail(root.Line, "the file is %s, want lines such as node: primary-1", kindOf(root))
	}
	return root, nil
}

// explainYAML turns a parser's error into a line, 0 when it gives none, and what
// is wrong there.
func explainYAML(err error, text []byte) (line int, problem string) {
	problem = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(problem, "line "); ok {
		number, after, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, problem = n, after
		}
	}
	switch {
	case strings.HasPrefix(problem, "unknown anchor"):
		// The parser's text has the word after the asterisk: maybe a password.
		return line, "not valid YAML: a value begins with *; quote it"
	case strings.Contains(problem, "cannot start any token"), strings.Contains(problem, "tab character"):
		if n := tabLine(text, line); n > 0 {
			return n, "indented with a tab, want spaces"
		}
		problem = "a value begins with a character that means something else in YAML; quote it"
	}
	return line, "not valid YAML: " + problem
}

// tabLine is the line with a tab in its indentation that an error at line means:
// that one, or the next, as the parser may name the line before. 0 is none.
func tabLine(text []byte, line int) int {
	for i, l := range strings.Split(string(text), "\n") {
		indent := l[:len(l)-len(strings.TrimLeft(l, " \t"))]
		if n := i + 1; n >= line && n <= line+1 && strings.Contains(indent, "\t") {
			return n
		}
	}
	return 0
}

// kindOf names what a node is, without its value: it may be a secret.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!null":
		return "empty"
	}
	return "text"
}
