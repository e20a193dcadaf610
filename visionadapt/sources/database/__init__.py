"""Images and rows in SQL databases: URLs without secrets, read-only connections, and queries with bound values."""
