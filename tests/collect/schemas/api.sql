-- The API database as in Zed, with a few of its columns.

CREATE TABLE cell_mappings (
  id int,
  uuid varchar(36),
  name varchar(255),
  transport_url text,
  database_connection text,
  disabled tinyint(1)
);
INSERT INTO cell_mappings VALUES
  (1, '00000000-0000-0000-0000-000000000000', 'cell0', 'none:///', 'mysql+pymysql://nova:sesame42@10.9.9.9/nova_cell0?charset=utf8', 0),
  (2, '62191b8b-1163-4e25-9a64-08248fc4c867', 'cell1', 'rabbit://openstack:sesame42@mq/', '{scheme}://{username}:{password}@{hostname}:{port}/nova', 0);

CREATE TABLE instance_mappings (
  id int,
  instance_uuid varchar(36),
  cell_id int
);
INSERT INTO instance_mappings VALUES
  (1, '10000000-0000-4000-8000-000000000000', 2),
  (2, '40000000-0000-4000-8000-000000000000', 2);

CREATE TABLE request_specs (
  id int,
  instance_uuid varchar(36),
  spec mediumtext
);
INSERT INTO request_specs VALUES
  (1, '10000000-0000-4000-8000-000000000000', '{"nova_object.data": {"scheduler_hints": {"pw": "sesame42"}}}');

CREATE TABLE build_requests (
  id int,
  instance_uuid varchar(36),
  instance mediumtext
);

CREATE TABLE host_mappings (
  id int,
  cell_id int,
  host varchar(255)
);
INSERT INTO host_mappings VALUES
  (1, 2, 'vm'),
  (2, 2, 'other');

CREATE TABLE aggregates (
  id int,
  uuid varchar(36),
  name varchar(255)
);

CREATE TABLE aggregate_hosts (
  id int,
  host varchar(255),
  aggregate_id int
);

CREATE TABLE aggregate_metadata (
  id int,
  aggregate_id int,
  `key` varchar(255),
  value varchar(255)
);
INSERT INTO aggregate_metadata VALUES
  (1, 1, 'availability_zone', 'az1'),
  (2, 1, 'note', 'sesame42');

CREATE TABLE instance_group_member (
  id int,
  instance_uuid varchar(36),
  group_id int
);
INSERT INTO instance_group_member VALUES
  (1, '10000000-0000-4000-8000-000000000000', 3),
  (2, '40000000-0000-4000-8000-000000000000', 4);

CREATE TABLE instance_groups (
  id int,
  uuid varchar(36),
  name varchar(255)
);
INSERT INTO instance_groups VALUES
  (3, 'g3', 'spread'),
  (4, 'g4', 'other');

CREATE TABLE instance_group_policy (
  id int,
  policy varchar(255),
  group_id int
);

CREATE TABLE flavors (
  id int,
  name varchar(255),
  vcpus int
);
INSERT INTO flavors VALUES
  (7, 'lab.tiny', 1),
  (8, 'lab.small', 2),
  (9, 'unused', 64);

CREATE TABLE flavor_extra_specs (
  id int,
  flavor_id int,
  `key` varchar(255),
  value varchar(255)
);
