"""`Classifier`: backbone, adapter layers and head as one module, and its preprocessing.

Belongs here: building and inspecting a classifier. Not here: training it, or caching its frozen part.
"""
