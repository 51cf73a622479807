"""From files on disk to checked b0, trace and ADC images."""

from mhsev_monai.ingest.array import LoadDWI
from mhsev_monai.ingest.bvals import find_bvals, read_bvals
from mhsev_monai.ingest.dictionary import LoadDWID, LoadDWId, LoadDWIDict
from mhsev_monai.ingest.nifti import DWISeries, read_dwi

__all__ = [
    "DWISeries",
    "LoadDWI",
    "LoadDWID",
    "LoadDWIDict",
    "LoadDWId",
    "find_bvals",
    "read_bvals",
    "read_dwi",
]
