package stream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// startExternal runs a server of somebody else's, with its options, and returns
// where it is.
func startExternal(t *testing.T, o *server.Options) string {
	t.Helper()
	o.ServerName, o.Host, o.Port, o.NoSigs, o.NoLog = "external", "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	return s.ClientURL()
}

// TestExternalServer: every way to prove who one is to a server of one's own, and
// what is said when the proof is no good. (The embedded server knows two of them.)
func TestExternalServer(t *testing.T) {
	user, seed := newKey(t, nkeys.CreateUser)
	_, stranger := newKey(t, nkeys.CreateUser)
	trusted, creds, forged := operator(t)
	cert, key := certificate(t)
	for name, c := range map[string]struct {
		server server.Options
		good   Options
		wrong  []Options
		want   error // of the wrong ones
	}{
		"user and password": {
			server.Options{Username: "u", Password: "p"},
			Options{Credentials: Credentials{User: "u", Password: "p"}},
			[]Options{{}, {Credentials: Credentials{User: "u", Password: "x"}}}, ErrAuth,
		},
		"token": {
			server.Options{Authorization: "sesame"},
			Options{Credentials: Credentials{Token: "sesame"}},
			[]Options{{}, {Credentials: Credentials{Token: "x"}}}, ErrAuth,
		},
		"nkey": {
			server.Options{Nkeys: []*server.NkeyUser{{Nkey: user}}},
			Options{Credentials: Credentials{NKeyFile: file(t, seed)}},
			[]Options{{}, {Credentials: Credentials{NKeyFile: file(t, stranger)}}}, ErrAuth,
		},
		"creds": {
			trusted,
			Options{Credentials: Credentials{CredsFile: file(t, creds)}},
			[]Options{{}, {Credentials: Credentials{CredsFile: file(t, forged)}}}, ErrAuth,
		},
		"TLS": {
			server.Options{TLS: true, TLSConfig: serverTLS(t, cert, key, false), TLSTimeout: 5},
			Options{TLS: TLS{CA: cert}},
			[]Options{{}, {TLS: TLS{CA: otherCertificate(t)}}}, ErrTLS,
		},
		"TLS of both": {
			server.Options{TLS: true, TLSConfig: serverTLS(t, cert, key, true), TLSTimeout: 5},
			Options{TLS: TLS{CA: cert, Cert: cert, Key: key}},
			[]Options{{TLS: TLS{CA: cert}}, {TLS: TLS{Cert: cert, Key: key}}}, ErrTLS,
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := startExternal(t, &c.server)
			c.good.URL = url
			if conn := connect(t, c.good); !conn.Connected() {
				t.Errorf("not connected: %v", conn.Err())
			}
			for i, o := range c.wrong {
				o.URL, o.Logger = url, quiet()
				if _, err := Connect(testContext(t), o); !errors.Is(err, c.want) {
					t.Errorf("wrong %d: %v, want %v", i, err, c.want)
				}
			}
		})
	}
}

func newKey(t *testing.T, kind func() (nkeys.KeyPair, error)) (public string, seed []byte) {
	t.Helper()
	pair, err := kind()
	if err == nil {
		public, err = pair.PublicKey()
	}
	if err == nil {
		seed, err = pair.Seed()
	}
	if err != nil {
		t.Fatal(err)
	}
	return public, seed
}

// operator makes a server that trusts an operator, the credentials of a user of an
// account of his, and those of one who has given them to himself.
func operator(t *testing.T) (trusting server.Options, creds, forged []byte) {
	t.Helper()
	sign := func(claims jwt.Claims, by nkeys.KeyPair) string {
		text, err := claims.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	pair := func(kind func() (nkeys.KeyPair, error)) (string, nkeys.KeyPair) {
		public, seed := newKey(t, kind)
		p, err := nkeys.FromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		return public, p
	}
	card := func(account nkeys.KeyPair) []byte {
		user, seed := newKey(t, nkeys.CreateUser)
		text, err := jwt.FormatUserConfig(sign(jwt.NewUserClaims(user), account), seed)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	top, signer := pair(nkeys.CreateOperator)
	name, account := pair(nkeys.CreateAccount)
	_, unknown := pair(nkeys.CreateAccount)
	accounts := &server.MemAccResolver{}
	if err := accounts.Store(name, sign(jwt.NewAccountClaims(name), signer)); err != nil {
		t.Fatal(err)
	}
	return server.Options{TrustedKeys: []string{top}, AccountResolver: accounts}, card(account), card(unknown)
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serverTLS is that of a server with a certificate; both asks the client for one.
func serverTLS(t *testing.T, cert, key string, both bool) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if both {
		pem, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AppendCertsFromPEM(pem)
	}
	return c
}

func otherCertificate(t *testing.T) string {
	t.Helper()
	cert, _ := certificate(t)
	return cert
}
