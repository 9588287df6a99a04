# Faults: processes. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

fault qemu-kill9 vm-plain "kill -9 of the guest's qemu" "lifecycle event: SHUTOFF within seconds; DB stays ACTIVE if nova-compute is frozen (--freeze)"
b_qemu_kill9() { kill -9 "$(qpid)"; }
c_qemu_kill9() { ! running && no_process "$(qpid)"; }
f_qemu_kill9() { sleep 3; back_to_active; }

fault qemu-stopped vm-tenant "kill -STOP of qemu: process in state T, monitor does not answer (a collector needs timeouts)" "nothing; libvirt still reports running"
b_qemu_stopped() { kill -STOP "$(qpid)"; }
c_qemu_stopped() { grep -q '^State:.*T' "/proc/$(qpid)/status"; }
f_qemu_stopped() { kill -CONT "$(qpid)"; }

fault qemu-traced vm-tenant "a debugger that nobody ended holds the guest's qemu: process in state t, kill -CONT has no effect" "nothing; libvirt still reports running"
b_qemu_traced() { start fault-qemu-traced root /usr/bin/python3 "$LAB_DIR/trace.py" "$(qpid)"; sleep 1; }
c_qemu_traced() { grep -q '^State:.*t' "/proc/$(qpid)/status"; }
f_qemu_traced() { kill_now fault-qemu-traced; rm -f "$RUN"/fault-qemu-traced.*; }

fault qemu-dumping-core vm-snap "the guest's qemu crashed, and its core dump, which a program reads slowly, is not written yet" "nothing until the dump is written; then it stops the server"
b_qemu_dumping_core() {
  qpid | save pid
  save pattern </proc/sys/kernel/core_pattern
  echo '|/bin/sleep 613' >/proc/sys/kernel/core_pattern
  kill -SEGV "$(saved pid)"
  sleep 1
}
c_qemu_dumping_core() { grep -q '^CoreDumping:.*1' "/proc/$(saved pid)/status"; }
f_qemu_dumping_core() {
  cat "$S/pattern" >/proc/sys/kernel/core_pattern
  ! [ -e "/proc/$(saved pid)" ] || kill -KILL "$(saved pid)"
  pgrep -xf '/bin/sleep 613' | xargs -r kill # it outlives the dump that it was to read
  sleep 3
  back_to_active
}

files_of() { find "/proc/$1/fd" -mindepth 1 | wc -l; }
files_limit_of() { awk '/^Max open files/ { print $4 }' "/proc/$1/limits"; }
limit_files() { # PID FILES: as the account of the process, because root in a container may not
  setpriv --reuid "$(stat -c %u "/proc/$1")" --regid "$(stat -c %g "/proc/$1")" --clear-groups prlimit --pid "$1" "--nofile=$2:"
}
leave_few_files() { # PID: leave room for a few more open files, of which a client of libvirtd needs one
  files_limit_of "$1" | save files
  limit_files "$1" $(($(files_of "$1") * 104 / 100 + 1))
}
few_files_left() { [ $(($(files_of "$1") * 10)) -ge $(($(files_limit_of "$1") * 9)) ]; }
fault files-limit vm-plain "the limit of open files of the guest's qemu is just above what it has open (prlimit)" "nothing; attaching a device fails"
b_files_limit() { leave_few_files "$(qpid)"; }
c_files_limit() { running && few_files_left "$(qpid)"; }
f_files_limit() { limit_files "$(qpid)" "$(saved files)"; }

fault daemon-files-limit - "the limit of open files of libvirtd is just above what it has open (prlimit)" "nothing until more clients connect"
b_daemon_files_limit() { leave_few_files "$(pgrep -o -x libvirtd)"; }
c_daemon_files_limit() { few_files_left "$(pgrep -o -x libvirtd)"; }
f_daemon_files_limit() { limit_files "$(pgrep -o -x libvirtd)" "$(saved files)"; }

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

group_files() { # NAME...: these files of the guest's own control group, of version 1 and 2
  local f
  for f in "$@"; do find /sys/fs/cgroup -maxdepth 6 -path "*${d//-/*}*" -name "$f" -not -path '*/vcpu*' -not -path '*/emulator*' -not -path '*/iothread*'; done | sed -n 1p
}
fault memory-held-back vm-snap "a soft limit of 64 MiB of memory is written into the guest's control group; libvirt does not know" "nothing; the next start makes a new group"
b_memory_held_back() { group_files memory.high memory.soft_limit_in_bytes | save file; echo $((64 << 20)) >"$(saved file)"; }
c_memory_held_back() { [ "$(cat "$(saved file)")" = $((64 << 20)) ]; }
f_memory_held_back() { case $(saved file) in *.high) echo max ;; *) echo -1 ;; esac >"$(saved file)"; }

