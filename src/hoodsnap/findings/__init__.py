"""From checks to findings: run the catalogue, fold related findings, gate commands, apply a
baseline."""
