# shellcheck shell=bash
# What a cluster has to tell after something went wrong: bounded, and written even where half of it is broken.

# tell FILE COMMAND…: the end of what it prints.
tell() { timeout -k 1 20 "${@:2}" </dev/null 2>&1 | tail -c 2000000 >"$1" || true; }

tell_host() {
  local folder=$1/$2 name=$2 unit script=$HERE/cluster
  mkdir -p "$folder"
  for unit in kubelet containerd; do
    tell "$folder/$unit.log" "$script" --name "$CLUSTER" exec "$name" journalctl --no-pager -o short-precise -n 5000 -u "$unit"
  done
  tell "$folder/rules" "$script" --name "$CLUSTER" exec "$name" nft list ruleset
  tell "$folder/processes" "$script" --name "$CLUSTER" exec "$name" ps -eo pid,ppid,stat,lstart,args
  # shellcheck disable=SC2016  # expanded in the host
  tell "$folder/pods.log" "$script" --name "$CLUSTER" exec "$name" sh -c 'cd /var/log/pods && find . -name "*.log" |
    while read -r log; do echo "==> $log <=="; tail -c 100000 "$log"; done'
}

# cmd_logs FOLDER
cmd_logs() {
  local folder=${1:?"logs: which folder?"} name pids=()
  mkdir -p "$folder"
  [ ! -d "$LOGS" ] || cp -r "$LOGS" "$folder/bed"
  for name in $(booted); do
    tell_host "$folder" "$name" &
    pids+=($!)
  done
  for name in nodes pods streamingpolicies streamingnodes; do
    tell "$folder/$name" "$HERE/cluster" --name "$CLUSTER" kubectl get "$name" -A -o wide --request-timeout=10s
    tell "$folder/$name.yaml" "$HERE/cluster" --name "$CLUSTER" kubectl get "$name" -A -o yaml --request-timeout=10s
  done
  tell "$folder/events" "$HERE/cluster" --name "$CLUSTER" kubectl get events -A --sort-by=.lastTimestamp --request-timeout=10s
  all_jobs "${pids[@]}"
  say "       ${MARK}logs: $folder"
}
