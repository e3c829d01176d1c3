package cluster

import (
	"testing"
	"testing/synctest"
	"time"
)

// However many creates have doubts, one round of pings goes out, and what it found is good for a while.
func TestOneRoundOfDoubts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		first := c.doubts.start()
		if c.doubts.start() != first {
			t.Error("a second create began a round of its own")
		}
		<-first.done
		time.Sleep(freshRound)
		if c.doubts.start() != first {
			t.Error("what was just found is not used")
		}
		time.Sleep(time.Millisecond)
		if c.doubts.start() == first {
			t.Error("what was found long ago is used")
		}
		c.doubts.close()
		c.work.Wait()
		time.Sleep(2 * freshRound)
		<-c.doubts.start().done // without a goroutine
	})
}

func TestMeter(t *testing.T) {
	var m meter
	at := time.Unix(1000, 0)
	for range 5 {
		m.add(at)
	}
	for after, want := range map[time.Duration]int{0: 5, time.Second: 5, 2 * time.Second: 0} {
		if got := m.rate(at.Add(after)); got != want {
			t.Errorf("after %s: %d, want %d", after, got, want)
		}
	}
	m.add(at.Add(time.Second))
	if got := m.rate(at.Add(time.Second)); got != 5 {
		t.Errorf("as the next second begins: %d", got)
	}
	m.add(at.Add(5 * time.Second))
	if got := m.rate(at.Add(5 * time.Second)); got != 1 {
		t.Errorf("after a pause: %d", got)
	}
}
