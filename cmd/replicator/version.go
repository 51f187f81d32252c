package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

func newVersion(e *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of replicator and of the SQLite in it",
		Args:  cobra.NoArgs,
		RunE:  runs(func(*cobra.Command, []string) error { return runVersion(e) }),
	}
}

func runVersion(e *environment) error {
	build := buildInfo()
	fmt.Fprintf(e.stdout, "replicator %s\n", build.version)
	if build.revision != "" {
		fmt.Fprintf(e.stdout, "commit     %s\n", build.revision)
	}
	fmt.Fprintf(e.stdout, "go         %s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(e.stdout, "sqlite     %s\n", sqlite.Version())
	if build.tags != "" {
		fmt.Fprintf(e.stdout, "tags       %s\n", build.tags)
	}
	return sqlite.CheckBuild()
}

// A build says what the toolchain wrote into the program.
type build struct{ version, revision, tags string }

func buildInfo() build {
	b := build{version: "devel"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.version = v
	}
	dirty := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = " (modified)"
			}
		case "-tags":
			b.tags = s.Value
		}
	}
	if b.revision != "" {
		b.revision += dirty
	}
	return b
}
