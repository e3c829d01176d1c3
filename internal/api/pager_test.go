package api

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestPagesArriveInOrder(t *testing.T) {
	for _, size := range []int{0, 10, pageSize - 1, pageSize, 5*pageSize + 7} {
		w := httptest.NewRecorder()
		p := newPager(w)
		var want []byte
		for i := range size {
			p.page = append(p.page, byte(i%251))
			want = append(want, byte(i%251))
			if !p.turn() {
				t.Fatal("the client is said to be gone")
			}
		}
		p.end()
		if !bytes.Equal(w.Body.Bytes(), want) {
			t.Errorf("%d bytes arrived of %d, or in another order", w.Body.Len(), size)
		}
	}
}

type broken struct{ http.ResponseWriter }

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestAClientThatIsGoneEndsTheMaking(t *testing.T) {
	p := newPager(broken{httptest.NewRecorder()})
	pages := 0
	for there := true; there; pages++ {
		if pages > 100 {
			t.Fatal("pages are made for nobody")
		}
		p.page = append(p.page, make([]byte, pageSize)...)
		there = p.turn()
	}
	p.end()
}

func TestABodyThatFails(t *testing.T) {
	p := newPager(httptest.NewRecorder())
	p.page = append(p.page, '[')
	if err := p.fail(errors.New("broken row")); err == nil || err.Error() != "broken row" {
		t.Errorf("fail = %v", err)
	}
	p.end()
	p = newPager(httptest.NewRecorder())
	p.page = append(p.page, make([]byte, pageSize)...)
	p.turn()
	defer func() {
		if recover() != http.ErrAbortHandler { //nolint:errorlint // it is this very value
			t.Error("half a body was taken for a whole one")
		}
		p.end()
	}()
	_ = p.fail(errors.New("broken row"))
}
