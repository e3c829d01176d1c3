//go:build race

package dockertest

const raceDetector = true
