package nats

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	natsgo "github.com/nats-io/nats.go"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// Headers of a CloudEvent on NATS, as its protocol binding 1.0.3 has them. In binary mode the type of the data is ce-datacontenttype;
// content-type tells a structured event, and is read for those who say it of plain data.
const (
	prefix      = "ce-"
	contentType = "content-type"
	dataType    = "ce-datacontenttype"
	structured  = "application/cloudevents"

	msgID = "Nats-Msg-Id"
)

// maxMsgID bounds the deduplication id; longer ones are replaced by a hash.
const maxMsgID = 128

// maxHeader is what JetStream stores of headers, at most.
const maxHeader = 1<<16 - 1

// An encoder writes messages as NATS headers. It keeps one map and one backing array for all of them, so a message costs no allocation of
// its own here; nats.go copies the headers before Publish returns. It is not safe for concurrent use.
type encoder struct {
	header natsgo.Header
	values []string
}

func newEncoder() *encoder { return &encoder{header: make(natsgo.Header, 16)} }

func (e *encoder) reset(extensions int) {
	clear(e.header)
	if need := extensions + 16; cap(e.values) < need {
		e.values = make([]string, 0, need)
	}
	e.values = e.values[:0]
}

// set adds one header line as it is.
func (e *encoder) set(name, value string) {
	n := len(e.values)
	e.values = append(e.values, value)
	e.header[name] = e.values[n : n+1 : n+1]
}

func (e *encoder) attribute(header, value string) {
	if value != "" {
		e.set(header, escape(value))
	}
}

// event fills the headers with the attributes of m, which check has found good; dedup adds the deduplication id.
func (e *encoder) event(m *message.Message, dedup bool) {
	e.reset(len(m.Attributes))
	e.set("ce-specversion", message.SpecVersion)
	e.attribute("ce-id", m.ID)
	e.attribute("ce-source", m.Source)
	e.attribute("ce-type", m.Type)
	e.attribute("ce-subject", m.Subject)
	e.attribute("ce-time", m.Time)
	e.attribute("ce-dataschema", m.DataSchema)
	e.attribute("ce-partitionkey", m.Key)
	e.attribute(dataType, m.DataContentType)
	for i := range m.Attributes {
		e.attribute(prefix+m.Attributes[i].Name, m.Attributes[i].Value)
	}
	if dedup {
		e.set(msgID, dedupID(m))
	}
}

// check says whether m can be published and how many bytes of headers it makes, the deduplication id included.
func check(m *message.Message) (int, error) {
	if m.ID == "" || m.Source == "" || m.Type == "" {
		return 0, fmt.Errorf("message: %w: id, source and type are required", driver.ErrInvalid)
	}
	size := len("NATS/1.0\r\n\r\n") + len("ce-specversion: 1.0\r\n") + len(msgID) + 4 + maxMsgID
	for _, a := range [...]struct{ name, value string }{
		{"id", m.ID}, {"source", m.Source}, {"type", m.Type}, {"subject", m.Subject}, {"time", m.Time},
		{"dataschema", m.DataSchema}, {message.PartitionKey, m.Key}, {"datacontenttype", m.DataContentType},
	} {
		n, err := headerSize(a.name, a.value)
		if err != nil {
			return 0, err
		}
		size += n
	}
	for i := range m.Attributes {
		a := &m.Attributes[i]
		if !message.ValidName(a.Name) {
			return 0, fmt.Errorf("attribute %q: %w: a name has only the letters a-z and digits", a.Name, driver.ErrInvalid)
		}
		n, err := headerSize(a.Name, a.Value)
		if err != nil {
			return 0, err
		}
		size += n
	}
	if size+batchOverhead > maxHeader {
		return 0, fmt.Errorf("attributes: %w: they make %d bytes of headers, NATS takes %d", driver.ErrTooLarge, size, maxHeader-batchOverhead)
	}
	return size, nil
}

func headerSize(name, value string) (int, error) {
	if value == "" {
		return 0, nil
	}
	n := len(prefix) + len(name) + len(": \r\n") + len(value)
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c < 0x20 || c == 0x7f || c == 0xc2 && i+1 < len(value) && value[i+1] < 0xa0 {
			return 0, fmt.Errorf("attribute %s: %w: it holds a control character at byte %d, which CloudEvents does not allow", name, driver.ErrInvalid, i)
		}
		if !verbatim(c) {
			n += 2
		}
	}
	return n, nil
}

// A decoder reads the messages of one batch. Strings are parts of the header block that nats.go made; what else is needed is shared by
// the batch.
type decoder struct {
	attributes []message.Attribute
}

