# Faults: what a domain is made of, and what libvirt keeps beside it. Sourced by faults.sh, which
# defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

redefine() { save_definition; sed -E "$1" "$S/inactive.xml" | save edited.xml; virsh -q define "$S/edited.xml"; } # SED
defined_as() { virsh dumpxml --inactive "$u" | has -E "$1"; }

fault domain-renamed vm-stopped "virsh domrename: the domain has another name than nova gave it" "nothing; the next start defines it under its old name"
b_domain_renamed() { save_definition; virsh -q domrename "$d" "$d-old"; }
c_domain_renamed() { [ "$(virsh domname "$u")" = "$d-old" ]; }
f_domain_renamed() { virsh -q domrename "$d-old" "$d"; }

fault checkpoint-left vm-duo "virsh checkpoint-create-as: a backup tool's checkpoint, with which libvirt refuses to undefine the domain" "nothing; deleting the server then destroys the guest and ends in error"
b_checkpoint_left() { virsh -q checkpoint-create-as "$u" backup-monday >/dev/null; }
c_checkpoint_left() { virsh checkpoint-list "$u" --name | has -x backup-monday; }
f_checkpoint_left() { virsh -q checkpoint-delete "$u" backup-monday >/dev/null; }

fault saved-memory-lost vm-suspended "the file with a suspended guest's memory was moved away; libvirt still reports a managed save" "nothing; the resume boots the guest from its disk"
save_file() { echo "/var/lib/libvirt/qemu/save/$d.save"; }
b_saved_memory_lost() { mv "$(save_file)" "$S/memory"; }
c_saved_memory_lost() { [ ! -e "$(save_file)" ]; }
f_saved_memory_lost() { mv "$S/memory" "$(save_file)"; }

cut_save() { cp -a "$(save_file)" "$S/memory"; truncate -s "$1" "$(save_file)"; } # BYTES
restore_save() { cp -a "$S/memory" "$(save_file)"; rm "$S/memory"; }
fault save-emptied vm-suspended "the file with a suspended guest's memory was truncated to 0 bytes" "nothing; at the resume libvirt removes it and boots the guest from its disk"
b_save_emptied() { cut_save 0; }
c_save_emptied() { [ ! -s "$(save_file)" ]; }
f_save_emptied() { restore_save; }

fault save-cut vm-suspended "the file with a suspended guest's memory ends in the definition at its beginning" "nothing; the resume fails"
b_save_cut() { cut_save 4096; }
c_save_cut() { [ "$(stat -c %s "$(save_file)")" = 4096 ]; }
f_save_cut() { restore_save; }

fault save-memory-cut vm-suspended "the file with a suspended guest's memory has only the beginning of the memory" "nothing; the resume fails"
b_save_memory_cut() { cut_save 102400; }
c_save_memory_cut() { [ "$(stat -c %s "$(save_file)")" = 102400 ]; }
f_save_memory_cut() { restore_save; }

fault save-overwritten vm-suspended "the file with a suspended guest's memory begins with zeros" "nothing; the resume fails"
b_save_overwritten() { cp -a "$(save_file)" "$S/memory"; dd if=/dev/zero of="$(save_file)" bs=4096 count=1 conv=notrunc status=none; }
c_save_overwritten() { [ "$(head -c 7 "$(save_file)" | tr -d '\0')" = '' ]; }
f_save_overwritten() { restore_save; }

fault disk-throttled vm-snap "virsh blkdeviotune --live: the running guest's disk is limited to 100 requests a second, which nobody sold" "nothing; the next start has no limit"
b_disk_throttled() { virsh -q blkdeviotune "$u" vda --total-iops-sec 100 --live >/dev/null; }
c_disk_throttled() { virsh dumpxml "$u" | has '<total_iops_sec>100<'; }
f_disk_throttled() { virsh -q blkdeviotune "$u" vda --total-iops-sec 0 --live >/dev/null; }

fault cpu-throttled-config vm-config "virsh schedinfo --config: the next start would have 20 % of a CPU" "nothing; hard reboot writes the definition again"
b_cpu_throttled_config() { save_definition; virsh -q schedinfo "$u" --config vcpu_quota=20000 >/dev/null; }
c_cpu_throttled_config() { defined_as '<quota>20000<'; }
f_cpu_throttled_config() { virsh -q define "$S/inactive.xml"; }

fault settings-config vm-plain "virsh edit: the stored definition has another disk cache, no ACPI and another video card" "nothing; hard reboot writes the definition again"
b_settings_config() { redefine "s#cache='none'#cache='writeback'#; /<acpi\\/>/d; s#<model type='virtio' heads='1'#<model type='cirrus' heads='1'#"; }
c_settings_config() { ! defined_as '<acpi/>'; }
f_settings_config() { virsh -q define "$S/inactive.xml"; }

fault balloon-config vm-data "virsh setmem --config: the next start would leave half of its memory to the guest" "nothing; hard reboot writes the definition again"
b_balloon_config() { save_definition; virsh -q setmem "$u" 32M --config; }
c_balloon_config() { defined_as "<currentMemory unit='KiB'>32768<"; }
f_balloon_config() { virsh -q define "$S/inactive.xml"; }

