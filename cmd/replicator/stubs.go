package main

import "github.com/spf13/cobra"

func newDemo(e *environment) *cobra.Command { return &cobra.Command{Use: "demo"} }
func newDemoWriter(e *environment) *cobra.Command {
	return &cobra.Command{Use: "demo-writer", Hidden: true}
}
func newSnapshot(e *environment) *cobra.Command { return &cobra.Command{Use: "snapshot"} }
func newRestore(e *environment) *cobra.Command  { return &cobra.Command{Use: "restore"} }
func newLog(e *environment) *cobra.Command      { return &cobra.Command{Use: "log"} }
