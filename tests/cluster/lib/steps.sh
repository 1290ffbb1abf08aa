# shellcheck shell=bash
# Progress and failure: one line a step on stderr, everything a step prints in its own log.

say() { printf '%s\n' "$*" >&2; }
die() { printf 'cluster: %s\n' "$*" >&2; exit 1; }

# step TITLE COMMAND…: run in a subshell with its output in a log; a failure names the step and the log and ends this
# shell. Never call it in an `if` or left of && or ||: bash would hand their disregard for `set -e` down to the command.
step() {
  local title=$1 log pid started=$SECONDS
  shift
  log="$LOGS/$(tr -cs 'a-zA-Z0-9.\n' '-' <<<"$title").log"
  mkdir -p "$LOGS"
  # In the background, and then awaited, for the same reason.
  (set -e; "$@") >"$log" 2>&1 </dev/null &
  pid=$!
  if wait "$pid"; then
    printf '%4ds  %s%s (%ds)\n' "$SECONDS" "$MARK" "$title" "$((SECONDS - started))" >&2
    return 0
  fi
  printf '%4ds  FAILED: %s%s\n' "$SECONDS" "$MARK" "$title" >&2
  tail -n 12 "$log" | sed 's/^/       | /' >&2
  say "       log: $log"
  exit 1
}

# await SECONDS WHAT COMMAND…: poll until the command succeeds; the deadline's message says what was waited for.
await() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      echo "gave up waiting for: $what" >&2
      return 1
    fi
    sleep 0.7
  done
}

# lock_cache WHAT: one process at a time fills that part of the cache. Look again at what is missing: another one may have made it.
lock_cache() {
  mkdir -p "$CACHE"
  exec 8>"$CACHE/$1.lock"
  flock -n 8 || { say "       ${MARK}waiting for another command to finish building"; flock 8; }
}
unlock_cache() { exec 8>&-; }

# all_jobs PID…: wait for each; fail if one failed.
all_jobs() {
  local pid failed=0
  for pid in "$@"; do wait "$pid" || failed=1; done
  return "$failed"
}

# digest: of whatever comes on stdin, for stamps.
digest() { sha256sum | cut -c1-16; }
