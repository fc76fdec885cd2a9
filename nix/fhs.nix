# A shell for CUDA's wheels. They expect libraries, a compiler and the driver where an ordinary Linux has them.
# Why the wheels are not patched instead: docs/adr/0006-an-ordinary-linux-for-cuda.md
{
  lib,
  pkgs,
  python,
  libraries,
  environment,
  enter,
}:
let
  fromSource = environment == "pr-41745";
  cuda = pkgs.cudaPackages_13;
  hostLibraries = "/usr/lib/${pkgs.stdenv.hostPlatform.parsed.cpu.name}-linux-gnu";
in
pkgs.buildFHSEnv {
  name = environment;
  targetPkgs =
    _:
    libraries
    ++ [
      python
      pkgs.git
      pkgs.uv
      pkgs.gcc # Triton and torch.compile build small modules while the server starts
      cuda.cuda_nvcc # FlashInfer compiles kernels for new GPUs, and so does scripts/build_vllm_pr
      cuda.cuda_cudart
      pkgs.openssh # scripts/qualify sign
    ]
    ++ lib.optionals fromSource [
      pkgs.ccache
      pkgs.cmake
      pkgs.ninja
      cuda.cudatoolkit
    ];
  # On other systems than NixOS the driver's libraries are among the host's own, and most of these must stay hidden.
  extraBwrapArgs = [ "--ro-bind-try ${hostLibraries} /run/host-libraries" ];
  profile = builtins.readFile ./driver.sh + enter;
  runScript = "bash";
}
