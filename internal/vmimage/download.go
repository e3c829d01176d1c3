package vmimage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"berth/internal/atomicfile"
)

// How long a server may take, and how often it may break off without anything new having come.
const (
	answerTime = 30 * time.Second
	stallTime  = 60 * time.Second
	attempts   = 4
	maxList    = 8 << 20 // of a list of checksums
)

// partNote says what the bytes are of that have come so far.
type partNote struct {
	Name, URL string
	Digest    Digest `json:",omitempty"` // of the whole
	Validator string `json:",omitempty"` // an ETag or a date, by which the server knows the version that they are of
}

func (c *Cache) readPart(key string) (note partNote, size int64) {
	data, err := os.ReadFile(c.path(key, partNoteEnd))
	if err != nil || json.Unmarshal(data, &note) != nil {
		return partNote{}, 0
	}
	info, err := os.Stat(c.path(key, partEnd))
	if err != nil {
		return note, 0
	}
	return note, info.Size()
}

func (c *Cache) writePart(key string, note partNote) error {
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return atomicfile.Write(c.path(key, partNoteEnd), data, 0o600)
}

// CutError is a download that broke off. What has come is kept, and the next one goes on from there.
type CutError struct {
	Done, Total int64 // 0 for an unknown total
	Err         error
}

func (e *CutError) Error() string {
	of := ""
	if e.Total > 0 {
		of = fmt.Sprintf(" of %d", e.Total>>20)
	}
	return fmt.Sprintf("the download broke off after %d%s MB: %v (what has come is kept: try again to go on)", e.Done>>20, of, e.Err)
}

func (e *CutError) Unwrap() error { return e.Err }

// download brings the image into its part file, going on from what is there.
func (c *Cache) download(ctx context.Context, s Source, wanted Digest, r Reporter) error {
	what := "Downloading " + s.Name
	r.Line(what + "...")
	barren := 0
	for {
		before := c.kept(s, wanted)
		total, err := c.fetchRest(ctx, s, wanted, before, func(done, total int64) { r.Bar(what, done, total) })
		if err == nil {
			return nil
		}
		var refused *statusError
		var full *NoSpaceError
		switch {
		case errors.As(err, &full): // what is there only makes it worse
			return errors.Join(err, c.drop(s.key(), partEnd, partNoteEnd))
		case errors.As(err, &refused) && !refused.passing():
			return err
		}
		after := c.kept(s, wanted)
		if barren++; after > before {
			barren = 0
		}
		if ctx.Err() != nil || barren >= attempts {
			return &CutError{after, total, cmp.Or(context.Cause(ctx), err)}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(barren+1) * cmp.Or(c.pace, time.Second)):
			r.Line(fmt.Sprintf("The download of %s broke off (%v): going on", s.Name, err))
		}
	}
}

// kept is how much has come of what is wanted.
func (c *Cache) kept(s Source, wanted Digest) int64 {
	note, size := c.readPart(s.key())
	if note.URL != s.URL || note.Digest != wanted || note.Digest == "" && note.Validator == "" {
		return 0
	}
	return size
}

// fetchRest asks for what is missing and appends it. The total is 0 where nobody knows it.
func (c *Cache) fetchRest(ctx context.Context, s Source, wanted Digest, from int64, report func(done, total int64)) (total int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return 0, err
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		// Where the whole has a checksum it does not matter which mirror a part is from.
		if note, _ := c.readPart(s.key()); wanted == "" {
			req.Header.Set("If-Range", note.Validator)
		}
	}
	resp, err := c.client().Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	switch {
	case resp.StatusCode == http.StatusPartialContent && from > 0:
		if total = rangeTotal(resp.Header.Get("Content-Range"), from); total < 0 {
			return 0, fmt.Errorf("%s sent another part than was asked for: %s", req.URL.Host, resp.Header.Get("Content-Range"))
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && from > 0:
		// All of it is there, or more than all: the checksum tells. Where there is none, it is begun anew.
		if wanted != "" && resp.Header.Get("Content-Range") == fmt.Sprintf("bytes */%d", from) {
			return from, nil
		}
		return 0, errors.Join(errors.New("what had come did not fit any more"), c.drop(s.key(), partEnd, partNoteEnd))
	case resp.StatusCode == http.StatusOK:
		from, total = 0, max(resp.ContentLength, 0)
	default:
		return 0, &statusError{s.URL, resp.StatusCode}
	}
	if err := c.room(total - from); err != nil {
		return total, err
	}
	return total, c.appendPart(ctx, cancel, s, wanted, from, total, resp, report)
}

