package main

import (
	"github.com/spf13/cobra"
)

func newReplica(e *environment) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "replica --config FILE",
		Short: "Keep copies of databases",
		Args:  cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadReplica(e, file)
			if err != nil {
				return err
			}
			return runReplica(cmd.Context(), e, cfg)
		}),
	}
	configFlag(cmd, &file)
	return cmd
}
