package expr

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/waybill-dev/waybill/runtime/message"
)

const (
	jsonParseOverload  = "json_parse_string"
	jsonEncodeOverload = "json_encode_dyn"
)

// codecFunctions turn texts into values and back. Names and types of json and base64 are those of cel-go's library, whose own json functions
// would decode a message's values, cost more than any expression may, and lose digits; its YAML is left out, for it is no form of messages.
func codecFunctions() []cel.EnvOption {
	str, bytes := cel.StringType, cel.BytesType
	return []cel.EnvOption{
		// Bound by the View that they are called on: only that knows which numbers are the message's.
		cel.Function("json.parse", cel.Overload(jsonParseOverload, []*cel.Type{str}, cel.OptionalType(cel.DynType), cel.LateFunctionBinding())),
		cel.Function("json.encode", cel.Overload(jsonEncodeOverload, []*cel.Type{cel.DynType}, str, cel.LateFunctionBinding())),
		cel.Function("base64.decodeUrl", cel.Overload("base64_decode_url_string", []*cel.Type{str}, bytes, cel.UnaryBinding(decodeBase64URL))),
		cel.Function("base64.encodeUrl", cel.Overload("base64_encode_url_bytes", []*cel.Type{bytes}, str, cel.UnaryBinding(func(v ref.Val) ref.Val {
			return types.String(base64.URLEncoding.EncodeToString(v.(types.Bytes)))
		}))),
		cel.Function("url.encode", cel.Overload("waybill_url_encode", []*cel.Type{str}, str, cel.UnaryBinding(func(v ref.Val) ref.Val {
			return types.String(encodeURL(string(v.(types.String))))
		}))),
		cel.Function("url.decode", cel.Overload("waybill_url_decode", []*cel.Type{str}, str, cel.UnaryBinding(func(v ref.Val) ref.Val {
			s, err := url.QueryUnescape(string(v.(types.String)))
			if err != nil {
				return types.WrapErr(saying("the text is not percent-encoded")) // the parser's words hold a part of it
			}
			return types.String(s)
		}))),
		// One overload for both types: cel-go counts the cost of a call only where it knows the overload beforehand.
		cel.Function("hash.sha256", cel.Overload("waybill_sha256", []*cel.Type{cel.DynType}, str, cel.UnaryBinding(sum256))),
	}
}

// ResolveFunction gives CEL the functions that belong to a View.
func (v *View) ResolveFunction(name string) (functions.LateBoundOp, bool) {
	switch name {
	case "json.parse":
		return func(_ string, args ...ref.Val) ref.Val { return v.parseJSON(args[0]) }, true
	case "json.encode":
		return func(_ string, args ...ref.Val) ref.Val { return v.encodeJSON(args[0]) }, true
	}
	return nil, false
}

// parseJSON reads a JSON text into a view of its own, so that its values are as those of a message: each as it is spelt. What is no JSON is
// an absent value.
func (v *View) parseJSON(text ref.Val) ref.Val {
	inner := &View{scope: Message, msg: &message.Message{Data: []byte(text.(types.String))}, home: v}
	if inner.load() != parsed {
		return types.OptionalNone
	}
	return types.OptionalOf(inner.nodes[0].value())
}

// encodeJSON writes any value as a message would hold it.
func (v *View) encodeJSON(val ref.Val) ref.Val {
	text, err := (&View{most: maxResult, home: v}).appendValue(nil, val, 0)
	switch {
	case err != nil:
		return types.WrapErr(err)
	case len(text) > maxResult:
		return types.WrapErr(tooLong("json.encode"))
	}
	return types.String(text)
}

func decodeBase64URL(v ref.Val) ref.Val {
	s := string(v.(types.String))
	b, err := base64.URLEncoding.DecodeString(s)
	if err != nil {
		b, err = base64.RawURLEncoding.DecodeString(s)
	}
	if err != nil {
		return types.WrapErr(saying("the text is not base64url"))
	}
	return types.Bytes(b)
}

// encodeURL percent-encodes all but the unreserved characters of RFC 3986, so that the text may stand in any part of a URL.
func encodeURL(s string) string {
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', digit(c), c == '-', c == '.', c == '_', c == '~':
			out = append(out, c)
		default:
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(out)
}

func sum256(v ref.Val) ref.Val {
	var sum [sha256.Size]byte
	switch v := v.(type) {
	case types.String:
		sum = sha256.Sum256([]byte(v))
	case types.Bytes:
		sum = sha256.Sum256(v)
	default:
		return types.MaybeNoSuchOverloadErr(v)
	}
	return types.String(hex.EncodeToString(sum[:]))
}

// codecCosts counts a unit for ten bytes that are read or written, as cel-go counts for texts.
func codecCosts() []cost.TrackerOption {
	charge := func(args []ref.Val, result ref.Val) *uint64 {
		n := uint64(1 + (size(args[0])+size(result))/10)
		return &n
	}
	options := []cost.TrackerOption{
		cost.OverloadTracker(jsonEncodeOverload, func(args []ref.Val, result ref.Val) *uint64 {
			n := uint64(weigh(args[0], 0) + size(result)/10)
			return &n
		}),
		cost.OverloadTracker(jsonParseOverload, func(args []ref.Val, _ ref.Val) *uint64 {
			n := uint64(1 + size(args[0])/2)
			return &n
		}),
	}
	for _, overload := range []string{"base64_decode_string", "base64_encode_bytes", "base64_decode_url_string", "base64_encode_url_bytes", "waybill_url_encode", "waybill_url_decode", "waybill_sha256"} {
		options = append(options, cost.OverloadTracker(overload, charge))
	}
	return options
}
