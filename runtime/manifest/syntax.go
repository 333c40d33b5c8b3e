package manifest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A broken document is one that is no YAML or JSON: where, why, and whose it seems to be.
type broken struct {
	fault
	of Key // as far as its lines tell: kind, namespace and name
}

// parseYAML gives the documents of a file. Where the file as a whole is not YAML, each of its documents is read by itself, so that a fault in
// one hides nothing in the others.
func parseYAML(data []byte) ([]*yaml.Node, []broken) {
	roots, f := decodeYAML(data)
	if f == nil {
		return roots, nil
	}
	roots = nil
	var faults []broken
	for _, part := range documents(data) {
		found, f := decodeYAML(part.text)
		for _, n := range found {
			shift(n, part.line)
			roots = append(roots, n)
		}
		if f != nil {
			said := explainYAML(part.text, *f)
			last := 1 + bytes.Count(bytes.TrimRight(part.text, " \t\r\n"), []byte("\n")) // the parser may name the end, where nothing stands
			said.line = min(said.line, last) + part.line
			faults = append(faults, broken{said, guess(part.text)})
		}
	}
	return roots, faults
}

// part is a document's text and the number of lines before it.
type part struct {
	line int
	text []byte
}

// documents cuts a file at its lines of ---, which YAML allows at the begin of a line in no other meaning.
func documents(data []byte) []part {
	parts := []part{{}}
	for n, line := range bytes.Split(data, []byte("\n")) {
		if rest, ok := bytes.CutPrefix(line, []byte("---")); ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r")) {
			parts = append(parts, part{line: n})
		}
		last := &parts[len(parts)-1]
		last.text = append(append(last.text, line...), '\n')
	}
	return parts
}

func shift(n *yaml.Node, by int) {
	n.Line += by
	for _, c := range n.Content {
		shift(c, by)
	}
}

var (
	kindLine      = regexp.MustCompile(`(?m)^"?kind"?:[ \t]*["']?([A-Za-z]+)`)
	metadataLines = regexp.MustCompile(`(?m)^metadata:(.*(?:\n[ \t]+.*)*)`)
	secretData    = regexp.MustCompile(`(?m)(?:^|[{,])[ \t]*(?:data|stringData):(?s:.*)`) // a Secret's, indented too far: no name is to be had there
	nameIn        = regexp.MustCompile(`(?m)(?:^[ \t]+|[{,][ \t]*)name:[ \t]*["']?([-.a-z0-9]+)`)
	namespaceIn   = regexp.MustCompile(`(?m)(?:^[ \t]+|[{,][ \t]*)namespace:[ \t]*["']?([-a-z0-9]+)`)
)

// guess says whose a document seems to be that cannot be parsed: references to that object are not to be called missing.
func guess(text []byte) Key {
	first := func(re *regexp.Regexp, in []byte) string {
		if m := re.FindSubmatch(in); m != nil {
			return string(m[1])
		}
		return ""
	}
	meta := secretData.ReplaceAll([]byte(first(metadataLines, text)), nil)
	return Key{Kind: first(kindLine, text), Namespace: first(namespaceIn, meta), Name: first(nameIn, meta)}
}

const (
	notRendered = "holds a template that was not rendered ({{ … }}): render it first, as with helm template, and give what comes out"
	notReplaced = "holds a variable that was not replaced (${…}): replace it first, as with envsubst, and give what comes out"
	tabs        = "is indented with a tab, and YAML takes only spaces: use spaces"
	// Without the name: what looks like an alias is most likely a value, and may be a secret one.
	noAnchor = "a value that begins with * is taken for an alias of YAML's, and this document has no anchor of that name above it: put the whole value in single quotes, or write out what the alias stands for"
)

// mayBeSecret says whether a text holds a Secret, or something that was meant to be one: none of it is quoted in a message.
var mayBeSecret = regexp.MustCompile(`(?i)\bkind["']?\s*:\s*(?:[&!]\S*\s+|[|>]\S*\s+)*["']?secret|\bstringData\b`)

