package main

import (
	"github.com/spf13/cobra"
)

func newPrimary(e *environment) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "primary --config FILE",
		Short: "Capture databases and publish their changes",
		Args:  cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadPrimary(e, file)
			if err != nil {
				return err
			}
			return runPrimary(cmd.Context(), e, cfg)
		}),
	}
	configFlag(cmd, &file)
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "configuration file (required)")
	_ = cmd.MarkFlagRequired("config") // fails only for a flag that does not exist
}
