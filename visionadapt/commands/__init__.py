"""Implementation of the commands: parsing and exit codes, option files, and a training run from data to folder.

Belongs here: steps that only commands need. Not here: features that Python users need as well.
"""
