# Functions shared by the lab's scripts. Sourced, not run.
# shellcheck shell=bash
# shellcheck disable=SC2034  # most variables here are read by the scripts that source this file
set -Eeuo pipefail

# ---- the environment ----------------------------------------------------------------------
# The scripts behave the same in a login shell, in cron and in CI: they set PATH (a pyenv or virtualenv
# python3 would hide Debian's modules), locale and HOME, and read no input.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8 HOME=/root
unset PYENV_ROOT PYENV_VERSION PYTHONPATH PYTHONHOME VIRTUAL_ENV LIBVIRT_DEFAULT_URI
exec </dev/null

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_STATE=${LAB_STATE:-/var/lib/hoodlab}
LAB_PASS=${LAB_PASS:-hoodlab} # one throw-away password; everything listens on 127.0.0.1
RUN=$LAB_STATE/run            # NAME.pid: pid, start time, boot id;  NAME.cmd: how to start it again
LOG=$LAB_STATE/logs           # output of daemons and set-up steps
MARK=$LAB_STATE/marks         # one file per completed set-up step
CONF=$LAB_STATE/etc
ORIG=$LAB_STATE/orig          # the packaged config files, for down.sh
FAULTS=$LAB_STATE/faults      # one folder per injected fault, with the data to undo it
TIMES=$LAB_STATE/timings.tsv
INSTANCES=/var/lib/nova/instances
CLEAN_ENV=(env -i PATH="$PATH" LANG=C.UTF-8 LC_ALL=C.UTF-8)
# nova's, neutron's and cinder's name for this machine; a lab keeps the name it was created with
LAB_HOST=${LAB_HOST:-$(cat "$LAB_STATE/host" 2>/dev/null || hostname)}

# ---- talking to the reader ----------------------------------------------------------------
NOTE='' # log file of the current step, printed if the step fails
HINT='' # advice, printed if the step fails
say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }
die() {
  printf 'LAB FAILED: %s%s%s\n' "$*" "${NOTE:+ (log: $NOTE)}" "${HINT:+; $HINT}" >&2
  trap - ERR
  exit 1
}
on_err() {
  local rc=$?
  # a subshell only passes its status on: the script itself reports the failure, once
  [ "$BASH_SUBSHELL" = 0 ] || exit "$rc"
  local i=1
  while [ "${BASH_SOURCE[i]##*/}" = lib.sh ] && [ -n "${BASH_SOURCE[i + 1]:-}" ]; do i=$((i + 1)); done
  die "${BASH_SOURCE[i]##*/} line ${BASH_LINENO[i - 1]}: $BASH_COMMAND (status $rc; logs: $LOG and /var/log/SERVICE)"
}
trap on_err ERR

help_if_asked() { # ARGS of the script: prints the script's leading comment
  case ${1:-} in -h | --help)
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
    exit 0
    ;;
  esac
}
need_root() { [ "$(id -u)" = 0 ] || die "this script needs root: sudo $0"; }
need_lab() { [ -d "$RUN" ] || die "this machine has no lab (no $RUN): run lab/up.sh first"; }
need_cloud() {
  need_lab
  local n
  for n in mariadb keystone nova-api nova-compute; do
    alive "$n" || die "$n is not running: run lab/up.sh (lab/status.sh shows the rest)"
  done
}

