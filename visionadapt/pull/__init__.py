"""Pull any source into a folder: a manifest of its rows, and the bytes of its images. Interrupted pulls resume.

Belongs here: fetching, the journal, and the permanent assignment of rows to splits. Not here: reading a pulled folder
(`sources/manifest.py`), and its file formats (`sources/pulled/`).
"""
