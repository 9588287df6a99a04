"""Domains, as libvirt returns them: the parts of their XML, and their state."""
