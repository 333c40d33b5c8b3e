#!/usr/bin/env bash
# Prints the folder with etcd, kube-apiserver and kubectl (and all else that a cluster is made of), building them when they
# are not there: hack/kubernetes.sh
#
# They are one multi-call binary, made of Go modules only (hack/kubernetes), under the names by which envtest looks for
# them. It takes some six minutes once, and is then kept under the user's cache directory in a folder named by what went
# into it. KUBEBUILDER_ASSETS, where it is set, is believed and printed as it is. What cannot be built is said by name, and
# the exit code is 1.
set -euo pipefail

module=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/kubernetes
components=(etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet coredns kubectl)

if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
  for component in etcd kube-apiserver; do
    if [[ ! -x $KUBEBUILDER_ASSETS/$component ]]; then
      echo "hack/kubernetes.sh: KUBEBUILDER_ASSETS is $KUBEBUILDER_ASSETS, and there is no $component in it: correct it, or unset it to have one built" >&2
      exit 1
    fi
  done
  echo "$KUBEBUILDER_ASSETS"
  exit
fi

hash_of() { # sha256sum is GNU's, shasum is what macOS has
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi
}
# What the caller has set is for the caller's own module. The binary is static: it runs in a namespace of its own, too.
go_here() {
  env -u GOOS -u GOARCH GOWORK=off GOFLAGS= CGO_ENABLED=0 nice go -C "$module" "$@"
}
key=$({ cat "$module/go.mod" "$module/go.sum" "$module"/node/*.go; go_here env GOVERSION GOHOSTOS GOHOSTARCH; } | hash_of | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/waybill/kubernetes/$key

if [[ ! -x $cache/kubectl ]]; then
  mkdir -p "$cache"
  if command -v flock >/dev/null; then # who comes second waits, and finds it built
    exec 9>"$cache/.lock"
    flock 9
  fi
fi
if [[ ! -x $cache/kubectl ]]; then
  started=$SECONDS
  temporary=$(mktemp -d "$cache/.build.XXXXXX")
  trap 'rm -rf "$temporary"' EXIT
  version=$(sed -n 's|^\tk8s.io/kubernetes ||p' "$module/go.mod")
  IFS=. read -r major minor _ <<<"${version#v}"
  echo "building Kubernetes $version and etcd (once, some six minutes; kept in $cache)" >&2
  # Without the stamp clients cannot parse the server's version.
  stamp=k8s.io/component-base/version
  if ! go_here build -trimpath -buildvcs=false -o "$temporary/node" -ldflags="-s -w \
      -X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor -X $stamp.gitTreeState=clean \
      -X k8s.io/client-go/pkg/version.gitVersion=$version" ./node >&2; then
    echo "hack/kubernetes.sh: Kubernetes $version and etcd could not be built (is the Go module proxy reachable?)" >&2
    exit 1
  fi
  mv -f "$temporary/node" "$cache/node"
  for component in "${components[@]}"; do # kubectl, the last, says that all are there
    ln -sfn node "$cache/$component"
  done
  echo "built Kubernetes $version and etcd in $((SECONDS - started))s" >&2
fi
echo "$cache"
