# The lab's faults, and how to undo each. Sourced by break.sh, fix.sh and test-faults.sh, not run.
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

# ------------------------------------------------------------------ processes
fault qemu-kill9 vm-plain "kill -9 of the guest's qemu" "lifecycle event: SHUTOFF within seconds; DB stays ACTIVE if nova-compute is frozen (--freeze)"
b_qemu_kill9() { kill -9 "$(qpid)"; }
c_qemu_kill9() { ! running && no_process "$(qpid)"; }
f_qemu_kill9() { sleep 3; back_to_active; }

fault qemu-stopped vm-tenant "kill -STOP of qemu: process in state T, monitor does not answer (a collector needs timeouts)" "nothing; libvirt still reports running"
b_qemu_stopped() { kill -STOP "$(qpid)"; }
c_qemu_stopped() { grep -q '^State:.*T' "/proc/$(qpid)/status"; }
f_qemu_stopped() { kill -CONT "$(qpid)"; }

fault cpu-quota-by-hand vm-duo "a quota of 20 % of a CPU is written into the control groups of the guest's vCPUs; libvirt does not know" "nothing; the next start sets libvirt's limit"
vcpu_quotas() { # the cgroup files with the CPU time of the guest's vCPUs, of version 1 and 2
  find /sys/fs/cgroup -path "*$1*" -path '*/vcpu*' \( -name cpu.cfs_quota_us -o -name cpu.max \)
}
b_cpu_quota_by_hand() {
  vcpu_quotas "${d//-/*}" | while read -r f; do echo 20000 >"$f"; done
  sleep 2
}
c_cpu_quota_by_hand() { vcpu_quotas "${d//-/*}" | xargs grep -q '^20000'; }
f_cpu_quota_by_hand() {
  vcpu_quotas "${d//-/*}" | while read -r f; do if [ "${f##*/}" = cpu.max ]; then echo max; else echo -1; fi >"$f"; done
}

fault cgroup-left-over - "the control group of a guest that ended still exists, without a process" "nothing"
left_group() { echo "$(dirname "$(find /sys/fs/cgroup -type d -name 'qemu-*.libvirt-qemu' -o -type d -name 'machine-qemu*.scope' | sort | tail -1)")/qemu-999-instance-0000dead.libvirt-qemu"; }
b_cgroup_left_over() { left_group | save path; mkdir "$(saved path)"; }
c_cgroup_left_over() { [ -d "$(saved path)" ]; }
f_cgroup_left_over() { [ ! -d "$(saved path)" ] || rmdir "$(saved path)"; }

fault duplicate-qemu vm-snap "a second qemu with the -uuid and -name of a running guest, without its disks (started by hand, libvirt does not know it)" "nothing"
b_duplicate_qemu() { start fault-duplicate-qemu libvirt-qemu "${QEMU_BY_HAND[@]}" -name "guest=$d,debug-threads=on" -uuid "$u"; sleep 1; }
c_duplicate_qemu() { alive fault-duplicate-qemu && [ "$(guest_pids "$u" | wc -l)" = 2 ]; }
f_duplicate_qemu() { kill_now fault-duplicate-qemu; rm -f "$RUN"/fault-duplicate-qemu.*; }

# Safe: the second qemu neither boots a guest nor flushes, because it is killed; opening writes nothing.
fault disk-shared vm-duo "a second qemu (another name and UUID) holds the guest's disk open for writing, with image locking off" "nothing"
b_disk_shared() {
  start fault-disk-shared libvirt-qemu "${QEMU_BY_HAND[@]}" -name guest=lab-second-writer -uuid "$(new_uuid)" \
    -blockdev "{\"driver\":\"file\",\"filename\":\"$(vda_file)\",\"node-name\":\"storage\",\"locking\":\"off\"}" \
    -blockdev '{"driver":"qcow2","file":"storage","node-name":"format","read-only":false}' -device virtio-blk-pci,drive=format,share-rw=on
  sleep 1
}
c_disk_shared() { alive fault-disk-shared && opens_for_writing "$(pid_of fault-disk-shared)" "$(vda_file)" && opens_for_writing "$(qpid)" "$(vda_file)"; }
f_disk_shared() { kill_now fault-disk-shared; rm -f "$RUN"/fault-disk-shared.*; }

fault qemu-without-domain vm-tenant "libvirt has lost its record of a running guest (/run/libvirt/qemu/NAME.xml): it reports shut off, qemu keeps running" "the power sync (10 min) finds it shut off and sets it to stopped; a start fails on the image lock"
lose_record() { mkdir -p "$S/run" && mv "/run/libvirt/qemu/$d.xml" "/run/libvirt/qemu/$d.pid" "$S/run/"; }
find_record() { mv "$S/run/$d.xml" "$S/run/$d.pid" /run/libvirt/qemu/; }
b_qemu_without_domain() { our_libvirtd; qpid | save pid; restart_libvirtd_with lose_record; }
c_qemu_without_domain() { [ "$(domstate "$u")" = "shut off" ] && guest_pids "$u" | grep -qx "$(saved pid)"; }
f_qemu_without_domain() { restart_libvirtd_with find_record; thaw; nova_has_libvirt; idle_in active || back_to_active; }

fault domain-without-qemu vm-snap "qemu is killed while another process keeps its sockets open: libvirt sees no end of file and still reports running" "nothing while it lasts; calls that need the monitor hang"
b_domain_without_qemu() {
  qpid | save pid
  start fault-socket-holder root /usr/bin/python3 "$LAB_DIR/hold_sockets.py" "$(saved pid)" "$S/held"
  until_ok 10 test -e "$S/held" || die "the sockets of qemu could not be held (log: $LOG/fault-socket-holder.log)"
  kill -9 "$(saved pid)"
}
c_domain_without_qemu() { running && [ -z "$(guest_pids "$u")" ]; }
f_domain_without_qemu() { kill_now fault-socket-holder; rm -f "$RUN"/fault-socket-holder.*; sleep 3; back_to_active; }

# ------------------------------------------------------------------ libvirt
fault virsh-destroy vm-plain "virsh destroy behind nova's back" "lifecycle event: SHUTOFF within seconds; stays ACTIVE with --freeze"
b_virsh_destroy() { virsh -q destroy "$u"; }
c_virsh_destroy() { [ "$(domstate "$u")" = "shut off" ]; }
f_virsh_destroy() { sleep 3; back_to_active; }

fault virsh-suspend vm-duo "virsh suspend: paused in libvirt, vm_state active in nova" "power_state becomes 3 (paused), vm_state stays active"
b_virsh_suspend() { virsh -q suspend "$u"; }
c_virsh_suspend() { [ "$(domstate "$u")" = paused ]; }
f_virsh_suspend() { ! c_virsh_suspend || virsh -q resume "$u"; }

fault undefine-running vm-tenant "virsh undefine of the running domain: it becomes transient" "nothing; it vanishes at the next stop"
b_undefine_running() { save_definition; virsh -q undefine "$u"; }
c_undefine_running() { virsh dominfo "$u" | grep -q '^Persistent: *no'; }
f_undefine_running() { virsh -q define "$S/inactive.xml"; }

