"""Many studies into tables: a manifest of a whole archive, shards of studies, and processes that score them.

The folder of the tables has one Parquet file for each shard, `archive.json` with what all shards share, and a folder
`work` with the manifest and the log. Every file is written whole or not at all, and what is not there is still to do.
A run can therefore end at any line, and the same command goes on.

    walk, dicomweb          the files of a folder tree or a list, the studies of a server, in an order that can go on
    scan -> studylists      headers to pieces, pieces to lists of studies; `manifest` does both once
    run -> crews -> local   the shards that are to do, how many processes, the processes; or rayway: actors of Ray
    workerprocess, scoring  the process that holds the scorer; a study to rows
    layout, status          the files in the folder; what it holds
"""
