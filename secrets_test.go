package replicator_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// secrets are values of every type, as they are in rows.
const (
	secretInt  = "7731337733"
	secretReal = "77313.37733"
)

// A gossip is everything that daemons and commands said.
type gossip struct {
	t    *testing.T
	said []string
}

func (g *gossip) hear(who, text string) {
	g.said = append(g.said, who+": "+text)
}

// run hears a command of the program, however it ends.
func (g *gossip) run(n *node, args ...string) {
	out, err := n.ask(args...)
	g.hear(strings.Join(args, " "), fmt.Sprint(out, err))
}

// browse hears every page of a node, and what it says to nonsense.
func (g *gossip) browse(n *node) {
	for _, ask := range []string{
		"GET /healthz", "GET /readyz?max_lag=1ms", "GET /metrics", "GET /v1/status", "GET /v1/lag", "POST /v1/databases/app/sync?timeout=1ms",
		"GET /v1/databases/app/wait?lsn=1000000&timeout=1ms", "GET /v1/databases/" + secretInt, "POST /v1/databases/app/snapshot", "GET /v1/nonsense",
	} {
		method, path, _ := strings.Cut(ask, " ")
		req, err := http.NewRequest(method, "http://"+n.listen+path, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			g.t.Fatalf("%s: %v", ask, err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			g.t.Fatal(err)
		}
		_ = answer.Body.Close() // read to its end
		if path != "/v1/databases/"+secretInt {
			g.hear(n.name+" "+ask, fmt.Sprint(answer.Header, string(body)))
		}
	}
}

// leaks lists what was said with a secret in it, in any dress.
func (g *gossip) leaks() (found []string) {
	for _, s := range []string{
		secret, secretInt, secretReal, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
		base64.StdEncoding.EncodeToString([]byte(secret)), "S\\x003\\x00", "S\x003\x00",
	} {
		for _, text := range g.said {
			if at := strings.Index(text, s); at >= 0 {
				found = append(found, fmt.Sprintf("%q in %.600q", s, text[max(0, at-300):]))
			}
		}
	}
	return found
}

const secretTables = setUp + `; CREATE TABLE u(id INTEGER PRIMARY KEY, k TEXT UNIQUE, n INT UNIQUE, r REAL, b BLOB);
CREATE TABLE w(k TEXT, n INT, v, PRIMARY KEY(k, n)) WITHOUT ROWID; CREATE TABLE s(a INT, b TEXT) STRICT;
CREATE VIRTUAL TABLE fts USING fts5(x); CREATE INDEX wj ON w(v, n)`

// secretRows inserts rows whose values nobody may repeat.
func secretRows(t *testing.T, path string, tag int) {
	t.Helper()
	shell(t, path, fmt.Sprintf(`BEGIN; INSERT INTO t(v) VALUES('%[1]s-%[2]d'), (%[3]s), (%[4]s), (CAST('%[1]s' AS BLOB)||zeroblob(9000));
INSERT INTO u(k,n,r,b) VALUES('%[1]s-%[2]d', %[3]s+%[2]d, %[4]s, CAST('%[1]s' AS BLOB)); INSERT INTO w VALUES('%[1]s-%[2]d', %[3]s, '%[1]s');
INSERT INTO s VALUES(%[3]s, '%[1]s'); INSERT INTO fts VALUES('%[1]s words'); COMMIT;`, secret, tag, secretInt, secretReal))
}

// TestRowValuesStaySecret: no log line, HTTP answer or error repeats a value of a
// row, whatever befalls it.
func TestRowValuesStaySecret(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	p := newPair(t)
	g := &gossip{t: t}
	shell(t, p.source, secretTables)
	secretRows(t, p.source, 1)
	p.start()
	converge(t, "app", "", p.primary, p.replica)
	file := p.replica.paths["app"]
	for i, stray := range []string{
		// Each makes what comes next fail in another way: UNIQUE, a missing row, a row that
		// is another, a missing column, a missing table.
		fmt.Sprintf("INSERT INTO u(id,k,n) VALUES(999, '%s-2', %s+2)", secret, secretInt),
		"DELETE FROM w",
		fmt.Sprintf("UPDATE t SET v='%s other'; UPDATE u SET k=k||'x'", secret),
		"ALTER TABLE u DROP COLUMN b",
		"DROP TABLE s",
	} {
		p.replica.stop()
		g.hear("replica", p.replica.p.stderr.String())
		shell(t, file, stray)
		p.replica.start()
		shell(t, p.source, fmt.Sprintf("UPDATE w SET v=v||'%[1]s', n=n+1; UPDATE t SET v=v||'%[1]s'; DELETE FROM u WHERE id=%[2]d", secret, i+1))
		secretRows(t, p.source, 2+i)
		lsn := p.primary.must("sync", "--db", "app", "--timeout", patience.String())
		g.run(p.replica, "wait", "--db", "app", "--lsn", lsn, "--timeout", patience.String())
		g.run(p.replica, "verify", "--db", "app")
		g.browse(p.primary)
		g.browse(p.replica)
	}
	p.primary.stop()
	g.hear("primary", p.primary.p.stderr.String())
	damageSecrets(t, p.source)
	p.primary.start()
	shell(t, p.source, "INSERT INTO t(v) VALUES('"+secret+"')")
	g.run(p.primary, "sync", "--db", "app", "--timeout", "3s")
	g.run(p.replica, "verify", "--db", "app", "--timeout", "3s")
	g.browse(p.primary)
	g.browse(p.replica)
	p.primary.stop()
	p.replica.stop()
	g.hear("primary", p.primary.p.stderr.String())
	g.hear("replica", p.replica.p.stderr.String())
	if found := g.leaks(); len(found) > 0 {
		t.Errorf("%d leaks:\n%s", len(found), strings.Join(found, "\n"))
	}
	if n := len(strings.Join(g.said, "")); n < 20_000 {
		t.Errorf("only %d bytes were heard", n)
	}
}

// damageSecrets makes the types of values in the file lie, where rows have them.
func damageSecrets(t *testing.T, path string) {
	t.Helper()
	shell(t, path, "PRAGMA wal_checkpoint(TRUNCATE)")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for at := 8; at < len(b); at++ {
		if strings.HasPrefix(string(b[at:min(at+len(secret), len(b))]), secret) && n < 40 {
			n++
			if n%4 == 0 {
				b[at-1-n%3] ^= 0x55
			}
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Fatal("no secret in the file")
	}
}
