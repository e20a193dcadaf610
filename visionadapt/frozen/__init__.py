"""Frozen means computed once: where the model is cut, by which engine the frozen part runs, and what of it is kept.

Belongs here: the plan, the engines, the features and their cache. Not here: anything that learns.
"""
