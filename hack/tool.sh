#!/usr/bin/env bash
# Runs a tool that is pinned in hack/tools/go.mod: hack/tool.sh NAME [ARGUMENT]…
#
# The binary is built on first use and kept under the user's cache directory, in a folder named by what went into it
# (hack/tools/go.mod, go.sum, the Go version and the platform), so that a second run, a second checkout and another
# branch with the same pins cost nothing. "hack/tool.sh --build" builds all tools and runs none.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$here/tools

if [[ $# -eq 0 ]]; then
  echo "usage: hack/tool.sh NAME [ARGUMENT]…   or   hack/tool.sh --build" >&2
  exit 2
fi

hash_of() { # sha256sum is GNU's, shasum is what macOS has
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi
}
# GOWORK and GOFLAGS of the caller are for the caller's own module. The tools run on this machine, whatever GOOS says.
go_tools() {
  env -u GOOS -u GOARCH GOWORK=off GOFLAGS= go -C "$tools" "$@"
}
key=$({ cat "$tools/go.mod" "$tools/go.sum"; go_tools env GOVERSION GOHOSTOS GOHOSTARCH; } | hash_of | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/waybill/tools/$key

build() { # build PACKAGE: into a temporary folder first, so that an interrupted build leaves no half a binary
  local package=$1 name started=$SECONDS temporary
  name=${package##*/}
  if [[ -x $cache/$name ]]; then return; fi
  mkdir -p "$cache"
  temporary=$(mktemp -d "$cache/.build.XXXXXX")
  echo "building $name (once; kept in $cache)" >&2
  if ! go_tools build -trimpath -ldflags='-s -w' -o "$temporary/$name" "$package"; then
    rm -rf "$temporary"
    echo "hack/tool.sh: $name could not be built" >&2
    exit 1
  fi
  mv -f "$temporary/$name" "$cache/$name"
  rmdir "$temporary"
  echo "built $name in $((SECONDS - started))s" >&2
}

if [[ $1 == --build ]]; then
  while read -r package; do
    build "$package"
  done < <(go_tools list -f '{{.ImportPath}}' tool)
  exit
fi

name=$1
shift
if [[ ! -x $cache/$name ]]; then
  package=$(go_tools list -f '{{.ImportPath}}' tool | grep "/$name\$" || true)
  if [[ -z $package ]]; then
    echo "hack/tool.sh: $name is not a tool of hack/tools/go.mod; there are:" >&2
    go_tools list -f '{{.ImportPath}}' tool | sed 's|.*/|  |' >&2
    exit 2
  fi
  build "$package"
fi
exec "$cache/$name" "$@"
