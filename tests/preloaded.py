"""What the server of tests/forked.py does once at its start, since each of its forks would do it anew otherwise."""

from __future__ import annotations

import gc
import os

import cyclopts.bind  # noqa: F401 - it reads the words of every command
import pandas  # noqa: F401 - pyarrow imports it with the first table that it makes
import pyarrow.parquet  # noqa: F401
from PIL import Image

from visionadapt.backbones.creation import check_image_size, check_name
from visionadapt.html import pages

Image.init()
check_name("test_efficientnet")  # SMALL_BACKBONE of conftest.py, which would stop the search for garbage here
for size in (32, 64):
    check_image_size("test_efficientnet", size)
pages._environment("visionadapt.report").get_template("report.html")
os.fsync = lambda fd: None  # as in the process of the tests
gc.freeze()  # a fork that searches these objects for garbage would copy their pages
