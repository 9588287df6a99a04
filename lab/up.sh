#!/bin/bash
# up.sh [--packages-only]
# Brings up a single-node OpenStack on 127.0.0.1 of a Debian 12 machine (root; about 90 seconds, plus
# two minutes for the packages the first time). Safe to run again, even after a reboot: running services
# are left alone, dead ones are restarted. Then lab/instances.sh boots the instances.
#
#   --packages-only  installs the packages and stops
#   LAB_STATE        the lab's state folder (default /var/lib/hoodlab)
#   LAB_PASS         the one password used everywhere (default hoodlab)
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "$@"
need_root
T0=$(date +%s)

PACKAGES=(
  mariadb-server rabbitmq-server memcached
  keystone glance-api placement-api
  nova-api nova-conductor nova-scheduler nova-compute nova-compute-kvm
  neutron-server neutron-openvswitch-agent neutron-dhcp-agent neutron-l3-agent neutron-metadata-agent
  openvswitch-switch
  cinder-api cinder-scheduler cinder-volume
  python3-openstackclient python3-novaclient python3-osc-placement python3-memcache python3-pymysql
  libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils busybox-static
  genisoimage haproxy ipset conntrack iputils-arping dnsmasq-base
  uwsgi-core uwsgi-plugin-python3 sudo socat iproute2 iputils-ping procps curl e2fsprogs jq
)

# Removes leftovers of killed daemons or of a reboot that would break a new start.
clear_stale() {
  local ns
  for ns in /run/netns/q*; do
    # `ip netns` names are mounts: without the mount, an empty file looks like a namespace
    if [ -e "$ns" ] && ! grep -q " $ns nsfs " /proc/mounts; then rm -f "$ns"; fi
  done
  if ! alive ovsdb-server && ! alive ovs-vswitchd; then rm -rf /run/openvswitch; fi
}

