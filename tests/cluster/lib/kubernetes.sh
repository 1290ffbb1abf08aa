# shellcheck shell=bash
# Builds Kubernetes from Debian's source package. One tree gives every version: the number a binary reports is set at
# link time, and behaviour that the tree no longer (or not yet) has comes from `go build -overlay`, which leaves the
# source as it was published.

SOURCE=$CACHE/gopath/src/k8s.io/kubernetes
GO_BIN=/usr/lib/go-1.19/bin
COMMANDS="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl"

kubernetes_stamp() {
  cat "$HERE/lib/kubernetes.sh"
  echo "$KUBERNETES_VERSION $APISERVER_VERSIONS $REDIRECTING_KUBELETS"
}

have_kubernetes() { [ "$(cat "$BIN/.kubernetes" 2>/dev/null)" = "$(kubernetes_stamp | digest)" ]; }

# Debian's own lists stay untouched: the same archives, read as source archives from a list of our own.
fetch_source() {
  local work=$CACHE/source list
  [ ! -d "$SOURCE" ] || return 0
  mkdir -p "$work/parts" "$work/lists/partial" "$(dirname "$SOURCE")"
  for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ -e "$list" ] || continue
    case $list in
    *.sources) sed 's/^Types:.*/Types: deb-src/' "$list" >"$work/parts/debian.sources" ;;
    *) sed -n 's/^deb \(.*\)/deb-src \1/p' "$list" >"$work/parts/debian.list" ;;
    esac
  done
  local apt=(apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/parts"
    -o Dir::State::Lists="$work/lists" -o APT::Sandbox::User=root)
  "${apt[@]}" update
  (cd "$work" && "${apt[@]}" source --download-only kubernetes)
  rm -rf "$SOURCE.part"
  mkdir "$SOURCE.part"
  tar xzf "$work"/kubernetes_*.orig.tar.gz -C "$SOURCE.part" --strip-components=1
  # The vendored reflect2 1.0.1 reads the runtime's map layout and panics with Go >= 1.18; Debian packages 1.0.2.
  rm -rf "$SOURCE.part/vendor/github.com/modern-go/reflect2"
  cp -r /usr/share/gocode/src/github.com/modern-go/reflect2 "$SOURCE.part/vendor/github.com/modern-go/"
  mv "$SOURCE.part" "$SOURCE"
  rm -rf "$work"
}

go_environment() {
  export GOPATH=$CACHE/gopath GOCACHE=$CACHE/gocache GO111MODULE=off CGO_ENABLED=0 GOFLAGS="" PATH=$GO_BIN:$PATH
  cd "$SOURCE" || return
}

generate() {
  [ ! -f pkg/generated/openapi/zz_generated.openapi.go ] || return 0
  make generated_files
}

# link VERSION NAME COMMAND [OVERLAY]
link() {
  local version=$1 name=$2 command=$3 overlay=${4:-} package flags="-s -w" minor
  minor=$(cut -d. -f2 <<<"$version")
  for package in component-base/version client-go/pkg/version; do
    package=k8s.io/kubernetes/vendor/k8s.io/$package
    flags+=" -X $package.gitVersion=v$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
    flags+=" -X $package.gitTreeState=clean"
  done
  echo "linking $name"
  go build ${overlay:+-overlay "$overlay"} -ldflags "$flags" -o "$BIN/$name" "./cmd/$command"
}

# overlay NAME FILE…: an overlay that replaces each file of the source by its edited copy in $CACHE/patched/NAME.
overlay() {
  local name=$1 file
  shift
  for file in "$@"; do
    cmp -s "$file" "$CACHE/patched/$name/$file" && { echo "the edit for $name left $file as it was" >&2; return 1; }
    # The go tool may come to a staged package through vendor/k8s.io, a folder of links: name both ways.
    jq -n --arg a "$SOURCE/$file" --arg b "$SOURCE/${file/#staging\/src/vendor}" --arg c "$CACHE/patched/$name/$file" \
      '{($a): $c, ($b): $c}'
  done | jq -s '{Replace: add}' >"$CACHE/patched/$name.json"
  echo "$CACHE/patched/$name.json"
}

# patched NAME FILE: where the edited copy goes.
patched() {
  mkdir -p "$(dirname "$CACHE/patched/$1/$2")"
  echo "$CACHE/patched/$1/$2"
}

# Kubelets up to 1.19 answered a streaming request with the runtime's address when told to; 1.20 forgot how.
redirecting_kubelet() {
  local file=pkg/kubelet/server/server.go
  awk '
    { print }
    /^import \($/ { print "\t\"os\"" }
    /^func proxyStream\(/ {
      print "\tredirect := false"
      print "\tfor _, arg := range os.Args[1:] { // the last one wins, as with any flag"
      print "\t\tswitch arg {"
      print "\t\tcase \"--redirect-container-streaming\", \"--redirect-container-streaming=true\":"
      print "\t\t\tredirect = true"
      print "\t\tcase \"--redirect-container-streaming=false\":"
      print "\t\t\tredirect = false"
      print "\t\t}"
      print "\t}"
      print "\tif redirect {"
      print "\t\thttp.Redirect(w, r, url.String(), http.StatusFound)"
      print "\t\treturn"
      print "\t}"
    }' "$file" >"$(patched kubelet "$file")"
  overlay kubelet "$file"
}

# 1.22 switched the gate off by default. It is declared twice, and the two must agree.
gate_off_by_default() {
  local file files="pkg/features/kube_features.go staging/src/k8s.io/apiserver/pkg/features/kube_features.go"
  for file in $files; do
    sed '/StreamingProxyRedirects:/s/Default: true/Default: false/' "$file" >"$(patched gate-off "$file")"
  done
  # shellcheck disable=SC2086
  overlay gate-off $files
}

compile() {
  local version command redirecting gate_off
  mkdir -p "$BIN"
  rm -f "$BIN/.kubernetes"
  rm -rf "$CACHE/patched"
  go_environment
  generate
  for command in $COMMANDS; do link "$KUBERNETES_VERSION" "$command-$KUBERNETES_VERSION" "$command"; done
  gate_off=$(gate_off_by_default)
  for version in $APISERVER_VERSIONS; do
    if (($(cut -d. -f2 <<<"$version") >= 22)); then
      link "$version" "kube-apiserver-$version" kube-apiserver "$gate_off"
    else
      link "$version" "kube-apiserver-$version" kube-apiserver
    fi
  done
  redirecting=$(redirecting_kubelet)
  for version in $REDIRECTING_KUBELETS; do link "$version" "kubelet-$version" kubelet "$redirecting"; done
  kubernetes_stamp | digest >"$BIN/.kubernetes"
}

build_kubernetes() {
  fetch_source
  export -f compile go_environment generate link overlay patched redirecting_kubelet gate_off_by_default \
    kubernetes_stamp digest
  export CACHE BIN HERE SOURCE GO_BIN COMMANDS KUBERNETES_VERSION APISERVER_VERSIONS REDIRECTING_KUBELETS
  nice bash -euo pipefail -c compile
}
