"""Implementation of the commands: parsing and exit codes, options in a file, and a training run from data to folder.

Belongs here: steps that only a command takes. Not here: a capability that Python users need too.
"""
