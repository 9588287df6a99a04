# Faults: files. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

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

fault disk-shrunk vm-stopped "the disk is half as large as its flavor's, as after a resize that failed half way" "nothing; the guest has less than its owner pays for"
b_disk_shrunk() { cp --sparse=always -a "$(idir)/disk" "$S/disk.copy"; qemu-img resize -q --shrink -f qcow2 "$(idir)/disk" 512M; }
c_disk_shrunk() { [ "$(qemu-img info -U --output json "$(idir)/disk" | jq '."virtual-size"')" -lt 1073741824 ]; }
f_disk_shrunk() { cp --sparse=always -a "$S/disk.copy" "$(idir)/disk"; rm "$S/disk.copy"; }

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
c_definition_other_disk() { virsh dumpxml --inactive "$u" | has "/disk.old'"; }
f_definition_other_disk() { virsh -q define "$S/inactive.xml"; }

fault definition-other-format vm-duo "the stored definition of a running guest has its disk as raw instead of qcow2" "nothing; hard reboot writes the definition again"
b_definition_other_format() { save_definition; sed "/<disk /,/<\\/disk>/ s/type='qcow2'/type='raw'/" "$S/inactive.xml" | save edited.xml; virsh -q define "$S/edited.xml"; }
c_definition_other_format() { virsh dumpxml --inactive "$u" | has "name='qemu' type='raw'"; }
f_definition_other_format() { virsh -q define "$S/inactive.xml"; }

fault definition-foreign-disk vm-stopped "the definition of a stopped guest names the disk of another server" "nothing; hard reboot and start write the definition again"
b_definition_foreign_disk() { save_definition; sed "s#$(idir)/disk'#$INSTANCES/$(uuid_of vm-plain)/disk'#" "$S/inactive.xml" | save edited.xml; virsh -q define "$S/edited.xml"; }
c_definition_foreign_disk() { virsh dumpxml --inactive "$u" | has "$(uuid_of vm-plain)/disk'"; }
f_definition_foreign_disk() { virsh -q define "$S/inactive.xml"; }

fault saved-behind vm-config "virsh managedsave, as by libvirt-guests when the host shuts down: ACTIVE in nova (recorded with --freeze)" "the power sync sets it to stopped; its next start resumes from the saved memory"
b_saved_behind() { virsh -q managedsave "$u" >/dev/null; }
c_saved_behind() { virsh dominfo "$u" | has '^Managed save: *yes'; }
f_saved_behind() { virsh -q start "$u"; until_ok 30 running; sleep 1; thaw; until_ok 60 idle_in active || back_to_active; }

fault saved-and-noticed vm-duo "virsh managedsave of an ACTIVE instance, and the power sync has set it to stopped" "nothing; nova's start deletes the saved memory and boots the guest"
b_saved_and_noticed() { virsh -q managedsave "$u" >/dev/null; row "update nova.instances set vm_state='stopped', power_state=4 where uuid='$u'"; }
c_saved_and_noticed() { virsh dominfo "$u" | has '^Managed save: *yes'; }
f_saved_and_noticed() { osc server set --state active "$u"; virsh -q start "$u"; until_ok 30 running; sleep 1; until_ok 60 idle_in active || back_to_active; }

fault base-cut vm-snap "the base image of a running guest is cut to half of its size: the same inode, so all guests read the cut file" "nothing; reads past the end fail, and the next start reads zeros there"
b_base_cut() { base_of | save base; cp --sparse=always -a "$(saved base)" "$S/copy"; truncate -s "$(($(stat -c %s "$(saved base)") / 2))" "$(saved base)"; }
c_base_cut() { [ "$(stat -c %s "$(saved base)")" -lt "$(stat -c %s "$S/copy")" ]; }
f_base_cut() { dd if="$S/copy" of="$(saved base)" bs=1M conv=notrunc,sparse status=none; truncate -r "$S/copy" "$(saved base)"; cmp -s "$S/copy" "$(saved base)"; }

fault stopped-rebased vm-stopped "qemu-img rebase -u of a stopped server's disk to another image's base" "nothing; the next start reads the wrong blocks"
b_stopped_rebased() { base_of | save base; rebase "$(another_base)"; }
c_stopped_rebased() { [ "$(base_of)" != "$(saved base)" ]; }
f_stopped_rebased() { rebase "$(saved base)"; }

