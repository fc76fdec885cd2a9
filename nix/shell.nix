# A shell in the checkout, with a .venv of wheels whose hashes were checked.
{
  lib,
  pkgs,
  python,
  libraries,
  enter,
}:
pkgs.mkShell {
  packages = [
    python
    pkgs.git
    pkgs.uv
  ];
  LD_LIBRARY_PATH = lib.makeLibraryPath libraries;
  shellHook = enter;
}