_stage_name='' _stage_t0=0
stage() {
  stage_end
  _stage_name=$1 _stage_t0=$(date +%s.%N)
  say "== $1${2:+: $2}"
}
stage_end() {
  [ -n "$_stage_name" ] || return 0
  local dt
  dt=$(awk -v a="$_stage_t0" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
  say "-- $_stage_name: ${dt} s"
  timed "$_stage_name" "$dt"
  _stage_name=
}
timed() { printf '%s\t%s\t%s\n' "$(date -Is)" "$1" "$2" >>"$TIMES"; } # WHAT SECONDS

# ---- processes ----------------------------------------------------------------------------
# Each daemon gets its own session and (if the machine has cgroups) its own cgroup, so that every
# descendant can be found without matching process names.
cg_root() {
  local c
  for c in /sys/fs/cgroup/unified /sys/fs/cgroup /sys/fs/cgroup/pids; do
    if [ -e "$c/cgroup.procs" ] && [ -w "$c" ]; then
      echo "$c/hoodlab"
      return 0
    fi
  done
  return 1
}
cg_procs() { # [NAME]: pids in one daemon's cgroup, or in all cgroups of the lab
  local c
  c=$(cg_root) || return 0
  if [ $# -gt 0 ]; then c+=/$1; else c+='/*'; fi
  # shellcheck disable=SC2086  # a glob pattern; nothing in the path needs quotes
  cat $c/cgroup.procs 2>/dev/null || true
}
proc_start() { awk '{ sub(/^.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null || true; }
boot_id() { cat /proc/sys/kernel/random/boot_id; }

alive() { # NAME: the recorded pid still belongs to the process that was started
  local pid start boot
  [ -f "$RUN/$1.pid" ] || return 1
  read -r pid start boot <"$RUN/$1.pid" || return 1
  # pid and start time can repeat after a reboot, the boot id cannot
  [ -z "$boot" ] || [ "$boot" = "$(boot_id)" ] || return 1
  [ -n "$pid" ] && [ -d "/proc/$pid" ] && [ "$(proc_start "$pid")" = "$start" ] || return 1
  ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null
}
pid_of() {
  local pid _
  read -r pid _ <"$RUN/$1.pid" && echo "$pid"
}

end_leftovers() { # NAME: kills leftovers of a killed daemon (workers that hold its port)
  local pids
  pids=$(cg_procs "$1")
  case $1 in
    # libvirtd's children are guests; the agents reuse their dnsmasq and haproxy
    libvirtd | neutron-dhcp-agent | neutron-l3-agent) return 0 ;;
  esac
  [ -n "$pids" ] || return 0
  # shellcheck disable=SC2086  # one word per pid is intended
  kill -KILL $pids 2>/dev/null || true
  sleep 0.5
}

close_inherited() { # closes all descriptors except the first three: a daemon must not hold a caller's lock
  local fd
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || eval "exec $fd>&-"
  done
}
EXTRA_ENV=()
start() { # NAME USER CMD...
  local name=$1 user=$2 cg pid home i pre=() as=()
  shift 2
  alive "$name" && return 0
  end_leftovers "$name"
  if cg=$(cg_root) && mkdir -p "$cg/$name" 2>/dev/null; then
    # shellcheck disable=SC2016  # expanded by the inner bash
    pre=(bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$cg/$name")
  fi
  [ "$user" = root ] || as=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups)
  home=$(getent passwd "$user" | cut -d: -f6)
  printf '%q ' "$user" "$@" >"$RUN/$name.cmd"
  (
    cd /
    umask "${UMASK:-022}" # a caller's 077 would close the folders of new guests to QEMU
    close_inherited
    exec setsid "${pre[@]}" "${CLEAN_ENV[@]}" HOME="$home" "${EXTRA_ENV[@]}" "${as[@]}" "$@" \
      </dev/null >>"$LOG/$name.log" 2>&1
  ) &
  pid=$!
  for i in 1 2 3 4 5 6 7 8 9 10; do
    [ -n "$(proc_start "$pid")" ] && break
    sleep 0.1
  done
  printf '%s %s %s\n' "$pid" "$(proc_start "$pid")" "$(boot_id)" >"$RUN/$name.pid"
  disown "$pid" 2>/dev/null || true
  say "   started $name (pid $pid, user $user)"
}
start_again() { # NAME: with the recorded command
  [ -f "$RUN/$1.cmd" ] || die "no record of how $1 was started"
  eval "start $1 $(cat "$RUN/$1.cmd")"
}

stop() { # NAME... : TERM to all, one wait for all, then KILL
  local n pid i left=
  for n in "$@"; do
    # a process stopped by a fault could not act on the TERM
    if alive "$n"; then
      pid=$(pid_of "$n")
      kill -TERM "$pid" 2>/dev/null || true
      kill -CONT "$pid" 2>/dev/null || true
    fi
  done
  for i in $(seq 1 80); do
    left=
    for n in "$@"; do if alive "$n"; then left+=" $n"; fi; done
    [ -n "$left" ] || break
    sleep 0.25
  done
  for n in $left; do
    say "   $n did not stop in 20 s: killed"
    kill_now "$n"
  done
  for n in "$@"; do rm -f "$RUN/$n.pid"; done
}
kill_now() { # NAME: KILL to its session, and wait
  local pid i
  alive "$1" || return 0
  pid=$(pid_of "$1")
  kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
  for i in $(seq 1 40); do
    alive "$1" || break
    sleep 0.05
  done
}
running_names() {
  local f
  for f in "$RUN"/*.pid; do
    [ -e "$f" ] || continue
    f=${f##*/}
    if alive "${f%.pid}"; then echo "${f%.pid}"; fi
  done
}
guest_pids() { # UUID...: qemu processes with that -uuid, whatever libvirt lists
  local p u args
  for p in /proc/[0-9]*; do
    args=$(tr '\0' '\n' 2>/dev/null <"$p/cmdline") || continue
    case ${args%%$'\n'*} in */qemu-system-* | qemu-system-*) ;; *) continue ;; esac
    for u in "$@"; do
      case $args in *$'\n-uuid\n'"$u"*) echo "${p#/proc/}" ;; esac
    done
  done
}

