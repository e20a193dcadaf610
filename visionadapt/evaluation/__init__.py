"""Evaluation of a trained classifier on labelled images: one class per image (`single`) or several (`multilabel`).

Belongs here: computing metrics on rows. Not here: their formulas (`metrics`), or the page with them (`report`).
"""
