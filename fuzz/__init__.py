"""The fuzz campaign: what a stranger's bundle may hold, tried for as long as one likes.

`python -m fuzz --minutes 60` (`make fuzz MINUTES=60`). `slices.py` cuts recordings into small bundles,
`mutations.py` puts one odd value after the other into every place of them, `targets.py` does with the
result what the commands do, `campaign.py` counts, minimises and writes what it finds.
"""