// appendPart writes what comes behind what is there. A server that sends nothing for a while is given up.
func (c *Cache) appendPart(ctx context.Context, cancel context.CancelCauseFunc, s Source, wanted Digest, from, total int64, resp *http.Response, report func(done, total int64)) (err error) {
	validator := ""
	if etag := resp.Header.Get("ETag"); etag != "" && !strings.HasPrefix(etag, "W/") {
		validator = etag
	}
	note := partNote{s.Name, s.URL, wanted, cmp.Or(validator, resp.Header.Get("Last-Modified"))}
	f, err := os.OpenFile(c.path(s.key(), partEnd), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return c.full(err)
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	if err := f.Truncate(from); err != nil {
		return err
	}
	if err := c.writePart(s.key(), note); err != nil {
		return c.full(err)
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err
	}
	stalled := time.AfterFunc(stallTime, func() { cancel(fmt.Errorf("nothing came for %s", stallTime)) })
	defer stalled.Stop()
	came := int64(0)
	err = c.pour(ctx, f, resp.Body, func(done int64) {
		stalled.Reset(stallTime)
		came = done
		report(from+done, total)
	})
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	if total > 0 && from+came != total {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// rangeTotal reads "bytes FROM-TO/TOTAL"; it is -1 if that begins elsewhere, and 0 for an unknown total.
func rangeTotal(header string, from int64) int64 {
	span, total, ok := strings.Cut(strings.TrimPrefix(header, "bytes "), "/")
	begin, _, _ := strings.Cut(span, "-")
	if b, err := strconv.ParseInt(begin, 10, 64); !ok || err != nil || b != from {
		return -1
	}
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// statusError is a server that does not give what it was asked for.
type statusError struct {
	url    string
	status int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s answered %d %s", e.url, e.status, http.StatusText(e.status))
}

// passing tells whether it may be better in a moment.
func (e *statusError) passing() bool {
	return e.status >= 500 || e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout
}

// fetch gets a small file.
func (c *Cache) fetch(ctx context.Context, address string) ([]byte, error) {
	if file := (Source{URL: address}).file(); file != "" {
		return os.ReadFile(file)
	}
	ctx, cancel := context.WithTimeout(ctx, stallTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{address, resp.StatusCode}
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxList))
}

// Check tells whether the image can be had, and how many bytes it will take; 0 if nobody says. One that is there takes none.
func (c *Cache) Check(ctx context.Context, s Source) (size int64, err error) {
	if _, ok := c.Find(s); ok {
		return 0, nil
	}
	if file := s.file(); file != "" {
		info, err := os.Stat(file)
		if err != nil {
			return 0, fmt.Errorf("image %s: %w", s.Name, err)
		}
		return info.Size(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.URL, nil)
	if err != nil {
		return 0, fmt.Errorf("image %s: %w", s.Name, err)
	}
	resp, err := c.client().Do(req)
	if err != nil {
		return 0, fmt.Errorf("image %s is not in the cache and cannot be downloaded: %w", s.Name, err)
	}
	if err := resp.Body.Close(); err != nil {
		return 0, err
	}
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden, http.StatusUnauthorized:
		return 0, fmt.Errorf("image %s: %w", s.Name, &statusError{s.URL, resp.StatusCode})
	}
	return max(resp.ContentLength, 0), nil
}

func (c *Cache) client() *http.Client {
	if c.Client != nil {
		return c.Client
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: answerTime}).DialContext,
		TLSHandshakeTimeout:   answerTime,
		ResponseHeaderTimeout: answerTime,
		DisableKeepAlives:     true,
	}}
}
