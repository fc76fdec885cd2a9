# The wheels of an environment as files of the store, each with its name and SHA-256 from wheels.json.
{
  lib,
  pkgs,
  python,
  folder,
}:
let
  known = builtins.fromJSON (builtins.readFile (folder + "/wheels.json"));
  tag = "cp" + lib.replaceStrings [ "." ] [ "" ] python.pythonVersion;
  wanted = known.${pkgs.stdenv.hostPlatform.system}.${tag};

  # torch's wheels may come from an index of their own, which index.txt names.
  own = folder + "/index.txt";
  ownLine = lib.last (lib.filter (line: line != "") (lib.splitString "\n" (builtins.readFile own)));
  isOwn = file: builtins.pathExists own && lib.hasPrefix "torch-" file;

  parts = file: builtins.match "([^-]+)-(.+)-([^-]+)-([^-]+)-([^-]+)\\.whl" file;
  fromPypi =
    file: sha256:
    let
      part = builtins.elemAt (parts file);
    in
    pkgs.fetchPypi {
      pname = part 0;
      version = part 1;
      format = "wheel";
      dist = part 2;
      python = part 2;
      abi = part 3;
      platform = part 4;
      inherit sha256;
    };
  fromOwn =
    file: sha256:
    pkgs.fetchurl {
      name = file;
      url = "${ownLine}/${lib.replaceStrings [ "+" ] [ "%2B" ] file}";
      inherit sha256;
    };
in
lib.mapAttrsToList (file: sha256: (if isOwn file then fromOwn else fromPypi) file sha256) wanted
