"""Facts of a QEMU process from the kernel and from QEMU: command line, open files, monitor."""
