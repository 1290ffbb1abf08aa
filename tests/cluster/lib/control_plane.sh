# shellcheck shell=bash
# Control-plane nodes: what they share, and how one comes and goes.

AUTHORITIES="ca.crt ca.key front-proxy-ca.crt front-proxy-ca.key sa.key sa.pub"
PKI=/etc/kubernetes/pki

# ask ADDRESS PATH: what the apiserver there has at that path, as administrator. What is awaited is asked for again and
# again, and kubectl takes twenty times as long to start.
ask() {
  # The certificate, then its key.
  [ "$STATE/admin.pem" -nt "$ADMIN_CONF" ] || (
    umask 077
    awk '/^ *client-(certificate|key)-data: / { print $2 }' "$ADMIN_CONF" |
      while read -r line; do base64 -d <<<"$line"; done >"$STATE/admin.pem"
  )
  curl --silent --fail --max-time 5 --insecure --cert "$STATE/admin.pem" "https://$1:6443$2"
}

# ask_any PATH: through the load balancer.
ask_any() { ask "$BALANCER_ADDRESS" "$1"; }

# instance_ready NAME: its own apiserver says so.
instance_ready() { [ "$(ask "$(address "$1")" /readyz)" = ok ]; }

# instance_version NAME: v1.20.15
instance_version() { ask "$(address "$1")" /version | jq -r .gitVersion; }

# keep_pristine NAME: what `kubeadm init` has just made there. The authorities' keys let any later control plane join; the
# manifest and kubeadm-config are what `up` and `apiserver` go back to. The manifest is kept without the node's address.
keep_pristine() {
  mkdir -p "$PRISTINE"
  chmod 700 "$PRISTINE"
  # shellcheck disable=SC2086
  in_host "$1" tar -c -C "$PKI" $AUTHORITIES >"$PRISTINE/authorities.tar"
  in_host "$1" cat "$MANIFEST" | sed "s/\b$(address "$1")\b/ADDRESS/g" >"$PRISTINE/kube-apiserver.yaml"
  kubeadm_config ClusterConfiguration >"$PRISTINE/ClusterConfiguration"
}

# pristine_manifest NAME: as kubeadm makes it for that node without anybody's extra flags.
pristine_manifest() { sed "s/ADDRESS/$(address "$1")/g" "$PRISTINE/kube-apiserver.yaml"; }

# instance_conf NAME: the administrator's kubeconfig with that node's apiserver in it.
instance_conf() {
  (umask 077; sed "s#^\( *server: \).*#\1https://$(address "$1"):6443#" "$ADMIN_CONF" >"$NODES/$1/admin.conf")
}

give_authorities() {
  in_host "$1" mkdir -p "$PKI"
  in_host "$1" tar -x -C "$PKI" <"$PRISTINE/authorities.tar"
}

# instance_joins NAME: kubeadm has returned, but not waited for the apiserver.
instance_joins() {
  instance_conf "$1"
  await 120 "the apiserver on $1 to be ready" instance_ready "$1"
  balancer_add "$1"
}

# instance_gone NAME ADDRESS: the host is away; nothing that is left may name it.
instance_gone() {
  local lease holder status
  # Its lease runs out after 15 seconds, which another apiserver notices within 10.
  etcdctl del "/registry/masterleases/$2"
  # An apiserver that writes them at the same moment leaves the address out, too.
  kubernetes_endpoints | jq --arg address "$2" '
    del(.items[].subsets[]?.addresses[]? | select(.ip == $address)) |
    del(.items[].endpoints[]? | select(.addresses[0] == $address))' | kubectl replace -f - || true
  await 30 "the kubernetes Service to forget $2" is_no_endpoint "$2"
  # Else the other one waits until the lease runs out before it leads.
  for lease in kube-controller-manager kube-scheduler; do
    holder=$(kubectl -n kube-system get lease "$lease" -o 'jsonpath={.spec.holderIdentity}')
    [[ $holder != "$1_"* ]] || kubectl -n kube-system delete lease "$lease"
  done
  # Up to 1.21 kubeadm keeps a list of them.
  ! at_least "$KUBERNETES_VERSION" 1.22 || return 0
  status=$(kubeadm_config ClusterStatus | awk -v name="$1" '
    /^  [^ ]/ { gone = $1 == name ":" } /^[^ ]/ { gone = 0 } !gone { print }')
  set_kubeadm_config ClusterStatus "$status"
}

# kubernetes_endpoints: of the kubernetes Service, in both of their forms.
kubernetes_endpoints() { kubectl -n default get endpoints/kubernetes endpointslices/kubernetes -o json; }

# is_no_endpoint ADDRESS
is_no_endpoint() {
  kubernetes_endpoints | jq -e --arg address "$1" '
    [.items[] | .subsets[]?.addresses[]?.ip, .endpoints[]?.addresses[]] | length > 0 and all(. != $address)'
}

# kubeadm_config KEY: that text of the ConfigMap.
kubeadm_config() { kubectl -n kube-system get configmap kubeadm-config -o json | jq -er --arg key "$1" '.data[$key]'; }

# set_kubeadm_config KEY TEXT
set_kubeadm_config() {
  kubectl -n kube-system patch configmap kubeadm-config --type merge \
    -p "$(jq -n --arg key "$1" --arg text "$2"$'\n' '{data: {($key): $text}}')"
}

restore_kubeadm_config() {
  local wanted
  wanted=$(cat "$PRISTINE/ClusterConfiguration")
  [ "$(kubeadm_config ClusterConfiguration)" = "$wanted" ] || set_kubeadm_config ClusterConfiguration "$wanted"
}
