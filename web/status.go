package web

import (
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A Status is what a node says of itself.
type Status struct {
	Node      string     `json:"node"`
	Role      string     `json:"role"` // primary or replica
	Version   string     `json:"version"`
	Time      time.Time  `json:"time"`
	Databases []Database `json:"databases"`
}

// StateStreaming is the state of a database that is well: on a primary its
// changes are published as they come, on a replica applied as they come.
const StateStreaming = "streaming"

// A Database is the state of one database on this node.
type Database struct {
	Name     string    `json:"name"`
	Path     string    `json:"path"`
	State    string    `json:"state"` // one word
	Since    time.Time `json:"since"` // of State
	Error    string    `json:"error,omitempty"`
	Warnings []string  `json:"warnings,omitempty"` // what a person should look at although the state is well
	Epoch    cdc.Epoch `json:"epoch"`
	LSN      LSNs      `json:"lsn"`
	Lag      Lag       `json:"lag"` // of a primary: not yet published; of a replica: not yet applied
	Sizes    Sizes     `json:"sizes"`
	Progress *Progress `json:"progress,omitempty"` // of a snapshot being made or restored, of catching up, of a verification
	Details  Details   `json:"details"`
	Stalls   *Stalls   `json:"writer_stalls,omitempty"` // on a primary
	Replicas []Replica `json:"replicas,omitempty"`      // on a primary: as each last reported
}

// LSNs say how far each step has come; the ones that the role does not have are
// absent.
type LSNs struct {
	Captured  *cdc.LSN `json:"captured,omitempty"`
	Durable   *cdc.LSN `json:"durable,omitempty"`
	Published *cdc.LSN `json:"published,omitempty"`
	Applied   *cdc.LSN `json:"applied,omitempty"`
}

// Here is the last LSN that this node can vouch for: applied or, on a primary,
// published.
func (l LSNs) Here() cdc.LSN {
	switch {
	case l.Applied != nil:
		return *l.Applied
	case l.Published != nil:
		return *l.Published
	}
	return 0
}

// A Lag is what is still to come. All is null while the way to the primary is
// dead, because then nobody knows.
type Lag struct {
	Transactions *uint64    `json:"transactions"`
	Bytes        *uint64    `json:"bytes"`           // of changes, before compression
	Seconds      *float64   `json:"seconds"`         // age of the oldest transaction that is pending; 0 when none is
	Since        *time.Time `json:"since,omitempty"` // when it was last known, if it is not now
}

// Sizes are in bytes; what the role does not have is absent.
type Sizes struct {
	Database  int64 `json:"database"`
	SQLiteWAL int64 `json:"sqlite_wal"`
	ChangeLog int64 `json:"change_log,omitempty"`
	Snapshot  int64 `json:"snapshot,omitempty"` // the newest, as stored
}

// Stalls count how long writers of the source had to wait for us, since the start.
// Class i holds those above Bounds[i-1] and up to Bounds[i]; there is one class
// more than bounds.
type Stalls struct {
	Bounds     []float64 `json:"bounds"` // seconds
	Counts     []uint64  `json:"counts"`
	SumSeconds float64   `json:"sum_seconds"`
}

// A Progress is how far a longer piece of work has come.
type Progress struct {
	What       string   `json:"what"` // snapshot, restoring, catching_up, verifying or, after that, looking for rows that differ
	Unit       string   `json:"unit"` // bytes (of database), records or rows
	Done       int64    `json:"done"`
	Total      int64    `json:"total"`
	PerSecond  float64  `json:"per_second"`
	ETASeconds *float64 `json:"eta_seconds"`
	Waits      string   `json:"waits,omitempty"` // what for, while the work has not begun
}

// Details are the figures that one role has and the other has not, by the name
// of their metric without its prefix: sqlite_wal_turnovers_total is exported
// as replicator_sqlite_wal_turnovers_total. See [details] for all of them.
type Details map[string]float64

// A Replica is a replica as it last reported to this primary.
type Replica struct {
	Node       string    `json:"node"`
	State      string    `json:"state"`
	Error      string    `json:"error,omitempty"`
	Epoch      cdc.Epoch `json:"epoch"`
	Applied    cdc.LSN   `json:"applied"`
	Lag        Lag       `json:"lag"`
	ReportedAt time.Time `json:"reported_at"`
	Alive      bool      `json:"alive"` // false when reports have stopped
}

// Lags is the answer of /v1/lag.
type Lags struct {
	Databases []DatabaseLag `json:"databases"`
}

// A DatabaseLag is the lag of one database and, on a primary, of its replicas.
type DatabaseLag struct {
	Name     string       `json:"name"`
	Lag      Lag          `json:"lag"`
	Replicas []ReplicaLag `json:"replicas,omitempty"`
}

// A ReplicaLag is the lag of one replica.
type ReplicaLag struct {
	Node string `json:"node"`
	Lag  Lag    `json:"lag"`
}

// A Position is a place in a database's history. An LSN alone means something
// only within one history, which lineage and epoch tell apart; where somebody waits for a
// Position, zeros are any.
type Position struct {
	LSN     cdc.LSN   `json:"lsn"`
	Epoch   cdc.Epoch `json:"epoch"`
	Lineage cdc.ID    `json:"lineage,omitzero"`
}

// A Verification is the outcome of a comparison of a replica with its primary,
// both at one LSN.
type Verification struct {
	Node     string    `json:"node"`
	Database string    `json:"database"`
	LSN      cdc.LSN   `json:"lsn"`
	Epoch    cdc.Epoch `json:"epoch"`
	Equal    bool      `json:"equal"`
	Tables   int       `json:"tables"` // compared
	Rows     int64     `json:"rows"`   // compared, on the primary
	// Differences name what is not equal, one line each; no values.
	Differences []string    `json:"differences,omitempty"`
	Differing   []TableRows `json:"differing_rows,omitempty"`
	Seconds     float64     `json:"seconds"` // that it took
}

// TableRows are the rows of a table that differ, by rowid.
type TableRows struct {
	Table string         `json:"table"`
	First []DifferingRow `json:"first"`          // the first few
	Count int            `json:"count"`          // of all of them
	More  bool           `json:"more,omitempty"` // there are more than were counted
}

// A DifferingRow is a row of a replica that is not the primary's.
type DifferingRow struct {
	Rowid int64  `json:"rowid"`
	Fault string `json:"fault"` // differs, missing (on the replica) or extra (there)
}

// A Snapshot describes a snapshot that was made.
type Snapshot struct {
	ID        string    `json:"id"`
	LSN       cdc.LSN   `json:"lsn"`
	Epoch     cdc.Epoch `json:"epoch"`
	CreatedAt time.Time `json:"created_at"`
	Bytes     int64     `json:"bytes"`
	Stored    int64     `json:"stored_bytes"`
}
