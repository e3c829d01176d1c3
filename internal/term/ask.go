package term

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Confirm asks a question that is answered by y or n. Anything that does not begin with y is no, and so is the end of input.
func Confirm(in io.Reader, out io.Writer, question string) (bool, error) {
	if _, err := fmt.Fprintf(out, "%s (y/n): ", question); err != nil {
		return false, err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, err
	}
	if err == io.EOF { // nobody pressed return: what follows begins on a line of its own
		fmt.Fprintln(out) //nolint:errcheck // the question went through
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return strings.HasPrefix(answer, "y"), nil
}
