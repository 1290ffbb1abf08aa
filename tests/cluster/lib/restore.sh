# shellcheck shell=bash
# What a test, a person or Sluice has changed on a host, found and put back. A host remembers what its kubelet and its
# runtime were told when it joined; kube-apiserver's manifest is apiserver.sh's.

TOLD="etc/default/kubelet etc/sysconfig/kubelet etc/systemd/system/kubelet.service etc/systemd/system/kubelet.service.d
  run/systemd/system/kubelet.service.d usr/lib/systemd/system/kubelet.service usr/lib/systemd/system/kubelet.service.d
  etc/containerd etc/docker etc/cni/net.d var/lib/kubelet/config.yaml var/lib/kubelet/instance-config.yaml var/lib/kubelet/kubeadm-flags.env etc/kubernetes/manifests"

# told NAME: the files there are, a line each.
told() {
  # Most hosts lack some of them.
  in_host "$1" sh -c "cd / && find $(xargs <<<"$TOLD") -type f ! -path '${MANIFEST#/}' 2>/dev/null || true" | sort
}

# told_print NAME: their digests, and the kubelet's command line: a file that is back is not yet read.
told_print() {
  told "$1" | in_host "$1" sh -c "cd / && xargs -d '\n' sha256sum"
  # shellcheck disable=SC2016  # expanded in the host
  in_host "$1" sh -c 'tr "\0" " " </proc/$(pgrep -xo kubelet)/cmdline'
}

# keep_joined NAME: the host is as it joined.
keep_joined() {
  # kubeadm has restarted it.
  await 30 "the kubelet on $1" in_host "$1" pgrep -x kubelet
  told "$1" | in_host "$1" tar -c -C / -T - >"$NODES/$1/told.tar"
  told_print "$1" >"$NODES/$1/told"
  touch "$NODES/$1/joined"
}

# has_leftover_rules NAME: those of an agent that is no more. They would send the streams nowhere.
has_leftover_rules() {
  in_host "$1" sh -c '! pgrep -f "^/sluice agent" >/dev/null && nft list tables | grep -q " sluice$"'
}

is_told_the_same() { has_declared_kubelet "$1" && told_print "$1" 2>/dev/null | cmp -s - "$NODES/$1/told"; }

is_as_joined() { is_told_the_same "$1" && ! has_leftover_rules "$1"; }

# restore_host NAME
restore_host() {
  local name=$1
  if has_leftover_rules "$name"; then
    in_host "$name" sh -c 'nft list tables | grep " sluice$" | sed s/^/delete\ / | nft -f -'
  fi
  if is_told_the_same "$name"; then return; fi
  echo "what differs:"
  told_print "$name" | diff - "$NODES/$name/told" || true
  has_declared_kubelet "$name" || put_kubelet "$name" "$(declared_kubelet "$name")"
  # What a remediator knows of the files as they were is no longer so. Not the folders: they are mounted where one runs.
  in_host "$name" sh -c '[ ! -d /var/lib/sluice/remediator ] || find /var/lib/sluice/remediator -type f -delete'
  comm -23 <(told "$name") <(tar -t -f "$NODES/$name/told.tar" | sort) | in_host "$name" sh -c "cd / && xargs -r -d '\n' rm"
  in_host "$name" mkdir /run/told
  in_host "$name" tar -x -C /run/told <"$NODES/$name/told.tar"
  # A kubelet reads every file among its manifests whose name begins with no dot, half-written ones, too: copy, then rename.
  # shellcheck disable=SC2016  # expanded in the host
  in_host "$name" sh -euc '
    cd /run/told
    find . -type f | while read -r file; do
      ! cmp -s "$file" "/$file" || continue
      mkdir -p "/${file%/*}"
      cp -p "$file" "/${file%/*}/.next"
      mv "/${file%/*}/.next" "/$file"
    done
    rm -r /run/told
    systemctl daemon-reload
    systemctl restart containerd'
  restart_kubelet "$name"
  await 30 "$name to be as it joined" is_told_the_same "$name"
}

# restart_kubelet NAME: its Node goes on saying Ready, as it was before; node_works wants to hear it again.
restart_kubelet() {
  date --utc +%FT%TZ >"$NODES/$1/restarted"
  in_host "$1" systemctl restart kubelet
}
