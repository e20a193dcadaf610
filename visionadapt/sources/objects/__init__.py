"""Object storage: its URLs, the connection to a bucket, and the packed list of what is in it."""
