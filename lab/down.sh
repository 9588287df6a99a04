#!/bin/bash
# down.sh
# Stops everything the lab started and removes its guests, databases, networks, mounts and
# configuration. The packages stay. Works in any state: after a reboot, after its processes were killed,
# in the middle of a fault. No step waits forever.
#
#   KEEP_LOGS=1   keeps /var/log/nova/*.log and the other services' logs
#   LAB_STATE     the lab's state folder (default /var/lib/hoodlab)
#
# Processes are ended only by recorded pid, by the lab's own cgroups, by pid files that neutron's
# agents wrote, and (guests) by the UUID in their command line.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "$@"
need_root
if [ ! -d "$LAB_STATE" ] && [ -z "$(cg_procs)" ]; then
  say "nothing to do: there is no $LAB_STATE"
  exit 0
fi
T0=$(date +%s)
# Try every step even if an earlier one failed; leftovers at the end are an error.
trap - ERR
set +eE
LAB_LIBVIRT_OURS=0
# shellcheck source=/dev/null  # one assignment, written by up.sh
[ -f "$LAB_STATE/libvirt.env" ] && . "$LAB_STATE/libvirt.env"

# ---- guests
thaw_daemons() { # a daemon that a fault has stopped does not answer
  local n
  for n in $(running_names); do kill -CONT "$(pid_of "$n")" 2>/dev/null; done
}
nova_xml() { grep -lsE '<nova:instance |<name>rogue-vm<' /etc/libvirt/qemu/*.xml /run/libvirt/qemu/*.xml; }
lab_uuids() { # of nova's guests (including deleted rows) and of guests created by faults
  {
    if alive mariadb; then sql "select uuid from nova.instances" 2>/dev/null; fi
    cat "$LAB_STATE/rogue-uuids" 2>/dev/null
    find "$INSTANCES" -maxdepth 1 -regextype egrep -regex '.*/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(_resize)?' -printf '%f\n' 2>/dev/null | cut -c1-36
    nova_xml | while read -r f; do sed -n 's|.*<uuid>\(.*\)</uuid>.*|\1|p' "$f" | sed -n 1p; done
  } | sort -u
}
end_guest() { # UUID, through libvirt
  virsh destroy "$1"
  virsh managedsave-remove "$1"
  virsh undefine "$1" --nvram --snapshots-metadata --checkpoints-metadata
} >/dev/null 2>&1
end_guests() {
  local uuids u pids known jobs=() VIRSH_TIMEOUT=30
  mapfile -t uuids < <(lab_uuids)
  [ ${#uuids[@]} -gt 0 ] || return
  if known=$(VIRSH_TIMEOUT=10 virsh list --all --uuid 2>/dev/null); then
    say "   removing the guests through libvirt"
    for u in "${uuids[@]}"; do
      grep -qx "$u" <<<"$known" || continue
      end_guest "$u" &
      jobs+=($!)
    done
    [ ${#jobs[@]} -gt 0 ] && wait "${jobs[@]}"
  else
    say "   libvirt does not answer: removing the guests without it"
  fi
  mapfile -t pids < <(guest_pids "${uuids[@]}")
  if [ ${#pids[@]} -gt 0 ]; then
    say "   killing ${#pids[@]} qemu processes that libvirt does not know"
    kill -KILL "${pids[@]}" 2>/dev/null
  fi
}
forget_guests() { # removes the guests' files of a libvirtd that is not running
  local f name
  for f in $(nova_xml); do
    name=$(basename "$f" .xml)
    rm -rf "$f" "/run/libvirt/qemu/$name".* "/etc/libvirt/qemu/autostart/$name.xml" \
      "/var/lib/libvirt/qemu/save/$name.save" "/var/lib/libvirt/qemu"/{snapshot,checkpoint}/"$name" "/var/lib/libvirt/qemu"/domain-*-"$name"
  done
}

# ---- networks, mounts, files
end_agent_helpers() { # dnsmasq, haproxy ... that the agents leave running on purpose
  local f p
  for f in /var/lib/neutron/external/pids/*.pid /var/lib/neutron/external/pids/*.pid.* /var/lib/neutron/dhcp/*/pid; do
    [ -f "$f" ] || continue
    p=$(tr -dc 0-9 <"$f")
    [ -n "$p" ] || continue
    grep -qaE '^(/usr/s?bin/)?(dnsmasq|haproxy|radvd|keepalived)' "/proc/$p/cmdline" 2>/dev/null && kill "$p" 2>/dev/null
  done
}
end_cgroups() { # descendants: privsep helpers, workers of a killed daemon, ...
  local cg sig pids i
  cg=$(cg_root) || return
  for sig in TERM KILL; do
    for i in 1 2 3 4 5 6; do
      mapfile -t pids < <(cg_procs)
      [ ${#pids[@]} -gt 0 ] || break 2
      [ $i = 1 ] && kill -$sig "${pids[@]}" 2>/dev/null
      sleep 0.5
    done
  done
  [ -d "$cg" ] && rmdir "$cg"/* "$cg" 2>/dev/null
}
remove_networks() {
  local x
  for x in /run/netns/{qdhcp,qrouter,lab}-*; do [ -e "$x" ] && { ip netns del "${x##*/}" 2>/dev/null || rm -f "$x"; }; done
  for x in /sys/class/net/{tap*,lab*,qg-*,qr-*,qvo*,qvb*,qbr*,br-int,br-ex,br-tun,ovs-netdev}; do
    [ -e "$x" ] && ip link del "${x##*/}" 2>/dev/null
  done
  rmdir /run/netns 2>/dev/null || { [ -z "$(ls -A /run/netns)" ] && umount /run/netns; } 2>/dev/null
}
remove_mounts() {
  local _ m dev
  for _ in 1 2 3 4; do # a mount can hide another
    # shellcheck disable=SC2013  # mount points of the lab contain no spaces
    for m in $(awk -v s="$LAB_STATE/" '$2 ~ "^/var/lib/(nova|cinder)/" || $2 == "/srv/hoodlab-nfs" || index($2, s) == 1 { print $2 }' /proc/mounts | sort -r); do
      timeout 20 umount "$m" 2>/dev/null || umount -l "$m" 2>/dev/null
    done
  done
  losetup -n -l -O NAME,BACK-FILE 2>/dev/null | while read -r dev m; do
    case $m in "$LAB_STATE"/*) losetup -d "$dev" ;; esac
  done
}
restore_configs() {
  local f p
  for f in "$ORIG"/*; do
    [ -e "$f" ] || continue
    p=$(basename "$f" .absent | tr % /)
    case $f in *.absent) rm -f "$p" ;; *) cp -a "$f" "$p" ;; esac
  done
  [ -e "$MARK/policy-rc.d" ] && rm -f /usr/sbin/policy-rc.d
}
remove_state() {
  rm -rf --one-file-system "${INSTANCES:?}"/* /var/lib/nova/tmp/* /var/lib/nova/mnt/* /var/lib/cinder/mnt/* /var/lib/glance/images/* /var/lib/glance/tmp/* \
    /var/lib/cinder/tmp/* /var/lib/cinder/conversion /var/lib/neutron/{dhcp,external,ha_confs,ns-metadata-proxy,metadata_proxy} /var/lib/neutron/lock/* \
    /etc/keystone/fernet-keys /etc/keystone/credential-keys /run/openvswitch /run/hoodlab \
    /var/lib/libvirt/images/lab-unknown.qcow2
  rm -f /run/mysqld/mysqld.sock /run/mysqld/mysqld.pid
  [ "$LAB_LIBVIRT_OURS" = 1 ] && rm -f /run/libvirtd.pid /run/virtlogd.pid /run/libvirt/*-sock /run/libvirt/*-sock-ro
  rmdir /srv/hoodlab-nfs 2>/dev/null
  [ -n "${KEEP_LOGS:-}" ] || rm -f /var/log/{keystone,glance,placement,nova,neutron,cinder,openvswitch}/*.log
}

say "taking the lab in $LAB_STATE down"
mkdir -p "$LAB_STATE" && touch "$LAB_STATE/going-down" # half of it is not to be used again
thaw_daemons
for n in $(running_names); do case $n in fault-*) kill_now "$n" ;; esac done
stop nova-compute # first, so that it does not react
if [ -d "$LAB_STATE/second" ]; then # everything on it ends with its process 1
  say "   ending the second host"
  RUN=$LAB_STATE/second/run kill_now second
  rm -rf /var/lib/nova/.ssh
fi
end_guests
say "   stopping the services"
# clients of the message bus and the databases first
stop cinder-volume cinder-scheduler cinder-api neutron-metadata-agent neutron-l3-agent neutron-dhcp-agent \
  neutron-openvswitch-agent nova-api nova-scheduler nova-conductor neutron-server placement-api glance-api keystone
end_agent_helpers
if alive ovs-vswitchd; then timeout 20 ovs-appctl --timeout=10 -t ovs-vswitchd exit --cleanup >/dev/null 2>&1; fi
# shellcheck disable=SC2046  # one word per name is intended: anything else the lab or a fault started
stop ovs-vswitchd ovsdb-server rabbitmq memcached libvirt-relay $(running_names | grep -vE '^(epmd|libvirtd|virtlogd|mariadb)$')
stop mariadb epmd libvirtd virtlogd
end_cgroups
VIRSH_TIMEOUT=10 virsh version >/dev/null 2>&1 || forget_guests
say "   removing networks, mounts and files"
remove_networks
remove_mounts
restore_configs
remove_state

left=$(running_names; cg_procs)
if [ -n "$left" ]; then die "still running: ${left//$'\n'/ } (the state in $LAB_STATE is kept: run lab/down.sh again)"; fi
if grep -qE " (/var/lib/(nova|cinder)|/srv/hoodlab-nfs|$LAB_STATE)" /proc/mounts; then die "something is still mounted: $(grep -oE ' (/var/lib/(nova|cinder)|/srv/hoodlab-nfs)[^ ]*' /proc/mounts | tr '\n' ' ')"; fi
mkdir -p /var/log/hoodlab && cp -f "$TIMES" "/var/log/hoodlab/timings-$(date +%Y%m%d-%H%M%S).tsv" 2>/dev/null
rm -rf --one-file-system "$LAB_STATE.gone"
mv "$LAB_STATE" "$LAB_STATE.gone" # atomically: a half-removed state would be worse than none
rm -rf --one-file-system "$LAB_STATE.gone"
say "the lab is down, in $(($(date +%s) - T0)) s"
