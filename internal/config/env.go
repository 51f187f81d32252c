package config

import (
	"reflect"
	"regexp"
	"strings"
)

const envPrefix = "REPLICATOR_"

// envName of nats.tls.ca_file is REPLICATOR_NATS_TLS_CA_FILE.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// serviceLinks are the variables that Kubernetes sets in every container beside
// a service named replicator or replicator-something.
var serviceLinks = regexp.MustCompile(
	`^REPLICATOR(_.+)?_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$`)

// environment returns the values that env sets, by full key, and reports the
// variables that are unknown or wrong.
func (r *report) environment(env []string) map[string]any {
	type leaf struct {
		key string
		t   reflect.Type
	}
	leaves := map[string]leaf{}
	var names []string
	eachLeaf(r.schema, "", func(key string, t reflect.Type) {
		leaves[envName(key)] = leaf{key, t}
		names = append(names, envName(key))
	})
	values := map[string]any{}
	for _, entry := range env {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || text == "" || serviceLinks.MatchString(name) {
			continue
		}
		l, ok := leaves[name]
		if !ok {
			r.unknownVariable(name, names)
			continue
		}
		r.origin[l.key] = name
		if value := r.scalar(text, l.t, l.key); value != nil {
			values[l.key] = value
		}
	}
	return values
}

func (r *report) unknownVariable(name string, known []string) {
	m := mistake{where: name}
	switch likely := r.nearest(strings.TrimPrefix(name, envPrefix), trimPrefixes(known)); {
	case strings.HasPrefix(name, envPrefix+"DATABASES"):
		m.text = "no variable sets elements of a list; set databases in the file"
	case likely != "":
		m.text = "unknown variable, did you mean " + envName(likely) + "?"
	default:
		m.text = "unknown variable; unset it, or rename it if it is not meant for replicator"
	}
	r.list = append(r.list, m)
}

// trimPrefixes leaves what differs between names: the common prefix would allow
// for too many edits.
func trimPrefixes(names []string) []string {
	short := make([]string, len(names))
	for i, n := range names {
		short[i] = strings.ToLower(strings.TrimPrefix(n, envPrefix))
	}
	return short
}
