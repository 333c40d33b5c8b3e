package secret

import "bytes"

// A Flaw is what may keep a value from its use. It says nothing else about the value. Zero: none.
type Flaw int

const (
	_ Flaw = iota
	// Empty: there is nothing in it but white space.
	Empty
	// ControlCharacter: its first line, as Line has it, holds one, and no HTTP header can carry that.
	ControlCharacter
	// SeveralLines: there is more than its first line.
	SeveralLines
)

// String says it of a value.
func (f Flaw) String() string {
	switch f {
	case Empty:
		return "is empty"
	case ControlCharacter:
		return "holds a control character, which no header can carry"
	case SeveralLines:
		return "has more than one line, which no header can carry"
	}
	return "is sound"
}

// FlawOf looks for a flaw in a value.
func FlawOf(value []byte) Flaw {
	line := Line(value)
	if line == nil {
		return Empty
	}
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return ControlCharacter
		}
	}
	if len(bytes.TrimSpace(value)) > len(line) {
		return SeveralLines
	}
	return 0
}

// FlawsOf are the flaws of a Secret's values, by key; those without one are not in it.
func FlawsOf(data map[string][]byte) map[string]Flaw {
	flaws := map[string]Flaw{}
	for k, v := range data {
		if f := FlawOf(v); f != 0 {
			flaws[k] = f
		}
	}
	return flaws
}
