"""What the kernel and QEMU returned of a QEMU process: its command line, files and monitor."""
