package relay

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
)

const (
	frameHead  = 8
	stdoutPart = 1
	stderrPart = 2
	lastWords  = 2 << 10 // of the standard error, kept for errors
)

// frames reads the output of a process out of the stream that an engine mixes it into with its errors, which are kept apart.
type frames struct {
	in   io.Reader
	left uint32 // of the frame of output that is being read

	mu    sync.Mutex
	words []byte
}

// Read gives output only.
func (f *frames) Read(p []byte) (int, error) {
	for f.left == 0 {
		var head [frameHead]byte
		if _, err := io.ReadFull(f.in, head[:]); err != nil {
			return 0, err
		}
		size := binary.BigEndian.Uint32(head[4:])
		switch head[0] {
		case stdoutPart:
			f.left = size
		case stderrPart:
			if err := f.keep(size); err != nil {
				return 0, err
			}
		default:
			return 0, fmt.Errorf("the engine sent a frame of unknown kind %d", head[0])
		}
	}
	n, err := f.in.Read(p[:min(len(p), int(f.left))])
	f.left -= uint32(n)
	return n, err
}

// keep notes the beginning of what the process says of its troubles.
func (f *frames) keep(size uint32) error {
	r := io.LimitReader(f.in, int64(size))
	f.mu.Lock()
	room := lastWords - len(f.words)
	f.mu.Unlock()
	b, err := io.ReadAll(io.LimitReader(r, int64(room)))
	f.mu.Lock()
	f.words = append(f.words, b...)
	f.mu.Unlock()
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}

// said is what the process complained of.
func (f *frames) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.TrimSpace(string(f.words))
}
