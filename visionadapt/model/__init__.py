"""`Classifier`: backbone, adapter layers and head as one module, and the preprocessing that goes with it.

Belongs here: building and inspecting a classifier. Not here: training it, or computing its frozen part once.
"""
