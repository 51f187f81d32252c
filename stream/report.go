package stream

import (
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A Heartbeat is what a primary tells its replicas each second, over core NATS:
// nothing of it is stored. A replica that hears none for 5 s knows that the
// path is dead, even when nothing is written. One that says that the capture has
// not come along for 5 s leaves it as much in the dark. Fields that an older primary
// does not send are zero.
type Heartbeat struct {
	Node      string       `json:"node"`
	State     string       `json:"state,omitempty"` // of the primary, one word, such as streaming
	Position  cdc.Position `json:"position"`        // of the last boundary published
	Totals    Totals       `json:"totals"`          // at Captured
	Captured  cdc.LSN      `json:"captured"`        // last record appended to the change log
	Durable   cdc.LSN      `json:"durable"`         // last record fsynced there
	Published cdc.LSN      `json:"published"`       // last record acknowledged by the stream; 0: not known yet
	SentAt    time.Time    `json:"sent_at"`         // by the primary's clock
	// Level is how long before SentAt all that was committed was captured, in
	// nanoseconds: whatever is not was committed since.
	Level time.Duration `json:"level_ns,omitempty"`
}

// A Report is what a replica tells the primary each second, every other one where
// nothing happens, over core NATS. The lags are null while the replica cannot know them: one that is cut off never
// says 0.
type Report struct {
	Node      string       `json:"node"`
	DB        string       `json:"db"`
	State     string       `json:"state"` // one word, such as streaming
	Applied   cdc.Position `json:"applied"`
	Totals    Totals       `json:"totals"` // at Applied
	Seen      cdc.Position `json:"seen"`   // the greatest epoch and LSN it ever saw: a primary below it is fenced
	Needs     cdc.LSN      `json:"needs"`  // the stream must keep what follows it, and the snapshot there while that is restored
	Lag       Lag          `json:"lag"`
	Since     time.Time    `json:"since,omitzero"` // when the path died; the lag is unknown since
	Error     string       `json:"error,omitempty"`
	Version   string       `json:"version"`
	SentAt    time.Time    `json:"sent_at"`             // by the replica's clock
	ArrivedAt time.Time    `json:"arrived_at,omitzero"` // set by the Fleet, by its clock
}

// Totals count from the start of a lineage, so that the difference of two is
// the lag between them.
type Totals struct {
	Transactions uint64 `json:"transactions"`
	Bytes        uint64 `json:"bytes"` // before compression
}

// A Lag is how far a replica is behind.
type Lag struct {
	Transactions *uint64  `json:"transactions"`
	Bytes        *uint64  `json:"bytes"`
	Seconds      *float64 `json:"seconds"` // age of the oldest transaction not applied; 0 when there is none
}
