# shellcheck shell=bash
# Changes of the running apiserver: another image or other flags, through its static pod manifest as on any kubeadm cluster.

MANIFESTS=/etc/kubernetes/manifests
MANIFEST=$MANIFESTS/kube-apiserver.yaml

# manifest VERSION FLAG…: stdin with that image, and each flag in place of the one of the same name, or added. The flag for
# the port without TLS, which kubeadm 1.20 sets to 0, is one that apiservers from 1.24 do not know.
manifest() {
  local version=$1
  shift
  awk -v image="$IMAGE_PREFIX/kube-apiserver:v$version" -v minor="$(cut -d. -f2 <<<"$version")" -v extra="$*" '
    BEGIN {
      count = split(extra, flags, " ")
      for (i = 1; i <= count; i++) { name = flags[i]; sub(/=.*/, "", name); replaced[name] = 1 }
    }
    /^    image: / { print "    image: " image; next }
    /^    - --insecure-port=/ && minor >= 24 { next }
    /^    - --/ { name = $2; sub(/=.*/, "", name); if (name in replaced) next }
    { print }
    /^    - kube-apiserver$/ { for (i = 1; i <= count; i++) print "    - " flags[i] }'
}

# A kubelet knows a static pod by its manifest's hash, and makes the containers of one that it has seen before wait longer
# with each return. A line that is new each time makes it a pod that has never failed.
CHANGE=sluice.dev/change
as_new_pod() { awk -v line="    $CHANGE: \"$(date +%s%N)\"" '{ print } /^  annotations:$/ { print line }'; }
as_declared() { grep -v "^    $CHANGE: "; }

mirror_pod() { ask_any "/api/v1/namespaces/kube-system/pods/kube-apiserver-$1"; }

# apiserver_is NODE VERSION COMMAND OLD: the mirror pod shows that command line in a container other than OLD that is
# ready, and the server says it is that version.
apiserver_is() {
  mirror_pod "$1" | jq -e --arg image "$IMAGE_PREFIX/kube-apiserver:v$2" --arg command "$3" --arg old "$4" '
    .spec.containers[0] as $spec | .status.containerStatuses[0] as $status |
    $spec.image == $image and ($spec.command | join(" ")) == $command
    and $status.ready and $status.containerID != $old' || return 1
  [ "$(instance_version "$1")" = "v$2" ] && instance_ready "$1"
}

# apiserver_answers NODE VERSION COMMAND: that process runs there, is ready, and says it is that version.
apiserver_answers() {
  local process
  # shellcheck disable=SC2016  # expanded on the host
  process=$(in_host "$1" sh -c 'tr "\0" " " <"/proc/$(pgrep -x kube-apiserver)/cmdline"') || return 1
  [ "$process" = "$3 " ] && instance_ready "$1" && [ "$(instance_version "$1")" = "v$2" ]
}

command_line() { awk '/^    - / { sub(/^    - /, ""); line = line (line ? " " : "") $0 } /^    image: / { exit } END { print line }'; }

# set_apiserver NODE VERSION FLAG…: kubeadm's own manifest with these changes, whatever else has edited it since.
set_apiserver() {
  local node=$1 version=$2 image wanted running old command
  shift
  image=$IMAGE_PREFIX/kube-apiserver:v$version
  wanted=$(pristine_manifest "$node" | manifest "$@")
  command=$(command_line <<<"$wanted")
  # It may be gone; then it is written.
  running=$(in_host "$node" cat "$MANIFEST" | as_declared) || running=""
  old=none
  if [ "$wanted" != "$running" ]; then
    has_image "$node" "$image" || import "$node" "$(archive "$image")"
    old=$(mirror_pod "$node" | jq -r '.status.containerStatuses[0].containerID // "none"') || old=none
    # The kubelet reads every file in the folder, half-written ones too: write elsewhere, then rename.
    put "$node" "/etc/kubernetes/kube-apiserver.next.yaml" < <(as_new_pod <<<"$wanted")
    in_host "$node" mv /etc/kubernetes/kube-apiserver.next.yaml "$MANIFEST"
  fi
  await 120 "$image ${*:2} to answer" apiserver_answers "$node" "$version" "$command" || {
    in_host "$node" sh -c 'tail -n 20 /var/log/pods/kube-system_kube-apiserver-*/kube-apiserver/*.log' || true
    return 1
  }
  # A kubelet replaces the mirror pod when it starts the new one, which 1.20.15 does only when the old one has ended. Then no
  # apiserver answers, and it tries again after a minute or more; when it is started itself, at once.
  if [ "$wanted" != "$running" ] && ! await 3 "the mirror pod" apiserver_is "$node" "$version" "$command" "$old"; then
    restart_kubelet "$node"
    node_ready 60 "$node"
  fi
  await 120 "the mirror pod of $image ${*:2}" apiserver_is "$node" "$version" "$command" "$old"
  wake_controllers "$node"
}

# controllers_lead: the controller manager and the scheduler have renewed their leases in the last few seconds.
controllers_lead() {
  ask_any /apis/coordination.k8s.io/v1/namespaces/kube-system/leases | jq -e '
    [.items[] | select(.metadata.name | IN("kube-controller-manager", "kube-scheduler")).spec.renewTime |
      sub("[.][0-9]+"; "") | fromdate] | length == 2 and all(now - . < 6)'
}

# wake_controllers NODE: an apiserver that is away ends them, and their kubelet lets them wait longer each time, up to five
# minutes: meanwhile no namespace gets a service account, and no DaemonSet a pod. A kubelet that has just started knows
# nothing of that.
wake_controllers() {
  local what="the controller manager and the scheduler to lead"
  # As much of the names as the kernel keeps.
  if ! in_host "$1" sh -c 'pgrep -x kube-scheduler && pgrep -x kube-controller' || ! await 20 "$what" controllers_lead; then
    restart_kubelet "$1"
    node_ready 60 "$1"
  fi
  await 60 "$what" controllers_lead
}

# default_apiserver NODE: as kubeadm made it. A change that Sluice has begun there is forgotten: its guard would otherwise
# put the manifest back that it knows.
default_apiserver() {
  in_host "$1" rm -f "$MANIFESTS/sluice-guard.yaml"
  # Not the folders: they are mounted where a remediator runs.
  in_host "$1" find /var/lib/sluice/remediator -type f -delete 2>/dev/null || true
  set_apiserver "$1" "$KUBERNETES_VERSION"
}
