"""The run folder: what a training run decided, measured and learned, in files that a person can open.

Belongs here: each file of a run folder, written and read in one place. Not here: HTML pages (`reporting`).
"""
