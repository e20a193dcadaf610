"""Adapter methods, one per file: the settings (`LoRA`) and the layer that they build (`LoRALayer`).

Belongs here: a new method, as a frozen dataclass that inherits `Placement`; `adapters/__init__.py` exports it, and
`core/spec.py` names it for the command line. Not here: how layers are attached, switched or merged (`adapters/`).
"""
