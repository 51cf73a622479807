"""From a site's own files, DICOM or NIfTI, to checked b0, trace and ADC images."""

from mhsev_monai.ingest.array import LoadDWI
from mhsev_monai.ingest.bvals import find_bvals, read_bvals
from mhsev_monai.ingest.dictionary import LoadDWID, LoadDWId, LoadDWIDict
from mhsev_monai.ingest.identity import SubjectKeys
from mhsev_monai.ingest.nifti import DWISeries, read_dwi
from mhsev_monai.ingest.site import IngestSummary, bring_in, ingest
from mhsev_monai.ingest.source import look_through

__all__ = [
    "DWISeries",
    "IngestSummary",
    "LoadDWI",
    "LoadDWID",
    "LoadDWIDict",
    "LoadDWId",
    "SubjectKeys",
    "bring_in",
    "find_bvals",
    "ingest",
    "look_through",
    "read_bvals",
    "read_dwi",
]
