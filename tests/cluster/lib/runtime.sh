# shellcheck shell=bash
# What a host's kubelet runs containers with: Debian's containerd, a later one, Docker through dockershim, or a stand-in for
# cri-dockerd. All but the last two are containerd and nothing else.

CRI_SOCKET=/run/containerd/containerd.sock
DOCKERSHIM=/var/run/dockershim.sock      # a part of kubelets up to 1.23
CRI_DOCKERD=/run/cri-dockerd.sock

# runtime NAME: containerd, containerd-VERSION, docker or cri-dockerd.
runtime() { value "$(declaration "$1")" runtime containerd; }

uses_docker() { [ "$(runtime "$1")" = docker ]; }

# containerd_binaries DECLARATION: what is built for it, one a line: version component.
containerd_binaries() {
  local runtime
  runtime=$(value "$1" runtime containerd)
  binary_list all | awk -v version="$runtime" '$1 == version'
}

# furnish_runtime NAME
furnish_runtime() {
  local upper=$NODES/$1/upper version component
  uses_docker "$1" || ln -s /dev/null "$upper/etc/systemd/system/docker.service"
  case $(runtime "$1") in
  docker) furnish_docker "$1" ;;
  cri-dockerd)
    mkdir -p "$upper/usr/local/sbin"
    install -m 755 "$HERE/host/cri-dockerd-shim" "$upper/usr/local/sbin/"
    cp "$HERE/host/cri-dockerd.service" "$upper/etc/systemd/system/"
    ;;
  containerd-*)
    while read -r version component; do
      install -m 755 "$(binary "$version" "$component")" "$upper/usr/bin/$component"
    done < <(containerd_binaries "$(declaration "$1")")
    ;;
  esac
}

# furnish_docker NAME: pods get their network from the CNI, and a sandbox cannot lower its own OOM score here. containerd, which
# Docker needs, serves the CRI beside it, as on other nodes with Docker.
furnish_docker() {
  local upper=$NODES/$1/upper
  mkdir -p "$NODES/$1/docker" "$upper/etc/docker" "$upper/usr/local/sbin"
  install -m 755 "$HERE/host/runc-without-sys-resource" "$upper/usr/local/sbin/"
  cp "$HERE/host/docker.service" "$upper/etc/systemd/system/"
  cat >"$upper/etc/docker/daemon.json" <<'END'
{"iptables": false, "ip6tables": false, "bridge": "none", "exec-opts": ["native.cgroupdriver=cgroupfs"],
 "runtimes": {"bed": {"path": "/usr/local/sbin/runc-without-sys-resource"}}, "default-runtime": "bed"}
END
}

# start_runtime NAME: containerd starts with the host.
start_runtime() {
  await 60 "containerd on $1" in_host "$1" ctr version
  case $(runtime "$1") in
  docker)
    in_host "$1" systemctl start docker
    await 60 "Docker on $1" in_host "$1" docker version
    ;;
  cri-dockerd)
    in_host "$1" systemctl start cri-dockerd
    await 60 "the stand-in for cri-dockerd on $1" in_host "$1" test -S "$CRI_DOCKERD"
    ;;
  esac
}

# cri_socket NAME: by which kubeadm knows which runtime the kubelet is to use. Since 1.24 it wants a URL.
cri_socket() {
  local socket
  case $(runtime "$1") in
  docker) socket=$DOCKERSHIM ;;
  cri-dockerd) socket=$CRI_DOCKERD ;;
  *) socket=$CRI_SOCKET ;;
  esac
  if at_least "$KUBERNETES_VERSION" 1.24; then echo "unix://$socket"; else echo "$socket"; fi
}

# import NAME ARCHIVE: into the host's runtime, where the kubelet looks.
import() {
  if uses_docker "$1"; then
    in_host "$1" docker load <"$2"
  else
    in_host "$1" ctr -n k8s.io images import - <"$2"
  fi
}
