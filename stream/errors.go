package stream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A Condition is what is the matter with NATS or a stream, where a caller
// branches on it. Every error of this package that is not the caller's own
// wraps at most one.
type Condition struct {
	word, text string
	is         error // a sentinel that means the same, or more: of the standard library, or one of these
}

func (c *Condition) Error() string { return c.text }

// Condition is one stable word, for packages that do not import this one.
func (c *Condition) Condition() string { return c.word }

// Is makes [ErrNotFound] match fs.ErrNotExist, for one.
func (c *Condition) Is(target error) bool { return c.is != nil && target == c.is }

// The conditions. The comment says what a caller does.
var (
	// ErrUnavailable: NATS does not answer in time or the connection is down.
	// Whether the last request took effect is unknown. Wait and ask.
	ErrUnavailable = &Condition{word: "unavailable", text: "NATS does not answer"}
	// errOffline is an ErrUnavailable that is no riddle: nothing was asked.
	errOffline = &Condition{word: "unavailable", text: "not connected to NATS", is: ErrUnavailable}
	// ErrAuth: NATS refused the credentials. Retrying cannot help.
	ErrAuth = &Condition{word: "auth", text: "NATS refused the credentials; check nats.user, nats.password, nats.token, nats.creds_file or nats.nkey_file"}
	// ErrTLS: the TLS handshake failed on a certificate of either side, or only one
	// of them wants one. Retrying cannot help.
	ErrTLS = &Condition{word: "tls", text: "NATS and this node do not agree on TLS or on a certificate; check nats.tls"}
	// ErrPortInUse: the embedded server cannot listen.
	ErrPortInUse = &Condition{word: "port_in_use", text: "the port is in use; stop the other program or set nats.listen to a free port"}
	// ErrSequence: the stream does not end where the publisher expects, or
	// another publisher took it over. Compare the record at its last sequence
	// with the own one.
	ErrSequence = &Condition{word: "sequence", text: "the stream ends elsewhere"}
	// ErrFull: the stream or the store has no room. Trim, then publish again.
	ErrFull = &Condition{word: "full", text: "the stream is full"}
	// ErrOverbooked: the MaxBytes of all streams together are more than the server or the
	// account may hold, whatever is in them. Trimming does not help, and a stream that is
	// there cannot be claimed if the limit was lowered below them.
	ErrOverbooked = &Condition{word: "overbooked", text: "NATS has promised its room to streams already; make stream.max_bytes smaller, " +
		"delete streams that are no longer needed, or raise the limit of the server"}
	// ErrTooLarge: NATS does not take messages of this size, ever.
	ErrTooLarge = &Condition{word: "too_large", text: "the message is larger than the server's max_payload; raise it to at least 2MiB"}
	// ErrNoStream: the stream or the bucket does not exist.
	ErrNoStream = &Condition{word: "no_stream", text: "the stream does not exist"}
	// ErrExists: a stream of that name exists and is configured differently.
	ErrExists = &Condition{word: "exists", text: "the stream exists already"}
	// ErrNotFound: there is no such message or object. It matches
	// fs.ErrNotExist.
	ErrNotFound = &Condition{word: "not_found", text: "not found", is: fs.ErrNotExist}
	// ErrDamaged: an object is there, but its bytes are not those that were put.
	// Asking again does not help; another snapshot does.
	ErrDamaged = &Condition{word: "damaged", text: "the object is damaged"}
	// ErrTrimmed: the stream no longer has the record that is due. A snapshot
	// is needed. See [TrimmedError].
	ErrTrimmed = &Condition{word: "trimmed", text: "the record is no longer in the stream; a snapshot is needed"}
	// ErrBeyond: the stream ends before the record that precedes the one that
	// is due. The primary may be re-publishing; ask again later.
	ErrBeyond = &Condition{word: "beyond", text: "the stream ends before that record"}
	// ErrRecreated: the stream was deleted and created again meanwhile. Check
	// the position against the new one, then consume again.
	ErrRecreated = &Condition{word: "recreated", text: "the stream was created again"}
	// ErrNoResponder: nobody serves that request.
	ErrNoResponder = &Condition{word: "no_responder", text: "nobody answers; is the primary running?"}
	// ErrRemote: the other side answered with an error, which is in the text.
	ErrRemote = &Condition{word: "remote", text: "the other side failed"}
)

