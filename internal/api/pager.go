package api

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
)

// pager sends a long body in pages, one while the next is being made. A client that reads slowly holds no more than those.
type pager struct {
	w    http.ResponseWriter
	page []byte // the one being made

	full chan []byte // nil until there is a second page
	free chan []byte
	sent sync.WaitGroup
	gone atomic.Bool
}

const (
	pageSize = 128 << 10
	pageRoom = 2 * pageSize // what is added at once may be more than what was left
	pagesOut = 2
)

var pages = sync.Pool{New: func() any { return make([]byte, 0, pageRoom) }}

func newPage() []byte {
	b, _ := pages.Get().([]byte)
	return b[:0]
}

func newPager(w http.ResponseWriter) *pager { return &pager{w: w, page: newPage()} }

// turn hands on a page that is full, and tells whether the client is still there.
func (p *pager) turn() bool {
	if len(p.page) < pageSize {
		return true
	}
	if p.full == nil {
		p.start()
	}
	p.full <- p.page
	p.page = <-p.free
	return !p.gone.Load()
}

// start begins to send beside the making. end waits for it.
func (p *pager) start() {
	p.full, p.free = make(chan []byte, pagesOut), make(chan []byte, pagesOut+1)
	for range pagesOut {
		p.free <- newPage()
	}
	p.sent.Go(func() {
		for b := range p.full {
			if !p.gone.Load() {
				if _, err := p.w.Write(b); err != nil {
					p.gone.Store(true)
				}
			}
			p.free <- b[:0]
		}
	})
}

// fail is how the body ends if it cannot be made to its end: with the error, if nothing was sent yet.
func (p *pager) fail(err error) error {
	p.page = nil
	if p.full != nil {
		p.gone.Store(true)
		panic(http.ErrAbortHandler) // half a body must not be taken for a whole one
	}
	return err
}

// end sends what is left and returns when all is sent.
func (p *pager) end() {
	if p.full == nil {
		if p.page != nil {
			p.w.Header().Set("Content-Length", strconv.Itoa(len(p.page)))
			_, _ = p.w.Write(p.page) // a client that is gone cannot be told
			pages.Put(p.page)        //nolint:staticcheck // a slice's head is small beside what it holds
		}
		return
	}
	if p.page != nil {
		p.full <- p.page
	}
	close(p.full)
	p.sent.Wait()
	close(p.free)
	for b := range p.free {
		pages.Put(b) //nolint:staticcheck // likewise
	}
}
