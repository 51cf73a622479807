"""DICOM series to checked volumes: headers, kinds, preflight, conversion, comparison with the pixels."""
