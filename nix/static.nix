# Level static of the suite in the built environment: no network, no server.
{
  pkgs,
  suite,
  cpuEnv,
}:
pkgs.runCommand "conformance-static" { } ''
  cp -r ${suite} suite && chmod -R u+w suite && cd suite
  export LD_LIBRARY_PATH=${cpuEnv.libraries} HOME=$PWD
  ${cpuEnv}/bin/python -m pytest conformance/ --level static --evidence $out
''
