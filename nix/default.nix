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
  static = suite: import ./static.nix { inherit pkgs suite cpuEnv; };
}
