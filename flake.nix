{
  description = "Does this vLLM build, on this hardware, run Gemma 4 with multi-token prediction right and fast?";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/d407951447dcd00442e97087bf374aad70c04cea";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # Only CUDA's compiler is unfree.
      packagesOf = system: import nixpkgs { inherit system; config.allowUnfree = true; };
      shells = nix: {
        default = nix.shell "cpu";
        cuda = (nix.fhs "cuda").env;
        "cuda-0.32" = (nix.fhs "cuda-0.32").env;
        first-mtp = (nix.fhs "first-mtp").env;
        pr-41745 = (nix.fhs "pr-41745").env;
      };
      perSystem = make: lib.genAttrs systems (system: make (import ./nix { inherit lib; pkgs = packagesOf system; }));
    in
    {
      devShells = perSystem shells;

      packages = perSystem (nix: {
        cpu-env = nix.cpuEnv;
        # The environments of the shells, for a single command: nix run .#cuda -- -c 'pytest conformance/'
        cuda = nix.fhs "cuda";
        "cuda-0.32" = nix.fhs "cuda-0.32";
        first-mtp = nix.fhs "first-mtp";
        pr-41745 = nix.fhs "pr-41745";
        # The pull request's first release, built from its sdist in the sandbox; without kernels.
        pr-41745-empty = nix.fromSdist self "0.21.0";
      });

      apps = perSystem (nix: {
        qualify = nix.app "qualify";
        test = nix.app "test";
      });

      checks = perSystem (nix: nix.checks self (shells nix));
    };
}
