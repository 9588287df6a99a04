"""Can a bundle be trusted? Its fingerprint, signature, challenge, and whether it is plausible."""