has() { # GREP'S ARGUMENTS: standard input has a match
  # grep -q ends at the first match, and pipefail would report the SIGPIPE of the command that still writes
  grep "$@" | cat >/dev/null
}

# ---- waiting ------------------------------------------------------------------------------
wait_for() { # SECONDS WHAT CMD...
  local t=$1 what=$2 end
  shift 2
  end=$(($(date +%s) + t))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || die "gave up after waiting ${t} s for $what"
    sleep 0.3
  done
}
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
wait_port() { # NAME PORT [SECONDS]
  local end=$(($(date +%s) + ${3:-90}))
  until port_open "$2"; do
    if ! alive "$1"; then
      NOTE=$LOG/$1.log
      tail -n 5 "$NOTE" >&2
      die "$1 died while it started"
    fi
    [ "$(date +%s)" -lt "$end" ] || die "$1 did not open 127.0.0.1:$2 (logs: $LOG/$1.log, /var/log/${1%%-*})"
    sleep 0.2
  done
}
port_free_or_ours() { # NAME PORT
  alive "$1" && return 0
  port_open "$2" || return 0
  end_leftovers "$1"
  ! port_open "$2" || die "port $2 (for $1) is in use by a process that this lab did not start"
}

# ---- set-up steps -------------------------------------------------------------------------
once() { # MARKER CMD...: runs CMD unless it has succeeded before
  local m=$MARK/$1
  shift
  [ -e "$m" ] && return 0
  "$@" && date -Is >"$m"
}
put() { # PATH OWNER:GROUP MODE  (content on stdin): writes a config file, and saves the packaged one
  local p=$1 own=$2 mode=$3 key
  key=$(printf %s "$p" | tr / %)
  mkdir -p "$(dirname "$p")"
  if [ ! -e "$ORIG/$key" ] && [ ! -e "$ORIG/$key.absent" ]; then
    if [ -e "$p" ]; then cp -a "$p" "$ORIG/$key"; else : >"$ORIG/$key.absent"; fi
  fi
  cat >"$p.lab-new"
  chown "$own" "$p.lab-new"
  chmod "$mode" "$p.lab-new"
  mv -f "$p.lab-new" "$p"
}

