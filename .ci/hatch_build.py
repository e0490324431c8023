"""Puts the types of the two modules into the wheel: PEP 561 has no other way for single modules."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface):
    """A stub may have bodies, so each module is its own; hatchling takes no file twice."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds a copy of each module as `NAME-stubs/__init__.pyi`."""
        self.copies = Path(tempfile.mkdtemp())
        for name in () if version == "editable" else ("noventa", "noventa_cli"):
            copy = shutil.copy(Path(self.root, f"{name}.py"), self.copies / f"{name}.pyi")
            build_data["force_include"][str(copy)] = f"{name}-stubs/__init__.pyi"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the copies."""
        shutil.rmtree(self.copies)
