"""The kernel of a notebook, in a group of its own: `python -m tests.kernel -f FILE`, started by tests/forked.py."""

import os

os.setsid()

from ipykernel import kernelapp  # noqa: E402

kernelapp.launch_new_instance()
