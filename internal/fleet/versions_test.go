package fleet

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

func TestVersionsFollowTheNodes(t *testing.T) {
	engines := []string{"", "20.10.24+dfsg1", "20.10.9", "29.0.0-beta.24", "28.3.0"}
	apis := []string{"", "1.9", "1.41", "1.56", "1.51"}
	random := rand.New(rand.NewPCG(1, 2))
	s := new(Snapshot)
	for range 5000 {
		id := strconv.Itoa(random.IntN(6))
		if random.IntN(4) == 0 {
			s = s.Without(id)
		} else {
			i := random.IntN(len(engines))
			s = s.Replace((&Node{ID: id, Name: id, Version: engines[i], API: apis[i]}).Seal())
		}
		var want Versions
		for _, n := range s.Nodes() {
			want.add(n)
		}
		if got := s.Versions(); got != want {
			t.Fatalf("versions %+v, want %+v", got, want)
		}
	}
}

func TestVersionsCompareAsNumbers(t *testing.T) {
	s := new(Snapshot).
		Replace(&Node{ID: "a", Version: "20.10.24+dfsg1", API: "1.41"}).
		Replace(&Node{ID: "b", Version: "20.10.9", API: "1.9"}).
		Replace(&Node{ID: "c", Version: "29.0.0-beta.24", API: "1.56"})
	if got, want := s.Versions(), (Versions{"20.10.9", "29.0.0-beta.24", "1.56"}); got != want {
		t.Errorf("versions %+v, want %+v", got, want)
	}
}
