package message

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds on what one event may carry beside its data. Brokers keep attributes in headers, and those have limits of their own.
const (
	MaxAttributes     = 64       // the attributes that CloudEvents defines count too
	MaxAttributeBytes = 16 << 10 // names and values together

	// MaxAddedBytes is how long an attribute of a kind that Waybill adds on the way may be without being counted.
	MaxAddedBytes = 512
)

// counted reports whether an attribute counts against MaxAttributes and MaxAttributeBytes. What Waybill may add on the way does not, or an
// event that was taken once would not be taken again: by another Waybill, or out of a dead letter.
func counted(name, value string) bool {
	switch name {
	case TraceParent, TraceState, ExpiryTime:
		return len(value) > MaxAddedBytes
	}
	return !Reserved(name)
}

// An AttributeError says which attribute of an event is wrong. It never holds the attribute's value.
type AttributeError struct {
	Attribute string
	Problem   string
}

func (e *AttributeError) Error() string { return e.Attribute + ": " + e.Problem }

func attributeError(name, problem string) error {
	return &AttributeError{Attribute: name, Problem: problem}
}

// Check reports what makes m no valid CloudEvent: a required attribute is missing, a value breaks its type, or there is too much of it.
func (m *Message) Check() error {
	for _, r := range [...]struct{ name, value string }{{"id", m.ID}, {"source", m.Source}, {"type", m.Type}} {
		if r.value == "" {
			return attributeError(r.name, "is required; it must not be missing or empty")
		}
	}
	count, size := 0, 0
	for _, a := range [...]struct{ name, value string }{
		{"id", m.ID}, {"source", m.Source}, {"type", m.Type}, {"subject", m.Subject}, {"time", m.Time},
		{"datacontenttype", m.DataContentType}, {"dataschema", m.DataSchema}, {PartitionKey, m.Key},
	} {
		if a.value == "" {
			continue
		}
		count++
		size += len(a.name) + len(a.value)
		if err := checkValue(a.name, a.value); err != nil {
			return err
		}
	}
	for i := range m.Attributes {
		a := &m.Attributes[i]
		if counted(a.Name, a.Value) {
			count++
			size += len(a.Name) + len(a.Value)
		}
		if !ValidName(a.Name) || a.Name == "data" {
			return attributeError(printable(a.Name), "is no attribute name; use lower-case letters and digits only, and not data")
		}
		if defined(a.Name) {
			return attributeError(a.Name, "is an attribute of every event and cannot be an extension too")
		}
		if err := checkValue(a.Name, a.Value); err != nil {
			return err
		}
		if count > MaxAttributes {
			break
		}
	}
	if count > MaxAttributes {
		return attributeError("attributes", fmt.Sprintf("an event may have %d at the most", MaxAttributes))
	}
	if size > MaxAttributeBytes {
		return attributeError("attributes", fmt.Sprintf("names and values may have %d bytes at the most; put more into the data", MaxAttributeBytes))
	}
	return nil
}

// eventTypes begin the media types of events; HTTP and NATS tell by them that a body is an event and not its data.
const eventTypes = "application/cloudevents"

// checkValue holds a value against the CloudEvents type of its attribute.
func checkValue(name, value string) error {
	if !utf8.ValidString(value) {
		return attributeError(name, "is not UTF-8")
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < 0x20 || c == 0x7f || c == 0xc2 && value[i+1] < 0xa0 {
			return attributeError(name, "contains a control character (a line break, for example)")
		}
	}
	switch name {
	case "time", ExpiryTime:
		if _, ok := ParseTime(value); !ok {
			return attributeError(name, "is no RFC 3339 time such as 2006-01-02T15:04:05Z")
		}
	case "source", "dataschema":
		if strings.ContainsAny(value, " \"<>\\^`{|}") {
			return attributeError(name, "is no URI reference; percent-encode spaces and other special characters")
		}
	case "datacontenttype":
		if t, _, _ := strings.Cut(value, ";"); !strings.Contains(strings.Trim(t, " /"), "/") {
			return attributeError(name, "is no media type such as application/json")
		}
		// No more of RFC 2046 is asked for: an odd type is kept byte for byte. But it becomes a header, which carries no other characters.
		if value[0] == ' ' || value[len(value)-1] == ' ' || strings.ContainsFunc(value, func(r rune) bool { return r > '~' }) {
			return attributeError(name, "is no media type such as application/json: it may have ASCII characters only, and no space at its ends")
		}
		if len(value) >= len(eventTypes) && strings.EqualFold(value[:len(eventTypes)], eventTypes) {
			return attributeError(name, "must not begin with application/cloudevents: over HTTP the data would be taken for the event; use application/json")
		}
	}
	return nil
}

