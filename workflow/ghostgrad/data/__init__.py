"""Data sets: reading, checking and manifests; cropping, resizing and standardizing images."""
