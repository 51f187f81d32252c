// Package cdc holds the vocabulary of change data capture that every part of
// replicator shares: log sequence numbers, epochs, positions, row and schema
// changes, and the codec of a record, which is at once one entry of the change
// log and one message of the stream. FORMAT.md is the byte map.
//
// The package does no I/O, reads no clock and starts no goroutine. Decoding
// never panics and never trusts a length: every error that the bytes cause
// wraps [ErrCorrupt], except that a record of a newer version wraps
// [ErrVersion], because its remedy is an upgrade and not a re-bootstrap.
//
// The life of a transaction: the capture writes its operations into an
// [Encoder], which cuts them into records and numbers them; the change log
// stores the records and the stream carries the same bytes; a [Decoder] gives
// the operations back, in order, to whoever applies or prints them.
package cdc
