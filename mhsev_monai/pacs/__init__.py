"""DICOM in, DICOM out: result objects for a PACS, and the gateway that exchanges them with it."""
