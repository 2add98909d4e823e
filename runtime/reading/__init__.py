"""From files to stored values and their table: what `spinescore.runtime.dicom` is built on."""
