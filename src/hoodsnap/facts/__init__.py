"""What the answers of a bundle mean: typed, read at analysis time, and free of side effects.

A folder is who was asked, a file what it calls the thing. What needs two of them is in `cloud/`.
"""
