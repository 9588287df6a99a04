# Faults: who holds a disk, and the storage below it. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

vol_file() { virsh domblklist "$u" | awk '$2 ~ /volume-/ && !n++ { print $2 }'; }

# The base is written to in place, so that all guests that have it open get its contents back.
fault base-committed vm-snap "the disk of a running guest is committed into its base (virsh blockcommit --pivot): the guest writes into _base" "nothing; a hard reboot goes back to the old disk"
b_base_committed() {
  base_of | save base; cp --sparse=always "$(saved base)" "$S/base.copy"; cp --sparse=always "$(idir)/disk" "$S/disk.copy"
  virsh -q blockcommit "$u" vda --base "$(saved base)" --top "$(idir)/disk" --active --pivot --wait
}
c_base_committed() { [ "$(vda_file)" = "$(saved base)" ]; }
f_base_committed() {
  [ "$(domstate "$u")" = "shut off" ] || virsh -q destroy "$u"
  dd if="$S/base.copy" of="$(saved base)" bs=1M conv=notrunc status=none; fallocate -d "$(saved base)"; chown nova:nova "$(saved base)"
  cp --sparse=always "$S/disk.copy" "$(idir)/disk"; rm "$S/base.copy" "$S/disk.copy"
  back_to_active
}

fault base-written vm-plain "a second qemu (another name and UUID) has a base image open for writing, with image locking off" "nothing"
b_base_written() {
  base_of | save base
  start fault-base-written libvirt-qemu "${QEMU_BY_HAND[@]}" -name guest=lab-base-writer -uuid "$(new_uuid)" \
    -blockdev "{\"driver\":\"file\",\"filename\":\"$(saved base)\",\"node-name\":\"storage\",\"locking\":\"off\"}" \
    -blockdev '{"driver":"raw","file":"storage","node-name":"format","read-only":false}' -device virtio-blk-pci,drive=format,share-rw=on
  sleep 1
}
c_base_written() { alive fault-base-written && opens_for_writing "$(pid_of fault-base-written)" "$(saved base)"; }
f_base_written() { kill_now fault-base-written; rm -f "$RUN"/fault-base-written.*; }

share_of() { findmnt -n -o TARGET -T "$(vol_file)"; }
fault share-unmounted vm-data "the share with the volumes is unmounted lazily under running guests (umount -l)" "nothing until the next start or attachment"
b_share_unmounted() { share_of | save share; findmnt -n -o SOURCE -T "$(vol_file)" | save source; umount -l "$(saved share)"; }
c_share_unmounted() { ! mountpoint -q "$(saved share)" && running; }
f_share_unmounted() { mountpoint -q "$(saved share)" || mount "$(saved source)" "$(saved share)"; }

fault share-covered vm-data "another, empty file system is mounted over the share with the volumes" "nothing until the next start or attachment"
b_share_covered() { share_of | save share; mount -t tmpfs -o size=1m lab-cover "$(saved share)"; }
c_share_covered() { [ "$(stat -f -c %T "$(saved share)")" = tmpfs ] && running; }
f_share_covered() { umount "$(saved share)"; }

fault share-read-only vm-data "the host's mount of the share with the volumes is read-only; running guests keep their own" "nothing until the next start or attachment"
b_share_read_only() { share_of | save share; mount -o remount,bind,ro "$(saved share)"; }
c_share_read_only() { findmnt -n -o OPTIONS "$(saved share)" | grep -q '^ro,' && running; }
f_share_read_only() { mount -o remount,bind,rw "$(saved share)"; }

fault disk-emptied vm-stopped "the disk of a stopped guest is an empty qcow2 of the same size, without a backing file" "a start finds no operating system"
b_disk_emptied() {
  local size; size=$(qemu-img info -U --output json "$(idir)/disk" | jq '."virtual-size"')
  mv "$(idir)/disk" "$S/disk"; qemu-img create -q -f qcow2 "$(idir)/disk" "$size"; chown --reference="$S/disk" "$(idir)/disk"
}
c_disk_emptied() { [ "$(base_of)" = null ]; }
f_disk_emptied() { mv "$S/disk" "$(idir)/disk"; }

fault overlay-without-format vm-stopped "the disk of a stopped guest got an overlay, whose header does not name the format of the disk (an old qemu-img)" "a start fails: format of backing image was not specified"
b_overlay_without_format() {
  mv "$(idir)/disk" "$(idir)/disk.backup"
  qemu-img create -q -f qcow2 -b "$(idir)/disk.backup" -F qcow2 "$(idir)/disk"; chown --reference="$(idir)/disk.backup" "$(idir)/disk"
  # Newer versions of qemu-img always write the format, so the type of that part of the header is changed to an unknown one.
  python3 - "$(idir)/disk" <<'END'
import sys
with open(sys.argv[1], "r+b") as disk:
    disk.seek(disk.read(65536).index(b"\xe2\x79\x2a\xca"))
    disk.write(b"\x11\x22\x33\x44")
END
}
c_overlay_without_format() { qemu-img info -U --output json "$(idir)/disk" | jq -e '."backing-filename-format" == null and (."backing-filename" | endswith(".backup"))' >/dev/null; }
f_overlay_without_format() { mv "$(idir)/disk.backup" "$(idir)/disk"; }

fault disk-served vm-stopped "qemu-nbd of a repair or a backup was left behind: it holds the disk of a stopped guest" "a start fails: Failed to get \"write\" lock"
b_disk_served() { start fault-disk-served root qemu-nbd -f qcow2 --persistent --socket "$S/nbd.sock" "$(idir)/disk"; sleep 1; }
c_disk_served() { alive fault-disk-served && [ -S "$S/nbd.sock" ]; }
f_disk_served() { kill_now fault-disk-served; rm -f "$RUN"/fault-disk-served.* "$S/nbd.sock"; }

fault disk-flocked vm-plain "a backup holds the disk of a running guest with flock(1)" "nothing"
b_disk_flocked() { start fault-disk-flocked root flock --no-fork -x "$(idir)/disk" sleep 86400; sleep 1; }
c_disk_flocked() { alive fault-disk-flocked && grep -q "FLOCK .*:$(stat -c %i "$(idir)/disk") " /proc/locks; }
f_disk_flocked() { kill_now fault-disk-flocked; rm -f "$RUN"/fault-disk-flocked.*; }

fault disk-looped vm-bfv "a loop device that can write was left on the volume of a running guest, as after a repair by hand" "nothing"
b_disk_looped() { losetup --find --show "$(vol_file)" | save loop; }
c_disk_looped() { [ "$(losetup --noheadings --output BACK-FILE "$(saved loop)")" = "$(vol_file)" ] && running; }
f_disk_looped() { ! losetup "$(saved loop)" >/dev/null 2>&1 || losetup --detach "$(saved loop)"; }
