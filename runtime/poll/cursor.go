package poll

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"regexp"
	"slices"
	"time"

	"github.com/waybill-dev/waybill/runtime/expr"
)

// compare orders two cursors: numbers by value, RFC 3339 times by time, all else as text. known says that it was not as text: only then is
// a smaller one surely older.
func compare(a, b string) (order int, known bool) {
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			return x.Cmp(y), true
		}
	}
	if x, err := time.Parse(time.RFC3339, a); err == nil {
		if y, err := time.Parse(time.RFC3339, b); err == nil {
			return x.Compare(y), true
		}
	}
	return cmp.Compare(a, b), false
}

// decimal is a number of which the exponent, without zeros before it, has at most three digits: all that a double can be, and none that is too
// large to hold.
var decimal = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE][+-]?0*[0-9]{1,3})?$`)

// number reads a decimal number of reasonable length.
func number(s string) (*big.Rat, bool) {
	if len(s) > 128 || !decimal.MatchString(s) {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

// advance takes one item into account: the largest cursor wins, and the items that have it are remembered.
func (at *position) advance(cursor string, tie uint64) {
	order, _ := compare(cursor, at.Cursor)
	switch {
	case at.Cursor == "" || order > 0:
		at.Cursor, at.Ties = cursor, []uint64{tie}
	case order == 0 && len(at.Ties) < maxSeen && !slices.Contains(at.Ties, tie):
		at.Ties = append(at.Ties, tie)
	}
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
