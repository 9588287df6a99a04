"""Ask every layer under a Nova instance the same question and explain where the answers differ."""

__version__ = "0.2.0"
