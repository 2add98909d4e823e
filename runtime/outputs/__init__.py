"""Results for other systems and for people: pages, table rows and DICOM objects from a report."""
