# The configuration files of the lab's services, written by `put` (which saves the packaged files for
# down.sh). Sourced by up.sh, not run.
# shellcheck shell=bash

db() { echo "mysql+pymysql://$1:$LAB_PASS@127.0.0.1/$2?charset=utf8"; }
RABBIT="rabbit://openstack:$LAB_PASS@127.0.0.1:5672/"
authtoken() { # USER
  cat <<X
[keystone_authtoken]
www_authenticate_uri = http://127.0.0.1:5000/v3
auth_url = http://127.0.0.1:5000/v3
memcached_servers = 127.0.0.1:11211
auth_type = password
project_domain_name = Default
user_domain_name = Default
project_name = service
username = $1
password = $LAB_PASS
service_token_roles = service
service_token_roles_required = true
X
}
client() { # SECTION USER
  cat <<X
[$1]
auth_url = http://127.0.0.1:5000/v3
auth_type = password
project_domain_name = Default
user_domain_name = Default
project_name = service
username = $2
password = $LAB_PASS
region_name = RegionOne
X
}

keystone_conf() {
  put /etc/keystone/keystone.conf root:keystone 0640 <<X
[DEFAULT]
log_dir = /var/log/keystone
[database]
connection = $(db keystone keystone)
[token]
provider = fernet
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = oslo_cache.memcache_pool
memcache_servers = 127.0.0.1:11211
X
}

glance_conf() {
  put /etc/glance/glance-api.conf root:glance 0640 <<X
[DEFAULT]
bind_host = 127.0.0.1
bind_port = 9292
workers = 1
log_file = /var/log/glance/glance-api.log
[database]
connection = $(db glance glance)
[glance_store]
stores = file,http
default_store = file
filesystem_store_datadir = /var/lib/glance/images/
$(authtoken glance)
[paste_deploy]
flavor = keystone
[oslo_concurrency]
lock_path = /var/lib/glance/tmp
X
}

placement_conf() {
  put /etc/placement/placement.conf root:placement 0640 <<X
[DEFAULT]
log_dir = /var/log/placement
[api]
auth_strategy = keystone
$(authtoken placement)
[placement_database]
connection = $(db placement placement)
X
}

neutron_conf() {
  put /etc/neutron/neutron.conf root:neutron 0640 <<X
[DEFAULT]
host = $LAB_HOST
bind_host = 127.0.0.1
api_workers = 2
rpc_workers = 1
core_plugin = ml2
service_plugins = router
transport_url = $RABBIT
auth_strategy = keystone
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
state_path = /var/lib/neutron
log_dir = /var/log/neutron
[agent]
root_helper = sudo /usr/bin/neutron-rootwrap /etc/neutron/rootwrap.conf
root_helper_daemon = sudo /usr/bin/neutron-rootwrap-daemon /etc/neutron/rootwrap.conf
[database]
connection = $(db neutron neutron)
$(authtoken neutron)
$(client nova nova)
$(client placement placement)
[oslo_concurrency]
lock_path = /var/lib/neutron/lock
[privsep]
helper_command = sudo /usr/bin/neutron-rootwrap /etc/neutron/rootwrap.conf privsep-helper --config-file /etc/neutron/neutron.conf
X
  put /etc/neutron/plugins/ml2/ml2_conf.ini root:neutron 0640 <<X
[ml2]
type_drivers = flat,vxlan,local
tenant_network_types = vxlan
mechanism_drivers = openvswitch
extension_drivers = port_security
[ml2_type_flat]
flat_networks = physnet1
[ml2_type_vxlan]
vni_ranges = 1:1000
[securitygroup]
enable_security_group = true
enable_ipset = true
X
  # The userspace (netdev) datapath needs no openvswitch kernel module.
  put /etc/neutron/plugins/ml2/openvswitch_agent.ini root:neutron 0640 <<X
[ovs]
integration_bridge = br-int
tunnel_bridge = br-tun
local_ip = 127.0.0.1
bridge_mappings = physnet1:br-ex
datapath_type = ${LAB_OVS_DATAPATH:-netdev}
ovsdb_connection = tcp:127.0.0.1:6640
[agent]
tunnel_types = vxlan
[securitygroup]
firewall_driver = openvswitch
enable_security_group = true
X
  put /etc/neutron/dhcp_agent.ini root:neutron 0640 <<X
[DEFAULT]
interface_driver = openvswitch
dhcp_driver = neutron.agent.linux.dhcp.Dnsmasq
enable_isolated_metadata = true
[ovs]
ovsdb_connection = tcp:127.0.0.1:6640
X
  put /etc/neutron/l3_agent.ini root:neutron 0640 <<X
[DEFAULT]
interface_driver = openvswitch
agent_mode = legacy
[ovs]
ovsdb_connection = tcp:127.0.0.1:6640
X
  put /etc/neutron/metadata_agent.ini root:neutron 0640 <<X
[DEFAULT]
nova_metadata_host = 127.0.0.1
nova_metadata_port = 8775
metadata_proxy_shared_secret = $LAB_PASS
metadata_workers = 1
X
}

