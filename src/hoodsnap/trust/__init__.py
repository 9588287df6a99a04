"""Trust in a bundle: its fingerprint, its signature, its challenge, and its plausibility."""
