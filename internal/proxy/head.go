package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
)

const maxHead = 256 << 10

var errLongHead = errors.New("the head of the answer is too long")

// readHead reads up to and with the empty line, unchanged: clients compare status lines ("101 UPGRADED") that a parser would
// tidy up.
func readHead(r *bufio.Reader) ([]byte, error) {
	var head []byte
	for {
		line, err := r.ReadSlice('\n')
		head = append(head, line...)
		switch {
		case len(head) > maxHead:
			return nil, errLongHead
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return nil, err
		case len(bytes.TrimRight(line, "\r\n")) == 0 && len(head) > len(line) && head[len(head)-len(line)-1] == '\n':
			return head, nil
		}
	}
}

// fixed are the headers by which a client recognises the stream: no edit reaches them.
var fixed = map[string]bool{"Connection": true, "Content-Type": true, "Upgrade": true}

// editHead returns head with the headers that differ between before and after replaced; all other lines stay as they are.
func editHead(head []byte, before, after http.Header) ([]byte, error) {
	changed := http.Header{}
	for _, h := range []http.Header{before, after} {
		for k := range h {
			if !fixed[k] && !slices.Equal(before[k], after[k]) {
				changed[k] = after[k]
			}
		}
	}
	if len(changed) == 0 {
		return head, nil
	}
	var out bytes.Buffer
	drop, first := false, true
	for line := range bytes.Lines(head) {
		switch {
		case first:
			first = false
		case len(bytes.TrimRight(line, "\r\n")) == 0:
			if err := changed.Write(&out); err != nil {
				return nil, fmt.Errorf("edit the head: %w", err)
			}
			drop = false
		case line[0] == ' ' || line[0] == '\t': // goes with the line before
		default:
			name, _, _ := bytes.Cut(line, []byte(":"))
			_, drop = changed[textproto.CanonicalMIMEHeaderKey(string(name))]
		}
		if !drop {
			out.Write(line)
		}
	}
	return out.Bytes(), nil
}
