# What the flake offers for one system. Nothing here names a version of a Python package: envs/*/lock.txt does.
{ lib, pkgs }:
let
  # Any of 3.11 to 3.13; the locks hold wheels for all three.
  python = pkgs.python312;

  # What the wheels link and do not bring along.
  libraries = [
    pkgs.stdenv.cc.cc.lib
    pkgs.numactl
    pkgs.zlib
  ];

  # Makes .venv what the environment's lock says, and enters it.
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
  static = suite: import ./static.nix { inherit pkgs suite cpuEnv; };
}
