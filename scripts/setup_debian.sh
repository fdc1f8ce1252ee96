#!/bin/sh
# Install the programs that the tests run: as root, on Debian. Elsewhere, print which are missing;
# the tests that need them skip with that reason.
set -eu
packages="docker.io docker-cli docker-buildx docker-compose docker-registry skopeo umoci oras buildah
  busybox-static strace e2fsprogs util-linux gcc libc6-dev make git bash-completion zsh fish tcsh
  groff-base nodejs npm"

missing=""
if command -v dpkg-query >/dev/null 2>&1; then
    for package in $packages; do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
        [ "$status" = "install ok installed" ] || missing="$missing $package"
    done
else
    echo "setup: not a Debian; tests of what is not installed are skipped"
    exit 0
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "setup: not root, so these packages stay missing, and their tests are skipped:$missing"
    exit 0
fi
echo "setup: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log"
    exit 1
fi
