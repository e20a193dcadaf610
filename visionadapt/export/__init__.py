"""Export a run for other runtimes: one file with preprocessing, classifier and calibration, and proof that it agrees.

Belongs here: graphs and folders that need neither this library nor timm, and their checks. Not here: run folders.
"""
