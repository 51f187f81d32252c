package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/config"
)

func newConfig(e *environment) *cobra.Command {
	return group("config", "Check a configuration, or print one to start from",
		&cobra.Command{
			Use:   "check FILE",
			Short: "Report every mistake in a configuration",
			Args:  cobra.ExactArgs(1),
			RunE:  runs(func(_ *cobra.Command, args []string) error { return runConfigCheck(e, args[0]) }),
		},
		&cobra.Command{
			Use:       "defaults primary|replica",
			Short:     "Print a commented configuration with every default",
			Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
			ValidArgs: []string{config.RolePrimary, config.RoleReplica},
			RunE:      runs(func(_ *cobra.Command, args []string) error { return runConfigDefaults(e, args[0]) }),
		},
	)
}

func runConfigCheck(e *environment, file string) error {
	role, err := config.Check(file, e.environ)
	if err != nil {
		return err
	}
	// Two spellings of one path are seen as one only now.
	if role != config.RoleReplica {
		_, err = loadPrimary(e, file)
	}
	if role != config.RolePrimary && err == nil {
		_, err = loadReplica(e, file)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s: a valid configuration of a %s\n", file, role)
	return nil
}

func runConfigDefaults(e *environment, role string) error {
	text, err := config.Defaults(role)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(e.stdout, text)
	return err
}

// loadPrimary reads a primary's configuration with absolute paths.
func loadPrimary(e *environment, file string) (config.Primary, error) {
	p, err := config.LoadPrimary(file, e.environ)
	if err != nil {
		return p, err
	}
	p = p.Resolve(e.wd)
	return p, p.Validate()
}

// loadReplica reads a replica's configuration with absolute paths.
func loadReplica(e *environment, file string) (config.Replica, error) {
	r, err := config.LoadReplica(file, e.environ)
	if err != nil {
		return r, err
	}
	r = r.Resolve(e.wd)
	return r, r.Validate()
}
