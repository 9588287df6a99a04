# Faults: libvirt. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

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
c_undefine_running() { virsh dominfo "$u" | has '^Persistent: *no'; }
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

fault alien-domain-disk vm-resized "somebody defined a domain by hand, which is off, with the disk of a server that runs" "nothing; a start of the domain fails as long as QEMU locks the disk, and makes a second writer when the server is off"
b_alien_domain_disk() {
  new_uuid | save id
  printf '<domain type="qemu"><name>resized-repair</name><uuid>%s</uuid><memory unit="MiB">64</memory><vcpu>1</vcpu><os><type machine="pc">hvm</type></os><devices><disk type="file" device="disk"><driver name="qemu" type="qcow2"/><source file="%s/disk"/><target dev="vda" bus="virtio"/></disk></devices></domain>' "$(saved id)" "$(idir)" | save alien.xml
  virsh -q define "$S/alien.xml"
}
c_alien_domain_disk() { virsh domstate "$(saved id)" >/dev/null 2>&1; }
f_alien_domain_disk() { virsh -q undefine "$(saved id)"; }

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
c_memory_config() { virsh dumpxml --inactive "$u" | has "<memory unit='KiB'>262144<"; }
f_memory_config() { virsh -q define "$S/inactive.xml"; }

fault attach-unknown-disk vm-data "virsh attach-disk of a file that nova does not know" "nothing"
b_attach_unknown_disk() {
  qemu-img create -q -f qcow2 /var/lib/libvirt/images/lab-unknown.qcow2 32M; chown libvirt-qemu /var/lib/libvirt/images/lab-unknown.qcow2
  virsh -q attach-disk "$u" /var/lib/libvirt/images/lab-unknown.qcow2 vdz --driver qemu --subdriver qcow2 --live
}
c_attach_unknown_disk() { virsh domblklist "$u" | has lab-unknown; }
f_attach_unknown_disk() { back_to_active; rm -f /var/lib/libvirt/images/lab-unknown.qcow2; }

fault disk-borrowed vm-plain "virsh attach-disk: the disk of the stopped vm-stopped is plugged into another, running guest" "nothing; a start of its owner fails on the image lock, or makes a second writer"
borrowed() { echo "$INSTANCES/$(uuid_of vm-stopped)/disk"; }
b_disk_borrowed() { virsh -q attach-disk "$u" "$(borrowed)" vdz --driver qemu --subdriver qcow2 --live; }
c_disk_borrowed() { virsh domblklist "$u" | has -F "$(borrowed)"; }
f_disk_borrowed() { virsh -q detach-disk "$u" vdz --live || true; sleep 3; ! c_disk_borrowed || back_to_active; chown nova:nova "$(borrowed)"; }

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
c_memory_live() { running && virsh dumpxml "$u" | has "<memory unit='KiB'>98304<"; }
f_memory_live() { back_to_active; }

fault vcpus-live vm-duo "the guest runs with 1 vCPU, its flavor has 2: definition edited and guest restarted behind nova's back" "nothing; hard reboot writes the definition again"
b_vcpus_live() { restart_edited "s#(<vcpu[^>]*>)2<#\\11<#; s#<topology sockets='2'#<topology sockets='1'#"; }
c_vcpus_live() { running && [ "$(virsh vcpucount "$u" --maximum --live)" = 1 ]; }
f_vcpus_live() { back_to_active; }

fault machine-config vm-duo "virsh edit: the stored definition has an older machine type than the running guest" "nothing; hard reboot writes the definition again"
b_machine_config() { save_definition; sed -E "s#machine='pc-i440fx-[0-9.]+'#machine='pc-i440fx-6.2'#" "$S/inactive.xml" | save edited.xml; virsh -q define "$S/edited.xml"; }
c_machine_config() { virsh dumpxml --inactive "$u" | has "machine='pc-i440fx-6.2'"; }
f_machine_config() { virsh -q define "$S/inactive.xml"; }

