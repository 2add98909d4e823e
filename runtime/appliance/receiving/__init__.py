"""Where studies come from: the DICOM node behind its guard, watched folders, and Orthanc."""
