#!/bin/bash
# second-host.sh up       starts a second compute host on this machine, beside the lab's first host
# second-host.sh down     ends it, and removes its guests and its records in the cloud
# second-host.sh status   shows its services and guests; status 1: a service is dead
# second-host.sh compute stop|start|freeze|thaw   controls its nova-compute
# second-host.sh run CMD...      runs a command on the second host
# second-host.sh beside CMD...   runs a command on the first host, with the second's processes hidden
#
# The second host is a set of namespaces (mount, network, UTS, IPC, PID). It shares the kernel and has
# its own name, address, /etc/nova, /etc/neutron, /etc/libvirt, /run, /var/lib/nova, libvirtd with guests,
# Open vSwitch with its agent, and nova-compute. `ssh` and libvirt reach it over a veth pair; it reaches
# the control plane, which listens on 127.0.0.1 only, through forward.py. Guests migrate from the first
# host to the second. Run lab/up.sh first.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "${1:---help}"
need_root

NAME=${LAB_SECOND:-compute2}
FIRST_IP=198.18.0.1 SECOND_IP=198.18.0.2 # a range reserved for benchmarks (RFC 2544)
HOME2=$LAB_STATE/second
ROOT2=$HOME2/root # mounted over parts of /etc and /var there
RUN=$HOME2/run
LOG=$LAB_STATE/logs
# Its own folders: copies of those in /etc, empty ones in /var.
OWN=(/etc/nova /etc/neutron /etc/libvirt /etc/ssh /var/lib/nova /var/lib/neutron /var/lib/libvirt /var/cache/libvirt
  /var/log/nova /var/log/neutron /var/log/libvirt /var/log/openvswitch)
# keystone glance placement neutron nova-api cinder rabbitmq mariadb memcached metadata
PORTS=(5000 9292 8778 9696 8774 8776 5672 3306 11211 8775)

# ---- the namespaces
init() { pgrep -P "$(pid_of second)"; } # process 1 of the second host
run() { # CMD...: on the second host, as root
  nsenter --target "$(init)" --mount --net --uts --ipc --pid -- "$@"
}
begin() { # NAME USER CMD...: starts a daemon on the second host
  local name=$1 user=$2 as=()
  shift 2
  [ "$user" = root ] || as=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups env HOME="$(getent passwd "$user" | cut -d: -f6)")
  start "second-$name" root nsenter --target "$(init)" --mount --net --uts --ipc --pid -- "${as[@]}" "$@"
}
end() { # NAME: ends the daemon, not the nsenter that waits for it
  local pid i
  alive "second-$1" || return 0
  pid=$(pgrep -P "$(pid_of "second-$1")")
  kill -TERM "$pid"
  for i in $(seq 1 40); do # nova-compute finishes its current tasks first
    alive "second-$1" || break
    sleep 0.5
    [ "$i" -lt 40 ] || kill -KILL "$pid"
  done
  rm -f "$RUN/second-$1.pid"
}

be_init() { # inside, as process 1: sets up the host, then waits forever and reaps children
  local d
  hostname "$NAME"
  mount --rbind /sys/fs/cgroup "$HOME2/cgroup"
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount --rbind "$HOME2/cgroup" /sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/{lock,sshd,netns,libvirt,openvswitch,sudo}
  for d in "${OWN[@]}"; do mount --bind "$ROOT2$d" "$d"; done
  for d in /etc/hosts /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id; do mount --bind "$ROOT2/files/${d##*/}" "$d"; done
  # as under systemd, so that a volume attached later is visible in the mount namespace of its guest
  mount --make-rshared /
  ip link set lo up
  touch "$HOME2/ready"
  sleep infinity &
  wait
}

