# shellcheck shell=bash
# Builds Kubernetes as published. kubernetes/versions says what is built; each version has a Go module there that requires
# k8s.io/kubernetes and names its commands as tools, so go.sum vouches for every source file.

VERSIONS=$HERE/kubernetes/versions
GO_WORK=$CACHE/go                        # modules, sources and compiled packages, only while something is built

# binary_list SET: one a line: version component. The set `all` holds the set `tests`.
binary_list() {
  sed 's/#.*//' "$VERSIONS" | awk -v set="$1" '
    $2 == "tests" || $2 == set { for (i = 3; i <= NF; i++) print $1, $i }' | sort -V
}

# versions_of COMPONENT: those that the bed knows.
versions_of() { binary_list all | awk -v component="$1" '$2 == component { print $1 }'; }

# binary VERSION COMPONENT
binary() { echo "$BIN/$2-$1"; }

# binary_stamp VERSION COMPONENT: all that makes it what it is, but for the Go that compiles it.
binary_stamp() {
  {
    cat "$HERE/kubernetes/$1"/go.{mod,sum}
    # shellcheck disable=SC2046  # one word a function
    declare -f go_environment fetch_modules $(builders_of "$1")
    echo "$2"
  } | digest
}

# builders_of VERSION: the functions that build it, the last of them from nothing but modules.
builders_of() { case $1 in containerd-*) echo build_containerd ;; *) echo write_openapi link_flags build_binary ;; esac; }

stamp_file() { echo "$BIN/.$2-$1.stamp"; }

have_binary() { [ -x "$(binary "$1" "$2")" ] && [ "$(cat "$(stamp_file "$1" "$2")" 2>/dev/null)" = "$(binary_stamp "$1" "$2")" ]; }

# missing_binaries LIST: those that are not built, of lines: version component.
missing_binaries() {
  local version component
  while read -r version component; do
    have_binary "$version" "$component" || echo "$version $component"
  done < <(sort -uV <<<"$1")
}

# present_binaries: one a line: version component file.
present_binaries() {
  local version component
  while read -r version component; do
    ! have_binary "$version" "$component" || echo "$version $component $(binary "$version" "$component")"
  done < <(binary_list all)
}

go_environment() {
  export GOMODCACHE=$GO_WORK/modules GOCACHE=$GO_WORK/compiled GOTOOLCHAIN=local GOWORK=off GOFLAGS=-modcacherw CGO_ENABLED=0
  cd "$GO_WORK/$1" || return
}

# fetch_modules VERSION: a copy of its module, with every package that its commands need in vendor/.
fetch_modules() {
  rm -rf "${GO_WORK:?}/$1"
  mkdir -p "$GO_WORK/$1"
  cp "$HERE/kubernetes/$1"/go.{mod,sum} "$GO_WORK/$1/"
  go_environment "$1"
  nice go mod vendor
}

# write_openapi: apiservers up to 1.23 compile a package that upstream's makefile generates; their module lacks it.
write_openapi() {
  local packages
  packages=$(grep -rl --include='*.go' '^// +k8s:openapi-gen=' vendor/k8s.io | grep -v '^vendor/k8s.io/\(kube-openapi\|gengo\)/' |
    xargs -n 1 dirname | sort -u | sed 's#^vendor/##' | paste -sd,)
  nice go tool openapi-gen --go-header-file /dev/null --report-filename violations --input-dirs "$packages" \
    --output-base vendor --output-package k8s.io/kubernetes/pkg/generated/openapi --output-file-base zz_generated.openapi
}

# link_flags VERSION: its own number, which upstream's build sets in the same way.
link_flags() {
  local package flags="-s -w"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=v$1 -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$1")"
    flags+=" -X $package.gitTreeState=clean"
  done
  echo "$flags"
}

# build_binary VERSION COMPONENT: without the clouds' providers, whose libraries are most of the source.
build_binary() {
  local file
  file=$(binary "$1" "$2")
  mkdir -p "$BIN"
  go_environment "$1"
  if [ "$2" = kube-apiserver ] && grep -q 'k8s.io/kube-openapi/cmd/openapi-gen$' go.mod; then write_openapi; fi
  time nice go build -trimpath -tags providerless -ldflags "$(link_flags "$1")" -o "$file.part" "k8s.io/kubernetes/cmd/$2"
  mv "$file.part" "$file"
  binary_stamp "$1" "$2" >"$(stamp_file "$1" "$2")"
}

# build_containerd VERSION COMPONENT: without the file systems that need a C compiler.
build_containerd() {
  local file module=github.com/containerd/containerd/v2
  file=$(binary "$1" "$2")
  mkdir -p "$BIN"
  go_environment "$1"
  time nice go build -trimpath -tags no_btrfs -ldflags "-s -w -X $module/version.Version=v${1#containerd-}" \
    -o "$file.part" "$module/cmd/$2"
  mv "$file.part" "$file"
  binary_stamp "$1" "$2" >"$(stamp_file "$1" "$2")"
}

# make_binaries LIST: what is missing of those lines. Versions share the modules and packages that they have in common.
make_binaries() {
  local version component fetched=""
  [ -n "$(missing_binaries "$1")" ] || return 0
  need_go || exit 1
  lock_cache kubernetes
  say "       Kubernetes binaries are built once; on two idle cores each takes up to three minutes"
  # Not in a pipe: a step that fails ends this shell.
  while read -r version component <&3; do
    [ "$version" = "$fetched" ] || step "modules of Kubernetes $version" fetch_modules "$version"
    fetched=$version
    step "build $component $version" "$(builders_of "$version" | sed 's/.* //')" "$version" "$component"
  done 3< <(missing_binaries "$1")
  step "remove the modules and compiled packages" rm -rf "${GO_WORK:?}"
  unlock_cache
}

# cluster_binaries DECLARATION…: what a cluster of these nodes runs.
cluster_binaries() {
  local line
  binary_list all | grep "^$KUBERNETES_VERSION "
  echo "$DEFAULT_VERSION kubectl"
  for line in "$@"; do node_binaries "$line"; done
}

# node_binaries DECLARATION
node_binaries() {
  echo "$(value "$1" kubelet "$KUBERNETES_VERSION") kubelet"
  containerd_binaries "$1"
}
