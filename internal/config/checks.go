package config

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// within reports a value outside [low, high].
func within[T Size | time.Duration | int](r *report, key string, v, low, high T) {
	if v < low || v > high {
		r.bad(key, show(v), show(low)+" to "+show(high))
	}
}

// atLeast reports a value below low, unless it is 0, which has a meaning of its own.
func atLeast[T Size | time.Duration](r *report, key string, v, low T, zero string) {
	if v != 0 && v < low {
		r.bad(key, show(v), "at least "+show(low)+", or "+zero)
	}
}

func oneOf(r *report, key, v string, allowed ...string) {
	if !slices.Contains(allowed, v) {
		r.bad(key, quote(v), strings.Join(allowed, " or "))
	}
}

func show[T Size | time.Duration | int](v T) string {
	switch v := any(v).(type) {
	case time.Duration:
		return FormatDuration(v)
	case Size:
		return v.String()
	case int:
		return strconv.Itoa(v)
	}
	return ""
}

// nameForm holds for what becomes part of a stream, a subject and a folder.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

const wantName = "1 to 64 of the characters a-z A-Z 0-9 _ -"

func (r *report) checkNode(node, example string) {
	switch {
	case node == "":
		r.add("node", "not set, want a name of its own for each node, such as %s", example)
	case !nameForm.MatchString(node):
		r.bad("node", quote(node), wantName)
	}
}

// checkListen reports a malformed address. It is true for one that other
// machines can reach. A name is not looked up: only localhost counts as here.
func (r *report) checkListen(key, address string) (exposed bool) {
	host, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || strings.ContainsAny(host, " /@") {
		r.bad(key, quote(address), "host:port such as 127.0.0.1:8080")
		return false
	}
	ip := net.ParseIP(host)
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}

// checkURL checks a list of servers. A password in one would be printed with it.
func (r *report) checkURL(list string) {
	const key, example = "nats.url", "nats://127.0.0.1:4222"
	if strings.Contains(list, "@") {
		r.add(key, "%s holds credentials; move them to nats.user and nats.password_file, or nats.token_file, where they are not printed",
			quote(redactURL(list)))
		return
	}
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			r.bad(key, quote(one), "nats://, tls://, ws:// or wss:// with host and port, such as "+example)
			return
		}
	}
}
