package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

const hidden = "***"

// maxSecretFile bounds a secret's file: a wrong name may be a database or a device.
const maxSecretFile = 64 << 10

// A Secret is a password or token. Every way of printing it gives *** when it
// is set; Reveal gives the value. Keep it in exported fields: package fmt cannot
// call methods on unexported ones and prints what is inside.
type Secret string

// Reveal is the secret itself, for the one call that needs it.
func (s Secret) Reveal() string { return string(s) }

// IsSet reports whether there is a secret.
func (s Secret) IsSet() bool { return s != "" }

// String is *** or, for no secret, empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format covers every verb: %x and %q of a string type do not ask String.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText covers JSON, YAML and XML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = Secret(text)
	return nil
}

// LogValue covers slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// A secretSource is the pair of keys that one secret has: in place, or in a file.
type secretSource struct {
	key   string // full key of the value; the file's is key + "_file"
	value *Secret
	file  string
}

func (h *HTTP) secret() secretSource {
	return secretSource{"http.token", &h.Token, h.TokenFile}
}

func (c *Credentials) secrets() []secretSource {
	return []secretSource{
		{"nats.password", &c.Password, c.PasswordFile},
		{"nats.token", &c.Token, c.TokenFile},
	}
}

// readSecrets fills in each secret that is given as a file.
func (r *report) readSecrets(sources []secretSource) {
	for _, s := range sources {
		fileKey := s.key + "_file"
		switch {
		case s.file == "":
		case s.value.IsSet():
			r.add(fileKey, "set together with %s, want one of the two", s.key)
		default:
			value, err := readSecret(s.file)
			if err != nil {
				r.addCause(fileKey, err, "cannot read %s: %v", quote(s.file), bare(err))
				r.silence(s.key)
			}
			*s.value = value
		}
	}
}

func readSecret(path string) (Secret, error) {
	text, err := readBounded(path, maxSecretFile)
	if err != nil {
		return "", err
	}
	text = bytes.TrimRight(text, "\r\n") // editors and echo add one
	if len(text) == 0 {
		return "", errors.New("it is empty")
	}
	if strings.ContainsFunc(string(text), isControl) {
		return "", errors.New("want one line of text in it")
	}
	return Secret(text), nil
}

// readBounded reads a file of at most limit bytes. Reading stops there, so that a
// device or a pipe without end is an error and not a hang.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("it is larger than %v", Size(limit))
	}
	return text, err
}

// bare drops "open PATH:" from an error whose text names the path already.
func bare(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
