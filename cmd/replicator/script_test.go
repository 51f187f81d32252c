package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sqlite-replicator/replicator/internal/loopback"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"replicator": main})
}

// TestScripts runs testdata/script. Besides testscript's own commands:
//
//	freeports NAME...       sets each variable to a TCP port that nobody uses
//	expand FILE...          replaces $NAME in files
//	capture NAME            sets a variable to the last standard output
//	exits CODE COMMAND...   runs a command that must end with that exit code
//
// Scripts never sleep: `replicator wait` and `replicator sync` wait for nodes,
// positions and replicas.
func TestScripts(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Fatal("the sqlite3 shell stands for the programs that write a database: install it")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"freeports": freeports, "expand": expand, "capture": capture, "exits": exits,
		},
	})
}

// given is shared by all scripts of this process.
var given loopback.Addresses

func freeports(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		address, err := given.Free()
		ts.Check(err)
		_, port, err := net.SplitHostPort(address)
		ts.Check(err)
		ts.Setenv(name, port)
	}
}

func expand(ts *testscript.TestScript, _ bool, files []string) {
	for _, file := range files {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}

func capture(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: capture NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}
