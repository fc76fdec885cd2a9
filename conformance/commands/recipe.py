"""``qualify recipe``: judge exactly what a recipe of vllm-project/recipes launches."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from conformance import FIXTURES
from conformance.commands import qualify
from conformance.commands.output.documents import print_to_stderr, write, writing
from conformance.commands.parsers import Subparsers, add_command, add_judging
from conformance.errors import UsageError
from conformance.judging.verdict import ExitCode
from conformance.profile.profile import every_hardware, load_pair
from conformance.profile.recipes import Recipe, as_profile, as_toml, find_recipe, read_recipe, recipe_hardware
from conformance.run.options import RUN, SHOW, add_to_command
from conformance.run.session import DEFAULT_LEVEL, detect_hardware

TEMPLATE = "--chat-template"  # a file, or a text of Jinja
TAKEN = ("hardware", "unlocked", "image", "container", "level", "evidence")


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "recipe", "judge what a recipe of vllm-project/recipes launches", run)
    parser.add_argument(
        "recipe", metavar="RECIPE", help="the YAML file of a recipe, or its name in --recipes, such as gemma-4-31B-it"
    )
    parser.add_argument("--recipes", type=Path, metavar="FOLDER", help="a checkout of vllm-project/recipes")
    parser.add_argument("--variant", default="default", metavar="NAME", help="variant of the recipe (default: default)")
    parser.add_argument(
        "--features", nargs="*", metavar="NAME", help="features to switch on (default: all that are not opt-in)"
    )
    parser.add_argument(
        "--into", type=Path, default=Path("recipe"), metavar="FOLDER",
        help="folder of the pair and the hardware profile that the recipe becomes (default: recipe)",
    )  # fmt: skip
    parser.add_argument("--only-write", action="store_true", help="write both files, and start nothing")
    add_to_command(parser, [*(option for option in RUN if option.name in TAKEN), SHOW])
    add_judging(parser)


def run(options: argparse.Namespace) -> int:
    """Write the recipe as a profile, and judge it.

    Raises:
        UsageError: the recipe has no such variant or hardware, or launches no MTP.
    """
    pair, hardware = write_profile(options)
    print_to_stderr(f"{options.recipe} is the pair {pair} on the hardware {hardware}\n")
    if options.only_write:
        return ExitCode.QUALIFIED
    words = [f"--pair={pair}", f"--hardware={hardware}", f"--level={options.level or DEFAULT_LEVEL}"]
    given = [name for name in TAKEN if name not in ("hardware", "level", "unlocked") and getattr(options, name)]
    words += [f"--{name}={getattr(options, name)}" for name in given]
    return qualify.judge([*words, f"--show={options.show}", *["--unlocked"] * options.unlocked], options)


def write_profile(options: argparse.Namespace) -> tuple[Path, Path]:
    """The files of pair and hardware.

    Raises:
        UsageError: the recipe does not fit, or the files cannot be written.
    """
    name = options.hardware or detect_hardware()
    known = {each.name: each for each in every_hardware()}
    names = recipe_hardware()
    if name not in known or name not in names:
        raise UsageError(f"Hardware {name} has no name in recipes; choose by --hardware one of {', '.join(names)}.")
    path = find_recipe(options.recipe, options.recipes) if options.recipes else Path(options.recipe)
    recipe = with_files(read_recipe(path, options.variant, names[name], options.features), options.image)
    pairs = [load_pair(path) for path in sorted((FIXTURES / "models").glob("*.toml"))]
    pair, hardware = as_profile(recipe, known[name], pairs)
    with writing(options.into):
        options.into.mkdir(parents=True, exist_ok=True)
    files = options.into / f"{pair.name}.toml", options.into / f"{hardware.name}.toml"
    write(files[0], as_toml(pair, "name", "home"))
    write(files[1], as_toml(hardware, "name"))
    return files


def with_files(recipe: Recipe, image: str | None) -> Recipe:
    """The recipe with the full path of its chat template, unless an image has it.

    Raises:
        UsageError: the file does not exist.
    """
    words = list(recipe.arguments)
    for place, value in enumerate(words[1:], 1):
        if words[place - 1] == TEMPLATE and "{" not in value and not image:
            if not Path(value).is_file():
                mend = "start in a checkout of vLLM, which has it, or choose --features without tool_calling"
                raise UsageError(f"{recipe.title}: {TEMPLATE} {value} is no file here; {mend}.")
            words[place] = str(Path(value).absolute())
    return replace(recipe, arguments=tuple(words))