fault undefine-stopped vm-stopped "virsh undefine of the stopped domain: nova reports SHUTOFF, libvirt has no domain" "start or hard reboot defines it again"
b_undefine_stopped() { save_definition; virsh -q undefine "$u"; }
c_undefine_stopped() { ! virsh domstate "$u" >/dev/null 2>&1; }
f_undefine_stopped() { virsh -q define "$S/inactive.xml"; }

fault start-behind vm-stopped "virsh start of an instance that is stopped in nova" "lifecycle event/power sync: nova stops it again (force-stop) unless frozen"
b_start_behind() { virsh -q start "$u"; }
c_start_behind() { running; }
f_start_behind() { until_ok 30 no_task || true; ! running || virsh -q destroy "$u"; sleep 2; until_ok 60 idle_in stopped; }

fault rogue-domain - "a transient domain that nova does not know" "only a warning: more instances on the hypervisor than in the database"
b_rogue_domain() {
  local id; id=$(new_uuid); echo "$id" >>"$LAB_STATE/rogue-uuids"; echo "$id" | save id
  printf '<domain type="qemu"><name>rogue-vm</name><uuid>%s</uuid><memory unit="MiB">32</memory><vcpu>1</vcpu><os><type machine="pc">hvm</type></os></domain>' "$id" | save rogue.xml
  virsh -q create "$S/rogue.xml"
}
c_rogue_domain() { virsh domstate "$(saved id)" >/dev/null 2>&1; }
f_rogue_domain() { virsh -q destroy "$(saved id)"; }

fault orphan-domain vm-snap "a persistent running domain with nova's metadata, an instance-… name and a UUID the DB does not have, with its own folder" "only a warning about the counts"
b_orphan_domain() {
  local id dir; id=$(new_uuid); echo "$id" >>"$LAB_STATE/rogue-uuids"; echo "$id" | save id; dir=$INSTANCES/$id
  mkdir -p "$dir"; qemu-img create -q -f qcow2 -F raw -b "$(qemu-img info -U --output json "$(vda_file)" | jq -r '."full-backing-filename"')" "$dir/disk"
  virsh dumpxml --inactive "$u" | python3 -c '
import re, sys
new, old, dom = sys.argv[1:4]
x = sys.stdin.read().replace(old, new)
x = re.sub(r"<name>[^<]*</name>", "<name>%s</name>" % dom, x, count=1)
x = re.sub(r"<nova:name>[^<]*</nova:name>", "<nova:name>vm-orphan</nova:name>", x)
x = re.sub(r"<interface .*?</interface>", "", x, flags=re.S)
print(x)' "$id" "$u" instance-0000beef | save orphan.xml
  virsh -q define "$S/orphan.xml"; virsh -q start "$id"
}
c_orphan_domain() { [ "$(domstate "$(saved id)")" = running ]; }
f_orphan_domain() { local id; id=$(saved id); virsh -q destroy "$id"; virsh -q undefine "$id"; rm -rf "$INSTANCES/${id:?}"; }

fault vcpus-config vm-duo "virsh edit: the stored definition has 4 vCPUs, the live one and the flavor 2" "nothing; hard reboot writes the definition again"
b_vcpus_config() { # nova pins a CPU topology, so `virsh setvcpus --maximum` refuses: edit as `virsh edit` would
  save_definition
  sed -E "s#(<vcpu[^>]*>)2<#\\14<#; s#<topology sockets='2'#<topology sockets='4'#" "$S/inactive.xml" | save edited.xml; virsh -q define "$S/edited.xml"
}
c_vcpus_config() { [ "$(virsh vcpucount "$u" --maximum --config)" = 4 ]; }
f_vcpus_config() { virsh -q define "$S/inactive.xml"; }

fault memory-config vm-duo "virsh setmaxmem/setmem --config: stored definition 256 MiB, live and flavor 128" "nothing; hard reboot writes the definition again"
b_memory_config() { save_definition; virsh -q setmaxmem "$u" 256M --config; virsh -q setmem "$u" 256M --config; }
c_memory_config() { virsh dumpxml --inactive "$u" | grep -q "<memory unit='KiB'>262144<"; }
f_memory_config() { virsh -q define "$S/inactive.xml"; }

fault attach-unknown-disk vm-data "virsh attach-disk of a file that nova does not know" "nothing"
b_attach_unknown_disk() {
  qemu-img create -q -f qcow2 /var/lib/libvirt/images/lab-unknown.qcow2 32M; chown libvirt-qemu /var/lib/libvirt/images/lab-unknown.qcow2
  virsh -q attach-disk "$u" /var/lib/libvirt/images/lab-unknown.qcow2 vdz --driver qemu --subdriver qcow2 --live
}
c_attach_unknown_disk() { virsh domblklist "$u" | grep -q lab-unknown; }
f_attach_unknown_disk() { back_to_active; rm -f /var/lib/libvirt/images/lab-unknown.qcow2; }

fault domain-gone vm-tenant "virsh destroy and undefine of an ACTIVE instance: its disk and its row exist, but no domain" "a warning that it is not found; stays ACTIVE; hard reboot defines it again"
b_domain_gone() { save_definition; virsh -q destroy "$u"; virsh -q undefine "$u"; }
c_domain_gone() { ! virsh domstate "$u" >/dev/null 2>&1; }
f_domain_gone() { virsh -q define "$S/inactive.xml"; back_to_active; }

restart_edited() { # SED-SCRIPT: edits the definition as `virsh edit` would, and starts the guest with it
  save_definition
  sed -E "$1" "$S/inactive.xml" | save edited.xml
  virsh -q destroy "$u"; virsh -q define "$S/edited.xml"; virsh -q start "$u"
}
fault memory-live vm-snap "the guest runs with 96 MiB, its flavor has 64: definition edited and guest restarted behind nova's back" "nothing; hard reboot writes the definition again"
b_memory_live() { restart_edited "s#(<(memory|currentMemory) unit='KiB'>)65536<#\\198304<#"; }
c_memory_live() { running && virsh dumpxml "$u" | grep -q "<memory unit='KiB'>98304<"; }
f_memory_live() { back_to_active; }

fault vcpus-live vm-duo "the guest runs with 1 vCPU, its flavor has 2: definition edited and guest restarted behind nova's back" "nothing; hard reboot writes the definition again"
b_vcpus_live() { restart_edited "s#(<vcpu[^>]*>)2<#\\11<#; s#<topology sockets='2'#<topology sockets='1'#"; }
c_vcpus_live() { running && [ "$(virsh vcpucount "$u" --maximum --live)" = 1 ]; }
f_vcpus_live() { back_to_active; }

