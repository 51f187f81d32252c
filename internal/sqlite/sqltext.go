package sqlite

import "strings"

// A token is one word of SQL text: an identifier without its quotes, a literal as
// written, or a single character of punctuation.
type token struct {
	text  string
	ident bool
}

// is reports whether t is the bare or quoted word s, in any case.
func (t token) is(s string) bool { return t.ident && strings.EqualFold(t.text, s) }

// tokens splits sql, leaving out comments and space. It never fails: an unclosed
// quote or comment runs to the end, and SQLite is the judge of the syntax.
func tokens(sql string) []token {
	var out []token
	for len(sql) > 0 {
		n := 1
		switch ch := sql[0]; {
		case strings.IndexByte(" \t\n\f\r", ch) >= 0:
		case strings.HasPrefix(sql, "--"):
			n = until(sql, 2, "\n")
		case strings.HasPrefix(sql, "/*"):
			n = until(sql, 2, "*/")
		case ch == '\'':
			n = quoted(sql, ch)
			out = append(out, token{text: sql[:n]})
		case ch == '"' || ch == '`':
			n = quoted(sql, ch)
			word := strings.TrimSuffix(sql[1:n], string(ch))
			out = append(out, token{strings.ReplaceAll(word, string([]byte{ch, ch}), string(ch)), true})
		case ch == '[':
			n = until(sql, 1, "]")
			out = append(out, token{strings.TrimSuffix(sql[1:n], "]"), true})
		case isWord(ch):
			for n < len(sql) && isWord(sql[n]) {
				n++
			}
			out = append(out, token{sql[:n], ch < '0' || ch > '9'})
		default:
			out = append(out, token{text: sql[:1]})
		}
		sql = sql[n:]
	}
	return out
}

func isWord(ch byte) bool {
	return ch >= 0x80 || ch == '_' || ch == '$' ||
		'0' <= ch && ch <= '9' || 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z'
}

// until is the offset after the first end in sql[from:], or its length.
func until(sql string, from int, end string) int {
	if i := strings.Index(sql[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(sql)
}

// quoted is the offset after a literal that starts with q; a doubled q is part of it.
func quoted(sql string, q byte) int {
	for i := 1; i < len(sql); i++ {
		if sql[i] != q {
			continue
		}
		if i+1 < len(sql) && sql[i+1] == q {
			i++
			continue
		}
		return i + 1
	}
	return len(sql)
}

// columnList is the range of toks between the outermost parentheses of CREATE
// TABLE. Anything after it is a table option.
func columnList(toks []token) (from, to int) {
	depth := 0
	for i, t := range toks {
		switch {
		case t.ident:
		case t.text == "(":
			if depth++; depth == 1 {
				from = i + 1
			}
		case t.text == ")":
			if depth--; depth == 0 {
				return from, i
			}
		}
	}
	return len(toks), len(toks)
}

// isStrict reports whether CREATE TABLE text ends in the option STRICT, which no
// pragma shows without connecting every virtual table of the schema.
func isStrict(sql string) bool {
	toks := tokens(sql)
	_, end := columnList(toks)
	for _, t := range toks[end:] {
		if t.is("STRICT") {
			return true
		}
	}
	return false
}

// isVirtual reports whether sql creates a virtual table.
func isVirtual(sql string) bool {
	toks := tokens(sql)
	return len(toks) > 1 && toks[1].is("VIRTUAL")
}

// isConstant reports whether the text of a DEFAULT is a literal, so that a record
// without the column reads as that value.
func isConstant(def string) bool {
	toks := tokens(def)
	for len(toks) > 2 && toks[0].text == "(" && toks[len(toks)-1].text == ")" {
		toks = toks[1 : len(toks)-1]
	}
	if len(toks) > 0 && (toks[0].text == "+" || toks[0].text == "-") {
		toks = toks[1:]
	}
	switch {
	case len(toks) == 0:
		return false
	case len(toks) == 1 && !toks[0].ident:
		return true // 'text' or 12
	case len(toks) == 1:
		return toks[0].is("NULL") || toks[0].is("TRUE") || toks[0].is("FALSE")
	case len(toks) == 2 && toks[0].is("x"):
		return true // x'00'
	}
	for _, t := range toks { // 1.5e-3 comes in pieces
		if t.ident || strings.IndexByte("0123456789.+-", t.text[0]) < 0 {
			return false
		}
	}
	return true
}

// quote writes name as an SQL identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