var (
	mergeMark     = regexp.MustCompile(`^(<{7}|={7}|>{7})( |\r?$)`)
	afterQuotes   = regexp.MustCompile(`:[ \t]+(?:"[^"]*"|'[^']*')[ \t]*[^ \t,}\]#\r\n]`)
	indicator     = regexp.MustCompile("(?:^[ \\t]*|[:\\-,\\[{][ \\t]+|[\\[{,])(?:([*&])(?:[^-\\w]|$|[-\\w]+(?:[^-\\w\\s?:,\\]}%@`]|[ \\t]+[|>!&*]))|([!|>?]))")
	unstartable   = regexp.MustCompile("(?:^|[:\\-,\\[{][ \t]*)([@`%])")
	ofIndicator   = regexp.MustCompile(`alphabetic or numeric|comment or line break|whitespace or line break|tag|cannot start any token|mapping keys|expected '[!>]'|URI|indentation indicator`)
	twoValues     = regexp.MustCompile(`:[ \t].*:(?:[ \t]|\r?$)`)
	leadingTab    = regexp.MustCompile(`^ *\t`)
	bareWord      = regexp.MustCompile(`^([A-Za-z_][-\w]*)`)
	quotedByte    = regexp.MustCompile(`^invalid character '.*?'( |$)`)
	forbiddenByte = regexp.MustCompile(`[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]`)
)

