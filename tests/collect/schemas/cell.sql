-- A cell's database as in Zed, with a few of its columns. `sesame42` stands in all that must never be kept.

CREATE TABLE instances (
  id int PRIMARY KEY,
  uuid varchar(36) UNIQUE,
  host varchar(255),
  node varchar(255),
  vm_state varchar(255),
  task_state varchar(255),
  power_state int,
  updated_at datetime,
  deleted_at datetime,
  deleted int,
  instance_type_id int,
  user_data mediumtext,
  key_data mediumtext
);
INSERT INTO instances VALUES
  (1, '10000000-0000-4000-8000-000000000000', 'vm', 'vm', 'active', NULL, 1, '2026-01-02 03:04:05', NULL, 0, 7, 'sesame42', 'sesame42'),
  (2, '20000000-0000-4000-8000-000000000000', 'vm', 'vm', 'deleted', NULL, 0, NULL, '2020-01-01', 2, 7, 'sesame42', NULL),
  (3, '30000000-0000-4000-8000-000000000000', 'other', 'other', 'resized', NULL, 1, NULL, NULL, 0, 8, NULL, NULL),
  (4, '40000000-0000-4000-8000-000000000000', 'other', 'other', 'active', NULL, 1, NULL, NULL, 0, 8, NULL, NULL);

CREATE TABLE migrations (
  id int PRIMARY KEY,
  uuid varchar(36),
  instance_uuid varchar(36),
  status varchar(255),
  source_compute varchar(255),
  dest_compute varchar(255),
  updated_at datetime,
  deleted int
);
INSERT INTO migrations VALUES
  (1, NULL, '30000000-0000-4000-8000-000000000000', 'finished', 'vm', 'other', NULL, 0),
  (2, NULL, '40000000-0000-4000-8000-000000000000', 'confirmed', 'vm', 'other', '2020-01-01', 0),
  (3, NULL, NULL, 'error', 'vm', 'vm', UTC_TIMESTAMP(), 0);

CREATE TABLE instance_info_caches (
  instance_uuid varchar(36),
  network_info mediumtext,
  deleted int
);
INSERT INTO instance_info_caches VALUES
  ('10000000-0000-4000-8000-000000000000', '[{"id": "port"}]', 0);

CREATE TABLE instance_extra (
  instance_uuid varchar(36),
  flavor text,
  keypairs text,
  deleted int
);
INSERT INTO instance_extra VALUES
  ('10000000-0000-4000-8000-000000000000', '{}', 'sesame42', 0),
  ('40000000-0000-4000-8000-000000000000', '{}', NULL, 0);

CREATE TABLE instance_system_metadata (
  instance_uuid varchar(36),
  `key` varchar(255),
  value varchar(255),
  deleted int
);
INSERT INTO instance_system_metadata VALUES
  ('10000000-0000-4000-8000-000000000000', 'image_hw_machine_type', 'pc', 0),
  ('10000000-0000-4000-8000-000000000000', 'image_licence', 'sesame42', 0),
  ('10000000-0000-4000-8000-000000000000', 'password_0', 'sesame42', 0);

CREATE TABLE block_device_mapping (
  id int,
  instance_uuid varchar(36),
  connection_info mediumtext,
  deleted_at datetime,
  deleted int
);
INSERT INTO block_device_mapping VALUES
  (1, '10000000-0000-4000-8000-000000000000', '{"serial": "s1", "data": {"auth_password": "sesame42", "target_lun": 1}}', NULL, 0),
  (2, '10000000-0000-4000-8000-000000000000', NULL, '2020-01-01', 2),
  (3, '20000000-0000-4000-8000-000000000000', NULL, '2020-01-01', 3);

CREATE TABLE instance_faults (
  id int,
  instance_uuid varchar(36),
  code int,
  message varchar(255),
  details mediumtext
);
INSERT INTO instance_faults SELECT seq, '10000000-0000-4000-8000-000000000000', 500, CONCAT('fault ', seq), 'sesame42' FROM seq_1_to_5;

CREATE TABLE instance_actions (
  id int,
  instance_uuid varchar(36),
  action varchar(255)
);
INSERT INTO instance_actions SELECT seq, '10000000-0000-4000-8000-000000000000', 'reboot' FROM seq_1_to_12;

CREATE TABLE instance_actions_events (
  id int,
  action_id int,
  event varchar(255),
  traceback text
);
INSERT INTO instance_actions_events SELECT seq, seq, 'step', 'sesame42' FROM seq_1_to_12;

CREATE TABLE console_auth_tokens (
  id int,
  instance_uuid varchar(36),
  host varchar(255),
  port int,
  token_hash varchar(255),
  access_url_base varchar(255)
);
INSERT INTO console_auth_tokens VALUES
  (1, '10000000-0000-4000-8000-000000000000', 'vm', 5900, 'sesame42', 'sesame42');

CREATE TABLE services (
  id int,
  host varchar(255),
  `binary` varchar(255),
  disabled tinyint(1),
  deleted int
);
INSERT INTO services VALUES
  (1, 'vm', 'nova-compute', 0, 0),
  (2, 'other', 'nova-compute', 0, 0);

CREATE TABLE compute_nodes (
  id int,
  host varchar(255),
  hypervisor_hostname varchar(255),
  cpu_allocation_ratio float
);
INSERT INTO compute_nodes VALUES
  (1, 'vm', 'vm', 16),
  (2, 'other', 'other', 1.5);

CREATE TABLE pci_devices (
  id int,
  compute_node_id int,
  address varchar(12)
);
INSERT INTO pci_devices VALUES
  (1, 1, '0000:81:00.1'),
  (2, 2, '0000:81:00.1');

CREATE TABLE shadow_instances (
  id int,
  uuid varchar(36),
  host varchar(255),
  deleted int,
  user_data mediumtext
);
INSERT INTO shadow_instances VALUES
  (9, '50000000-0000-4000-8000-000000000000', 'vm', 9, 'sesame42');