cinder_conf() {
  put /etc/cinder/cinder.conf root:cinder 0640 <<X
[DEFAULT]
host = $LAB_HOST
my_ip = 127.0.0.1
transport_url = $RABBIT
auth_strategy = keystone
osapi_volume_listen = 127.0.0.1
osapi_volume_workers = 1
glance_api_servers = http://127.0.0.1:9292
state_path = /var/lib/cinder
log_dir = /var/log/cinder
rootwrap_config = /etc/cinder/rootwrap.conf
enabled_backends = nfs
default_volume_type = nfs
volume_clear = none
[nfs]
volume_driver = cinder.volume.drivers.nfs.NfsDriver
volume_backend_name = nfs
nfs_shares_config = /etc/cinder/nfs_shares
nfs_mount_point_base = /var/lib/cinder/mnt
nfs_sparsed_volumes = true
nfs_snapshot_support = true
nas_secure_file_operations = false
nas_secure_file_permissions = false
[database]
connection = $(db cinder cinder)
$(authtoken cinder)
$(client nova nova)
$(client service_user cinder)
send_service_user_token = true
[oslo_concurrency]
lock_path = /var/lib/cinder/tmp
X
  echo "127.0.0.1:/srv/hoodlab-nfs" | put /etc/cinder/nfs_shares root:cinder 0640
}

NOVA_LIBVIRT_URI= # a line of nova.conf that names a different libvirt socket
nova_conf() {
  put /etc/nova/nova.conf root:nova 0640 <<X
[DEFAULT]
host = $LAB_HOST
my_ip = 127.0.0.1
transport_url = $RABBIT
state_path = /var/lib/nova
log_dir = /var/log/nova
compute_driver = libvirt.LibvirtDriver
enabled_apis = osapi_compute,metadata
osapi_compute_listen = 127.0.0.1
osapi_compute_workers = 1
metadata_listen = 127.0.0.1
metadata_workers = 1
allow_resize_to_same_host = true
shutdown_timeout = 5
reserved_host_memory_mb = 512
initial_cpu_allocation_ratio = 16.0
initial_ram_allocation_ratio = 1.5
rootwrap_config = /etc/nova/rootwrap.conf
[api]
auth_strategy = keystone
[api_database]
connection = $(db nova nova_api)
[database]
connection = $(db nova nova)
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 300
[glance]
api_servers = http://127.0.0.1:9292
$(authtoken nova)
$(client service_user nova)
send_service_user_token = true
$(client placement placement)
$(client neutron neutron)
service_metadata_proxy = true
metadata_proxy_shared_secret = $LAB_PASS
$(client cinder cinder)
os_region_name = RegionOne
[libvirt]
virt_type = qemu
images_type = qcow2
$NOVA_LIBVIRT_URI
[vnc]
enabled = true
server_listen = 127.0.0.1
server_proxyclient_address = 127.0.0.1
[os_vif_ovs]
ovsdb_connection = tcp:127.0.0.1:6640
[vif_plug_ovs]
ovsdb_connection = tcp:127.0.0.1:6640
[oslo_concurrency]
lock_path = /var/lib/nova/tmp
X
  put /etc/nova/nova-compute.conf root:nova 0640 <<X
[DEFAULT]
compute_driver = libvirt.LibvirtDriver
[libvirt]
virt_type = qemu
X
}

client_conf() {
  cat >"$LAB_STATE/openrc" <<X
export OS_AUTH_URL=http://127.0.0.1:5000/v3
export OS_IDENTITY_API_VERSION=3
export OS_IMAGE_API_VERSION=2
export OS_VOLUME_API_VERSION=3
export OS_USERNAME=admin
export OS_PASSWORD=$LAB_PASS
export OS_PROJECT_NAME=admin
export OS_USER_DOMAIN_NAME=Default
export OS_PROJECT_DOMAIN_NAME=Default
export OS_REGION_NAME=RegionOne
X
  cat >"$LAB_STATE/clouds.yaml" <<X
clouds:
  hoodlab:
    region_name: RegionOne
    identity_api_version: 3
    compute_api_version: '2.92'
    auth: {auth_url: 'http://127.0.0.1:5000/v3', username: admin, password: '$LAB_PASS', project_name: admin, user_domain_name: Default, project_domain_name: Default}
  hoodlab-tenant:
    region_name: RegionOne
    identity_api_version: 3
    auth: {auth_url: 'http://127.0.0.1:5000/v3', username: lab, password: '$LAB_PASS', project_name: lab, user_domain_name: Default, project_domain_name: Default}
X
  chmod 600 "$LAB_STATE/openrc" "$LAB_STATE/clouds.yaml"
}

rabbitmq_conf() {
  cat >"$CONF/rabbitmq.conf" <<X
listeners.tcp.1 = 127.0.0.1:5672
default_user = openstack
default_pass = $LAB_PASS
loopback_users = none
log.file.level = warning
X
  echo '[].' >"$CONF/enabled_plugins"
  chmod 644 "$CONF/rabbitmq.conf" "$CONF/enabled_plugins"
}

libvirtd_conf() {
  cat >"$CONF/libvirtd.conf" <<X
unix_sock_group = "libvirt"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
X
}

# The kernel may have no NFS client. The "export" is an ext4 file system on a loop device, and this
# helper, which mount(8) calls for `-t nfs`, bind-mounts it. Cinder's and nova's NFS drivers are unchanged.
mount_nfs() {
  put /usr/sbin/mount.nfs root:root 0755 <<'X'
#!/bin/sh
# lab stand-in for the NFS mount helper: mount.nfs HOST:/EXPORT MOUNTPOINT [options ignored]
case $1 in
  127.0.0.1:/srv/hoodlab-nfs) exec mount --bind "${1#*:}" "$2" ;;
  *) echo "mount.nfs: this lab only knows 127.0.0.1:/srv/hoodlab-nfs" >&2; exit 32 ;;
esac
X
}

write_configs() {
  keystone_conf
  glance_conf
  placement_conf
  neutron_conf
  cinder_conf
  nova_conf
  rabbitmq_conf
  libvirtd_conf
  mount_nfs
  client_conf
}
