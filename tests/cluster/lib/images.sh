# shellcheck shell=bash disable=SC2153
# Images: a folder tree each, packed by buildah without any base image, kept as archives and imported into containerd.

builder() { buildah --root "$BUILDER/root" --runroot "$BUILDER/run" --storage-driver vfs "$@"; }

archive() { echo "$IMAGES/$(tr '/:' '__' <<<"$1").tar"; }

# with_libraries TREE FILE…: what the files are linked with, at the same paths.
with_libraries() {
  local tree=$1 library
  shift
  for library in $(ldd "$@" 2>/dev/null | grep -o '/[^ :]*\.so[^ :]*' | sort -u); do
    install -D -m 755 "$library" "$tree$library"
  done
}

# busybox TREE: a shell and its friends, so that tests can look around in any image.
busybox() {
  mkdir -p "$1/bin" "$1/etc" "$1/tmp" "$1/root"
  chmod 1777 "$1/tmp"
  cp /bin/busybox "$1/bin/"
  /bin/busybox --list | grep -vx busybox | xargs -I{} ln -s busybox "$1/bin/{}"
  printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65532:65532::/:/bin/false\n' >"$1/etc/passwd"
}

# component TREE COMPONENT VERSION
component() { install -D -m 755 "$(binary "$3" "$2")" "$1/usr/local/bin/$2"; }

tree_pause() { busybox "$1"; }
tree_busybox() { busybox "$1"; }
tree_kube-apiserver() { component "$1" kube-apiserver "$2"; }
tree_kube-controller-manager() { component "$1" kube-controller-manager "$2"; }
tree_kube-scheduler() { component "$1" kube-scheduler "$2"; }

# kube-proxy calls iptables and conntrack; iptables loads its matches and targets from a folder of plugins. The same
# flavour (nft) as on the hosts, or the two would not see each other's rules.
tree_kube-proxy() {
  local tree=$1 tool plugins
  busybox "$tree"
  component "$tree" kube-proxy "$2"
  plugins=$(dirname "$(find /usr/lib -name libxt_comment.so | head -n 1)")
  mkdir -p "$tree$plugins" "$tree/usr/sbin" "$tree/run" "$tree/var"
  cp -a "$plugins/." "$tree$plugins/"
  ln -s ../run "$tree/var/run"
  install -m 755 /usr/sbin/xtables-nft-multi /usr/sbin/conntrack "$tree/usr/sbin/"
  for tool in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s xtables-nft-multi "$tree/usr/sbin/$tool"
  done
  with_libraries "$tree" /usr/sbin/xtables-nft-multi /usr/sbin/conntrack "$plugins"/*.so
}

# pack IMAGE TREE [CONFIG…]: TREE becomes the one layer of IMAGE, written to its archive.
pack() {
  local image=$1 tree=$2 container
  shift 2
  container=$(builder from scratch)
  builder copy --quiet "$container" "$tree" / >/dev/null
  builder config --env PATH=/usr/local/bin:/usr/sbin:/bin "$@" "$container"
  rm -f "$(archive "$image")"
  builder commit --quiet --rm "$container" "docker-archive:$(archive "$image"):$image" >/dev/null
}

# make_image IMAGE KIND VERSION
make_image() {
  local tree
  mkdir -p "$IMAGES"
  tree=$(mktemp -d "$IMAGES/tree.XXXXXX")
  # shellcheck disable=SC2064  # the folder is known now
  trap "rm -rf '$tree'" EXIT
  chmod 755 "$tree"
  "tree_$2" "$tree" "$3"
  pack "$1" "$tree" --cmd '["/bin/sleep", "2147483647"]'
  image_stamp "$2" "$3" >"$(archive "$1").stamp"
}

# The images of every cluster, one a line: image kind version.
image_list() {
  local kind
  echo "$PAUSE_IMAGE pause -"
  echo "$BUSYBOX_IMAGE busybox -"
  for kind in kube-controller-manager kube-scheduler kube-proxy; do
    echo "$IMAGE_PREFIX/$kind:v$KUBERNETES_VERSION $kind $KUBERNETES_VERSION"
  done
  apiserver_image "$KUBERNETES_VERSION"
}

proxy_image() { echo "$IMAGE_PREFIX/kube-proxy:v$KUBERNETES_VERSION"; }

# apiserver_image VERSION: such a line.
apiserver_image() { echo "$IMAGE_PREFIX/kube-apiserver:v$1 kube-apiserver $1"; }

# image_stamp KIND VERSION: what makes the image.
image_stamp() {
  {
    declare -f builder busybox component with_libraries pack make_image "tree_$1"
    [ "$2" = - ] || cat "$(stamp_file "$2" "$1")"
    dpkg-query -W busybox-static iptables conntrack
  } | digest
}

# missing_images LIST: those that are not made, or of something else, of lines: image kind version.
missing_images() {
  local image kind version
  while read -r image kind version; do
    [ "$(cat "$(archive "$image").stamp" 2>/dev/null)" = "$(image_stamp "$kind" "$version")" ] || echo "$image $kind $version"
  done <<<"$1"
}

# make_images LIST: what is missing of those lines.
make_images() {
  local image kind version
  [ -n "$(missing_images "$1")" ] || return 0
  lock_cache images
  # Not in a pipe: a step that fails ends this shell.
  while read -r image kind version <&3; do
    step "image $image" make_image "$image" "$kind" "$version"
  done 3< <(missing_images "$1")
  rm -rf "$BUILDER"
  unlock_cache
}

has_image() { in_host "$1" ctr -n k8s.io images list -q | grep -qx "$2"; }

# host_images NAME: what this kind of host needs; other apiservers are brought when they are asked for.
host_images() {
  local image images loaded
  images="$PAUSE_IMAGE $BUSYBOX_IMAGE $(proxy_image)"
  if is_control_plane "$1"; then
    for image in kube-apiserver kube-controller-manager kube-scheduler; do
      images+=" $IMAGE_PREFIX/$image:v$KUBERNETES_VERSION"
    done
  fi
  for image in $images; do import "$1" "$(archive "$image")"; done
  for loaded in "$LOADED"/*.tar; do
    [ ! -e "$loaded" ] || import "$1" "$loaded"
  done
}

# copy_image ARCHIVE: for this cluster; another may replace the archive meanwhile.
copy_image() {
  mkdir -p "$LOADED"
  cp "$1" "$LOADED/$(basename "$1" .tar).part"
}

# load_image ARCHIVE: into every host, and remembered for hosts that come later, which a bad archive would keep from booting.
load_image() {
  local name base pids=()
  base=$(basename "$1" .tar)
  for name in $(booted); do
    step "load $base into $name" import "$name" "$LOADED/$base.part" &
    pids+=($!)
  done
  all_jobs "${pids[@]}" || exit 1
  mv "$LOADED/$base.part" "$LOADED/$base.tar"
}
