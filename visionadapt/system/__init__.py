"""This machine: files that survive a crash, processes, threads, devices, text that is safe to show.

Belongs here: what any program would need. Not here: anything that knows what an image, a label or a model is.
"""
