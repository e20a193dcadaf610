"""What reading over HTTP needs: a bounded client, allowed addresses, credentials by name, and lists page by page."""
