"""How single steps of decoding run: their time, and their CUDA graphs."""
