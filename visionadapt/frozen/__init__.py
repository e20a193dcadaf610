"""The frozen part, computed once: where the model is cut, which engine runs it, and what is cached.

Belongs here: the plan, the engines, the features and their cache. Not here: anything that is trained.
"""
