"""Results of a report for people and for other systems: pages, tables, pictures and DICOM objects.

`formats` has the one table of formats, `results` writes them to a folder. Of the formats:

- html: `html`, `cornertable` and `svg`, with `report.html`, `report.css` and `report.js`;
- png: `overlay`;
- csv: `rows`;
- sr: `structured`, `srheader`, `groups`, `contentitems` and `codes`;
- gsps: `presentation`;
- sc: `secondary`.

`marks` says where pictures have their marks, and `words` has the words that results share. The DICOM objects share
`source`, `dicomobjects` and `uids`. `crops`, `figures` and `markdown` serve the verbs.
"""
