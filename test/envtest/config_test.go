package envtest

import (
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("The samples", func() {
	It("are accepted from kubectl, all by one command", func(ctx SpecContext) {
		out := kubectl(ctx, "", "apply", "--server-side", "--dry-run=server", "-k", filepath.Join(root, "config", "samples"))
		Expect(out).To(ContainSubstring("pipeline.waybill.dev/"))
	}, NodeTimeout(patience))
})
