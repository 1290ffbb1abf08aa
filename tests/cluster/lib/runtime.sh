# shellcheck shell=bash
# Docker on a host whose kubelet uses it: through dockershim, which is a part of kubelets up to 1.23. containerd, which
# Docker needs, serves the CRI beside it, as on other nodes with Docker.

DOCKERSHIM=/var/run/dockershim.sock

# furnish_docker NAME: pods get their network from the CNI, and a sandbox cannot lower its own OOM score here.
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

# start_docker NAME
start_docker() {
  in_host "$1" systemctl start docker
  await 60 "Docker on $1" in_host "$1" docker version
}
