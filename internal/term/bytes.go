package term

import (
	"fmt"
	"strings"
)

// Bytes is a number of bytes as people read it.
func Bytes(n int64) string {
	units := "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	f := float64(n)
	for i := range units {
		f /= 1000
		if f < 999.95 || i == len(units)-1 {
			return fmt.Sprintf("%.1f%cB", f, units[i])
		}
	}
	return ""
}

// amount is how much of something is done.
func amount(done, total int64) string {
	if total <= 0 {
		return Bytes(done)
	}
	return fmt.Sprintf("%s %s/%s", percent(done, total), Bytes(done), Bytes(total))
}

// percent is "" where the whole is not known. What is not done is never 100.
func percent(done, total int64) string {
	if total <= 0 {
		return ""
	}
	p := min(int(float64(done)/float64(total)*100), 100)
	if done < total {
		p = min(p, 99)
	}
	return fmt.Sprintf("%3d%%", p)
}

// drawBar is a bar of barWidth; where the whole is not known there is none to draw.
func drawBar(done, total int64) string {
	if total <= 0 {
		return ""
	}
	n := max(0, min(barWidth, int(float64(done)/float64(total)*barWidth)))
	head := ""
	if n < barWidth {
		head = ">"
	}
	return "[" + strings.Repeat("=", n) + head + strings.Repeat(" ", barWidth-n-len(head)) + "]"
}
