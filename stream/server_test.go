package stream

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// freePort is a loopback address that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
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
