# nixpkgs' packages, as far as the flake uses them: every program is the host's own, every builder its bash.
# host.json, which the tests write, says where the host keeps its Python.
{
  system,
  config ? { },
}:
let
  lib = import ./lib.nix;
  host = builtins.fromJSON (builtins.readFile ./host.json);
  hosts = "/usr"; # each of the host's packages

  raw =
    attributes: script:
    derivation (
      {
        inherit system;
        builder = "/bin/bash"; # nix develop wants this name
        args = [
          "-ec"
          "eval \"$buildCommand\"; exit 0"
        ];
        buildCommand = script;
        outputs = [ "out" ]; # nix develop reads this
        PATH = host.path;
      }
      // attributes
    );
  # Of a known name and hash, so it lies in the store as soon as the tests have put it there.
  fetched =
    name: sha256:
    derivation {
      inherit system name;
      builder = "/not/in/the/store";
      outputHashMode = "flat";
      outputHashAlgo = "sha256";
      outputHash = sha256;
    };
  unfree =
    package: if config.allowUnfree or false then package else throw "this package is unfree: allow it in the config";
in
{
  inherit lib;

  stdenv = {
    cc = {
      outPath = hosts;
      cc.lib = hosts;
    };
    hostPlatform = {
      inherit system;
      parsed.cpu.name = builtins.head (builtins.match "(.+)-linux" system);
    };
  };

  python312 = {
    outPath = host.prefix;
    interpreter = host.python;
    pythonVersion = host.version;
  };
  cudaPackages_13 = builtins.mapAttrs (_: unfree) {
    cuda_nvcc = hosts;
    cuda_cudart = hosts;
    cudatoolkit = hosts;
  };
  ccache = hosts;
  cmake = hosts;
  gcc = hosts;
  git = hosts;
  ninja = hosts;
  numactl = hosts;
  openssh = hosts;
  uv = hosts;
  zlib = hosts;

  runCommand = name: attributes: raw ({ inherit name; } // attributes);
  writeText = name: text: raw { inherit name text; } ''printf '%s' "$text" >"$out"'';
  writeShellScript =
    name: text:
    raw { inherit name; script = "#!/bin/bash\n" + text; } ''printf '%s' "$script" >"$out"; chmod +x "$out"'';
  mkShell = attributes: raw ({ name = "shell"; } // attributes) "false";
  buildFHSEnv =
    {
      name,
      targetPkgs,
      profile,
      extraBwrapArgs,
      runScript,
    }:
    let
      packages = targetPkgs { };
    in
    raw { inherit name packages profile extraBwrapArgs runScript; } "mkdir $out"
    // {
      env = raw { inherit name packages; shellHook = profile; } "false";
    };

  fetchPypi =
    {
      pname,
      version,
      format ? "setuptools",
      dist ? "py2.py3",
      python ? "py2.py3",
      abi ? "none",
      platform ? "any",
      sha256,
    }:
    fetched "${pname}-${version}${if format == "wheel" then "-${python}-${abi}-${platform}.whl" else ".tar.gz"}" sha256;
  fetchurl =
    {
      name,
      url,
      sha256,
    }:
    fetched name sha256;
}
