# Faults: what a domain is made of, and what libvirt keeps beside it. Sourced by faults.sh, which
# defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

defined_as() { virsh dumpxml --inactive "$u" | grep -Eq "$1"; }

fault domain-renamed vm-stopped "virsh domrename: the domain has another name than nova gave it" "nothing; the next start defines it under its old name"
b_domain_renamed() { save_definition; virsh -q domrename "$d" "$d-old"; }
c_domain_renamed() { [ "$(virsh domname "$u")" = "$d-old" ]; }
f_domain_renamed() { virsh -q domrename "$d-old" "$d"; }

fault checkpoint-left vm-duo "virsh checkpoint-create-as: a backup tool's checkpoint, with which libvirt refuses to undefine the domain" "nothing; deleting the server then destroys the guest and ends in error"
b_checkpoint_left() { virsh -q checkpoint-create-as "$u" backup-monday >/dev/null; }
c_checkpoint_left() { virsh checkpoint-list "$u" --name | grep -qx backup-monday; }
f_checkpoint_left() { virsh -q checkpoint-delete "$u" backup-monday >/dev/null; }

fault saved-memory-lost vm-suspended "the file with a suspended guest's memory was moved away; libvirt still reports a managed save" "nothing; the resume boots the guest from its disk"
save_file() { echo "/var/lib/libvirt/qemu/save/$d.save"; }
b_saved_memory_lost() { mv "$(save_file)" "$S/memory"; }
c_saved_memory_lost() { [ ! -e "$(save_file)" ]; }
f_saved_memory_lost() { mv "$S/memory" "$(save_file)"; }

fault cpu-throttled-config vm-config "virsh schedinfo --config: the next start would have 20 % of a CPU" "nothing; hard reboot writes the definition again"
b_cpu_throttled_config() { save_definition; virsh -q schedinfo "$u" --config vcpu_quota=20000 >/dev/null; }
c_cpu_throttled_config() { defined_as '<quota>20000<'; }
f_cpu_throttled_config() { virsh -q define "$S/inactive.xml"; }
