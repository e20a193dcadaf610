"""Self-contained HTML pages: one template environment, one base page and one base style.

Belongs here: what the report and the audit page share. Not here: the content of either page.
"""