fault owner-config vm-tenant "the stored definition's nova metadata has another project" "nothing; hard reboot writes the metadata again"
b_owner_config() { redefine 's#(<nova:project uuid=")[0-9a-f]{32}#\100000000000000000000000000000bad#'; }
c_owner_config() { defined_as '0bad"'; }
f_owner_config() { virsh -q define "$S/inactive.xml"; }

fault cpu-mode-config vm-snap "the stored definition has another CPU mode and a limited random number generator" "nothing; hard reboot writes the definition again"
b_cpu_mode_config() { redefine "s#<cpu mode='host-model'[^>]*>#<cpu mode='maximum'>#; s#<rng model='virtio'>#<rng model='virtio'><rate bytes='1024' period='1000'/>#"; }
c_cpu_mode_config() { defined_as "mode='maximum'"; }
f_cpu_mode_config() { virsh -q define "$S/inactive.xml"; }

fault reboot-ends-guest vm-tenant "virsh set-lifecycle-action --live --config: a reboot inside the guest ends it" "nothing; hard reboot writes the definition again"
b_reboot_ends_guest() { virsh -q set-lifecycle-action "$u" reboot destroy --live --config; }
c_reboot_ends_guest() { virsh dumpxml "$u" | has '<on_reboot>destroy<' && defined_as '<on_reboot>destroy<'; }
f_reboot_ends_guest() { virsh -q set-lifecycle-action "$u" reboot restart --live --config; }

fault rescue-disc-left vm-stopped "virsh attach-disk --config: the stored definition has a CD-ROM that nova does not know" "nothing; the next start writes the definition again"
b_rescue_disc_left() { save_definition; virsh -q attach-disk "$u" /root/rescue.iso hdc --type cdrom --mode readonly --config; }
c_rescue_disc_left() { defined_as "file='/root/rescue.iso'"; }
f_rescue_disc_left() { virsh -q define "$S/inactive.xml"; }

fault instances-path-changed - "nova.conf has another instances_path than the guests' disks; nova-compute is not restarted" "nothing until its restart; then every start and hard reboot fails and removes the domain"
b_instances_path_changed() { cp -p /etc/nova/nova.conf "$S/nova.conf"; sed -i '0,/^\[DEFAULT\]/s##[DEFAULT]\ninstances_path = /srv/nova/instances#' /etc/nova/nova.conf; }
c_instances_path_changed() { grep -q '^instances_path = /srv' /etc/nova/nova.conf; }
f_instances_path_changed() { cat "$S/nova.conf" >/etc/nova/nova.conf; }

fault qemu-user-changed - "qemu.conf has another user, and libvirtd was restarted: the next start of each guest runs as root" "nothing"
change_user() { printf 'user = "+0"\ngroup = "+0"\n' >>/etc/libvirt/qemu.conf; }
restore_user() { cat "$S/qemu.conf" >/etc/libvirt/qemu.conf; }
b_qemu_user_changed() { our_libvirtd; cp -p /etc/libvirt/qemu.conf "$S/qemu.conf"; restart_libvirtd_with change_user; nova_has_libvirt; }
c_qemu_user_changed() { virsh capabilities | has '<baselabel.*+0:+0'; }
f_qemu_user_changed() { restart_libvirtd_with restore_user; nova_has_libvirt; }

definition_of() { echo "/etc/libvirt/qemu/$d.xml"; }
fault definition-file-edited vm-stopped "the domain's file in /etc/libvirt/qemu was edited by hand (more vCPUs); libvirt has not read it yet" "nothing; the next restart of libvirtd brings it in"
b_definition_file_edited() { our_libvirtd; save definition <"$(definition_of)"; sed -i 's,<vcpu\([^>]*\)>[0-9]*</vcpu>,<vcpu\1>4</vcpu>,' "$(definition_of)"; }
c_definition_file_edited() { grep -q '<vcpu[^>]*>4</vcpu>' "$(definition_of)" && ! virsh dumpxml --inactive "$u" | grep -q '<vcpu[^>]*>4</vcpu>'; }
f_definition_file_edited() { cat "$S/definition" >"$(definition_of)"; }

fault definition-file-gone vm-stopped "the domain's file in /etc/libvirt/qemu was removed; libvirt still has the domain" "nothing; the next restart of libvirtd loses the domain"
b_definition_file_gone() { our_libvirtd; cp -p "$(definition_of)" "$S/definition"; rm "$(definition_of)"; }
c_definition_file_gone() { [ ! -e "$(definition_of)" ] && virsh domstate "$u" >/dev/null; }
f_definition_file_gone() { [ -e "$(definition_of)" ] || cp -p "$S/definition" "$(definition_of)"; }

fault definition-file-left - "the file of a domain that libvirt does not have is in /etc/libvirt/qemu, as from a backup" "nothing; the next restart of libvirtd brings the domain back"
left_definition=/etc/libvirt/qemu/instance-0000dead.xml
b_definition_file_left() {
  our_libvirtd
  sed -e "s,<uuid>.*</uuid>,<uuid>$(new_uuid)</uuid>," -e 's,<name>instance-[0-9a-f]*</name>,<name>instance-0000dead</name>,' "$(find /etc/libvirt/qemu -maxdepth 1 -name 'instance-*.xml' | sort | head -1)" >"$left_definition"
  sleep 1
}
c_definition_file_left() { [ -e "$left_definition" ]; }
f_definition_file_left() { rm -f "$left_definition"; }
