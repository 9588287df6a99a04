"""The fuzz campaign: damaged bundles, as a stranger might send them, for as long as you like.

Run it with `python -m fuzz --minutes 60` (`make fuzz MINUTES=60`). `slices.py` cuts recordings into
small bundles, `mutations.py` puts odd values into every place of a bundle, `targets.py` does the
work of each command on the result, and `campaign.py` counts, minimizes and writes the finds.
"""
