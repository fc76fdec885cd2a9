# The wheels of an environment as files of the store, each with its name and SHA-256 from wheels.json.
{
  lib,
  pkgs,
  python,
  folder,
  only ? null, # names of packages; null for all of them
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
  files = builtins.attrNames wanted;
  package = file: lib.replaceStrings [ "_" ] [ "-" ] (builtins.head (parts file));
  fileOf = builtins.listToAttrs (map (file: { name = package file; value = file; }) files);
  missing = name: throw "${toString folder}/wheels.json has no wheel for ${name}: run scripts/lock";
  chosen = if only == null then files else map (name: fileOf.${name} or (missing name)) only;
in
map (file: (if isOwn file then fromOwn else fromPypi) file wanted.${file}) chosen