# ---- its files
copy_configs() {
  local d
  for d in "${OWN[@]}"; do mkdir -p "$ROOT2$d"; done
  for d in nova neutron ssh; do cp -a "/etc/$d/." "$ROOT2/etc/$d/"; done
  cp -a /etc/libvirt/*.conf /etc/libvirt/hooks "$ROOT2/etc/libvirt/"
  install -d -o nova -g nova "$ROOT2"/var/lib/nova{,/instances,/tmp,/mnt,/.ssh} "$ROOT2/var/log/nova"
  install -d -o neutron -g neutron "$ROOT2"/var/lib/neutron{,/lock,/tmp} "$ROOT2/var/log/neutron"
  install -d -o libvirt-qemu -g libvirt-qemu -m 750 "$ROOT2/var/lib/libvirt/qemu"
  install -d -m 711 "$ROOT2"/var/lib/libvirt/{boot,images}
  sed -i -e "s/^host = .*/host = $NAME/" -e "s/^my_ip = .*/my_ip = $SECOND_IP/" -e '/^connection_uri = /d' \
    -e "s/^\[libvirt\]/&\nlive_migration_inbound_addr = $SECOND_IP/" "$ROOT2/etc/nova/nova.conf"
  sed -i "s/^host = .*/host = $NAME/" "$ROOT2/etc/neutron/neutron.conf"
  sed -i "s/^local_ip = .*/local_ip = $SECOND_IP/" "$ROOT2/etc/neutron/plugins/ml2/openvswitch_agent.ini"
  cat >"$ROOT2/etc/libvirt/libvirtd.conf" <<C
unix_sock_group = "libvirt"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
listen_addr = "$SECOND_IP"
host_uuid = "$(cat /proc/sys/kernel/random/uuid)"
C
  mkdir -p "$ROOT2/files"
  printf '127.0.0.1 localhost\n%s %s\n%s %s\n' "$SECOND_IP" "$NAME" "$FIRST_IP" "$LAB_HOST" >"$ROOT2/files/hosts"
  echo "$NAME" >"$ROOT2/files/hostname"
  cat /proc/sys/kernel/random/uuid >"$ROOT2/files/boot_id"
  tr -d - </proc/sys/kernel/random/uuid >"$ROOT2/files/machine-id"
}
make_keys() { # nova copies a disk to the other host with ssh and scp, as the nova user
  install -d -o nova -g nova -m 700 /var/lib/nova/.ssh
  [ -e /var/lib/nova/.ssh/id_ed25519 ] || as_nova ssh-keygen -q -t ed25519 -N '' -C lab -f /var/lib/nova/.ssh/id_ed25519
  [ -e "$ROOT2/etc/ssh/lab_key" ] || ssh-keygen -q -t ed25519 -N '' -C lab -f "$ROOT2/etc/ssh/lab_key"
  echo "$SECOND_IP $(cut -d' ' -f1,2 "$ROOT2/etc/ssh/lab_key.pub")" >/var/lib/nova/.ssh/known_hosts
  install -o nova -g nova -m 600 /var/lib/nova/.ssh/id_ed25519.pub "$ROOT2/var/lib/nova/.ssh/authorized_keys"
  chmod 700 "$ROOT2/var/lib/nova/.ssh"
}
as_nova() { setpriv --reuid nova --regid nova --init-groups "$@"; }

