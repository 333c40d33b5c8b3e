// Command apidoc writes docs/api.md: every field of every kind, with its type, bounds, default and what it means, the columns that kubectl
// prints, and what conditions say. It reads the definitions that a cluster is given, whose words are the doc comments of api/v1alpha1, and
// the order of the fields and the sentences about conditions from the Go code itself.
//
//	go run ./hack/apidoc > docs/api.md       (at the root of the module)
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if err := write(os.Stdout, "api/v1alpha1"); err != nil {
		fmt.Fprintf(os.Stderr, "apidoc: %v\n", err)
		os.Exit(1)
	}
}

// write writes the page; source is the folder of the Go types.
func write(w io.Writer, source string) error {
	kinds, err := readKinds()
	if err != nil {
		return err
	}
	code, err := readCode(source)
	if err != nil {
		return err
	}
	p := &page{code: code}
	p.write(kinds)
	_, err = io.WriteString(w, p.String())
	return err
}
