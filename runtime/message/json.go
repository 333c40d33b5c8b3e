package message

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep JSON data may be nested to stand in a JSON form of its event. Readers have limits, many at 10,000 levels, and what
// breaks one of them must not make the list unreadable that the event is in.
const MaxDepth = 9000

// AppendJSON appends m in the CloudEvents JSON format to dst. JSON data is put in as it is, so that no number is spelt anew; text becomes
// a string; everything else, JSON that does not parse or is nested deeper than MaxDepth and text that is not UTF-8 among it, becomes
// data_base64.
func AppendJSON(dst []byte, m *Message) []byte {
	dst = append(dst, `{"specversion":"`+SpecVersion+`"`...)
	dst = appendMember(dst, "id", m.ID)
	dst = appendMember(dst, "source", m.Source)
	dst = appendMember(dst, "type", m.Type)
	dst = appendOptional(dst, "subject", m.Subject)
	dst = appendOptional(dst, "time", m.Time)
	dst = appendOptional(dst, "datacontenttype", m.DataContentType)
	dst = appendOptional(dst, "dataschema", m.DataSchema)
	dst = appendOptional(dst, PartitionKey, m.Key)
	for i := range m.Attributes {
		dst = appendMember(dst, m.Attributes[i].Name, m.Attributes[i].Value)
	}
	if len(m.Data) > 0 {
		switch kind := kindOf(m.DataContentType); {
		case kind == jsonData && utf8.Valid(m.Data) && json.Valid(m.Data) && !tooDeep(m.Data):
			dst = append(append(dst, `,"data":`...), m.Data...)
		case kind == textData && utf8.Valid(m.Data):
			dst = appendString(append(dst, `,"data":`...), m.Data)
		default:
			dst = append(dst, `,"data_base64":"`...)
			dst = append(base64.StdEncoding.AppendEncode(dst, m.Data), '"')
		}
	}
	return append(dst, '}')
}

// tooDeep reports whether valid JSON is nested deeper than MaxDepth.
func tooDeep(data []byte) bool {
	if len(data) <= 2*MaxDepth {
		return false
	}
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

func appendOptional(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendMember(dst, name, value)
}

func appendMember(dst []byte, name, value string) []byte {
	dst = append(dst, ',')
	dst = appendString(dst, name)
	dst = append(dst, ':')
	return appendString(dst, value)
}

// appendString appends s as a JSON string with as few escapes as JSON allows. Bytes that are not UTF-8 become U+FFFD.
func appendString[S string | []byte](dst []byte, s S) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}

type dataKind int

const (
	otherData dataKind = iota
	jsonData
	textData
)

// kindOf says how data of a content type is written in JSON. Without a content type it is JSON, as CloudEvents has it.
func kindOf(contentType string) dataKind {
	if contentType == "" || contentType == "application/json" {
		return jsonData
	}
	media, params, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	kind := otherData
	switch {
	case strings.HasSuffix(media, "/json"), strings.HasSuffix(media, "+json"):
		kind = jsonData
	case strings.HasPrefix(media, "text/"), strings.HasSuffix(media, "/xml"), strings.HasSuffix(media, "+xml"):
		kind = textData
	}
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(p)), "=")
		if value = strings.Trim(value, `"`); name == "charset" && value != "utf-8" && value != "utf8" && value != "us-ascii" {
			return otherData // a string would be UTF-8 and say otherwise
		}
	}
	return kind
}

// HasJSON reports whether data of this content type is JSON by its name: absent, application/json, or any type that ends in +json.
func HasJSON(contentType string) bool { return kindOf(contentType) == jsonData }

// ParseJSON reads one event in the CloudEvents JSON format. Extension attributes of JSON type boolean and integer become strings in
// CloudEvents' canonical form. Data without datacontenttype are application/json, as the format has it, and are said to be so from here on.
// Data aliases doc where it is JSON. Errors name the attribute, never a value.
func ParseJSON(doc []byte) (Message, error) {
	if err := checkDocument(doc); err != nil {
		return Message{}, err
	}
	s := scanner{doc: doc}
	m, err := s.event()
	if err != nil {
		return Message{}, err
	}
	return m, nil
}

// A BatchError names every bad member of a batch.
type BatchError struct{ Members []MemberError }

// MemberError is what is wrong with one member; Index counts from 0.
type MemberError struct {
	Index int
	Err   error
}

