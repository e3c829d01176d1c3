package api

import (
	"reflect"
	"strings"
	"testing"

	"berth/internal/rawjson"
)

// TestAllThatIsReadOfACreateIsPicked finds a field that was added to createConfig and not to readOfCreate.
func TestAllThatIsReadOfACreateIsPicked(t *testing.T) {
	var check func(in string, of reflect.Type, wants []rawjson.Want)
	check = func(in string, of reflect.Type, wants []rawjson.Want) {
		for i := range of.NumField() {
			f, found := of.Field(i), false
			for _, w := range wants {
				if strings.EqualFold(w.Key, f.Name) {
					found = true
					if w.Inside != nil {
						check(f.Name, f.Type, w.Inside)
					}
				}
			}
			if !found {
				t.Errorf("%s of %s is not picked", f.Name, in)
			}
		}
		if len(wants) != of.NumField() {
			t.Errorf("of %s %d fields are picked, and %d are read", in, len(wants), of.NumField())
		}
	}
	check("the body", reflect.TypeFor[createConfig](), readOfCreate)
}
