package stream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/loopback"
)

// given is shared by all tests of this process.
var given loopback.Addresses

// freePort is a loopback address that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	a, err := given.Free()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := NewServer(ServerOptions{Name: "test", Dir: t.TempDir(), Listen: l.Addr().String(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(testContext(t))
	if !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), l.Addr().String()) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Run: %v, want one line with ErrPortInUse and the address", err)
	}
	if got := s.WaitReady(testContext(t)); !errors.Is(got, ErrPortInUse) {
		t.Errorf("WaitReady: %v, want ErrPortInUse", got)
	}
}

// TestStoreInUse: two servers in one folder would take each other's streams for their own.
func TestStoreInUse(t *testing.T) {
	dir := t.TempDir()
	data, err := durable.LockDir(dir) // it may be the data directory, too
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = data.Close() })
	_, stop := startServer(t, ServerOptions{Dir: dir})
	s, err := NewServer(ServerOptions{Name: "test", Dir: dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(testContext(t)); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("Run: %v, want ErrLocked", err)
	}
	stop()
	startServer(t, ServerOptions{Dir: dir})
}

func TestServerOptions(t *testing.T) {
	ok := ServerOptions{Name: "test", Dir: "d", Logger: quiet()}
	for name, change := range map[string]func(*ServerOptions){
		"no name":       func(o *ServerOptions) { o.Name = "" },
		"no folder":     func(o *ServerOptions) { o.Dir = "" },
		"no port":       func(o *ServerOptions) { o.Listen = "localhost" },
		"port too high": func(o *ServerOptions) { o.Listen = "localhost:70000" },
		"no such cert":  func(o *ServerOptions) { o.TLS = TLS{Cert: "no-such-file", Key: "no-such-file"} },
	} {
		o := ok
		change(&o)
		if _, err := NewServer(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAuth(t *testing.T) {
	for name, tt := range map[string]struct {
		auth  ServerAuth
		good  Credentials
		wrong Credentials
	}{
		"password": {ServerAuth{User: "u", Password: "p"}, Credentials{User: "u", Password: "p"}, Credentials{User: "u", Password: "x"}},
		"token":    {ServerAuth{Token: "t"}, Credentials{Token: "t"}, Credentials{Token: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv, _ := startServer(t, ServerOptions{Listen: "127.0.0.1:0", Auth: tt.auth})
			create(t, connect(t, Options{Server: srv}), 1, StreamConfig{})
			c := connect(t, Options{URL: srv.URL(), Credentials: tt.good})
			if info, err := c.Stream("app", StreamConfig{}).Info(testContext(t)); err != nil || !info.Exists {
				t.Errorf("info %+v, %v", info, err)
			}
			for _, wrong := range []Credentials{tt.wrong, {}} {
				_, err := Connect(testContext(t), Options{URL: srv.URL(), Credentials: wrong, Logger: quiet()})
				if !errors.Is(err, ErrAuth) {
					t.Errorf("connect with %v: %v, want ErrAuth", wrong, err)
				}
			}
		})
	}
}

// Credentials that a restarted server no longer accepts are a state, with the
// reason, and heal when it does again.
func TestAuthRevoked(t *testing.T) {
	ctx := testContext(t)
	addr, dir := freePort(t), t.TempDir()
	start := func(password string) (stop func()) {
		_, stop = startServer(t, ServerOptions{Listen: addr, Dir: dir, Auth: ServerAuth{User: "u", Password: password}})
		return stop
	}
	stop := start("old")
	c := connect(t, Options{URL: "nats://" + addr, Credentials: Credentials{User: "u", Password: "old"}})
	stop()
	stop = start("new")
	for changed := c.Changed(); !errors.Is(c.Err(), ErrAuth); changed = c.Changed() {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("Err() = %v, want ErrAuth", c.Err())
		}
	}
	stop()
	start("old")
	if err := c.WaitConnected(ctx); err != nil {
		t.Error(err)
	}
}

// A server that is away at the start is a state, and one that comes later is
// found.
func TestConnectLater(t *testing.T) {
	ctx := testContext(t)
	addr := freePort(t)
	c := connect(t, Options{URL: "nats://user:secret@" + addr})
	if c.Connected() {
		t.Fatal("connected to nobody")
	}
	if _, err := c.Stream("app", StreamConfig{}).Info(ctx); !errors.Is(err, ErrUnavailable) {
		t.Errorf("info: %v, want ErrUnavailable", err)
	}
	startServer(t, ServerOptions{Listen: addr})
	if err := c.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Err(); err != nil {
		t.Errorf("Err() = %v while connected", err)
	}
}

func TestRedact(t *testing.T) {
	if got, want := redact("nats://u:secret@a:1, tls://b:2"), "nats://a:1,tls://b:2"; got != want {
		t.Errorf("redact = %q, want %q", got, want)
	}
}

func TestServerStopsEarly(t *testing.T) {
	s, err := NewServer(ServerOptions{Name: "test", Dir: t.TempDir(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v, want canceled", err)
	}
}

// What JetStream only logs is an error of Run.
func TestStoreUnusable(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ServerOptions{Name: "test", Dir: dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "JetStream") {
		t.Errorf("Run: %v, want JetStream's error", err)
	}
}

func TestMaxStore(t *testing.T) {
	limit, err := storeLimit(t.TempDir())
	if err != nil || limit <= 0 {
		t.Fatal(limit, err)
	}
	srv, _ := startServer(t, ServerOptions{MaxStore: 1 << 20})
	if got := srv.MaxStore(); got != 1<<20 {
		t.Errorf("MaxStore() = %d, want what was asked for", got)
	}
	srv, _ = startServer(t, ServerOptions{MaxStore: 1 << 60})
	if got := srv.MaxStore(); got <= 0 || got >= 1<<60 {
		t.Errorf("MaxStore() = %d, want what the disk can give", got)
	}
}

func TestTLS(t *testing.T) {
	cert, key := certificate(t)
	srv, _ := startServer(t, ServerOptions{Listen: "127.0.0.1:0", TLS: TLS{Cert: cert, Key: key}})
	for name, o := range map[string]Options{
		"in process":   {Server: srv},
		"trusted":      {URL: srv.URL(), TLS: TLS{CA: cert}},
		"not verified": {URL: srv.URL(), TLS: TLS{Insecure: true}},
	} {
		if _, err := connect(t, o).Stream("app", StreamConfig{}).Info(testContext(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Connect(testContext(t), Options{URL: srv.URL(), Logger: quiet()})
	if !errors.Is(err, ErrTLS) {
		t.Errorf("unknown authority: %v, want ErrTLS", err)
	}
	for name, files := range map[string]TLS{
		"no such CA":   {CA: "no-such-file"},
		"CA is no PEM": {CA: os.Args[0]},
		"no key":       {Cert: cert},
	} {
		if _, err := Connect(testContext(t), Options{URL: srv.URL(), TLS: files, Logger: quiet()}); err == nil {
			t.Errorf("%s: connected", name)
		}
	}
}

// certificate writes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestCredentialFiles(t *testing.T) {
	for name, cr := range map[string]Credentials{
		"creds_file": {CredsFile: "no-such-file"},
		"nkey_file":  {NKeyFile: "no-such-file"},
	} {
		_, err := Connect(testContext(t), Options{URL: "nats://" + freePort(t), Credentials: cr, Logger: quiet()})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want an error about %s", err, name)
		}
	}
}