fault memory-limited vm-duo "a limit of 1 GiB of memory is written into the guest's control group; libvirt does not know" "nothing; the next start makes a new group"
b_memory_limited() { group_files memory.max memory.limit_in_bytes | save file; echo $((1 << 30)) >"$(saved file)"; }
c_memory_limited() { [ "$(cat "$(saved file)")" = $((1 << 30)) ]; }
f_memory_limited() { case $(saved file) in *.max) echo max ;; *) echo -1 ;; esac >"$(saved file)"; }

groups_of() { grep -F machine "/proc/$(qpid)/cgroup"; } # that libvirt made
fault qemu-moved-out vm-resized "the guest's qemu was moved out of the control groups that libvirt made for it" "nothing; libvirt's limits do not apply to it until its next start"
b_qemu_moved_out() {
  local line names
  groups_of | save groups
  while IFS= read -r line; do
    names=${line#*:} names=${names%%:*}
    echo "$(qpid)" >"/sys/fs/cgroup/${names:-unified}/cgroup.procs" 2>/dev/null || echo "$(qpid)" >/sys/fs/cgroup/cgroup.procs 2>/dev/null || true
  done <"$S/groups"
}
c_qemu_moved_out() { running && [ "$(groups_of | grep -c .)" -lt "$(grep -c . "$S/groups")" ]; }
f_qemu_moved_out() { back_to_active; }

fault disk-access-limited vm-data "a limit of 1 MiB/s for writing to the host's disk is written into the guest's control group" "nothing; the next start makes a new group"
b_disk_access_limited() {
  lsblk -dno MAJ:MIN,TYPE | awk '$2 == "disk" && $1 !~ /^253:/ && !n++ { print $1 }' | save disk
  group_files io.max blkio.throttle.write_bps_device | save file
  case $(saved file) in *io.max) echo "$(saved disk) wbps=1048576" ;; *) echo "$(saved disk) 1048576" ;; esac >"$(saved file)"
}
c_disk_access_limited() { grep -q 1048576 "$(saved file)"; }
f_disk_access_limited() { case $(saved file) in *io.max) echo "$(saved disk) wbps=max" ;; *) echo "$(saved disk) 0" ;; esac >"$(saved file)"; }

fault disk-weight-by-hand vm-config "the weight of the guest's access to disks in its control group is 10" "nothing; the next start makes a new group"
b_disk_weight_by_hand() { group_files io.bfq.weight io.weight blkio.bfq.weight blkio.weight | save file; awk '{ print $NF; exit }' "$(saved file)" | save weight; echo 10 >"$(saved file)"; }
c_disk_weight_by_hand() { grep -qw 10 "$(saved file)" || virsh dumpxml "$u" | grep -q '<blkiotune>'; }
f_disk_weight_by_hand() { # virsh, as advised, leaves the weight in the running definition
  if virsh dumpxml "$u" | grep -q '<blkiotune>'; then back_to_active; else cat "$S/weight" >"$(saved file)"; fi
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
c_qemu_without_domain() { [ "$(domstate "$u")" = "shut off" ] && guest_pids "$u" | has -x "$(saved pid)"; }
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

qemu_of() { cat "/run/libvirt/qemu/$d.pid"; }
fault threads-pinned vm-config "taskset: all threads of the guest's QEMU may run on CPU 1 only" "nothing"
b_threads_pinned() { taskset -pc "$(qemu_of)" | sed 's/.*: //' | save cpus; taskset -apc 1 "$(qemu_of)" >/dev/null; }
c_threads_pinned() { [ "$(taskset -pc "$(qemu_of)" | sed 's/.*: //')" = 1 ]; }
f_threads_pinned() { taskset -apc "$(saved cpus)" "$(qemu_of)" >/dev/null; }

fault group-frozen vm-linux "the guest's control group is frozen, as by a program for backups that died" "nothing; the guest stands still while libvirt reports it as running"
freezer() { echo "/sys/fs/cgroup/freezer$(awk -F: '$2 == "freezer" { print $3 }' "/proc/$(qpid)/cgroup")"; }
b_group_frozen() { freezer | save group; echo FROZEN > "$(saved group)/freezer.state"; }
c_group_frozen() { [ "$(cat "$(saved group)/freezer.state")" != THAWED ]; }
f_group_frozen() { echo THAWED > "$(saved group)/freezer.state"; }

fault aio-used-up - "fs.aio-max-nr is below what the host's programs have reserved" "nothing; the next start of a guest with io='native' disks fails"
b_aio_used_up() { save most </proc/sys/fs/aio-max-nr; echo $(($(cat /proc/sys/fs/aio-nr) - 1)) >/proc/sys/fs/aio-max-nr; }
c_aio_used_up() { [ "$(cat /proc/sys/fs/aio-max-nr)" -lt "$(cat /proc/sys/fs/aio-nr)" ]; }
f_aio_used_up() { saved most >/proc/sys/fs/aio-max-nr; }
