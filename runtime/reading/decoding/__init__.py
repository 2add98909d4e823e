"""Compressed pixels: the table of transfer syntaxes, the codecs that are installed, and the processes that run them."""
