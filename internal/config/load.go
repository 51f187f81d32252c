package config

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration file: a thousand databases need 100 KiB.
const maxFile = 1 << 20

// startFrom ends an error that says that there is nothing to read.
const startFrom = "`replicator config defaults primary` (or replica) prints one to start from"

// LoadPrimary reads and validates the file at path. env is what os.Environ
// returns, or nil for the file alone.
func LoadPrimary(path string, env []string) (Primary, error) {
	text, err := readConfig(path)
	if err != nil {
		return Primary{}, err
	}
	return ParsePrimary(path, text, env)
}

// LoadReplica reads and validates the file at path. env is what os.Environ
// returns, or nil for the file alone.
func LoadReplica(path string, env []string) (Replica, error) {
	text, err := readConfig(path)
	if err != nil {
		return Replica{}, err
	}
	return ParseReplica(path, text, env)
}

// ParsePrimary is LoadPrimary for text at hand. name stands for the file in errors.
func ParsePrimary(name string, text []byte, env []string) (Primary, error) {
	c, other := DefaultPrimary(), DefaultReplica()
	return c, parse(name, text, env, &c, &other, RoleReplica)
}

// ParseReplica is LoadReplica for text at hand. name stands for the file in errors.
func ParseReplica(name string, text []byte, env []string) (Replica, error) {
	c, other := DefaultReplica(), DefaultPrimary()
	return c, parse(name, text, env, &c, &other, RolePrimary)
}

// parse puts text and env over the defaults in c. A file without a mistake for the
// other role was most likely meant for it: to list its keys as unknown ones helps
// nobody.
func parse(name string, text []byte, env []string, c, other target, otherRole string) error {
	root, err := parseYAML(name, text)
	if err != nil {
		return err
	}
	r, asOther := newReport(name), newReport(name)
	r.readNode(root, env, c)
	if len(r.list) == 0 {
		return nil
	}
	if asOther.readNode(root, env, other); len(asOther.list) == 0 {
		return mistake{where: name, text: fmt.Sprintf("is the configuration of a %s: start it with `replicator %[1]s --config %s`", otherRole, name)}
	}
	return r.err()
}

// Check says which role the file at path is for, and what is wrong with it.
//
// The file is read as both. The role with fewer mistakes is taken and its
// mistakes are returned. Most files with the settings of one role are wrong for
// the other; a short one may fit both. Without nats.url it is then a primary's,
// which brings a NATS of its own, and with one [RoleEither]. role is empty when
// the file cannot be read or is no YAML.
func Check(path string, env []string) (role string, err error) {
	text, err := readConfig(path)
	if err != nil {
		return "", err
	}
	root, err := parseYAML(path, text)
	if err != nil {
		return "", err
	}
	p, asPrimary := DefaultPrimary(), newReport(path)
	asPrimary.readNode(root, env, &p)
	c, asReplica := DefaultReplica(), newReport(path)
	asReplica.readNode(root, env, &c)

	switch fewer := len(asReplica.list) - len(asPrimary.list); {
	case fewer < 0:
		return RoleReplica, asReplica.err()
	case fewer == 0 && p.NATS.URL != "":
		return RoleEither, asPrimary.err()
	}
	return RolePrimary, asPrimary.err()
}

func readConfig(path string) ([]byte, error) {
	text, err := readBounded(path, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, mistake{where: path, cause: err,
			text: "no such file; " + startFrom}
	case err != nil:
		return nil, mistake{where: path, cause: err, text: fmt.Sprintf("cannot read the file: %v", bare(err))}
	}
	return text, nil
}

// target is a *Primary or *Replica that holds the defaults.
type target interface {
	secrets() []secretSource
	check(*report)
}

