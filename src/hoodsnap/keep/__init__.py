"""Decide what a bundle may keep: allow-lists and cleaners. They read texts and touch no host."""
