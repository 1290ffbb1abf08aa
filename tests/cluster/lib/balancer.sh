# shellcheck shell=bash
# The load balancer in front of the apiservers: HAProxy, which passes the streams on as they are. Control planes come and
# go through its socket, so that a change of one cuts no connection to another.

BALANCER_POOL=apiservers

# A stream may be silent for as long as the kubelet lets it: 4 hours.
balancer_configuration() {
  cat <<END
global
  stats socket $BALANCER_SOCKET mode 600 level admin
  user haproxy
  group haproxy
defaults
  mode tcp
  timeout connect 5s
  timeout check 5s
  timeout client 5h
  timeout server 5h
  retries 3
  option redispatch 1
listen $BALANCER_POOL
  bind $BALANCER_ADDRESS:6443
  balance roundrobin
  option httpchk GET /readyz
END
}

# balancer COMMAND: its answer. It says what is wrong in words only, so look at the outcome.
balancer() { socat -t 5 - "UNIX-CONNECT:$BALANCER_SOCKET" <<<"$1"; }

balancer_up() {
  ! beside_switch haproxy || return 0
  balancer_configuration >"$STATE/balancer.cfg"
  in_switch setsid haproxy -db -f "$STATE/balancer.cfg" >"$LOGS/balancer.log" 2>&1 </dev/null 9>&- &
  await 20 "the load balancer to answer" balancer "show info"
}

# balances NAME: the node's apiserver is one of those behind the balancer.
balances() { balancer "show servers state $BALANCER_POOL" | awk -v name="$1" '$4 == name { found = 1 } END { exit !found }'; }

# balancer_add NAME
balancer_add() {
  local server=$BALANCER_POOL/$1 settings
  ! balances "$1" || return 0
  # An apiserver that answers hundreds of execs on a busy machine is slow, not gone, and being marked down ends them all; one
  # that refuses connections is passed by at once, whatever the checks say.
  settings="check check-ssl verify none inter 5s fastinter 1s downinter 500ms fall 3 rise 1 on-marked-down shutdown-sessions"
  balancer "add server $server $(address "$1"):6443 $settings; enable health $server; enable server $server"
  balances "$1"
}

# balancer_drop NAME: nothing new goes there, and what goes there ends.
balancer_drop() {
  local server=$BALANCER_POOL/$1
  balances "$1" || return 0
  balancer "set server $server state maint; shutdown sessions server $server"
  await 10 "the connections to $1 to end" balancer_forgets "$1"
}

balancer_forgets() {
  balancer "del server $BALANCER_POOL/$1"
  ! balances "$1"
}
