# shellcheck shell=bash
# A host: an overlay of this machine's root with namespaces of its own (mount, pid, net, uts, ipc, cgroup) and systemd
# as its first process. Ending that process ends everything in it.

MASKED="systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service
  systemd-sysctl.service systemd-modules-load.service systemd-timesyncd.service systemd-binfmt.service
  systemd-random-seed.service systemd-hwdb-update.service systemd-pstore.service systemd-journal-flush.service
  dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount
  sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount timers.target etcd.service docker.socket"

cgroup_hierarchies() { findmnt -rn -t cgroup,cgroup2 -o TARGET | grep '^/sys/fs/cgroup'; }

# first_process NAME: the pid of the host's systemd, seen from here; fails if the host is not running.
first_process() {
  local pid
  pid=$(cat "$NODES/$1/pid" 2>/dev/null) || return 1
  # A number from before a reboot may belong to someone else now: the network namespace must be the host's.
  [ "/proc/$pid/ns/net" -ef "/run/netns/$(namespace "$1")" ] || return 1
  echo "$pid"
}

# in_host NAME COMMAND…: replaces this (sub)shell's command by one inside the host.
in_host() {
  local name=$1 pid
  shift
  pid=$(first_process "$name") || { echo "host $name is not running" >&2; return 1; }
  nsenter -t "$pid" -m -u -i -n -p -C env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" KUBECONFIG=/etc/kubernetes/admin.conf "$@"
}

# furnish NAME: writes into the upper layer what makes the copy of this machine a Kubernetes host.
furnish() {
  local name=$1 node upper=$NODES/$1/upper unit kubelet stream=127.0.0.1 tls flags
  node=$(declaration "$name")
  kubelet=$(declared_kubelet "$name")
  mkdir -p "$upper"/{etc/systemd/system/kubelet.service.d,etc/default,etc/containerd,etc/cni/net.d,usr/bin}
  flags="--node-ip=$(address "$name")"
  if [ "$(value "$node" redirect false)" = true ]; then
    flags+=" --redirect-container-streaming=true"
    # Whoever follows the redirect dials the runtime from outside.
    stream=$(address "$name")
  fi
  stream=$(value "$node" stream "$stream")
  tls=$(value "$node" tls false)
  # Without the flag that says otherwise a kubelet that has a dockershim uses it.
  ! uses_docker "$name" || flags+=" --cni-bin-dir=/usr/lib/cni"
  for flag in $(values "$node" flag); do flags+=" $flag"; done
  echo "KUBELET_EXTRA_ARGS=$flags" >"$upper/etc/default/kubelet"

  echo "$name" >"$upper/etc/hostname"
  tr -d - </proc/sys/kernel/random/uuid >"$upper/etc/machine-id"
  printf '127.0.0.1 localhost\n%s %s\n' "$(address "$name")" "$name" >"$upper/etc/hosts"
  : >"$upper/etc/fstab"
  for unit in $MASKED; do ln -s /dev/null "$upper/etc/systemd/system/$unit"; done
  cp "$HERE"/host/{node.target,kubelet.service} "$upper/etc/systemd/system/"
  furnish_runtime "$name"
  cp "$HERE/host/10-kubeadm.conf" "$upper/etc/systemd/system/kubelet.service.d/"

  cp "$(binary "$kubelet" kubelet)" "$upper/usr/bin/kubelet"
  cp "$(binary "$KUBERNETES_VERSION" kubeadm)" "$upper/usr/bin/kubeadm"
  cp "$(binary "$KUBERNETES_VERSION" kubectl)" "$upper/usr/bin/kubectl"
  # kubeadm refuses to start without crictl, and would only ask it to pull what is already there.
  printf '#!/bin/sh\nexit 0\n' >"$upper/usr/bin/crictl"
  chmod 755 "$upper/usr/bin/crictl"

  # restrict_oom_score_adj: without CAP_SYS_RESOURCE a sandbox cannot lower its own score and would not start.
  cat >"$upper/etc/containerd/config.toml" <<EOF
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true
  stream_server_address = "$stream"
  enable_tls_streaming = $([ "$tls" = false ] && echo false || echo true)
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
EOF
  # tls=self: the one that containerd makes for itself.
  [ "$tls" != true ] || streaming_certificate "$name"
  # No masquerading: the switch routes pod addresses, so every peer sees who really called.
  cat >"$upper/etc/cni/net.d/10-bridge.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "$POD_NETWORK.$(number "$name").0/24"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
}

# declared_kubelet NAME: its version.
declared_kubelet() { value "$(declaration "$1")" kubelet "$KUBERNETES_VERSION"; }

# put_kubelet NAME VERSION: in the place of the one that is there, which runs on.
put_kubelet() {
  # shellcheck disable=SC2016  # expanded in the host
  in_host "$1" sh -euc 'cat >/usr/bin/.kubelet; chmod 755 /usr/bin/.kubelet; mv /usr/bin/.kubelet /usr/bin/kubelet' \
    <"$(binary "$2" kubelet)"
  echo "$2" >"$NODES/$1/put_kubelet"
}

