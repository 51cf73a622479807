"""DCMTK's storescp as a PACS that takes some kinds of object and refuses all others in the negotiation."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest
from orthanc_server import AET, free_port, wait_until
from pydicom import dcmread

needs_storescp = pytest.mark.skipif(shutil.which("storescp") is None, reason="needs storescp: apt-get install dcmtk")

_PROFILE = """
[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = {syntax}
[[PresentationContexts]]
[Some]
{contexts}
[[Profiles]]
[Storage]
PresentationContexts = Some
"""


class SelectivePacs:
    """One that listens; its port stays when it is started again with other kinds.

    Args:
        folder: made; gets what it is sent, and its profile.
        sop_classes: that it takes.
        syntax: as DCMTK names it.
    """

    def __init__(self, folder: Path, sop_classes: Collection[str], syntax: str = "LittleEndianExplicit") -> None:
        self.port = free_port()
        self._folder = folder
        (folder / "got").mkdir(parents=True)
        self.start(sop_classes, syntax)

    def start(self, sop_classes: Collection[str], syntax: str = "LittleEndianExplicit") -> None:
        """Listen; returns once it answers."""
        contexts = (f"PresentationContext{n} = {uid}\\Plain" for n, uid in enumerate(sop_classes, 1))
        profile = self._folder / "profile.cfg"
        profile.write_text(_PROFILE.format(syntax=syntax, contexts="\n".join(contexts)))
        command = ["storescp", "-od", str(self._folder / "got"), "-xf", str(profile), "Storage", "-aet", AET]
        output = subprocess.DEVNULL
        self._process = subprocess.Popen([*command, str(self.port)], stdout=output, stderr=output)
        echo = ["echoscu", "127.0.0.1", str(self.port)]
        # No Verification in the profile: an association that is answered at all is enough.
        wait_until(lambda: b"TCP" not in subprocess.run(echo, capture_output=True).stderr, what="storescp")

    def got(self) -> dict[str, str]:
        """SOP class of each object that it keeps, by SOP Instance UID."""
        kept = [dcmread(path) for path in (self._folder / "got").iterdir()]
        return {str(data.SOPInstanceUID): str(data.SOPClassUID) for data in kept}

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)