// CheckContentType holds a content type against what a datacontenttype may be; it returns what Check would.
func CheckContentType(value string) error { return checkValue("datacontenttype", value) }

// ParseTime reads a timestamp of RFC 3339 exactly: time.Parse takes more (a comma, an hour of one digit, +24:00) and less (small letters, a
// leap second). A leap second, which may be the last one of a month in UTC, is the instant after it, as POSIX has it.
func ParseTime(s string) (t time.Time, ok bool) {
	const shape = "0000-00-00T00:00:00"
	if len(s) <= len(shape) || !shaped(s[:len(shape)], shape) {
		return t, false
	}
	zone := s[len(shape):]
	if zone[0] == '.' {
		if zone = strings.TrimLeft(zone[1:], "0123456789"); s[len(shape):] == "."+zone {
			return t, false
		}
	}
	if !shaped(zone, "Z") && (!shaped(zone, "+00:00") && !shaped(zone, "-00:00") || zone[1:3] > "23" || zone[4:] > "59") {
		return t, false
	}
	leap := s[17:19] == "60"
	if leap {
		s = s[:17] + "59" + s[19:]
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(s))
	if err != nil {
		return time.Time{}, false
	}
	if leap {
		t = t.Add(time.Second)
		if u := t.UTC(); u.Day() != 1 || u.Hour() != 0 || u.Minute() != 0 {
			return time.Time{}, false
		}
	}
	return t, true
}

// shaped reports whether s has a digit wherever shape has 0, and else the same bytes, letters of either case.
func shaped(s, shape string) bool {
	if len(s) != len(shape) {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case shape[i] == '0':
			if c < '0' || c > '9' {
				return false
			}
		case c != shape[i] && (c < 'a' || c > 'z' || c-'a'+'A' != shape[i]):
			return false
		}
	}
	return true
}

// defined reports whether an attribute has a field of its own in a Message, or goes without saying.
func defined(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", PartitionKey:
		return true
	}
	return false
}

// ValidName reports whether CloudEvents allows an attribute of this name: lower-case letters and digits.
func ValidName(name string) bool {
	for i := 0; i < len(name); i++ {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// printable makes a name from outside fit for an error: cut, and without control characters.
func printable(name string) string {
	if len(name) > 64 {
		name = name[:64]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, name)
}

// Internal reports whether an attribute serves Waybill alone and is not shown to those who receive the message: where a reply goes, the
// count of hops, and what makes a dead letter one to the broker. The other attributes of a dead letter are shown.
func Internal(name string) bool {
	switch name {
	case ReplyTo, Correlation, Hops, AnswerKind, AnswerCode, Death:
		return true
	}
	return false
}

// Set gives the attribute name, one that CloudEvents defines or an extension, its value. It appends to m.Attributes, which must be m's
// own and must not hold name yet: for those who build a message, attribute by attribute.
func (m *Message) Set(name, value string) {
	switch name {
	case "id":
		m.ID = value
	case "source":
		m.Source = value
	case "type":
		m.Type = value
	case "subject":
		m.Subject = value
	case "time":
		m.Time = value
	case "datacontenttype":
		m.DataContentType = value
	case "dataschema":
		m.DataSchema = value
	case PartitionKey:
		m.Key = value
	default:
		m.Attributes = append(m.Attributes, Attribute{name, value})
	}
}
