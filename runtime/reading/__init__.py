"""Files, datasets and arrays to radiographs and studies: stored values, grey-scale table and facts of the header."""
