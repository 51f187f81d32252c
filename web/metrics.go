package web

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// states are all states of a database, so that a metric exists for each and an
// alert can be written before it is needed.
var states = []string{
	"starting", "snapshotting", StateStreaming, "resyncing", "restoring", "catching_up", "waiting",
	"offline", "disk_full", "diverged", "fenced", "failed",
}

// details are the figures that [Details] may hold, with the help text of their
// metric. Those whose name ends in _total are counters. One that is not here is
// shown in status only.
var details = map[string]string{
	"transactions_total":                    "Transactions in the history up to the position, captured or applied.",
	"changes_total":                         "Row changes in the history up to the position.",
	"change_bytes_total":                    "Bytes of changes in the history up to the position, before compression.",
	"sqlite_wal_generations_total":          "Times that the SQLite WAL of the source started over.",
	"sqlite_wal_turnovers_total":            "Times that the SQLite WAL was made free to start over.",
	"sqlite_wal_turnovers_unfinished_total": "Turnovers that another reader was in the way of.",
	"sqlite_wal_held_bytes":                 "Size of the SQLite WAL while another connection's read transaction keeps it from starting over, else 0.",
	"sqlite_wal_held_seconds":               "For how long it has been kept from starting over, else 0.",
	"repins_total":                          "Times that the pin on the SQLite WAL moved on.",
	"longest_stall_seconds":                 "Longest time that a turnover made writers wait.",
	"spilled_bytes":                         "Bytes of the transaction in hand that are in a temporary file.",
	"tables":                                "Tables of the database.",
	"row_set_hashes_known":                  "Tables whose row-set hash is known.",
	"row_set_hashes_verified":               "Tables whose row-set hash was the primary's when it was compared last.",
	"row_set_hashes_oldest_verified_lsn":    "LSN of that comparison, of the table for which it is the longest ago; 0: of none.",
	"row_set_hash_mismatches_total":         "Tables whose rows were not what the changes add up to, found since the start.",
	"page_map_mismatches_total":             "Times that the map of the source's pages was found wrong since the start.",
	"self_check_failures_total":             "Self-checks of the capture that failed since the start, of any kind; each was dealt with.",
	"bug_reports":                           "Reports of failed self-checks in the data directory.",
	"inspections_total":                     "Comparisons of what the capture believes with the source since the start.",
	"comparisons":                           "Replicas that compare themselves now; the SQLite WAL of the source cannot start over.",
	"snapshot_newest_lsn":                   "LSN of the newest snapshot.",
	"snapshot_newest_timestamp_seconds":     "When the newest snapshot was made, in seconds since 1970.",
	"change_log_first_lsn":                  "LSN of the oldest record in the change log.",
	"applied_transactions_total":            "Transactions applied since the start.",
	"applied_changes_total":                 "Row changes applied since the start.",
	"applied_records_total":                 "Records applied since the start.",
	"applied_commits_total":                 "SQLite transactions in which they were applied.",
	"applied_swaps_total":                   "SQLite transactions that a UNIQUE conflict made the replica do again.",
	"divergences_total":                     "Changes that did not fit the replica's rows since the start.",
	"reseeds_total":                         "Times that the file was made equal to a snapshot since the start.",
	"stray_writes_total":                    "Writes of other programs to the replica that were found since the start.",
	"left_off_indexes":                      "Indexes of the source that the replica cannot maintain.",
	"clock_offset_seconds":                  "Clock of this node minus the primary's, which is taken out of the lag.",
	"connected":                             "1 while the connection to NATS is up.",
}

// NewRegistry is a registry with the figures of the process itself: memory,
// descriptors, goroutines.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// roleReplica is the role of a node that has neither change log nor snapshots.
const roleReplica = "replica"

// A collector asks the Source at each scrape.
type collector struct {
	o Options

	info, state, since, epoch, lsn, size *prometheus.Desc
	lag                                  lagDescs
	replicaLSN, replicaAlive             *prometheus.Desc
	replicaLag                           lagDescs
	stalls                               *prometheus.Desc
	details                              map[string]*prometheus.Desc
}

type lagDescs struct{ transactions, bytes, seconds *prometheus.Desc }

