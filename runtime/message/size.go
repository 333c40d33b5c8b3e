package message

// HeaderSize is how many bytes m's attributes take as percent-encoded header lines, which is how most brokers keep them.
func (m *Message) HeaderSize() int {
	n := 0
	for _, a := range [...]Attribute{
		{"specversion", SpecVersion}, {"id", m.ID}, {"source", m.Source}, {"type", m.Type}, {"subject", m.Subject}, {"time", m.Time},
		{"datacontenttype", m.DataContentType}, {"dataschema", m.DataSchema}, {PartitionKey, m.Key},
	} {
		if a.Value != "" {
			n += a.headerSize()
		}
	}
	for i := range m.Attributes {
		n += m.Attributes[i].headerSize()
	}
	return n
}

func (a *Attribute) headerSize() int { return len("ce-: \r\n") + len(a.Name) + encodedLen(a.Value) }
