"""What a command prints while it works: a live view in a terminal, plain lines elsewhere, JSON for programs.

Belongs here: how results look on a screen. Not here: pages in HTML (`reporting`, `auditing`), or what results are.
"""