// A TrimmedError wraps [ErrTrimmed] and [cdc.ErrGap] and says where the stream
// goes on.
type TrimmedError struct {
	Want  cdc.LSN // the record that was due
	First cdc.LSN // the first record at or above it that the stream has, or will have when it is empty
}

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("stream: record %d is gone, the stream goes on at %d: %v", e.Want, e.First, ErrTrimmed)
}

func (e *TrimmedError) Unwrap() []error { return []error{ErrTrimmed, cdc.ErrGap} }

// FirstLSN is First, for packages that do not import this one.
func (e *TrimmedError) FirstLSN() cdc.LSN { return e.First }

// JetStream's error codes that are not constants of the client.
const (
	codeInsufficientResources = 10023
	codeInsufficientMemory    = 10028
	codeNoMessage             = 10037
	codeInsufficientStorage   = 10047
	codeMessageTooLarge       = 10054
	codeStreamExists          = 10058
	codeStreamNotFound        = 10059
	codeWrongSequence         = 10071
	codeStoreFailed           = 10077
	codeWrongSequenceConstant = 10164 // clustered streams
)

// wrap gives err the name of the operation and its condition. What ctx caused
// stays recognisable as that, so it must be the caller's.
func wrap(ctx context.Context, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	op := "stream: " + fmt.Sprintf(format, args...)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	var c *Condition
	if errors.As(err, &c) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if errors.Is(err, nats.ErrReconnectBufExceeded) { // it says nothing to a reader: there is no such buffer
		return fmt.Errorf("%s: %w", op, errOffline)
	}
	if c = condition(err); c != nil {
		return fmt.Errorf("%s: %w (%w)", op, c, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// condition classifies an error of the client library; nil when no caller
// branches on it.
func condition(err error) *Condition {
	var js jetstream.JetStreamError
	if errors.As(err, &js) && js.APIError() != nil {
		return apiCondition(js.APIError())
	}
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
		errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return ErrAuth
	case errors.Is(err, nats.ErrMaxPayload):
		return ErrTooLarge
	case errors.Is(err, jetstream.ErrObjectNotFound), errors.Is(err, jetstream.ErrBucketNotFound):
		return ErrNotFound
	case errors.Is(err, jetstream.ErrDigestMismatch), errors.Is(err, jetstream.ErrBadObjectMeta), errors.Is(err, jetstream.ErrInvalidDigestFormat):
		return ErrDamaged
	}
	for _, off := range [...]error{nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrConnectionClosed, nats.ErrNoServers} {
		if errors.Is(err, off) {
			return errOffline
		}
	}
	for _, down := range [...]error{
		nats.ErrTimeout, nats.ErrConnectionDraining, nats.ErrNoResponders, nats.ErrStaleConnection,
		context.DeadlineExceeded, context.Canceled, jetstream.ErrAsyncPublishTimeout, jetstream.ErrNoStreamResponse,
		jetstream.ErrJetStreamNotEnabled, jetstream.ErrTooManyStalledMsgs, jetstream.ErrMsgIteratorClosed,
		jetstream.ErrConnectionClosed, jetstream.ErrServerShutdown,
	} {
		if errors.Is(err, down) {
			return ErrUnavailable
		}
	}
	return nil
}

func apiCondition(err *jetstream.APIError) *Condition {
	switch err.ErrorCode {
	case codeWrongSequence, codeWrongSequenceConstant:
		return ErrSequence
	case codeInsufficientResources:
		return ErrFull
	case codeInsufficientMemory, codeInsufficientStorage:
		return ErrOverbooked
	case codeStreamNotFound:
		return ErrNoStream
	case codeStreamExists:
		return ErrExists
	case codeNoMessage:
		return ErrNotFound
	case codeMessageTooLarge:
		return ErrTooLarge
	case codeStoreFailed:
		for _, full := range [...]string{"maximum bytes", "maximum messages", "no space", "insufficient"} {
			if strings.Contains(err.Description, full) {
				return ErrFull
			}
		}
	}
	// What is left of the 5xx family passes: no leader, being restarted,
	// JetStream temporarily off.
	if err.Code >= 500 {
		return ErrUnavailable
	}
	return nil
}
