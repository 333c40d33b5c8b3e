package envtest

import (
	"os"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("config", func() {
	for _, folder := range []string{"default", "samples"} {
		It("is applied by plain kubectl: "+folder, func(ctx SpecContext) {
			kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
			if _, err := os.Stat(kubectl); err != nil {
				kubectl = "kubectl"
			}
			out, err := exec.CommandContext(ctx, kubectl, "--kubeconfig", kubeconfig, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", filepath.Join(root, "config", folder)).CombinedOutput()
			// What lies in a namespace that is made by the same call is refused in a dry run, and only that may be.
			if err != nil {
				Expect(string(out)).To(ContainSubstring(`namespaces "waybill-system" not found`))
				Expect(string(out)).NotTo(MatchRegexp(`(?i)unknown|invalid|no matches`))
			}
		}, NodeTimeout(time1m))
	}

	It("runs a manager that Pod security admits", func(ctx SpecContext) {
		kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
		out, err := exec.CommandContext(ctx, kubectl, "--kubeconfig", kubeconfig, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(root, "config", "manager")).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		Expect(string(out)).NotTo(ContainSubstring("Warning"))
		var d appsv1.Deployment
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: "waybill-system", Name: "waybill-manager"}, &d)).To(Succeed())
	}, NodeTimeout(time1m))
})
