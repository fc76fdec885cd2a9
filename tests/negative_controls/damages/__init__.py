"""The negative controls of every check, family by family: what must fail, and what must be an ERROR."""

from __future__ import annotations

from negative_controls.damages import answers, arms, chat, features, inside, load, soak, static

FAMILIES = (static, inside, arms, answers, chat, load, features, soak)
DAMAGES = [row for family in FAMILIES for row in family.DAMAGES]
NOTHING = [row for family in FAMILIES for row in family.NOTHING]
# If the two clients of SPEED-04 differ, that is an ERROR, never a FAIL. So its negative controls are in NOTHING.
INSTRUMENTS = {"SPEED-04"}
# Each of their documents is one answer, so there is no set that could be empty.
SINGLE_ANSWERS = {"ENV-02", "ENV-03", "CKPT-07", "MOE-02", "DRAFT-10"}
