"""Files, datasets and arrays to radiographs and studies: stored values, their grey-scale table, and the header's facts."""
