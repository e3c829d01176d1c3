// Package term is how berth talks to a person: tables, --format templates, questions, and a line for each step of long work.
//
// It writes where it is told to and knows nothing of what it shows.
package term

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
)

// Columns are the template fields that a list offers, and the header of each.
type Columns map[string]string

// NewTabs aligns cells that are separated by tabs, with docker-machine's spacing.
func NewTabs(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 5, 1, 3, ' ', 0)
}

// Table prints rows by a --format template. "table " in front adds the header; the word json prints an object per row.
// A row is a struct whose fields the template names.
func Table[Row any](w io.Writer, format string, columns Columns, rows []Row) error {
	if format == "json" {
		return jsonRows(w, rows)
	}
	text, header := strings.CutPrefix(format, "table")
	t, err := Template(strings.TrimLeft(text, " "))
	if err != nil {
		return err
	}
	tabs := NewTabs(w)
	if header {
		if err := execute(tabs, t, columns); err != nil {
			return err
		}
	}
	for _, r := range rows {
		if err := execute(tabs, t, r); err != nil {
			return err
		}
	}
	return tabs.Flush()
}

func execute(w io.Writer, t *template.Template, row any) error {
	if err := t.Execute(w, row); err != nil {
		return templateError(err)
	}
	_, err := fmt.Fprintln(w)
	return err
}

func jsonRows[Row any](w io.Writer, rows []Row) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, r := range rows {
		if err := e.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// Template parses a --format template. Besides text/template's own functions it has json and prettyjson. \t and \n may be
// written as such, since shells make it hard to type them.
func Template(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("").Funcs(template.FuncMap{
		"json":       func(v any) (string, error) { return encode(v, "") },
		"prettyjson": func(v any) (string, error) { return encode(v, "    ") },
		"join":       join,
		"lower":      strings.ToLower,
		"upper":      strings.ToUpper,
	}).Parse(text)
	if err != nil {
		return nil, templateError(err)
	}
	return t, nil
}

// Print executes a template on one value and ends the line.
func Print(w io.Writer, format string, value any) error {
	t, err := Template(format)
	if err != nil {
		return err
	}
	var b strings.Builder // a template that fails half-way prints nothing
	if err := execute(&b, t, value); err != nil {
		return err
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func templateError(err error) error {
	text := strings.TrimPrefix(err.Error(), "template: ")
	return errors.New("--format: " + strings.TrimLeft(text, ":"))
}

func encode(v any, indent string) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimRight(b.String(), "\n"), nil
}

// join puts the elements of any list into one text.
func join(list any, sep string) (string, error) {
	v := reflect.ValueOf(list)
	if !v.IsValid() {
		return "", nil
	}
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return "", fmt.Errorf("join: %s is no list", v.Type())
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(parts, sep), nil
}
