# What the lab's faults share; the faults are in faults/. Sourced by break.sh, fix.sh and test-faults.sh,
# not run.
# shellcheck shell=bash
# shellcheck disable=SC2154  # I u d S are set by break.sh and fix.sh
# shellcheck disable=SC2034  # F_... are read by these
#
# A fault NAME consists of `fault NAME INSTANCE "what it does" "what nova does about it by itself"` and
# three functions  b_NAME (inject)  c_NAME (0: the fault is in effect)  f_NAME (undo). In the function
# names, - is written _. INSTANCE is the default instance to inject into; - stands for the host.
# The functions see:  $I instance name  $u its UUID  $d its libvirt domain  $S a private folder for the
# data needed to undo the fault.

declare -A F_VM F_WHAT F_NOVA
F_NAMES=()
fault() { F_NAMES+=("$1") F_VM[$1]=$2 F_WHAT[$1]=$3 F_NOVA[$1]=$4; }

row() { sql "$1"; }
dump_rows() { # DATABASE TABLE WHERE
  timeout -k 5 60 mysqldump --no-defaults -S /run/mysqld/mysqld.sock -u root --no-create-info --skip-triggers \
    --complete-insert --replace --skip-lock-tables --where="$3" "$1" "$2"
}
uuid_of() { row "select uuid from nova.instances where display_name = '$1' order by deleted, id desc limit 1"; }
new_uuid() { cat /proc/sys/kernel/random/uuid; }
idir() { echo "$INSTANCES/$u"; }
qpid() { cat "/run/libvirt/qemu/$d.pid" 2>/dev/null || true; }
running() { [ "$(domstate "$u")" = running ]; }
no_process() { [ -z "$1" ] || [ ! -d "/proc/$1" ]; }
first_tap() { virsh domiflist "$u" | awk '$1 ~ /^(tap|lab)/ && !n++ { print $1 }'; } # reads to the end: pipefail minds a SIGPIPE
vda_file() { virsh domblklist "$u" | awk '$1 == "vda" { print $2 }'; }
base_of() { qemu-img info -U --output json "$(idir)/disk" | jq -r '."full-backing-filename"'; }
save() { cat >"$S/$1"; }
saved() { cat "$S/$1"; }
save_definition() { virsh dumpxml --inactive --security-info "$u" | save inactive.xml; }
vm_state() { row "select vm_state from nova.instances where uuid = '$u'"; }
until_ok() { # SECONDS CMD...
  local n=$1 i
  shift
  for ((i = 0; i < n * 2; i++)); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.5
  done
  return 1
}
idle_in() { [ "$(row "select concat(vm_state, '/', ifnull(task_state, '')) from nova.instances where uuid = '$u'")" = "$1/" ]; }
no_task() { [ "$(row "select ifnull(task_state, '') from nova.instances where uuid = '$u'")" = "" ]; }
thaw() { # resumes nova-compute after `break.sh --freeze`
  [ -n "${freeze:-}" ] || return 0
  freeze=
  say "   nova-compute is resumed"
  kill -CONT "$(pid_of nova-compute)" 2>/dev/null || true
  sleep 2
}
back_to_active() { # restores a running, ACTIVE instance with a new definition, whatever its state
  thaw
  until_ok 60 no_task || row "update nova.instances set task_state = NULL where uuid = '$u'"
  say "   $I is $(vm_state): making it ACTIVE and running again"
  case $(vm_state) in
    stopped) osc server start "$u" ;;
    paused) osc server unpause "$u" ;;
    active) osc server reboot --hard "$u" ;;
    error)
      osc server set --state active "$u"
      osc server reboot --hard "$u"
      ;;
    *) die "$I is $(vm_state): this lab cannot bring it back from that state" ;;
  esac
  sleep 1
  until_ok 120 idle_in active || die "$I did not come back: it is $(vm_state) (log: /var/log/nova/nova-compute.log)"
  until_ok 30 running || die "$I is active but its domain does not run (log: /var/log/nova/nova-compute.log)"
}
# A qemu started by hand that libvirt does not know; it never boots a guest (-S) and has no monitor.
# shellcheck disable=SC2054  # the commas are qemu's
QEMU_BY_HAND=(/usr/bin/qemu-system-x86_64 -machine pc,accel=tcg -m 16 -S -display none -nodefaults -no-user-config)
opens_for_writing() { # PID FILE: the process has that inode open read-write
  local fd flags
  for fd in /proc/"$1"/fd/*; do
    [ "$(stat -Lc %d:%i "$fd" 2>/dev/null)" = "$(stat -Lc %d:%i "$2")" ] || continue
    flags=$(awk '/^flags:/ { print $2 }' "/proc/$1/fdinfo/${fd##*/}")
    [ $((8#$flags & 3)) = 2 ] && return 0
  done
  return 1
}
our_libvirtd() { alive libvirtd || die "this fault restarts libvirtd, but the lab did not start the running libvirtd"; }
libvirt_answers() { virsh version; }
restart_libvirtd_with() { # CMD...: runs CMD while libvirtd is down
  stop libvirtd
  "$@"
  start_again libvirtd
  until_ok 30 libvirt_answers || die "libvirtd does not answer (log: $LOG/libvirtd.log)"
}
nova_has_libvirt() {
  # nova-compute reconnects when it needs libvirt, for example for a console log, and after a minute at the latest
  osc console log show --lines 1 "$(uuid_of vm-plain)" >/dev/null 2>&1 || true
  until_ok 120 compute_ready || die "nova-compute does not reconnect to libvirt (log: /var/log/nova/nova-compute.log)"
}

# A fault is in the file of the layer in which it happens. The order is that of the list in README.
for topic in processes libvirt definition network files records placement volumes services; do
  # shellcheck source=/dev/null
  . "$LAB_DIR/faults/$topic.sh"
done
