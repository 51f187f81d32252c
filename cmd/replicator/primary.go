package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newPrimary(e *environment) *cobra.Command {
	var file string
	cmd := command(e, "primary --config FILE", "Capture databases and publish their changes", func(ctx context.Context, e *environment) error {
		cfg, err := loadPrimary(e, file)
		if err != nil {
			return err
		}
		return runPrimary(ctx, e, cfg)
	})
	configFlag(cmd, &file)
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "configuration file (required)")
	require(cmd, "config")
}
