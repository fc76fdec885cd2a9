"""The miniature of Gemma-4-26B-A4B and its MTP draft: how it is tokenised, taught, quantised and examined."""
