package primary

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

func testObject(rowid int64, name, sql string) *object {
	return &object{
		row:  sqlitefile.SchemaRow{Rowid: rowid, Type: typeTable, Name: name, Table: name, Root: uint32(rowid) + 10, SQL: sql, HasSQL: true},
		tree: &tree{root: uint32(rowid) + 10, table: &cdc.Table{Name: name}},
	}
}

func TestPairEdits(t *testing.T) {
	o := testObject
	view := o(5, "v", "v")
	view.row.Type, view.row.Root, view.tree = typeView, 0, nil
	tests := []struct {
		name  string
		edits []rowEdit
		want  []string
	}{
		{"rename", []rowEdit{{o(1, "a", "x"), o(1, "b", "y")}}, []string{"a>b"}},
		{"drop and rename to it", []rowEdit{{o(1, "a", "x"), nil}, {o(2, "b", "x"), o(2, "a", "x")}}, []string{"a>", "b>a"}},
		{"swap", []rowEdit{{o(1, "a", "x"), o(1, "b", "x")}, {o(2, "b", "x"), o(2, "a", "x")}}, []string{"a>b", "b>a"}},
		{"vacuum", []rowEdit{{o(3, "a", "x"), o(2, "a", "x")}, {o(4, "b", "x"), nil}}, []string{"a>a", "b>"}},
		{"vacuum moves all", []rowEdit{{nil, o(2, "b", "x")}, {o(3, "b", "x"), o(3, "c", "y")}, {o(4, "c", "y"), nil}}, []string{"b>b", "c>c"}},
		{"created again", []rowEdit{{o(1, "a", "x"), nil}, {nil, o(7, "a", "z")}}, []string{"a>a"}},
		{"a view is no table", []rowEdit{{o(5, "v", "v"), view}}, []string{">v", "v>"}},
		{"create", []rowEdit{{nil, o(1, "a", "x")}}, []string{">a"}},
	}
	for _, tt := range tests {
		var got []string
		for _, p := range pairEdits(tt.edits, renumbered(tt.edits)) {
			name := func(o *object) string {
				if o == nil {
					return ""
				}
				return o.row.Name
			}
			got = append(got, name(p.old)+">"+name(p.new))
		}
		slices.Sort(got)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestSortChanges(t *testing.T) {
	edit := func(from, to string) cdc.SchemaChange {
		var c cdc.SchemaChange
		if from != "" {
			c.Old = &cdc.SchemaObject{Type: typeTable, Name: from}
		}
		if to != "" {
			c.New = &cdc.SchemaObject{Type: typeTable, Name: to}
		}
		return c
	}
	in := []cdc.SchemaChange{edit("b", "c"), edit("", "z"), edit("a", "b"), edit("c", "d"), edit("x", ""), edit("x", "y"), edit("m", "n"), edit("n", "m")}
	for range 2 {
		var got []string
		for _, c := range sortChanges(slices.Clone(in)) {
			got = append(got, describeOp(&cdc.Change{Op: cdc.OpSchema, Schema: &c}))
		}
		var want []string
		for _, p := range [][2]string{{"c", "d"}, {"b", "c"}, {"a", "b"}, {"n", "m"}, {"m", "n"}, {"x", ""}, {"x", "y"}, {"", "z"}} {
			c := edit(p[0], p[1])
			want = append(want, describeOp(&cdc.Change{Op: cdc.OpSchema, Schema: &c}))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		// The order of what comes from a map must not matter.
		in[0], in[2], in[3] = in[3], in[0], in[2]
	}
}

func TestSchemaRefusesSharedRoots(t *testing.T) {
	s := newSchema()
	for i, want := range []bool{true, false} {
		o := testObject(int64(i+1), fmt.Sprint("t", i), "")
		o.tree.root = 7
		if err := s.add(o); (err == nil) != want {
			t.Errorf("table %d: %v", i, err)
		}
	}
}

// TestNoSchemaIsQuoted: a page of sqlite_schema that leads to the rows of a table makes
// schema rows of them.
func TestNoSchemaIsQuoted(t *testing.T) {
	for _, row := range []sqlitefile.SchemaRow{
		{Rowid: 7, Type: "SECRET", Name: "t", Table: "t"},
		{Rowid: 7, Type: "table", Name: "SECRET", Table: "other"},
	} {
		if _, err := newObject(row, nil, nil); !errors.Is(err, errInconsistent) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%v", err)
		}
	}
}
