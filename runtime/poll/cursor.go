package poll

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"regexp"
	"slices"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/message"
)

// compare orders two cursors: numbers by value, RFC 3339 times by time, all else as text. known says that it was not as text: only then is
// a smaller one surely older, for the server may have another order, in which v10 comes behind v9.
func compare(a, b string) (order int, known bool) {
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			return x.Cmp(y), true
		}
	}
	if x, ok := message.ParseTime(a); ok {
		if y, ok := message.ParseTime(b); ok {
			return x.Compare(y), true
		}
	}
	return cmp.Compare(a, b), false
}

// decimal is a number of which the exponent, without zeros before it, has at most three digits: all that a double can be, and none that is too
// large to hold.
var decimal = regexp.MustCompile(`^-?\d+(\.\d+)?([eE][+-]?0*\d{1,3})?$`)

// number reads a decimal number of reasonable length.
func number(s string) (*big.Rat, bool) {
	if len(s) > 128 || !decimal.MatchString(s) {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

// advance takes one item into account: the largest cursor wins, and the items that are not surely older are remembered, the newest of them
// where there are too many.
func (at *position) advance(cursor string, tie uint64) {
	order, known := compare(cursor, at.Cursor)
	if at.Cursor == "" || order > 0 {
		if at.Cursor == "" || known {
			at.Ties = nil
		}
		at.Cursor = cursor
	}
	i := slices.Index(at.Ties, tie)
	switch {
	case order < 0 && known, i >= 0 && len(at.Ties) < maxSeen/2: // far from being forgotten
		return
	case i >= 0:
		at.Ties = slices.Delete(at.Ties, i, i+1)
	case len(at.Ties) >= maxSeen:
		at.Ties = slices.Delete(at.Ties, 0, 1)
	}
	at.Ties = append(at.Ties, tie)
}

// scalar evaluates an expression to what a query parameter can carry: a string, or a number as it is spelt. null is "".
func scalar(ctx context.Context, p *expr.Program, v *expr.View) (string, error) {
	raw, err := p.EvalJSON(ctx, v, nil)
	if err != nil {
		return "", err
	}
	switch raw[0] {
	case '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", errors.New("the expression gave a string that is not valid JSON")
		}
		return s, nil
	case 'n':
		return "", nil
	case '{', '[':
		return "", errors.New("the expression gave a list or an object where a string or a number is needed")
	}
	return string(raw), nil
}
