"""The bill of materials of a run, as a CycloneDX 1.6 document: the packages that served, and the files of both weights.

It is made of the observations alone. A package that a lock or a source build names by commit has the commit as its
version. What was not observed is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence, Header

COMMIT = "commit "
SAMPLED = "conformance:sampled-sha256"  # of size and 64 blocks, see checkpoints/headers.py; no hash of the whole file


def bill_of_materials(evidence: Evidence, header: Header) -> str:
    """The document as JSON; the time and the serial number are those of the run."""
    started = datetime.fromisoformat(header.started)
    served = Component(name=header.pair, type=ComponentType.APPLICATION, bom_ref="run")
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"{header.started} {header.hardware} {header.pair}"),
        metadata=BomMetaData(timestamp=started, component=served),
    )
    environment, checkpoint = (_read(evidence, name) for name in ("environment", "checkpoint"))
    bom.components.update(_packages(environment))
    bom.components.update(_weights(checkpoint))
    bom.register_dependency(served, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1)


def _read(evidence: Evidence, name: str) -> Mapping[str, Any]:
    try:
        return evidence.observe(name, dict) if evidence.holds(name) else {}
    except (ObservationError, Unsupported):
        return {}


def _packages(environment: Mapping[str, Any]) -> Iterator[Component]:
    """The installed distributions; those outside the lock too."""
    installed = environment.get("installed", {}) | environment.get("beside_the_lock", {})
    for name, version in installed.items():
        if version is None:  # not installed
            continue
        number = version.removeprefix(COMMIT)
        purl = None if version.startswith(COMMIT) else PackageURL("pypi", name=name, version=number)
        yield Component(name=name, version=number, type=ComponentType.LIBRARY, purl=purl, bom_ref=f"package {name}")


def _weights(checkpoint: Mapping[str, Any]) -> Iterator[Component]:
    """Target and draft, each with its files."""
    for role, seen in checkpoint.items():
        files = [
            Component(
                name=name,
                type=ComponentType.FILE,
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
                bom_ref=f"{role} {name}",
            )
            for name, digest in seen.get("files", {}).items()
        ]
        files += [
            Component(
                name=name,
                type=ComponentType.FILE,
                properties=[Property(name=SAMPLED, value=digest)],
                bom_ref=f"{role} {name}",
            )
            for name, digest in seen.get("sampled_files", {}).items()
        ]
        yield Component(name=role, type=ComponentType.MACHINE_LEARNING_MODEL, components=files, bom_ref=role)
