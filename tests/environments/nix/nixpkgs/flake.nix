{
  description = "A stand-in for nixpkgs: the names that the flake uses, made of the host's own programs";
  outputs = _: { lib = import ./lib.nix; };
}