func (e *BatchError) Error() string {
	var b strings.Builder
	for i, m := range e.Members {
		if i == 10 {
			fmt.Fprintf(&b, "; and %d more", len(e.Members)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "[%d] %v", m.Index, m.Err)
	}
	return b.String()
}

// ParseJSONBatch reads the JSON batch format: an array of events. Bad members give a *BatchError that names all of them, and then the
// events are as many as the members, with the zero Message in the place of a bad one.
func ParseJSONBatch(doc []byte) ([]Message, error) {
	if err := checkDocument(doc); err != nil {
		return nil, err
	}
	s := scanner{doc: doc}
	if s.next() != '[' {
		return nil, errors.New("a batch must be a JSON array of events")
	}
	s.at++
	var ms []Message
	var bad []MemberError
	for i := 0; s.next() != ']'; i++ {
		if s.doc[s.at] == ',' {
			s.at++
		}
		start := s.at
		m, err := s.event()
		if err != nil {
			bad = append(bad, MemberError{i, err})
			s.at = start
			s.skipValue()
			m = Message{}
		}
		ms = append(ms, m)
	}
	if bad != nil {
		return ms, &BatchError{bad}
	}
	return ms, nil
}

func checkDocument(doc []byte) error {
	if !utf8.Valid(doc) {
		return errors.New("the event is not UTF-8")
	}
	if json.Valid(doc) {
		return nil
	}
	if bytes.HasPrefix(doc, []byte("\ufeff")) {
		return errors.New("the event begins with a byte order mark; send it without")
	}
	var v json.RawMessage
	err := json.Unmarshal(doc, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("the event is not JSON: fault at byte %d", syntax.Offset)
	}
	return errors.New("the event is not JSON")
}

// scanner walks a document that is known to be valid JSON; so it needs to know only where values begin and end.
type scanner struct {
	doc []byte
	at  int
}

// next skips white space and returns the byte there.
func (s *scanner) next() byte {
	for s.doc[s.at] == ' ' || s.doc[s.at] == '\t' || s.doc[s.at] == '\n' || s.doc[s.at] == '\r' {
		s.at++
	}
	return s.doc[s.at]
}

// skipValue passes one value, with the white space before it, and returns its bytes.
func (s *scanner) skipValue() []byte {
	s.next()
	start := s.at
	for depth := 0; ; {
		switch c := s.doc[s.at]; c {
		case '"':
			s.skipString()
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			depth--
			s.at++
		case ' ', '\t', '\n', '\r', ',', ':':
			s.at++
			continue
		default: // a number or a name
			for s.at < len(s.doc) && !endsScalar(s.doc[s.at]) {
				s.at++
			}
		}
		if depth == 0 {
			return s.doc[start:s.at]
		}
	}
}

func endsScalar(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '\r', ',', ']', '}':
		return true
	}
	return false
}

func (s *scanner) skipString() []byte {
	start := s.at
	for s.at++; s.doc[s.at] != '"'; s.at++ {
		if s.doc[s.at] == '\\' {
			s.at++
		}
	}
	s.at++
	return s.doc[start:s.at]
}

// event reads the value at hand, which must be an object.
func (s *scanner) event() (Message, error) {
	var m Message
	if s.next() != '{' {
		return m, errors.New("an event must be a JSON object")
	}
	s.at++
	var version bool
	var data, data64 []byte
	var seen seenNames
	for s.next() != '}' {
		if s.doc[s.at] == ',' {
			s.at++
			s.next()
		}
		name, _ := unquote(s.skipString())
		s.next() // the colon
		s.at++
		value := s.skipValue()
		if seen.again(name) {
			return m, attributeError(printable(name), "is given twice")
		}
		switch name {
		case "data":
			data = value
			continue
		case "data_base64":
			data64 = value
			continue
		}
		if !ValidName(name) {
			return m, attributeError(printable(name), "is no attribute name; use lower-case letters and digits only")
		}
		if len(seen.names) > 2*MaxAttributes { // Check counts exactly; this keeps a hostile document from costing much
			return m, attributeError("attributes", fmt.Sprintf("an event may have %d at the most", MaxAttributes))
		}
		text, err := attributeText(name, value)
		switch {
		case err != nil:
			return m, err
		case string(value) == "null": // CloudEvents: the same as absent
		case name == "specversion":
			if text != SpecVersion {
				return m, attributeError(name, `must be "`+SpecVersion+`"`)
			}
			version = true
		case text == "" && optionalNonEmpty(name):
			return m, attributeError(name, "must not be empty; leave it out instead")
		default:
			m.Set(name, text)
		}
	}
	s.at++
	if !version {
		return m, attributeError("specversion", `is required and must be "`+SpecVersion+`"`)
	}
	if err := m.Check(); err != nil {
		return m, err
	}
	err := m.setData(data, data64)
	return m, err
}

