package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	opTimeout    = 5 * time.Second // of one request
	dialTimeout  = 3 * time.Second // for each server of the URL
	drainTimeout = 3 * time.Second // of Close
)

// Options says how to reach NATS. Either URL or Server is set.
type Options struct {
	URL    string  // one or more servers, separated by commas
	Server *Server // the embedded server of this process; its own credentials are used
	Name   string  // shown in the server's connection list

	Credentials Credentials
	TLS         TLS
	Logger      *slog.Logger // required
}

// Credentials authenticate to NATS. At most one kind is set.
type Credentials struct {
	CredsFile      string // .creds file: JWT and seed
	NKeyFile       string // seed of an nkey
	User, Password string
	Token          string
}

// A Conn is a connection that reconnects for ever. It may be used concurrently.
type Conn struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	log *slog.Logger

	census census
	parts  *window // of the objects that are put
	reads  *window // of those that are read

	mu      sync.Mutex
	ending  bool               // Close was called: to be disconnected is no news
	changed chan struct{}      // closed and replaced at each change of state
	link    context.Context    // ends when the connection breaks; replaced then
	cut     context.CancelFunc // of link
	lastErr error              // why the connection is down; nil while it is up
	logged  map[string]bool    // reasons, since it was last up
	closed  chan struct{}      // closed when the connection is closed for good
}

// Connect connects. An unreachable server is no error: the connection keeps
// trying. Refused credentials (ErrAuth), an untrusted certificate (ErrTLS) and
// unreadable files are. It may take dialTimeout for each server, twice, where one
// takes connections and says nothing; ctx ends that.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	if o.Logger == nil || (o.URL == "") == (o.Server == nil) {
		return nil, errors.New("stream: connect: a logger and either a URL or a server are required")
	}
	c := &Conn{log: o.Logger, changed: make(chan struct{}), closed: make(chan struct{}), logged: make(map[string]bool), parts: newWindow(lingerParts), reads: newWindow(lingerParts)}
	c.link, c.cut = context.WithCancel(context.Background())
	c.census.conn = c
	opts, err := c.options(o)
	if err != nil {
		return nil, err
	}
	if o.Server != nil {
		if err := o.Server.WaitReady(ctx); err != nil {
			return nil, err
		}
		opts = append(opts, nats.InProcessServer(o.Server))
	}
	// The first attempt is made without retries, because with them the client
	// reports nothing: not even refused credentials.
	if c.nc, err = first(ctx, o.URL, opts); refused(err) != nil {
		return nil, fmt.Errorf("stream: connect to %s: %w", o.Where(), refused(err))
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		c.lastErr = err
		c.log.Warn("NATS is not reachable, trying on", "url", o.Where(), "err", err)
		if c.nc, err = dial(ctx, o.URL, append(opts, nats.RetryOnFailedConnect(true))); err != nil {
			return nil, fmt.Errorf("stream: connect to %s: %w", o.Where(), err)
		}
	}
	if c.js, err = jetstream.New(c.nc, jetstream.WithDefaultTimeout(opTimeout)); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("stream: connect to %s: %w", o.Where(), err)
	}
	return c, nil
}

// first is dial until it is known whether a server that hangs up after the TLS
// handshake does not want our certificate: the alert that says so may be lost with
// the connection. One that hangs up each time does not want it.
func first(ctx context.Context, url string, opts []nats.Option) (nc *nats.Conn, err error) {
	for range hangUps {
		if nc, err = dial(ctx, url, opts); !errors.Is(err, nats.ErrTLS) || refused(err) != nil {
			return nc, err
		}
	}
	return nil, fmt.Errorf("%w (%w)", ErrTLS, err)
}

// hangUps is how often a server may hang up after the TLS handshake.
const hangUps = 5

// dial is nats.Connect with a context. An attempt that is under way when ctx ends
// comes to nothing by itself.
func dial(ctx context.Context, url string, opts []nats.Option) (*nats.Conn, error) {
	type attempt struct {
		nc  *nats.Conn
		err error
	}
	made := make(chan attempt)
	go func() {
		nc, err := nats.Connect(url, opts...)
		select {
		case made <- attempt{nc, err}:
		case <-ctx.Done():
			if nc != nil {
				nc.Close()
			}
		}
	}()
	select {
	case a := <-made:
		return a.nc, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Where names the server without what a URL may hold of credentials.
func (o Options) Where() string {
	if o.Server != nil {
		return "the embedded server"
	}
	return redact(o.URL)
}

// refused is err if the server said no, so that trying again cannot help, else
// nil. What is wrong with the options themselves comes back at the second try.
func refused(err error) error {
	var cert *tls.CertificateVerificationError
	var alert *net.OpError // the server ends the handshake: it wants a certificate, or another one
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrTLS):
		return err
	case condition(err) == ErrAuth:
		return fmt.Errorf("%w (%w)", ErrAuth, err)
	case errors.As(err, &cert), errors.As(err, &alert) && alert.Op == "remote error", errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%w (%w)", ErrTLS, err)
	}
	return nil
}

