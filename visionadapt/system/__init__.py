"""The machine: crash-safe files, processes, threads, devices, and text that is safe to display.

Belongs here: utilities that any program could use. Not here: anything that knows about images, labels or models.
"""
