"""`ListedTree`: the folders below a place in a bucket, as `Tree` has them of a disk."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from visionadapt.sources.keys import key_of
from visionadapt.sources.objects.listing import ObjectList
from visionadapt.sources.tree import Tree, joined
from visionadapt.sources.walk import Found, is_image, is_sidecar


@dataclass(frozen=True)
class ListedTree(Tree):
    """The folders that the names of objects make.

    Attributes:
        listing: the objects.
    """

    listing: ObjectList = field(default_factory=ObjectList)

    def walk(self, below: str = "", without: Container[str] = frozenset()) -> Iterator[Found]:
        """Yield every object below `root/below` in natural order."""
        return self.listing.walk(below, without)

    def folders(self, below: str = "") -> list[str]:
        """Return the names of the folders in `root/below`."""
        return sorted(name for name in self.listing.folders(below) if key_of(name) not in self.without)

    def check_links(self, below: str = "") -> None:
        """Do nothing: object storage has no links."""

    def has_files(self, below: str = "") -> bool:
        """Whether some object below `root/below` may be an image."""
        waiting = [below]
        while waiting:
            here = waiting.pop()
            if any(not is_sidecar(name) for name in self.listing.files(here)):
                return True
            waiting.extend(joined(here, name) for name in self.folders(here))
        return False

    def images(self, below: str = "") -> list[str]:
        """Return the names of the objects in `root/below` that are named like images."""
        return sorted(filter(is_image, self.listing.files(below)))

    def sidecars(self, below: str = "") -> list[str]:
        """Return the names of the objects in `root/below` whose suffixes say that they tell about images."""
        return sorted(filter(is_sidecar, self.listing.files(below)))
