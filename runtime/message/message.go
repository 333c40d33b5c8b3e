// Package message holds the one struct that travels through Waybill: the attributes of a CloudEvent (specification 1.0.2), its key
// and its bytes. Drivers map it onto their broker's headers, gateways onto HTTP; nothing in between ever parses the data unasked.
package message

import (
	"slices"
	"strings"
)

// SpecVersion is the CloudEvents version of every message; it is not stored.
const SpecVersion = "1.0"

// Message is one event. The zero value is not valid: ID, Source and Type are required by CloudEvents.
//
// A Message is passed by value; its slices are shared, so whoever changes Attributes or Data of a message that it did not make takes
// a copy first (With and Without do).
type Message struct {
	ID      string
	Source  string
	Type    string
	Subject string // "" when absent
	Time    string // RFC 3339 as it was received, so that it leaves as it came; "" when absent

	DataContentType string // "" when absent; CloudEvents then reads the data as application/json
	DataSchema      string

	// Key is the CloudEvents attribute partitionkey: messages of one key keep their order where the ordering asks for it.
	Key string
	// Attributes are the extension attributes, traceparent and our own wb* among them, in the order of their arrival.
	Attributes []Attribute
	// Data is the payload, byte for byte as it was published. It may alias a client's buffer; nobody writes to it.
	Data []byte
}

// Attribute is one CloudEvents extension attribute in its canonical string form.
type Attribute struct {
	Name  string // [a-z0-9]+
	Value string
}

// Names of extension attributes that Waybill itself reads or sets. Those that begin with ReservedPrefix are set by Waybill only and are
// stripped from what comes from outside.
const (
	ReservedPrefix = "wb"

	PartitionKey = "partitionkey" // kept in Message.Key
	TraceParent  = "traceparent"  // W3C trace context
	TraceState   = "tracestate"
	ExpiryTime   = "expirytime" // RFC 3339; a request not started by then is dropped or delivered as declared

	ReplyTo     = "wbreplyto"     // address of the requester's inbox
	Correlation = "wbcorrelation" // which request of that inbox
	AnswerKind  = "wbanswer"      // of an answer: Reply, Processed or Failed
	AnswerCode  = "wbstatus"      // of an answer: the HTTP status that the requester is given
	Hops        = "wbhops"        // how many flows carried this message on to a topic or mailbox

	Reason     = "wbreason" // the six of a dead letter
	Attempts   = "wbattempts"
	FirstError = "wbfirsterror"
	LastError  = "wblasterror"
	Origin     = "wborigin"
	DeadTime   = "wbtime"
	Death      = "wbdeath" // which death it was, where the time is not what tells it: see DedupID
)

// Attribute returns the value of the extension attribute name, "" when it is absent.
func (m *Message) Attribute(name string) string {
	for i := range m.Attributes {
		if m.Attributes[i].Name == name {
			return m.Attributes[i].Value
		}
	}
	return ""
}

// With returns a copy of m in which the extension attribute name has the value; m and its attributes stay as they are.
func (m Message) With(name, value string) Message {
	attrs := make([]Attribute, 0, len(m.Attributes)+1)
	for _, a := range m.Attributes {
		if a.Name != name {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs, Attribute{name, value})
	m.Attributes = attrs
	return m
}

// Without returns a copy of m that lacks the extension attributes for which drop is true. It is m itself when there are none.
func (m Message) Without(drop func(name string) bool) Message {
	if !slices.ContainsFunc(m.Attributes, func(a Attribute) bool { return drop(a.Name) }) {
		return m
	}
	attrs := make([]Attribute, 0, len(m.Attributes))
	for _, a := range m.Attributes {
		if !drop(a.Name) {
			attrs = append(attrs, a)
		}
	}
	m.Attributes = attrs
	return m
}

// Reserved reports whether an attribute of this name may be set by Waybill only.
func Reserved(name string) bool { return strings.HasPrefix(name, ReservedPrefix) }

// Size is the number of bytes that windows and limits count: data, attributes and their names.
func (m *Message) Size() int {
	n := len(m.Data) + len(m.ID) + len(m.Source) + len(m.Type) + len(m.Subject) + len(m.Time) +
		len(m.DataContentType) + len(m.DataSchema) + len(m.Key)
	for _, a := range m.Attributes {
		n += len(a.Name) + len(a.Value)
	}
	return n
}
