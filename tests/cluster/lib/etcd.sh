# shellcheck shell=bash
# The cluster's etcd. No host runs it, so that each of them may be rebooted or thrown away.

etcdctl() { ETCDCTL_API=3 command etcdctl --endpoints="$ETCD" --command-timeout=5s "$@"; }

etcd_up() {
  ! beside_switch etcd || return 0
  mkdir -p "$STATE/etcd"
  # It waits for every fsync, so it gets memory: a file system that only this process sees, and that ends with it.
  # shellcheck disable=SC2016  # expanded by the inner shell
  in_switch setsid unshare --mount --propagation private \
    sh -euc 'mount -t tmpfs -o mode=700 etcd "$0"; exec etcd --data-dir "$0" "$@"' "$STATE/etcd" \
    --listen-client-urls "$ETCD" --advertise-client-urls "$ETCD" --listen-peer-urls http://127.0.0.1:2380 \
    --logger zap --log-level warn >"$LOGS/etcd.log" 2>&1 </dev/null 9>&- &
  await 20 "etcd to answer" etcdctl endpoint health
}
