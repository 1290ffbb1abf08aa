# shellcheck shell=bash
# The cluster on the hosts: kubeadm init, join, and waiting for what they promise.

PATCHES=/etc/kubernetes/patches

# A leader ends when it cannot renew its lease, and its kubelet lets it wait before it is started again. An apiserver that is
# replaced is away for longer than the default of 10 s.
PATIENCE='{leader-elect-lease-duration: 30s, leader-elect-renew-deadline: 25s}'

kubectl() { KUBECACHEDIR=$CLIENTS "$BIN/kubectl" --kubeconfig "$ADMIN_CONF" "$@"; }

# v1beta2 was served up to 1.26, v1beta4 since 1.31; no cluster here is between.
kubeadm_api() { if at_least "$KUBERNETES_VERSION" 1.31; then echo kubeadm.k8s.io/v1beta4; else echo kubeadm.k8s.io/v1beta2; fi; }

# extra_arguments: PATIENCE in that version's form.
extra_arguments() {
  if [[ $(kubeadm_api) == */v1beta2 ]]; then
    echo "$PATIENCE"
  else
    sed 's/\([a-z-]*\): \([0-9a-z]*\)/{name: \1, value: \2}/g; s/^{/[/; s/}$/]/' <<<"$PATIENCE"
  fi
}

# patches_field, patches_argument: newer versions of kubeadm read the folder of patches from the configuration, older ones
# from the command line.
patches_field() { [[ $(kubeadm_api) == */v1beta2 ]] || echo "patches: {directory: $PATCHES}"; }
patches_argument() { [[ $(kubeadm_api) != */v1beta2 ]] || echo "--experimental-patches=$PATCHES"; }

# Without a pod subnet the controller manager allocates none; the CNI's ranges follow the node's address instead.
init_configuration() {
  cat <<EOF
apiVersion: $(kubeadm_api)
kind: InitConfiguration
bootstrapTokens: [{token: $TOKEN, ttl: "0s"}]
localAPIEndpoint: {advertiseAddress: $(address "$1")}
nodeRegistration: {name: $1, criSocket: $(cri_socket "$1")}
$(patches_field)
---
apiVersion: $(kubeadm_api)
kind: ClusterConfiguration
kubernetesVersion: v$KUBERNETES_VERSION
imageRepository: $IMAGE_PREFIX
controlPlaneEndpoint: $BALANCER_ADDRESS:6443
etcd: {external: {endpoints: [$ETCD]}}
controllerManager: {extraArgs: $(extra_arguments)}
scheduler: {extraArgs: $(extra_arguments)}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failSwapOn: false
resolvConf: /dev/null
evictionHard: {memory.available: 1Mi, nodefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
syncFrequency: 10s
nodeStatusUpdateFrequency: 3s
nodeStatusReportFrequency: 1m
$(! at_least "$KUBERNETES_VERSION" 1.31 || echo "failCgroupV1: false")
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: $POD_NETWORK.0.0/16
conntrack: {maxPerCore: 0}
EOF
}

join_configuration() {
  cat <<EOF
apiVersion: $(kubeadm_api)
kind: JoinConfiguration
nodeRegistration: {name: $1, criSocket: $(cri_socket "$1")}
discovery:
  bootstrapToken: {token: $TOKEN, apiServerEndpoint: "$BALANCER_ADDRESS:6443", unsafeSkipCAVerification: true}
EOF
  is_control_plane "$1" || return 0
  echo "controlPlane: {localAPIEndpoint: {advertiseAddress: $(address "$1")}}"
  patches_field
}

# in_host reads its files from stdin: the host sees this machine's root, but not the state folder's newest files.
put() { in_host "$1" sh -c "umask 077; cat >'$2'"; }

# write_patches NODE: an apiserver that is told to end waits for the watches of its clients until its kubelet kills it, 30 s
# later if nobody says otherwise. That long every change of its manifest would take.
write_patches() {
  in_host "$1" mkdir -p "$PATCHES"
  put "$1" "$PATCHES/kube-apiserver.yaml" <<<'spec: {terminationGracePeriodSeconds: 3}'
}

init_control_plane() {
  balancer_add "$1"
  write_patches "$1"
  init_configuration "$1" | put "$1" /etc/kubeadm.yaml
  # Preflight looks for what a machine has (memory, swap, kernel modules' folder), most of which a host like this hides.
  # shellcheck disable=SC2046  # one word or none
  in_host "$1" kubeadm init --config /etc/kubeadm.yaml --ignore-preflight-errors=all --skip-phases=addon/coredns \
    $(patches_argument)
  in_host "$1" cat /etc/kubernetes/admin.conf >"$ADMIN_CONF.part"
  chmod 600 "$ADMIN_CONF.part"
  mv "$ADMIN_CONF.part" "$ADMIN_CONF"
  instance_conf "$1"
  keep_pristine "$1"
  keep_joined "$1"
}

join_node() {
  local patches=""
  if is_control_plane "$1"; then
    give_authorities "$1"
    write_patches "$1"
    patches=$(patches_argument)
  fi
  join_configuration "$1" | put "$1" /etc/kubeadm.yaml
  # shellcheck disable=SC2086  # one word or none
  in_host "$1" kubeadm join --config /etc/kubeadm.yaml --ignore-preflight-errors=all $patches
  ! is_control_plane "$1" || instance_joins "$1"
  keep_joined "$1"
}

# node_works NAME [SINCE]: Ready, as its kubelet has said since it was restarted, with the kubelet that was put there, and its
# kube-proxy running, which was started at SINCE or later; a control plane's apiserver is ready.
node_works() {
  local node=$1 since=${2:-} restarted
  restarted=$(cat "$NODES/$node/restarted" 2>/dev/null) || restarted=""
  ask_any "/api/v1/nodes/$node" |
    jq -e --arg version "v$(kubelet_of "$node")" --arg restarted "$restarted" '
      .status | .nodeInfo.kubeletVersion == $version
      and any(.conditions[]; .type == "Ready" and .status == "True" and .lastHeartbeatTime > $restarted)' || return 1
  ask_any "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app=kube-proxy&fieldSelector=spec.nodeName=$node" |
    jq -e --arg since "$since" '
      [.items[] | select(.metadata.deletionTimestamp == null)] | length == 1
      and all(.[].status.containerStatuses[]?; .ready and .state.running.startedAt >= $since)
      and .[0].status.phase == "Running"' >/dev/null || return 1
  ! is_control_plane "$node" || instance_ready "$node"
}

# node_ready SECONDS NAME [SINCE]
node_ready() { await "$1" "node $2 to be Ready with kube-proxy running" node_works "${@:2}"; }

# forget_node NAME: its Node object and whatever was bound to it. With the host gone nobody confirms a deletion, and a
# host of the same name would otherwise inherit the pods.
forget_node() {
  kubectl delete node "$1" --ignore-not-found --wait=false
  kubectl delete pods -A --field-selector "spec.nodeName=$1" --force --grace-period=0 --wait=false 2>&1
}

# raise NAME…: the hosts are reserved; boot them side by side, join them, wait for them.
raise() {
  local name pids=()
  for name in "$@"; do
    (
      step "boot $name ($(declaration "$name"))" boot_host "$name"
      step "kubeadm join $name" join_node "$name"
      step "$name Ready" node_ready 120 "$name"
    ) &
    pids+=($!)
  done
  all_jobs "${pids[@]}"
}
