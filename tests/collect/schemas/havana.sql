-- Nova's one database as in Havana: no cells, no instance_extra, flavors in instance_types.

CREATE TABLE instances (
  id int PRIMARY KEY,
  uuid varchar(36) UNIQUE,
  host varchar(255),
  node varchar(255),
  vm_state varchar(255),
  task_state varchar(255),
  power_state int,
  scheduled_at datetime,
  updated_at datetime,
  deleted_at datetime,
  deleted int,
  instance_type_id int
);
INSERT INTO instances VALUES
  (1, '10000000-0000-4000-8000-000000000000', 'vm', 'vm', 'active', NULL, 1, NULL, NULL, NULL, 0, 2);

CREATE TABLE instance_info_caches (
  instance_uuid varchar(36),
  network_info mediumtext,
  deleted int
);

CREATE TABLE instance_system_metadata (
  instance_uuid varchar(36),
  `key` varchar(255),
  value varchar(255),
  deleted int
);
INSERT INTO instance_system_metadata VALUES
  ('10000000-0000-4000-8000-000000000000', 'instance_type_memory_mb', '512', 0);

CREATE TABLE instance_types (
  id int,
  name varchar(255),
  memory_mb int
);
INSERT INTO instance_types VALUES
  (2, 'm1.tiny', 512);

CREATE TABLE instance_group_member (
  id int,
  instance_id varchar(255),
  group_id int,
  deleted int
);
INSERT INTO instance_group_member VALUES
  (1, '10000000-0000-4000-8000-000000000000', 5, 0);

CREATE TABLE instance_groups (
  id int,
  uuid varchar(36),
  name varchar(255),
  deleted int
);
INSERT INTO instance_groups VALUES
  (5, 'g5', 'old', 0);