// readNode puts root and env over the defaults in c. c is to be used only if r stays
// empty.
func (r *report) readNode(root *yaml.Node, env []string, c target) {
	r.schema = reflect.TypeOf(c).Elem()
	v := viper.New()
	if err := v.MergeConfigMap(r.section(root, r.schema, "")); err != nil {
		r.add("", "%v", err)
		return
	}
	for key, value := range r.environment(env) {
		v.Set(key, value)
	}
	// Only known keys and values of the right type are left, so that an error here
	// means a field whose type this package cannot read.
	if err := v.UnmarshalExact(c); err != nil {
		r.add("", "%v", err)
		return
	}
	r.readSecrets(c.secrets())
	c.check(r)
}

// section checks a mapping against a struct type. It returns the values that are
// right, in the types of the fields, and reports the rest.
func (r *report) section(n *yaml.Node, t reflect.Type, at string) map[string]any {
	values := map[string]any{}
	seen := map[string]int{} // key -> line
	known := fieldsOf(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		name := printableKey(k)
		key := join(at, name)
		if line, ok := seen[name]; ok {
			r.setLine(key, k.Line)
			r.add(key, "given twice, first on line %d; remove one", line)
			continue
		}
		seen[name] = k.Line
		r.setLine(key, k.Line)
		f, ok := known[name]
		if !ok || k.Kind != yaml.ScalarNode || k.Value != name {
			r.unknownKey(key, name, at, t)
			continue
		}
		if value := r.value(v, f, key); value != nil {
			values[name] = value
		}
	}
	return values
}

// value reads a node as type t. It is nil for a mistake and for a key without a value.
func (r *report) value(n *yaml.Node, t reflect.Type, key string) any {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0:
		r.add(key, "begins with *, & or !, which mean something else in YAML; quote the value")
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
	case isSection(t):
		if n.Kind == yaml.MappingNode {
			return r.section(n, t, key)
		}
		r.add(key, "is %s, want a section: keys with values, indented below it (a colon needs a space after it)", kindOf(n))
	case isList(t):
		if n.Kind == yaml.SequenceNode {
			return r.elements(n, t.Elem(), key)
		}
		r.add(key, "is %s, want a list: one \"- name: ...\" with its \"path: ...\" for each", kindOf(n))
	case n.Kind != yaml.ScalarNode:
		r.add(key, "is %s, want one value", kindOf(n))
	default:
		return r.scalar(n.Value, t, key)
	}
	return nil
}

// elements keeps a place for each element, right or wrong, so that later mistakes
// name the right index.
func (r *report) elements(n *yaml.Node, t reflect.Type, at string) []any {
	values := make([]any, len(n.Content))
	for i, e := range n.Content {
		key := at + "[" + strconv.Itoa(i) + "]"
		r.setLine(key, e.Line)
		if values[i] = r.value(e, t, key); values[i] == nil {
			values[i] = map[string]any{}
		}
	}
	return values
}

// scalar reads text, as written in the file or a variable, as type t. The text
// and not YAML's idea of it, so that a password 0123 stays one.
func (r *report) scalar(text string, t reflect.Type, key string) any {
	value, err := parseScalar(text, t)
	if err == nil {
		return value
	}
	if t == reflect.TypeFor[Secret]() {
		r.add(key, "%v", err)
	} else {
		r.add(key, "is %s, %v", quote(text), err)
	}
	return nil
}

func parseScalar(text string, t reflect.Type) (any, error) {
	if t == reflect.TypeFor[time.Duration]() {
		return ParseDuration(text)
	}
	value := reflect.New(t)
	if u, ok := value.Interface().(encoding.TextUnmarshaler); ok && t != reflect.TypeFor[Secret]() {
		err := u.UnmarshalText([]byte(text))
		return value.Elem().Interface(), err
	}
	switch t.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return nil, errors.New("want true or false")
		}
		return text == "true", nil
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, errors.New("want a whole number")
		}
		return n, nil
	case reflect.String: // a Secret too: viper converts it
		if strings.ContainsFunc(text, isControl) {
			return nil, errors.New("want one line of text")
		}
		return text, nil
	}
	return nil, fmt.Errorf("fields of type %v cannot be read", t)
}
