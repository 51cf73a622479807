"""What kind of acquisition a scan is, and where it lies in a BIDS root."""

from __future__ import annotations

from enum import StrEnum


class ScanContrast(StrEnum):
    """Acquisitions that can be processed; each has a folder, a suffix and perhaps an ``acq`` entity of its own.

    Only ``DWI`` brings diffusion weighting. The others serve as b0 alone: spin-echo EPI without gradients has the same
    contrast, T2*-GRE and SWI are the sequences that show microbleeds best. A T2*-weighted EPI counts as T2*-GRE.
    """

    DWI = "dwi"
    SE_EPI = "se-epi"
    T2STAR = "t2star"
    SWI = "swi"

    @property
    def folder(self) -> str:
        """The BIDS data type."""
        return "dwi" if self in (ScanContrast.DWI, ScanContrast.SE_EPI) else "anat"

    @property
    def suffix(self) -> str:
        """The BIDS suffix."""
        return "dwi" if self in (ScanContrast.DWI, ScanContrast.SE_EPI) else "T2starw"

    @property
    def acquisition(self) -> str | None:
        """The label of the entity ``acq`` that tells two contrasts of one suffix apart."""
        return {ScanContrast.SE_EPI: "seepi", ScanContrast.SWI: "swi"}.get(self)

    @property
    def b0_only(self) -> bool:
        """Whether no volume is diffusion-weighted."""
        return self is not ScanContrast.DWI

    def matches(self, stem: str) -> bool:
        """Whether a file name without its ending is one of this contrast's."""
        *entities, suffix = stem.split("_")
        labels = {entity.removeprefix("acq-") for entity in entities if entity.startswith("acq-")}
        marked = {other.acquisition for other in ScanContrast if other.acquisition} & labels
        return suffix == self.suffix and marked == ({self.acquisition} if self.acquisition else set())
