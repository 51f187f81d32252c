package config

import (
	"path/filepath"
	"strings"
)

// resolver returns a function that makes a path absolute and leaves an empty one
// empty.
func resolver(wd string) func(string) string {
	return func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(wd, path)
	}
}

func (c *Credentials) resolve(abs func(string) string) {
	c.CredsFile = abs(c.CredsFile)
	c.NKeyFile = abs(c.NKeyFile)
	c.PasswordFile = abs(c.PasswordFile)
	c.TokenFile = abs(c.TokenFile)
}

func (t *TLS) resolve(abs func(string) string) {
	t.CAFile = abs(t.CAFile)
	t.CertFile = abs(t.CertFile)
	t.KeyFile = abs(t.KeyFile)
}

func dataDirOf(node string) string { return filepath.Join("data", node) }

func orDefault(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// contains reports whether path is dir or lies below it, by their spelling.
func contains(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// redactURL hides everything before the last @: a password may hold commas,
// slashes and an @ of its own.
func redactURL(urls string) string {
	at := strings.LastIndexByte(urls, '@')
	if at < 0 {
		return urls
	}
	if scheme, _, ok := strings.Cut(urls[:at], "://"); ok && isWord(scheme) {
		return scheme + "://" + hidden + urls[at:]
	}
	return hidden + urls[at:]
}

func isWord(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < 'a' || c > 'z' })
}
