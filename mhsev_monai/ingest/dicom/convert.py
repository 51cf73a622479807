"""DICOM to NIfTI by dcm2niix (Li et al., J Neurosci Methods 264:47, 2016), in a child that may crash.

Damaged headers crash dcm2niix, and it reports success for scrambled volumes; so its exit status means little, its
words are not shown (they quote the headers), and what it wrote is checked by ``verify``.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsev_monai.errors import ScanError

_SECONDS = 600
_MEMORY_PER_BYTE, _LEAST_MEMORY = 12, 2 * 2**30
_LEAST_DISK = 2**30
# -p n: values are what the DICOM rescale makes of them. -m y: one image, whatever jitters between its slices; what must
# not differ was checked before. -x i: neither cropped nor turned. -ba y: no names or dates; the rest is cut off later.
_OPTIONS = (
    *("-z", "n", "-b", "y", "-ba", "y", "-p", "n", "-m", "y", "-x", "i", "-i", "n", "-l", "o"),
    *("-w", "2", "-v", "0", "-f", "image"),
)


@dataclass(frozen=True)
class ChildLimits:
    """What a conversion may take before it is ended.

    Attributes:
        seconds: wall-clock and processor time.
        memory: bytes of address space; None: 2 GiB, or 12 times the size of the files if that is more.
    """

    seconds: int = _SECONDS
    memory: int | None = None


@dataclass(frozen=True)
class Converted:
    """Files that dcm2niix wrote for one volume."""

    image: Path
    bvals: Path | None
    bvecs: Path | None
    sidecar: dict[str, Any]


def converter() -> Path:
    """The dcm2niix program of the installed wheel.

    Raises:
        ImportError: if the extra ``dicom`` is not installed.
    """
    missing = [name for name in ("dcm2niix", "pydicom") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"DICOM needs {' and '.join(missing)}; install them with: pip install 'mhsev[dicom]'")
    import dcm2niix

    return Path(dcm2niix.bin)


def convert(files: Sequence[Path], work: Path, limits: ChildLimits | None = None) -> Converted:
    """Convert the files of one series, and nothing else, into one image.

    Args:
        files: DICOM files.
        work: an empty folder for links and results.
        limits: of the child.

    Raises:
        ScanError: if the converter fails, takes too long, or writes more or less than one image.
    """
    limits = limits or ChildLimits()
    source, target = work / "in", work / "out"
    source.mkdir()
    target.mkdir()
    for number, file in enumerate(files):
        # Numbers for names: a file's own name may be a patient's, and names may collide.
        (source / f"{number:06d}.dcm").symlink_to(file.resolve())
    size = sum(file.stat().st_size for file in files)
    _run(source, target, limits, size)
    images = sorted(target.glob("*.nii"))
    if not images:
        raise ScanError("the converter made no image of the series; export it again, or give it as NIfTI")
    if len(images) > 1:
        raise ScanError(
            f"the converter made {len(images)} images of the series, 1 is accepted: it mixes acquisitions; "
            "export each as a series of its own"
        )
    image = images[0]
    bvals, bvecs, sidecar = (image.with_suffix(ending) for ending in (".bval", ".bvec", ".json"))
    return Converted(
        image, bvals if bvals.is_file() else None, bvecs if bvecs.is_file() else None, _read_sidecar(sidecar)
    )


def _run(source: Path, target: Path, limits: ChildLimits, size: int) -> None:
    command = [str(converter()), *_OPTIONS, "-o", str(target), str(source)]
    # Its own home: dcm2niix would read settings from there. Its words are dropped: they quote the headers.
    environment = {"HOME": str(target), "LANG": "C", "TMPDIR": str(target)}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=target,
        env=environment,
        start_new_session=True,
    ) as child:
        _limit(child.pid, limits, size)
        try:
            child.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            raise ScanError(
                f"the converter was ended after {limits.seconds} s; export the series again, or give it as NIfTI"
            ) from None
        except BaseException:
            child.kill()
            raise


def _limit(pid: int, limits: ChildLimits, size: int) -> None:
    """Bound a child that has just started; it can neither fill memory nor disk, nor leave a core dump of headers."""
    memory = limits.memory or max(_LEAST_MEMORY, _MEMORY_PER_BYTE * size)
    bounds = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: limits.seconds,
        resource.RLIMIT_FSIZE: _LEAST_DISK + 8 * size,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in bounds.items():
        try:
            resource.prlimit(pid, what, (most, most))
        except (ProcessLookupError, PermissionError):
            # Already done; or a hard limit below ours is in force, which bounds it as well.
            return


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(errors="replace"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
