# Runs one of the checkout's scripts with the Python and the libraries of the shell.
{
  lib,
  pkgs,
  python,
  libraries,
  script,
}:
{
  type = "app";
  meta.description = "scripts/${script} of the checkout";
  program = "${pkgs.writeShellScript script ''
    export PATH=${lib.makeBinPath [ python pkgs.git pkgs.stdenv.cc ]}:$PATH PYTHON=${python.interpreter}
    export LD_LIBRARY_PATH=${lib.makeLibraryPath libraries}
    [ -x scripts/${script} ] || { echo "nix: there is no scripts/${script} here: enter the checkout first." >&2; exit 2; }
    exec scripts/${script} "$@"
  ''}";
}
