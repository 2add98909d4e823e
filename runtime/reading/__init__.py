"""From files to stored values and their table: what `spinescore.runtime.reading.studies` is built on."""
