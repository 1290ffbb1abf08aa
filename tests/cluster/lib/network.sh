# shellcheck shell=bash
# One switch namespace with a bridge; hosts and this machine hang on it, and it routes the pod networks between the hosts.
# What the hosts share runs in it too: etcd and the load balancer.

in_switch() { nsenter --net="/run/netns/$SWITCH" "$@"; }

# beside_switch PROGRAM: such a process lives in the switch's namespace.
beside_switch() {
  local pid
  [ -e "/run/netns/$SWITCH" ] || return 1
  for pid in $(ip netns pids "$SWITCH"); do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$1" ] || return 0
  done
  return 1
}

nothing_beside_switch() { [ -z "$(ip netns pids "$SWITCH")" ]; }

# hardware NUMBER: the address of the card of the host with that number. It is the same after a reboot, else the others
# would go on sending to the old one for a while. Other clusters use it, too, each on a bridge of its own.
hardware() { printf '02:53:4c:00:00:%02x\n' "$1"; }

switch_up() {
  [ ! -e "/run/netns/$SWITCH" ] || return 0
  ip netns add "$SWITCH"
  in_switch sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
  in_switch ip link set lo up
  # Left alone, a bridge takes its address from a port, and another one when that port goes.
  in_switch ip link add br0 address "$(hardware 254)" type bridge
  in_switch ip address add "$NODE_NETWORK.254/24" dev br0
  in_switch ip address add "$BALANCER_ADDRESS/24" dev br0
  in_switch ip link set br0 up
  # This machine joins the bridge, so that kubectl, helm and tests reach nodes, pods and the API as clients outside.
  ip link add "$MACHINE_LINK" type veth peer name machine netns "$SWITCH"
  in_switch ip link set machine master br0 up
  ip address add "$NODE_NETWORK.1/24" dev "$MACHINE_LINK"
  ip link set "$MACHINE_LINK" up
  ip route add "$POD_NETWORK.0.0/16" via "$NODE_NETWORK.254" dev "$MACHINE_LINK"
}

switch_down() {
  ip link delete "$MACHINE_LINK" 2>/dev/null || true
  if [ -e "/run/netns/$SWITCH" ]; then
    ip netns pids "$SWITCH" | xargs --no-run-if-empty kill -KILL
    await 10 "what runs beside the switch to end" nothing_beside_switch
    ip netns delete "$SWITCH"
  fi
}

# namespace NAME: the host's network namespace.
namespace() { echo "$SWITCH.$1"; }

# plug NAME NUMBER: a network namespace for the host, its eth0 on the switch, and the way to its pods.
plug() {
  local namespace number=$2
  namespace=$(namespace "$1")
  ip netns add "$namespace"
  ip link add eth0 address "$(hardware "$number")" netns "$namespace" type veth peer name "port$number" netns "$SWITCH"
  in_switch ip link set "port$number" master br0 up
  in_switch ip route replace "$POD_NETWORK.$number.0/24" via "$NODE_NETWORK.$number"
  nsenter --net="/run/netns/$namespace" bash -e -c "
    ip link set lo up
    ip address add $NODE_NETWORK.$number/24 dev eth0
    ip link set eth0 up
    ip route add default via $NODE_NETWORK.254"
}

# unplug NAME NUMBER
unplug() {
  in_switch ip link delete "port$2" 2>/dev/null || true
  in_switch ip route delete "$POD_NETWORK.$2.0/24" 2>/dev/null || true
  [ ! -e "/run/netns/$(namespace "$1")" ] || ip netns delete "$(namespace "$1")"
}
