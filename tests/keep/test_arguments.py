"""Command lines: what is kept of them, and what is withheld."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.keep.arguments import LONGEST, kept_cmdline, kept_ps, kept_words
from hoodsnap.keep.secret import WITHHELD

SECRET = 'se,,same 42:@/"x'  # noqa: S105 (planted, and searched for; a comma is doubled)

WITH_SECRETS = [
    (["-append", f"root=/dev/vda password={SECRET}"], ["-append", WITHHELD]),
    (["-append", f"-x {SECRET}", "-S"], ["-append", WITHHELD, "-S"]),
    (["-object", f"secret,id=s0,data={SECRET}"], ["-object", f"secret,id=s0,data={WITHHELD}"]),
    (
        ["-object", f"id=s0,data={SECRET},format=raw,qom-type=secret"],
        ["-object", f"id=s0,data={WITHHELD},format=raw,qom-type=secret"],
    ),
    (
        ["--object", json.dumps({"data": SECRET, "qom-type": "secret", "id": "s0"})],
        ["--object", json.dumps({"data": WITHHELD, "qom-type": "secret", "id": "s0"})],
    ),
    (
        ["-spice", f"port=5900,password={SECRET},seamless-migration=on"],
        ["-spice", f"port=5900,password={WITHHELD},seamless-migration=on"],
    ),
    (
        ["-drive", f"file.driver=https,file.cookie={SECRET},if=none"],
        ["-drive", f"file.driver=https,file.cookie={WITHHELD},if=none"],
    ),
    (["-iscsi", f"user=u,password={SECRET}"], ["-iscsi", f"user=u,password={WITHHELD}"]),
    (
        ["-fw_cfg", f"name=opt/org.example/seed,string={SECRET}"],
        ["-fw_cfg", f"name=opt/org.example/seed,string={WITHHELD}"],
    ),
    (["-smbios", f"type=11,value={SECRET}"], ["-smbios", f"type=11,value={WITHHELD}"]),
    (
        ["-object", "secret,id=x,format=raw,keyid=k,iv=aXYsesame42,data=sesame42"],
        ["-object", f"secret,id=x,format=raw,keyid=k,iv={WITHHELD},data={WITHHELD}"],
    ),
    (
        ["-object", "sev-snp-guest,id=s,id-auth=sesame42,host-data=sesame42,policy=1"],
        ["-object", f"sev-snp-guest,id=s,id-auth={WITHHELD},host-data={WITHHELD},policy=1"],
    ),
    (["-prom-env", f"pw={SECRET}"], ["-prom-env", WITHHELD]),
    (["-set", f"object.s.data={SECRET}"], ["-set", f"object.s.data={WITHHELD}"]),
    (["-global", f"driver.password={SECRET}"], ["-global", f"driver.password={WITHHELD}"]),
    (["-machine", f"x,passphrase={SECRET}"], ["-machine", f"x,passphrase={WITHHELD}"]),
    (["-incoming", f"exec:curl -u a:{SECRET} x"], ["-incoming", f"exec:{WITHHELD}"]),
    (
        ["-netdev", f"user,id=n,guestfwd=tcp:1:2-cmd:env PW={SECRET},hostfwd=tcp::1-:2"],
        ["-netdev", f"user,id=n,guestfwd=tcp:1:2-cmd:{WITHHELD},hostfwd=tcp::1-:2"],
    ),
    (
        ["-netdev", '{"type":"user","guestfwd":[{"str":"tcp:1:2-cmd:a -u \\"b\\", sesame42"}]}'],
        ["-netdev", f'{{"type":"user","guestfwd":[{{"str":"tcp:1:2-cmd:{WITHHELD}"}}]}}'],
    ),
    (
        ["-netdev", "l2tpv3,id=n,txcookie=sesame42,rxcookie=sesame42,src=h"],
        ["-netdev", f"l2tpv3,id=n,txcookie={WITHHELD},rxcookie={WITHHELD},src=h"],
    ),
    (
        ["-incoming", '{"channel-type":"main","addr":{"transport":"exec","args":["sesame42"]}}'],
        ["-incoming", WITHHELD],
    ),
    (["-incoming", "tcp:[::]:49152"], ["-incoming", "tcp:[::]:49152"]),
    (
        ["-smbios", f"type=1,serial=ds=nocloud-net;s=http://h/{SECRET},uuid=148ab7d4"],
        ["-smbios", f"type=1,serial={WITHHELD},uuid=148ab7d4"],
    ),
    (["-drive", "file=ssh://u:sesame42@h/x"], ["-drive", f"file=ssh://u:{WITHHELD}@h/x"]),
    (
        ["-drive", 'file=json:{"driver":"rbd"\\,"keyvalue-pairs":"[\\"key\\"\\,\\"sesame42\\"]"}'],
        [
            "-drive",
            f'file=json:{{"driver":"rbd"\\,"keyvalue-pairs":"[\\"key\\"\\,\\"{WITHHELD}\\"]"}}',
        ],
    ),
    (["--password", SECRET, "-v"], ["--password", WITHHELD, "-v"]),
    ([f"--password={SECRET}"], [f"--password={WITHHELD}"]),
]


@pytest.mark.parametrize(
    ("words", "kept"), WITH_SECRETS, ids=[words[0] for words, _ in WITH_SECRETS]
)
def test_exactly_the_secret_is_withheld(words: list[str], kept: list[str]) -> None:
    assert kept_words(["qemu-system-x86_64", *words, "-S"]) == ["qemu-system-x86_64", *kept, "-S"]


WITHOUT = [
    "qemu-system-x86_64",
    *("-name", "guest=instance-00000001,debug-threads=on"),
    *("-object", '{"qom-type":"secret","id":"masterKey0","format":"raw","file":"/run/key.aes"}'),
    *("-object", "tls-creds-x509,id=t,dir=/etc/pki,passwordid=sec0"),
    *("-smbios", "type=1,manufacturer=OpenStack Foundation,serial=x"),
    *("-spice", "port=5901,disable-ticketing=on,password-secret=sec0"),
    *("-vnc", "127.0.0.1:0,password=on,audiodev=audio1"),
    *("-blockdev", '{"driver":"iscsi","user":"u","password-secret":"sec0","node-name":"n"}'),
    *("-kernel", "/var/lib/nova/instances/x/kernel", "-append", ""),
]


def test_the_mere_name_of_a_secret_stays() -> None:
    assert kept_words(WITHOUT) == WITHOUT
    assert kept_cmdline("\0".join(WITHOUT) + "\0") == "\0".join(WITHOUT) + "\0"


def test_a_word_longer_than_any_of_libvirts_is_cut() -> None:
    long = "x" * 20_000
    secret = f"file=https://u:sesame42{long}@h/x"

    kept = kept_words(["qemu", "-L", long, "-drive", secret, "-S"])

    assert kept[2] == f"{long[:LONGEST]}[withheld: 3616 more characters]"
    assert kept[4] == f"file=https://u:{WITHHELD}@h/x"
    assert kept[5] == "-S"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)))
def test_a_command_line_keeps_its_number_of_words(words: list[str]) -> None:
    assert len(kept_words(words)) == len(words)


def test_a_line_of_ps_keeps_the_words_of_its_process() -> None:
    words = {
        7: ["qemu-kvm", "--object", "secret,id=s,data=a b", "x"],
        8: ["qemu-kvm", "-S"],
        9: ["qemu-kvm", "-S"],
    }
    programs = {10: "qemu-nbd", 11: "backup-qemu"}
    table = (
        "    PID TTY      STAT   TIME COMMAND\n"
        "      7 ?        Sl     0:01 qemu-kvm --object secret,id=s,data=a b x\n"
        "      8 pts/0    R+     0:00 qemu-kvm -S\n"
        "      9 ?        S      0:00 qemu: a title with sesame42 in it\n"
        "     10 ?        S      0:00 qemu-nbd -u root:sesame42 x\n"
        "     11 ?        S      0:00 backup-qemu\n"
        "     12 ?        S      0:00 qemu-late sesame42\n"
        "     13 ?        S      0:00 [qemu-worker]\n"
        "sesame42\n"
    )

    assert kept_ps(table, words, programs) == (
        "    PID TTY      STAT   TIME COMMAND\n"
        f"      7 ?        Sl     0:01 qemu-kvm --object secret,id=s,data={WITHHELD} x\n"
        "      8 pts/0    R+     0:00 qemu-kvm -S\n"
        "      9 ?        S      0:00 qemu-kvm -S\n"
        f"     10 ?        S      0:00 qemu-nbd {WITHHELD}\n"
        f"     11 ?        S      0:00 backup-qemu {WITHHELD}\n"
        f"     12 ?        S      0:00 {WITHHELD}\n"
        "     13 ?        S      0:00 [qemu-worker]\n"
        f"{WITHHELD}\n"
    )