func (c *Conn) options(o Options) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(o.Name), nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(500 * time.Millisecond), nats.ReconnectJitter(200*time.Millisecond, 500*time.Millisecond),
		// A dead server is left after 12 s. Sooner, and what a consumer has asked
		// for, up to pullBytes, would not fit in front of an answer on a slow link.
		nats.PingInterval(3 * time.Second), nats.MaxPingsOutstanding(3), nats.FlusherTimeout(10 * time.Second),
		nats.DrainTimeout(drainTimeout),
		nats.ConnectHandler(c.up),
		nats.ReconnectHandler(c.up),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.down(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.down(err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed); c.down(nats.ErrConnectionClosed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.report(err) }),
	}
	cred, err := o.Credentials.options(o.Server)
	if err != nil {
		return nil, err
	}
	opts = append(opts, cred...)
	if o.Server != nil {
		return opts, nil
	}
	tc, err := o.TLS.client()
	if err != nil {
		return nil, err
	}
	if tc != nil {
		opts = append(opts, nats.Secure(tc))
	}
	return opts, nil
}

func (cr Credentials) options(own *Server) ([]nats.Option, error) {
	if own != nil {
		cr = Credentials{User: own.o.Auth.User, Password: own.o.Auth.Password, Token: own.o.Auth.Token}
	}
	switch {
	case cr.CredsFile != "":
		if err := readable(cr.CredsFile); err != nil {
			return nil, fmt.Errorf("stream: nats.creds_file: %w", err)
		}
		return []nats.Option{nats.UserCredentials(cr.CredsFile)}, nil
	case cr.NKeyFile != "":
		opt, err := nats.NkeyOptionFromSeed(cr.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("stream: nats.nkey_file %s: %w", cr.NKeyFile, err)
		}
		return []nats.Option{opt}, nil
	case cr.User != "":
		return []nats.Option{nats.UserInfo(cr.User, cr.Password)}, nil
	case cr.Token != "":
		return []nats.Option{nats.Token(cr.Token)}, nil
	}
	return nil, nil
}

func (c *Conn) up(nc *nats.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lastErr != nil {
		c.log.Info("connected to NATS", "url", nc.ConnectedUrlRedacted())
	}
	c.lastErr = nil
	clear(c.logged)
	c.signal()
}

// report takes what the server complains about. Refused credentials come only
// this way while the client reconnects.
func (c *Conn) report(err error) {
	if condition(err) == ErrAuth {
		c.down(err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logOnce("NATS reports an error", err)
}

// logOnce logs a reason once in an outage, however often it repeats.
func (c *Conn) logOnce(msg string, err error) {
	const enough = 64 // reasons may hold addresses, which vary
	if reason := err.Error(); !c.logged[reason] && len(c.logged) < enough {
		c.logged[reason] = true
		c.log.Warn(msg, "err", err)
	}
}

func (c *Conn) down(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = nats.ErrDisconnected
	}
	if !c.ending {
		c.logOnce("not connected to NATS", err)
	}
	c.lastErr = err
	c.cut()
	c.link, c.cut = context.WithCancel(context.Background())
	c.signal()
}

func (c *Conn) request(ctx context.Context) (context.Context, context.CancelFunc) {
	return c.bounded(ctx, opTimeout)
}

// bounded bounds what waits for answers: by d, and by the connection, because
// no answer comes through the next one.
func (c *Conn) bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	c.mu.Lock()
	defer c.mu.Unlock()
	stop := context.AfterFunc(c.link, cancel)
	return ctx, func() { stop(); cancel() }
}

// whileHeard gives a context that ends with ErrUnavailable when nothing at all has
// come from NATS for d. On a slow link an answer may wait behind much else; a link
// on which something moves is alive.
func (c *Conn) whileHeard(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	const looks = 10
	ctx, cancel := context.WithCancelCause(ctx)
	came, silent := c.nc.Stats().InMsgs, 0
	var look *time.Timer
	look = time.AfterFunc(time.Hour, func() {
		silent++
		if now := c.nc.Stats().InMsgs; now != came {
			came, silent = now, 0
		}
		if silent == looks {
			cancel(fmt.Errorf("%w: nothing came for %s", ErrUnavailable, d))
			return
		}
		if ctx.Err() == nil {
			look.Reset(d / looks)
		}
	})
	look.Reset(d / looks) // only now look is set
	return ctx, func() {
		look.Stop()
		cancel(nil)
	}
}

func (c *Conn) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Connected reports whether the connection is up.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Changed is closed at the next change of the connection's state. Take it
// before asking for the state.
func (c *Conn) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Err is why the connection is down, nil while it is up. It wraps ErrAuth when
// the credentials are no longer accepted.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Connected() {
		return nil
	}
	err := c.lastErr
	if err == nil {
		err = c.nc.LastError()
	}
	if err != nil && condition(err) == ErrAuth {
		return fmt.Errorf("stream: %w (%w)", ErrAuth, err)
	}
	if err == nil {
		return fmt.Errorf("stream: %w", errOffline)
	}
	return fmt.Errorf("stream: %w (%w)", errOffline, err)
}

// WaitConnected waits until the connection is up or ctx ends.
func (c *Conn) WaitConnected(ctx context.Context) error {
	for {
		changed := c.Changed()
		if c.Connected() {
			return nil
		}
		select {
		case <-changed:
		case <-c.closed:
			return fmt.Errorf("stream: %w (%w)", errOffline, nats.ErrConnectionClosed)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close sends what is buffered, waits for handlers that run, 3 s at most, and
// closes the connection.
func (c *Conn) Close() {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	if c.nc.Drain() == nil {
		select {
		case <-c.closed:
		case <-time.After(drainTimeout + time.Second):
		}
	}
	c.nc.Close()
}