start_mariadb() {
  install -d -o mysql -g mysql -m 755 /run/mysqld "$LAB_STATE/mysql"
  if [ ! -d "$LAB_STATE/mysql/mysql" ]; then
    NOTE=$LOG/mariadb-install.log
    mariadb-install-db --no-defaults --datadir="$LAB_STATE/mysql" --user=mysql --skip-test-db \
      --auth-root-authentication-method=socket --auth-root-socket-user=root >"$NOTE" 2>&1
    NOTE=
  fi
  start mariadb mysql /usr/sbin/mariadbd --no-defaults --datadir="$LAB_STATE/mysql" --socket=/run/mysqld/mysqld.sock \
    --pid-file=/run/mysqld/mysqld.pid --bind-address=127.0.0.1 --port=3306 --max-connections=1000 \
    --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=256M --character-set-server=utf8 --skip-name-resolve
}
make_databases() {
  local pair d u q=
  for pair in keystone:keystone glance:glance placement:placement neutron:neutron cinder:cinder nova:nova nova_api:nova nova_cell0:nova; do
    d=${pair%:*} u=${pair#*:}
    q+="CREATE DATABASE IF NOT EXISTS $d CHARACTER SET utf8;"
    q+="CREATE USER IF NOT EXISTS '$u'@'127.0.0.1' IDENTIFIED BY '$LAB_PASS'; CREATE USER IF NOT EXISTS '$u'@'localhost' IDENTIFIED BY '$LAB_PASS';"
    q+="GRANT ALL ON $d.* TO '$u'@'127.0.0.1'; GRANT ALL ON $d.* TO '$u'@'localhost';"
  done
  sql "$q"
}

start_rabbitmq() {
  install -d -o rabbitmq -g rabbitmq -m 750 "$LAB_STATE/rabbitmq" "$LAB_STATE/rabbitmq/log"
  EXTRA_ENV=(RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_CONFIG_FILE="$CONF/rabbitmq" RABBITMQ_MNESIA_BASE="$LAB_STATE/rabbitmq"
    RABBITMQ_LOG_BASE="$LAB_STATE/rabbitmq/log" RABBITMQ_ENABLED_PLUGINS_FILE="$CONF/enabled_plugins" ERL_EPMD_ADDRESS=127.0.0.1
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" RABBITMQ_CONF_ENV_FILE=/dev/null)
  # rabbitmq would start an epmd that outlives it: run our own, unless the machine has one
  if ! port_open 4369; then
    start epmd rabbitmq /usr/bin/epmd -address 127.0.0.1
    wait_port epmd 4369 10
  fi
  start rabbitmq rabbitmq /usr/lib/rabbitmq/bin/rabbitmq-server
  EXTRA_ENV=()
}

start_openvswitch() {
  local datapath=${LAB_OVS_DATAPATH:-netdev}
  mkdir -p /run/openvswitch /var/log/openvswitch
  [ -e "$LAB_STATE/ovs-conf.db" ] || ovsdb-tool create "$LAB_STATE/ovs-conf.db" /usr/share/openvswitch/vswitch.ovsschema
  start ovsdb-server root /usr/sbin/ovsdb-server "$LAB_STATE/ovs-conf.db" -vconsole:emer -vfile:info --remote=punix:/run/openvswitch/db.sock \
    --remote=db:Open_vSwitch,Open_vSwitch,manager_options --no-chdir --log-file=/var/log/openvswitch/ovsdb-server.log --pidfile=/run/openvswitch/ovsdb-server.pid
  wait_for 20 "the ovsdb socket" test -S /run/openvswitch/db.sock
  ovs-vsctl --timeout=20 --no-wait init
  ovs-vsctl --timeout=20 --no-wait set Open_vSwitch . external_ids:system-id="$LAB_HOST" external_ids:hostname="$LAB_HOST"
  ovs-vsctl --timeout=20 --no-wait set-manager ptcp:6640:127.0.0.1
  start ovs-vswitchd root /usr/sbin/ovs-vswitchd unix:/run/openvswitch/db.sock -vconsole:emer -vfile:info --no-chdir \
    --log-file=/var/log/openvswitch/ovs-vswitchd.log --pidfile=/run/openvswitch/ovs-vswitchd.pid
  wait_port ovsdb-server 6640 20
  ovs-vsctl --timeout=20 --may-exist add-br br-ex -- set bridge br-ex datapath_type="$datapath"
  # the device appears a moment after ovs-vswitchd has started
  wait_for 20 "the bridge br-ex (log: /var/log/openvswitch/ovs-vswitchd.log)" ip link set br-ex up
  ip addr replace 172.24.4.1/24 dev br-ex
}

virsh_as_nova() { timeout -k 5 60 setpriv --reuid nova --regid nova --init-groups virsh -c "qemu:///system$1" version; }
start_libvirt() {
  local ours=1 relay=/run/hoodlab/libvirt-sock
  # Same as udev's rule: if libvirt's probe may use /dev/kvm but the qemu user may not, libvirt discards
  # its cached capabilities at every lookup (75 s instead of 3 s per guest start).
  if [ -c /dev/kvm ] && ! setpriv --reuid libvirt-qemu --regid kvm --init-groups test -w /dev/kvm; then
    chgrp kvm /dev/kvm
    chmod 660 /dev/kvm
  fi
  if ! alive libvirtd && VIRSH_TIMEOUT=20 virsh version >/dev/null 2>&1; then
    say "   a libvirtd that this lab did not start is running: using it"
    ours=0
    if ! virsh_as_nova "" >/dev/null 2>&1; then
      # Its read-write socket needs polkit; a root relay gives the nova user a socket without polkit.
      say "   the nova user may not open its socket: a root socat relay for nova only"
      install -d -o root -g libvirt -m 750 /run/hoodlab
      start libvirt-relay root /usr/bin/socat "UNIX-LISTEN:$relay,fork,unlink-early,user=root,group=libvirt,mode=0660" UNIX-CONNECT:/run/libvirt/libvirt-sock
      NOVA_LIBVIRT_URI="connection_uri = qemu:///system?socket=$relay"
      nova_conf
    fi
  else
    mkdir -p /run/libvirt
    start virtlogd root /usr/sbin/virtlogd
    start libvirtd root /usr/sbin/libvirtd --config "$CONF/libvirtd.conf"
  fi
  echo "LAB_LIBVIRT_OURS=$ours" >"$LAB_STATE/libvirt.env"
}

# ---- schema migrations: CPU-bound, run in parallel lanes in the background, each step once -
# (&& throughout: under `once ... ||` the shell does not stop at a failing command)
as() { # USER CMD...
  local user=$1
  shift
  setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups env HOME=/var/lib "$@"
}
sync_keystone() { as keystone keystone-manage db_sync; }
sync_glance() { as glance glance-manage db_sync; }
sync_placement() { as placement placement-manage db sync; }
sync_cinder() { as cinder cinder-manage db sync; }
sync_neutron() { as neutron neutron-db-manage --config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini upgrade heads; }
sync_nova() {
  as nova nova-manage api_db sync &&
    as nova nova-manage cell_v2 map_cell0 --database_connection "$(db nova nova_cell0)" &&
    { as nova nova-manage cell_v2 create_cell --name=cell1 --verbose || [ $? = 2 ]; } && # 2: it already exists
    as nova nova-manage db sync
}
sync_bootstrap() {
  local k
  for k in fernet-keys credential-keys; do install -d -o keystone -g keystone -m 700 "/etc/keystone/$k"; done
  keystone-manage fernet_setup --keystone-user keystone --keystone-group keystone &&
    keystone-manage credential_setup --keystone-user keystone --keystone-group keystone &&
    as keystone keystone-manage bootstrap --bootstrap-password "$LAB_PASS" --bootstrap-region-id RegionOne \
      --bootstrap-admin-url http://127.0.0.1:5000/v3/ --bootstrap-internal-url http://127.0.0.1:5000/v3/ --bootstrap-public-url http://127.0.0.1:5000/v3/
}
lane() { # STEP...
  local s
  cd /
  for s in "$@"; do
    once "sync-$s" "sync_$s" >>"$LOG/sync-$s.log" 2>&1 || {
      echo "$s" >"$LOG/sync-failed"
      return 1
    }
  done
}
wait_lane() { # PID
  local s
  wait "$1" && return 0
  s=$(cat "$LOG/sync-failed" 2>/dev/null || echo '*')
  NOTE=$LOG/sync-$s.log
  die "setting up the database of $s: $(tail -n 1 "$NOTE")"
}

web() { # NAME USER PORT WSGI
  start "$1" "$2" /usr/bin/uwsgi_python3 --http-socket "127.0.0.1:$3" --wsgi-file "$4" --chdir / --master --lazy-apps --die-on-term --no-orphans \
    --processes 2 --threads 2 --enable-threads --thunder-lock --buffer-size 65535 --add-header "Connection: close" --procname-prefix-spaced "$1"
}

prepare_storage() {
  # It must be a different device from the root file system, because nova tests with os.path.ismount.
  install -d /srv/hoodlab-nfs
  if ! mountpoint -q /srv/hoodlab-nfs; then
    if [ ! -e "$LAB_STATE/nfs.img" ]; then
      truncate -s 8G "$LAB_STATE/nfs.img"
      mkfs.ext4 -q -F "$LAB_STATE/nfs.img"
    fi
    mount -o loop "$LAB_STATE/nfs.img" /srv/hoodlab-nfs
  fi
  chown cinder:cinder /srv/hoodlab-nfs
  chmod 777 /srv/hoodlab-nfs
  install -d -o nova -g nova "$INSTANCES" /var/lib/nova/tmp /var/lib/nova/mnt
  install -d -o cinder -g cinder /var/lib/cinder/tmp /var/lib/cinder/mnt
  install -d -o neutron -g neutron /var/lib/neutron/lock /var/lib/neutron/tmp
  install -d -o glance -g glance /var/lib/glance/images /var/lib/glance/tmp
  # Each qemu runs in a mount namespace created by libvirt; a volume attached later is visible there
  # only if the mount propagates. systemd makes / shared, a bare machine does not.
  if ! mountpoint -q /var/lib/nova/mnt; then
    case $(findmnt -n -o PROPAGATION -T / 2>/dev/null || true) in
      *shared*) ;;
      *)
        mount --bind /var/lib/nova/mnt /var/lib/nova/mnt
        mount --make-shared /var/lib/nova/mnt
        ;;
    esac
  fi
}

