package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// A payload is data to be published, and its name.
type payload struct {
	name string
	data []byte
}

// payloads are the shapes under testdata/payloads, which follow the documented webhooks of well-known services and formats, each written in
// several ways that all are right and all are different bytes; and what is odd by itself.
func payloads(t *testing.T) []payload {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "payloads", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []payload
	for _, f := range files {
		shape, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for name, write := range spellings {
			all = append(all, payload{strings.TrimSuffix(filepath.Base(f), ".json") + "/" + name, write(shape)})
		}
	}
	for name, data := range oddities() {
		all = append(all, payload{"odd/" + name, []byte(data)})
	}
	seen := map[string]string{}
	for _, p := range all {
		if other, ok := seen[string(p.data)]; ok {
			t.Fatalf("%s and %s are the same", p.name, other)
		}
		seen[string(p.data)] = p.name
	}
	return all
}

var spellings = map[string]func([]byte) []byte{
	"compact":  func(b []byte) []byte { return b },
	"indented": func(b []byte) []byte { return indent(b, "  ", "\n") },
	"CRLF": func(b []byte) []byte {
		return append(append([]byte("\r\n\t "), indent(b, "\t", "\r\n")...), " \r\n"...)
	},
	"spaced":    func(b []byte) []byte { return eachByte(b, spacedOut) },
	"escaped":   escapeStrings,
	"numbers":   strangeNumbers,
	"duplicate": func(b []byte) []byte { return eachByte(b, withDuplicates) },
	"deep":      func(b []byte) []byte { return nest(b, 200) },
}

func indent(b []byte, by, end string) []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", by); err != nil {
		panic(err)
	}
	return bytes.ReplaceAll(out.Bytes(), []byte("\n"), []byte(end))
}

// eachByte writes b with put in place of each byte that is not inside of a string.
func eachByte(b []byte, put func(out []byte, b []byte, i int) []byte) []byte {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] != '"' {
			out = put(out, b, i)
			continue
		}
		end := stringEnd(b, i)
		out = append(out, b[i:end]...)
		i = end - 1
	}
	return out
}

func stringEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func spacedOut(out, b []byte, i int) []byte {
	switch b[i] {
	case '{', '}', '[', ']', ',', ':':
		return append(append(append(out, " \t"...), b[i]), "  "...)
	}
	return append(out, b[i])
}

func withDuplicates(out, b []byte, i int) []byte {
	out = append(out, b[i])
	if b[i] == '{' {
		out = append(out, `"twice":1,"twice":"2"`...)
		if b[i+1] != '}' {
			out = append(out, ',')
		}
	}
	return out
}

// escapeStrings spells each letter e and all beyond ASCII as \u, the latter half of them in capitals.
func escapeStrings(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] != '"' {
			out = append(out, b[i])
			continue
		}
		end := stringEnd(b, i)
		text := b[i:end]
		i = end - 1
		for j := 0; j < len(text); {
			r, n := []rune(string(text[j:min(j+4, len(text))]))[0], 1
			switch {
			case r == '\\':
				out = append(out, text[j:j+2]...)
				n = 2
			case r == 'e':
				out = append(out, `\u0065`...)
			case r < 0x80:
				out = append(out, text[j])
			default:
				n = len(string(r))
				for k, u := range utf16.Encode([]rune{r}) {
					out = fmt.Appendf(out, []string{`\u%04x`, `\u%04X`}[k], u)
				}
			}
			j += n
		}
	}
	return append(out, '\n')
}

var numbers = []string{"9007199254740993", "-0", "1E400", "1.00", "18446744073709551616", "0.1e-7", "-9223372036854775809",
	"123456789012345678901234567890.12345678901234567890", "2.5E+10", "-1e-999"}

// strangeNumbers puts in the place of each number one that a reader of floating point would change, and a list of all of them at the end.
func strangeNumbers(b []byte) []byte {
	n, inNumber := 0, false
	out := eachByte(b, func(out, b []byte, i int) []byte {
		switch c := b[i]; {
		case inNumber && strings.IndexByte("0123456789+-.eE", c) >= 0:
			return out
		case c == '-' || c >= '0' && c <= '9':
			inNumber = true
			n++
			return append(out, numbers[n%len(numbers)]...)
		default:
			inNumber = false
			return append(out, c)
		}
	})
	return []byte("[" + string(out) + "," + strings.Join(numbers, ",") + "]")
}

func nest(b []byte, depth int) []byte {
	return []byte(strings.Repeat(`{"in":[`, depth/2) + string(b) + strings.Repeat(`]}`, depth/2))
}

func oddities() map[string]string {
	odd := map[string]string{
		"empty": "", "empty object": "{}", "empty array": "[]", "empty string": `""`, "null": "null", "true": "true", "false": " false ",
		"zero": "0", "minus zero": "-0", "minus zero point zero": "-0.0", "2^53+1": "9007199254740993", "2^63": "9223372036854775808", "2^64": "18446744073709551616",
		"out of range": "1E400", "tiny": "1e-400", "long decimal": "3." + strings.Repeat("1415926535", 100), "long integer": strings.Repeat("9", 5000),
		"string": `"text"`, "escapes": `"\"\\\/\b\f\n\r\t\u0000\u001f\u007f"`, "escaped surrogates": `"\ud83d\ude9a \uD83D\uDE9A"`, "half a surrogate": `"\ud83d"`,
		"halves the wrong way": `["\ude9a\ud83d"]`, "separators": "\"\u2028\u2029\u0085\"", "beyond the BMP": `"🚚👨‍👩‍👧‍👦𝒳"`, "combining": "\"e\u0301 é\"", "right to left": `{"مرحبا":"שלום"}`,
		"HTML": `{"h":"<script>&amp;</script>'"}`, "empty name": `{"":"",  "":{}}`, "many duplicates": `{"a":1,"a":2,"a":{"a":3,"a":4}}`, "looks like an event": `{"specversion":"1.0","id":"x","source":"/x","type":"x","data":1}`,
		"looks like a batch": `[{"specversion":"1.0","id":"x","source":"/x","type":"x"}]`, "looks like a stream": "{\"x\":\n\n\"data: y\\n\\nid: 1\"}", "only line breaks": "[\n\n\r\n\r\r1\n]",
		"white space": " \t\r\n{ } \n", "byte order mark": "\ufeff{}", "byte order mark within": "\"\ufeff\"", "two values": "{}{}", "trailing comma": "[1,]", "single quotes": "{'a':1}", "NaN": "NaN", "cut off": `{"a":`,
		"latin-1": "\"\xe9\"", "not UTF-8 in a member": "{\"a\":\"\xff\xfe\"}", "NUL": "\x00", "NUL in the middle": "{\"a\":\x00}", "comment": "/* c */ {}",
		"only spaces": "   ", "form": "a=1&b=%20", "binary": string([]byte{0, 1, 2, 0xff, 0xfe, '\r', '\n'}), "leading zero": "007", "plus": "+1", "hexadecimal": "0x1F",
		"long string": `"` + strings.Repeat("ä€🚚\\n", 5000) + `"`, "many members": "{" + manyMembers(3000) + "}", "long array": "[" + strings.Repeat("1.0,", 20000) + "0]",
		"nested as deep as stands raw": strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "nested deeper": strings.Repeat("[", 9001) + strings.Repeat("]", 9001),
		"objects nested deep": strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), "nested too deep": strings.Repeat("[", 20000) + strings.Repeat("]", 20000),
	}
	return odd
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"member%d":%d.0`, i, i)
	}
	return b.String()
}
