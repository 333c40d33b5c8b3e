#!/usr/bin/env bash
# Prints the folder with PostgreSQL's programs (initdb, postgres, psql), fetching them when they are not there: hack/postgres.sh
#
# A PostgreSQL that is installed is used, the newest; POSTGRES_BIN names another. Without one, Debian's packages are unpacked (not installed: no
# service is made or touched) under the user's cache directory. What cannot be had is said by name, and the exit code is 1.
set -euo pipefail

wanted=15
packages=("postgresql-$wanted" "postgresql-client-$wanted" libpq5)

runs() { [[ -x $1/initdb && -x $1/postgres ]] && "$1/postgres" --version >/dev/null 2>&1; }

if [[ -n ${POSTGRES_BIN:-} ]]; then
  if ! runs "$POSTGRES_BIN"; then
    echo "hack/postgres.sh: POSTGRES_BIN is $POSTGRES_BIN, and initdb and postgres do not run from there: correct it, or unset it" >&2
    exit 1
  fi
  echo "$POSTGRES_BIN"
  exit
fi
for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(dirname "$(command -v postgres || echo /none/none)")" \
  "$(command -v pg_config >/dev/null && pg_config --bindir || echo /none)"; do
  if runs "$folder"; then
    echo "$folder"
    exit
  fi
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/waybill/postgres/$wanted
bin=$cache/usr/lib/postgresql/$wanted/bin
if ! runs "$bin"; then
  if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "hack/postgres.sh: PostgreSQL is not installed, and this is no Debian that it could be fetched for: install it, or set POSTGRES_BIN" >&2
    exit 1
  fi
  mkdir -p "$cache"
  temporary=$(mktemp -d "$cache/.fetch.XXXXXX")
  trap 'rm -rf "$temporary"' EXIT
  chmod 755 "$temporary"
  echo "fetching PostgreSQL $wanted (once; kept in $cache)" >&2
  if ! (cd "$temporary" && { apt-get download -q "${packages[@]}" || { apt-get update -q && apt-get download -q "${packages[@]}"; }; }) >&2; then
    echo "hack/postgres.sh: PostgreSQL $wanted could not be fetched (is Debian's registry reachable?)" >&2
    exit 1
  fi
  for package in "$temporary"/*.deb; do dpkg -x "$package" "$cache"; done
  # Its programs look for their libraries where Debian installs them; those that came along lie elsewhere.
  for name in initdb postgres psql; do
    if [[ ! -e $bin/$name.real ]]; then
      mv "$bin/$name" "$bin/$name.real"
      { # by where it lies itself, so that the folder may be copied
        echo '#!/bin/sh'
        echo 'here=$(cd "$(dirname "$0")" && pwd)'
        echo "LD_LIBRARY_PATH=\$(echo \"\$here\"/../../../*-linux-gnu) exec \"\$here/$name.real\" \"\$@\""
      } >"$bin/$name"
      chmod 755 "$bin/$name"
    fi
  done
  if ! runs "$bin"; then
    echo "hack/postgres.sh: the PostgreSQL that was fetched does not run: $("$bin/postgres" --version 2>&1 | head -1)" >&2
    exit 1
  fi
fi
echo "$bin"
