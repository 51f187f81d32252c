// Package stream carries the records of a database's change log over NATS
// JetStream. It is the only package that knows NATS.
//
//	Server    the embedded NATS server
//	Conn      one connection: state, live messages, requests
//	Stream    the stream of one database: publish, consume, read, purge
//	Objects   the snapshot store of one database
//	Fleet     the last report of each replica
//
// The numbers are the contract: the sequence of a message is the LSN of its
// record, so that nothing has to be translated and a gap is visible. A consumer
// compares the sequence of every message with the one that is due. A publisher
// names the sequence it expects for every message and stops at the first
// refusal. That alone would not keep a second publisher out, because what it
// sent behind a refused record may fit again; so each publication moves the
// stream to a subject of its own, replicator.<db>.log.<random>, and its first
// record goes alone. What is lost or out of place is an error with a name, never
// a skip.
//
// The package never decodes a record, never decides who the primary is and
// never repairs a stream: on a refusal the primary reads [Stream.Info] and
// [Stream.Get] and decides. It never creates a stream or a bucket unasked, and
// never retries a message behind the caller's back, because a retry can
// reorder.
//
// An unreachable NATS is a state, not an error of the connection: a [Conn]
// reconnects for ever, operations fail at once with [ErrUnavailable] meanwhile,
// and [Stream.Consume] waits. Acknowledged is not durable: JetStream syncs its
// files every [ServerOptions].SyncInterval unless SyncAlways is set.
//
// Conditions that a caller branches on are sentinels of type [*Condition].
// Packages that must not import this one find them with errors.As and an
// interface that has the method Condition() string.
package stream
