"""Databases of each kind, as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..postgresql import Server
from .object_storage import s3_server as s3_server
from .object_storage import store as store
from .shops import NUMBERS, PASSWORD, ROWS, Shop, postgresql_shop, sqlite_shop
from .test_folder import make


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_shop(tmp_path)
    server: Server = request.getfixturevalue("postgresql")
    monkeypatch.setenv(PASSWORD, server.password)
    return postgresql_shop(tmp_path, server)


@pytest.fixture
def filled(shop: Shop) -> Shop:
    """A database with `ROWS`, and the image files that exist."""
    make(shop.root, "a/1.jpg", "a/2.jpg", "b/é.jpg", "b/9.jpg")
    shop.fill("images", ROWS, key=["id"], **NUMBERS)
    return shop
