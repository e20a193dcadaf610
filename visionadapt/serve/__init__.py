"""Serve trained classifiers over HTTP: requests in batches, limits on each, and a page to drop images on.

Belongs here: uploads, batches, answers and the web server. Not here: what classifies (`prediction`).
"""
