"""What a bundle may keep: allow-lists and cleaners. They read text and touch no host."""
