"""What a domain's definition keeps. That libvirt writes it so, the tests on the lab say."""

from __future__ import annotations

import pytest

from hoodsnap.collect.definition import kept_definition
from hoodsnap.collect.recorder import WITHHELD

SECRET = "sesame42"  # noqa: S105 (it is planted, to be looked for)

XML = """\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <sysinfo type='smbios'>
    <system><entry name='uuid'>6f1e</entry></system>
    <oemStrings><entry>{oem}</entry></oemStrings>
  </sysinfo>
  <sysinfo type='fwcfg'>
    <entry name='opt/org.example/seed'>{fwcfg}</entry>
    <entry name='opt/org.example/file' file='/tmp/seed'/>
  </sysinfo>
  <os><kernel>/k</kernel><cmdline>{cmdline}</cmdline></os>
  <devices>
    <disk type='network'><source protocol='https' name='a'>
      <cookies><cookie name='session'>{cookie}</cookie></cookies>
    </source></disk>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-object'/>
    <qemu:arg value='{{&quot;qom-type&quot;:&quot;secret&quot;,&quot;data&quot;:&quot;{data}&quot;}}'/>
    <qemu:arg value='-name'/>
    <qemu:arg value='it&apos;s &lt;odd&gt; &amp; quoted'/>
    <qemu:env name='TOKEN' value='{env}'/>
  </qemu:commandline>
</domain>
"""

PLACES = ("oem", "fwcfg", "cmdline", "cookie", "data", "env")


def test_what_is_handed_to_the_guest_or_to_qemu_is_withheld() -> None:
    assert kept_definition(XML.format_map(dict.fromkeys(PLACES, SECRET))) == XML.format_map(
        dict.fromkeys(PLACES, WITHHELD)
    )


@pytest.mark.parametrize("empty", ["<os><cmdline></cmdline></os>", "<cmdline/>", "", "no XML"])
def test_where_there_is_none_nothing_changes(empty: str) -> None:
    assert kept_definition(empty) == empty
