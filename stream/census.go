package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A survey is what JetStream says of a stream.
type survey struct {
	Info
	subjects []string // that it listens on
}

func surveyOf(i *jetstream.StreamInfo) survey {
	info := Info{
		Exists: true, First: cdc.LSN(i.State.FirstSeq), Last: cdc.LSN(i.State.LastSeq),
		Created: i.Created, FirstTime: i.State.FirstTime, LastTime: i.State.LastTime,
		Messages: i.State.Msgs, Bytes: i.State.Bytes, MaxBytes: max(i.Config.MaxBytes, 0),
	}
	if info.Messages == 0 {
		info.First = info.Last + 1
	}
	return survey{Info: info, subjects: i.Config.Subjects}
}

const (
	// listFrom is the number of streams from which one list of all costs less than
	// a question for each.
	listFrom = 4
	// listWaste is how many streams a list may name for each that was asked for.
	listWaste = 3
	// gatherFor is how long a question waits for others, where there are so many
	// streams: what falls together takes a while to come.
	gatherFor = 10 * time.Millisecond
	// listPatience is how long a list may take, so that time is left to ask for each.
	listPatience = time.Second
	// listAgain is when a list is tried again that was not answered: the server was
	// busy, or does not allow it, which is answered by silence.
	listAgain = 10 * time.Second
)

// A census asks for the state of streams, of many in one question: what a hundred
// idle databases ask at a common tick costs the server and us a third of a hundred
// questions. No answer is older than its question. It may be used concurrently.
type census struct {
	conn *Conn

	mu      sync.Mutex
	streams map[string]bool     // that may be asked for, by name
	next    map[string]*finding // wanted and not asked for yet, by name
	total   int                 // streams in the last list
	noLists time.Time           // until then: one was not answered
}

type finding struct {
	survey
	err  error
	done chan struct{} // closed when the others are set
}

func (f *finding) set(s survey, err error) {
	f.survey, f.err = s, err
	close(f.done)
}

// expect tells of a stream that will be asked for.
func (c *census) expect(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams == nil {
		c.streams = make(map[string]bool)
	}
	c.streams[name] = true
}

// of gives the state of a stream. It takes some seconds at most.
func (c *census) of(ctx context.Context, name string) (survey, error) {
	// In a cluster each stream has its own leader, and a list waits for all of them.
	if c.conn.nc.ConnectedClusterName() != "" || !c.many() {
		return c.one(ctx, name)
	}
	f := c.want(name)
	select {
	case <-f.done:
		return f.survey, f.err
	case <-ctx.Done():
		return survey{}, ctx.Err()
	}
}

func (c *census) many() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams) >= listFrom
}

func (c *census) want(name string) *finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(map[string]*finding)
		time.AfterFunc(gatherFor, c.ask) // every question in it is bounded
	}
	f := c.next[name]
	if f == nil {
		f = &finding{done: make(chan struct{})}
		c.next[name] = f
	}
	return f
}

// ask finds what is wanted by now: by a list, if that is worth it, and what is not in
// it one by one.
func (c *census) ask() {
	c.mu.Lock()
	wanted := c.next
	c.next = nil
	list := len(wanted) >= listFrom && len(wanted)*listWaste >= c.total && time.Now().After(c.noLists)
	c.mu.Unlock()
	if list {
		total, err := c.list(wanted)
		if err != nil {
			c.conn.log.Debug("stream: streams cannot be listed and are asked for one by one", "err", err)
		}
		c.mu.Lock()
		if c.total = total; err != nil {
			c.noLists = time.Now().Add(listAgain)
		}
		c.mu.Unlock()
	}
	for name, f := range wanted {
		go func() { f.set(c.one(context.Background(), name)) }()
	}
}

func (c *census) one(ctx context.Context, name string) (survey, error) {
	ctx, cancel := c.conn.request(ctx)
	defer cancel()
	h, err := c.conn.js.Stream(ctx, name)
	if err != nil {
		return survey{}, err
	}
	return surveyOf(h.CachedInfo()), nil
}

// list takes what it finds out of wanted, and tells how many streams there are.
func (c *census) list(wanted map[string]*finding) (total int, err error) {
	ctx, cancel := c.conn.bounded(context.Background(), listPatience)
	defer cancel()
	for offset := 0; len(wanted) > 0; {
		ask := fmt.Appendf(nil, `{"offset":%d,"subject":%q}`, offset, allSubjects)
		msg, err := c.conn.nc.RequestWithContext(ctx, "$JS.API.STREAM.LIST", ask)
		if err != nil {
			return total, err
		}
		var page struct {
			Error   *jetstream.APIError
			Total   int
			Streams []listed
		}
		if err := json.Unmarshal(msg.Data, &page); err != nil {
			return total, err
		}
		if page.Error != nil {
			return total, page.Error
		}
		total = page.Total
		for _, s := range page.Streams {
			if f := wanted[s.Config.Name]; f != nil {
				delete(wanted, s.Config.Name)
				f.set(s.survey(), nil)
			}
		}
		if offset += len(page.Streams); offset >= total || len(page.Streams) == 0 {
			break
		}
	}
	return total, nil
}

// listed is what is read of a stream in a list, which has much more.
type listed struct {
	Created time.Time
	Config  struct {
		Name     string
		Subjects []string
		MaxBytes int64 `json:"max_bytes"`
	}
	State jetstream.StreamState
}

func (l *listed) survey() survey {
	return surveyOf(&jetstream.StreamInfo{
		Created: l.Created, State: l.State,
		Config: jetstream.StreamConfig{MaxBytes: l.Config.MaxBytes, Subjects: l.Config.Subjects},
	})
}
