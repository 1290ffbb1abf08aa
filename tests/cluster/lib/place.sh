# shellcheck shell=bash disable=SC2034,SC2153  # read by the other files
# A cluster's place on this machine, beside others: a name, and a number that its addresses come from. And what all of
# them share: the cache, and the settings that belong to the machine.

LAST_PLACE=15                            # the pods of 16 clusters fill 10.224.0.0/12

# settle NAME: from here on everything is about that cluster.
settle() {
  CLUSTER=$1
  [[ $CLUSTER =~ ^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$ ]] ||
    die "cluster name '$CLUSTER': lower case letters, digits and dashes, at most 20"
  MARK=""
  [ "$CLUSTER" = default ] || MARK="$CLUSTER: "
  STATE=$CLUSTERS/$CLUSTER
  NODES=$STATE/nodes
  LOGS=$STATE/logs
  LOADED=$STATE/loaded                   # archives given to `load`, for nodes that come later
  ADMIN_CONF=$STATE/admin.conf
  PRISTINE=$STATE/pristine               # what `kubeadm init` made, before anybody changed it
  CLIENTS=$STATE/clients                 # what kubectl and helm like to remember
  BALANCER_SOCKET=$STATE/balancer.sock
  # Neither a cluster's name nor a node's holds a dot, so no two of these are the same.
  SWITCH=sluice.$CLUSTER                 # network namespace with the bridge; those of the hosts add their names
  CGROUP=sluice/$CLUSTER                 # folder in every cgroup hierarchy, one child a node
  # Of the whole cluster, as it was started; its kubelets and apiservers may be of others.
  KUBERNETES_VERSION=$(cat "$STATE/kubernetes" 2>/dev/null) || KUBERNETES_VERSION=$DEFAULT_VERSION
  [ ! -e "$STATE/place" ] || take_place "$(cat "$STATE/place")"
}

# take_place NUMBER: outside of kubeadm's 10.96.0.0/12 for services.
take_place() {
  NODE_NETWORK=10.90.$1                  # /24: .1 is this machine, .254 the switch, nodes from .10 on
  POD_NETWORK=10.$((224 + $1))           # /16: the node 10.90.0.N has the pods 10.224.N.0/24
  BALANCER_ADDRESS=$NODE_NETWORK.253     # in front of all apiservers, at their port; on the switch, as etcd is
  ETCD=http://$NODE_NETWORK.254:2379
  MACHINE_LINK=sluice$1                  # this machine's own end on the bridge
}

# clusters: the names of those that have a place.
clusters() { [ ! -d "$CLUSTERS" ] || find "$CLUSTERS" -mindepth 2 -maxdepth 2 -name place -printf '%h\n' | sed 's#.*/##' | sort; }

# locked FILE COMMAND…: in a subshell, while no other process holds the lock. Never call it in an `if` or left of && or ||.
locked() (
  mkdir -p "$CACHE" "$CLUSTERS"
  exec 8>"$1"
  if ! flock -n 8; then
    say "       ${MARK}waiting for another cluster command that holds $1"
    flock -w 3600 8 || die "another cluster command holds $1"
  fi
  "${@:2}"
)

# alone: one change of a cluster at a time; the lock ends with this process.
alone() {
  mkdir -p "$CLUSTERS"
  exec 9>"$CLUSTERS/$CLUSTER.lock"
  if ! flock -n 9; then
    say "       ${MARK}waiting for another command of this cluster to finish"
    flock -w 1800 9 || die "another cluster command holds $CLUSTERS/$CLUSTER.lock"
  fi
}

# A kubelet sets these for the whole machine, not only for its host; the last one is raised here, since every systemd,
# kubelet and containerd of one user shares the default 128.
SYSCTLS="vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys
  kernel.keys.root_maxbytes fs.inotify.max_user_instances"
INOTIFY_INSTANCES=8192

# claim_place: the lowest number that nobody has. The first cluster on the machine remembers its settings.
claim_place() { locked "$CLUSTERS/lock" choose_place; take_place "$(cat "$STATE/place")"; }

choose_place() {
  local number=0 hierarchy folder
  mkdir -p "$STATE"
  # A link without a place is a cluster of another cache.
  while grep -qsx "$number" "$CLUSTERS"/*/place || ip link show "sluice$number" >/dev/null 2>&1; do
    number=$((number + 1))
  done
  ((number <= LAST_PLACE)) || die "no place left for $CLUSTER; there are: $(clusters | xargs)"
  # shellcheck disable=SC2086
  [ -n "$(clusters)" ] || sysctl $SYSCTLS >"$CLUSTERS/sysctls"
  (($(sysctl -n fs.inotify.max_user_instances) >= INOTIFY_INSTANCES)) ||
    sysctl -q -w "fs.inotify.max_user_instances=$INOTIFY_INSTANCES"
  for hierarchy in $(cgroup_hierarchies); do
    for folder in "$hierarchy/${CGROUP%/*}" "$hierarchy/$CGROUP"; do
      mkdir -p "$folder"
      # A new cpuset is empty unless it copies its parent's.
      [ ! -e "$folder/cgroup.clone_children" ] || echo 1 >"$folder/cgroup.clone_children"
      if [ -e "$hierarchy/cpuset.mems" ]; then
        cat "${folder%/*}/cpuset.cpus" >"$folder/cpuset.cpus"
        cat "${folder%/*}/cpuset.mems" >"$folder/cpuset.mems"
      fi
    done
  done
  echo "$number" >"$STATE/place"
  share_processors
}

# share_processors: on a busy machine each cluster counts as much as any one process outside, not all of them together.
share_processors() {
  local shares=/sys/fs/cgroup/cpu/${CGROUP%/*}/cpu.shares
  [ ! -e "$shares" ] || echo $((1024 * $(clusters | wc -l))) >"$shares"
}

# leave_place: the last cluster puts the machine's settings back.
leave_place() { [ ! -e "$STATE/place" ] || locked "$CLUSTERS/lock" vacate_place; }

vacate_place() {
  local hierarchy
  for hierarchy in $(cgroup_hierarchies); do
    [ ! -d "$hierarchy/$CGROUP" ] || rmdir "$hierarchy/$CGROUP"
  done
  rm "$STATE/place"
  [ -z "$(clusters)" ] || { share_processors; return; }
  # A link that is left is of a cluster of another cache, which still needs what belongs to the machine.
  if ip -o link show | grep -q ': sluice[0-9]'; then return; fi
  for hierarchy in $(cgroup_hierarchies); do
    [ ! -d "$hierarchy/${CGROUP%/*}" ] || rmdir "$hierarchy/${CGROUP%/*}"
  done
  # ip makes this folder a mount with the first namespace and leaves it so after the last.
  if mountpoint -q /run/netns && [ -z "$(ls /run/netns)" ]; then
    umount /run/netns
    rmdir /run/netns
  fi
  [ ! -e "$CLUSTERS/sysctls" ] || sysctl -q -p "$CLUSTERS/sysctls"
  rm -f "$CLUSTERS/sysctls"
}
