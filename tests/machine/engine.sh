#!/bin/sh
# Make sure that a Docker engine runs, and print the DOCKER_HOST to use.
#
#   tests/machine/engine.sh [start]   Nothing on standard output: the default engine runs already.
#                                     unix:///...: this script started (or had started) one.
#   tests/machine/engine.sh stop      Ends the one that this script started, and no other.
#
#   WORKSHOP_CACHE   cache folder, /var/cache/workshop-hub by default
#
# An engine that runs already is used as it is. Ours keeps all its data in the cache folder,
# so that built images outlive it. Needs root and dockerd.
set -eu

cache=${WORKSHOP_CACHE:-/var/cache/workshop-hub}
dir=$cache/engine
run=$dir/run
pidfile=$run/docker.pid
host=unix://$run/docker.sock

die() { echo "engine.sh: $*" >&2; exit 1; }

answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# The pid is ours only while that process still serves our pidfile: numbers are reused.
ours() {
    pid=$(cat "$pidfile" 2>/dev/null) || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -e "--pidfile=$pidfile"
}

start() {
    if answers; then return 0; fi
    if [ -n "${DOCKER_HOST:-}" ] && [ "$DOCKER_HOST" != "$host" ]; then
        die "DOCKER_HOST is $DOCKER_HOST, and no engine answers there"
    fi
    command -v dockerd >/dev/null || PATH=$PATH:/usr/sbin:/sbin
    command -v dockerd >/dev/null || die "no engine runs and dockerd is missing: apt-get install docker.io"
    [ "$(id -u)" = 0 ] || die "no engine runs, and only root can start one"
    mkdir -p "$run" "$dir/data"
    exec 9>"$dir/lock"
    flock 9
    if ! ours; then
        rm -f "$run/docker.sock" "$pidfile"
        # userland-proxy off: the tests count the processes that a container costs.
        setsid dockerd --data-root="$dir/data" --exec-root="$run/exec" --pidfile="$pidfile" \
            --host="$host" --userland-proxy=false </dev/null >"$dir/log" 2>&1 9>&- &
        started=$!
    fi
    export DOCKER_HOST="$host"
    tries=0
    until answers; do
        tries=$((tries + 1))
        if [ -n "${started:-}" ] && ! kill -0 "$started" 2>/dev/null; then
            tail -n 20 "$dir/log" >&2
            die "dockerd ended at its start"
        fi
        [ $tries -lt 120 ] || { tail -n 20 "$dir/log" >&2; die "dockerd does not answer"; }
        sleep 0.5
    done
    echo "$host"
}

stop() {
    ours || { echo "engine.sh: none of ours runs" >&2; return 0; }
    kill -TERM "$pid"
    tries=0
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 120 ] || die "dockerd ($pid) does not end"
        sleep 0.5
    done
}

case ${1:-start} in
    start) start ;;
    stop) stop ;;
    *) die "usage: engine.sh [start|stop]" ;;
esac
