//go:build !linux

package main

import "berth/internal/machine"

func platformDrivers() map[string]machine.Driver { return nil }

func platformMain([]string) (handled bool) { return false }