fault machine-config vm-duo "virsh edit: the stored definition has an older machine type than the running guest" "nothing; hard reboot writes the definition again"
b_machine_config() { save_definition; sed -E "s#machine='pc-i440fx-[0-9.]+'#machine='pc-i440fx-6.2'#" "$S/inactive.xml" | save edited.xml; virsh -q define "$S/edited.xml"; }
c_machine_config() { virsh dumpxml --inactive "$u" | grep -q "machine='pc-i440fx-6.2'"; }
f_machine_config() { virsh -q define "$S/inactive.xml"; }

fault console-exposed vm-snap "the guest's VNC console listens on every address, without a password: definition edited and guest restarted behind nova's back" "nothing; hard reboot writes the definition again"
b_console_exposed() { restart_edited "s#(listen|address)='127\\.0\\.0\\.1'#\\1='0.0.0.0'#g"; }
c_console_exposed() { running && virsh dumpxml "$u" | grep -q "listen='0.0.0.0'"; }
f_console_exposed() { back_to_active; }

fault renamed vm-tenant "the server was renamed: nova's metadata in the domain has the old name" "nothing; hard reboot writes the metadata again"
b_renamed() { osc server set --name vm-renamed "$u"; }
c_renamed() { [ "$(row "select display_name from nova.instances where uuid='$u'")" = vm-renamed ]; }
f_renamed() { osc server set --name "$I" "$u"; }

fault autostart vm-plain "virsh autostart: the domain would start with libvirtd, before nova decides" "nothing"
b_autostart() { virsh -q autostart "$u"; }
c_autostart() { virsh dominfo "$u" | grep -q '^Autostart: *enable'; }
f_autostart() { virsh -q autostart "$u" --disable; }

fault external-snapshot vm-snap "virsh snapshot-create-as --disk-only: the live top of the chain is not nova's disk" "nothing; a later hard reboot would silently return to the old disk"
b_external_snapshot() { virsh -q snapshot-create-as "$u" lab-ext --disk-only --no-metadata --diskspec "vda,file=$(idir)/disk.lab-ext"; }
c_external_snapshot() { [ "$(vda_file)" = "$(idir)/disk.lab-ext" ]; }
f_external_snapshot() { virsh -q blockcommit "$u" vda --shallow --active --pivot --wait >/dev/null; rm -f "$(idir)/disk.lab-ext"; }  # --shallow: else it commits into _base

fault internal-snapshot vm-duo "virsh snapshot-create-as: an internal qcow2 snapshot (with libvirt metadata) that nova does not know" "nothing; undefine of the domain fails later"
b_internal_snapshot() { virsh -q snapshot-create-as "$u" lab-int; }
c_internal_snapshot() { virsh snapshot-list "$u" --name | grep -qx lab-int; }
f_internal_snapshot() { virsh -q snapshot-delete "$u" lab-int >/dev/null; }

# Slow on purpose, so that it is still running when it is checked.
fault block-copy vm-snap "virsh blockcopy of the guest's disk that is never finished: writes go to two files" "nothing; a snapshot or volume operation by nova would end it"
b_block_copy() { virsh -q blockcopy "$u" vda --dest "$(idir)/disk.lab-copy" --format qcow2 --transient-job --bytes --bandwidth 65536; }
c_block_copy() { virsh blockjob "$u" vda --info 2>&1 | grep -q 'Block Copy'; }
f_block_copy() { virsh -q blockjob "$u" vda --abort; rm -f "$(idir)/disk.lab-copy"; }

fault shelved-defined vm-shelved "a switched-off domain, with nova's metadata, of a server that is shelved and offloaded" "nothing"
b_shelved_defined() {
  local other; other=$(uuid_of vm-plain) # of the same project
  virsh dumpxml --inactive "$other" | python3 -c '
import re, sys
new, old = sys.argv[1:3]
x = sys.stdin.read().replace(old, new)
x = re.sub(r"<name>[^<]*</name>", "<name>instance-%08x</name>" % int(sys.argv[3]), x, count=1)
x = re.sub(r"<nova:name>[^<]*</nova:name>", "<nova:name>vm-shelved</nova:name>", x)
x = re.sub(r"<interface .*?</interface>", "", x, flags=re.S)
print(x)' "$u" "$other" "$(row "select id from nova.instances where uuid='$u'")" | save shelved.xml
  virsh -q define "$S/shelved.xml"
}
c_shelved_defined() { virsh domstate "$u" >/dev/null 2>&1; }
f_shelved_defined() { virsh -q undefine "$u"; }

# ------------------------------------------------------------------ network
fault tap-renamed vm-plain "the guest's tap device is renamed" "nothing; OVS reports the port's device as missing"
b_tap_renamed() { local t; t=$(first_tap); echo "$t" | save tap; ip link set "$t" down; ip link set "$t" name "lab${t#tap}"; ip link set "lab${t#tap}" up; }
c_tap_renamed() { ip link show "lab$(saved tap | cut -c4-)" >/dev/null 2>&1; }
f_tap_renamed() { local t; t=$(saved tap); ! c_tap_renamed || { ip link set "lab${t#tap}" down; ip link set "lab${t#tap}" name "$t"; }; ip link set "$t" up; }

fault tap-deleted vm-data "ip link del of the guest's tap: qemu keeps a dead file descriptor" "nothing until a hard reboot"
b_tap_deleted() { local t; t=$(first_tap); echo "$t" | save tap; ip link del "$t"; }
c_tap_deleted() { ! ip link show "$(saved tap)" >/dev/null 2>&1; }
f_tap_deleted() { back_to_active; }

port_id() { row "select port_id from neutron.ml2_port_bindings where port_id in (select id from neutron.ports where device_id='$u') limit 1"; }
fault port-deleted vm-resized "openstack port delete of a port in use" "nova drops it from its cache and detaches the NIC (the guest never releases it)"
b_port_deleted() {
  port_id | save port; osc port show "$(saved port)" -f json | save port.json; osc port delete "$(saved port)"
}
c_port_deleted() { [ "$(row "select count(*) from neutron.ports where id='$(saved port)'")" = 0 ]; }
f_port_deleted() {
  thaw
  local p; p=$(osc port create --network "$(jq -r .network_id "$S/port.json")" --mac-address "$(jq -r .mac_address "$S/port.json")" \
    --fixed-ip "ip-address=$(jq -r '.fixed_ips[0].ip_address' "$S/port.json")" lab-replacement -f value -c id)
  osc server add port "$u" "$p"; back_to_active; echo "$p" | save port
}

fault port-disabled vm-snap "the neutron port is administratively down" "nothing in nova: status stays ACTIVE"
b_port_disabled() { port_id | save port; osc port set --disable "$(saved port)"; }
c_port_disabled() { [ "$(row "select admin_state_up from neutron.ports where id='$(saved port)'")" = 0 ]; }
f_port_disabled() { osc port set --enable "$(saved port)"; }

# ------------------------------------------------------------------ files
fault base-moved vm-snap "the base image in _base is renamed: running guests keep it open, but the chain can no longer be opened" "stop/start, resize, snapshot fail"
b_base_moved() { base_of | save base; mv "$(saved base)" "$(saved base).lab-moved"; }
c_base_moved() { ! qemu-img info -U --backing-chain "$(idir)/disk" >/dev/null 2>&1; }
f_base_moved() { # the advice gives the file both names
  local b; b=$(saved base)
  if [ "$b.lab-moved" -ef "$b" ]; then rm "$b.lab-moved"; else mv "$b.lab-moved" "$b"; fi
}

