"""Log lines: what is kept of the data that a program put into them."""

from __future__ import annotations

import pytest

from hoodsnap.keep.log_line import line_without_secrets, log_line

SECRET = "sesame42"  # noqa: S105 (planted, and searched for)

LINES = [
    "login failed, password is {}",
    "Password for admin is {}",
    "the passphrase was set to {}",
    "auth_password {}",
    "('auth_password', '{}')",
    "[b'password', b'{}']",
    "'password': u'it is {}'",
    "password='{}",
    "os_password->{}",
    "curl -u admin:{} http://h/",
    "curl -uadmin:{} http://h/",
    "iscsiadm -m node --op update --value {} -n node.session.auth.password",
    "iscsiadm -m node -n node.session.auth.password -v {}",
    "node.session.auth.password = {}",
    '{{"password": "{}"}}',
    "Authorization: Basic {}=",
    "Authorization: AWS4-HMAC-SHA256 Credential=x/{}, Signature={}",
    "X-Auth-Token: {}",
    "Set-Cookie: session={}; path=/",
    "mysql+pymysql://nova:{}@h/nova",
    "mysql -u root -p{}",
    "MYSQL_PWD={} mysqldump",
    "sshpass -p {} ssh h",
    "--api-secret {}",
    "--key {}",
    "--token={}",
    "--auth a:{}",
    "-passin pass:{}",
    "LC_ALL=C PATH=/bin OS_PASSWORD={} /usr/bin/qemu-system-x86_64",
]


@pytest.mark.parametrize("line", LINES)
def test_a_secret_is_withheld_in_any_spelling(line: str) -> None:
    assert SECRET not in log_line(f"2026-01-01 {line.format(*[SECRET] * 2)} x")


@pytest.mark.parametrize(
    "line",
    [
        "Secret not found: no secret with matching uuid '77'",
        "password is not set",
        "VM Paused (Lifecycle Event)",
        "During sync_power_state the instance has a pending task (spawning). Skip.",
        "Took 3.2 seconds to build",
        "No valid host was found. There are not enough hosts available.",
        "EXT4-fs error (device vda1): ext4_lookup:1234: inode #2: comm ls",
    ],
)
def test_texts_without_secrets_stay(line: str) -> None:
    assert line_without_secrets(line) == line


def test_the_message_after_a_json_object_stays() -> None:
    drive = '{"driver":"rbd","password":"sesame42","conf":"}{"}'
    line = f'qemu-system-x86_64: -blockdev {drive}: Failed to get "write" lock'
    kept = 'qemu-system-x86_64: -blockdev {[withheld]}: Failed to get "write" lock'

    assert log_line(line) == kept
    assert log_line(f"a {drive} b {drive} c") == "a {[withheld]} b {[withheld]} c"


def test_after_other_data_the_rest_of_the_line_is_withheld() -> None:
    for data in ("{'a': 'b'}", '{"a": "b', '{"a":' * 9000):
        assert line_without_secrets(f"x {data} sesame42\ny") == "x {[withheld]}\ny"
