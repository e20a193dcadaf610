"""The run folder: settings, metrics and weights of a training run, in human-readable files where possible.

Belongs here: reading and writing each file of a run folder. Not here: HTML pages (`report`).
"""
