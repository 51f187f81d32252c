package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ErrInvalid is wrapped by every error of this package.
var ErrInvalid = errors.New("config: invalid")

// A mistake is one line that tells someone what to change.
type mistake struct {
	where string // file:line or variable; empty for a value built in Go
	key   string // full key; empty when the file as a whole is meant
	text  string
	cause error // may be nil
}

func (m mistake) Error() string {
	text := "config: "
	if m.where != "" {
		text += m.where + ": "
	}
	if m.key != "" {
		text += m.key + ": "
	}
	return text + m.text
}

func (m mistake) Unwrap() []error {
	if m.cause == nil {
		return []error{ErrInvalid}
	}
	return []error{ErrInvalid, m.cause}
}

// A report collects the mistakes of one read. A key is reported once: what
// follows from its first mistake is noise.
type report struct {
	name   string            // the file's
	schema reflect.Type      // the struct that is read; nil in Validate
	origin map[string]string // full key -> where it was set
	silent map[string]bool   // keys that are reported, or whose absence is explained
	list   []error
}

func newReport(name string) *report {
	return &report{name: name, origin: map[string]string{}, silent: map[string]bool{}}
}

// maxShown bounds an error: a wrong file may have a mistake on each of its lines.
const maxShown = 100

// err joins the mistakes; nil when there are none.
func (r *report) err() error {
	if more := len(r.list) - maxShown; more > 0 {
		last := mistake{where: r.name, text: fmt.Sprintf("and %d more mistakes", more)}
		return errors.Join(append(slices.Clone(r.list[:maxShown]), last)...)
	}
	return errors.Join(r.list...)
}

// add reports a mistake at a full key, unless the key or one above it has one.
func (r *report) add(key, format string, args ...any) { r.addCause(key, nil, format, args...) }

func (r *report) addCause(key string, cause error, format string, args ...any) {
	for k := key; k != ""; k = parent(k) {
		if r.silent[k] {
			return
		}
	}
	r.silence(key)
	r.list = append(r.list, mistake{where: r.where(key), key: key, text: fmt.Sprintf(format, args...), cause: cause})
}

// bad reports a value: what it is and what is wanted.
func (r *report) bad(key, shown, want string) { r.add(key, "is %s, want %s", shown, want) }

// silence drops later mistakes at key: they would only repeat one in other words.
func (r *report) silence(key string) {
	if key != "" {
		r.silent[key] = true
	}
}

// where is the place of key or, when it was not set, of the nearest key above it.
func (r *report) where(key string) string {
	for k := key; k != ""; k = parent(k) {
		if w, ok := r.origin[k]; ok {
			return w
		}
	}
	return r.name
}

func (r *report) setLine(key string, line int) {
	r.origin[key] = r.name + ":" + strconv.Itoa(line)
}

// parent of databases[1].path is databases[1], and then databases.
func parent(key string) string {
	if i := strings.LastIndexAny(key, ".["); i > 0 {
		return key[:i]
	}
	return ""
}

// join of nats and url is nats.url; the root is empty.
func join(section, key string) string {
	if section == "" {
		return key
	}
	return section + "." + key
}

// quote shows text from outside on one line of bounded length.
func quote(text string) string {
	const most = 80
	if len(text) > most {
		return strconv.Quote(text[:most]) + "..."
	}
	return strconv.Quote(text)
}

func isControl(c rune) bool { return unicode.IsControl(c) || c == unicode.ReplacementChar }