fault instances-hidden - "an empty file system is mounted over the instances directory (recorded with --freeze)" "starts fail; new images are downloaded into the wrong place"
b_instances_hidden() { mount -t tmpfs -o size=1M,mode=755 lab-empty "$INSTANCES"; }
c_instances_hidden() { [ "$(stat -fc %T "$INSTANCES")" = tmpfs ]; }
f_instances_hidden() { umount "$INSTANCES"; }

fault locks-closed - "the folder in which nova-compute locks images belongs to root, mode 0700" "nothing until the next start, which fails"
b_locks_closed() { stat -c '%u:%g %a' "$INSTANCES/locks" | save owner; chown root:root "$INSTANCES/locks"; chmod 0700 "$INSTANCES/locks"; }
c_locks_closed() { [ "$(stat -c '%u %a' "$INSTANCES/locks")" = "0 700" ]; }
f_locks_closed() { read -r owner mode <"$S/owner"; chown "$owner" "$INSTANCES/locks"; chmod "$mode" "$INSTANCES/locks"; }

flags_of() { lsattr -d "$1" | cut -d' ' -f1; }
fault disk-immutable vm-stopped "chattr +i on the disk of a stopped guest: nobody may open it for writing, root included" "a start fails: Operation not permitted; the domain is gone then"
b_disk_immutable() { chattr +i "$(idir)/disk"; }
c_disk_immutable() { [[ $(flags_of "$(idir)/disk") == *i* ]]; }
f_disk_immutable() { chattr -i "$(idir)/disk"; }

fault disk-append-only vm-snap "chattr +a on the disk of a running guest, which has it open" "nothing; the next start fails: Operation not permitted"
b_disk_append_only() { chattr +a "$(idir)/disk"; }
c_disk_append_only() { [[ $(flags_of "$(idir)/disk") == *a* ]]; }
f_disk_append_only() { chattr -a "$(idir)/disk"; }

fault folder-immutable vm-stopped "chattr -R +i on the guest's folder: no file in it can be made, changed or removed" "a start fails: Operation not permitted; the domain is gone then"
b_folder_immutable() { chattr -R +i "$(idir)"; }
c_folder_immutable() { [[ $(flags_of "$(idir)") == *i* ]]; }
f_folder_immutable() { chattr -R -i "$(idir)"; }

fault start-immutable vm-stopped "a start failed because the disk is immutable: nova had removed the domain before" "nothing; each start fails again"
b_start_immutable() { chattr +i "$(idir)/disk"; osc server start "$u"; until_ok 60 no_domain; until_ok 60 no_task; }
no_domain() { ! virsh domstate "$u"; }
c_start_immutable() { c_disk_immutable && no_domain 2>/dev/null; }
f_start_immutable() { # the domain is made by a start
  chattr -i "$(idir)/disk"
  ! no_domain 2>/dev/null || { osc server start "$u"; sleep 1; until_ok 60 idle_in active; }
  idle_in stopped || { osc server stop "$u"; until_ok 60 idle_in stopped; }
}

fault locks-immutable - "chattr +i on the folder in which nova-compute locks images" "nothing until an image is used that has no lock file yet"
b_locks_immutable() { chattr +i "$INSTANCES/locks"; }
c_locks_immutable() { [[ $(flags_of "$INSTANCES/locks") == *i* ]]; }
f_locks_immutable() { chattr -i "$INSTANCES/locks"; }

fault base-immutable vm-snap "chattr +i on a base image: guests only read it" "the image cache manager can't note its use, and logs an error"
b_base_immutable() { base_of | save base; chattr +i "$(saved base)"; }
c_base_immutable() { [[ $(flags_of "$(saved base)") == *i* ]]; }
f_base_immutable() { chattr -i "$(saved base)"; }

fault snapshot-left - "a copy of a disk is left in instances/snapshots, from a snapshot that nova-compute did not survive" "nothing"
b_snapshot_left() {
  install -d -o nova -g nova "$INSTANCES/snapshots/tmplab0left"
  fallocate -l 32M "$INSTANCES/snapshots/tmplab0left/0d6c1f2aa1b2"
  touch -d '3 days ago' "$INSTANCES/snapshots/tmplab0left/0d6c1f2aa1b2" "$INSTANCES/snapshots/tmplab0left"
}
c_snapshot_left() { [ -s "$INSTANCES/snapshots/tmplab0left/0d6c1f2aa1b2" ]; }
f_snapshot_left() { rm -r "$INSTANCES/snapshots/tmplab0left"; }