install_packages() { # PACKAGE...
  local missing=() p
  for p in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$p" 2>/dev/null)" = "ii " ] || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "   installing ${#missing[@]} packages and their dependencies: ${missing[*]}"
  # Packages must not start services: the lab starts all of them.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    touch "$MARK/policy-rc.d"
  fi
  NOTE=$LOG/apt.log
  export DEBIAN_FRONTEND=noninteractive
  dpkg --configure -a >>"$NOTE" 2>&1 || true # finishes an interrupted installation
  timeout -k 10 600 apt-get update -q >>"$NOTE" 2>&1 || die "apt-get update"
  timeout -k 10 1200 apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef "${missing[@]}" >>"$NOTE" 2>&1 ||
    die "apt-get install: $(grep -E '^(E|dpkg): ' "$NOTE" | tail -n 1)"
  NOTE=
  if [ -e "$MARK/policy-rc.d" ]; then rm -f /usr/sbin/policy-rc.d "$MARK/policy-rc.d"; fi
}

# ---- clients: all with timeouts, so that none of them hangs -------------------------------
MYSQL=(timeout -k 5 60 mysql --no-defaults --connect-timeout=5 -S /run/mysqld/mysqld.sock -u root -N -B)
sql() { "${MYSQL[@]}" -e "$1"; }
virsh() { timeout -k 5 "${VIRSH_TIMEOUT:-90}" virsh -c qemu:///system "$@"; }
domstate() { virsh domstate "$1" 2>/dev/null | sed -n 1p; }
osc() {
  timeout -k 5 180 "${CLEAN_ENV[@]}" HOME=/root OS_CLOUD="${OS_CLOUD:-hoodlab}" \
    OS_CLIENT_CONFIG_FILE="$LAB_STATE/clouds.yaml" openstack "$@"
}
lab_python() { # SCRIPT ARGS...: with Debian's python3 and its OpenStack modules
  local script=$1
  shift
  "${CLEAN_ENV[@]}" HOME=/root PYTHONDONTWRITEBYTECODE=1 LAB_STATE="$LAB_STATE" LAB_PASS="$LAB_PASS" \
    OS_CLIENT_CONFIG_FILE="$LAB_STATE/clouds.yaml" /usr/bin/python3 "$LAB_DIR/$script" "$@"
}

# True if nova-compute sent a heartbeat since its start (earlier requests are lost) and is connected to
# libvirt (it disables itself without libvirt, and takes up to a minute to notice its return).
compute_ready() {
  local since
  since=$(date -u -d "@$(stat -c %Y "$RUN/nova-compute.pid")" '+%F %T')
  [ "$(sql "select count(*) from nova.services where \`binary\` = 'nova-compute' and host = '$LAB_HOST' and deleted = 0
            and not (disabled and ifnull(disabled_reason, '') like 'AUTO:%') and updated_at > greatest('$since', utc_timestamp() - interval 60 second)")" = 1 ]
}

# ---- the state of the cloud ---------------------------------------------------------------
instance_table() { # name, nova's vm_state, task_state and power_state, libvirt's state, UUID
  local name vm task power uuid states state
  states=$(virsh list --all --uuid --name 2>/dev/null | awk 'NF { print $1 }' | while read -r uuid; do
    echo "$uuid $(domstate "$uuid")"
  done)
  sql "select display_name, vm_state, ifnull(task_state, '-'), power_state, uuid from nova.instances where deleted = 0
       union all select display_name, vm_state, ifnull(task_state, '-'), power_state, uuid from nova_cell0.instances where deleted = 0
       order by 1" | while IFS=$'\t' read -r name vm task power uuid; do
    state=$(awk -v u="$uuid" '$1 == u { sub(/^[^ ]+ /, ""); print }' <<<"$states")
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$vm" "$task" "$power" "${state:-no domain}" "$uuid"
  done
}
