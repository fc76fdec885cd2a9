# nixpkgs' lib, as far as the flake uses it.
rec {
  inherit (builtins) attrValues replaceStrings filter;
  concatMapStrings = make: list: builtins.concatStringsSep "" (map make list);
  genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
  optionals = condition: list: if condition then list else [ ];
  last = list: builtins.elemAt list (builtins.length list - 1);
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  splitString = separator: text: filter builtins.isString (builtins.split separator text);
  makeSearchPath = folder: packages: builtins.concatStringsSep ":" (map (package: "${package}/${folder}") packages);
  makeLibraryPath = makeSearchPath "lib";
  makeBinPath = makeSearchPath "bin";
}
