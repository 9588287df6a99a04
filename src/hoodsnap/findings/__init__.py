"""Findings: run the checks, fold related findings, gate dangerous commands, apply a baseline."""
