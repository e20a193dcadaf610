"""How good a classifier is on labelled images, with one label or several for each.

Belongs here: figures of a trained classifier on rows. Not here: the formulas (`metrics`) or a page that shows them.
"""
