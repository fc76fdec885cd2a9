"""Scripts of the project as modules."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType

from support.paths import ROOT


def load_script(name: str) -> ModuleType:
    """``scripts/NAME``, which has no ending, as a module; what it imports from its folder is found too."""
    if (folder := str(ROOT / "scripts")) not in sys.path:
        sys.path.append(folder)
    spec = spec_from_loader(name, SourceFileLoader(name, str(ROOT / "scripts" / name)))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
