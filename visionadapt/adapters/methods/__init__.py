"""One file for each adapter method, or for a few of one kind. A new method is a new file here."""