fault console-exposed vm-snap "the guest's VNC console listens on every address, without a password: definition edited and guest restarted behind nova's back" "nothing; hard reboot writes the definition again"
b_console_exposed() { restart_edited "s#(listen|address)='127\\.0\\.0\\.1'#\\1='0.0.0.0'#g"; }
c_console_exposed() { running && virsh dumpxml "$u" | has "listen='0.0.0.0'"; }
f_console_exposed() { back_to_active; }

fault renamed vm-tenant "the server was renamed: nova's metadata in the domain has the old name" "nothing; hard reboot writes the metadata again"
b_renamed() { osc server set --name vm-renamed "$u"; }
c_renamed() { [ "$(row "select display_name from nova.instances where uuid='$u'")" = vm-renamed ]; }
f_renamed() { osc server set --name "$I" "$u"; }

fault autostart vm-plain "virsh autostart: the domain would start with libvirtd, before nova decides" "nothing"
b_autostart() { virsh -q autostart "$u"; }
c_autostart() { virsh dominfo "$u" | has '^Autostart: *enable'; }
f_autostart() { virsh -q autostart "$u" --disable; }

fault external-snapshot vm-snap "virsh snapshot-create-as --disk-only: the live top of the chain is not nova's disk" "nothing; a later hard reboot would silently return to the old disk"
b_external_snapshot() { virsh -q snapshot-create-as "$u" lab-ext --disk-only --no-metadata --diskspec "vda,file=$(idir)/disk.lab-ext"; }
c_external_snapshot() { [ "$(vda_file)" = "$(idir)/disk.lab-ext" ]; }
f_external_snapshot() { virsh -q blockcommit "$u" vda --shallow --active --pivot --wait >/dev/null; rm -f "$(idir)/disk.lab-ext"; }  # --shallow: else it commits into _base

fault internal-snapshot vm-duo "virsh snapshot-create-as: an internal qcow2 snapshot (with libvirt metadata) that nova does not know" "nothing; undefine of the domain fails later"
b_internal_snapshot() { virsh -q snapshot-create-as "$u" lab-int; }
c_internal_snapshot() { virsh snapshot-list "$u" --name | has -x lab-int; }
f_internal_snapshot() { virsh -q snapshot-delete "$u" lab-int >/dev/null; }

# Slow on purpose, so that it is still running when it is checked.
fault block-copy vm-snap "virsh blockcopy of the guest's disk that is never finished: writes go to two files" "nothing; a snapshot or volume operation by nova would end it"
b_block_copy() { virsh -q blockcopy "$u" vda --dest "$(idir)/disk.lab-copy" --format qcow2 --transient-job --bytes --bandwidth 65536; }
c_block_copy() { virsh blockjob "$u" vda --info 2>&1 | has 'Block Copy'; }
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

fault backup-forgotten vm-snap "virsh backup-begin in pull mode, whose program died: QEMU serves the disk on a port, and a file grows" "nothing; a reboot ends it"
b_backup_forgotten() {
  printf '<domainbackup mode="pull"><server transport="tcp" name="127.0.0.1" port="10809"/></domainbackup>\n' > "$S/backup.xml"
  virsh -q backup-begin "$u" "$S/backup.xml" >/dev/null
}
c_backup_forgotten() { virsh backup-dumpxml "$u" >/dev/null 2>&1; }
f_backup_forgotten() { virsh -q domjobabort "$u"; }

fault machine-unsupported vm-duo "nova's record has a machine type that this QEMU does not have, as after a move from a newer host" "nothing; the next start fails"
b_machine_unsupported() { row "select value from nova.instance_system_metadata where instance_uuid='$u' and \`key\`='image_hw_machine_type' and deleted=0" | save type; row "update nova.instance_system_metadata set value='pc-i440fx-99.0' where instance_uuid='$u' and \`key\`='image_hw_machine_type'"; }
c_machine_unsupported() { [ "$(row "select value from nova.instance_system_metadata where instance_uuid='$u' and \`key\`='image_hw_machine_type' and deleted=0")" = pc-i440fx-99.0 ]; }
f_machine_unsupported() { row "update nova.instance_system_metadata set value='$(saved type)' where instance_uuid='$u' and \`key\`='image_hw_machine_type'"; }
