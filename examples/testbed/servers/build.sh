#!/usr/bin/env bash
# Builds the servers that the tests run against, once per version, into the cache folder:
#   ${YURT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/yurt}/bin/{etcd,kubernetes,coredns,metrics-server,egress-dialer}-VERSION/
# The versions are those of the go.mod files beside this script: the oldest and the newest Kubernetes that is
# supported. With KUBEBUILDER_ASSETS set nothing is built: that folder has to hold etcd, kube-apiserver and kubectl.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${YURT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/yurt}

fail() {
  echo "servers: $*" >&2
  exit 1
}

# required_version MODULE_DIR MODULE: the version that its go.mod requires, without the v.
required_version() {
  awk -v module="$2" '$1 == module && $2 ~ /^v/ { print substr($2, 2); exit }' "$here/$1/go.mod"
}

# build MODULE_DIR TARGET LDFLAGS PACKAGE[=NAME]...
build() {
  local module=$1 target=$2 ldflags=$3 staging log package name source
  shift 3
  local missing=0
  for package in "$@"; do
    name=${package##*=}
    [ -x "$target/${name##*/}" ] || missing=1
    # A program of our own changes without a new version.
    for source in "$here/$module"/*.go; do
      [ ! "$source" -nt "$target/${name##*/}" ] || missing=1
    done
  done
  [ "$missing" = 1 ] || return 0

  command -v go >/dev/null ||
    fail "Go is missing: install Go 1.26.4 or newer from https://go.dev/dl, or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl"
  mkdir -p "$(dirname "$target")"
  staging=$(mktemp -d "$target.building.XXXXXX")
  # shellcheck disable=SC2064  # the folder of now
  trap "rm -rf '$staging'" EXIT
  log=$staging/log

  cd "$here/$module"
  # Fetching and compiling fail for different reasons, so they are two steps.
  echo "servers: fetching the sources of ${target##*/}"
  go list -mod=readonly -deps "${@%%=*}" >/dev/null 2>"$log" ||
    fail "cannot fetch the sources of ${target##*/}: is there a network, and does GOPROXY point to a Go module proxy? $(tail -n 1 "$log")"
  echo "servers: compiling ${target##*/} (minutes, once)"
  for package in "$@"; do
    name=${package##*=}
    CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags="-s -w $ldflags" \
      -o "$staging/bin/${name##*/}" "${package%%=*}" 2>"$log" ||
      fail "cannot compile ${package%%=*}: $(tail -n 1 "$log")"
  done
  # Only a finished build gets the name that tests look for. A folder of that name is a build that lacks
  # a program, or another process was faster: both may be replaced.
  rm -rf "$target"
  mv -T "$staging/bin" "$target" 2>/dev/null || [ -d "$target" ] || fail "cannot write $target"
  rm -rf "$staging"
  trap - EXIT
}

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  for name in etcd kube-apiserver kubectl; do
    [ -x "$KUBEBUILDER_ASSETS/$name" ] ||
      fail "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no $name: add it, or unset the variable to have the servers built"
  done
  echo "servers: $KUBEBUILDER_ASSETS"
  exit 0
fi

# build_kubernetes MODULE_DIR PROGRAM...
build_kubernetes() {
  local module=$1 version major minor component=k8s.io/component-base/version
  shift
  version=$(required_version "$module" k8s.io/kubernetes)
  IFS=. read -r major minor _ <<<"$version"
  build "$module" "$cache/bin/kubernetes-$version" \
    "-X $component.gitVersion=v$version -X $component.gitMajor=$major -X $component.gitMinor=$minor" \
    "${@/#/k8s.io/kubernetes/cmd/}"
}

control_plane=(kube-apiserver kubectl kube-controller-manager kube-scheduler)
node=(kubelet kube-proxy)

etcd=$(required_version etcd go.etcd.io/etcd/server/v3)
coredns=$(required_version coredns github.com/coredns/coredns)
metrics=$(required_version metrics-server sigs.k8s.io/metrics-server)
dialer=$(required_version egress-dialer k8s.io/apiserver)
build etcd "$cache/bin/etcd-$etcd" "" go.etcd.io/etcd/server/v3=etcd
for module in kubernetes-1.34 kubernetes-1.36; do
  build_kubernetes "$module" "${control_plane[@]}" "${node[@]}"
done
build coredns "$cache/bin/coredns-$coredns" "" github.com/coredns/coredns
build metrics-server "$cache/bin/metrics-server-$metrics" "" sigs.k8s.io/metrics-server/cmd/metrics-server
build egress-dialer "$cache/bin/egress-dialer-$dialer" "" .=egress-dialer
echo "servers: $cache/bin"
