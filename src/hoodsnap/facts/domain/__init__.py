"""What libvirt returned of a domain: its XML, part by part, and its state."""
