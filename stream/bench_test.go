package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// benchSizes are records of one small row and of a hundred.
var benchSizes = []int{200, 10 << 10}

func BenchmarkPublish(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			s := create(b, testConn(b), 1, StreamConfig{})
			rec := bytes.Repeat([]byte{7}, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			err := s.Publish(context.Background(), 0, upTo(0, cdc.LSN(b.N), func(cdc.LSN) []byte { return rec }), func(cdc.LSN) {})
			if !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func BenchmarkConsume(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			s := create(b, testConn(b), 1, StreamConfig{})
			rec := bytes.Repeat([]byte{7}, size)
			err := s.Publish(context.Background(), 0, upTo(0, cdc.LSN(b.N), func(cdc.LSN) []byte { return rec }), func(cdc.LSN) {})
			if !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			err = s.Consume(context.Background(), 1, func(_ []byte, lsn cdc.LSN, _ uint64) error {
				if lsn == cdc.LSN(b.N) {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
