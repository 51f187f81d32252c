package config

import (
	"encoding"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// keyTag is viper's tag for the name of a key.
const keyTag = "mapstructure"

// eachField calls f for each key of a struct type, in order. Squashed structs
// give their own keys.
func eachField(t reflect.Type, f func(key string, t reflect.Type)) {
	for i := range t.NumField() {
		field := t.Field(i)
		tag := field.Tag.Get(keyTag)
		if tag == ",squash" {
			eachField(field.Type, f)
			continue
		}
		f(tag, field.Type)
	}
}

func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	eachField(t, func(key string, t reflect.Type) { fields[key] = t })
	return fields
}

// eachLeaf calls f for each single value outside lists, with its full key.
func eachLeaf(t reflect.Type, at string, f func(key string, t reflect.Type)) {
	eachField(t, func(name string, t reflect.Type) {
		switch key := join(at, name); {
		case isSection(t):
			eachLeaf(t, key, f)
		case !isList(t):
			f(key, t)
		}
	})
}

func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func isList(t reflect.Type) bool { return t.Kind() == reflect.Slice }

// printableKey is the key's text up to the first character that no key of ours
// has: password:hunter2, without a space, is a key to YAML.
func printableKey(k *yaml.Node) string {
	const most = 64
	if k.Kind != yaml.ScalarNode {
		return "?"
	}
	end := strings.IndexFunc(k.Value, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("_-.", c))
	})
	switch {
	case end < 0 && len(k.Value) <= most:
		return k.Value
	case end < 0 || end > most:
		end = most
	}
	return k.Value[:end] + "..."
}

// unknownKey reports name in the section at, of struct type t.
func (r *report) unknownKey(key, name, at string, t reflect.Type) {
	if likely := r.nearest(name, namesOf(t)); likely != "" {
		r.add(key, "unknown key, did you mean %s?", likely)
		r.silence(join(at, likely)) // that it is not set needs no line of its own
		return
	}
	if other := r.elsewhere(name); len(other) > 0 {
		r.add(key, "unknown key, did you mean %s? Each part of a key stands on its own line, indented below the one before",
			strings.Join(other, " or "))
		return
	}
	r.add(key, "unknown key, want one of %s", strings.Join(namesOf(t), ", "))
}

// elsewhere lists the full keys that name, or all but its section, would spell:
// url and nats.url on the first level both mean nats.url.
func (r *report) elsewhere(name string) []string {
	var keys []string
	eachLeaf(r.schema, "", func(key string, _ reflect.Type) {
		if key == name || strings.HasSuffix(key, "."+name) {
			keys = append(keys, key)
		}
	})
	return keys
}

func namesOf(t reflect.Type) []string {
	var names []string
	eachField(t, func(key string, _ reflect.Type) { names = append(names, key) })
	return names
}

// nearest is the candidate that name most likely means, or empty. One edit is
// allowed for every three letters.
func (r *report) nearest(name string, candidates []string) string {
	name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	best, least := "", max(1, len(name)/3)+1
	for _, c := range candidates {
		if d := editDistance(name, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, substitutions and swaps of
// neighbours between a and b (optimal string alignment).
func editDistance(a, b string) int {
	var beforeLast, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		beforeLast, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], beforeLast[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
