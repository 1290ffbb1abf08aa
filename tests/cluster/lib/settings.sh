# shellcheck shell=bash disable=SC2034  # read by the other files
# Versions, addresses and folders: everything the rest of the test bed agrees on.

KUBERNETES_VERSION=1.20.15               # the whole of it; kubernetes/versions says what is there of others
IMAGE_PREFIX=k8s.gcr.io                  # kubeadm insists on these names; nothing is ever pulled
PAUSE_IMAGE=$IMAGE_PREFIX/pause:3.2
BUSYBOX_IMAGE=$IMAGE_PREFIX/busybox:1
PROXY_IMAGE=$IMAGE_PREFIX/kube-proxy:v$KUBERNETES_VERSION
OPERATOR_IMAGE=sluice.dev/sluice         # tagged with the crate's version

NODE_NETWORK=10.99.0                     # /24: .1 is this machine, .254 the switch, nodes from .10 on
FIRST_NUMBER=10                          # the address of the node that `kubeadm init` runs on ends with it
BALANCER_ADDRESS=$NODE_NETWORK.253       # in front of all apiservers, at their port; on the switch, as etcd is
ETCD=http://$NODE_NETWORK.254:2379
POD_NETWORK=10.244                       # /16: the node 10.99.0.N has the pods 10.244.N.0/24
SWITCH=sluice.switch                     # network namespace with the bridge; node names hold no dot
MACHINE_LINK=sluice0                     # this machine's own end on the bridge
CGROUP=sluice                            # folder in every cgroup hierarchy, one child a node
TOKEN=s1u1ce.0000000000000000            # a bootstrap token for a network that ends at this machine

CACHE=${SLUICE_CACHE:-$HOME/.cache/sluice}
BIN=$CACHE/bin
IMAGES=$CACHE/images
STATE=$CACHE/cluster
NODES=$STATE/nodes
LOGS=$STATE/logs
LOADED=$STATE/loaded                     # archives given to `load`, for nodes that come later
ADMIN_CONF=$STATE/admin.conf
PRISTINE=$STATE/pristine                 # what `kubeadm init` made, before anybody changed it
CLIENTS=$STATE/clients                   # what kubectl and helm like to remember
REPO=$(cd "$HERE/../.." && pwd)