// explainYAML says in plain words what the parser found: in its own, it speaks of tokens and contexts. It may move the fault to the line that
// has to be changed.
func explainYAML(text []byte, f fault) fault {
	lines := strings.Split(string(text), "\n")
	at := func(n int) string { // the n-th line, from 1
		if n < 1 || n > len(lines) {
			return ""
		}
		return lines[n-1]
	}
	for i, line := range lines {
		if m := mergeMark.FindString(line); m != "" && (m[0] != '=' || i > 0) {
			return fault{i + 1, "has a mark of a merge (" + strings.TrimSpace(m) + "): decide between the two versions, and remove the marks"}
		}
	}
	for i, line := range lines {
		if strings.Contains(line, "{{") && i <= f.line {
			return fault{i + 1, notRendered}
		}
	}
	has := func(s string) bool { return strings.Contains(f.message, s) }
	line := at(f.line)
	switch {
	case leadingTab.MatchString(line), has("tab character"):
		return fault{f.line, tabs}
	case has("cannot start any token"):
		if m := unstartable.FindStringSubmatch(line); m != nil {
			return fault{f.line, fmt.Sprintf("a value cannot begin with %s: put it in quotes", m[1])}
		}
		return misread(lines, f)
	case has("unknown anchor"):
		if m := unknownAnchor.FindStringSubmatch(f.message); m != nil { // the parser names no line
			alias := regexp.MustCompile(`^(?:(?:[^#]|[^ \t]#)*[ \t,\[{])?\*` + regexp.QuoteMeta(m[1]) + `(?:[^-\w]|$)`)
			at := slices.IndexFunc(lines, alias.MatchString)
			if at < 0 { // a # in quotes before it is none of a comment
				at = max(0, slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "*"+m[1]) }))
			}
			return fault{1 + at, noAnchor}
		}
	case has("unexpected end of stream"), has("unexpected document indicator"):
		return unclosed(lines, f)
	case has("mapping values are not allowed"):
		if tooDeep(lines, f.line) {
			return fault{f.line, tooDeepText}
		}
		if twoValues.MatchString(line) || !fieldLine.MatchString(line) {
			return fault{f.line, "a value holds a colon and a space, so that it looks like two fields: put the value in single quotes"}
		}
		return fault{f.line, tooDeepText}
	case has("did not find expected key"), has("expected <document start>"):
		if _, stray := brackets(lines); len(stray) > 0 {
			return fault{stray[0].line, fmt.Sprintf("a bracket (%c) is closed here that was never opened: remove it, or put the whole value in single quotes if it is text", stray[0].mark)}
		}
		if has("document start") {
			return fault{f.line, "the document has ended above: put --- on a line of its own before another object, or remove what is too much"}
		}
		// The parser names the begin of the mapping, unless that is the document's.
		for n := f.line; n <= len(lines); n++ {
			if afterQuotes.MatchString(at(n)) {
				return fault{n, "text follows the closing quotation mark: put the whole value in single quotes"}
			}
		}
		for n := f.line; n <= len(lines); n++ {
			if tooDeep(lines, n) {
				return fault{n, tooDeepText}
			}
		}
		return fault{misaligned(lines, f.line), "does not begin in the column of the other fields: indent all fields of one mapping alike"}
	case has("expected '-' indicator"):
		return fault{misaligned(lines, f.line), "does not begin with '-' in the column of the list's other items: indent all items of one list alike"}
	case has("could not find expected ':'"):
		return fault{f.line, "a colon and a space are missing after a field's name, on this line or the one before: write NAME: VALUE"}
	case has("expected ',' or"):
		closing := "}"
		if has("']'") {
			closing = "]"
		}
		return fault{f.line, fmt.Sprintf("a comma or a closing %s is missing, here or on the lines below", closing)}
	case has("unknown escape character"), has("decode an escape"), has("hexdecimal number"):
		return fault{f.line, `in double quotes \ begins an escape, and this is none that YAML knows: use single quotes, or write \\ for one \`}
	case has("control characters"):
		for i, l := range lines {
			if forbiddenByte.MatchString(l) {
				return fault{i + 1, "has a control character: remove it, or name another file if this one is no text"}
			}
		}
	case has("UTF-8"), has("UTF-16"), !utf8.Valid(text):
		for i, l := range lines {
			if !utf8.ValidString(l) {
				return fault{i + 1, "is not UTF-8: save the file as UTF-8"}
			}
		}
	case has("block sequence entries are not allowed"):
		return fault{f.line, "a list cannot begin behind its field's name: put each '- ITEM' on a line of its own below"}
	case has("node content"):
		if open, _ := brackets(lines); len(open) > 0 && strings.TrimSpace(strings.Join(lines[min(f.line, len(lines))-1:], "")) == "" {
			last := open[len(open)-1]
			return fault{last.line, fmt.Sprintf("a bracket (%c) is opened here and never closed: close it, or put the value in quotes if it is text", last.mark)}
		}
		return fault{f.line, "a value is missing, or begins with a character that means something else in YAML: put it in quotes"}
	case ofIndicator.MatchString(f.message):
		return misread(lines, f)
	}
	return f
}

// misread says of a value that is text what its first character makes of it. The parser may name the line above or below.
func misread(lines []string, f fault) fault {
	for _, n := range []int{f.line, f.line - 1, f.line + 1} {
		if n < 1 || n > len(lines) {
			continue
		}
		if m := indicator.FindStringSubmatch(lines[n-1]); m != nil && !blockText.MatchString(lines[n-1]) {
			mark := m[1] + m[2]
			as := map[string]string{"*": "an alias of YAML's", "&": "an anchor of YAML's", "!": "a tag of YAML's", "?": "a key of YAML's"}[mark]
			switch {
			case as != "":
				return fault{n, fmt.Sprintf("a value that begins with %s is taken for %s: put the whole value in single quotes", mark, as)}
			case strings.Contains(f.message, "cannot start"):
				return fault{n, fmt.Sprintf("a value cannot begin with %s: put it in quotes", mark)}
			}
			return fault{n, fmt.Sprintf("a value that begins with %s is taken for a text on the lines below: begin it there, or put the whole value in single quotes", mark)}
		}
	}
	return f
}

var (
	blockText = regexp.MustCompile(`([:-])[ \t]+(?:[&!]\S*[ \t]+)*[|>][-+0-9]*[ \t]*(#.*)?\r?$`)
	dashes    = regexp.MustCompile(`^ *(?:- +)+`)
	fieldLine = regexp.MustCompile(`^ *(?:- +)*["']?[A-Za-z_][-\w./]*["']?:(?:[ \t]|\r?$)`)
	valueLine = regexp.MustCompile(`^ *(?:- +)*["']?[A-Za-z_][-\w./]*["']?:[ \t]+[^ \t\r#&|>]`)
)

const tooDeepText = "is indented as if it belonged to the line above, which has a value already: begin it in the column of the other fields, or items"

// tooDeep says whether a field begins further right than the one on the line above, which has a value and so can have no fields below it.
func tooDeep(lines []string, n int) bool {
	if n > len(lines) || !fieldLine.MatchString(lines[n-1]) {
		return false
	}
	for i := n - 2; i >= 0; i-- {
		above := lines[i]
		if content := strings.TrimSpace(above); content == "" || content[0] == '#' {
			continue
		}
		return valueLine.MatchString(above) && !blockText.MatchString(above) && column(lines[n-1]) > column(above)
	}
	return false
}

// column is where the first field of a line begins, behind the dashes of lists.
func column(line string) int {
	if m := dashes.FindString(line); m != "" {
		return len(m)
	}
	return len(line) - len(strings.TrimLeft(line, " "))
}

// outsideText gives the lines with those left empty that belong to a block of text, which may hold anything.
func outsideText(lines []string) []string {
	out := make([]string, len(lines))
	text := -1 // the column of the field whose block of text is being skipped
	for i, line := range lines {
		content := strings.TrimLeft(line, " ")
		column := len(line) - len(content)
		if text >= 0 && (content == "" || column > text) {
			continue
		}
		out[i], text = line, -1
		if blockText.MatchString(line) {
			text = column
		}
	}
	return out
}

// misaligned is the first line, from one on, that goes back to a column in which nothing began; that line itself if there is none.
func misaligned(lines []string, from int) int {
	var columns []int
	for i, line := range outsideText(lines) {
		content := strings.TrimLeft(line, " ")
		column := len(line) - len(content)
		if content == "" || content[0] == '#' {
			continue
		}
		back := false
		for len(columns) > 0 && columns[len(columns)-1] > column {
			columns, back = columns[:len(columns)-1], true
		}
		if len(columns) == 0 || columns[len(columns)-1] < column {
			if back && i+1 >= from {
				return i + 1
			}
			columns = append(columns, column)
		}
		if m := dashes.FindString(line); m != "" {
			columns = append(columns, len(m))
		}
	}
	return from
}

// unclosed finds the quotation mark that was opened and never closed: the last one of an odd number on its line.
func unclosed(lines []string, f fault) fault {
	for i := min(f.line, len(lines)) - 1; i >= 0; i-- {
		for _, mark := range []string{`"`, `'`} {
			plain := strings.ReplaceAll(strings.ReplaceAll(lines[i], `\"`, ""), `\\`, "")
			if other := map[string]string{`"`: `'`, `'`: `"`}[mark]; strings.Count(plain, mark)%2 == 1 && strings.Count(plain, other)%2 == 0 {
				return fault{i + 1, fmt.Sprintf("a quotation mark (%s) is opened here and never closed: close it", mark)}
			}
		}
	}
	return fault{f.line, "ends in the middle of a value that is in quotes: close the quotes"}
}

// A bracket of a list or a mapping, and its line.
type bracket struct {
	line int
	mark rune
}

// brackets finds those that begin a list or a mapping which does not end, and those that end none.
func brackets(lines []string) (open, stray []bracket) {
	quote := rune(0)
	for i, text := range outsideText(lines) {
		plain := false // within a value, or key, without quotes: what stands in it is its text
		skip := false  // the second of two characters that belong together
	line:
		for at, c := range text {
			next := byte(' ')
			if at+1 < len(text) {
				next = text[at+1]
			}
			switch {
			case skip:
				skip = false
			case quote != 0:
				if skip = quote == '"' && c == '\\' || quote == '\'' && c == '\'' && next == '\''; !skip && c == quote {
					quote = 0
				}
			case c == '#' && (at == 0 || text[at-1] == ' '):
				break line
			case plain && c == ':' && (next == ' ' || next == '\r'), plain && len(open) > 0 && c == ',':
				plain = false
			case len(open) > 0 && (c == ']' || c == '}'):
				open, plain = open[:len(open)-1], false
			case plain, c == ' ', c == '\r', c == ',', c == ':', c == '-' && next == ' ':
			case c == '"' || c == '\'':
				quote = c
			case c == '[' || c == '{':
				open = append(open, bracket{i + 1, c})
			case c == ']' || c == '}':
				stray = append(stray, bracket{i + 1, c})
			default:
				plain = true
			}
		}
	}
	return open, stray
}

// explainJSON says in plain words what the parser of JSON found.
func explainJSON(data []byte, offset int64, message string) string {
	if rest := bytes.TrimSpace(data); len(rest) > 0 && rest[0] != '{' && rest[0] != '[' {
		return "is not JSON, for it does not begin with {: if it is YAML, name the file .yaml"
	}
	has := func(s string) bool { return strings.Contains(message, s) }
	secretive := mayBeSecret.Match(data) || bytes.Contains(data, []byte(`"data"`)) // kind may be misspelt
	if word := bareWord.FindSubmatch(data[min(int(offset), len(data)):]); word != nil {
		if secretive {
			return "a key or a value must be in double quotes here"
		}
		return fmt.Sprintf("%s must be in double quotes: %q", word[1], word[1])
	}
	before := bytes.TrimRight(data[:min(int(offset), len(data))], " \t\r\n}]")
	comma := len(before) > 0 && before[len(before)-1] == ','
	switch {
	case has("'}'") && comma, has("']'") && comma:
		return "a comma stands before the closing bracket, and JSON has none there: remove it"
	case has(`'\''`):
		return `JSON takes double quotes only: write "…" instead of '…'`
	case has("'/'"), has("'#'"):
		return "JSON has no comments: remove them, or name the file .yaml, which may have some (#)"
	case has("after object key:value pair"), has("after array element"):
		return "a comma is missing between two fields or items, here or on the line before"
	case has("after object key"):
		return "a colon is missing between a key and its value"
	case has("object key string"), has("object key"):
		return "a key must be in double quotes"
	case has("{{"):
		return notRendered
	}
	if secretive {
		message = quotedByte.ReplaceAllString(message, "invalid character$1")
	}
	return "is not JSON: " + message
}

// toUTF8 takes away the mark that some editors put before a text, and turns UTF-16, as Windows writes it, into UTF-8.
func toUTF8(data []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	}
	var units []uint16
	for data = data[2:]; len(data) > 1; data = data[2:] {
		units = append(units, order.Uint16(data))
	}
	return []byte(string(utf16.Decode(units)))
}

// lineOf is the n-th line of a text, from 1.
func lineOf(data []byte, n int) (string, bool) {
	for i := 1; len(data) > 0; i++ {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		if i == n {
			return string(line), true
		}
		data = rest
	}
	return "", false
}

// twoObjects divides a mapping in which a second object begins, because the line of --- between the two is missing. It gives the line of
// the second one's first field.
func twoObjects(root *yaml.Node) (first, second *yaml.Node, line int) {
	seen := map[string]bool{}
	split, repeated := -1, 0
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch k := root.Content[i].Value; k {
		case "apiVersion", "kind", "metadata", "spec":
			if seen[k] {
				repeated++
				if split < 0 {
					split = i
				}
			}
			seen[k] = true
		}
	}
	if root.Kind != yaml.MappingNode || repeated < 3 {
		return nil, nil, 0
	}
	a, b := *root, *root
	a.Content, b.Content = root.Content[:split], root.Content[split:]
	b.Line = b.Content[0].Line
	return &a, &b, b.Line
}
