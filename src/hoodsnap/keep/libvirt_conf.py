"""Allow-list for the configuration of libvirt's daemons."""

from __future__ import annotations

LIBVIRT_CONF = {
    "qemu.conf": frozenset(
        """
        user group dynamic_ownership remember_owner security_driver security_default_confined
        stdio_handler vnc_listen vnc_tls vnc_tls_x509_verify vnc_sasl vnc_auto_unix_socket
        spice_listen spice_tls spice_sasl remote_display_port_min remote_display_port_max
        swtpm_user swtpm_group auto_start_bypass_cache save_image_format max_files max_processes
        """.split()  # noqa: SIM905 (as a list it takes twenty lines)
    ),
    "virtlogd.conf": frozenset(["max_size", "max_backups", "max_age_days"]),
}
"""Settings that may be kept, by file name: no passwords, no paths of keys."""


def libvirt_settings(name: str, text: str) -> dict[str, str]:
    """Keep the allowed settings of the configuration file with this name."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip() in LIBVIRT_CONF[name]:
            found[key.strip()] = value.partition("#")[0].strip().strip("\"'")
    return found
