"""The shared vocabulary: rows of a data set, sites of a model, and settings that are both text and object.

Belongs here: plain data that can be imported with only the standard library. Not here: anything that reads files or
computes.
"""
