"""Shared data types: rows of a data set, sites of a model, and settings with their specs as text.

Belongs here: plain data that needs only the standard library. Not here: anything that reads files or computes.
"""
