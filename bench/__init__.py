"""Measurements of every limit that hoodsnap promises, as ratios within one run (`make bench`)."""