guest_image() {
  [ -e "$LAB_STATE/lab-guest.qcow2" ] && return 0
  lab_python guest_image.py "$LAB_STATE/lab-guest.raw"
  qemu-img convert -q -f raw -O qcow2 "$LAB_STATE/lab-guest.raw" "$LAB_STATE/lab-guest.qcow2.new"
  mv "$LAB_STATE/lab-guest.qcow2.new" "$LAB_STATE/lab-guest.qcow2"
}
linux_guest() { # the distribution's kernel package, unpacked but not installed, and a busybox
  local cache=/var/cache/hoodlab package folder
  [ -e "$LAB_STATE/lab-linux-initrd" ] && return 0
  if ! compgen -G "$cache/linux-image-*.deb" >/dev/null; then
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && !n++ { print $2 }')
    mkdir -p "$cache"
    (cd "$cache" && timeout -k 10 300 apt-get download -q -o APT::Sandbox::User=root "$package" >>"$LOG/apt.log" 2>&1) ||
      die "apt-get download $package (log: $LOG/apt.log)"
  fi
  folder=$(mktemp -d)
  dpkg-deb -x "$cache"/linux-image-*.deb "$folder"
  cp "$folder"/boot/vmlinuz-* "$LAB_STATE/lab-linux-kernel"
  lab_python linux_image.py "$folder/lib/modules" "$LAB_STATE/lab-linux-initrd.new"
  rm -rf "$folder"
  truncate -s 1M "$LAB_STATE/lab-linux.raw"
  mv "$LAB_STATE/lab-linux-initrd.new" "$LAB_STATE/lab-linux-initrd"
}
host_in_db() { [ "$(sql "select count(*) from nova.compute_nodes where deleted = 0 and host = '$LAB_HOST'")" -ge 1 ]; }
host_in_cell() { [ "$(sql "select count(*) from nova_api.host_mappings where host = '$LAB_HOST'")" -ge 1 ]; }
volume_beats() { [ "$(sql "select count(*) from cinder.services where \`binary\` = 'cinder-volume' and deleted = 0 and updated_at > '$1'")" -ge 1 ]; }

# ============================================================ the steps
[ ! -e "$LAB_STATE/going-down" ] || die "a lab/down.sh was interrupted here: run lab/down.sh again, then lab/up.sh"
umask 022
mkdir -p "$RUN" "$LOG" "$MARK" "$CONF" "$ORIG" "$FAULTS"
[ "$LAB_HOST" = "$(hostname)" ] || die "this lab was created when the machine was called $LAB_HOST, but now it is $(hostname): run lab/down.sh, then lab/up.sh"
echo "$LAB_HOST" >"$LAB_STATE/host"
. "$LAB_DIR/configs.sh"

stage packages
install_packages "${PACKAGES[@]}"
if [ "${1:-}" = --packages-only ]; then
  stage_end
  exit 0
fi

stage infrastructure "databases, message bus, Open vSwitch, libvirt"
for p in mariadb:3306 rabbitmq:5672 memcached:11211 keystone:5000 glance-api:9292 placement-api:8778 neutron-server:9696 nova-api:8774 cinder-api:8776; do
  port_free_or_ours "${p%:*}" "${p#*:}"
done
clear_stale
write_configs
prepare_storage
start_mariadb
start_rabbitmq
start memcached memcache /usr/bin/memcached -l 127.0.0.1 -p 11211 -m 64
start_openvswitch
start_libvirt
wait_port memcached 11211 20
wait_port mariadb 3306 60
once dbs make_databases

stage identity "keystone; the other schemas in the background"
rm -f "$LOG/sync-failed"
(lane keystone bootstrap) & lane_keystone=$!
(lane nova neutron) & lane_nova=$!
wait_lane "$lane_keystone"
(lane placement glance cinder) & lane_rest=$!
web keystone keystone 5000 /usr/bin/keystone-wsgi-public
wait_port keystone 5000
wait_for 60 "keystone's API" curl -fsS -m 20 http://127.0.0.1:5000/v3
once seed-identity lab_python seed.py identity
guest_image
linux_guest
wait_lane "$lane_nova"
wait_lane "$lane_rest"

stage services "glance, placement, neutron, nova, cinder"
N=(--config-file /etc/neutron/neutron.conf)
wait_port rabbitmq 5672 120
wait_for 60 "libvirt" virsh_as_nova "${NOVA_LIBVIRT_URI:+?socket=/run/hoodlab/libvirt-sock}"
start neutron-server neutron /usr/bin/neutron-server "${N[@]}" --config-file /etc/neutron/plugins/ml2/ml2_conf.ini --log-file /var/log/neutron/neutron-server.log
web placement-api placement 8778 /usr/bin/placement-api
start glance-api glance /usr/bin/glance-api --config-file /etc/glance/glance-api.conf
start nova-conductor nova /usr/bin/nova-conductor --config-file /etc/nova/nova.conf
start nova-api nova /usr/bin/nova-api --config-file /etc/nova/nova.conf
start nova-scheduler nova /usr/bin/nova-scheduler --config-file /etc/nova/nova.conf
start cinder-scheduler cinder /usr/bin/cinder-scheduler --config-file /etc/cinder/cinder.conf
# A volume requested while cinder-volume still starts ends in error, so wait for its first heartbeat.
volume_since=2000-01-01
alive cinder-volume || volume_since=$(date -u '+%F %T')
start cinder-volume cinder /usr/bin/cinder-volume --config-file /etc/cinder/cinder.conf
start cinder-api cinder /usr/bin/cinder-api --config-file /etc/cinder/cinder.conf
wait_port placement-api 8778
wait_port neutron-server 9696 120
start nova-compute nova /usr/bin/nova-compute --config-file /etc/nova/nova.conf --config-file /etc/nova/nova-compute.conf
start neutron-openvswitch-agent neutron /usr/bin/neutron-openvswitch-agent "${N[@]}" --config-file /etc/neutron/plugins/ml2/openvswitch_agent.ini --log-file /var/log/neutron/neutron-openvswitch-agent.log
start neutron-dhcp-agent neutron /usr/bin/neutron-dhcp-agent "${N[@]}" --config-file /etc/neutron/dhcp_agent.ini --log-file /var/log/neutron/neutron-dhcp-agent.log
start neutron-l3-agent neutron /usr/bin/neutron-l3-agent "${N[@]}" --config-file /etc/neutron/l3_agent.ini --log-file /var/log/neutron/neutron-l3-agent.log
start neutron-metadata-agent neutron /usr/bin/neutron-metadata-agent "${N[@]}" --config-file /etc/neutron/metadata_agent.ini --log-file /var/log/neutron/neutron-metadata-agent.log
wait_port glance-api 9292
wait_port nova-api 8774
wait_port cinder-api 8776

stage seed "image, flavors, networks, quotas; the compute host joins its cell"
once seed-resources lab_python seed.py resources
wait_for 120 "nova-compute to report its hypervisor (log: /var/log/nova/nova-compute.log)" host_in_db
wait_for 150 "nova-compute to be up and connected to libvirt (log: /var/log/nova/nova-compute.log)" compute_ready
host_in_cell || as nova nova-manage cell_v2 discover_hosts >>"$LOG/discover.log" 2>&1
wait_for 90 "cinder-volume's heartbeat (log: /var/log/cinder/cinder-volume.log)" volume_beats "$volume_since"
stage_end

for f in "$RUN"/*.pid; do
  n=${f##*/} n=${n%.pid}
  case $n in fault-*) continue ;; esac
  alive "$n" || die "$n has died again (logs: $LOG/$n.log, /var/log/${n%%-*})"
done
active=$(ls "$FAULTS")
[ -z "$active" ] || say "faults are injected: ${active//$'\n'/ } (lab/fix.sh --all undoes them)"
total=$(($(date +%s) - T0))
timed "TOTAL up.sh" "$total"
say "the cloud is up, in $total s. Next: lab/instances.sh; or . $LAB_STATE/openrc and openstack server list --all-projects"