func newCollector(o Options) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("replicator_"+name, help, labels, nil)
	}
	lag := func(prefix, of string, labels ...string) lagDescs {
		return lagDescs{
			transactions: desc(prefix+"lag_transactions", "Transactions not yet "+of+"; absent while unknown.", labels...),
			bytes:        desc(prefix+"lag_bytes", "Bytes of changes not yet "+of+", before compression; absent while unknown.", labels...),
			seconds:      desc(prefix+"lag_seconds", "Age of the oldest transaction not yet "+of+", 0 when none is pending; absent while unknown.", labels...),
		}
	}
	c := &collector{
		o:            o,
		info:         desc("info", "Constant 1 with what this node is.", "node", "role", "version"),
		state:        desc("state", "1 for the present state of the database, 0 for the others.", "db", "state"),
		since:        desc("state_since_timestamp_seconds", "When the present state began, in seconds since 1970.", "db"),
		epoch:        desc("epoch", "Number of the primary's term.", "db"),
		lsn:          desc("lsn", "Last LSN that a step has finished: captured, durable, published or applied.", "db", "step"),
		size:         desc("size_bytes", "Size of a file or store: database, sqlite_wal, change_log or snapshot.", "db", "what"),
		lag:          lag("", "published (primary) or applied (replica)", "db"),
		replicaLSN:   desc("replica_applied_lsn", "Last LSN that a replica reported as applied.", "db", "replica"),
		replicaAlive: desc("replica_alive", "1 while a replica reports.", "db", "replica"),
		replicaLag:   lag("replica_", "applied by a replica, as it last reported", "db", "replica"),
		stalls:       desc("writer_stall_seconds", "How long writers of the source had to wait for the primary.", "db"),
		details:      map[string]*prometheus.Desc{},
	}
	for name, help := range details {
		c.details[name] = desc(name, help, "db")
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.info, c.state, c.since, c.epoch, c.lsn, c.size, c.replicaLSN, c.replicaAlive, c.stalls} {
		ch <- d
	}
	for _, l := range []lagDescs{c.lag, c.replicaLag} {
		ch <- l.transactions
		ch <- l.bytes
		ch <- l.seconds
	}
	for _, d := range c.details {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.info, 1, c.o.Node, c.o.Role, c.o.Version)
	for _, d := range c.o.Source.Databases() {
		c.database(gauge, d)
		if d.Stalls != nil {
			ch <- d.Stalls.metric(c.stalls, d.Name)
		}
		for name, v := range d.Details {
			if desc := c.details[name]; desc != nil {
				ch <- prometheus.MustNewConstMetric(desc, kindOf(name), v, d.Name)
			}
		}
	}
}

func (c *collector) database(gauge func(*prometheus.Desc, float64, ...string), d Database) {
	for _, s := range states {
		gauge(c.state, oneIf(s == d.State), d.Name, s)
	}
	if !slices.Contains(states, d.State) {
		gauge(c.state, 1, d.Name, d.State)
	}
	gauge(c.since, float64(d.Since.UnixNano())/1e9, d.Name)
	gauge(c.epoch, float64(d.Epoch), d.Name)
	for step, lsn := range map[string]*uint64{
		"captured": (*uint64)(d.LSN.Captured), "durable": (*uint64)(d.LSN.Durable),
		"published": (*uint64)(d.LSN.Published), "applied": (*uint64)(d.LSN.Applied),
	} {
		if lsn != nil {
			gauge(c.lsn, float64(*lsn), d.Name, step)
		}
	}
	gauge(c.size, float64(d.Sizes.Database), d.Name, "database")
	gauge(c.size, float64(d.Sizes.SQLiteWAL), d.Name, "sqlite_wal")
	for what, size := range map[string]int64{"change_log": d.Sizes.ChangeLog, "snapshot": d.Sizes.Snapshot} {
		if size != 0 || c.o.Role != roleReplica {
			gauge(c.size, float64(size), d.Name, what)
		}
	}
	c.lag.collect(gauge, d.Lag, d.Name)
	for _, r := range d.Replicas {
		gauge(c.replicaLSN, float64(r.Applied), d.Name, r.Node)
		gauge(c.replicaAlive, oneIf(r.Alive), d.Name, r.Node)
		c.replicaLag.collect(gauge, r.Lag, d.Name, r.Node)
	}
}

func (s *Stalls) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	upTo, total := make(map[float64]uint64, len(s.Bounds)), uint64(0)
	for i, n := range s.Counts {
		total += n
		if i < len(s.Bounds) {
			upTo[s.Bounds[i]] = total
		}
	}
	return prometheus.MustNewConstHistogram(desc, total, s.SumSeconds, upTo, labels...)
}

func (l lagDescs) collect(gauge func(*prometheus.Desc, float64, ...string), lag Lag, labels ...string) {
	if lag.Transactions != nil {
		gauge(l.transactions, float64(*lag.Transactions), labels...)
	}
	if lag.Bytes != nil {
		gauge(l.bytes, float64(*lag.Bytes), labels...)
	}
	if lag.Seconds != nil {
		gauge(l.seconds, *lag.Seconds, labels...)
	}
}

func kindOf(name string) prometheus.ValueType {
	if strings.HasSuffix(name, "_total") {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
