"""Freeze any source into a manifest and the bytes of its images, and go on after any interruption."""
