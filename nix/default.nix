# What the flake offers for one system. The versions of Python packages are in envs/*/lock.txt only.
{ lib, pkgs }:
let
  # Any of 3.11 to 3.13; the locks hold wheels for all three.
  python = pkgs.python312;

  # Libraries that the wheels link but do not contain.
  libraries = [
    pkgs.stdenv.cc.cc.lib
    pkgs.numactl
    pkgs.zlib
  ];

  # Installs into .venv what the environment's lock names, and activates it.
  enter =
    environment:
    import ./enter.nix {
      inherit environment;
      interpreter = python.interpreter;
    };
in
rec {
  shell = environment: import ./shell.nix { inherit lib pkgs python libraries; enter = enter environment; };
  fhs = environment: import ./fhs.nix { inherit lib pkgs python libraries environment; enter = enter environment; };
  app = script: import ./app.nix { inherit lib pkgs python libraries script; };
  cpuEnv = import ./cpu-env.nix { inherit lib pkgs python libraries; folder = ../envs/cpu; };
  fromSdist = suite: release: import ./from-sdist.nix { inherit lib pkgs python cpuEnv suite release; };

  # What `nix flake check` builds. The tests are those that need neither a server nor programs of the host.
  checks =
    suite: shells:
    let
      check = name: command: import ./check.nix { inherit pkgs suite cpuEnv name command; };
    in
    {
      static = check "static" "python -m pytest conformance/ --level static --evidence $out";
      format = check "format" "ruff format --check .; ruff check .";
      tests = check "tests" "python -m pytest tests/formats tests/judging tests/profile";
      # Only evaluated: the paths that the shells would have.
      shells = pkgs.writeText "conformance-shells" (
        lib.concatMapStrings (shell: builtins.unsafeDiscardStringContext shell.drvPath + "\n") (lib.attrValues shells)
      );
    };
}
