package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/web"
)

// A target names the node that a command asks.
type target struct {
	url, config, tokenFile string
}

// flags adds the options of a target. role has the default address.
func (t *target) flags(cmd *cobra.Command, address string) {
	cmd.Flags().StringVar(&t.url, "url", "http://"+address, "where the node's HTTP server is")
	cmd.Flags().StringVar(&t.config, "config", "", "the node's configuration, for its http.listen and token")
	cmd.Flags().StringVar(&t.tokenFile, "token-file", "", "file with the token of http.token")
	cmd.MarkFlagsMutuallyExclusive("url", "config")
}

// Addresses of the default configurations.
const (
	primaryAddress = "127.0.0.1:8080"
	replicaAddress = "127.0.0.1:8081"
)

// A client asks one node.
type client struct {
	base  string
	token string
	http  *http.Client
}

// client finds the node.
func (t *target) client(e *environment) (*client, error) {
	c := &client{base: strings.TrimRight(t.url, "/"), http: &http.Client{}}
	if t.config != "" {
		h, err := loadHTTP(e, t.config)
		if err != nil {
			return nil, err
		}
		if c.base, err = dialable(h.Listen); err != nil {
			return nil, err
		}
		c.token = h.Token.Reveal()
	}
	if t.tokenFile != "" {
		text, err := os.ReadFile(t.tokenFile)
		if err != nil {
			return nil, usagef("--token-file: %w", err)
		}
		c.token = strings.TrimSpace(string(text))
	}
	if u, err := url.Parse(c.base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--url is %q, want one such as http://%s", t.url, primaryAddress)
	}
	return c, nil
}

// loadHTTP reads the http section of a configuration of either role.
func loadHTTP(e *environment, file string) (config.HTTP, error) {
	role, err := config.Check(file, e.environ)
	if err != nil {
		return config.HTTP{}, err
	}
	if role == config.RoleReplica {
		r, err := loadReplica(e, file)
		return r.HTTP, err
	}
	p, err := loadPrimary(e, file)
	if role == config.RoleEither && err == nil {
		var r config.Replica
		if r, err = loadReplica(e, file); err == nil && r.HTTP.Listen != p.HTTP.Listen {
			err = usagef("%s fits a primary, at %s, and a replica, at %s: set http.listen in it, or use --url", file, p.HTTP.Listen, r.HTTP.Listen)
		}
	}
	return p.HTTP, err
}

// dialable is the URL of the HTTP listener of a configuration.
func dialable(listen string) (string, error) {
	address, ok := onThisMachine(listen)
	if !ok {
		return "", usagef("http.listen is %q, which does not say where the server is; use --url", listen)
	}
	return "http://" + address, nil
}

// onThisMachine is where a listener is reached from here. It is false for one
// that has chosen its port by itself.
func onThisMachine(listen string) (address string, ok bool) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" {
		return "", false
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), true
}

// An answerError is an error that the node answered with.
type answerError struct {
	status int
	body   web.Error
}

func (e *answerError) Error() string { return e.body.Error }

// maxAnswer bounds what is read of an answer, in bytes: a hundred databases
// with a hundred replicas each.
const maxAnswer = 16 << 20

// do sends one request and decodes the answer into into, unless that is nil.
func (c *client) do(ctx context.Context, method, path string, query url.Values, into any) error {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", target, err)
	}
	if res.StatusCode != http.StatusOK {
		return decodeError(res, body)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s is no replicator: %w", target, err)
	}
	return nil
}

func (c *client) unreachable(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing listens on %s: start the node or use --url: %w", c.base, syscall.ECONNREFUSED)
	}
	var request *url.Error
	if errors.As(err, &request) { // its text repeats the whole URL
		err = request.Err
	}
	return fmt.Errorf("cannot reach %s: %w", c.base, err)
}

func decodeError(res *http.Response, body []byte) error {
	failure := &answerError{status: res.StatusCode}
	var reasons struct {
		Reasons []string `json:"reasons"` // of /readyz
	}
	err := json.Unmarshal(body, &failure.body)
	if err == nil && failure.body.Error == "" && json.Unmarshal(body, &reasons) == nil {
		failure.body.Error = strings.Join(reasons.Reasons, "; ")
	}
	if failure.body.Error == "" {
		failure.body.Error = "the server answers " + res.Status
	}
	return failure
}

// patiently repeats ask while nothing listens or the answer says that the node
// is not ready, until ctx ends: a node that has just been started is on its way. If
// the end comes while it asks, what it was told before says more.
func patiently(ctx context.Context, ask func() error) error {
	var told error
	for {
		err := ask()
		var failure *answerError
		early := errors.Is(err, syscall.ECONNREFUSED) ||
			errors.As(err, &failure) && failure.status == http.StatusServiceUnavailable
		if !early && told != nil && errors.Is(err, context.DeadlineExceeded) {
			return told
		}
		if !early {
			return err
		}
		told = err
		select {
		case <-ctx.Done():
			return err
		case <-time.After(askAgain):
		}
	}
}

const askAgain = 50 * time.Millisecond

// late gives an error that says that time ran out the exit code for it. ctx is
// the one that the request was made with.
func late(ctx context.Context, err error) error {
	var failure *answerError
	if errors.As(err, &failure) && failure.status == http.StatusGatewayTimeout {
		return &exitError{codeLate, err}
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &exitError{codeLate, fmt.Errorf("time is up: %w", err)}
	}
	return err
}