// decode makes m of a NATS message; seq is its place in stream, which names it when it brings no id.
func (d *decoder) decode(m *message.Message, nm *natsgo.Msg, stream string, seq uint64) {
	m.Data = nm.Data
	if len(nm.Data) == 0 {
		m.Data = nil
	}
	if len(nm.Header) == 0 && !looksStructured(nm.Data) {
		plain(m, "", stream, seq)
		return
	}
	if isStructured(nm.Header) || len(nm.Header) == 0 {
		if event, err := message.ParseJSON(nm.Data); err == nil {
			*m = event
			return
		}
	}
	start := len(d.attributes)
	var spec, natsID, ofBody string
	for key, values := range nm.Header {
		if len(values) == 0 {
			continue
		}
		value := values[0]
		switch key {
		case "ce-id":
			m.ID = unescape(value)
		case "ce-source":
			m.Source = unescape(value)
		case "ce-type":
			m.Type = unescape(value)
		case "ce-specversion":
			spec = value
		case "ce-subject":
			m.Subject = unescape(value)
		case "ce-time":
			m.Time = unescape(value)
		case "ce-dataschema":
			m.DataSchema = unescape(value)
		case "ce-partitionkey":
			m.Key = unescape(value)
		case dataType:
			m.DataContentType = unescape(value)
		case contentType:
			ofBody = value
		case msgID:
			natsID = value
		default:
			if len(key) == len(contentType) && strings.EqualFold(key, contentType) {
				ofBody = value
			} else {
				d.other(m, key, value, &spec)
			}
		}
	}
	if m.DataContentType == "" {
		m.DataContentType = ofBody
	}
	if n := len(d.attributes) - start; n > 0 {
		m.Attributes = d.attributes[start:len(d.attributes):len(d.attributes)]
		if n > 1 { // NATS headers arrive as a map: an order of our own is at least always the same
			slices.SortFunc(m.Attributes, func(a, b message.Attribute) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	if spec == "" && m.ID == "" {
		if ofBody == "" && looksStructured(nm.Data) {
			if event, err := message.ParseJSON(nm.Data); err == nil {
				*m = event
				return
			}
		}
		plain(m, natsID, stream, seq)
		return
	}
	if m.ID == "" {
		m.ID = sequenceID(natsID, stream, seq)
	}
	if m.Source == "" {
		m.Source = "nats:/" + stream
	}
	if m.Type == "" {
		m.Type = plainType
	}
}

// isStructured reports whether the data is a whole event in JSON. Where it cannot be read as one it is passed on as it is, so that whoever
// receives it sees what was sent.
func isStructured(h natsgo.Header) bool {
	v := h[contentType]
	if v == nil {
		if v = h["Content-Type"]; v == nil {
			return false
		}
	}
	if len(v[0]) < len(structured) || !strings.EqualFold(v[0][:len(structured)], structured) {
		return false
	}
	media, _, _ := strings.Cut(v[0], ";")
	return strings.EqualFold(strings.TrimSpace(media), structured+"+json")
}

// looksStructured reports whether data may be an event in JSON although no header says so: up to version 1.0.2 the binding knew no headers,
// and clients of that kind are about.
func looksStructured(data []byte) bool {
	head := bytes.TrimLeft(data, " \t\r\n")
	return len(head) > 0 && head[0] == '{' && bytes.Contains(head, []byte(`"specversion"`))
}

// other takes an extension, or a header that another client spelt with capitals. What is no CloudEvents attribute is left out.
func (d *decoder) other(m *message.Message, key, value string, spec *string) {
	if len(key) > len(prefix) && strings.EqualFold(key[:len(prefix)], prefix) {
		name := key[len(prefix):]
		if !message.ValidName(name) {
			name = strings.ToLower(name)
			if !message.ValidName(name) {
				return
			}
		}
		value = unescape(value)
		switch name {
		case "id":
			m.ID = value
		case "source":
			m.Source = value
		case "type":
			m.Type = value
		case "specversion":
			*spec = value
		case "subject":
			m.Subject = value
		case "time":
			m.Time = value
		case "dataschema":
			m.DataSchema = value
		case message.PartitionKey:
			m.Key = value
		case "datacontenttype":
			m.DataContentType = value
		default:
			d.attributes = append(d.attributes, message.Attribute{Name: name, Value: value})
		}
	}
}

// plainType is the type of what was no CloudEvent when it was published.
const plainType = "dev.waybill.message"

func plain(m *message.Message, natsID, stream string, seq uint64) {
	m.ID = sequenceID(natsID, stream, seq)
	m.Source = "nats:/" + stream
	m.Type = plainType
}