// seenNames notices a name that comes twice. Events have few attributes: a list beats a map.
type seenNames struct{ names []string }

func (s *seenNames) again(name string) bool {
	if slices.Contains(s.names, name) {
		return true
	}
	s.names = append(s.names, name)
	return false
}

func optionalNonEmpty(name string) bool {
	switch name {
	case "subject", "time", "datacontenttype", "dataschema", PartitionKey:
		return true
	}
	return false
}

// attributeText is the canonical string form of an attribute's JSON value.
func attributeText(name string, value []byte) (string, error) {
	switch c := value[0]; {
	case c == '"':
		text, ok := unquote(value)
		if !ok {
			return "", attributeError(name, loneSurrogate)
		}
		return text, nil
	case definedString(name) && c != 'n':
		return "", attributeError(name, "must be a string")
	case c == 't' || c == 'f':
		return string(value), nil
	case c == 'n':
		return "", nil
	case c == '-' || c >= '0' && c <= '9':
		n, err := strconv.ParseInt(string(value), 10, 32)
		if err != nil {
			return "", attributeError(name, "a number must be an integer of 32 bits; write any other number as a string")
		}
		return strconv.FormatInt(n, 10), nil
	}
	return "", attributeError(name, "must be a string, a boolean or an integer; objects and arrays belong into the data")
}

// definedString reports whether CloudEvents itself defines the attribute; all of those are strings in JSON.
func definedString(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", PartitionKey:
		return true
	}
	return optionalNonEmpty(name)
}

// setData takes what the members data and data_base64 hold; nil: absent.
func (m *Message) setData(data, data64 []byte) error {
	if data != nil && data64 != nil {
		return attributeError("data_base64", "is given beside data; an event has one of them")
	}
	switch {
	case data64 != nil:
		if string(data64) == "null" {
			return nil
		}
		if data64[0] != '"' {
			return attributeError("data_base64", "must be a string")
		}
		text, _ := unquote(data64)
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return attributeError("data_base64", "is not base64 (RFC 4648, section 4)")
		}
		m.Data = raw
	case data == nil:
	case kindOf(m.DataContentType) == jsonData:
		m.Data = data
	case data[0] == '"':
		text, ok := unquote(data)
		if !ok {
			return attributeError("data", loneSurrogate)
		}
		m.Data = []byte(text)
	case string(data) == "null":
	default:
		return attributeError("data", "must be a string, for datacontenttype says that it is not JSON")
	}
	if len(m.Data) > 0 && m.DataContentType == "" {
		m.DataContentType = "application/json"
	}
	return nil
}

const loneSurrogate = `has half of a surrogate pair (\uD800 to \uDFFF), which is no character`

// unquote decodes a JSON string that is known to be valid. ok is false where half of a surrogate pair stands alone: it became U+FFFD.
func unquote(quoted []byte) (s string, ok bool) {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), true
	}
	if err := json.Unmarshal(quoted, &s); err != nil {
		return string(inner), false // cannot be: the document was checked
	}
	return s, !strings.ContainsRune(s, utf8.RuneError) || surrogatesPaired(inner)
}

// surrogatesPaired reports whether each \u escape of a surrogate in a string's inside has its other half.
func surrogatesPaired(inner []byte) bool {
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' {
			continue
		}
		if i++; inner[i] != 'u' {
			continue
		}
		high := escaped(inner[i:])
		if i += 4; !utf16.IsSurrogate(high) {
			continue
		}
		if i+7 > len(inner) || inner[i+1] != '\\' || inner[i+2] != 'u' || utf16.DecodeRune(high, escaped(inner[i+2:])) == utf8.RuneError {
			return false
		}
		i += 6
	}
	return true
}

// escaped is the number in "u" and four hexadecimal digits.
func escaped(u []byte) rune {
	n, err := strconv.ParseUint(string(u[1:5]), 16, 16)
	if err != nil {
		return 0 // cannot be: the document was checked
	}
	return rune(n)
}
