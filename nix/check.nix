# A command in the checkout with the built environment: no network, no server.
{
  pkgs,
  suite,
  cpuEnv,
  name,
  command,
}:
pkgs.runCommand "conformance-${name}" { } ''
  cp -r ${suite} suite && chmod -R u+w suite && cd suite
  export LD_LIBRARY_PATH=${cpuEnv.libraries} HOME=$PWD PATH=${cpuEnv}/bin:$PATH
  export PYTHONPYCACHEPREFIX=$PWD/bytecode # the environment has none, and nobody can write into the store
  ${command}
  mkdir -p $out
''
