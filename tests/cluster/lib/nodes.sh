# shellcheck shell=bash
# Declarations: "name key=value…", one line a node. A node that was booted has its declaration in $NODES/NAME/node.

# declared FILE: the lines that declare, in one spelling: comments gone, one space between words.
declared() { sed 's/#.*//; s/[[:space:]]\+/ /g; s/^ //; s/ $//; /^$/d' "$1"; }

# value DECLARATION KEY [DEFAULT]: the last one of that key.
value() {
  local word found=${3:-}
  for word in $1; do [[ $word != "$2="* ]] || found=${word#*=}; done
  echo "$found"
}

role() { value "$1" role worker; }

# at_least VERSION LIMIT: 1.22.17 is at least 1.22.
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# first_lines FILE: the declarations, and before all others the control plane that `kubeadm init` runs on.
first_lines() {
  local line first=""
  while read -r line; do
    [ "$(role "$line")" != control-plane ] || { first=$line; break; }
  done < <(declared "$1")
  echo "$first"
  declared "$1" | awk -v first="$first" '$0 != first'
}

# values DECLARATION KEY: all of them, in order.
values() {
  local word
  for word in $1; do [[ $word != "$2="* ]] || echo "${word#*=}"; done
}

# merged DECLARATION KEY=VALUE…: the new words take the place of the old ones of the same key.
merged() {
  local old=$1 word result
  shift
  result=${old%% *}
  for word in ${old#"$result"}; do
    case " $* " in *" ${word%%=*}="*) ;; *) result+=" $word" ;; esac
  done
  # An empty value only takes the old one away: flag= for a node without flags.
  for word in "$@"; do [[ $word == *= ]] || result+=" $word"; done
  echo "$result"
}

# meaning DECLARATION: the same for two that declare the same node.
meaning() {
  echo "${1%% *} $(role "$1") $(value "$1" kubelet "$KUBERNETES_VERSION") $(value "$1" redirect false)" \
    "$(value "$1" runtime containerd) $(value "$1" stream) $(value "$1" tls false) $(values "$1" flag | xargs)"
}

# runtimes: those that the bed knows.
runtimes() { xargs <<<"containerd $(versions_of containerd | xargs) docker cri-dockerd"; }

# check_declaration DECLARATION
check_declaration() {
  local name=${1%% *} word kubelet kubelets
  [[ $name =~ ^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$ ]] || die "node name '$name': lower case letters, digits and dashes"
  for word in ${1#"$name"}; do
    case $word in
    kubelet=* | flag=--*) ;;
    tls=true | tls=false | tls=self) ;;
    runtime=*) [[ " $(runtimes) " == *" ${word#runtime=} "* ]] || die "node $name: no such runtime; there are $(runtimes)" ;;
    stream=*) [[ ${word#stream=} =~ ^[0-9a-f.:]+$ ]] || die "node $name: '$word' is no address" ;;
    redirect=true | redirect=false | role=worker | role=control-plane) ;;
    *) die "node $name: '$word' is none of kubelet=VERSION runtime=RUNTIME redirect=true|false stream=ADDRESS tls=true|false|self role=worker|control-plane flag=--…" ;;
    esac
  done
  kubelet=$(value "$1" kubelet "$KUBERNETES_VERSION")
  kubelets=$(versions_of kubelet | xargs)
  if [ "$(value "$1" runtime)" = docker ]; then
    ! at_least "$kubelet" 1.24 || die "node $name: kubelet $kubelet knows no Docker; 1.23 is the last"
    [ "$(role "$1")" = worker ] || die "node $name: a control plane has containerd"
  fi
  if [[ $(value "$1" runtime) == containerd-2.* ]] && ! at_least "$kubelet" 1.23; then
    die "node $name: kubelet $kubelet does not speak to containerd 2; 1.23 is the first"
  fi
  [[ " $kubelets " == *" $kubelet "* ]] || die "node $name: no kubelet $kubelet; there are $kubelets"
}

# check_declarations FILE
check_declarations() {
  local line names="" control_planes=0
  [ -r "$1" ] || die "cannot read the nodes file $1"
  while read -r line; do
    check_declaration "$line"
    case " $names " in *" ${line%% *} "*) die "$1: ${line%% *} is declared twice" ;; esac
    names+=" ${line%% *}"
    [ "$(role "$line")" != control-plane ] || control_planes=$((control_planes + 1))
  done < <(declared "$1")
  ((control_planes >= 1)) || die "$1 declares no control-plane node"
}

booted() { [ ! -d "$NODES" ] || find "$NODES" -mindepth 2 -maxdepth 2 -name node -printf '%h\n' | sed 's#.*/##' | sort; }

declaration() { cat "$NODES/$1/node"; }

number() { cat "$NODES/$1/number"; }

address() { echo "$NODE_NETWORK.$(number "$1")"; }

# is_control_plane NAME
is_control_plane() { [ "$(role "$(declaration "$1")")" = control-plane ]; }

# stands NAME: it has joined, and its host runs.
stands() { [ -e "$NODES/$1/joined" ] && first_process "$1" >/dev/null; }

# control_planes: those that stand.
control_planes() {
  local name
  for name in $(booted); do
    if is_control_plane "$name" && stands "$name"; then echo "$name"; fi
  done
}

# reserve DECLARATION: a folder and the lowest free address for a new node; the first control plane's is always free.
reserve() {
  local name=${1%% *} candidate=$FIRST_NUMBER
  [ "$(role "$1")" = control-plane ] || candidate=$((candidate + 1))
  while grep -qx "$candidate" "$NODES"/*/number 2>/dev/null; do candidate=$((candidate + 1)); done
  ((candidate < ${BALANCER_ADDRESS##*.})) || die "no address left for $name"
  mkdir -p "$NODES/$name"
  echo "$candidate" >"$NODES/$name/number"
  echo "$1" >"$NODES/$name/node"
}
