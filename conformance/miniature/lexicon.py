"""The words that the miniature knows."""

from __future__ import annotations

from typing import Any


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VERBS = _words("get set find add move send book plan open close read count check start stop paint sell buy mix lift")
NOUNS = _words("lamp door train room ticket order weather river garden letter bridge clock basket engine kettle window")
KEYS = _words(
    "city name unit days size color level title note code path time date price count state owner zone mode text rate "
    "tags"
)
NAMES = _words(
    "Anna Bruno Carla David Elena Felix Greta Hugo Irene Jonas Karin Leon Maria Nils Olga Pavel Rosa Sven Tina Viktor"
)
COLORS = _words("red blue green black white yellow grey brown")
WORDS = (
    *NAMES,
    *COLORS,
    *_words(
        "Oslo Paris Lima Cairo Delhi Tokyo Quito Berlin Madrid Nairobi Sydney Vienna Prague Dublin Hanoi Lagos "
        "north south east west summer winter spring autumn morning evening silver copper marble cotton timber "
        "apple pepper honey butter coffee lemon salt tea bread rice small large quick slow warm cold bright quiet "
        "celsius meter kilo hour minute first last open closed ready late early simple double secret public"
    ),
)
AWKWARD = (
    '"', "'", "{", "}", "[", "]", "(", ")", ":", ",", ";", "<", ">", "|", "/", "\\", "#", "%", "&", "*", "+", "=", "?",
    "!", "@", "_", "-", "~", "^", "$", "{}", "<|", "|>", "a:b", "x=1", "é", "ü", "ñ", "ß", "你好", "東京", "привет",
    "مرحبا", "🙂", "🚀", "→", "€",
)  # fmt: skip

TOPICS: dict[str, tuple[str, ...]] = {
    "en": _words("fox baker sailor queen miller robot owl painter"),
    "de": _words("Fuchs Bauer Matrose Maler"),
    "es": _words("zorro panadero marinero pintor"),
}
TALE: dict[str, dict[str, Any]] = {
    "en": {
        "ask": "Tell {n} sentences about the {topic}.",
        "pattern": "{opener} the {topic} {verb} the {thing} {place}.",
        "openers": ("First", "Then", "Soon", "Later", "After that", "Next", "In the end", "At last"),
        "verbs": _words("found carried painted lost followed repaired cleaned guarded"),
        "things": _words("boat candle map stone ladder bell mirror rope"),
        "places": (
            "by the river",
            "in the woods",
            "near the tower",
            "under the bridge",
            "at the market",
            "on the hill",
        ),
    },
    "de": {
        "ask": "Erzähle {n} Sätze vom {topic}.",
        "pattern": "{opener} {verb} der {topic} {thing} {place}.",
        "openers": ("Zuerst", "Dann", "Bald", "Später", "Danach", "Nun", "Am Ende", "Zuletzt"),
        "verbs": _words("fand trug malte verlor suchte putzte"),
        "things": ("das Boot", "die Kerze", "den Stein", "die Karte", "das Seil"),
        "places": ("am Fluss", "im Wald", "beim Turm", "auf dem Markt"),
    },
    "es": {
        "ask": "Cuenta {n} frases sobre el {topic}.",
        "pattern": "{opener} el {topic} {verb} {thing} {place}.",
        "openers": ("Primero", "Luego", "Pronto", "Después", "Entonces", "Ahora", "Al final", "Por fin"),
        "verbs": _words("encontró llevó pintó perdió siguió limpió"),
        "things": ("el barco", "la vela", "el mapa", "la piedra", "la cuerda"),
        "places": ("junto al río", "en el bosque", "en el mercado", "bajo el puente"),
    },
}
