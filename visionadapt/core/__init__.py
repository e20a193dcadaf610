"""What everything else is said in: rows of a data set, sites of a model, and settings that are text and object at once.

Belongs here: plain data that needs the standard library alone. Not here: anything that reads files or computes.
"""