fault disk-closed vm-stopped "the disk of a stopped guest has mode 0: libvirt changes its owner to qemu at the start, but qemu may not open it" "a start fails: Permission denied"
b_disk_closed() { stat -c %a "$(idir)/disk" | save mode; chmod 0 "$(idir)/disk"; }
c_disk_closed() { [ "$(stat -c %a "$(idir)/disk")" = 0 ]; }
f_disk_closed() { chmod "$(saved mode)" "$(idir)/disk"; }

fault folder-closed vm-stopped "the guest's folder is accessible to nova only (mode 700): qemu cannot traverse it" "a start fails: Permission denied"
b_folder_closed() { stat -c %a "$(idir)" | save mode; chmod 700 "$(idir)"; }
c_folder_closed() { [ "$(stat -c %a "$(idir)")" = 700 ]; }
f_folder_closed() { chmod "$(saved mode)" "$(idir)"; }

fault console-log-huge vm-plain "the console log takes 128 MiB" "nothing"
b_console_log_huge() { stat -c %s "$(idir)/console.log" | save size; fallocate -l 128M "$(idir)/console.log"; }
c_console_log_huge() { [ "$(du -m "$(idir)/console.log" | cut -f1)" -ge 128 ]; }
f_console_log_huge() { truncate -s "$(saved size)" "$(idir)/console.log"; }

fault console-log-gone vm-duo "the console log of a running guest is removed: virtlogd keeps writing to the deleted file" "console log show fails"
b_console_log_gone() { mv "$(idir)/console.log" "$S/console.log"; }
c_console_log_gone() { [ ! -e "$(idir)/console.log" ]; }
f_console_log_gone() { mv "$S/console.log" "$(idir)/console.log"; }

fault disk-corrupt vm-stopped "zeroes over the L2/refcount area of the stopped disk: qemu-img check reports errors" "start works or fails with I/O errors"
b_disk_corrupt() { cp --sparse=always -a "$(idir)/disk" "$S/disk.copy"; dd if=/dev/zero of="$(idir)/disk" bs=65536 seek=2 count=1 conv=notrunc status=none; }
c_disk_corrupt() { ! qemu-img check -q "$(idir)/disk" >/dev/null 2>&1; }
f_disk_corrupt() { cp --sparse=always -a "$S/disk.copy" "$(idir)/disk"; rm "$S/disk.copy"; }

fault dir-missing vm-stopped "the instance folder of a stopped instance is gone" "start fails"
b_dir_missing() { mv "$(idir)" "$(idir).lab-away"; }
c_dir_missing() { [ ! -d "$(idir)" ]; }
f_dir_missing() { mv "$(idir).lab-away" "$(idir)"; }

fault disk-missing vm-stopped "the disk file of a stopped instance is gone, but its folder exists" "start fails"
b_disk_missing() { mv "$(idir)/disk" "$S/disk"; }
c_disk_missing() { [ ! -e "$(idir)/disk" ]; }
f_disk_missing() { mv "$S/disk" "$(idir)/disk"; }

# The guest boots from a new overlay on a full file system, mounted over the instance's folder: its
# first write needs a new cluster. The real disk stays untouched below the mount.
fault io-error vm-duo "the file system under the guest's disk is full when the guest writes: paused (I/O error)" "power_state becomes 3 (paused), vm_state stays active; the power sync ignores it"
b_io_error() {
  local size base
  size=$(qemu-img info -U --output json "$(idir)/disk" | jq '."virtual-size"') base=$(base_of)
  truncate -s 8M "$S/full.img"; mkfs.ext4 -q -F -m 0 -I 1024 -O ^has_journal "$S/full.img" # inodes with room for libvirt's attributes
  mkdir -p "$S/mnt"; mount -o loop "$S/full.img" "$S/mnt"
  cp -a "$(idir)/disk.info" "$S/mnt/"; : >"$S/mnt/console.log"; qemu-img create -q -f qcow2 -F raw -b "$base" "$S/mnt/disk" "$size"
  chown --reference="$(idir)" "$S/mnt"/*; chown --reference="$(idir)" "$S/mnt"; chmod --reference="$(idir)" "$S/mnt"
  dd if=/dev/zero of="$S/mnt/core.old" bs=4096 status=none 2>/dev/null || true # until it is full
  umount "$S/mnt"
  virsh -q destroy "$u"; mount -o loop "$S/full.img" "$(idir)"; virsh -q start "$u"
}
c_io_error() { [ "$(virsh domstate --reason "$u" | sed -n 1p)" = "paused (I/O error)" ]; }
f_io_error() {
  [ "$(domstate "$u")" = "shut off" ] || virsh -q destroy "$u"
  until_ok 10 umount "$(idir)" || umount -l "$(idir)"
  rm -f "$S/full.img"
  back_to_active
}

fault disk-info-wrong vm-stopped "disk.info says raw for a qcow2 disk" "a later hard reboot uses the wrong format: guest sees a qcow2 header"
b_disk_info_wrong() { cp -a "$(idir)/disk.info" "$S/"; sed 's/: "qcow2"/: "raw"/' "$S/disk.info" >"$(idir)/disk.info"; }
c_disk_info_wrong() { grep -q '"raw"' "$(idir)/disk.info"; }
f_disk_info_wrong() { cp -a "$S/disk.info" "$(idir)/disk.info"; }

fault leftover-dir - "an instance folder (disk, disk.info, console.log) whose UUID is not in the DB" "nothing"
b_leftover_dir() {
  local id dir; id=$(new_uuid); echo "$id" | save id; dir=$INSTANCES/$id; mkdir "$dir"
  qemu-img create -q -f qcow2 -F raw -b "$(find "$INSTANCES/_base" -regextype egrep -regex '.*/[0-9a-f]{40}' | sort | sed -n 1p)" "$dir/disk"
  echo "{\"$dir/disk\": \"qcow2\"}" >"$dir/disk.info"; : >"$dir/console.log"; chown -R nova:nova "$dir"
}
c_leftover_dir() { [ -d "$INSTANCES/$(saved id)" ]; }
f_leftover_dir() { local id; id=$(saved id); rm -rf "$INSTANCES/${id:?}"; }

fault base-unused - "a file in _base that no disk uses" "removed by the image cache manager after remove_unused_original_minimum_age_seconds (a day)"
b_base_unused() { local id; id=$(echo "$RANDOM$RANDOM" | sha1sum | cut -d' ' -f1); echo "$id" | save id; head -c 3000000 /dev/urandom >"$INSTANCES/_base/$id"; truncate -s 64M "$INSTANCES/_base/$id"; chown nova:nova "$INSTANCES/_base/$id"; }
c_base_unused() { [ -e "$INSTANCES/_base/$(saved id)" ]; }
f_base_unused() { rm -f "$INSTANCES/_base/$(saved id)"; }

