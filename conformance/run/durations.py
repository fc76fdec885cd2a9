"""How long the last run on this machine took, kept in the user's cache folder: the source of "about 3 min left"."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_cache_path

from conformance.errors import ObservationError
from conformance.evidence.folder import write_atomically
from conformance.formats.json_files import parse_json
from conformance.profile.profile import Profile, profile_to_json


@dataclass(frozen=True)
class Durations:
    """The seconds from the start of a run until its first, second, … verdict, and until its end."""

    verdicts: tuple[float, ...]
    total: float

    def left(self, judged: int, elapsed: float) -> float:
        """The seconds left after ``judged`` verdicts and ``elapsed`` seconds, if this run goes as the last one did."""
        moments = (0.0, *self.verdicts, self.total)
        place = min(judged, len(moments) - 2)
        return self.total - min(max(elapsed, moments[place]), moments[place + 1])


def load(profile: Profile) -> Durations | None:
    """The durations of the last finished run with this profile; None if there is no such run."""
    try:
        document = parse_json(_path(profile).read_text(encoding="utf-8"))
        return Durations(tuple(map(float, document["verdicts"])), float(document["total"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(profile: Profile, durations: Durations) -> None:
    """Keep the durations of a run that has finished, if the cache folder can be written."""
    path = _path(profile)
    with suppress(OSError, ObservationError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(durations)))


def _path(profile: Profile) -> Path:
    whole = json.dumps(profile_to_json(profile), sort_keys=True).encode()  # another profile takes another time
    name = f"{profile.hardware.name}-{profile.pair.name}-{profile.level}-{hashlib.sha256(whole).hexdigest()[:12]}.json"
    return user_cache_path("gemma4-mtp-conformance") / "durations" / name
