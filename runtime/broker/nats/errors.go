package nats

import (
	"errors"
	"fmt"
	"strings"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// Error codes of JetStream's API that nats.go has no name for.
const (
	codeInsufficientResources jetstream.ErrorCode = 10023
	codeStreamStoreFailed     jetstream.ErrorCode = 10077
	codeHeaderTooLarge        jetstream.ErrorCode = 10097
	codeAtomicDisabled        jetstream.ErrorCode = 10174
	codeAtomicIncomplete      jetstream.ErrorCode = 10176
	codeAtomicTooLarge        jetstream.ErrorCode = 10199
	codeAtomicDuplicate       jetstream.ErrorCode = 10201
	codeAtomicTooMany         jetstream.ErrorCode = 10210
)

var errAway = fmt.Errorf("the connection to the NATS server is down: %w", natsgo.ErrDisconnected)

// apiCode is the JetStream error code in err, 0 when there is none.
func apiCode(err error) jetstream.ErrorCode {
	var js jetstream.JetStreamError
	if errors.As(err, &js) && js.APIError() != nil {
		return js.APIError().ErrorCode
	}
	return 0
}

// refusal turns the API error that a stream answered a publish with into the driver's words.
func refusal(e *jetstream.APIError) error {
	switch {
	case e.ErrorCode == codeStreamStoreFailed && isLimit(e.Description):
		return fmt.Errorf("%w (%s)", driver.ErrFull, e.Description)
	case e.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum, e.ErrorCode == codeHeaderTooLarge:
		return fmt.Errorf("%w (%s)", driver.ErrTooLarge, e.Description)
	case e.ErrorCode == jetstream.JSErrCodeStreamNotFound:
		return fmt.Errorf("%w (%s)", driver.ErrMissing, e.Description)
	}
	return e
}

func isLimit(description string) bool {
	return strings.Contains(description, "maximum messages") || strings.Contains(description, "maximum bytes")
}

// Class says what to make of an error that this driver returned.
func (c *conn) Class(err error) driver.Class { return Class(err) }

// Class says what to make of an error of this driver where no connection came about.
func Class(err error) driver.Class {
	switch {
	case errors.Is(err, driver.ErrDrained):
		return driver.Drained
	case errors.Is(err, driver.ErrStale), errors.Is(err, driver.ErrGone):
		return driver.Stale
	case errors.Is(err, driver.ErrFull):
		return driver.Full
	case errors.Is(err, driver.ErrTooLarge), errors.Is(err, natsgo.ErrMaxPayload):
		return driver.TooLarge
	case errors.Is(err, driver.ErrMissing), errors.Is(err, driver.ErrPositionLost):
		return driver.Missing
	case errors.Is(err, driver.ErrConflict):
		return driver.Conflict
	case errors.Is(err, driver.ErrInvalid), errors.Is(err, driver.ErrUnsupported):
		return driver.Invalid
	case errors.Is(err, natsgo.ErrAuthorization), errors.Is(err, natsgo.ErrAuthExpired), errors.Is(err, natsgo.ErrAuthRevoked),
		errors.Is(err, natsgo.ErrPermissionViolation), errors.Is(err, natsgo.ErrAccountAuthExpired):
		return driver.Denied
	}
	switch apiCode(err) {
	case jetstream.JSErrCodeStreamNotFound, jetstream.JSErrCodeConsumerNotFound, jetstream.JSErrCodeConsumerDoesNotExist:
		return driver.Missing
	case codeAtomicTooMany, codeInsufficientResources:
		return driver.Throttled
	case jetstream.JSErrCodeBadRequest:
		return driver.Invalid
	case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return driver.Denied
	}
	return driver.Transient
}

// missing turns JetStream's not-found errors into the driver's, and leaves others as they are.
func missing(what string, err error) error {
	switch apiCode(err) {
	case jetstream.JSErrCodeStreamNotFound, jetstream.JSErrCodeConsumerNotFound, jetstream.JSErrCodeConsumerDoesNotExist:
		return fmt.Errorf("%s: %w", what, driver.ErrMissing)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
