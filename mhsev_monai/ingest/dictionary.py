"""Dictionary transform that loads a diffusion series."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from mhsev_monai.ingest.array import LoadDWI
from mhsev_monai.keys import SeverityKeys as Keys


class LoadDWId(MapTransform):
    """Dictionary version of :class:`~mhsev_monai.ingest.array.LoadDWI`.

    The entries with the paths are replaced by ``b0``, ``trace``, ``adc`` and ``scan``, so that no path travels on.

    Args:
        keys: the one entry that holds the path of the NIfTI file.
        bval_key: entry with the path of the ``.bval`` file; where it is absent or None, the file is searched by name.
        b0_only: every volume is b = 0, so no ``.bval`` file is needed.
        allow_missing_keys: return the dictionary as it came where ``keys`` is absent.

    Raises:
        ValueError: if ``keys`` names several entries: their images would overwrite each other.
    """

    backend = LoadDWI.backend

    def __init__(
        self,
        keys: KeysCollection = Keys.IMAGE,
        bval_key: str = "bval",
        b0_only: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one entry, got {len(self.keys)}; load each series on its own")
        self.bval_key = bval_key
        self.b0_only = b0_only
        self.loader = LoadDWI(b0_only=b0_only)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the series loaded; the one given is not changed.

        Raises:
            KeyError: if the entry with the path is absent and ``allow_missing_keys`` is false.
            ScanError: if the series cannot be used.
        """
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            entries = self.loader(loaded.pop(key), loaded.pop(self.bval_key, None))
            loaded.update(entries)
        return loaded


LoadDWID = LoadDWIDict = LoadDWId
