package secret

import "testing"

func TestFlawOf(t *testing.T) {
	for value, want := range map[string]Flaw{
		"": Empty, " \r\n\t": Empty,
		"token": 0, "\n token\r\n": 0, "two\twords": 0, "schlüssel": 0,
		"one\ntwo": SeveralLines, "one\r\ntwo\n": SeveralLines,
		"one\rtwo": ControlCharacter, "a\x00b\nc": ControlCharacter, "a\x7f": ControlCharacter,
	} {
		if got := FlawOf([]byte(value)); got != want {
			t.Errorf("%q %s; want: %s", value, got, want)
		}
	}
}
