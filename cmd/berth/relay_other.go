//go:build !linux

package main

import (
	"context"
	"errors"
)

func (*program) relay(context.Context, string, bool) error {
	return errors.New("relays run on Linux")
}
