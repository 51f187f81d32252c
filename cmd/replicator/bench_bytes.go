package main

import (
	"context"
	"fmt"

	"github.com/sqlite-replicator/replicator/cdc"
)

// wordyBody is the length in bytes of the text of a row that is mostly text.
const wordyBody = 1000

// bytesScenario counts what becomes of a row on the disk of the primary and in the
// stream, which is what goes to each replica.
func bytesScenario(ctx context.Context, b *bench) error {
	for _, kind := range []struct {
		name  string
		words int
		raw   int // bytes of the values of a row
	}{
		{"rows of the bench", 0, benchRowSize},
		{"rows of text", wordyBody, benchRowSize - benchBody + wordyBody},
	} {
		for _, job := range []writeJob{
			{rows: 100, transactions: max(b.scale.bulk/500, 1)},
			{rows: 1, rate: 200, window: b.scale.window},
		} {
			job.synchronous, job.words = "NORMAL", kind.words
			for _, codec := range []cdc.Codec{cdc.S2, cdc.Zstd} {
				o, err := b.try(ctx, trial{job: job, primary: true, settings: []string{fmt.Sprintf("change_log: {compression: %s}", codec)}})
				if err != nil {
					return err
				}
				name := fmt.Sprintf("%s, %d/tx, %s", kind.name, job.rows, codec)
				each := float64(o.stored) / float64(o.write.Rows)
				b.out.against(name, each, float64(kind.raw), "bytes/row", fmt.Sprintf("stream; change log %s; %s transactions a second, CPU of the primary %s %% of a core",
					short(float64(o.logBytes)/float64(o.write.Rows)), short(o.write.perSecond()), short(100*o.primaryCPU)))
			}
		}
	}
	return nil
}
