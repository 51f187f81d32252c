package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestSecretNeverPrints(t *testing.T) {
	const secret = "hunter2"
	p := primary(func(p *Primary) {
		p.HTTP.Token, p.NATS.Credentials.User, p.NATS.Credentials.Password = secret, "u", secret
		p.NATS.URL = "nats://u:" + secret + "@h"
	})
	s := p.HTTP.Token
	var printed []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%T"} {
		printed = append(printed, fmt.Sprintf(verb, s), fmt.Sprintf(verb, p.HTTP), fmt.Sprintf(verb, &p.NATS.Credentials), fmt.Sprintf(verb, []Secret{s}))
	}
	asJSON, err := json.Marshal(p.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(p.NATS.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("start", "token", s, "http", p.HTTP)
		slog.New(h).LogAttrs(t.Context(), slog.LevelInfo, "start", p.Summary()...)
		slog.New(h).LogAttrs(t.Context(), slog.LevelInfo, "start", replica(func(r *Replica) { r.NATS.URL = p.NATS.URL }).Summary()...)
	}
	printed = append(printed, string(asJSON), string(asYAML), log.String())
	for _, text := range printed {
		for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret)} {
			if strings.Contains(text, form) {
				t.Errorf("the secret shows in %q", text)
			}
		}
	}
	if !strings.Contains(log.String(), "token="+hidden) || !strings.Contains(string(asJSON), hidden) {
		t.Errorf("no %s in %s or %s", hidden, log.String(), asJSON)
	}
	if got := Secret("").String(); got != "" {
		t.Errorf("no secret prints as %q", got)
	}
}

func TestSummary(t *testing.T) {
	var log bytes.Buffer
	h := slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	slog.New(h).LogAttrs(t.Context(), slog.LevelInfo, "start", primary(func(*Primary) {}).Resolve("/srv").Summary()...)
	slog.New(h).LogAttrs(t.Context(), slog.LevelInfo, "start", replica(func(*Replica) {}).Resolve("/srv").Summary()...)
	const want = `level=INFO msg=start node=n data_dir=/srv/data/n nats="embedded on 127.0.0.1:4222" http=127.0.0.1:8080 databases.app=/srv/app.db
level=INFO msg=start node=n data_dir=/srv/data/n nats=nats://127.0.0.1:4222 http=127.0.0.1:8081 databases.app=/srv/app.db
`
	if log.String() != want {
		t.Errorf("got\n%swant\n%s", log.String(), want)
	}
}

func TestRedactURL(t *testing.T) {
	for url, want := range map[string]string{
		"nats://h:4222":             "nats://h:4222",
		"nats://u:p@h":              "nats://***@h",
		"nats://u:a,b@h":            "nats://***@h",
		"nats://u:p@a,nats://u:q@b": "nats://***@b",
		"secret@h":                  "***@h",
		"p:q://x@h":                 "***@h",
	} {
		if got := redactURL(url); got != want {
			t.Errorf("redactURL(%q) = %q, want %q", url, got, want)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"path", "path", 0}, {"pth", "path", 1}, {"ptah", "path", 1}, {"paths", "path", 1},
		{"pith", "path", 1}, {"lisen", "listen", 1}, {"node", "http", 4}, {"kitten", "sitting", 3},
	} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := editDistance(c.b, c.a); got != c.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", c.b, c.a, got, c.want)
		}
	}
}
