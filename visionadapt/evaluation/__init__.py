"""Evaluation of a trained classifier on labelled images: one class per image (`single`) or several (`multilabel`).

Belongs here: metrics of predictions on rows. Not here: formulas (`metrics`), or the page that shows them (`reporting`).
"""
