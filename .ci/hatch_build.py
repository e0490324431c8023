"""Add the types of the two modules to the wheel as stubs, as PEP 561 requires for modules."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface):
    """Each module is its own stub. A copy is needed because hatchling adds no file twice."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add a copy of each module as `NAME-stubs/__init__.pyi`."""
        self.copies = Path(tempfile.mkdtemp())
        for name in () if version == "editable" else ("noventa", "noventa_cli"):
            copy = shutil.copy(Path(self.root, f"{name}.py"), self.copies / f"{name}.pyi")
            build_data["force_include"][str(copy)] = f"{name}-stubs/__init__.pyi"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        shutil.rmtree(self.copies)