# ---- up
start_namespaces() {
  alive second && return 0
  rm -f "$HOME2/ready"
  EXTRA_ENV=(LAB_STATE="$LAB_STATE" LAB_SECOND="$NAME")
  start second root unshare --mount --net --uts --ipc --pid --fork --kill-child bash "$LAB_DIR/second-host.sh" be-init
  EXTRA_ENV=()
  wait_for 20 "the namespaces (log: $LOG/second.log)" test -e "$HOME2/ready"
  # its own prefix keeps the device apart from neutron's
  ip link add hl-second type veth peer name eth0 netns "$(init)"
  ip addr add "$FIRST_IP/30" dev hl-second
  ip link set hl-second up
  run ip addr add "$SECOND_IP/30" dev eth0
  run ip link set eth0 up
  start second-forward root /usr/bin/python3 "$LAB_DIR/forward.py" "/proc/$(init)/ns/net" "${PORTS[@]}"
  wait_for 20 "the connection to the control plane (log: $LOG/second-forward.log)" run bash -c "exec 3<>/dev/tcp/127.0.0.1/${PORTS[0]}"
}
second_ovs() { run ovs-vsctl --timeout=20 "$@"; }
start_switch() {
  local datapath=${LAB_OVS_DATAPATH:-netdev} b
  [ -e "$HOME2/ovs-conf.db" ] || ovsdb-tool create "$HOME2/ovs-conf.db" /usr/share/openvswitch/vswitch.ovsschema
  begin ovsdb-server root /usr/sbin/ovsdb-server "$HOME2/ovs-conf.db" -vconsole:emer --remote=punix:/run/openvswitch/db.sock \
    --remote=db:Open_vSwitch,Open_vSwitch,manager_options --no-chdir --log-file=/var/log/openvswitch/ovsdb-server.log --pidfile=/run/openvswitch/ovsdb-server.pid
  wait_for 20 "the second ovsdb" run test -S /run/openvswitch/db.sock
  second_ovs --no-wait init
  second_ovs --no-wait set Open_vSwitch . external_ids:system-id="$NAME" external_ids:hostname="$NAME"
  second_ovs --no-wait set-manager ptcp:6640:127.0.0.1
  begin ovs-vswitchd root /usr/sbin/ovs-vswitchd unix:/run/openvswitch/db.sock -vconsole:emer --no-chdir \
    --log-file=/var/log/openvswitch/ovs-vswitchd.log --pidfile=/run/openvswitch/ovs-vswitchd.pid
  for b in br-ex br-int; do second_ovs --may-exist add-br $b -- set bridge $b datapath_type="$datapath"; done
}
start_services() {
  begin virtlogd root /usr/sbin/virtlogd
  begin libvirtd root /usr/sbin/libvirtd --listen --config /etc/libvirt/libvirtd.conf
  begin sshd root /usr/sbin/sshd -D -e -f /dev/null -o ListenAddress="$SECOND_IP" -o HostKey=/etc/ssh/lab_key -o UsePAM=yes \
    -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o AllowUsers=nova -o PidFile=none \
    -o Subsystem="sftp internal-sftp"
  wait_for 60 "the second libvirtd (log: $LOG/second-libvirtd.log)" run virsh -c qemu:///system version
  begin neutron-openvswitch-agent neutron /usr/bin/neutron-openvswitch-agent --config-file /etc/neutron/neutron.conf \
    --config-file /etc/neutron/plugins/ml2/openvswitch_agent.ini --log-file /var/log/neutron/neutron-openvswitch-agent.log
  start_compute
}
start_compute() { begin nova-compute nova /usr/bin/nova-compute --config-file /etc/nova/nova.conf --config-file /etc/nova/nova-compute.conf; }
second_ready() {
  [ "$(sql "select count(*) from nova.services where \`binary\` = 'nova-compute' and host = '$NAME' and deleted = 0
            and not disabled and not forced_down and updated_at > utc_timestamp() - interval 60 second")" = 1 ] &&
    [ "$(sql "select count(*) from nova.compute_nodes where host = '$NAME' and deleted = 0")" = 1 ]
}
agent_ready() { [ "$(sql "select count(*) from neutron.agents where host = '$NAME' and heartbeat_timestamp > utc_timestamp() - interval 60 second")" = 1 ]; }
up() {
  local t0
  RUN=$LAB_STATE/run need_cloud
  t0=$(date +%s)
  mkdir -p "$HOME2"/{cgroup,empty} "$RUN"
  install_packages openssh-server
  if ! alive second; then
    say "   creating a host called $NAME"
    copy_configs
    make_keys
  fi
  start_namespaces
  start_switch
  start_services
  wait_for 120 "nova-compute on $NAME (log: $ROOT2/var/log/nova/nova-compute.log)" second_ready
  as_nova env HOME=/var/lib nova-manage cell_v2 discover_hosts >>"$LOG/discover.log" 2>&1
  wait_for 60 "neutron's agent on $NAME (log: $ROOT2/var/log/neutron/neutron-openvswitch-agent.log)" agent_ready
  timed "TOTAL second-host.sh up" "$(($(date +%s) - t0))"
  say "$NAME is up, in $(($(date +%s) - t0)) s: lab/second-host.sh run virsh list --all"
}

# ---- down
guests_there() { sql "select uuid from nova.instances where deleted = 0 and (host = '$NAME' or node = '$NAME')"; }
no_guests_there() { [ -z "$(guests_there)" ]; }
forget() { # removes the host's guests and records from the cloud
  local u id
  for u in $(guests_there); do
    sql "update nova.instances set task_state = NULL where uuid = '$u'"
    osc server delete "$u" || true
  done
  wait_for 60 "the guests of $NAME to be deleted" no_guests_there
  end nova-compute
  for id in $(sql "select uuid from nova.services where host = '$NAME' and \`binary\` = 'nova-compute' and deleted = 0"); do
    osc compute service delete "$id"
  done
  for id in $(sql "select id from neutron.agents where host = '$NAME'"); do osc network agent delete "$id"; done
  sql "delete from neutron.ml2_vxlan_endpoints where host = '$NAME'"
  # the first host's agent would keep its tunnel to a host that no longer exists
  for id in $(ovs-vsctl --timeout=20 --bare --columns=name find interface type=vxlan options:remote_ip="$SECOND_IP"); do
    ovs-vsctl --timeout=20 --if-exists del-port "$id"
  done
}
down() {
  local t0
  t0=$(date +%s)
  [ -d "$HOME2" ] || { say "there is no second host"; return 0; }
  if RUN=$LAB_STATE/run alive nova-api; then forget; fi
  # when its process 1 ends, everything ends: guests, mounts, interfaces
  stop second-forward
  kill_now second
  stop second
  ip link del hl-second 2>/dev/null || true
  rm -rf /var/lib/nova/.ssh
  rm -rf --one-file-system "$HOME2"
  say "$NAME is gone, in $(($(date +%s) - t0)) s"
}
status() {
  local f n bad=0
  [ -d "$RUN" ] || { echo "there is no second host"; exit 1; }
  for f in "$RUN"/*.cmd; do
    n=${f##*/} n=${n%.cmd}
    if alive "$n"; then printf '  %-34s pid %s\n' "$n" "$(pid_of "$n")"; else
      bad=1
      printf '  %-34s DEAD\n' "$n"
    fi
  done
  run virsh -c qemu:///system list --all
  exit $bad
}

# Processes in a nested PID namespace are visible from the outer one; processes of another host are not.
# An empty folder mounted over each /proc/PID makes the process look like one that has just ended.
beside() { # CMD...
  # shellcheck disable=SC2016  # expanded by the inner bash
  unshare --mount bash -c '
    set -eu
    other=$(readlink "/proc/$2/ns/pid")
    for process in /proc/[0-9]*; do
      [ "$(readlink "$process/ns/pid" || true)" != "$other" ] || mount --bind "$1" "$process"
    done
    shift 2
    exec "$@"' beside "$HOME2/empty" "$(init)" "$@"
}

case $1 in
  up | down | status) "$1" ;;
  compute)
    case $2 in
      stop) end nova-compute ;;
      start) start_compute ;;
      freeze) kill -STOP "$(pgrep -P "$(pid_of second-nova-compute)")" ;;
      thaw) kill -CONT "$(pgrep -P "$(pid_of second-nova-compute)")" ;;
    esac
    ;;
  run | beside) "$@" ;;
  be-init) be_init ;;
  *) die "unknown command '$1' (see --help)" ;;
esac
