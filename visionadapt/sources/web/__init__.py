"""Images and rows over HTTP: a bounded client, public addresses only, JSON lists page by page, and image URLs."""
