"""`NamedObjects`: objects below a place in a bucket, by the untrusted texts of a table."""

from __future__ import annotations

from visionadapt.errors import SourceError
from visionadapt.sources.keys import plain_key
from visionadapt.sources.objects.below import Below
from visionadapt.sources.objects.urls import is_object_url, object_url
from visionadapt.sources.tables.paths import LEAVES
from visionadapt.sources.walk import Found


class NamedObjects:
    """The objects below a place, as `FilesBelow` has the files below a folder.

    A text is a name below the place, or a URL of an object below it; no other place is read, whatever the text says.

    Args:
        objects: the objects.
        suffix: ends the name of every object; added to names without it.
    """

    def __init__(self, objects: Below, suffix: str | None = None) -> None:
        self.objects, self.suffix = objects, suffix or ""

    def key(self, text: str) -> str:
        """Return the key of an object: its name below the place, in Unicode NFC; empty where the text names nothing."""
        return plain_key(self._name(text) or text)

    def find(self, text: str) -> Found:
        """Return the name of an object below the place, and why it cannot be read (None where it can)."""
        if not text.strip():
            return Found(text, "no file is named")
        name = self._name(text)
        if name is None:
            return Found(text, LEAVES)
        return Found(name, self.objects.problem(name))

    def read(self, location: str, key: str) -> bytes:
        """Return an object's bytes; raise as `Below.read` does."""
        return self.objects.read(location, key)

    def version(self, location: str) -> str | None:
        """Return an object's ETag and size, without reading it; None where there is no such object."""
        return self.objects.version(location)

    def _name(self, text: str) -> str | None:
        """The name below the place; None where the text leads elsewhere."""
        name = text.strip()
        if is_object_url(name):
            try:
                url = object_url(name)
            except SourceError:
                return None
            root = self.objects.root
            if url.bucket != root.bucket or not f"{url.path}/".startswith(root.below("")):
                return None
            name = url.path[len(root.below("")) :]
        elif "://" in name:
            return None
        parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", "."}]
        if not parts or ".." in parts:
            return None
        name = "/".join(parts)
        return name if name.casefold().endswith(self.suffix.casefold()) else name + self.suffix
