# shellcheck shell=bash disable=SC2034  # read by the other files
# Versions and folders: everything the rest of the test bed agrees on.

DEFAULT_VERSION=1.20.15                  # of a cluster that declares no other; kubernetes/versions says what is there
IMAGE_PREFIX=k8s.gcr.io                  # kubeadm insists on these names; nothing is ever pulled
PAUSE_IMAGE=$IMAGE_PREFIX/pause:3.2
BUSYBOX_IMAGE=$IMAGE_PREFIX/busybox:1
OPERATOR_IMAGE=localhost/sluice          # tagged with the crate's version; the chart is told

FIRST_NUMBER=10                          # the address of the node that `kubeadm init` runs on ends with it
TOKEN=s1u1ce.0000000000000000            # a bootstrap token for a network that ends at this machine

CACHE=${SLUICE_CACHE:-$HOME/.cache/sluice}
BIN=$CACHE/bin
IMAGES=$CACHE/images
BUILDER=$CACHE/buildah                   # where images are put together
CLUSTERS=$CACHE/clusters                 # a folder for each, see place.sh
REPO=$(cd "$HERE/../.." && pwd)
