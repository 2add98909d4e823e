"""Many studies into tables: a manifest of a whole archive, shards of studies, and processes that score them.

The folder of the tables has one Parquet file for each shard, `archive.json` with what all shards share, and a folder
`work` with the manifest and the log. Every file is written whole or not at all, and what is not there is still to do.
A run can therefore end at any line, and the same command goes on.
"""
