"""What a host holds beside domains and processes: images, devices, taps, logs, its own settings."""
