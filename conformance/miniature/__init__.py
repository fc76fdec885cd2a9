"""The miniature of Gemma-4-26B-A4B and its MTP draft: tokenizer, training, quantisation and evaluation."""
