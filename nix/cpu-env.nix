# The CPU environment as one store path, built without network. Nix checks the hash of every file, and pip checks it
# again with the lock.
{
  lib,
  pkgs,
  python,
  libraries,
  folder,
}:
let
  wheels = import ./wheels.nix { inherit lib pkgs python folder; };
in
pkgs.runCommand "conformance-cpu-env"
  {
    nativeBuildInputs = [ python ];
    inherit wheels;
    libraries = lib.makeLibraryPath libraries;
  }
  ''
    ${python.interpreter} -m venv $out
    mkdir wheels
    for wheel in $wheels; do
      name=''${wheel##*/} # the store puts a hash before the name
      ln -s $wheel wheels/''${name#*-}
    done
    $out/bin/python -m pip install --no-index --find-links wheels --no-deps --require-hashes \
      --no-cache-dir --no-compile --disable-pip-version-check -r ${folder}/lock.txt
    export LD_LIBRARY_PATH=$libraries HOME=$PWD
    $out/bin/python -B ${./finds-the-draft.py}
  ''