fault disk-deleted vm-tenant "rm of the disk of a running guest: only qemu still has it open (a hard link keeps it for undoing)" "nothing until it stops; then it can't start again"
b_disk_deleted() { ln "$(idir)/disk" "$S/disk"; rm "$(idir)/disk"; }
c_disk_deleted() { running && [ ! -e "$(idir)/disk" ]; }
f_disk_deleted() { mv "$S/disk" "$(idir)/disk"; }

fault base-replaced vm-snap "a different file has the base image's name: the running guest has the old file open" "nothing; the next start reads a mixture of both"
b_base_replaced() {
  base_of | save base; mv "$(saved base)" "$(saved base).lab-kept"
  cp --sparse=always -a "$(saved base).lab-kept" "$(saved base)"; dd if=/dev/urandom of="$(saved base)" bs=4096 seek=99 count=1 conv=notrunc status=none
}
c_base_replaced() { [ -e "$(saved base).lab-kept" ] && ! cmp -s "$(saved base)" "$(saved base).lab-kept"; }
f_base_replaced() { mv "$(saved base).lab-kept" "$(saved base)"; }

rebase() { # BASE: writes another base's name into the header, even while qemu has the disk open
  qemu-img rebase -u -F raw -b "$1" --image-opts "driver=qcow2,file.driver=file,file.locking=off,file.filename=$(idir)/disk"
}
another_base() { find "$INSTANCES/_base" -regextype egrep -regex '.*/[0-9a-f]{40}' ! -path "$(saved base)" | sort | sed -n 1p; }
fault overlay-rebased vm-tenant "qemu-img rebase -u of a running guest's disk to another base: only the header changes" "nothing; the next start reads the wrong blocks"
b_overlay_rebased() { base_of | save base; rebase "$(another_base)"; }
c_overlay_rebased() { running && [ "$(base_of)" != "$(saved base)" ]; }
f_overlay_rebased() { rebase "$(saved base)"; }

fault backing-outside vm-stopped "the disk's header names a file outside of nova's folders as its base: /etc/hostname" "nothing; a start would expose that file to the guest"
b_backing_outside() { base_of | save base; rebase /etc/hostname; }
c_backing_outside() { [ "$(base_of)" = /etc/hostname ]; }
f_backing_outside() { rebase "$(saved base)"; }

fault disk-corrupt-bit vm-stopped "the qcow2 corrupt bit is set in the header of a stopped disk" "nothing; the guest can't write after a start"
mark_corrupt() { printf '%b' "$1" | dd of="$(idir)/disk" bs=1 seek=79 conv=notrunc status=none; } # the last byte of the incompatible features
b_disk_corrupt_bit() { mark_corrupt '\x02'; }
c_disk_corrupt_bit() { [ "$(qemu-img info -U --output json "$(idir)/disk" | jq '."format-specific".data.corrupt')" = true ]; }
f_disk_corrupt_bit() { mark_corrupt '\x00'; }

fault disk-grown vm-stopped "qemu-img resize by hand: the disk is 1 GiB larger than the flavor's" "nothing"
b_disk_grown() { cp --sparse=always -a "$(idir)/disk" "$S/disk.copy"; qemu-img resize -q -f qcow2 "$(idir)/disk" +1G; }
c_disk_grown() { [ "$(qemu-img info -U --output json "$(idir)/disk" | jq '."virtual-size"')" -gt 1073741824 ]; }
f_disk_grown() { cp --sparse=always -a "$S/disk.copy" "$(idir)/disk"; rm "$S/disk.copy"; }

fault resize-copy-gone vm-verify "the copy for reverting a resize (UUID_resize) is gone" "nothing; a revert fails"
b_resize_copy_gone() { mv "$(idir)_resize" "$S/copy"; }
c_resize_copy_gone() { [ ! -e "$(idir)_resize" ]; }
f_resize_copy_gone() { mv "$S/copy" "$(idir)_resize"; }

fault leftover-resize vm-resized "a UUID_resize folder left behind by a confirmed resize" "nothing"
b_leftover_resize() { mkdir "$(idir)_resize"; cp --sparse=always "$(idir)/disk.info" "$(idir)_resize/"; chown -R nova:nova "$(idir)_resize"; }
c_leftover_resize() { [ -d "$(idir)_resize" ]; }
f_leftover_resize() { rm -rf "$(idir)_resize"; }

fault definition-other-disk vm-duo "the stored definition of a running guest names another disk: its next start by hand would use that disk" "nothing; hard reboot writes the definition again"
b_definition_other_disk() { save_definition; sed "s#$(idir)/disk'#$(idir)/disk.old'#" "$S/inactive.xml" | save edited.xml; virsh -q define "$S/edited.xml"; }
c_definition_other_disk() { virsh dumpxml --inactive "$u" | grep -q "/disk.old'"; }
f_definition_other_disk() { virsh -q define "$S/inactive.xml"; }

fault definition-foreign-disk vm-stopped "the definition of a stopped guest names the disk of another server" "nothing; hard reboot and start write the definition again"
b_definition_foreign_disk() { save_definition; sed "s#$(idir)/disk'#$INSTANCES/$(uuid_of vm-plain)/disk'#" "$S/inactive.xml" | save edited.xml; virsh -q define "$S/edited.xml"; }
c_definition_foreign_disk() { virsh dumpxml --inactive "$u" | grep -q "$(uuid_of vm-plain)/disk'"; }
f_definition_foreign_disk() { virsh -q define "$S/inactive.xml"; }

fault saved-behind vm-config "virsh managedsave, as by libvirt-guests when the host shuts down: ACTIVE in nova (recorded with --freeze)" "the power sync sets it to stopped; its next start resumes from the saved memory"
b_saved_behind() { virsh -q managedsave "$u" >/dev/null; }
c_saved_behind() { virsh dominfo "$u" | grep -q '^Managed save: *yes'; }
f_saved_behind() { virsh -q start "$u"; until_ok 30 running; sleep 1; thaw; until_ok 60 idle_in active || back_to_active; }

fault instances-hidden - "an empty file system is mounted over the instances directory (recorded with --freeze)" "starts fail; new images are downloaded into the wrong place"
b_instances_hidden() { mount -t tmpfs -o size=1M,mode=755 lab-empty "$INSTANCES"; }
c_instances_hidden() { [ "$(stat -fc %T "$INSTANCES")" = tmpfs ]; }
f_instances_hidden() { umount "$INSTANCES"; }

# ------------------------------------------------------------------ nova's databases
fault db-soft-deleted vm-snap "the DB row is marked deleted while the domain runs" "reaps the domain at the next running_deleted_instance_poll_interval (30 min)!"
b_db_soft_deleted() { row "update nova.instances set deleted=id, deleted_at=utc_timestamp(), terminated_at=utc_timestamp(), vm_state='deleted', power_state=0 where uuid='$u'"; }
c_db_soft_deleted() { [ "$(row "select deleted<>0 from nova.instances where uuid='$u'")" = 1 ] && running; }
f_db_soft_deleted() { row "update nova.instances set deleted=0, deleted_at=NULL, terminated_at=NULL, vm_state='active', power_state=1 where uuid='$u'"; }

