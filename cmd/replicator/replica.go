package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newReplica(e *environment) *cobra.Command {
	var file string
	cmd := command(e, "replica --config FILE", "Keep copies of databases", func(ctx context.Context, e *environment) error {
		cfg, err := loadReplica(e, file)
		if err != nil {
			return err
		}
		return runReplica(ctx, e, cfg)
	})
	configFlag(cmd, &file)
	return cmd
}
