# shellcheck shell=bash
# The operator's image, from the Dockerfile that users build. Only its compiling stage is replaced, by a folder with the
# binary that this machine's cargo has compiled (incrementally, and without a base image to pull) and this machine's nft.

crate_version() { sed -n '/^\[package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' "$REPO/Cargo.toml" | head -n 1; }

# compile_operator DESTINATION: the same build as the Dockerfile's.
compile_operator() {
  local target
  target=$(rustc -vV | sed -n 's/^host: //p')
  cd "$REPO" || return
  RUSTFLAGS='-C target-feature=+crt-static' nice cargo build --release --locked --bin sluice --target "$target"
  cmp -s "${CARGO_TARGET_DIR:-target}/$target/release/sluice" "$1" ||
    install -D -m 755 "${CARGO_TARGET_DIR:-target}/$target/release/sluice" "$1"
}

operator_stamp() { cat "$REPO/Dockerfile" "$1" "$HERE/lib/operator.sh"; }

# build_operator IMAGE ARCHIVE BINARY
build_operator() {
  local image=$1 archive=$2 binary=$3 stage BUILDER
  stage=$(mktemp -d "$CACHE/stage.XXXXXX")
  # shellcheck disable=SC2034  # read by `builder`
  BUILDER=$stage/buildah
  # shellcheck disable=SC2064  # the folder is known now
  trap "rm -rf '$stage'" EXIT
  install -D -m 755 "$binary" "$stage/out/sluice"
  install -D -m 755 /usr/sbin/nft "$stage/out/usr/sbin/nft"
  with_libraries "$stage/out" /usr/sbin/nft
  builder build --quiet --pull-never --build-context "build=$stage" --tag "$image" "$REPO"
  mkdir -p "$(dirname "$archive")"
  rm -f "$archive"
  builder push --quiet "$image" "docker-archive:$archive:$image"
  operator_stamp "$binary" | digest >"$archive.stamp"
}

# make_operator IMAGE ARCHIVE BINARY: up to date, around a binary of this checkout if none is given; a cluster that lacks it
# gets a copy.
make_operator() {
  local image=$1 archive=$2 binary=$3
  if [ -z "$binary" ]; then
    binary=$CACHE/operator/sluice
    step "compile the operator" compile_operator "$binary"
  fi
  [ -r "$binary" ] || die "cannot read $binary"
  if [ "$(cat "$archive.stamp" 2>/dev/null)" != "$(operator_stamp "$binary" | digest)" ]; then
    step "image $image" build_operator "$image" "$archive" "$binary"
  fi
  ! must_load "$archive" || copy_image "$archive"
}

# must_load ARCHIVE: the cluster does not have it.
must_load() { [ -n "$(booted)" ] && ! cmp -s "$1" "$LOADED/$(basename "$1")"; }

# cmd_image [BINARY]: a static binary to use instead of compiling one.
cmd_image() {
  local image archive
  image=$OPERATOR_IMAGE:$(crate_version)
  archive=$CACHE/operator/$(basename "$(archive "$image")")
  # A lock of its own: neither what is compiled here nor a Kubernetes that is compiled for other clusters takes others' time.
  locked "$CACHE/operator.lock" make_operator "$image" "$archive" "${1:-}"
  alone
  ! must_load "$archive" || load_image "$archive"
  echo "$image"
}