fault db-row-gone vm-tenant "the instances row is deleted, everything else stays" "API 404/500; the domain keeps running"
b_db_row_gone() { dump_rows nova instances "uuid='$u'" | save row.sql; row "set foreign_key_checks=0; delete from nova.instances where uuid='$u'"; }
c_db_row_gone() { [ "$(row "select count(*) from nova.instances where uuid='$u'")" = 0 ]; }
f_db_row_gone() { (echo "set foreign_key_checks=0;"; saved row.sql) | "${MYSQL[@]}" nova; }

fault db-power-state vm-config "power_state=4 (shut down) in the DB while it runs" "the power sync corrects it (10 min)"
b_db_power_state() { row "update nova.instances set power_state=4 where uuid='$u'"; }
c_db_power_state() { [ "$(row "select power_state from nova.instances where uuid='$u'")" = 4 ] && running; }
f_db_power_state() { row "update nova.instances set power_state=1 where uuid='$u'"; }

fault db-vm-state-stopped vm-config "vm_state=stopped in the DB while it runs" "the power sync (10 min) then really stops the guest!"
b_db_vm_state_stopped() { row "update nova.instances set vm_state='stopped', power_state=4 where uuid='$u'"; }
c_db_vm_state_stopped() { [ "$(vm_state)" = stopped ] && running; }
f_db_vm_state_stopped() { row "update nova.instances set vm_state='active', power_state=1 where uuid='$u'"; }

fault db-vm-state-error vm-data "vm_state=error while it runs" "nothing"
b_db_vm_state_error() { osc server set --state error "$u"; }
c_db_vm_state_error() { [ "$(vm_state)" = error ]; }
f_db_vm_state_error() { osc server set --state active "$u"; }

fault db-task-state vm-paused "a task_state (powering-off) without a worker, left over six hours ago" "nothing (the power sync skips it); a restart of nova-compute may act on it"
b_db_task_state() {
  row "select quote(updated_at) from nova.instances where uuid='$u'" | save updated_at
  row "update nova.instances set task_state='powering-off', updated_at=utc_timestamp()-interval 6 hour where uuid='$u'"
}
c_db_task_state() { [ "$(row "select ifnull(task_state,'') from nova.instances where uuid='$u'")" = powering-off ]; }
f_db_task_state() { row "update nova.instances set task_state=NULL, updated_at=$(saved updated_at) where uuid='$u'"; }

fault db-host vm-config "instances.host/node name a host that no longer exists" "this compute sees an unknown domain; API calls go to a dead queue"
b_db_host() { row "update nova.instances set host='vm-old', node='vm-old.example' where uuid='$u'"; }
c_db_host() { [ "$(row "select host from nova.instances where uuid='$u'")" = vm-old ]; }
f_db_host() { row "update nova.instances set host='$LAB_HOST', node='$(row "select hypervisor_hostname from nova.compute_nodes where deleted=0 and host='$LAB_HOST' limit 1")' where uuid='$u'"; }

fault db-flavor-drift vm-config "instances.memory_mb/vcpus differ from the domain (the embedded flavor does not)" "nothing"
b_db_flavor_drift() { row "update nova.instances set memory_mb=4096, vcpus=4 where uuid='$u'"; }
c_db_flavor_drift() { [ "$(row "select memory_mb from nova.instances where uuid='$u'")" = 4096 ]; }
f_db_flavor_drift() { row "update nova.instances set memory_mb=64, vcpus=1 where uuid='$u'"; }

fault flavor-remade vm-duo "the flavor with that name now has 256 MiB, the guest was created with 128" "nothing: an instance keeps its own copy"
b_flavor_remade() { row "update nova_api.flavors set memory_mb=256 where name='$(flavor_of)'"; }
flavor_of() { row "select json_value(flavor, '\$.cur.\"nova_object.data\".name') from nova.instance_extra where instance_uuid='$u'"; }
c_flavor_remade() { [ "$(row "select memory_mb from nova_api.flavors where name='$(flavor_of)'")" = 256 ]; }
f_flavor_remade() { row "update nova_api.flavors set memory_mb=128 where name='$(flavor_of)'"; }

fault db-info-cache vm-config "instance_info_caches.network_info is empty" "repaired within heal_instance_info_cache_interval (one or a few minutes); stays with --freeze"
b_db_info_cache() { dump_rows nova instance_info_caches "instance_uuid='$u'" | save row.sql; row "update nova.instance_info_caches set network_info='[]' where instance_uuid='$u'"; }
c_db_info_cache() { [ "$(row "select network_info from nova.instance_info_caches where instance_uuid='$u'")" = '[]' ]; }
f_db_info_cache() { "${MYSQL[@]}" nova <"$S/row.sql"; }

fault db-bdm-missing vm-data "the block_device_mapping row of the attached volume is soft-deleted: the domain has a disk that nova does not know" "a hard reboot would drop the disk"
b_db_bdm_missing() { row "select id from nova.block_device_mapping where instance_uuid='$u' and deleted=0 and volume_id is not null limit 1" | save id; row "update nova.block_device_mapping set deleted=id, deleted_at=utc_timestamp() where id=$(saved id)"; }
c_db_bdm_missing() { [ "$(row "select deleted<>0 from nova.block_device_mapping where id=$(saved id)")" = 1 ]; }
f_db_bdm_missing() { row "update nova.block_device_mapping set deleted=0, deleted_at=NULL where id=$(saved id)"; }

fault db-bdm-stale vm-plain "a block_device_mapping row for a volume that does not exist" "a hard reboot fails on it"
b_db_bdm_stale() {
  local v; v=$(new_uuid); echo "$v" | save vol
  row "insert into nova.block_device_mapping (created_at,deleted,uuid,instance_uuid,source_type,destination_type,device_type,boot_index,device_name,volume_id,volume_size,no_device,delete_on_termination,attachment_id,connection_info)
       values (utc_timestamp(),0,uuid(),'$u','volume','volume','disk',NULL,'/dev/vdf','$v',1,0,0,uuid(),'{\"driver_volume_type\": \"nfs\", \"serial\": \"$v\", \"data\": {\"export\": \"127.0.0.1:/srv/hoodlab-nfs\", \"name\": \"volume-$v\", \"format\": \"raw\"}}')"
}
c_db_bdm_stale() { [ "$(row "select count(*) from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0")" = 1 ]; }
f_db_bdm_stale() { row "delete from nova.block_device_mapping where volume_id='$(saved vol)'"; }

