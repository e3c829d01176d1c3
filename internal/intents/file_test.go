package intents_test

import (
	"os"
	"path/filepath"
	"testing"

	"berth/internal/intents"
	"berth/internal/intents/intentstest"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := func(place string) string { return filepath.Join(dir, place, "intents.json") }
	intentstest.Run(t, intentstest.Server{
		New: func(_ *testing.T, place string) intents.Shelf { return intents.NewFile(path(place)) },
		Wipe: func(t *testing.T, place string) {
			if err := os.Remove(path(place)); err != nil {
				t.Fatal(err)
			}
		},
	})
}
