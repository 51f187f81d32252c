package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const examples = "../../configs"

func TestExamplesLoad(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil || len(paths) < 6 {
		t.Fatalf("found %d examples, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), ".yaml"), "-")
			role, err := Check(path, nil)
			if err != nil || role != want && role != RoleEither {
				t.Errorf("Check = %q, %v, want %q or %q", role, err, want, RoleEither)
			}
			if want == RolePrimary {
				p, err := LoadPrimary(path, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Resolve("/srv").Validate(); err != nil {
					t.Errorf("resolved: %v", err)
				}
				return
			}
			c, err := LoadReplica(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Resolve("/srv").Validate(); err != nil {
				t.Errorf("resolved: %v", err)
			}
		})
	}
}

func TestFullExamplesAreDefaults(t *testing.T) {
	for _, role := range []string{RolePrimary, RoleReplica} {
		want, err := Defaults(role)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(examples, role+"-full.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("configs/%s-full.yaml differs from Defaults(%[1]q) (-want +got):\n%s", role, diff)
		}
	}
	if _, err := Defaults("leader"); !errors.Is(err, ErrInvalid) {
		t.Errorf("Defaults of an unknown role: %v", err)
	}
}

func TestDefaultsAreTheDefaults(t *testing.T) {
	text, _ := Defaults(RolePrimary)
	p, err := ParsePrimary("defaults", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantP := DefaultPrimary()
	wantP.Node = "primary-1"
	wantP.Databases = []PrimaryDatabase{{Name: "app", Path: "./data/app.db"}}
	if diff := cmp.Diff(wantP, p); diff != "" {
		t.Errorf("primary (-want +got):\n%s", diff)
	}

	text, _ = Defaults(RoleReplica)
	r, err := ParseReplica("defaults", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantR := DefaultReplica()
	wantR.Node = "replica-1"
	wantR.Databases = []ReplicaDatabase{{Name: "app", Path: "./data/replica-1/app.db"}}
	if diff := cmp.Diff(wantR, r); diff != "" {
		t.Errorf("replica (-want +got):\n%s", diff)
	}
}

// A key that Defaults leaves out would be one that nobody can find.
func TestDefaultsHaveEveryKey(t *testing.T) {
	for role, schema := range schemas() {
		text, _ := Defaults(role)
		root, err := parseYAML(role, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		r := newReport(role)
		r.schema = schema
		r.section(root, schema, "")
		eachLeaf(schema, "", func(key string, _ reflect.Type) {
			if r.origin[key] == "" {
				t.Errorf("%s: no %s", role, key)
			}
		})
		list, _ := schema.FieldByName("Databases")
		eachField(list.Type.Elem(), func(key string, _ reflect.Type) {
			if r.origin["databases[0]."+key] == "" {
				t.Errorf("%s: no databases[0].%s", role, key)
			}
		})
	}
}

func schemas() map[string]reflect.Type {
	return map[string]reflect.Type{RolePrimary: reflect.TypeFor[Primary](), RoleReplica: reflect.TypeFor[Replica]()}
}
