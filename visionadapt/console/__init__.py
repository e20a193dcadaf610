"""Output of the commands: a live view in a terminal, plain lines elsewhere, JSON for programs.

Belongs here: formatting results for the screen. Not here: HTML pages (`report`, `auditing`), or computing results.
"""
