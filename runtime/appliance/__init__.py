"""The appliance: studies arrive from sources, are scored, and their results go to destinations; none is lost.

    source --> spool.receive --> studies --> dispatch --> worker --> delivery --> destination
               objects on disk   states      one study    Scorer     one row a     folder, archive ..
               and in the index              at a time                file

`Spool.receive` is the seam for sources: it returns only when the object is on disk and in the index. A network source
acknowledges an object after that, and never before. `delivery.Destination` is the seam for destinations: one method
sends a result file, another one asks if it is there already. Any process may end at any line: each step is committed
to the index (`index`), and the next start goes on from there (`recovery`).

Nothing of `spinescore.runtime` outside this folder and the verbs imports it.
"""
