"""Compute predictions and features in an existing engine, which owns the machines: Ray, Spark and others.

Belongs here: what such an engine calls, and what is asked of it. Not here: computing (`prediction`), own schedulers.
"""
