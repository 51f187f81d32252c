// Package web is the HTTP side of a node: health, readiness, status, lag,
// metrics, and the few requests that wait for something. Everything is JSON but
// /metrics; an error is {"error": "..."} with a fitting status.
//
//	GET  /healthz                           the process works
//	GET  /readyz[?max_lag=2s&min_lsn=N]     200 only when every database is streaming and within bounds
//	GET  /metrics                           Prometheus, replicator_*
//	GET  /v1/status                         [Status]
//	GET  /v1/lag                            [Lags]
//	POST /v1/databases/{db}/sync            [Position] that covers every commit before the call (?replicas=K&timeout=5s)
//	GET  /v1/databases/{db}/wait            200 once ?lsn=N[&epoch=E] is applied here (&timeout=30s)
//	POST /v1/databases/{db}/verify          [Verification]: a replica compares itself with the primary; status shows how far it is
//	POST /v1/databases/{db}/repair          [Position] of a replica once what is known to be wrong with it is mended
//	POST /v1/databases/{db}/snapshot        [Snapshot]: a primary makes one now
//
// The types of this package are the wire format: names and units are stable,
// fields are only added. A number that is not known is null, never 0.
//
// The package knows nothing of SQLite, NATS or either role: it asks a [Source]
// at each request and keeps no state of its own. It listens on one address and
// never calls out. With a token every request must carry it; without one the
// operator has chosen a loopback address, and requests that a browser sends on
// behalf of another site are refused.
package web
