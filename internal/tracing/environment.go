package tracing

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
)

// OpenTelemetry's variables that are read here. The SDK reads the others itself.
const (
	disabledVariable       = "OTEL_SDK_DISABLED"
	exporterVariable       = "OTEL_TRACES_EXPORTER"
	endpointVariable       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	tracesEndpointVariable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	protocolVariable       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	tracesProtocolVariable = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
)

// protocol is the only one that is spoken.
const protocol = "http/protobuf"

// wanted tells whether the environment asks for traces. What cannot be meant is told to log, without the values of variables
// that may hold secrets.
func wanted(log *slog.Logger) bool {
	disabled := os.Getenv(disabledVariable)
	if strings.EqualFold(disabled, "true") {
		return false
	}
	variable := endpointVariable
	if os.Getenv(tracesEndpointVariable) != "" {
		variable = tracesEndpointVariable
	}
	endpoint := os.Getenv(variable)
	exporters := strings.FieldsFunc(os.Getenv(exporterVariable), func(r rune) bool { return r == ',' || r == ' ' })
	if endpoint == "" || slices.Contains(exporters, "none") {
		return false
	}
	if disabled != "" && !strings.EqualFold(disabled, "false") {
		log.Warn(disabledVariable+" is neither true nor false: creates are traced", "value", disabled)
	}
	if len(exporters) > 0 && !slices.Contains(exporters, "otlp") {
		log.Warn(exporterVariable+" names no exporter that berth has: creates are not traced; set it to otlp or none", "value", os.Getenv(exporterVariable))
		return false
	}
	if err := checkEndpoint(endpoint); err != nil {
		log.Warn(variable+" is wrong: creates are not traced", "error", err)
		return false
	}
	variable = protocolVariable
	if os.Getenv(tracesProtocolVariable) != "" {
		variable = tracesProtocolVariable
	}
	if p := os.Getenv(variable); p != "" && p != protocol {
		log.Warn(variable+" names a protocol that berth does not speak: spans are sent by "+protocol+", which collectors take on port 4318", "value", p)
	}
	return true
}

// checkEndpoint refuses what the exporter would not understand: it would go on with a collector on this computer. The error
// does not show the address, which may hold a password.
func checkEndpoint(endpoint string) error {
	const want = "want a URL such as http://collector:4318"
	u, err := url.Parse(endpoint)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err
		}
		return fmt.Errorf("%w; %s", err, want)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("it does not begin with http:// or https://; " + want)
	case u.Hostname() == "":
		return errors.New("it names no host; " + want)
	}
	return nil
}
