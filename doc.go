// Package replicator is the root of a program that keeps live copies of SQLite
// databases. There is no code in it: the program is cmd/replicator, and DESIGN.md
// says how the packages below fit together. The packages may be imported; none
// of them keeps global state.
package replicator
