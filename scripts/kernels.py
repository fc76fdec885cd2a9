"""For scripts/build_vllm_pr: which kernels can be compiled on this machine, with what, and for which GPUs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMORY_PER_JOB = {"cuda": 8 << 30, "cpu": 4 << 30}  # bytes: the most that one compiler of vLLM's kernels needs
OLDEST_GCC = (12, 3)  # vLLM's cmake/cpu_extension.cmake, on x86-64
OWN_INSTRUCTIONS = 90  # compute capability times ten; from here on kernels use instructions of one architecture ("a")
WHEEL = "VLLM_PRECOMPILED_WHEEL_LOCATION"


class Refusal(Exception):
    """The reason why there is no build, in one sentence."""


def kernels(target: str, precompiled: str | None, dry_run: bool) -> dict[str, str]:
    """The variables that vLLM's build reads; Refusal if there is no such wheel, or kernels cannot be compiled here."""
    device = {} if target == "cuda" else {"VLLM_TARGET_DEVICE": target}
    if precompiled is not None:
        return device | {"VLLM_USE_PRECOMPILED": "1"} | ({WHEEL: local(precompiled, target)} if precompiled else {})
    if target == "empty":
        return device
    if target == "cpu" and not dry_run:
        check_compiler()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    jobs = max(1, min(os.cpu_count() or 1, memory // MEMORY_PER_JOB[target]))
    return (
        device
        | (cuda(dry_run) if target == "cuda" else {})
        | {
            "MAX_JOBS": os.environ.get("MAX_JOBS") or str(jobs),
            "CCACHE_DIR": os.environ.get("CCACHE_DIR") or str(ROOT / "build/ccache"),
            "CCACHE_NOHASHDIR": "true",
            "CCACHE_BASEDIR": str(ROOT),  # what two commits have in common is compiled once
        }
    )


def local(wheel: str, target: str) -> str:
    """The whole path of a wheel; Refusal if it is not there, or its kernels are for another torch."""
    path = Path(wheel).resolve()
    if not zipfile.is_zipfile(path):
        raise Refusal(f"{wheel} is no wheel: name one of vLLM, or leave it out to take the published kernels.")
    with zipfile.ZipFile(path) as archive:
        metadata = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lock = "envs/pr-41745/lock.txt" if target == "cuda" else "envs/cpu/lock.txt"
    wanted = re.search(r"^Requires-Dist: torch==([\d.]+)", "".join(metadata), re.MULTILINE)
    here = re.search(r"^torch==([\d.]+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE)
    if wanted and here and wanted[1] != here[1]:
        raise Refusal(
            f"{wheel} has kernels for torch {wanted[1]}, and {lock} has torch {here[1]}: they cannot be loaded; name a"
            f" wheel for torch {here[1]}."
        )
    return str(path)


def cuda(dry_run: bool) -> dict[str, str]:
    """Where nvcc is, and the GPUs to compile for; Refusal without nvcc."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if nvcc is None and not dry_run:
        raise Refusal("nvcc is not on PATH and not in CUDA_HOME: install CUDA 13's compiler, or use --precompiled.")
    home = str(Path(nvcc).resolve().parent.parent) if nvcc else home
    return {
        "CUDA_HOME": home,
        "TRITON_PTXAS_PATH": f"{home}/bin/ptxas",  # Triton's own does not know GB10
        "TORCH_CUDA_ARCH_LIST": architectures(dry_run),
    }


def cache() -> str:
    """Whether ccache will be used; vLLM's build takes the one on PATH."""
    found = shutil.which("ccache")
    return f"ccache is used ({found})" if found else "ccache is not on PATH, so every object is compiled"


def compiler() -> str:
    """The C++ compiler that CMake takes."""
    return os.environ.get("CXX") or "c++"


def check_compiler() -> None:
    """Refusal if the C++ compiler cannot build vLLM's CPU kernels."""
    mend = "install GCC 12.3 or newer (g++ of Debian 13 and Ubuntu 24.04), and set CC and CXX if it has another name"
    asked = (compiler(), "-dM", "-E", "-x", "c++", "/dev/null")
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise Refusal(f"{compiler()} is no C++ compiler here: {mend}.") from None
    macros = dict(re.findall(r"^#define (__\w+__) (\d+)$", said, re.MULTILINE))
    version = (int(macros.get("__GNUC__", 0)), int(macros.get("__GNUC_MINOR__", 0)))
    if platform.machine() == "x86_64" and ("__clang__" in macros or version < OLDEST_GCC):
        what = "Clang" if "__clang__" in macros else f"GCC {version[0]}.{version[1]}"
        raise Refusal(f"{compiler()} is {what}, and vLLM's CPU kernels need another compiler: {mend}.")
    numa = subprocess.run((compiler(), "-E", "-"), input="#include <numa.h>\n", capture_output=True, text=True)
    if numa.returncode:
        raise Refusal(f"{compiler()} finds no numa.h: install libnuma's headers (libnuma-dev, numactl-devel).")


def architectures(dry_run: bool) -> str:
    """What TORCH_CUDA_ARCH_LIST says, or else the GPUs here; Refusal if neither is known."""
    if stated := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return stated
    try:
        query = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
        found = sorted(set(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()), key=float)
    except (OSError, subprocess.CalledProcessError):
        found = []
    if not found and not dry_run:
        raise Refusal("nvidia-smi shows no GPU here: set TORCH_CUDA_ARCH_LIST, for example 12.1a for a DGX Spark.")
    return ";".join(own_instructions(capability) for capability in found) or "of-this-machine"


def own_instructions(capability: str) -> str:
    """``12.1`` becomes ``12.1a``; older capabilities stay as they are."""
    return f"{capability}a" if round(float(capability) * 10) >= OWN_INSTRUCTIONS else capability
