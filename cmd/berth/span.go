package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// span is a duration on the command line, in which there may be days: 90m, 8h, 2d, 1d12h.
type span time.Duration

var daysFirst = regexp.MustCompile(`^([0-9]+)d(.*)$`)

// Set implements pflag.Value.
func (s *span) Set(text string) error {
	var days time.Duration
	rest := text
	if m := daysFirst.FindStringSubmatch(text); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n > 36500 {
			return errors.New("want no more than a hundred years")
		}
		days, rest = time.Duration(n)*24*time.Hour, m[2]
	}
	var d time.Duration
	if rest != "" || days == 0 {
		var err error
		if d, err = time.ParseDuration(rest); err != nil {
			return fmt.Errorf("want a time such as 90m, 8h or 2d, not %q", text)
		}
	}
	if d += days; d <= 0 {
		return errors.New("want more than nothing")
	}
	*s = span(d)
	return nil
}

// Type implements pflag.Value.
func (s *span) Type() string { return "duration" }

func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return spanText(time.Duration(*s))
}

// spanText is a duration as people say it: 1d12h, 7h58m, 30s.
func spanText(d time.Duration) string {
	if d < 0 {
		return "-" + spanText(-d)
	}
	days := int(d / (24 * time.Hour))
	d -= time.Duration(days) * 24 * time.Hour
	switch {
	case days > 0:
		d = d.Truncate(time.Hour)
	case d >= time.Minute:
		d = d.Truncate(time.Minute)
	default:
		return d.Truncate(time.Second).String()
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = strings.TrimSuffix(text, zero[1:])
		}
	}
	if days == 0 {
		return text
	}
	if d == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%s", days, text)
}