# kubelet_of NAME: the version that was put there last.
kubelet_of() { cat "$NODES/$1/put_kubelet" 2>/dev/null || declared_kubelet "$1"; }

# has_declared_kubelet NAME
has_declared_kubelet() { cmp -s "$NODES/$1/upper/usr/bin/kubelet" "$(binary "$(declared_kubelet "$1")" kubelet)"; }

# streaming_certificate NAME: for the runtime's streaming server, from an authority that the host trusts: a kubelet trusts
# no other, and so not the one that containerd makes for itself.
streaming_certificate() {
  local name=$1 upper=$NODES/$1/upper
  mkdir -p "$upper/etc/ssl/certs"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=$name" \
    -addext "subjectAltName=IP:127.0.0.1,IP:::1,IP:$(address "$name")" \
    -keyout "$upper/etc/containerd/streaming.key" -out "$upper/etc/containerd/streaming.crt"
  cp "$upper/etc/containerd/streaming.crt" "$upper/etc/ssl/certs/ca-certificates.crt"
  cat >>"$upper/etc/containerd/config.toml" <<EOF
  [plugins."io.containerd.grpc.v1.cri".x509_key_pair_streaming]
    tls_cert_file = "/etc/containerd/streaming.crt"
    tls_key_file = "/etc/containerd/streaming.key"
EOF
}

# start_systemd NAME
start_systemd() {
  local name=$1 folder=$NODES/$1 hierarchy launcher first
  for hierarchy in $(cgroup_hierarchies); do mkdir -p "$hierarchy/$CGROUP/$name"; done
  (
    for hierarchy in $(cgroup_hierarchies); do echo "$BASHPID" >"$hierarchy/$CGROUP/$name/cgroup.procs"; done
    export NAME=$name UPPER=$folder/upper WORK=$folder/work DATA=$folder BIN
    exec setsid nsenter --net="/run/netns/$(namespace "$name")" \
      unshare --fork --pid --mount --uts --ipc --cgroup --propagation private "$HERE/host/boot" "$folder/root"
  ) >"$LOGS/$name-console.log" 2>&1 </dev/null 9>&- &
  launcher=$!
  until first=$(pgrep -P "$launcher") && [ "$(cat "/proc/$first/comm")" = systemd ]; do
    kill -0 "$launcher" || { echo "host $name died while starting:"; cat "$LOGS/$name-console.log"; return 1; }
    sleep 0.1
  done
  echo "$first" >"$folder/pid"
}

# boot_host NAME: needs a reserved declaration; leaves a host with systemd, its runtime and its images.
boot_host() {
  local name=$1
  mkdir -p "$NODES/$name"/{upper,work,root,containerd,kubelet}
  furnish "$name"
  plug "$name" "$(number "$name")"
  start_systemd "$name"
  await 60 "systemd on $name" in_host "$name" systemctl is-active --quiet basic.target
  start_runtime "$name"
  host_images "$name"
}

# reboot_host NAME: everything that runs ends at once, as in a power failure; what is on the disk stays, what the kernel
# held (addresses, rules, mounts) is made anew.
reboot_host() {
  local name=$1
  end_host "$name"
  unplug "$name" "$(number "$name")"
  plug "$name" "$(number "$name")"
  start_systemd "$name"
  await 60 "systemd on $name" in_host "$name" systemctl is-active --quiet basic.target
  start_runtime "$name"
}

# sweep_cgroups NAME: the empty folders that the host's processes leave.
sweep_cgroups() {
  local hierarchy failed=0
  for hierarchy in $(cgroup_hierarchies); do
    [ ! -d "$hierarchy/$CGROUP/$1" ] || find "$hierarchy/$CGROUP/$1" -depth -type d -exec rmdir {} + || failed=1
  done
  return "$failed"
}

# end_host NAME: its processes, in whatever state it is.
end_host() {
  local name=$1 pid
  if pid=$(first_process "$name"); then
    kill -KILL "$pid"
    await 30 "the processes of $name to end" eval '! kill -0 '"$pid"
  fi
  # A start that died half-way may have left the launcher without a recorded first process.
  kill_stragglers "$name"
  await 20 "the cgroups of $name to empty" sweep_cgroups "$name"
}

# stop_host NAME: everything of it; the declaration goes too.
stop_host() {
  local name=$1
  end_host "$name"
  [ ! -e "$NODES/$name/number" ] || unplug "$name" "$(number "$name")"
  rm -rf --one-file-system "${NODES:?}/$name"
}

# kill_stragglers NAME: whatever still sits in the host's cgroups.
kill_stragglers() {
  local procs pids
  for procs in $(cgroup_hierarchies | sed "s#\$#/$CGROUP/$1#"); do
    [ -d "$procs" ] || continue
    pids=$(find "$procs" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u) || true
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
  done
}