fault db-request-spec vm-bfv "nova_api.request_specs row is missing: migrate/evacuate/unshelve fail" "nothing"
b_db_request_spec() { dump_rows nova_api request_specs "instance_uuid='$u'" | save row.sql; row "delete from nova_api.request_specs where instance_uuid='$u'"; }
c_db_request_spec() { [ "$(row "select count(*) from nova_api.request_specs where instance_uuid='$u'")" = 0 ]; }
f_db_request_spec() { "${MYSQL[@]}" nova_api <"$S/row.sql"; }

fault db-migration-stuck vm-bfv "a migrations row that stays 'running' forever" "nothing"
b_db_migration_stuck() { row "insert into nova.migrations (created_at,updated_at,deleted,uuid,source_compute,dest_compute,source_node,dest_node,status,instance_uuid,migration_type,hidden,old_instance_type_id,new_instance_type_id)
  values (utc_timestamp()-interval 5 hour,utc_timestamp()-interval 5 hour,0,uuid(),'vm-old','$LAB_HOST','vm-old','$LAB_HOST','running','$u','live-migration',0,1,1)"; }
c_db_migration_stuck() { [ "$(row "select count(*) from nova.migrations where instance_uuid='$u' and status='running'")" = 1 ]; }
f_db_migration_stuck() { row "delete from nova.migrations where instance_uuid='$u' and status='running' and source_compute='vm-old'"; }

mapping() { row "select ifnull($1, 'NULL') from nova_api.instance_mappings where instance_uuid='$u'"; }
fault db-mapping-missing vm-data "the nova_api.instance_mappings row is gone: lists show the server, every command for it answers 404" "nothing"
b_db_mapping_missing() { dump_rows nova_api instance_mappings "instance_uuid='$u'" | save row.sql; row "delete from nova_api.instance_mappings where instance_uuid='$u'"; }
c_db_mapping_missing() { [ -z "$(mapping id)" ]; }
f_db_mapping_missing() { "${MYSQL[@]}" nova_api <"$S/row.sql"; }

fault db-mapping-no-cell vm-config "the server's mapping names no cell (cell_id NULL), as after an aborted build" "nothing; every command for it answers 404"
b_db_mapping_no_cell() { mapping cell_id | save cell; row "update nova_api.instance_mappings set cell_id=NULL where instance_uuid='$u'"; }
c_db_mapping_no_cell() { [ "$(mapping cell_id)" = NULL ]; }
f_db_mapping_no_cell() { row "update nova_api.instance_mappings set cell_id=$(saved cell) where instance_uuid='$u'"; }

fault db-mapping-queued vm-tenant "queued_for_delete is set in the mapping of a live server" "nothing; it does not count toward its owner's quota, and is missing from lists while its cell is down"
b_db_mapping_queued() { row "update nova_api.instance_mappings set queued_for_delete=1 where instance_uuid='$u'"; }
c_db_mapping_queued() { [ "$(mapping queued_for_delete)" = 1 ]; }
f_db_mapping_queued() { row "update nova_api.instance_mappings set queued_for_delete=0 where instance_uuid='$u'"; }

fault db-two-cells vm-snap "a second live row of the server in cell0's database, with the same host" "nothing; lists may show either row"
b_db_two_cells() {
  row "create temporary table nova_cell0.lab_copy as select * from nova.instances where uuid='$u';
       update nova_cell0.lab_copy set id = (select ifnull(max(id), 0) + 1 from nova_cell0.instances);
       insert into nova_cell0.instances select * from nova_cell0.lab_copy"
}
c_db_two_cells() { [ "$(row "select count(*) from nova_cell0.instances where uuid='$u' and deleted=0")" = 1 ]; }
f_db_two_cells() { row "delete from nova_cell0.instances where uuid='$u'"; }

fault db-vm-state-rescued vm-plain "vm_state=rescued in the DB of a server that runs from its own disk" "nothing; only unrescue is allowed, which fails"
b_db_vm_state_rescued() { row "update nova.instances set vm_state='rescued' where uuid='$u'"; }
c_db_vm_state_rescued() { [ "$(vm_state)" = rescued ]; }
f_db_vm_state_rescued() { row "update nova.instances set vm_state='active' where uuid='$u'"; }

# ------------------------------------------------------------------ placement
fault placement-lost vm-tenant "the instance's placement allocations are deleted" "nothing for a running instance"
b_placement_lost() { osc resource provider allocation delete "$u"; }
c_placement_lost() { [ "$(row "select count(*) from placement.allocations where consumer_id='$u'")" = 0 ]; }
f_placement_lost() { (cd /; HOME=/var/lib/nova setpriv --reuid nova --regid nova --init-groups nova-manage placement heal_allocations --instance "$u" >/dev/null) || [ "$(row "select count(*) from placement.allocations where consumer_id='$u'")" != 0 ]; }

rp_id() { row "select uuid from placement.resource_providers where name=(select hypervisor_hostname from nova.compute_nodes where deleted=0 and host='$LAB_HOST' limit 1)"; }
alloc_set() { # CONSUMER MEMORY: through the API
  osc --os-placement-api-version 1.28 resource provider allocation set --allocation "rp=$(rp_id),VCPU=1,MEMORY_MB=$2,DISK_GB=1" \
    --project-id "$(row "select id from keystone.project where name='admin' and domain_id='default'")" --user-id "$(row "select user_id from keystone.local_user where name='admin'")" "$1" -f value >/dev/null
}
fault placement-orphan - "an allocation whose consumer is not an instance" "nothing (placement audit finds it)"
b_placement_orphan() { new_uuid | save id; alloc_set "$(saved id)" 512; }
c_placement_orphan() { [ "$(row "select count(*) from placement.allocations where consumer_id='$(saved id)'")" = 3 ]; }
f_placement_orphan() { osc resource provider allocation delete "$(saved id)"; }

# ------------------------------------------------------------------ cinder, glance
vol_of() { row "select volume_id from nova.block_device_mapping where instance_uuid='$u' and deleted=0 and volume_id is not null limit 1"; }
fault volume-file-gone vm-bfv "the volume's file on the share is renamed under the running guest" "nothing until the next start"
b_volume_file_gone() { vol_of | save vol; mv "/srv/hoodlab-nfs/volume-$(saved vol)" "/srv/hoodlab-nfs/lab-away"; }
c_volume_file_gone() { [ ! -e "/srv/hoodlab-nfs/volume-$(saved vol)" ]; }
f_volume_file_gone() { mv /srv/hoodlab-nfs/lab-away "/srv/hoodlab-nfs/volume-$(saved vol)"; }

attachment_of() { row "select id from cinder.volume_attachment where volume_id='$(saved vol)' and deleted=0 limit 1"; }
fault attachment-deleted vm-data "cinder's attachment of the volume is gone and the volume is available, while the guest uses it" "a reboot through nova 28.0.0 or later would destroy the volume's row"
b_attachment_deleted() {
  vol_of | save vol; attachment_of | save id
  row "update cinder.volume_attachment set deleted=1, deleted_at=utc_timestamp(), attach_status='detached' where id='$(saved id)'; update cinder.volumes set status='available', attach_status='detached' where id='$(saved vol)'"
}
c_attachment_deleted() { [ "$(row "select deleted from cinder.volume_attachment where id='$(saved id)'")" = 1 ]; }
f_attachment_deleted() { row "update cinder.volume_attachment set deleted=0, deleted_at=NULL, attach_status='attached' where id='$(saved id)'; update cinder.volumes set status='in-use', attach_status='attached' where id='$(saved vol)'"; }

fault volume-reset vm-data "the volume's status is reset to available while the guest uses it" "nothing; cinder would allow its deletion"
b_volume_reset() { vol_of | save vol; osc volume set --state available "$(saved vol)"; }
c_volume_reset() { [ "$(row "select status from cinder.volumes where id='$(saved vol)'")" = available ]; }
f_volume_reset() { osc volume set --state in-use "$(saved vol)"; }

fault attachment-host vm-data "cinder's attachment names a host other than the guest's" "nothing"
b_attachment_host() { vol_of | save vol; attachment_of | save id; row "update cinder.volume_attachment set attached_host='vm-old' where id='$(saved id)'"; }
c_attachment_host() { [ "$(row "select attached_host from cinder.volume_attachment where id='$(saved id)'")" = vm-old ]; }
f_attachment_host() { row "update cinder.volume_attachment set attached_host='$LAB_HOST' where id='$(saved id)'"; }

fault attachment-twice vm-data "cinder has a second attachment of the volume, to another server" "nothing"
b_attachment_twice() {
  vol_of | save vol; new_uuid | save id
  row "insert into cinder.volume_attachment (created_at,updated_at,deleted,id,volume_id,attached_host,instance_uuid,mountpoint,attach_time,attach_mode,attach_status)
       values (utc_timestamp(),utc_timestamp(),0,'$(saved id)','$(saved vol)','$LAB_HOST','$(uuid_of vm-plain)','/dev/vdf',utc_timestamp(),'rw','attached')"
}
c_attachment_twice() { [ "$(row "select count(*) from cinder.volume_attachment where volume_id='$(saved vol)' and deleted=0")" = 2 ]; }
f_attachment_twice() { row "delete from cinder.volume_attachment where id='$(saved id)'"; }

fault db-bdm-twice vm-data "block_device_mapping has two rows for the attached volume" "a hard reboot would attach it twice"
bdm_columns() { row "select group_concat(column_name) from information_schema.columns where table_schema='nova' and table_name='block_device_mapping' and column_name not in ('id','uuid')"; }
b_db_bdm_twice() {
  vol_of | save vol
  row "insert into nova.block_device_mapping ($(bdm_columns),uuid) select $(bdm_columns),uuid() from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0 and instance_uuid='$u'"
  row "select max(id) from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0" | save id
}
c_db_bdm_twice() { [ "$(row "select count(*) from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0")" = 2 ]; }
f_db_bdm_twice() { row "delete from nova.block_device_mapping where id=$(saved id)"; }

fault image-deleted vm-snap "the image the instance was made from is deleted in glance" "rebuild, rescue and cold start without a cached base fail"
b_image_deleted() { row "select image_ref from nova.instances where uuid='$u'" | save img; ln "/var/lib/glance/images/$(saved img)" "$S/image"; osc image delete "$(saved img)"; }
c_image_deleted() { [ "$(row "select status from glance.images where id='$(saved img)'")" = deleted ]; }
f_image_deleted() {
  mv "$S/image" "/var/lib/glance/images/$(saved img)"; local i; i=$(saved img)
  row "update glance.images set status='active', deleted=0, deleted_at=NULL where id='$i'; update glance.image_locations set status='active', deleted=0, deleted_at=NULL where image_id='$i'; update glance.image_properties set deleted=0, deleted_at=NULL where image_id='$i'"
}

# ------------------------------------------------------------------ services
fault compute-down - "nova-compute is stopped: the service goes down after service_down_time (60 s)" "the API still reports ACTIVE for its instances"
b_compute_down() { stop nova-compute; }
c_compute_down() { ! alive nova-compute; }
f_compute_down() { start_again nova-compute; }

fault compute-frozen - "nova-compute is SIGSTOPped: connected, but not working" "as compute-down"
b_compute_frozen() { kill -STOP "$(pid_of nova-compute)"; }
c_compute_frozen() { grep -q '^State:.*T' "/proc/$(pid_of nova-compute)/status"; }
f_compute_frozen() { kill -CONT "$(pid_of nova-compute)"; }

fault compute-disabled - "the compute service is administratively disabled" "the scheduler avoids the host"
b_compute_disabled() { osc compute service set --disable --disable-reason "lab fault" "$LAB_HOST" nova-compute; }
c_compute_disabled() { [ "$(row "select disabled from nova.services where \`binary\`='nova-compute' and deleted=0 limit 1")" = 1 ]; }
f_compute_disabled() { osc compute service set --enable "$LAB_HOST" nova-compute; }

fault conductor-down - "nova-conductor is stopped" "API calls that change something time out"
b_conductor_down() { stop nova-conductor; }
c_conductor_down() { ! alive nova-conductor; }
f_conductor_down() { start_again nova-conductor; }

fault ovs-agent-down - "neutron-openvswitch-agent is stopped" "new ports do not get wired"
b_ovs_agent_down() { stop neutron-openvswitch-agent; }
c_ovs_agent_down() { ! alive neutron-openvswitch-agent; }
f_ovs_agent_down() { start_again neutron-openvswitch-agent; }

fault dhcp-agent-down - "neutron-dhcp-agent is stopped (recorded before neutron notices)" "guests that start or renew their address get none; neutron reports the agent as alive for 75 s"
b_dhcp_agent_down() { stop neutron-dhcp-agent; }
c_dhcp_agent_down() { ! alive neutron-dhcp-agent; }
f_dhcp_agent_down() { start_again neutron-dhcp-agent; }

fault placement-down - "placement-api is stopped" "boots, resizes and inventory updates fail"
b_placement_down() { stop placement-api; }
c_placement_down() { ! alive placement-api; }
f_placement_down() { start_again placement-api; wait_port placement-api 8778; }

fault libvirt-lost - "nova loses libvirt (the lab's libvirtd, or the relay to another one, is stopped)" "the compute service is disabled automatically, and enabled again when libvirt is back"
lv() { if alive libvirtd; then echo libvirtd; else echo libvirt-relay; fi; }
b_libvirt_lost() { lv | save which; stop "$(saved which)"; }
c_libvirt_lost() { ! alive "$(saved which)"; }
f_libvirt_lost() { start_again "$(saved which)"; thaw; nova_has_libvirt; }

fault api-down - "nova-api is stopped" "no API request works; guests keep running"
b_api_down() { stop nova-api; }
c_api_down() { ! alive nova-api; }
f_api_down() { start_again nova-api; wait_port nova-api 8774; }

fault db-down - "MariaDB is stopped" "API calls fail; nova-compute cannot save states; all services reconnect later"
b_db_down() { stop mariadb; }
c_db_down() { ! alive mariadb; }
f_db_down() { start_again mariadb; wait_port mariadb 3306; }
