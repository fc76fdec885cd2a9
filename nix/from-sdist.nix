# vLLM with Gemma 4's MTP draft, and its transformers, from their sdists in a copy of the CPU environment; without
# kernels and without network. scripts/build_vllm_pr builds here too, so that there is one recipe.
{
  lib,
  pkgs,
  python,
  cpuEnv,
  suite,
  release,
}:
let
  folder = ../envs/pr-41745;
  lines = file: lib.filter (line: line != "" && !lib.hasPrefix "#" line) (lib.splitString "\n" (builtins.readFile file));
  wheels = import ./wheels.nix {
    inherit lib pkgs python folder;
    only = lines (folder + "/build-tools.txt") ++ lines (folder + "/of-its-time.txt");
  };
  sdist =
    line:
    let
      part = builtins.elemAt (builtins.match "([^=]+)==([^ ]+) --hash=sha256:([0-9a-f]+)" line);
    in
    pkgs.fetchPypi {
      pname = part 0;
      version = part 1;
      sha256 = part 2;
    };
in
pkgs.runCommand "conformance-vllm-${release}-empty"
  {
    nativeBuildInputs = [ python ];
    files = wheels ++ map sdist (lines (folder + "/sdists/${release}.txt"));
  }
  ''
    cp -r ${cpuEnv} $out && chmod -R u+w $out
    cp -r ${suite} suite && chmod -R u+w suite && cd suite
    ln -s $out .venv
    mkdir files
    for file in $files; do
      name=''${file##*/} # the store puts a hash before the name
      ln -s $file files/''${name#*-}
    done
    export HOME=$PWD PYTHON=${python.interpreter} LD_LIBRARY_PATH=${cpuEnv.libraries}
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/files UV_OFFLINE=1
    # 1: it is built, and level static names what this release does wrong.
    ${python.interpreter} scripts/build_vllm_pr --release ${release} --target empty || [ $? = 1 ]
    cp -r evidence $out/evidence
    $out/bin/python -m pip uninstall --yes gemma4-mtp-conformance # it is this folder
    # Scripts name their Python by the folder in which they were made.
    moved="s,$PWD/.venv,$out,g; s,$(basename ${cpuEnv}),$(basename $out),g"
    find $out/bin $out/pyvenv.cfg -type f -exec grep -qI . {} ';' -exec sed -i "$moved" {} +
    cd .. && rm -r suite
    $out/bin/python ${./finds-the-draft.py}
    # The store changes the times of files, so bytecode is of no use; it names folders too.
    find $out -name __pycache__ -prune -exec rm -r {} +
  ''
