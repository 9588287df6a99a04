"""Facts of a host besides domains and processes: images, devices, taps, logs, settings."""
