package main

import (
	"context"
	"errors"
	"os"

	"berth/internal/relay"
)

func (p *program) relay(ctx context.Context, listen string, join bool) error {
	if !join {
		return relay.Hold(ctx, listen)
	}
	in, inOK := p.in.(*os.File)
	out, outOK := p.out.(*os.File)
	if !inOK || !outOK {
		return errors.New("--join needs standard streams that are files")
	}
	return relay.Join(ctx, in, out)
}
