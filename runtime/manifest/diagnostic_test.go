package manifest_test

import (
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/runtime/manifest"
)

func TestADiagnosticIsOneLineThatATerminalShows(t *testing.T) {
	const remedy = `" is not known: it must be Key`
	for _, c := range []struct {
		d    manifest.Diagnostic
		want string
	}{
		{manifest.Diagnostic{File: "a\nb.yaml", Line: 1, Kind: "Topic", Namespace: "default", Name: "x\x1b[31m", Field: "spec.é\u0085", Message: "no\r\n\x00"},
			`a\nb.yaml:1: Topic default/x\x1b[31m: spec.é\u0085: no\r\n\x00`},
		{manifest.Diagnostic{File: "f", Line: 1, Message: `"` + strings.Repeat("a", 5000) + remedy}, `f:1: "` + strings.Repeat("a", 639) + "…" + strings.Repeat("a", 384-len(remedy)) + remedy},
		{manifest.Diagnostic{File: "f", Line: 1, Field: strings.Repeat("é", 1000), Message: "m"}, "f:1: " + strings.Repeat("é", 320) + "…" + strings.Repeat("é", 192) + ": m"},
		{manifest.Diagnostic{File: "f", Line: 1, Message: strings.Repeat("a", 1024)}, "f:1: " + strings.Repeat("a", 1024)},
		{manifest.Diagnostic{File: "f", Line: 1, Message: strings.Repeat("\x80", 2000)}, "f:1: …"}, // no UTF-8
	} {
		if got := c.d.String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
