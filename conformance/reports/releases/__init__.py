"""Releases of vLLM side by side: what each can be used for, as a page, a picture and advice in the terminal."""
